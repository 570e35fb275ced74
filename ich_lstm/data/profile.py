"""The profile of a set of scans, without any identity, and how far two profiles lie apart."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

NUMBERS: Mapping[str, str] = {
    "slices": "slices per scan",
    "slice_mm": "distance between slices, mm",
    "thickness_mm": "slice thickness, mm",
    "pixel_mm": "pixel size, mm",
    "tilt_degrees": "gantry tilt, degrees",
    "hu_p50": "median HU of the middle slices",
    "hu_p99": "99th percentile of HU",
    "brain_hu": "median HU between 0 and 80",
    "brain_spread_hu": "spread of HU between 0 and 80",
}
"""Columns of numbers of each scan, and what they are."""

WORDS: Mapping[str, str] = {"manufacturer": "maker of the scanner", "kernel": "convolution kernel"}
"""Columns of words of each scan, and what they are."""

SCORES = "probability of any hemorrhage"

QUANTILES = np.linspace(0, 1, 101)

ALPHA = 0.001
"""Probability of a false alarm for one figure."""

SMALLEST_SHIFT = 0.2
"""A smaller difference of two distributions is no drift, however many scans show it. Of numbers, this is the largest difference
of their cumulative shares."""

FEWEST = 20
"""With fewer scans, no drift can be told."""


MAKERS = ("Canon", "GE", "Hitachi", "NeuroLogica", "Neusoft", "Philips", "Samsung", "Siemens", "Toshiba", "United Imaging")

KERNEL = re.compile(r"[A-Z]{1,3}\d{2,3}[a-z]{0,2}", re.ASCII)
"""Names of kernels such as H30s, J40f, FC26 and Hr38."""

KERNEL_WORDS = frozenset(
    "bone brain detail edge head lung plus sharp smooth soft standard stnd ua ub uc ud ya yb yc yd ea eb ec ed".split()  # noqa: SIM905
)

NOT_STATED, OTHER = "not stated", "other"
"""The words of a scan without a value, and of one whose value is not known here: whatever stands in a header is not repeated,
because a profile is shared, and some export writes a name there."""


def _known_maker(text: str) -> str:
    lower = text.lower()
    known = (maker for maker in MAKERS if re.search(rf"\b{maker.lower()}\b", lower))
    return NOT_STATED if not text else next(known, OTHER)


def _known_kernel(text: str) -> str:
    first = re.split(r"[\\,; ]", text.strip())[0]
    if not first:
        return NOT_STATED
    is_known = KERNEL.fullmatch(first) or first.lower() in KERNEL_WORDS
    return first if is_known else OTHER


_KNOWN = {"manufacturer": _known_maker, "kernel": _known_kernel}


class Drift(NamedTuple):
    """How far a figure has moved.

    Args:
        figure: What it is.
        before: Its median and quartiles, or its most frequent values, in the record.
        now: The same in the new scans.
        distance: Largest difference of the cumulative shares, or half the sum of the differences of shares; in [0, 1].
        limit: Distance above which the figure has moved.
        moved: Whether it has.
    """

    figure: str
    before: str
    now: str
    distance: float
    limit: float
    moved: bool


def profile_scans(facts: pd.DataFrame, scores: np.ndarray | None = None) -> dict[str, Any]:
    """Summarize scans in plain values for JSON.

    Args:
        facts: Rows of `PreparedFolder.facts`; columns that an older version of the library did not write may be missing.
        scores: Probabilities of "any" of the scans; None if there are none.

    Returns:
        ``scans``; ``numbers``: 101 quantiles of each figure, and how many scans have it; ``words``: how many scans have each
        value.
    """
    numbers: dict[str, Any] = {}
    columns = {NUMBERS[name]: facts[name].to_numpy(np.float64) for name in NUMBERS if name in facts}
    if scores is not None:
        columns[SCORES] = np.asarray(scores, dtype=np.float64)
    for title, values in columns.items():
        there = values[np.isfinite(values)]
        if len(there):
            quantiles = np.quantile(there, QUANTILES, method="inverted_cdf")
            numbers[title] = {"scans": len(there), "quantiles": [float(f"{value:.6g}") for value in quantiles]}
    words = {}
    for name, title in WORDS.items():
        if name in facts:
            counts = facts[name].fillna("").astype(str).map(_KNOWN[name]).value_counts()
            words[title] = {
                str(value): int(count) for value, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))
            }
    return {"scans": len(facts), "numbers": numbers, "words": words}


def compare_profiles(record: Mapping[str, Any], now: Mapping[str, Any]) -> list[Drift]:
    """Compare the figures that two profiles have in common.

    Numbers are compared by the two-sample Kolmogorov-Smirnov statistic, words by the total variation distance with the
    chi-squared test; a figure has moved if the difference is significant and not small.

    Args:
        record: The profile to compare with.
        now: The profile of the new scans.
    """
    found = []
    for title, after in now["numbers"].items():
        before = record["numbers"].get(title)
        if before is not None:
            found.append(_compare_numbers(title, before, after))
    for title, after in now["words"].items():
        before = record["words"].get(title)
        if before:
            found.append(_compare_words(title, before, after))
    return found


def _compare_numbers(title: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> Drift:
    first, second = (np.array(each["quantiles"]) for each in (before, after))
    points = np.unique(np.concatenate([first, second]))
    distance = max(abs(_share_up_to(first, point) - _share_up_to(second, point)) for point in points.tolist())
    n, m = before["scans"], after["scans"]
    # Asymptotic quantile of the statistic (Smirnov); 0.01 is what 101 quantiles can hide.
    limit = max(SMALLEST_SHIFT, math.sqrt(-math.log(ALPHA / 2) / 2 * (n + m) / (n * m)) + 0.01)
    return Drift(title, _quartiles(first), _quartiles(second), float(distance), limit, bool(distance > limit))


def _share_up_to(quantiles: np.ndarray, point: float) -> float:
    return float(np.searchsorted(quantiles[1:], point, side="right")) / (len(quantiles) - 1)


def _compare_words(title: str, before: Mapping[str, int], after: Mapping[str, int]) -> Drift:
    names = sorted({*before, *after})
    counts = np.array([[before.get(name, 0) for name in names], [after.get(name, 0) for name in names]], dtype=np.float64)
    shares = counts / counts.sum(axis=1, keepdims=True)
    distance = float(np.abs(shares[0] - shares[1]).sum() / 2)
    p_value = 1.0 if len(names) == 1 else float(stats.chi2_contingency(counts).pvalue)
    moved = p_value < ALPHA and distance > SMALLEST_SHIFT
    return Drift(title, _most_frequent(before), _most_frequent(after), distance, SMALLEST_SHIFT, moved)


def _quartiles(quantiles: np.ndarray) -> str:
    low, middle, high = (f"{quantiles[place]:.3g}" for place in (25, 50, 75))
    return middle if low == high else f"{middle} ({low} to {high})"


def _most_frequent(counts: Mapping[str, int], most: int = 3) -> str:
    total = sum(counts.values())
    ordered: Sequence[tuple[str, int]] = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    more = f", {len(ordered) - most} more" if len(ordered) > most else ""
    return ", ".join(f"{name} {100 * count / total:.0f} %" for name, count in ordered[:most]) + more
