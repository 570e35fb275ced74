"""The six labels, in the one order used for every array, table and file (RSNA's own)."""

HEMORRHAGE_TYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
ANY = "any"
LABELS = (*HEMORRHAGE_TYPES, ANY)

LABEL_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 2.0)
"""Weights of the RSNA 2019 log loss: "any" counts twice."""
