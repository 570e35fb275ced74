"""The six labels, in the one order used for every array, table and file (RSNA's own)."""

HEMORRHAGE_TYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
ANY = "any"
LABELS = (*HEMORRHAGE_TYPES, ANY)

LABEL_WEIGHTS = (1.0, 1.0, 1.0, 1.0, 1.0, 2.0)
"""Weights of the RSNA 2019 log loss: "any" counts twice."""

LABEL_NAMES = {label: label.capitalize() for label in LABELS} | {"any": "Any hemorrhage"}
"""Labels as people read them."""

LABEL_SHORT = dict(zip(LABELS, ("EDH", "IPH", "IVH", "SAH", "SDH", "Any"), strict=True))
"""As radiologists abbreviate them."""
