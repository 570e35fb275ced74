"""The order of slices: their positions along the slice normal, repeats, and gaps."""

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
"""Steps that differ by less than 5 % from their median are even: positions are rounded in many files."""

GAP_RATIO = 1.5
"""A step this much longer than those around it has lost a slice. A lasting change of the step is no gap."""

GAP_WINDOW = 2
"""Steps looked at on each side."""

MAX_REPEATS = 3
"""A position seen more often than this is a time series; 2 or 3 times, a scan repeated after motion."""

ASSUMED_STEP_MM = 5.0


def place_slices(
    name: str, headers: Sequence[SliceHeader], normal: np.ndarray, notes: ScanNotes
) -> tuple[list[SliceHeader], np.ndarray]:
    """Order slices inferior to superior.

    Args:
        name: What messages call the series.
        headers: Parallel slices in any order.
        normal: Unit vector across them, pointing to the head.
        notes: Takes the repairs and what is left out.

    Returns:
        The slices in order, and their positions along the normal in mm, increasing.

    Raises:
        SeriesError: ``bad_position``, ``no_position``, ``equal_positions`` or ``perfusion``.
    """
    places = _places(name, headers, normal, notes)
    if len(headers) > 1 and np.ptp(places) < SAME_POSITION_MM:
        raise SeriesError(
            "equal_positions",
            where=name,
            got=f"{len(headers)} slices at one position",
            expected="a position for each",
            todo="Export the series again.",
        )
    headers, places = undo_rounding(headers, places, normal, notes)
    order = sorted(range(len(headers)), key=lambda i: (places[i], _recency(headers[i])))
    _check_no_time_series(name, len(headers), 1 + int((np.diff(places[order]) >= SAME_POSITION_MM).sum()))
    kept: list[int] = []
    for i in order:
        if kept and places[i] - places[kept[-1]] < SAME_POSITION_MM:
            # Sorted by time within a position: the later one, taken again after motion, stays.
            notes.exclude(headers[kept.pop()], "repeated_position", "another slice at its position was taken later")
            notes.repair("repeated_position", "of slices at one position the latest was kept")
        kept.append(i)
    return [headers[i] for i in kept], places[kept]


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


def _places(name: str, headers: Sequence[SliceHeader], normal: np.ndarray, notes: ScanNotes) -> np.ndarray:
    """Positions along the normal; from Slice Location or Instance Number where the position is missing."""
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
        notes.flag("order_assumed", "position missing, head and foot end are not certain")
        return np.array(locations, float)
    numbers = [header.instance_number for header in headers]
    if all(number is not None for number in numbers):
        step = headers[0].thickness
        step = step if step is not None and math.isfinite(step) and step > 0 else ASSUMED_STEP_MM
        notes.repair("no_position", f"position missing, ordered by Instance Number, {step:g} mm apart")
        notes.flag("order_assumed", "position missing, head and foot end are not certain")
        return np.array(numbers, float) * step
    raise SeriesError(
        "no_position",
        where=name,
        got="neither Image Position (0020,0032), Slice Location (0020,1041) nor Instance Number (0020,0013) in all slices",
        expected="one of them",
        todo="Export the series again.",
    )


def spacing_flags(positions: np.ndarray) -> Iterator[Note]:
    """Flags for uneven steps and gaps.

    Args:
        positions: Along the normal in mm, increasing.
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
    """Indices of the steps that are much longer than those around them.

    Example:
        >>> gap_steps(np.array([5, 5, 10, 5, 5.0])), gap_steps(np.array([5, 5, 5, 10, 10, 10.0]))
        ([2], [])
    """
    if len(steps) < 3:
        return []
    around = [np.median(steps[max(0, i - GAP_WINDOW) : i + GAP_WINDOW + 1]) for i in range(len(steps))]
    return [i for i, step in enumerate(steps) if step > GAP_RATIO * around[i]]


def _describe(steps: np.ndarray) -> str:
    """Steps that lie within a few percent of each other count as one: ``4.00 mm (13), 7.00 mm (13), 1.08 mm (1)``."""
    groups: dict[float, list[float]] = defaultdict(list)
    for step in sorted(map(float, steps)):
        near = next((key for key in groups if abs(step - key) <= max(SAME_POSITION_MM, EVEN_SHARE * key)), step)
        groups[near].append(step)
    counts = Counter({f"{np.median(group):.2f} mm": len(group) for group in groups.values()})
    return first_of((f"{step} ({count})" for step, count in counts.most_common()), 4)
