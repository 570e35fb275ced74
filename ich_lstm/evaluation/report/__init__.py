"""The report, the model card and the checklist."""
