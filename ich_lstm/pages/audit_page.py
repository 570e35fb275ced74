"""The HTML page of an audit: findings that block training, other findings, and an overview of the data."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ich_lstm.labels import ANY, LABEL_NAMES, LABELS
from ich_lstm.pages.picture import SQUARE, encode_slice, shown_size
from ich_lstm.pages.style import render

PICTURE_SIDE = 256
"""Longest side of a picture in pixels."""

WIDEST_BAR = 10
"""Maximum width of a bar in percent of the histogram, so that a single value does not fill it."""

SUBSET_NAMES = {"all": "All scans", "train": "Training", "validation": "Validation", "test": "Held out"}

COUNTS = {"patients": "Patients", "scans": "Scans", "slices": "Slices"}


class Bar(NamedTuple):
    """One bar of a histogram in a box of 100 by 100."""

    x: float
    width: float
    height: float
    unusual: bool
    """Whether the bar contains an unusual value."""
    text: str


class Panel(NamedTuple):
    """One histogram of a property of scans."""

    name: str
    unit: str
    bars: list[Bar]
    range: tuple[str, str, str]
    """The smallest, median and largest value as texts."""
    unknown: int


class Picture(Protocol):
    """A slice for the page; its ``hu``, int16 ``(h, w)``, are air outside the skull."""

    @property
    def hu(self) -> np.ndarray: ...
    @property
    def scan_id(self) -> str: ...
    @property
    def slice(self) -> int: ...
    @property
    def labels(self) -> tuple[str, ...]: ...


def audit_page(
    summary: Mapping[str, Any], facts: Mapping[str, tuple[str, str]], pictures: Mapping[str, Sequence[Picture]]
) -> str:
    """Make the page of an audit as HTML text: self-contained, readable without JavaScript, printable.

    Args:
        summary: The contents of ``audit.json``.
        facts: The name and unit of each histogram.
        pictures: The positive slices of each label.
    """
    subsets = summary["parts"]
    return render(
        "audit_page.html.j2",
        title="Audit: " + ("stopped" if summary["stops"] else "ready to train"),
        summary=summary,
        subsets=subsets,
        subset_names=SUBSET_NAMES,
        counts=COUNTS,
        labels=LABELS,
        totals={name: sum(totals[name] for totals in subsets.values()) for name in COUNTS},
        rows={label: [_cells(summary["labels"][label][subset], subsets[subset]) for subset in subsets] for label in LABELS},
        unknown=_unknown(summary, subsets),
        split=_split_in_words(summary["split"]),
        panels=[_panel(*facts[column], summary["histograms"][column]) for column in facts],
        tallies=_tallies(summary),
        montages={
            label: [
                (encode_slice(tile.hu, shown_size(tile.hu.shape, SQUARE, PICTURE_SIDE)), tile, _others(tile, label))
                for tile in tiles
            ]
            for label, tiles in pictures.items()
        },
    )


def _cells(counts: Mapping[str, int], totals: Mapping[str, int]) -> list[tuple[str, str]]:
    """Format the numbers of positive patients, scans and slices, and their shares in percent."""
    return [(f"{counts[name]:,}", _share(counts[name], totals[name])) for name in COUNTS]


def _share(count: int, total: int) -> str:
    if not count or not total:
        return ""
    share = 100 * count / total
    return f"{math.floor(share + 0.5)} %" if share >= 10 else f"{share:.1f} %"


def _unknown(summary: Mapping[str, Any], subsets: Mapping[str, Any]) -> int:
    """Find the maximum over labels of the number of slices whose label is unknown."""
    return max((sum(summary["labels"][label][subset]["unknown_slices"] for subset in subsets) for label in LABELS), default=0)


def _split_in_words(split: Mapping[str, Any] | None) -> str:
    if split is None:
        return ""
    if "folds" in split:
        how = f"{split['folds']} folds, fold {split['fold']} held out"
    elif split["by"] == "date":
        how = "by the date of the oldest study, first years " + " and ".join(year for year in split["first_years"] if year)
    else:
        how = "at random, " + " / ".join(f"{100 * share:g}" for share in split["fractions"])
    return f"{how}, seed {split['seed']}" if split["by"] == "random" else how


def _panel(name: str, unit: str, histogram: Mapping[str, Any]) -> Panel:
    counts, edges = histogram["counts"], histogram["edges"]
    highest, width = max(counts, default=1), min(WIDEST_BAR, 100 / max(1, len(counts)))
    left = (100 - width * len(counts)) / 2
    bars = [
        Bar(
            x=left + width * i,
            width=width,
            # A single scan among thousands must remain visible.
            height=max(100 * count / highest, 1.5),
            unusual=histogram["unusual"][i] > 0,
            text=f"{_number(edges[i])} to {_number(edges[i + 1])} {unit}".rstrip()
            + f": {count:,} scan{'' if count == 1 else 's'}",
        )
        for i, count in enumerate(counts)
        if count
    ]
    smallest, median, largest = (_number(histogram[name]) for name in ("smallest", "median", "largest"))
    return Panel(name, unit, bars, (smallest, median, largest), histogram["unknown"])


def _number(value: float | None) -> str:
    if value is None:
        return "–"
    text = f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return text.replace("-", "\u2212")


def _tallies(summary: Mapping[str, Any]) -> dict[str, list[tuple[str, str]]]:
    """Make small tables of counts, such as the number of studies with each number of series."""
    tallies = {
        "Series in a study": summary["series_per_study"],
        "Labelled scans in a study": summary["scans_per_study"],
        "Studies of a patient": summary["studies_per_patient"],
        "Flags of scans": summary["scan_flags"],
    }
    return {
        name: [(value.replace("_", " "), f"{count:,}") for value, count in tally.items()]
        for name, tally in tallies.items()
        if tally
    }


def _others(tile: Picture, label: str) -> str:
    """List the other labels that are present in a slice."""
    return ", ".join(LABEL_NAMES[other].lower() for other in tile.labels if other not in (label, ANY))
