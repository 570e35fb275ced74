"""Catalogue of audit findings: their stable codes, whether they stop a training, and their texts."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import pandas as pd

from ich_lstm.errors import in_files, spell_settings
from ich_lstm.formatting import first_of

Action = Literal["STOP", "FLAG"]

EXAMPLES_KEPT = 10


class Check(NamedTuple):
    """One thing that the audit looks for.

    Args:
        action: ``STOP`` forbids training; ``FLAG`` is reported and counted.
        one: The finding as it is worded after the number 1: "`patient in two subsets`".
        many: The finding as it is worded after any other number.
        meaning: Why the finding matters.
        todo: What the user can do about it; empty where nothing needs to be done.
    """

    action: Action
    one: str
    many: str
    meaning: str
    todo: str = ""

    def title(self, count: int) -> str:
        """The wording of the finding that fits a number of cases."""
        return self.one if count == 1 else self.many


_GIVE_PATIENTS = (
    "Say [patient_ids=study]: then the table's column patient_id counts, whatever the images say, and each study that the table "
    "does not mention is a patient of its own. Or say [patient_ids=trusted] if the ids are correct."
)

CHECKS: dict[str, Check] = {
    "patient_in_two_parts": Check(
        "STOP",
        "patient in two subsets",
        "patients in two subsets",
        "Performance on patients of the training set says nothing about other patients.",
        "Put all scans of a patient into one subset.",
    ),
    "study_in_two_parts": Check(
        "STOP",
        "study in two subsets",
        "studies in two subsets",
        "A study belongs to one patient, but its scans have different patient ids, which the split has separated.",
        "Correct the patient ids.",
    ),
    "pixels_in_two_parts": Check(
        "STOP",
        "pair of scans with the same pixels in two subsets",
        "pairs of scans with the same pixels in two subsets",
        "The same images would be in the training and the test data under different UIDs.",
        "Put both patients into one subset of a split file, or remove one of the scans.",
    ),
    "any_contradicts_types": Check(
        "STOP",
        "scan where a type is 1 and any is 0",
        "scans where a type is 1 and any is 0",
        "One of the two labels is wrong.",
        "Correct the table.",
    ),
    "images_without_label": Check(
        "STOP",
        "image without a label",
        "images without a label",
        "The table has no row for them; it may be the wrong table, or truncated.",
        "Add the labels, or exclude these images on purpose: [unmatched=images].",
    ),
    "labels_without_image": Check(
        "STOP",
        "label that names no readable image",
        "labels that name no readable image",
        "The images are incomplete, or the table also describes other images; such labels are never used.",
        "Complete the images, or ignore these labels on purpose: [unmatched=labels].",
    ),
    "patient_id_anonymous": Check(
        "STOP",
        "scan whose patient id identifies no patient",
        "scans whose patient id identifies no patient",
        "Different patients seem to share a placeholder such as ANONYMOUS or 0, so the split cannot tell them apart.",
        _GIVE_PATIENTS,
    ),
    "patient_id_shared": Check(
        "STOP",
        "patient id with implausibly many studies",
        "patient ids with implausibly many studies",
        "Different patients seem to share an id, so the split is not a split by patient.",
        _GIVE_PATIENTS,
    ),
    "same_pixels": Check(
        "FLAG",
        "pair of scans with the same pixels",
        "pairs of scans with the same pixels",
        "The same images occur more than once, under different UIDs. Training is refused if its split separates them.",
    ),
    "patient_ids_alike": Check(
        "FLAG",
        "group of patient ids that are spelt nearly alike",
        "groups of patient ids that are spelt nearly alike",
        "They differ only in case, punctuation or leading zeros, and may be one patient.",
        "If so, give the patient of every scan in the table's column patient_id, and say [patient_ids=study].",
    ),
    "any_without_type": Check(
        "FLAG",
        "scan where any is 1 and no type is",
        "scans where any is 1 and no type is",
        "This is correct where readers agree on a hemorrhage and disagree on its type; otherwise a type is missing.",
    ),
    "labels_left_out": Check(
        "FLAG",
        "label whose image was excluded",
        "labels whose image was excluded",
        "The ledger (private/ledger.csv) gives the reason for each.",
    ),
    "scan_unknown": Check(
        "FLAG",
        "scan whose labels are all unknown",
        "scans whose labels are all unknown",
        "The table leaves all their labels empty or contradicts them; they are used neither for training nor for metrics.",
    ),
    "scan_refused": Check(
        "FLAG",
        "series that was refused",
        "series that were refused",
        "The series was expected to give a scan and could not be read. private/ledger.csv gives the reason.",
        "Correct the files, or install the codec that the ledger names, and prepare again.",
    ),
    "label_absent": Check(
        "FLAG",
        "label without a positive patient in some subset",
        "labels without a positive patient in some subset",
        "The label can be neither learned nor evaluated in such a subset.",
    ),
    "label_never_absent": Check(
        "FLAG",
        "label that is known only as present",
        "labels that are known only as present",
        "The training leaves it out of the loss, which would teach to call it always present; its probabilities mean nothing.",
        "Label slices or scans in which it is absent, if it is to be learned.",
    ),
    "several_series": Check(
        "FLAG",
        "study with several labelled scans",
        "studies with several labelled scans",
        "They count as several scans; all are in the subset of their patient.",
    ),
    "unusual_slices": Check(
        "FLAG",
        "scan with unusually few or many slices",
        "scans with unusually few or many slices",
        "A whole head has 20 to 60 slices of 5 mm.",
    ),
    "unusual_spacing": Check(
        "FLAG",
        "scan with unusually distant or close slices",
        "scans with unusually distant or close slices",
        "Head CT is usually read in slices of 2.5 to 5 mm.",
    ),
    "unusual_thickness": Check(
        "FLAG",
        "scan with unusually thick or thin slices",
        "scans with unusually thick or thin slices",
        "Thick slices average small bleeds with the tissue around them.",
    ),
    "unusual_pixels": Check(
        "FLAG",
        "scan with unusually large or small pixels",
        "scans with unusually large or small pixels",
        "Images of a head with 512 x 512 pixels have pixels of 0.35 to 0.6 mm.",
    ),
    "unusual_hu": Check(
        "FLAG",
        "scan with HU that are not those of a head in air",
        "scans with HU that are not those of a head in air",
        "The rescale may be wrong, or the air around the head was cropped away.",
    ),
    "table_note": Check("FLAG", "note on the label table", "notes on the label table", "It was made when the table was read."),
    "synthetic": Check(
        "FLAG",
        "scan that is a synthetic head",
        "scans that are synthetic heads",
        "This software generated them; performance on them says nothing about patients.",
    ),
}
"""Codes stay the same from release to release; scripts rely on them."""


@dataclass(frozen=True, eq=False)
class Finding:
    """What one check found.

    Args:
        code: The code of the check, one of `CHECKS`.
        action: ``STOP`` or ``FLAG``; an option may have turned a STOP into a FLAG.
        count: The number of patients, scans, slices or labels concerned.
        examples: The first ten, by hashed ids; shareable.
        listed: The number of entries that a full list of examples would have.
        rows: One row for each thing found, with raw ids; private.
    """

    code: str
    action: Action
    count: int
    examples: tuple[str, ...] = ()
    listed: int = 0
    rows: pd.DataFrame = field(default_factory=pd.DataFrame, repr=False)

    @property
    def list_text(self) -> str:
        """The first ten examples, and how many more there are."""
        return first_of(self.examples, EXAMPLES_KEPT, total=self.listed)

    @property
    def text(self) -> str:
        """The finding as one sentence for a message."""
        return f"{self.count:,} {CHECKS[self.code].title(self.count)}" + (f" ({self.list_text})" if self.examples else "")

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain values without any raw id."""
        check = CHECKS[self.code]
        return {
            "code": self.code,
            "action": self.action,
            "count": self.count,
            "title": check.title(self.count),
            "meaning": check.meaning,
            "todo": spell_settings(check.todo, in_files),
            "examples": list(self.examples),
            "listed": self.listed,
        }


def make_finding(
    code: str, rows: pd.DataFrame, examples: Sequence[str], *, count: int | None = None, allowed: bool = False
) -> Finding | None:
    """Make a finding, or return None if nothing was found.

    Args:
        code: The code of the check, one of `CHECKS`.
        rows: One row for each thing found, with raw ids.
        examples: The affected items by hashed ids, one for each thing counted.
        count: The number of cases, if one example stands for several.
        allowed: Whether an option turns a STOP into a FLAG.
    """
    if not len(examples):
        return None
    action: Action = "FLAG" if allowed else CHECKS[code].action
    count = len(examples) if count is None else count
    return Finding(code, action, count, tuple(examples[:EXAMPLES_KEPT]), len(examples), rows)
