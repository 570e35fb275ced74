"""Maps series to acquisitions: joins one acquisition in several series, and splits several acquisitions in one series.

Scanners and archives divide acquisitions into series in various ways. Two cases must not be read as stored: half a head, whose
other half is in another series; and two shifted scans of one head whose slices are in one series.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ich_lstm.reading.header.geometry import (
    AXIAL,
    MAX_POSITION_MM,
    SAME_POSITION_MM,
    display_of,
    is_orientation,
    origins_in_plane,
)
from ich_lstm.reading.header.header import SliceHeader
from ich_lstm.reading.ledger.header_table import HeaderRows, Rows, take_headers, to_batch
from ich_lstm.reading.series.load import Series
from ich_lstm.reading.series.members import MIN_SLICES, SAME_MM, is_localizer
from ich_lstm.reading.series.ordering import MAX_REPEATS
from ich_lstm.reading.terms import vocabulary

SAME_TISSUE = 0.75
"""Slices whose centers are closer than this share of their thickness show the same tissue twice."""

OVERLAP_SHARE = 0.25
"""Two ranges that share less than this part of the shorter one are two parts of one scan with a seam."""

EVEN_SHARE = 0.1
"""A step is regular if it differs from the median of the steps around it by less than this share."""

REGULAR, STRICTLY_REGULAR = 0.7, 0.9
"""Minimum shares of regular steps: in a scan that may have a seam and a gap; and in a scan recognized by its order alone."""

STEP_WITH_GAPS = 1.25
"""A series whose step exceeds its thickness by this factor leaves tissue between its slices."""

STEP_MISFIT = 0.25
"""A sweep continues if the next step differs from its usual step by less than this share."""

GAP_STEPS = 2
"""Number of consecutive slices that may be missing within a sweep."""

MAX_SWEEPS = 16
"""With more sweeps than this, the order of the attribute is not related to sweeps over the head."""

ABUT_STEPS = 1.5
"""Series abut if their distance is at most this many steps; a longer step is a gap in any series."""

MAX_PAUSE_S = 120.0
"""Longest pause between the base and the cerebrum of one head; an acquisition that begins later is another one."""

SAME_ORIGIN_MM = 2.0
"""Tolerance for the in-plane origins of series that are joined, apart from the shift of a tilted gantry."""

MAX_GANTRY_TANGENT = 0.6
"""In-plane shift of the origin per mm along the normal at the largest gantry tilt of 30 degrees, rounded up."""


class Slices(NamedTuple):
    """The values that distinguish acquisitions, each a float array ``(n,)`` with NaN for missing values.

    Args:
        position: Position along the slice normal in mm, increasing toward superior.
        axial_component: Component of the normal along the body axis, from 0 to 1.
        number: Acquisition Number (0020,0012).
        time: Acquisition Time (0008,0032) in seconds since midnight.
        instance: Instance Number (0020,0013).
        thickness: Slice Thickness (0018,0050) in mm.
    """

    position: np.ndarray
    axial_component: np.ndarray
    number: np.ndarray
    time: np.ndarray
    instance: np.ndarray
    thickness: np.ndarray

    def take(self, which: np.ndarray) -> "Slices":
        """Select slices by indices or a mask."""
        return Slices(*(column[which] for column in self))


class Acquisitions:
    """Splits and joins the series of a table of headers.

    Args:
        table: Rows of :data:`ich_lstm.reading.ledger.header_table.SCHEMA`. A few numeric columns are read for all rows at once,
            so that a series takes microseconds; headers are built only for series that may belong together.
    """

    def __init__(self, table: Rows) -> None:
        self._table = table
        columns = [_slices_of_batch(batch) for batch in table.batches]
        self._slices = Slices(*map(np.concatenate, zip(*columns, strict=True))) if columns else None

    def _slices_of(self, series: Series) -> Slices:
        headers = series.headers
        if isinstance(headers, HeaderRows) and headers.table is self._table and self._slices is not None:
            return self._slices.take(headers.rows)
        return _slices_of_batch(to_batch(list(headers)))

    def split(self, series: Series) -> list[Series]:
        """Split a series that contains two or three shifted scans of the same tissue.

        Acquisitions that do not overlap are one scan: a sequential ("step and shoot") scan has one acquisition per table
        position, and base and cerebrum may be separate ones. Acquisitions at the same positions are repeats, of which
        :func:`~ich_lstm.reading.series.ordering.place_slices` keeps the latest. Odd and even slices that fill each other's gaps
        are one scan as well. Scans are distinguished by Acquisition Number, Acquisition Time, thickness, a second sweep of
        Instance Numbers, or a second lattice of positions; the first criterion that yields regular scans is used.

        Args:
            series: A series of one kernel. The frames of a multi-frame file stay together, because the ledger has one outcome
                per file.

        Returns:
            A list of the series itself, or of its acquisitions in the order in which they were taken.
        """
        if len(series) <= MIN_SLICES or _has_frames(series):
            return [series]
        labels = _label_scans(self._slices_of(series))
        if labels is None:
            return [series]
        count = int(labels.max()) + 1
        return [
            replace(
                series, headers=take_headers(series.headers, np.flatnonzero(labels == i)), acquisition=i + 1, acquisitions=count
            )
            for i in range(count)
        ]

    def join(self, series: Sequence[Series]) -> list[Series]:
        """Join the series of a study that belong to one acquisition.

        Series are joined if they agree in patient, frame of reference, kernel, orientation, matrix and spacing, are of one
        acquisition by number and time, and abut or fill each other's gaps. Series that show the same tissue twice are never
        joined.

        Args:
            series: All series of one study.

        Returns:
            The series of the study after joining. A joined series has the UID of the one with the lowest Series Number (the
            first UID in text order if several share it), and lists the other UIDs.
        """
        if len(series) < 2:
            return list(series)
        stacks = [
            _Stack(each, self._slices_of(each)) if not each.acquisition and not _has_frames(each) else None for each in series
        ]
        pairs = [
            (i, j)
            for (i, one), (j, other) in combinations(enumerate(stacks), 2)
            if one is not None and other is not None and one.touches(other) and one.belongs_to(other)
        ]
        if not pairs:
            return list(series)
        groups = {i: [i] for i in range(len(series))}
        for i, j in sorted(pairs, key=lambda pair: _difference(stacks[pair[0]], stacks[pair[1]])):
            one, other = groups[i], groups[j]
            if one is not other and not any(_show_same_tissue(stacks[a], stacks[b]) for a in one for b in other):
                one += other
                groups.update(dict.fromkeys(other, one))
        return [_join_series([series[i] for i in group]) for i, group in groups.items() if i == min(group)]


# ------------------------------------------------------------------------------------------------ numbers of the slices
@np.errstate(invalid="ignore", divide="ignore", over="ignore")  # caused by malformed positions and orientations
def _slices_of_batch(batch: pa.RecordBatch) -> Slices:
    positions, normals = np.full((len(batch), 3), np.nan), np.full((len(batch), 3), np.nan)
    for name, size, into in (("position", 3, positions), ("orientation", 6, normals)):
        column = batch.column(name)
        fits = pc.equal(pc.fill_null(pc.list_value_length(column), 0), size)
        values = pc.list_flatten(column.filter(fits)).to_numpy(zero_copy_only=False).reshape(-1, size)
        into[fits.to_numpy(zero_copy_only=False)] = values if size == 3 else np.cross(values[:, :3], values[:, 3:])
    normals[batch.column("orientation").is_null().to_numpy(zero_copy_only=False)] = np.cross(AXIAL[:3], AXIAL[3:])
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    normals *= np.where(normals[:, 2:] < 0, -1, 1)
    position = (positions * normals).sum(axis=1)
    position[abs(position) > MAX_POSITION_MM] = np.nan
    number, instance, thickness = (
        pc.cast(batch.column(name), pa.float64()).to_numpy(zero_copy_only=False)
        for name in ("acquisition_number", "instance_number", "thickness")
    )
    thickness = np.where((thickness > 0) & (thickness < MAX_POSITION_MM), thickness, np.nan)
    return Slices(position, normals[:, 2].copy(), number, _seconds(batch.column("acquisition_time")), instance, thickness)


def _seconds(times: pa.Array) -> np.ndarray:
    """Convert VR TM, ``HHMMSS.f``, to seconds."""
    is_time = pc.match_substring_regex(times, r"^\d{6}(\.\d+)?$")
    clock = pc.cast(pc.if_else(is_time, times, pa.scalar(None, pa.string())), pa.float64()).to_numpy(zero_copy_only=False)
    return clock // 10000 * 3600 + clock // 100 % 100 * 60 + clock % 100


def _has_frames(series: Series) -> bool:
    return not isinstance(series.headers, HeaderRows) and any(header.frames > 1 for header in series.headers)


# ------------------------------------------------------------------------------------------------ several acquisitions in one
def _label_scans(slices: Slices) -> np.ndarray | None:
    """The scan of each slice, numbered from 0 in the order of acquisition; None if all slices belong to one scan."""
    parallel = np.isfinite(slices.position) & (abs(slices.axial_component - np.median(slices.axial_component)) < SAME_MM)
    if parallel.sum() <= MIN_SLICES:
        return None
    placed = slices.take(parallel)
    upward = np.argsort(placed.position, kind="stable")
    for values, min_slices, min_regular in (
        (placed.number, 2, REGULAR),
        (placed.time, MIN_SLICES, REGULAR),
        (placed.thickness, MIN_SLICES, REGULAR),
        (placed.instance, MIN_SLICES, STRICTLY_REGULAR),
    ):
        # An incomplete attribute is no criterion. A monotonic one means a single sweep over the head.
        if not np.isfinite(values).all() or _is_monotonic(values[upward]):
            continue
        labels = _separate(placed, _sweeps(placed, values), min_slices, min_regular, values)
        if labels is not None:
            break
    else:
        labels = _separate(placed, _lattices(placed), MIN_SLICES, STRICTLY_REGULAR)
    if labels is None:
        return None
    # Scouts, and slices without a position, stay with the first scan: loading that scan excludes them with a reason.
    all_labels = np.zeros(len(slices.position), int)
    all_labels[parallel] = labels
    return all_labels


def _is_monotonic(values: np.ndarray) -> bool:
    steps = np.diff(values)
    return bool((steps >= 0).all() or (steps <= 0).all())


def _sweeps(slices: Slices, key: np.ndarray) -> np.ndarray:
    """The sweep of each slice: groups of equal key, in order, continue the sweep from which they are one usual step away."""
    order = np.argsort(key, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(key[order])) + 1)
    ranges = [(float(slices.position[group].min()), float(slices.position[group].max())) for group in groups]
    usual = _median(
        np.array([apart for one, other in pairwise(ranges) if (apart := _range_distance(one, other)) >= SAME_POSITION_MM])
    )
    sweeps: list[_Sweep] = []
    labels = np.zeros(len(key), int)
    for group, (low, high) in zip(groups, ranges, strict=True):
        misfits = [sweep.misfit(low, high, usual) for sweep in sweeps]
        number = int(np.argmin(misfits)) if misfits else 0
        if misfits and misfits[number] > STEP_MISFIT * usual and misfits[-1] <= usual * GAP_STEPS:
            number, misfits[-1] = len(sweeps) - 1, 0.0  # the group follows a gap in the latest sweep
        if misfits and misfits[number] <= STEP_MISFIT * usual:
            sweeps[number] = sweeps[number].extended(low, high)
        else:
            number = len(sweeps)
            sweeps.append(_Sweep(low, high))
            if number > MAX_SWEEPS:
                return np.zeros(len(key), int)
        labels[group] = number
    return labels


class _Sweep(NamedTuple):
    """A sweep over the head.

    Args:
        low: Lowest position in mm.
        high: Highest position in mm.
        direction: 1 upward, -1 downward, 0 if there is only one group so far.
    """

    low: float
    high: float
    direction: int = 0

    def misfit(self, low: float, high: float, step: float) -> float:
        """How far slices from `low` to `high` miss the position one step after the sweep; infinite if they do not continue it."""
        upward, downward = (
            (apart if apart > -STEP_MISFIT * step else math.inf) for apart in (low - self.high - step, self.low - high - step)
        )
        return min(abs(upward) if self.direction >= 0 else math.inf, abs(downward) if self.direction <= 0 else math.inf)

    def extended(self, low: float, high: float) -> "_Sweep":
        """The sweep with slices from `low` to `high` added."""
        return _Sweep(min(low, self.low), max(high, self.high), 1 if high > self.high else -1)


def _range_distance(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Distance between two ranges; negative if they overlap."""
    return max(one[0], other[0]) - min(one[1], other[1])


def _lattices(slices: Slices) -> np.ndarray:
    """The lattice of each slice, if the positions form two or three lattices of one period; otherwise all 0."""
    positions = np.unique(np.round(slices.position, 3))
    steps = np.diff(positions)
    no_lattice = np.zeros(len(slices.position), int)
    if _regularity(positions) >= STRICTLY_REGULAR:
        return no_lattice
    for count in range(2, MAX_REPEATS + 1):
        if len(steps) < count * MIN_SLICES:
            break
        period = float(np.median(np.convolve(steps, np.ones(count), "valid")))
        phases = (slices.position - positions[0]) % period
        order = np.argsort(phases)
        apart = np.diff(phases[order], append=phases[order[0]] + period) > EVEN_SHARE * period
        # The phases of the first lattice may lie on both sides of the period's end.
        labels = np.zeros(len(order), int)
        labels[order] = np.concatenate([[0], np.cumsum(apart[:-1])]) % max(int(apart.sum()), 1)
        if int(apart.sum()) == count and all(
            abs(_step(slices.position[labels == i]) - period) < EVEN_SHARE * period for i in range(count)
        ):
            return labels
    return no_lattice


def _separate(
    slices: Slices, labels: np.ndarray, min_slices: int, min_regular: float, key: np.ndarray | None = None
) -> np.ndarray | None:
    """Keep the sweeps that are scans, and assign the slices of all others to neighboring scans.

    Args:
        slices: Slices of one series.
        labels: Sweep of each slice, ``(n,)``.
        min_slices: Minimum number of slices in a scan.
        min_regular: Minimum share of regular steps in a scan.
        key: The attribute that distinguished the sweeps, which must increase from scan to scan. If the time is that of
            reconstruction, in several processes at once, the sweeps overlap in time and are rejected.

    Returns:
        The scan of each slice, numbered from 0 in the order of acquisition; None if there is only one scan.
    """
    if not labels.any():
        return None
    sweeps, labels = labels, labels.copy()
    sizes = np.bincount(labels)
    is_even = _regularity(slices.position) >= REGULAR
    kept: list[int] = []
    for sweep in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        mine = slices.take(labels == sweep)
        near = [other for other in kept if _shares_range(mine.position, slices.position[labels == other])]
        whole = [
            other
            for other in near
            if sizes[sweep] < min_slices or not _is_shifted(mine, slices.take(labels == other), min_regular, is_even)
        ]
        if kept and (whole or not near):
            ends = {i: _distance(mine.position, slices.position[labels == i]) for i in whole or kept}
            labels[labels == sweep] = min(ends, key=lambda i: (ends[i], i))
        else:
            kept.append(sweep)
    if not 2 <= len(kept) <= MAX_REPEATS:
        return None
    # The slices of several scans are interleaved in the series, so that a scan's own step is longer by this factor.
    spread = len(kept) * float(np.ptp(slices.position)) / len(slices.position)
    for sweep in kept:
        scan = slices.take(labels == sweep)
        thickness = _median(scan.thickness)
        # If only positions distinguish the scans, each must be complete: uneven steps could also come from rounded positions.
        longest = STEP_WITH_GAPS * (thickness if key is None and thickness > 0 else np.fmax(thickness, spread))
        if _regularity(scan.position) < min_regular or _step(scan.position) > longest:
            return None
    kept.sort()
    if key is not None and any(key[sweeps == one].max() >= key[sweeps == other].min() for one, other in pairwise(kept)):
        return None
    number_of = {sweep: i for i, sweep in enumerate(kept)}
    return np.array([number_of[int(sweep)] for sweep in labels])


def _is_shifted(one: Slices, other: Slices, min_regular: float, is_even: bool) -> bool:
    """Whether two sweeps over one range show the same tissue at different positions.

    Args:
        one: Slices of a sweep.
        other: Slices of a longer sweep.
        min_regular: Minimum share of regular steps.
        is_even: Whether all slices of the series together have regular steps.
    """
    if min(_regularity(one.position), _regularity(other.position)) < min_regular:
        return False
    nearest = _nearest(one.position, other.position)
    thickness = _median(one.thickness), _median(other.thickness)
    unlike = abs(thickness[0] - thickness[1]) > EVEN_SHARE * max(thickness)  # False if a thickness is unknown
    if nearest < SAME_POSITION_MM:
        return unlike  # equal positions: repeats, or reconstructions of two thicknesses
    extent = min(thickness) if min(thickness) > 0 else _step(other.position)
    return unlike or not (is_even and nearest >= SAME_TISSUE * extent)  # interleaved slices fill each other's gaps


def _shares_range(one: np.ndarray, other: np.ndarray) -> bool:
    low, high = max(one.min(), other.min()), min(one.max(), other.max())
    shorter = min(np.ptp(one), np.ptp(other))
    return bool(high > low and high - low >= OVERLAP_SHARE * shorter) or bool(low == high and shorter == 0)


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Distance between two ranges; 0 if they overlap."""
    return max(0.0, float(max(one.min(), other.min()) - min(one.max(), other.max())))


def _nearest(one: np.ndarray, other: np.ndarray) -> float:
    """Median distance from the slices of one range to the nearest slices of the other, where the ranges overlap."""
    other = np.sort(other)
    inside = one[(one >= other[0]) & (one <= other[-1])]
    if not len(inside):
        return math.inf
    after = np.clip(np.searchsorted(other, inside), 1, max(len(other) - 1, 1))
    return float(np.median(np.minimum(abs(inside - other[after - 1]), abs(inside - other[np.minimum(after, len(other) - 1)]))))


def _regularity(positions: np.ndarray) -> float:
    """The share of steps that equal the median of themselves and their neighbors: gaps, and steps of 2, 3, 2, 3 mm, do not."""
    steps = np.diff(np.sort(positions))
    steps = steps[steps >= SAME_POSITION_MM]
    if len(steps) < 3:
        return 1.0
    before, after = np.append(steps[1], steps[:-1]), np.append(steps[1:], steps[-2])  # at the ends, the only neighbor twice
    around = np.maximum(np.minimum(before, after), np.minimum(np.maximum(before, after), steps))
    return float((abs(steps - around) < EVEN_SHARE * around).mean())


def _step(positions: np.ndarray) -> float:
    """Median distance between neighboring positions; NaN if there are none."""
    steps = np.diff(np.sort(positions))
    return _median(steps[steps >= SAME_POSITION_MM])


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else math.nan


# ------------------------------------------------------------------------------------------------ one acquisition in several
class _Stack:
    """A series as a stack of slices."""

    def __init__(self, series: Series, slices: Slices) -> None:
        self.series = series
        self.slices = slices
        positions = np.sort(slices.position)
        self.is_placed = (
            bool(len(positions)) and bool(np.isfinite(positions).all()) and bool(np.ptp(slices.axial_component) < SAME_MM)
        )
        self.positions = positions
        self.thickness = _median(slices.thickness)
        step = _step(positions) if self.is_placed else math.nan
        self.step = step if step > 0 else self.thickness
        self._ends: tuple[SliceHeader, SliceHeader] | None = None

    def ends(self) -> tuple[SliceHeader, SliceHeader]:
        """The lowest and the highest slice."""
        if self._ends is None:
            order = np.argsort(self.slices.position, kind="stable")
            self._ends = self.series.headers[int(order[0])], self.series.headers[int(order[-1])]
        return self._ends

    def gap(self, other: "_Stack") -> float:
        """Distance between two stacks in mm; negative if they overlap."""
        return float(max(self.positions[0], other.positions[0]) - min(self.positions[-1], other.positions[-1]))

    def abuts(self, other: "_Stack") -> bool:
        """Whether one stack continues where the other ends; the seam may be shorter than a step."""
        return -min(self.step, other.step) < self.gap(other) <= ABUT_STEPS * max(self.step, other.step)

    def fills(self, other: "_Stack") -> bool:
        """Whether the slices of one stack lie in the gaps of the other."""
        if len(self.positions) < 2 or len(other.positions) < 2 or not _shares_range(self.positions, other.positions):
            return False
        thickness = max(self.thickness, other.thickness)
        return (
            abs(self.thickness - other.thickness) < SAME_MM
            and min(self.step, other.step) >= STEP_WITH_GAPS * thickness
            and _nearest(*sorted((self.positions, other.positions), key=len)) >= SAME_TISSUE * thickness
        )

    def touches(self, other: "_Stack") -> bool:
        """Whether the positions of two stacks allow them to be parts of one stack."""
        if (
            not (self.is_placed and other.is_placed)
            or abs(self.slices.axial_component[0] - other.slices.axial_component[0]) >= SAME_MM
        ):
            return False
        return self.abuts(other) or self.fills(other)

    def belongs_to(self, other: "_Stack") -> bool:
        """Whether two stacks are of one acquisition, and agree in all properties of a scan."""
        return self._same_acquisition(other) and self._same_properties(other)

    def _same_acquisition(self, other: "_Stack") -> bool:
        """Compare time and number where both are known. Stacks that abut may be consecutive in time."""
        abut = self.abuts(other)
        times = self.slices.time, other.slices.time
        if all(np.isfinite(time).all() for time in times):
            pause = max(time.min() for time in times) - min(time.max() for time in times)
            if pause > (MAX_PAUSE_S if abut else 1.0):
                return False
        numbers = self.slices.number, other.slices.number
        if all(np.isfinite(number).all() for number in numbers):
            apart = max(number.min() for number in numbers) - min(number.max() for number in numbers)
            return bool(apart <= (1 if abut else 0))
        return True

    def _same_properties(self, other: "_Stack") -> bool:
        mine, others = self.ends(), other.ends()
        return (
            bool(mine[0].frame_of_reference)
            and _scan_properties(mine[0]) == _scan_properties(others[0])
            and _same_spacing(mine[0], others[0])
            and not is_localizer(mine[0])
            and min(_origin_distance(one, another) for one in mine for another in others)
            <= SAME_ORIGIN_MM + MAX_GANTRY_TANGENT * max(0.0, self.gap(other))
        )


def _scan_properties(header: SliceHeader) -> tuple[object, ...]:
    """The properties that the slices of one scan share."""
    description = header.series_description
    text = vocabulary.normal_form(f"{description} {' '.join(header.image_type)}")
    return (
        header.study_uid,
        header.patient_id,
        header.frame_of_reference,
        header.modality,
        header.sop_class_uid,
        header.image_type,
        header.kernel,
        header.contrast_agent,
        header.contrast_given,
        header.rescale_type,
        header.rows,
        header.columns,
        header.photometric,
        header.patient_position,
        None if header.orientation is None else tuple(round(value, 3) for value in header.orientation),
        vocabulary.names_contrast(description),
        vocabulary.names_bone(description),
        vocabulary.names_map(text),
        vocabulary.names_energy(text),
        vocabulary.names_other_part(description, header.body_part),
        header.body_part,
    )


def _same_spacing(one: SliceHeader, other: SliceHeader) -> bool:
    mine, others = one.pixel_spacing, other.pixel_spacing
    if mine is None or others is None or len(mine) != len(others):
        return False
    return all(abs(a - b) <= SAME_MM for a, b in zip(mine, others, strict=True))


def _origin_distance(one: SliceHeader, other: SliceHeader) -> float:
    """In-plane distance between the origins of two slices, in mm."""
    if one.orientation is None or not is_orientation(one.orientation):
        return math.inf
    origins = origins_in_plane(display_of(one.orientation), one.orientation, [one.position, other.position])
    return math.inf if origins is None else float(np.linalg.norm(origins[0] - origins[1]))


def _show_same_tissue(one: "_Stack | None", other: "_Stack | None") -> bool:
    """Whether two stacks show the same tissue twice."""
    assert one is not None
    assert other is not None
    return one.gap(other) <= -min(one.step, other.step) and not one.fills(other)


def _difference(one: "_Stack | None", other: "_Stack | None") -> tuple[object, ...]:
    """Sort key for pairs of series to join: alike series come first, so that two reconstructions are joined separately."""
    assert one is not None
    assert other is not None
    first, second = one.ends()[0], other.ends()[0]
    thickness = abs(one.thickness - other.thickness)
    return (
        first.series_description != second.series_description,
        thickness if math.isfinite(thickness) else math.inf,
        abs((first.series_number or 0) - (second.series_number or 0)),
        sorted((first.series_uid, second.series_uid)),
    )


def _join_series(series: Sequence[Series]) -> Series:
    if len(series) == 1:
        return series[0]
    numbers = {each.series_uid: each.headers[0].series_number for each in series}
    ordered = sorted(series, key=lambda each: (numbers[each.series_uid] is None, numbers[each.series_uid], each.series_uid))
    headers: Sequence[SliceHeader]
    rows = [each.headers for each in ordered if isinstance(each.headers, HeaderRows)]
    if len(rows) == len(ordered) and all(one.table is other.table for one, other in pairwise(rows)):
        headers = HeaderRows(rows[0].table, np.concatenate([each.rows for each in rows]))
    else:
        headers = tuple(header for each in ordered for header in each.headers)
    first, *others = ordered
    return replace(first, headers=headers, joined=tuple(each.series_uid for each in others))
