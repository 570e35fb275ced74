"""Names of the files in a folder of predictions, shared by the code that writes them and the code that reads them."""

SLICES, SCANS, WORKLIST, MANIFEST = "slices.csv", "scans.csv", "worklist.csv", "manifest.json"
PAGES, INDEX_PAGE = "pages", "index.html"

KEY_TABLE, LEDGER_TABLE, SERIES_TABLE, SUBMISSION = "key.csv", "ledger.csv", "series.csv", "submission.csv"
DICOM, RECORDS, BEGUN, ARRIVALS, LOCK = "dicom", "studies", "begun.json", "arrivals.json", "lock"
"""These are private."""

PREDICTED = "ok"
"""Status of a study that has probabilities; of others it is the reason's code."""
