"""The output folder of predictions: its files, ledger, study records and worklist."""
