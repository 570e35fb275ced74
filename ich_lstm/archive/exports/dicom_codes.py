"""Codes of a DICOM report, each with where it was looked up; ``docs/dicom.md`` holds the same table."""

from typing import NamedTuple

PRIVATE_SCHEME = "99ICHLSTM"
"""Designators that begin with 99 are private (PS3.16, 8)."""


class Concept(NamedTuple):
    """A coded concept (PS3.3, 8.8).

    Args:
        value: Code Value (0008,0100).
        scheme: Coding Scheme Designator (0008,0102).
        meaning: Code Meaning (0008,0104).
    """

    value: str
    scheme: str
    meaning: str


FINDINGS = {
    "epidural": Concept("epidural", PRIVATE_SCHEME, "Epidural hemorrhage"),
    "intraparenchymal": Concept("intraparenchymal", PRIVATE_SCHEME, "Intraparenchymal hemorrhage"),
    "intraventricular": Concept("intraventricular", PRIVATE_SCHEME, "Intraventricular hemorrhage"),
    "subarachnoid": Concept("21454007", "SCT", "Subarachnoid intracranial hemorrhage"),
    "subdural": Concept("subdural", PRIVATE_SCHEME, "Subdural hemorrhage"),
    "any": Concept("1386000", "SCT", "Intracranial hemorrhage"),
}
"""What each label is. A private code stands where no source could be named for a public one of the same meaning."""

SITES = {
    "epidural": Concept("1101003", "SCT", "Intracranial"),
    "intraparenchymal": Concept("12738006", "SCT", "Brain"),
    "intraventricular": Concept("35764002", "SCT", "Brain ventricle"),
    "subarachnoid": Concept("35951006", "SCT", "Subarachnoid space"),
    "subdural": Concept("1101003", "SCT", "Intracranial"),
    "any": Concept("1101003", "SCT", "Intracranial"),
}
"""Where each is, by CID 7151, which has neither an epidural nor a subdural space."""

PRESENCE = Concept("121052", "DCM", "Presence of property")
PRESENT = Concept("52101004", "SCT", "Present")
ABSENT = Concept("272519000", "SCT", "Absent")
UNDETERMINED = Concept("373068000", "SCT", "Undetermined")
"""CID 240."""

PROBABILITY = Concept("122157", "DCM", "Probability")
NO_UNITS = Concept("1", "UCUM", "no units")
CT = Concept("25045-6", "LN", "CT unspecified body region")
"""The only computed tomography without contrast of CID 100."""

SOURCE = Concept("260753009", "SCT", "Source")
SOURCE_IMAGE = Concept("121322", "DCM", "Source image for image processing operation")
IMAGE_LIBRARY = Concept("111028", "DCM", "Image Library")
IMAGE_LIBRARY_GROUP = Concept("126200", "DCM", "Image Library Group")
QUALITATIVE_EVALUATIONS = Concept("C0034375", "UMLS", "Qualitative Evaluations")
COMMENT = Concept("121106", "DCM", "Comment")
PROCESSING = Concept("109102", "DCM", "Processing Equipment")
DEVICE = Concept("121007", "DCM", "Device")
