"""The HTML page on which a radiologist resolves disagreements between model and labels."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ich_lstm.formatting import percent, side_marks
from ich_lstm.labels import ANY, HEMORRHAGE_TYPES, LABEL_NAMES, LABELS
from ich_lstm.pages.picture import SQUARE, encode_slice, shown_size
from ich_lstm.pages.style import render
from ich_lstm.scan import Note
from ich_lstm.window import BRAIN

SIDE, NEIGHBOUR_SIDE = 512, 256
"""Longest side in pixels of the main slice, and of its neighbours."""

STATES = {1.0: "present", 0.0: "absent"}

PLACES = {-1: "below", 1: "above"}


class ReviewPicture(NamedTuple):
    """One slice on the page.

    Args:
        hu: Hounsfield units, int16 ``(h, w)``; None if it must not be shown.
        slice: Number of the slice from 1, inferior to superior.
        offset: Position relative to the main slice: 0 for the slice itself, -1 for the one below, 1 for the one above.
        present: Labels that are present; None if labels are unknown.
    """

    hu: np.ndarray | None
    slice: int
    offset: int
    present: tuple[str, ...] | None


class ReviewCase(NamedTuple):
    """A slice or scan on which model and labels disagree.

    Args:
        level: The kind of case: ``slice`` or ``scan``.
        rank: Rank of the case, from 1 for the worst.
        scan_id: Keyed hash of the scan's identifier.
        slice: Number of the slice from 1; for a scan, of the slice that represents it.
        slices: Number of slices in the scan.
        labels: Labels of the case, ``(k,)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of the case in [0, 1], float64 ``(k,)``.
        disagreeing: Labels on which model and labels disagree, the worst first.
        pictures: The slice and its neighbours.
        sop_uid: Raw SOP Instance UID of a slice; empty for a scan and on the shareable page.
        series_uid: Raw Series Instance UID; empty on the shareable page.
        flags: Codes of the scan's flags, separated by blanks.
    """

    level: str
    rank: int
    scan_id: str
    slice: int
    slices: int
    labels: np.ndarray
    probabilities: np.ndarray
    disagreeing: tuple[str, ...]
    pictures: tuple[ReviewPicture, ...]
    sop_uid: str
    series_uid: str
    flags: str


class Picture(NamedTuple):
    """A picture in the form that the template needs."""

    code: str
    """Base64 of a PNG; empty if the picture must not be shown."""
    place: str
    slice: int
    labelled: str


class Row(NamedTuple):
    """One label of a case in the form that the template needs."""

    label: str
    labelled: str
    probability: float
    disagrees: bool


class CaseView(NamedTuple):
    """A case in the form that the template needs."""

    case: ReviewCase
    why: list[str]
    rows: list[Row]
    main: Picture
    neighbours: list[Picture]
    sides: tuple[str, str]
    """The marks at the left and the right edge of the main slice."""


def review_page(
    cases: Sequence[ReviewCase],
    *,
    facts: Mapping[str, str],
    disagreeing: Mapping[str, int],
    notes: Sequence[str] = (),
    is_private: bool = True,
) -> str:
    """Make the page as self-contained HTML text.

    Args:
        cases: The disagreements to resolve, in the order of the page.
        facts: Facts at the head of the page, such as the model, by name.
        disagreeing: Number of slices or scans with any disagreement, by level.
        notes: Sentences at the head of the page that readers must know.
        is_private: Whether corrections can be made on this page, which then contains raw ids.
    """
    counts = {level: sum(case.level == level for case in cases) for level in ("slice", "scan")}
    return render(
        "review_page.html.j2",
        title="Label audit",
        heading=_heading(counts),
        facts=facts,
        notes=notes,
        sections=[(level, _of_how_many(level, counts[level], disagreeing)) for level in counts if counts[level]],
        cases={level: [_view(case) for case in cases if case.level == level] for level in counts},
        is_private=is_private,
        any_label=ANY,
        types=HEMORRHAGE_TYPES,
        labels=LABELS,
        window=BRAIN,
    )


def _view(case: ReviewCase) -> CaseView:
    pictures = {picture.offset: _picture(picture) for picture in case.pictures}
    rows = [
        Row(label, STATES.get(float(y), "unknown"), float(p), label in case.disagreeing)
        for label, y, p in zip(LABELS, case.labels, case.probabilities, strict=True)
    ]
    why = [
        f"{LABEL_NAMES[row.label]} is labelled {row.labelled}, but the model's probability is {percent(row.probability)}"
        for row in (rows[LABELS.index(label)] for label in case.disagreeing)
    ]
    # The superior neighbour is shown on top, as in the head.
    neighbours = [pictures[offset] for offset in (1, -1) if offset in pictures]
    return CaseView(case, why, rows, pictures[0], neighbours, side_marks(Note(code, "") for code in case.flags.split()))


def _picture(picture: ReviewPicture) -> Picture:
    if picture.present is None:
        labelled = "label unknown"
    else:
        types = [LABEL_NAMES[label].lower() for label in picture.present if label != ANY]
        labelled = ", ".join(types) or ("hemorrhage" if picture.present else "no hemorrhage")
    code = (
        ""
        if picture.hu is None
        else encode_slice(picture.hu, shown_size(picture.hu.shape, SQUARE, NEIGHBOUR_SIDE if picture.offset else SIDE))
    )
    return Picture(code, PLACES.get(picture.offset, ""), picture.slice, labelled)


def _heading(counts: Mapping[str, int]) -> str:
    words = " and ".join(f"{count:,} {level}{'' if count == 1 else 's'}" for level, count in counts.items() if count)
    return f"{words} to review" if words else "Model and labels agree"


def _of_how_many(level: str, count: int, disagreeing: Mapping[str, int]) -> str:
    every = disagreeing.get(level, count)
    return (
        f"all {count:,} on which they disagree" if every <= count else f"the worst {count:,} of {every:,} on which they disagree"
    )
