"""The smoothed calibration curve: the share of positive cases as a smooth function of the probability."""

from typing import NamedTuple

import numpy as np
from scipy import special

from ich_lstm.errors import ConfigError
from ich_lstm.statistics.cases import known_cases
from ich_lstm.statistics.logistic import group_cells
from ich_lstm.statistics.measures.scores import logit


class SmoothedCurve(NamedTuple):
    """The share of positive cases as a function of the probability.

    Args:
        probability: The probabilities of the points of the curve, ``(m,)``, ascending.
        observed: The share of positive cases at each point, ``(m,)``, in [0, 1].
        note: The reason why the curve is empty, if it is.
    """

    probability: np.ndarray
    observed: np.ndarray
    note: str = ""


class LocalLines:
    """Local linear regression with tricube weights of the nearest cases, for any number of weightings of the cases.

    Distances are measured in log odds, because most probabilities of a rare finding are close to 0, where the probability scale
    cannot separate them. The lines are straight in the probability, like the curve of a calibrated model.

    Source: Cleveland, J Am Stat Assoc 1979;74:829-836.

    Args:
        x: Log odds of groups of cases, ``(g,)``, ascending.
        cases: Number of cases in each group, ``(g,)``.
        points: Number of points, evenly spread in log odds between the 1st and 99th percentile of the cases.
        span: Share of the cases that each point uses, above 0 and at most 1.
    """

    def __init__(self, x: np.ndarray, cases: np.ndarray, *, points: int, span: float) -> None:
        if not 0 < span <= 1 or points < 2:
            raise ConfigError(
                "smoothing_out_of_range",
                where="smoothed calibration",
                got=f"a span of {span:g} and {points} points",
                expected="a span above 0 and at most 1, and at least two points",
            )
        upto = np.cumsum(cases) / np.sum(cases)
        first, last = x[np.minimum(np.searchsorted(upto, [0.01, 0.99]), len(x) - 1)].tolist()
        at = np.linspace(first, last, points) if first < last else np.array([first])
        self.at = special.expit(at)
        self._away = special.expit(x) - self.at[:, None]  # (points, g)
        distance = np.abs(x - at[:, None])
        order = np.argsort(distance, axis=1)
        enough = np.cumsum(cases[order], axis=1) >= span * np.sum(cases) * (1 - 1e-12)
        farthest = np.take_along_axis(order, enough.argmax(axis=1)[:, None], axis=1)
        # The reach extends slightly beyond the farthest group, as in R's loess; otherwise that group would have a weight of 0.
        reach = np.take_along_axis(distance, farthest, axis=1) * (1 + 1e-6)
        share = np.where(reach > 0, distance / np.where(reach > 0, reach, 1), distance > 0)
        self._weight = (1 - np.minimum(share, 1) ** 3) ** 3

    def fit(self, positive: np.ndarray, total: np.ndarray) -> np.ndarray:
        """Fit the curve of each weighting, ``(points, r)``, in [0, 1]; NaN at points without any case.

        Args:
            positive: Weight of the positive cases of each group, ``(g, r)``.
            total: Weight of all cases of each group, ``(g, r)``.
        """
        tilted = self._weight * self._away
        weight, first, second = self._weight @ total, tilted @ total, (tilted * self._away) @ total  # (points, r)
        truth, moment = self._weight @ positive, tilted @ positive
        seen = weight > 0
        weight = np.where(seen, weight, 1)
        spread = second - first * first / weight
        flat = spread <= 1e-12 * second  # a single value has no slope, so the curve is the mean
        slope = np.where(flat, 0, (moment - first * truth / weight) / np.where(flat, 1, spread))
        return np.where(seen, np.clip((truth - slope * first) / weight, 0, 1), np.nan)


def smoothed_calibration(labels: np.ndarray, probabilities: np.ndarray, *, points: int = 101, span: float = 0.5) -> SmoothedCurve:
    """Compute the smoothed calibration curve of one label's known cases by local linear regression; see `LocalLines`.

    Source: Austin & Steyerberg, Stat Med 2014;33:517-535. More than 512 distinct probabilities are grouped into 512 cells of log
    odds.

    Args:
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of the cases in [0, 1], ``(n,)``.
        points: Maximum number of points, evenly spread between the 1st and 99th percentile of the log odds.
        span: Share of the cases that each point uses, above 0 and at most 1.
    """
    cases = known_cases(labels, probabilities)
    if not len(cases.positive):
        return SmoothedCurve(np.empty(0), np.empty(0), "no case with a known label")
    x, cell = group_cells(logit(cases.probabilities))
    total = np.bincount(cell)
    lines = LocalLines(x, total, points=points, span=span)
    positive = np.bincount(cell, weights=cases.positive)
    return SmoothedCurve(lines.at, lines.fit(positive[:, None], total[:, None])[:, 0])
