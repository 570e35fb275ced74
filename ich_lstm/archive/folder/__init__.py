"""The folder of predictions: its files, ledger, records and worklist."""
