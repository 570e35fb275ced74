"""Checks that values can be Hounsfield units: air, soft tissue and bone must lie where they do in HU."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ich_lstm.errors import IchLstmError
from ich_lstm.scan import HU_MAX, HU_MIN

LOW, HIGH = -4096, 4095
"""Range that is counted; what lies beyond is counted at its end. Values that are not yet clipped show more than clipped ones."""

SAMPLES = 128
"""A slice is looked at in at least so many rows and columns: enough for the shares, for a sixteenth of the time."""

EDGE_PIXELS = 2
EDGE_SPREAD_HU = 100
"""Air at the edge of the picture spreads less than this between its quartiles; a head that is cut by the edge spreads more."""

SOFT_HU = (-200, 200)
"""Fat, water, brain, muscle, blood and most plastics."""

WINDOW_HU = 100
"""A tissue of one kind lies within as much; bone does not."""

MODE_HU = 20
"""Wide enough for noise, and narrow enough to tell 35 from 70."""

DENSE_HU = 400
"""Above most trabecular bone, contrast and calcification."""

AIR_RANGE_HU = (-1050, -900)
MIN_AIR_INSIDE = 0.06
"""Air around a head within a circle is more; values of dense bone that were taken for signed ones are less."""

AIR_HU = -850
"""Air outside and inside the head, and of the lungs."""

BELOW_AIR_HU = -1100
"""Noise and streaks aside, nothing in a body is below; the corners outside the field of view hold one constant value there."""

GAP_HU = (-650, -300)
"""Neither air, nor lung, nor fat: only pixels half in air."""

MIN_AIR = 0.002
MAX_BELOW_AIR, MAX_SATURATED, MAX_GAP = 0.05, 0.05, 0.35
MIN_SOFT = 0.03
BRAIN_PEAK_HU = 50
"""Grey and white matter have 25 to 40 HU, after contrast up to 45."""

MIN_CLIPPED, MIN_AIR_LEFT = 0.3, 0.015
"""The corners outside a circle are 21 % of the picture; where more is clipped, air itself may be."""

MAX_NARROW = 0.45

MIN_LEVELS, MIN_COUNTED, MAX_STEP_HU = 8, 5_000, 6


class Edge(NamedTuple):
    """The frame of a slice, where air is expected.

    Args:
        level: Its median in HU.
        spread: Distance of its quartiles in HU.
    """

    level: float
    spread: float


class Levels:
    """How many samples have each value.

    Args:
        counts: ``(HIGH - LOW + 1,)``, of the values from LOW on.
    """

    def __init__(self, counts: np.ndarray) -> None:
        self.counts = counts
        self._sums = np.concatenate([[0], np.cumsum(counts)])

    @classmethod
    def of(cls, samples: Iterable[np.ndarray]) -> "Levels":
        """Count the values of arrays, of any kind of numbers."""
        counts = np.zeros(HIGH - LOW + 1, np.int64)
        for sample in samples:
            values = sample if sample.dtype == np.int16 else sample.astype(np.float64)  # unsigned bytes have no room for LOW
            whole = np.rint(np.clip(values, LOW, HIGH)).astype(np.intp)
            counts += np.bincount(whole.ravel() - LOW, minlength=len(counts))
        return cls(counts)

    def number(self, low: int, high: int) -> int:
        """How many samples lie from ``low`` to ``high``."""
        return int(self._sums[min(high, HIGH) - LOW + 1] - self._sums[max(low, LOW) - LOW])

    def peak(self, low: int, high: int, width: int = WINDOW_HU) -> tuple[float, int]:
        """The middle of the window between two values that holds most samples, and how many it holds.

        Args:
            low: Where the first window begins.
            high: Where the last one ends.
            width: Of a window, in HU.
        """
        starts = np.arange(low, max(low, high - width) + 1)
        numbers = self._sums[np.minimum(starts + width, HIGH + 1) - LOW] - self._sums[starts - LOW]
        # Where several windows hold the same, as of a single value, the middle one is central on it.
        best = starts[numbers == numbers.max()]
        return float(best.mean()) + (width - 1) / 2, int(numbers.max())


def check_hu(volume: np.ndarray, where: str, kind: type[IchLstmError]) -> None:
    """Refuse values that cannot be HU, as :func:`find_fault` judges.

    Args:
        volume: ``(n, h, w)``, of any kind of numbers, best before they are clipped.
        where: What messages call the series or file.
        kind: What to raise.

    Raises:
        IchLstmError: ``not_hu``, of that kind.
    """
    if fault := find_fault(volume):
        raise kind(
            "not_hu",
            where=where,
            got=f"values that are not HU: {fault}",
            expected="air at about -1000 HU, soft tissue from 0 to 80",
            todo="Export the series again as the scanner made it, with its own Rescale Slope and Intercept, without windowing.",
        )


def find_fault(volume: np.ndarray) -> str:
    """Say why the values of a series cannot be HU.

    In HU, air has about -1000, soft tissue -100 to 80, and bone is spread from 200 on. A wrong intercept or slope, display
    values, maps and MR move them. Looked at are the values of all slices together, and the frame of each, where air is
    expected; slices of one value do not count. Values are no HU if

    1. more than 5 % are below -1100, not counting the two commonest of them (padding; clipped values show none of it), or
       more than 5 % are 3071 or above;
    2. less than 0.2 % are below -200: there is no air, not even in the sinuses;
    3. the frame of some slices is of one level above 200, or above -200 while most else that is dense lies in one narrow
       peak above 400: that is soft tissue, and the frame is air. A frame of tissue of a head that fills the picture, and one
       that was set to 0 around air at its place (6 % of the values), are no reason;
    4. hardly anything is above -200, and it is not all air; or a peak above 400 holds more than twice as many as the largest
       one between -200 and 200;
    5. more than 35 % of what is no air lies between -650 and -300, where only the borders of a body do;
    6. the frame and 30 % of the values are clipped at -1024 (the corners outside a circle are 21 %), and there is no soft
       tissue (less than 3 % within any 100 HU between -200 and 200): air has gone below, and tissue into its place; or there
       is hardly any air above -1024, and the peak of soft tissue lies above 50;
    7. those of soft tissue come in steps of more than 6.

    A volume of nothing but air, or of water and air, passes: whether it is a head is judged elsewhere.

    Error (``tests/reading/pixels/test_plausibility.py``):
    of 60 heads of :mod:`ich_lstm.phantom` of all difficulties and of two real
    examinations, one of a plastic head, none is refused: as they are, cropped to the brain, the upper half or the lower third
    of them, with the outside of a circle set to -1024 or 0. Of the same with any of 17 wrong scales none is read. Not seen are
    shifts of less than 100 HU; of heads that fill the picture, half or more of those with the intercept twice or the slope
    doubled or halved, and MR phase; and maps in air whose values are those of tissue. Refused without need is a hollow head
    of plastic around which all air was set to -1024.

    Args:
        volume: ``(n, h, w)``, of any kind of numbers, best before they are clipped.

    Returns:
        What was found, with the values that tell; empty if they may be HU.
    """
    step = max(1, min(volume.shape[1:]) // SAMPLES)
    samples = volume[:, ::step, ::step]
    content = [i for i, sample in enumerate(samples) if sample.min() < sample.max()]
    if not content:
        return ""
    samples = samples[content]
    edges = [_edge(volume[i], step) for i in content]
    levels = Levels.of(samples)
    edge = float(np.median([edge.level for edge in edges]))
    return (
        _find_beyond(levels)
        or _find_no_air(levels, edge)
        or _find_dense_frame(samples, edges)
        or _find_misplaced(levels, edge)
        or _find_steps(levels)
    )


def _edge(image: np.ndarray, step: int) -> Edge:
    lines = [*range(EDGE_PIXELS), *range(-EDGE_PIXELS, 0)]
    values = np.sort(np.concatenate([image[lines, ::step].ravel(), image[::step, lines].ravel()]))
    first, level, third = (float(values[len(values) * quarter // 4]) for quarter in (1, 2, 3))
    return Edge(float(np.rint(level)), third - first)


def _find_beyond(levels: Levels) -> str:
    """Much that is below air, or above what is kept."""
    size = levels.number(LOW, HIGH)
    below = levels.counts[: BELOW_AIR_HU - LOW]
    spread = int(below.sum() - np.sort(below)[-2:].sum())
    if spread > MAX_BELOW_AIR * size:
        return f"{spread / size:.0%} of the values spread below {BELOW_AIR_HU} HU"
    saturated = levels.number(HU_MAX, HIGH)
    return f"{saturated / size:.0%} of the values at {HU_MAX} HU or above" if saturated > MAX_SATURATED * size else ""


def _find_no_air(levels: Levels, edge: float) -> str:
    if levels.number(LOW, SOFT_HU[0] - 1) >= MIN_AIR * levels.number(LOW, HIGH):
        return ""
    peak, number = levels.peak(min(max(round(edge) + WINDOW_HU, LOW), HIGH), HIGH)
    denser = f"a peak of what is denser at {peak:.0f}" if number else f"nothing above {edge + WINDOW_HU:.0f}"
    return f"no air, nothing below {SOFT_HU[0]} HU: the edge of the picture at {edge:.0f}, {denser}"


def _find_dense_frame(samples: np.ndarray, edges: list[Edge]) -> str:
    """Slices whose air is not where air is."""
    odd = [i for i, edge in enumerate(edges) if edge.level > SOFT_HU[0] and edge.spread <= EDGE_SPREAD_HU]
    if not odd:
        return ""
    level = float(np.median([edges[i].level for i in odd]))
    where = f"air at {level:.0f} HU in {len(odd)} of {len(edges)} slices"
    if level > SOFT_HU[1]:
        return where
    levels = Levels.of(samples[odd])
    if level == 0 and levels.number(*AIR_RANGE_HU) >= MIN_AIR_INSIDE * levels.number(LOW, HIGH):
        return ""  # an anonymizer has set to 0 what lies outside the field of view; within, air is where it should be
    peak, number = levels.peak(DENSE_HU, HU_MAX)
    return f"{where}, a peak at {peak:.0f}" if number > MAX_NARROW * levels.number(DENSE_HU, HU_MAX) else ""


def _find_misplaced(levels: Levels, edge: float) -> str:
    """Soft tissue that lies elsewhere."""
    size = levels.number(LOW, HIGH)
    _, soft = levels.peak(*SOFT_HU)
    soft_peak, _ = levels.peak(*SOFT_HU, MODE_HU)
    dense_peak, dense = levels.peak(DENSE_HU, HU_MAX)
    if levels.number(SOFT_HU[0], HIGH) < MIN_AIR * size and levels.number(AIR_RANGE_HU[1] + 1, HIGH) >= MIN_AIR * size:
        return f"no soft tissue, nothing above {SOFT_HU[0]} HU"
    if dense > 2 * soft:
        return f"air at {edge:.0f} HU, a peak of soft tissue at {dense_peak:.0f}"
    if levels.number(*GAP_HU) > MAX_GAP * levels.number(AIR_HU, HU_MAX):
        return f"a peak at {levels.peak(*GAP_HU)[0]:.0f} HU, where only the borders of a body lie"
    if edge > HU_MIN or levels.number(LOW, HU_MIN) < MIN_CLIPPED * size:
        return ""
    if soft < MIN_SOFT * size:
        return f"air at {HU_MIN} HU or below, and no soft tissue"
    if levels.number(HU_MIN + 1, AIR_HU) < MIN_AIR_LEFT * size and soft_peak > BRAIN_PEAK_HU:
        return f"air at {HU_MIN} HU or below, a peak of soft tissue at {soft_peak:.0f}"
    return ""


def _find_steps(levels: Levels) -> str:
    """Values that were quantised, as those of 8 bits are."""
    soft = levels.counts[SOFT_HU[0] - LOW : SOFT_HU[1] - LOW + 1]
    used = np.flatnonzero(soft)
    if soft.sum() < MIN_COUNTED or len(used) < MIN_LEVELS or int(np.diff(used).min()) <= MAX_STEP_HU:
        return ""
    return f"only {len(used)} different values from {SOFT_HU[0]} to {SOFT_HU[1]} HU, in steps of {np.median(np.diff(used)):.0f}"
