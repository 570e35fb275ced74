"""Checks that values can be Hounsfield units: air, soft tissue and bone must have plausible values."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ich_lstm.errors import IchLstmError
from ich_lstm.scan import HU_MAX, HU_MIN

LOW, HIGH = -4096, 4095
"""Range of the histogram; values beyond are counted at its ends. Values before clipping are more informative."""

SAMPLES = 128
"""Minimum number of rows and columns that are sampled per slice: enough for the shares, in a sixteenth of the time."""

EDGE_PIXELS = 2
EDGE_SPREAD_HU = 100
"""Largest interquartile range of air at the edge of the image; tissue cut by the edge has a larger one."""

SOFT_HU = (-200, 200)
"""Range of fat, water, brain, muscle, blood and most plastics."""

WINDOW_HU = 100
"""Width that contains the values of one kind of tissue; bone spreads over more."""

MODE_HU = 20
"""Width of the window for a mode: wider than noise, and narrow enough to separate 35 from 70."""

DENSE_HU = 400
"""Values above most trabecular bone, contrast and calcification."""

AIR_RANGE_HU = (-1050, -900)
MIN_AIR_INSIDE = 0.06
"""Minimum share of air within a circle around a head; dense bone misread as signed values gives a lower share."""

AIR_HU = -850
"""Upper limit for air outside and inside the head, and in the lungs."""

BELOW_AIR_HU = -1100
"""Only noise and streaks are lower within a body; the corners outside the field of view have one constant lower value."""

GAP_HU = (-650, -300)
"""Range between lung and fat: only pixels that are partly air lie here."""

MIN_AIR = 0.002
MAX_BELOW_AIR, MAX_SATURATED, MAX_GAP = 0.05, 0.05, 0.35
MIN_SOFT = 0.03
BRAIN_PEAK_HU = 50
"""Upper limit for the peak of brain: grey and white matter have 25 to 40 HU, after contrast up to 45."""

MIN_CLIPPED, MIN_AIR_LEFT = 0.3, 0.015
"""The corners outside a circle are 21 % of the image; if a larger share is clipped, air itself may be clipped."""

MAX_NARROW = 0.45

MIN_LEVELS, MIN_COUNTED, MAX_STEP_HU = 8, 5_000, 6


class Edge(NamedTuple):
    """The frame of a slice, where air is expected.

    Args:
        level: Median of the frame in HU.
        spread: Interquartile range of the frame in HU.
    """

    level: float
    spread: float


class Levels:
    """A histogram of the samples.

    Args:
        counts: Number of samples with each value from LOW to HIGH, ``(HIGH - LOW + 1,)``.
    """

    def __init__(self, counts: np.ndarray) -> None:
        self.counts = counts
        self._sums = np.concatenate([[0], np.cumsum(counts)])

    @classmethod
    def of(cls, samples: Iterable[np.ndarray]) -> "Levels":
        """Count the values of arrays of any numeric type."""
        counts = np.zeros(HIGH - LOW + 1, np.int64)
        for sample in samples:
            values = sample if sample.dtype == np.int16 else sample.astype(np.float64)  # uint8 cannot represent LOW
            whole = np.rint(np.clip(values, LOW, HIGH)).astype(np.intp)
            counts += np.bincount(whole.ravel() - LOW, minlength=len(counts))
        return cls(counts)

    def number(self, low: int, high: int) -> int:
        """Number of samples from ``low`` to ``high``."""
        return int(self._sums[min(high, HIGH) - LOW + 1] - self._sums[max(low, LOW) - LOW])

    def peak(self, low: int, high: int, width: int = WINDOW_HU) -> tuple[float, int]:
        """The center of the window that contains most samples, and their number.

        Args:
            low: Start of the first window in HU.
            high: End of the last window in HU.
            width: Width of the window in HU.
        """
        starts = np.arange(low, max(low, high - width) + 1)
        numbers = self._sums[np.minimum(starts + width, HIGH + 1) - LOW] - self._sums[starts - LOW]
        # If several windows have the maximum, as for a single value, the middle one is centered on it.
        best = starts[numbers == numbers.max()]
        return float(best.mean()) + (width - 1) / 2, int(numbers.max())


def check_hu(volume: np.ndarray, where: str, kind: type[IchLstmError]) -> None:
    """Refuse values that cannot be HU by the rules of :func:`find_fault`.

    Args:
        volume: Values ``(n, h, w)`` of any numeric type, preferably before clipping.
        where: Name of the series or file in messages.
        kind: Class of the error to raise.

    Raises:
        IchLstmError: ``not_hu``, as an instance of ``kind``.
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
    """Find a reason why the values of a series cannot be HU.

    In HU, air has about -1000, soft tissue -100 to 80, and bone spreads from 200 upward. A wrong intercept or slope, display
    values, maps and MR change this. The rules use the values of all slices together, and the frame of each slice, where air
    is expected; slices of one value are ignored. Values are not HU if one of these rules applies:

    1. More than 5 % are below -1100, not counting the two most frequent of them (padding), or more than 5 % are 3071 or
       above. Values that were clipped cannot show the former.
    2. Less than 0.2 % are below -200: there is no air, not even in the sinuses.
    3. The frame of some slices has one level above 200; or a level above -200 while most denser values lie in one narrow peak
       above 400. The peak is then soft tissue, and the frame air. Two cases are accepted: a head that fills the image, whose
       frame is tissue; and a frame set to 0 around air at its proper value (6 % of the values).
    4. Hardly any value is above -200, and not all values are air; or a peak above 400 has more than twice as many values as
       the largest peak between -200 and 200.
    5. More than 35 % of the values that are not air lie between -650 and -300, where only the borders of a body lie.
    6. The frame and 30 % of the values are clipped at -1024 (the corners outside a circle are 21 %), and either there is no
       soft tissue (less than 3 % within any 100 HU between -200 and 200), or there is hardly any air above -1024 and the peak
       of soft tissue lies above 50. Air was then shifted below the range, and tissue into its place.
    7. The values of soft tissue have steps of more than 6.

    A volume of only air, or of water and air, passes: whether it shows a head is decided elsewhere.

    Measured errors (``tests/reading/pixels/test_plausibility.py``), on 60 heads of :mod:`ich_lstm.phantom` of all difficulties
    and two real examinations, one of a plastic head:

    - False alarms: none, for the volumes as they are, cropped to the brain, to the upper half or to the lower third, with the
      outside of a circle set to -1024 or 0. One is known: a hollow plastic head around which all air was set to -1024.
    - Missed: none of the same volumes with any of 17 wrong scales.
    - Not detectable: shifts of less than 100 HU; for heads that fill the image, at least half of those with twice the
      intercept, with a doubled or halved slope, or from MR phase; and maps with air whose values are those of tissue.

    Args:
        volume: Values ``(n, h, w)`` of any numeric type, preferably before clipping.

    Returns:
        The fault, with the values that show it; empty if the values may be HU.
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
        _find_out_of_range(levels)
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


def _find_out_of_range(levels: Levels) -> str:
    """Rule 1: too many values below air, or at the upper limit."""
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
    denser = f"a denser peak at {peak:.0f}" if number else f"nothing above {edge + WINDOW_HU:.0f}"
    return f"no air, nothing below {SOFT_HU[0]} HU: the edge of the image at {edge:.0f}, {denser}"


def _find_dense_frame(samples: np.ndarray, edges: list[Edge]) -> str:
    """Rule 3: slices whose air is not at the value of air."""
    odd = [i for i, edge in enumerate(edges) if edge.level > SOFT_HU[0] and edge.spread <= EDGE_SPREAD_HU]
    if not odd:
        return ""
    level = float(np.median([edges[i].level for i in odd]))
    where = f"air at {level:.0f} HU in {len(odd)} of {len(edges)} slices"
    if level > SOFT_HU[1]:
        return where
    levels = Levels.of(samples[odd])
    if level == 0 and levels.number(*AIR_RANGE_HU) >= MIN_AIR_INSIDE * levels.number(LOW, HIGH):
        return ""  # an anonymizer has set the outside of the field of view to 0; the air inside has its proper value
    peak, number = levels.peak(DENSE_HU, HU_MAX)
    return f"{where}, a peak at {peak:.0f}" if number > MAX_NARROW * levels.number(DENSE_HU, HU_MAX) else ""


def _find_misplaced(levels: Levels, edge: float) -> str:
    """Rules 4 to 6: soft tissue at implausible values."""
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
    """Rule 7: values that were quantized, such as 8-bit values."""
    soft = levels.counts[SOFT_HU[0] - LOW : SOFT_HU[1] - LOW + 1]
    used = np.flatnonzero(soft)
    if soft.sum() < MIN_COUNTED or len(used) < MIN_LEVELS or int(np.diff(used).min()) <= MAX_STEP_HU:
        return ""
    return f"only {len(used)} different values from {SOFT_HU[0]} to {SOFT_HU[1]} HU, in steps of {np.median(np.diff(used)):.0f}"
