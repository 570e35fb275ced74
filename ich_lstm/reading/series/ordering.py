"""Orders slices by their positions along the slice normal, and finds repeats and gaps."""

import math
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from ich_lstm.errors import SeriesError
from ich_lstm.formatting import counted, first_of
from ich_lstm.reading.header.geometry import SAME_POSITION_MM, is_position, positions_along
from ich_lstm.reading.header.header import SliceHeader
from ich_lstm.reading.series.notes import ScanNotes
from ich_lstm.reading.series.rounding import undo_rounding
from ich_lstm.scan import Note

EVEN_SHARE = 0.05
"""Steps that differ from their median by less than 5 % are even: many files have rounded positions."""

GAP_RATIO = 1.5
"""Slices are missing where a step is longer than its neighbors by this factor. A lasting change of the step is not a gap."""

GAP_WINDOW = 2
"""Number of neighboring steps on each side that a step is compared with."""

MAX_REPEATS = 3
"""A series with more slices per position than this is a time series; 2 or 3 per position are a scan repeated after motion."""

ASSUMED_STEP_MM = 5.0


def place_slices(
    name: str, headers: Sequence[SliceHeader], normal: np.ndarray, notes: ScanNotes
) -> tuple[list[SliceHeader], np.ndarray]:
    """Order slices from inferior to superior.

    Args:
        name: Name of the series in messages.
        headers: Parallel slices in any order.
        normal: Unit vector along the slice normal, pointing superior.
        notes: Collects repairs and excluded slices.

    Returns:
        The slices in order, and their positions along the normal in mm, increasing.

    Raises:
        SeriesError: ``bad_position``, ``no_position``, ``equal_positions`` or ``perfusion``.
    """
    positions = _positions_of(name, headers, normal, notes)
    if len(headers) > 1 and np.ptp(positions) < SAME_POSITION_MM:
        raise SeriesError(
            "equal_positions",
            where=name,
            got=f"{len(headers)} slices at one position",
            expected="a position for each",
            todo="Export the series again.",
        )
    headers, positions = undo_rounding(headers, positions, normal, notes)
    order = sorted(range(len(headers)), key=lambda i: (positions[i], _recency(headers[i])))
    _check_no_time_series(name, len(headers), 1 + int((np.diff(positions[order]) >= SAME_POSITION_MM).sum()))
    kept: list[int] = []
    for i in order:
        if kept and positions[i] - positions[kept[-1]] < SAME_POSITION_MM:
            # The sort is by time within a position, so that the slice that was taken again after motion is kept.
            notes.exclude(headers[kept.pop()], "repeated_position", "another slice at its position was taken later")
            notes.repair("repeated_position", "the latest of the slices at one position was kept")
        kept.append(i)
    return [headers[i] for i in kept], positions[kept]


def _recency(header: SliceHeader) -> tuple[int, str, int, str]:
    return (
        header.acquisition_number if header.acquisition_number is not None else -1,
        header.acquisition_time,
        header.instance_number if header.instance_number is not None else -1,
        header.sop_uid,
    )


def _check_no_time_series(name: str, count: int, positions: int) -> None:
    if count > MAX_REPEATS * positions:
        raise SeriesError(
            "perfusion",
            where=name,
            got=f"{count} slices at {positions} positions",
            expected="one time point",
            todo="Choose the plain series, not a perfusion series.",
        )


def _positions_of(name: str, headers: Sequence[SliceHeader], normal: np.ndarray, notes: ScanNotes) -> np.ndarray:
    """Positions along the normal; derived from Slice Location or Instance Number if Image Position is missing."""
    positions = [header.position for header in headers]
    if any(position is not None and not is_position(position) for position in positions):
        raise SeriesError(
            "bad_position",
            where=name,
            got="Image Position (Patient) (0020,0032) malformed in some slices",
            expected="three numbers in mm",
            todo="Export the series again.",
        )
    known = [position for position in positions if position is not None]
    if len(known) == len(headers):
        return positions_along(normal, known)
    locations = [header.slice_location for header in headers]
    if all(location is not None and math.isfinite(location) for location in locations):
        notes.repair("no_position", "position missing, ordered by Slice Location")
        notes.flag("order_assumed", "position missing: superior and inferior end are not certain")
        return np.array(locations, float)
    numbers = [header.instance_number for header in headers]
    if all(number is not None for number in numbers):
        step = headers[0].thickness
        step = step if step is not None and math.isfinite(step) and step > 0 else ASSUMED_STEP_MM
        notes.repair("no_position", f"position missing, ordered by Instance Number, {step:g} mm apart")
        notes.flag("order_assumed", "position missing: superior and inferior end are not certain")
        return np.array(numbers, float) * step
    raise SeriesError(
        "no_position",
        where=name,
        got="neither Image Position (0020,0032), Slice Location (0020,1041) nor Instance Number (0020,0013) in all slices",
        expected="one of them",
        todo="Export the series again.",
    )


def spacing_flags(positions: np.ndarray) -> Iterator[Note]:
    """Describe uneven steps and gaps.

    Args:
        positions: Positions along the normal in mm, increasing.

    Yields:
        One flag per finding.
    """
    steps = np.diff(positions)
    median = float(np.median(steps))
    if (abs(steps - median) > max(SAME_POSITION_MM, EVEN_SHARE * median)).any():
        yield Note("uneven_spacing", f"steps of {_describe(steps)}")
    gaps = gap_steps(steps)
    if gaps:
        yield Note("gap", f"slices missing in {counted(len(gaps), 'place')}")
        yield Note("incomplete", "slices are missing")


def gap_steps(steps: np.ndarray) -> list[int]:
    """Indices of the steps that are much longer than the neighboring steps.

    Example:
        >>> gap_steps(np.array([5, 5, 10, 5, 5.0])), gap_steps(np.array([5, 5, 5, 10, 10, 10.0]))
        ([2], [])
    """
    if len(steps) < 3:
        return []
    around = [np.median(steps[max(0, i - GAP_WINDOW) : i + GAP_WINDOW + 1]) for i in range(len(steps))]
    return [i for i, step in enumerate(steps) if step > GAP_RATIO * around[i]]


def _describe(steps: np.ndarray) -> str:
    """Describe steps, grouped if they differ by a few percent: ``4.00 mm (13), 7.00 mm (13), 1.08 mm (1)``."""
    groups: dict[float, list[float]] = defaultdict(list)
    for step in sorted(map(float, steps)):
        near = next((key for key in groups if abs(step - key) <= max(SAME_POSITION_MM, EVEN_SHARE * key)), step)
        groups[near].append(step)
    counts = Counter({f"{np.median(group):.2f} mm": len(group) for group in groups.values()})
    return first_of((f"{step} ({count})" for step, count in counts.most_common()), 4)
