"""Recovers the true slice positions from positions that were rounded to whole or tenths of a mm on export."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from ich_lstm.errors import FileError
from ich_lstm.reading.header.geometry import SAME_POSITION_MM
from ich_lstm.reading.header.header import SliceHeader
from ich_lstm.reading.pixels.dicom_file import read_hu
from ich_lstm.reading.series.members import thickness_of
from ich_lstm.reading.series.notes import ScanNotes

GRIDS_MM = (1.0, 0.1)
"""To what positions are rounded, the coarser first."""

ON_GRID_MM = 1e-6
"""Decimal fractions are not exact in binary."""

UNEVEN_SHARE = 0.05
"""Steps that differ by less from their median are left as they are."""

FIT_SHARE = 1.2
"""The slope through rounded places is that of least squares: the largest error is a little above half the grid."""

THICKNESS_SHARE = 0.75
"""Slices of one position each of which comes as often may be repeats; they are not if their true step is so much of their
thickness."""

TABLE_SLOPES = (0.8, 1.02)
"""Slice Location counts along the table, whose way is longer than the normal of a tilted gantry's slices (30 degrees)."""


def undo_rounding(
    headers: Sequence[SliceHeader], places: np.ndarray, normal: np.ndarray, notes: ScanNotes
) -> tuple[list[SliceHeader], np.ndarray]:
    """Put slices back where they were before their positions were rounded.

    Different slices that were rounded to one position are no repeats. By Slice Location they lie where it says, if it is
    finer. Otherwise they are ordered by Instance Number, or by what is left of their positions, and spaced evenly, if that
    moves none by more than the rounding has. Slices of the same pixels are repeats nevertheless.

    Args:
        headers: Parallel slices in any order.
        places: Along the normal in mm, ``(n,)``.
        normal: Unit vector across the slices.
        notes: Takes the repair ``rounded_positions``, the repeats, and the flag ``rounded_positions`` where slices of one
            position have nothing that orders them.

    Returns:
        The slices and their places; both as they came if the positions are not rounded, or are even, or if no even spacing fits.
    """
    headers = list(headers)
    positions = [header.position for header in headers]
    known = [position for position in positions if position is not None]
    if len(known) < len(headers) or len(headers) < 4 or _is_even(places):
        return headers, places
    along = abs(normal) > ON_GRID_MM
    components = np.array(known, float)[:, along]
    grid = next((grid for grid in GRIDS_MM if _lie_on(components, grid)), None)
    if grid is None:
        return headers, places
    error = grid / 2 * float(abs(normal[along]).sum())
    located = _by_location(headers, places, grid, error)
    if located is not None:
        notes.repair("rounded_positions", f"positions rounded to {grid:g} mm, taken from Slice Location")
        return headers, located
    if any(len({headers[i].acquisition_number for i in group}) > 1 for group in _crowded(places)):
        return headers, places  # taken again
    copies = _copies(headers, places)
    kept = np.array([i for i in range(len(headers)) if i not in copies])
    if len(kept) < 4 or _is_even(places[kept]):
        return headers, places  # but for slices taken again, nothing is uneven
    respaced = _evenly([headers[i] for i in kept], places[kept], error)
    if respaced is None:
        return headers, places
    fitted, step, by_number = respaced
    for i in copies:
        notes.exclude(headers[i], "repeated_position", "the same pixels as another slice at its position")
        notes.repair("repeated_position", "slices that came twice at one position were read once")
    how = "by Instance Number" if by_number else "in the order of their positions"
    notes.repair("rounded_positions", f"positions rounded to {grid:g} mm, spaced evenly {how}, {step:.3g} mm apart")
    if not by_number and _crowded(places[kept]):
        notes.flag("rounded_positions", f"several slices rounded to one position, their order within {grid:g} mm is not certain")
    return [headers[i] for i in kept], fitted


def _is_even(places: np.ndarray) -> bool:
    steps = np.diff(np.sort(places))
    middle = float(np.median(steps))
    return middle >= SAME_POSITION_MM and bool((abs(steps - middle) <= max(SAME_POSITION_MM, UNEVEN_SHARE * middle)).all())


def _lie_on(values: np.ndarray, grid: float) -> bool:
    return bool((abs(values / grid - np.rint(values / grid)) <= ON_GRID_MM * np.maximum(1, abs(values / grid))).all())


def _by_location(headers: Sequence[SliceHeader], places: np.ndarray, grid: float, error: float) -> np.ndarray | None:
    """Places by Slice Location, if it is finer than the positions and agrees with them."""
    locations = np.array([np.nan if header.slice_location is None else header.slice_location for header in headers])
    if not np.isfinite(locations).all() or _lie_on(locations, grid) or np.ptp(locations) < SAME_POSITION_MM:
        return None
    slope = float(np.polyfit(locations, places, 1)[0])
    low, high = TABLE_SLOPES
    if not low <= abs(slope) <= high:
        return None
    slope = float(np.sign(slope)) if abs(slope) > 2 - high else slope
    offsets = places - slope * locations
    if np.ptp(offsets) / 2 > FIT_SHARE * error:
        return None
    return slope * locations + (offsets.min() + offsets.max()) / 2


def _evenly(headers: Sequence[SliceHeader], places: np.ndarray, error: float) -> tuple[np.ndarray, float, bool] | None:
    """Places on an even lattice, its step, and whether Instance Number orders them; None if none fits."""
    numbers = [header.instance_number for header in headers]
    if all(number is not None for number in numbers):
        fitted = _line(np.array(numbers, float), places, error)
        if fitted is not None:
            return *fitted, True
    order = sorted(range(len(headers)), key=lambda i: (places[i], headers[i].sop_uid))
    ranks = np.empty(len(order))
    ranks[order] = np.arange(len(order))
    fitted = _line(ranks, places, error)
    counts = {len(group) for group in _groups(places)}
    if fitted is None or (
        counts != {1} and len(counts) == 1 and not fitted[1] >= THICKNESS_SHARE * (thickness_of(headers) or np.inf)
    ):
        return None
    return *fitted, False


def _line(numbers: np.ndarray, places: np.ndarray, error: float) -> tuple[np.ndarray, float] | None:
    """Places that grow evenly with a number, and the step, if none of them moves by more than the rounding."""
    if np.ptp(numbers) == 0:
        return None
    slope = float(np.polyfit(numbers, places, 1)[0])
    offsets = places - slope * numbers
    if abs(slope) < SAME_POSITION_MM or np.ptp(offsets) / 2 > FIT_SHARE * error:
        return None
    return slope * numbers + (offsets.min() + offsets.max()) / 2, abs(slope)


def _groups(places: np.ndarray) -> list[list[int]]:
    """Slices of each position."""
    groups: dict[int, list[int]] = defaultdict(list)
    for i, place in enumerate(places):
        groups[round(float(place) / SAME_POSITION_MM)].append(i)
    return list(groups.values())


def _crowded(places: np.ndarray) -> list[list[int]]:
    """Slices of each position that has several."""
    return [group for group in _groups(places) if len(group) > 1]


def _copies(headers: Sequence[SliceHeader], places: np.ndarray) -> set[int]:
    """Slices whose pixels are those of another at their position; of slices of one value, such as air, nothing can be told."""
    copies: set[int] = set()
    for group in _crowded(places):
        seen: set[bytes] = set()
        for i in sorted(group, key=lambda i: (headers[i].instance_number or 0, headers[i].sop_uid)):
            pixels = _pixels(headers[i])
            if pixels is None:
                continue
            if pixels in seen:
                copies.add(i)
            seen.add(pixels)
    return copies


def _pixels(header: SliceHeader) -> bytes | None:
    try:
        hu, _ = read_hu(header)
    except FileError:
        return None  # reading the scan will say what is wrong with it
    return None if hu.min() == hu.max() else hu.tobytes()
