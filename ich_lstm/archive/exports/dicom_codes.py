"""Codes used in the DICOM report, each with its source; ``docs/dicom.md`` holds the same table."""

from typing import NamedTuple

from ich_lstm.labels import LABEL_SET


class Concept(NamedTuple):
    """A coded concept (PS3.3, 8.8).

    Args:
        value: Code Value (0008,0100) of the concept.
        scheme: Coding Scheme Designator (0008,0102) of the concept.
        meaning: Code Meaning (0008,0104) of the concept.
    """

    value: str
    scheme: str
    meaning: str


FINDINGS = {label.name: Concept(*label.finding) for label in LABEL_SET}
"""The finding of each label. Private codes are used where no public code of the same meaning is documented."""

SITES = {label.name: Concept(*label.site) for label in LABEL_SET}
"""The anatomic site of each label from CID 7151, which has neither an epidural nor a subdural space."""

PRESENCE = Concept("121052", "DCM", "Presence of property")
PRESENT = Concept("52101004", "SCT", "Present")
ABSENT = Concept("272519000", "SCT", "Absent")
UNDETERMINED = Concept("373068000", "SCT", "Undetermined")
"""The code for an undetermined presence from CID 240."""

PROBABILITY = Concept("122157", "DCM", "Probability")
NO_UNITS = Concept("1", "UCUM", "no units")
CT = Concept("25045-6", "LN", "CT unspecified body region")
"""The only code of CID 100 for a computed tomography without contrast."""

SOURCE = Concept("260753009", "SCT", "Source")
SOURCE_IMAGE = Concept("121322", "DCM", "Source image for image processing operation")
IMAGE_LIBRARY = Concept("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = Concept("126200", "DCM", "Image Library Group")
QUALITATIVE_EVALUATIONS = Concept("C0034375", "UMLS", "Qualitative Evaluations")
COMMENT = Concept("121106", "DCM", "Comment")
PROCESSING = Concept("109102", "DCM", "Processing Equipment")
DEVICE = Concept("121007", "DCM", "Device")
