"""What lies in a folder of predictions, by name: those who write it and those who read it take it from here."""

SLICES, SCANS, WORKLIST, MANIFEST = "slices.csv", "scans.csv", "worklist.csv", "manifest.json"
PAGES, INDEX_PAGE = "pages", "index.html"

KEY_TABLE, LEDGER_TABLE, SERIES_TABLE, SUBMISSION = "key.csv", "ledger.csv", "series.csv", "submission.csv"
DICOM, RECORDS, BEGUN, ARRIVALS, LOCK = "dicom", "studies", "begun.json", "arrivals.json", "lock"
"""These are private."""

PREDICTED = "ok"
"""Status of a study that has probabilities; of others it is the reason's code."""
