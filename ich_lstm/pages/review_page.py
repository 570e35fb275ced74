"""The HTML page on which a radiologist settles disagreements of model and labels; one file without network access."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ich_lstm.formatting import percent, side_marks
from ich_lstm.labels import ANY, HEMORRHAGE_TYPES, LABEL_NAMES, LABELS
from ich_lstm.pages.picture import encode_slice
from ich_lstm.pages.style import render
from ich_lstm.scan import Note
from ich_lstm.window import BRAIN

SIDE, NEIGHBOUR_SIDE = 512, 256
"""Longest sides in pixels of the slice in question, and of its neighbours."""

STATES = {1.0: "present", 0.0: "absent"}

PLACES = {-1: "below", 1: "above"}


class ReviewPicture(NamedTuple):
    """A slice.

    Args:
        hu: int16 ``(h, w)``; None: it is not for showing.
        slice: Its number, from 1, inferior to superior.
        offset: Slices between it and the one in question; below is negative.
        present: The labels it has; None if they are unknown.
    """

    hu: np.ndarray | None
    slice: int
    offset: int
    present: tuple[str, ...] | None


class ReviewCase(NamedTuple):
    """A slice, or a scan, on which model and labels disagree.

    Args:
        level: What is looked at: ``slice`` or ``scan``.
        rank: Rank of the case, from 1 for the worst.
        scan_id: Keyed hash of the scan's identifier.
        slice: The slice, or the one that is shown of the scan, from 1.
        slices: Number of slices in the scan.
        labels: ``(k,)``: 1 present, 0 absent, NaN unknown.
        probabilities: Float64 ``(k,)``, in [0, 1].
        disagreeing: The labels for which it is here, the worst first.
        pictures: The slice between its neighbours.
        sop_uid: Raw, of a slice; empty where ids are not for showing.
        series_uid: Raw; empty where ids are not for showing.
        flags: What a reader should know of the scan: codes with blanks between.
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
    """A picture as the template needs it."""

    code: str
    """Base64 of a PNG; empty if it is not for showing."""
    place: str
    slice: int
    labelled: str


class Row(NamedTuple):
    """A label of a case as the template needs it."""

    label: str
    labelled: str
    probability: float
    disagrees: bool


class CaseView(NamedTuple):
    """A case as the template needs it."""

    case: ReviewCase
    why: list[str]
    rows: list[Row]
    main: Picture
    neighbours: list[Picture]
    sides: tuple[str, str]
    """What stands at the left and the right of the slice in question."""


def review_page(
    cases: Sequence[ReviewCase],
    *,
    facts: Mapping[str, str],
    disagreeing: Mapping[str, int],
    notes: Sequence[str] = (),
    is_private: bool = True,
) -> str:
    """The page as HTML text: self-contained.

    Args:
        cases: What is to be settled, in the order of the page.
        facts: What was looked through, as names and texts.
        disagreeing: Number of slices or scans with any disagreement, by level.
        notes: What a reader must know.
        is_private: Whether corrections are made here, which hold raw ids; otherwise the page is only to be looked at.
    """
    counts = {level: sum(case.level == level for case in cases) for level in ("slice", "scan")}
    return render(
        "review_page.html.j2",
        title="Label audit",
        heading=_heading(counts),
        facts=facts,
        notes=notes,
        parts=[(level, _of_how_many(level, counts[level], disagreeing)) for level in counts if counts[level]],
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
        f"{LABEL_NAMES[row.label]} is labelled {row.labelled}, and the model gives it {percent(row.probability)}"
        for row in (rows[LABELS.index(label)] for label in case.disagreeing)
    ]
    # The upper neighbour on top, as in the head.
    neighbours = [pictures[offset] for offset in (1, -1) if offset in pictures]
    return CaseView(case, why, rows, pictures[0], neighbours, side_marks(Note(code, "") for code in case.flags.split()))


def _picture(picture: ReviewPicture) -> Picture:
    if picture.present is None:
        labelled = "label unknown"
    else:
        types = [LABEL_NAMES[label].lower() for label in picture.present if label != ANY]
        labelled = ", ".join(types) or ("hemorrhage" if picture.present else "no hemorrhage")
    code = "" if picture.hu is None else encode_slice(picture.hu, _size(picture.hu, NEIGHBOUR_SIDE if picture.offset else SIDE))
    return Picture(code, PLACES.get(picture.offset, ""), picture.slice, labelled)


def _size(hu: np.ndarray, side: int) -> tuple[int, int]:
    height, width = hu.shape
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _heading(counts: Mapping[str, int]) -> str:
    words = " and ".join(f"{count:,} {level}{'' if count == 1 else 's'}" for level, count in counts.items() if count)
    return f"{words} to settle" if words else "Model and labels agree"


def _of_how_many(level: str, count: int, disagreeing: Mapping[str, int]) -> str:
    every = disagreeing.get(level, count)
    return (
        f"all {count:,} on which they disagree" if every <= count else f"the worst {count:,} of {every:,} on which they disagree"
    )
