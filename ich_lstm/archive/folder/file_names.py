"""File names in a folder of predictions, shared by the code that writes the files and the code that reads them."""

SLICES, SCANS, WORKLIST, MANIFEST = "slices.csv", "scans.csv", "worklist.csv", "manifest.json"
PAGES, INDEX_PAGE = "pages", "index.html"

KEY_TABLE, LEDGER_TABLE, SERIES_TABLE, SUBMISSION = "key.csv", "ledger.csv", "series.csv", "submission.csv"
RECORDS, BEGUN, ARRIVALS, LOCK = "studies", "begun.json", "arrivals.json", "lock"
"""Names of private files. The folder of each export, private or not, has the export's name."""

PREDICTED = "ok"
"""Status of a study with probabilities; all other studies have the reason code as status."""
