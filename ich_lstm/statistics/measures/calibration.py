"""Calibration measures: Brier score, reliability, ECE, and calibration slope and intercept.

Slope, intercept and the smoothed curve are the primary measures (Van Calster et al., J Clin Epidemiol 2016;74:167-176, and BMC
Med 2019;17:230). The expected calibration error is secondary, because it depends on its bins and is biased upwards in small
samples.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.errors import ConfigError
from ich_lstm.statistics.cases import Cases, known_cases
from ich_lstm.statistics.estimate import Estimate, estimate_or
from ich_lstm.statistics.logistic import fit_logistic
from ich_lstm.statistics.measures.scores import logit
from ich_lstm.statistics.proportions import ratio

NOT_SEPARATED = "but a calibration slope needs both, and probabilities that do not separate them"
BOTH_CLASSES = "but calibration in the large needs both"
"""Why figures are undefined; each follows the numbers of positive and negative cases."""


class Calibration(NamedTuple):
    """Logistic recalibration: ``logit P(y = 1) = intercept + slope * logit(p)``.

    Source: Cox, Biometrika 1958;45:562-565.

    Args:
        slope: The slope; 1 is ideal, and below 1 probabilities are too extreme. It is undefined if probabilities separate the
            classes perfectly.
        intercept: The intercept that is fitted together with the slope.
        in_the_large: The intercept with the slope fixed at 1; 0 is ideal, and below 0 probabilities are too high on average.
    """

    slope: Estimate
    intercept: Estimate
    in_the_large: Estimate


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> Estimate:
    """Compute the mean squared difference between probability and label over one label's known cases.

    Source: Brier, Mon Weather Rev 1950;78:1-3, halved as is usual for two classes.

    Args:
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of the cases in [0, 1], ``(n,)``.
    """
    positive, p, _ = known_cases(labels, probabilities)
    return estimate_or(((p - positive) ** 2).mean() if len(p) else np.nan, "no case with a known label")


def bin_edges(bins: int) -> np.ndarray:
    """Compute the edges of bins of equal width over [0, 1], ``(bins + 1,)``."""
    if bins < 1:
        raise ConfigError("bins_out_of_range", where="reliability", got=f"{bins} bins", expected="at least 1")
    return np.arange(bins + 1) / bins  # gives the float64 nearest to 0.6, unlike linspace


def bin_of(probabilities: np.ndarray, bins: int) -> np.ndarray:
    """Find the index of each probability's bin; bins are closed on the left, and the last bin on both sides."""
    return np.clip(np.searchsorted(bin_edges(bins), probabilities, side="right") - 1, 0, bins - 1)


def reliability(labels: np.ndarray, probabilities: np.ndarray, *, bins: int = 10) -> pd.DataFrame:
    """Tabulate the reliability diagram, with one row per bin, including empty bins.

    Args:
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of the cases in [0, 1], ``(n,)``.
        bins: Number of bins of equal width over [0, 1], each closed on the left.

    Returns:
        The columns ``low``, ``high``, ``cases``, ``mean_probability`` and ``observed``; the last two are NaN in an empty bin.
    """
    positive, p, _ = known_cases(labels, probabilities)
    place = bin_of(p, bins)
    cases = np.bincount(place, minlength=bins)
    edges = bin_edges(bins)
    return pd.DataFrame(
        {
            "low": edges[:-1],
            "high": edges[1:],
            "cases": cases,
            "mean_probability": ratio(np.bincount(place, weights=p, minlength=bins), cases),
            "observed": ratio(np.bincount(place, weights=positive, minlength=bins), cases),
        }
    )


def expected_calibration_error(labels: np.ndarray, probabilities: np.ndarray, *, bins: int = 10) -> Estimate:
    """Compute the mean of |mean probability - observed share| over the bins, weighted by their numbers of cases.

    Source: Naeini, Cooper & Hauskrecht, AAAI 2015.

    Args:
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of the cases in [0, 1], ``(n,)``.
        bins: Number of bins of equal width over [0, 1], each closed on the left.
    """
    table = reliability(labels, probabilities, bins=bins)
    gap = (table["cases"] * (table["mean_probability"] - table["observed"]).abs()).sum()
    cases = table["cases"].sum()
    return estimate_or(gap / cases if cases else np.nan, "no case with a known label")


def calibration_line(labels: np.ndarray, probabilities: np.ndarray) -> Calibration:
    """Fit slope, intercept and calibration in the large on one label's known cases.

    Args:
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of the cases in [0, 1], ``(n,)``; they are clipped to [1e-15, 1 - 1e-15], so
            probabilities of 0 and 1 have a strong influence.
    """
    cases = known_cases(labels, probabilities)
    slope, intercept, in_the_large = calibration_values(cases)
    return Calibration(
        estimate_or(slope, f"{cases.classes}, {NOT_SEPARATED}"),
        estimate_or(intercept, f"{cases.classes}, {NOT_SEPARATED}"),
        estimate_or(in_the_large, f"{cases.classes}, {BOTH_CLASSES}"),
    )


def calibration_values(cases: Cases) -> tuple[float, float, float]:
    """Fit slope, intercept and calibration in the large; NaN where undefined."""
    x, group = np.unique(logit(cases.probabilities), return_inverse=True)
    positive = np.bincount(group, weights=cases.positive, minlength=len(x))[:, None]
    total = np.bincount(group, minlength=len(x)).astype(np.float64)[:, None]
    intercept, slope = fit_logistic(x, positive, total)
    in_the_large, _ = fit_logistic(x, positive, total, slope=1.0)
    return float(slope[0]), float(intercept[0]), float(in_the_large[0])
