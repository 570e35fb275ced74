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
"""Grids to which positions may have been rounded, the coarser first."""

GRID_TOLERANCE = 1e-6
"""Tolerance of values on a grid, relative to the grid: decimal fractions are not exact in binary."""

UNEVEN_SHARE = 0.05
"""Steps that differ from their median by less than this share are even, and are left unchanged."""

FIT_SHARE = 1.2
"""Largest deviation from the line, as a multiple of the rounding error: a least-squares line through rounded positions deviates
by slightly more than half the grid."""

THICKNESS_SHARE = 0.75
"""If every position holds equally many slices, these may be repeats. They are different slices if their fitted step is at least
this share of the slice thickness."""

TABLE_SLOPES = (0.8, 1.02)
"""Slope of the positions over Slice Location, which counts along the table. With a tilted gantry (30 degrees) the table moves
farther than the slices advance along their normal."""


def undo_rounding(
    headers: Sequence[SliceHeader], positions: np.ndarray, normal: np.ndarray, notes: ScanNotes
) -> tuple[list[SliceHeader], np.ndarray]:
    """Restore the positions of slices that were rounded on export.

    Different slices that were rounded to one position are not repeats. If Slice Location is finer than the positions, it gives
    the positions. Otherwise the slices are ordered by Instance Number, or by their rounded positions, and spaced evenly; this
    is done only if no slice moves by more than the rounding error. Slices with equal pixels at one position are repeats
    in any case.

    Args:
        headers: Parallel slices in any order.
        positions: Positions along the normal in mm, ``(n,)``.
        normal: Unit vector along the slice normal.
        notes: Collects the repair ``rounded_positions`` and the excluded repeats, and the flag ``rounded_positions`` if nothing
            orders the slices of one position.

    Returns:
        The slices and their positions. Both are returned unchanged if the positions are not rounded, if they are even, or if
        no even spacing fits.
    """
    headers = list(headers)
    known = [header.position for header in headers if header.position is not None]
    if len(known) < len(headers) or len(headers) < 4 or _is_even(positions):
        return headers, positions
    along = abs(normal) > GRID_TOLERANCE
    components = np.array(known, float)[:, along]
    grid = next((grid for grid in GRIDS_MM if _are_on_grid(components, grid)), None)
    if grid is None:
        return headers, positions
    error = grid / 2 * float(abs(normal[along]).sum())
    located = _positions_by_location(headers, positions, grid, error)
    if located is not None:
        notes.repair("rounded_positions", f"positions rounded to {grid:g} mm, taken from Slice Location")
        return headers, located
    if any(len({headers[i].acquisition_number for i in group}) > 1 for group in _shared_positions(positions)):
        return headers, positions  # the slices of one position are repeated acquisitions
    copies = _find_copies(headers, positions)
    kept = np.array([i for i in range(len(headers)) if i not in copies])
    if len(kept) < 4 or _is_even(positions[kept]):
        return headers, positions  # the positions are even, apart from the repeats
    respaced = _even_positions([headers[i] for i in kept], positions[kept], error)
    if respaced is None:
        return headers, positions
    fitted, step, by_number = respaced
    for i in copies:
        notes.exclude(headers[i], "repeated_position", "the same pixels as another slice at its position")
        notes.repair("repeated_position", "repeated slices at one position were read once")
    how = "by Instance Number" if by_number else "in the order of their positions"
    notes.repair("rounded_positions", f"positions rounded to {grid:g} mm, spaced evenly {how}, {step:.3g} mm apart")
    if not by_number and _shared_positions(positions[kept]):
        notes.flag(
            "rounded_positions", f"several slices were rounded to one position: their order within {grid:g} mm is not certain"
        )
    return [headers[i] for i in kept], fitted


def _is_even(positions: np.ndarray) -> bool:
    steps = np.diff(np.sort(positions))
    middle = float(np.median(steps))
    return middle >= SAME_POSITION_MM and bool((abs(steps - middle) <= max(SAME_POSITION_MM, UNEVEN_SHARE * middle)).all())


def _are_on_grid(values: np.ndarray, grid: float) -> bool:
    return bool((abs(values / grid - np.rint(values / grid)) <= GRID_TOLERANCE * np.maximum(1, abs(values / grid))).all())


def _positions_by_location(headers: Sequence[SliceHeader], positions: np.ndarray, grid: float, error: float) -> np.ndarray | None:
    """Positions from Slice Location, if it is finer than the rounded positions and agrees with them; otherwise None."""
    locations = np.array([np.nan if header.slice_location is None else header.slice_location for header in headers])
    if not np.isfinite(locations).all() or _are_on_grid(locations, grid) or np.ptp(locations) < SAME_POSITION_MM:
        return None
    slope = float(np.polyfit(locations, positions, 1)[0])
    low, high = TABLE_SLOPES
    if not low <= abs(slope) <= high:
        return None
    slope = float(np.sign(slope)) if abs(slope) > 2 - high else slope
    offsets = positions - slope * locations
    if np.ptp(offsets) / 2 > FIT_SHARE * error:
        return None
    return slope * locations + (offsets.min() + offsets.max()) / 2


def _even_positions(headers: Sequence[SliceHeader], positions: np.ndarray, error: float) -> tuple[np.ndarray, float, bool] | None:
    """Evenly spaced positions, their step, and whether Instance Number orders them; None if no even spacing fits."""
    numbers = [header.instance_number for header in headers]
    if all(number is not None for number in numbers):
        fitted = _fit_line(np.array(numbers, float), positions, error)
        if fitted is not None:
            return *fitted, True
    order = sorted(range(len(headers)), key=lambda i: (positions[i], headers[i].sop_uid))
    ranks = np.empty(len(order))
    ranks[order] = np.arange(len(order))
    fitted = _fit_line(ranks, positions, error)
    counts = {len(group) for group in _group_by_position(positions)}
    if fitted is None or (
        counts != {1} and len(counts) == 1 and not fitted[1] >= THICKNESS_SHARE * (thickness_of(headers) or np.inf)
    ):
        return None
    return *fitted, False


def _fit_line(numbers: np.ndarray, positions: np.ndarray, error: float) -> tuple[np.ndarray, float] | None:
    """Positions that increase linearly with a number, and their step; None if a slice would move by more than the rounding."""
    if np.ptp(numbers) == 0:
        return None
    slope = float(np.polyfit(numbers, positions, 1)[0])
    offsets = positions - slope * numbers
    if abs(slope) < SAME_POSITION_MM or np.ptp(offsets) / 2 > FIT_SHARE * error:
        return None
    return slope * numbers + (offsets.min() + offsets.max()) / 2, abs(slope)


def _group_by_position(positions: np.ndarray) -> list[list[int]]:
    """Indices of the slices at each position."""
    groups: dict[int, list[int]] = defaultdict(list)
    for i, position in enumerate(positions):
        groups[round(float(position) / SAME_POSITION_MM)].append(i)
    return list(groups.values())


def _shared_positions(positions: np.ndarray) -> list[list[int]]:
    """Indices of the slices at each position that holds several."""
    return [group for group in _group_by_position(positions) if len(group) > 1]


def _find_copies(headers: Sequence[SliceHeader], positions: np.ndarray) -> set[int]:
    """Slices whose pixels equal those of another slice at their position. Slices of one value, such as air, are not compared."""
    copies: set[int] = set()
    for group in _shared_positions(positions):
        seen: set[bytes] = set()
        for i in sorted(group, key=lambda i: (headers[i].instance_number or 0, headers[i].sop_uid)):
            pixels = _pixel_bytes(headers[i])
            if pixels is None:
                continue
            if pixels in seen:
                copies.add(i)
            seen.add(pixels)
    return copies


def _pixel_bytes(header: SliceHeader) -> bytes | None:
    try:
        hu, _ = read_hu(header)
    except FileError:
        return None  # reading the scan reports the error
    return None if hu.min() == hu.max() else hu.tobytes()
