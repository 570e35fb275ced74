"""Maps series to acquisitions: joins one acquisition in several series, and splits several acquisitions in one series.

Scanners and archives cut their series as they like. Two things are wrong to read as they come: half a head, because the other
half lies in another series; and slices of two shifted scans of one head, because both lie in one series.
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
"""Slices whose centres are closer than three quarters of their thickness show the same tissue twice."""

OVERLAP_SHARE = 0.25
"""Two ranges that share less than a quarter of the shorter one are two parts of one scan with a seam."""

EVEN_SHARE = 0.1
"""A step is regular if it differs by less than 10 % from the median of the steps around it."""

REGULAR, STRICTLY_REGULAR = 0.7, 0.9
"""The share of regular steps in a scan that may have a seam and a gap; and in one of which nothing else but its order tells."""

STEP_WITH_GAPS = 1.25
"""A series whose step is this many times its thickness leaves tissue between its slices."""

STEP_MISFIT = 0.25
"""A run over the head goes on by its usual step to within a quarter of it."""

GAP_STEPS = 2
"""So many slices may be missing in a row without ending a run."""

MOST_RUNS = 16
"""With more, the order of what is looked at has nothing to do with runs over the head."""

ABUT_STEPS = 1.5
"""Series abut if they lie no farther apart than one and a half steps: a longer step is a gap in any series."""

MAX_PAUSE_S = 120.0
"""Between the base and the cerebrum of one head; an acquisition that begins later is another one."""

SAME_ORIGIN_MM = 2.0
"""Series that are joined begin at the same place in their plane, but for rounding and the shift of a tilted gantry."""

MAX_GANTRY_TANGENT = 0.6
"""Of the largest gantry tilt, 30 degrees: by so much per mm along the normal the origin of slices may move in their plane."""


class Slices(NamedTuple):
    """What tells acquisitions apart, an array ``(n,)`` of float for each; NaN where the file does not tell.

    Args:
        place: Along the slice normal, in mm, to the head.
        lean: Component of the normal along the body axis, from 0 to 1.
        number: Acquisition Number.
        time: Acquisition Time, in seconds since midnight.
        instance: Instance Number.
        thickness: Slice Thickness in mm.
    """

    place: np.ndarray
    lean: np.ndarray
    number: np.ndarray
    time: np.ndarray
    instance: np.ndarray
    thickness: np.ndarray

    def take(self, which: np.ndarray) -> "Slices":
        """Some of the slices."""
        return Slices(*(column[which] for column in self))


class Acquisitions:
    """Splits and joins the series of a table of headers.

    Args:
        table: Rows of :data:`ich_lstm.reading.ledger.header_table.SCHEMA`. Of each, some numbers are taken at once, so that
            a series costs microseconds; headers are made only of series that may belong together.
    """

    def __init__(self, table: Rows) -> None:
        self._table = table
        columns = [_slices_of_batch(batch) for batch in table.batches]
        self._slices = Slices(*map(np.concatenate, zip(*columns, strict=True))) if columns else None

    def _of(self, series: Series) -> Slices:
        headers = series.headers
        if isinstance(headers, HeaderRows) and headers.table is self._table and self._slices is not None:
            return self._slices.take(headers.rows)
        return _slices_of_batch(to_batch(list(headers)))

    def split(self, series: Series) -> list[Series]:
        """Split a series that holds two or three shifted scans of the same tissue.

        Acquisitions that lie beside each other are one scan: a sequential ("step and shoot") scan has one at each position of
        the table, and base and cerebrum may be one each. So are acquisitions at the same positions, which are repeats
        (:func:`~ich_lstm.reading.series.ordering.place_slices` keeps the latest), and odd and even slices that fill each other's
        gaps. Scans are told apart by Acquisition Number, by Acquisition Time, by thickness, by a second run of Instance
        Numbers, or by a second lattice of positions; the first of these that parts the series into regular scans is believed.

        Args:
            series: Of one kernel. The frames of a multi-frame file stay together, for their file can have one fate only.

        Returns:
            The series itself; or its acquisitions in the order in which they were taken.
        """
        if len(series) <= MIN_SLICES or _has_frames(series):
            return [series]
        labels = _tell_apart(self._of(series))
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
        """Join the series of a study over which one acquisition is spread.

        They have one patient, frame of reference, kernel, orientation, matrix and spacing, and one acquisition by its number and
        time; and they abut, or fill each other's gaps. Never joined are series that show the same tissue twice.

        Args:
            series: Of one study.

        Returns:
            The series, of which those that were joined are one. It bears the UID of that with the lowest Series Number (of
            equal ones, the first UID in the order of text), and names the others.
        """
        if len(series) < 2:
            return list(series)
        blocks = [_Block(each, self._of(each)) if not each.acquisition and not _has_frames(each) else None for each in series]
        pairs = [
            (i, j)
            for (i, one), (j, other) in combinations(enumerate(blocks), 2)
            if one is not None and other is not None and one.touches(other) and one.belongs_to(other)
        ]
        if not pairs:
            return list(series)
        groups = {i: [i] for i in range(len(series))}
        for i, j in sorted(pairs, key=lambda pair: _unlikeness(blocks[pair[0]], blocks[pair[1]])):
            one, other = groups[i], groups[j]
            if one is not other and not any(_overlap(blocks[a], blocks[b]) for a in one for b in other):
                one += other
                groups.update(dict.fromkeys(other, one))
        return [_joined([series[i] for i in group]) for i, group in groups.items() if i == min(group)]


# ------------------------------------------------------------------------------------------------ the numbers of the slices
@np.errstate(invalid="ignore", divide="ignore", over="ignore")  # of positions and orientations that are none
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
    place = (positions * normals).sum(axis=1)
    place[abs(place) > MAX_POSITION_MM] = np.nan
    number, instance, thickness = (
        pc.cast(batch.column(name), pa.float64()).to_numpy(zero_copy_only=False)
        for name in ("acquisition_number", "instance_number", "thickness")
    )
    thickness = np.where((thickness > 0) & (thickness < MAX_POSITION_MM), thickness, np.nan)
    return Slices(place, normals[:, 2].copy(), number, _seconds(batch.column("acquisition_time")), instance, thickness)


def _seconds(times: pa.Array) -> np.ndarray:
    """VR TM, ``HHMMSS.f``, as seconds."""
    is_time = pc.match_substring_regex(times, r"^\d{6}(\.\d+)?$")
    clock = pc.cast(pc.if_else(is_time, times, pa.scalar(None, pa.string())), pa.float64()).to_numpy(zero_copy_only=False)
    return clock // 10000 * 3600 + clock // 100 % 100 * 60 + clock % 100


def _has_frames(series: Series) -> bool:
    return not isinstance(series.headers, HeaderRows) and any(header.frames > 1 for header in series.headers)


# ------------------------------------------------------------------------------------------------ several acquisitions
def _tell_apart(slices: Slices) -> np.ndarray | None:
    """The number of each slice's scan, from 0 in the order in which they were taken; None if all are of one."""
    parallel = np.isfinite(slices.place) & (abs(slices.lean - np.median(slices.lean)) < SAME_MM)
    if parallel.sum() <= MIN_SLICES:
        return None
    placed = slices.take(parallel)
    upward = np.argsort(placed.place, kind="stable")
    for values, at_least, regular in (
        (placed.number, 2, REGULAR),
        (placed.time, MIN_SLICES, REGULAR),
        (placed.thickness, MIN_SLICES, REGULAR),
        (placed.instance, MIN_SLICES, STRICTLY_REGULAR),
    ):
        # What some slices lack tells nothing; what only grows or falls along the head is of one run over it.
        if not np.isfinite(values).all() or _is_monotonic(values[upward]):
            continue
        labels = _separate(placed, _sweeps(placed, values), at_least, regular, values)
        if labels is not None:
            break
    else:
        labels = _separate(placed, _lattices(placed), MIN_SLICES, STRICTLY_REGULAR)
    if labels is None:
        return None
    # A scout, or what has no position, goes with the first: whatever reads that leaves it out with its reason.
    everything = np.zeros(len(slices.place), int)
    everything[parallel] = labels
    return everything


def _is_monotonic(values: np.ndarray) -> bool:
    steps = np.diff(values)
    return bool((steps >= 0).all() or (steps <= 0).all())


def _sweeps(slices: Slices, key: np.ndarray) -> np.ndarray:
    """Runs over the head: slices of equal key, group after group, each with the run that it continues by the usual step."""
    order = np.argsort(key, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(key[order])) + 1)
    ranges = [(float(slices.place[group].min()), float(slices.place[group].max())) for group in groups]
    usual = _median(np.array([apart for one, other in pairwise(ranges) if (apart := _apart(one, other)) >= SAME_POSITION_MM]))
    runs: list[_Run] = []
    labels = np.zeros(len(key), int)
    for group, (low, high) in zip(groups, ranges, strict=True):
        misfits = [run.misfit(low, high, usual) for run in runs]
        number = int(np.argmin(misfits)) if misfits else 0
        if misfits and misfits[number] > STEP_MISFIT * usual and misfits[-1] <= usual * GAP_STEPS:
            number, misfits[-1] = len(runs) - 1, 0.0  # behind a gap in the run that was going on
        if misfits and misfits[number] <= STEP_MISFIT * usual:
            runs[number] = runs[number].gone_on(low, high)
        else:
            number = len(runs)
            runs.append(_Run(low, high))
            if number > MOST_RUNS:
                return np.zeros(len(key), int)
        labels[group] = number
    return labels


class _Run(NamedTuple):
    """A run over the head.

    Args:
        low: Its lowest place in mm.
        high: Its highest.
        direction: 1 upward, -1 downward, 0 if it has not moved yet.
    """

    low: float
    high: float
    direction: int = 0

    def misfit(self, low: float, high: float, step: float) -> float:
        """By how much slices from `low` to `high` continue it by more than a step, or, infinite, do not continue it."""
        upward, downward = (
            (apart if apart > -STEP_MISFIT * step else math.inf) for apart in (low - self.high - step, self.low - high - step)
        )
        return min(abs(upward) if self.direction >= 0 else math.inf, abs(downward) if self.direction <= 0 else math.inf)

    def gone_on(self, low: float, high: float) -> "_Run":
        """With slices from `low` to `high`."""
        return _Run(min(low, self.low), max(high, self.high), 1 if high > self.high else -1)


def _apart(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Distance of two ranges, negative by as much as they overlap."""
    return max(one[0], other[0]) - min(one[1], other[1])


def _lattices(slices: Slices) -> np.ndarray:
    """Slices that lie on one of two or three lattices of one period; all 0 if there are no such lattices."""
    places = np.unique(np.round(slices.place, 3))
    steps = np.diff(places)
    alone = np.zeros(len(slices.place), int)
    if _regularity(places) >= STRICTLY_REGULAR:
        return alone
    for count in range(2, MAX_REPEATS + 1):
        if len(steps) < count * MIN_SLICES:
            break
        period = float(np.median(np.convolve(steps, np.ones(count), "valid")))
        phases = (slices.place - places[0]) % period
        order = np.argsort(phases)
        apart = np.diff(phases[order], append=phases[order[0]] + period) > EVEN_SHARE * period
        # The first phase may lie on both sides of the end of the period.
        labels = np.zeros(len(order), int)
        labels[order] = np.concatenate([[0], np.cumsum(apart[:-1])]) % max(int(apart.sum()), 1)
        if int(apart.sum()) == count and all(
            abs(_step(slices.place[labels == i]) - period) < EVEN_SHARE * period for i in range(count)
        ):
            return labels
    return alone


def _separate(
    slices: Slices, labels: np.ndarray, at_least: int, regular: float, key: np.ndarray | None = None
) -> np.ndarray | None:
    """Keep those runs apart that are scans of their own, and give the others to their neighbours.

    Args:
        slices: Of one series.
        labels: The run of each.
        at_least: Slices of a scan.
        regular: Share of regular steps that a scan has at least.
        key: What the runs were told by, which grows from scan to scan. Slices whose time is that of their reconstruction, in
            several processes at once, make runs that are mixed in time.

    Returns:
        The scan of each slice, from 0 in the order in which they were taken; None if there is one only.
    """
    if not labels.any():
        return None
    runs, labels = labels, labels.copy()
    sizes = np.bincount(labels)
    is_even = _regularity(slices.place) >= REGULAR
    kept: list[int] = []
    for run in sorted(range(len(sizes)), key=lambda i: (-sizes[i], i)):
        mine = slices.take(labels == run)
        near = [other for other in kept if _shares_range(mine.place, slices.place[labels == other])]
        whole = [
            other
            for other in near
            if sizes[run] < at_least or not _is_shifted(mine, slices.take(labels == other), regular, is_even)
        ]
        if kept and (whole or not near):
            ends = {i: _distance(mine.place, slices.place[labels == i]) for i in whole or kept}
            labels[labels == run] = min(ends, key=lambda i: (ends[i], i))
        else:
            kept.append(run)
    if not 2 <= len(kept) <= MAX_REPEATS:
        return None
    # A scan has no more gaps than the series: each slice of several scans is one in so many.
    spread = len(kept) * float(np.ptp(slices.place)) / len(slices.place)
    for run in kept:
        scan = slices.take(labels == run)
        thickness = _median(scan.thickness)
        # Where nothing but positions tells, each scan is whole: uneven steps may as well be those of rounded positions.
        longest = STEP_WITH_GAPS * (thickness if key is None and thickness > 0 else np.fmax(thickness, spread))
        if _regularity(scan.place) < regular or _step(scan.place) > longest:
            return None
    kept.sort()
    if key is not None and any(key[runs == one].max() >= key[runs == other].min() for one, other in pairwise(kept)):
        return None
    names = {run: i for i, run in enumerate(kept)}
    return np.array([names[int(run)] for run in labels])


def _is_shifted(one: Slices, other: Slices, regular: float, is_even: bool) -> bool:
    """Whether two runs over one range show the same tissue at other positions.

    Args:
        one: A run.
        other: A longer run.
        regular: The least share of regular steps.
        is_even: Whether all slices of the series together have regular steps.
    """
    if min(_regularity(one.place), _regularity(other.place)) < regular:
        return False
    nearest = _nearest(one.place, other.place)
    thickness = _median(one.thickness), _median(other.thickness)
    unlike = abs(thickness[0] - thickness[1]) > EVEN_SHARE * max(thickness)  # False where one is not known
    if nearest < SAME_POSITION_MM:
        return unlike  # repeats; or reconstructions of two thicknesses
    extent = min(thickness) if min(thickness) > 0 else _step(other.place)
    return unlike or not (is_even and nearest >= SAME_TISSUE * extent)  # beside each other, they fill their gaps


def _shares_range(one: np.ndarray, other: np.ndarray) -> bool:
    low, high = max(one.min(), other.min()), min(one.max(), other.max())
    shorter = min(np.ptp(one), np.ptp(other))
    return bool(high > low and high - low >= OVERLAP_SHARE * shorter) or bool(low == high and shorter == 0)


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    """Between two ranges; 0 if they overlap."""
    return max(0.0, float(max(one.min(), other.min()) - min(one.max(), other.max())))


def _nearest(one: np.ndarray, other: np.ndarray) -> float:
    """Median distance from the slices of one that lie in the range of the other to the other's nearest."""
    other = np.sort(other)
    inside = one[(one >= other[0]) & (one <= other[-1])]
    if not len(inside):
        return math.inf
    after = np.clip(np.searchsorted(other, inside), 1, max(len(other) - 1, 1))
    return float(np.median(np.minimum(abs(inside - other[after - 1]), abs(inside - other[np.minimum(after, len(other) - 1)]))))


def _regularity(places: np.ndarray) -> float:
    """The share of steps that are the median of themselves and the two beside them: neither 2, 3, 2, 3 mm nor a gap is."""
    steps = np.diff(np.sort(places))
    steps = steps[steps >= SAME_POSITION_MM]
    if len(steps) < 3:
        return 1.0
    before, after = np.append(steps[1], steps[:-1]), np.append(steps[1:], steps[-2])  # at the ends, the one neighbour twice
    around = np.maximum(np.minimum(before, after), np.minimum(np.maximum(before, after), steps))
    return float((abs(steps - around) < EVEN_SHARE * around).mean())


def _step(places: np.ndarray) -> float:
    """Median distance of neighbours, NaN if there are none."""
    steps = np.diff(np.sort(places))
    return _median(steps[steps >= SAME_POSITION_MM])


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else math.nan


# ------------------------------------------------------------------------------------------------ one acquisition in several
class _Block:
    """A series as a stack of slices."""

    def __init__(self, series: Series, slices: Slices) -> None:
        self.series = series
        self.slices = slices
        places = np.sort(slices.place)
        self.is_placed = bool(len(places)) and bool(np.isfinite(places).all()) and bool(np.ptp(slices.lean) < SAME_MM)
        self.places = places
        self.thickness = _median(slices.thickness)
        step = _step(places) if self.is_placed else math.nan
        self.step = step if step > 0 else self.thickness
        self._ends: tuple[SliceHeader, SliceHeader] | None = None

    def ends(self) -> tuple[SliceHeader, SliceHeader]:
        """The lowest and the highest slice."""
        if self._ends is None:
            order = np.argsort(self.slices.place, kind="stable")
            self._ends = self.series.headers[int(order[0])], self.series.headers[int(order[-1])]
        return self._ends

    def gap(self, other: "_Block") -> float:
        """Between two stacks in mm; negative by as much as they overlap."""
        return float(max(self.places[0], other.places[0]) - min(self.places[-1], other.places[-1]))

    def abuts(self, other: "_Block") -> bool:
        """Whether one goes on where the other ends; the seam may be shorter than a step."""
        return -min(self.step, other.step) < self.gap(other) <= ABUT_STEPS * max(self.step, other.step)

    def fills(self, other: "_Block") -> bool:
        """Whether the slices of one lie in the gaps of the other."""
        if len(self.places) < 2 or len(other.places) < 2 or not _shares_range(self.places, other.places):
            return False
        thickness = max(self.thickness, other.thickness)
        return (
            abs(self.thickness - other.thickness) < SAME_MM
            and min(self.step, other.step) >= STEP_WITH_GAPS * thickness
            and _nearest(*sorted((self.places, other.places), key=len)) >= SAME_TISSUE * thickness
        )

    def touches(self, other: "_Block") -> bool:
        """Whether the two may be parts of one stack by their positions."""
        if not (self.is_placed and other.is_placed) or abs(self.slices.lean[0] - other.slices.lean[0]) >= SAME_MM:
            return False
        return self.abuts(other) or self.fills(other)

    def belongs_to(self, other: "_Block") -> bool:
        """Whether the two are of one acquisition, and alike in all that makes a scan."""
        return self._same_acquisition(other) and self._same_setting(other)

    def _same_acquisition(self, other: "_Block") -> bool:
        """By time and number where both are known. Of series that abut, one may go on where the other ended."""
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

    def _same_setting(self, other: "_Block") -> bool:
        mine, others = self.ends(), other.ends()
        return (
            bool(mine[0].frame_of_reference)
            and _setting(mine[0]) == _setting(others[0])
            and _same_spacing(mine[0], others[0])
            and not is_localizer(mine[0])
            and min(_origin_distance(one, another) for one in mine for another in others)
            <= SAME_ORIGIN_MM + MAX_GANTRY_TANGENT * max(0.0, self.gap(other))
        )


def _setting(header: SliceHeader) -> tuple[object, ...]:
    """What slices of one scan have in common."""
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
    """Between the places in their planes at which two slices begin, in mm."""
    if one.orientation is None or not is_orientation(one.orientation):
        return math.inf
    origins = origins_in_plane(display_of(one.orientation), one.orientation, [one.position, other.position])
    return math.inf if origins is None else float(np.linalg.norm(origins[0] - origins[1]))


def _overlap(one: "_Block | None", other: "_Block | None") -> bool:
    """Whether two stacks show the same tissue twice."""
    assert one is not None
    assert other is not None
    return one.gap(other) <= -min(one.step, other.step) and not one.fills(other)


def _unlikeness(one: "_Block | None", other: "_Block | None") -> tuple[object, ...]:
    """Of two series that might be joined: of base and cerebrum in two reconstructions each, those of one kind are."""
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


def _joined(series: Sequence[Series]) -> Series:
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
