"""Three simulated radiologists who read every CQ500 scan with a known error rate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ich_lstm.labels import ANY, LABELS
from ich_lstm.phantom.anatomy.shapes import Array
from ich_lstm.phantom.draws import chance
from ich_lstm.phantom.scan import PhantomScan

READERS = ("R1", "R2", "R3")

BLEEDINGS = {
    "IPH": "intraparenchymal",
    "IVH": "intraventricular",
    "SDH": "subdural",
    "EDH": "epidural",
    "SAH": "subarachnoid",
}
"""Columns of the types in CQ500 in their order, and our labels."""

FRACTURES = ("CalvarialFracture", "OtherFracture")
DETAILS = ("BleedLocation-Left", "BleedLocation-Right", "ChronicBleed")
"""Findings that a reader marks only together with a hemorrhage."""

FINDINGS = (
    "ICH", *BLEEDINGS, "BleedLocation-Left", "BleedLocation-Right", "ChronicBleed", "Fracture", *FRACTURES, "MassEffect",
    "MidlineShift",
)  # fmt: skip
"""The columns of one reader in ``reads.csv``, in the order of the file."""


@dataclass(frozen=True)
class Skill:
    """How well a reader detects one finding.

    Args:
        sensitivity: Share of the scans with the finding in which the reader marks it.
        specificity: Share of the scans without the finding in which the reader does not mark it.
    """

    sensitivity: float
    specificity: float


SKILLS = {
    "IPH": Skill(0.91, 0.965),
    "IVH": Skill(0.84, 0.99),
    "SDH": Skill(0.76, 0.97),
    "EDH": Skill(0.77, 0.995),
    "SAH": Skill(0.83, 0.975),
    "BleedLocation-Left": Skill(0.95, 0.95),
    "BleedLocation-Right": Skill(0.95, 0.95),
    "ChronicBleed": Skill(0.8, 0.97),
    "CalvarialFracture": Skill(0.7, 0.97),
    "OtherFracture": Skill(0.7, 0.985),
    "MassEffect": Skill(0.83, 0.94),
    "MidlineShift": Skill(0.82, 0.97),
}
"""At CQ500's prevalences these give a Fleiss' kappa of about 0.76 for IPH, 0.69 IVH, 0.54 SDH, 0.61 EDH and 0.66 SAH, as
published for its readers (Chilamkurthy et al., Lancet 2018;392:2388). ICH and Fracture follow from the other findings."""


ONE_SIDE_SHARE = 0.2
"""Share of the blood on one side from which the hemorrhage counts as located on that side."""


def scan_truth(scan: PhantomScan) -> dict[str, bool]:
    """The marks of a perfect reader: every key of `SKILLS`, and ICH and Fracture.

    No head has a fracture of the base or the face, so ``OtherFracture`` is never true.
    """
    labels = dict(zip(LABELS, map(bool, scan.slice_labels.max(axis=0)), strict=True))
    left, right = _blood_by_side(scan)
    return {
        "ICH": labels[ANY],
        **{name: labels[label] for name, label in BLEEDINGS.items()},
        "BleedLocation-Left": labels[ANY] and left >= ONE_SIDE_SHARE,
        "BleedLocation-Right": labels[ANY] and right >= ONE_SIDE_SHARE,
        "ChronicBleed": labels[ANY] and "chronic" in scan.findings,
        "Fracture": "fracture" in scan.findings,
        "CalvarialFracture": "fracture" in scan.findings,
        "OtherFracture": False,
        "MassEffect": "mass_effect" in scan.findings,
        "MidlineShift": "midline_shift" in scan.findings,
    }


def _blood_by_side(scan: PhantomScan) -> tuple[float, float]:
    """The shares of the blood to the left and to the right of the middle of the head."""
    columns: Array = scan.masks.any(axis=0).sum(axis=(0, 1))
    left_mm = scan.acquisition.origin[0] + np.arange(len(columns)) * scan.acquisition.pixel_mm - scan.acquisition.head_center[0]
    whole = max(int(columns.sum()), 1)
    return float(columns[left_mm > 0].sum() / whole), float(columns[left_mm < 0].sum() / whole)


def read_scan(truth: Mapping[str, bool], seed: int, patient: int, skills: Mapping[str, Skill] = SKILLS) -> dict[str, bool]:
    """The marks of the three readers for one scan.

    A reader marks ICH if the reader marks any type, and Fracture if the reader marks either kind of fracture. Side and age are
    marked only together with a hemorrhage; the error rates of these three findings apply to such scans.

    Args:
        truth: Whether each finding of `SKILLS` is present in the scan.
        seed: Seed of the data set; errors are a pure function of it, the patient, the reader and the finding.
        patient: Number of the patient.
        skills: Sensitivity and specificity by finding, for all three readers.

    Returns:
        One mark per column, such as ``R1:ICH``, in the order of the table.
    """
    answers: dict[str, bool] = {}
    for reader in READERS:
        seen = {name: _sees(truth[name], skill, chance(seed, reader, patient, name)) for name, skill in skills.items()}
        seen["ICH"] = any(seen[name] for name in BLEEDINGS)
        seen["Fracture"] = any(seen[name] for name in FRACTURES)
        for name in DETAILS:
            seen[name] = seen[name] and seen["ICH"]
        answers |= {f"{reader}:{name}": seen[name] for name in FINDINGS}
    return answers


def _sees(present: bool, skill: Skill, draw: float) -> bool:
    return draw < skill.sensitivity if present else draw >= skill.specificity


def reads_lines(names: Sequence[str], categories: Sequence[str], answers: Sequence[Mapping[str, bool]]) -> list[str]:
    """The lines of ``reads.csv``: the header, then the scans in the order in which they are given."""
    columns = [f"{reader}:{finding}" for reader in READERS for finding in FINDINGS]
    rows = (
        ",".join([name, category, *(str(int(answer[column])) for column in columns)])
        for name, category, answer in zip(names, categories, answers, strict=True)
    )
    return [",".join(["name", "Category", *columns]), *rows]
