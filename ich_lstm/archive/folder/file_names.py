"""Names of the files in a folder of predictions, shared by the code that writes them and the code that reads them."""

SLICES, SCANS, WORKLIST, MANIFEST = "slices.csv", "scans.csv", "worklist.csv", "manifest.json"
PAGES, INDEX_PAGE = "pages", "index.html"

KEY_TABLE, LEDGER_TABLE, SERIES_TABLE, SUBMISSION = "key.csv", "ledger.csv", "series.csv", "submission.csv"
RECORDS, BEGUN, ARRIVALS, LOCK = "studies", "begun.json", "arrivals.json", "lock"
"""These are private. The folder of each export, private or not, bears the export's name."""

PREDICTED = "ok"
"""Status of a study that has probabilities; of others it is the reason's code."""
