"""Calibration measures: Brier score, reliability, ECE, and calibration slope and intercept.

Slope, intercept and the smoothed curve come first (Van Calster et al., J Clin Epidemiol 2016;74:167-176, and BMC Med
2019;17:230). The expected calibration error comes last, because it depends on its bins and is biased upwards in small samples.
"""

from typing import NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.errors import ConfigError
from ich_lstm.statistics.cases import Cases, known_cases
from ich_lstm.statistics.estimate import Estimate, estimate_or
from ich_lstm.statistics.logistic import fit_logistic
from ich_lstm.statistics.measures.scores import CLIP
from ich_lstm.statistics.proportions import ratio

NOT_SEPARATED = "calibration's slope needs both, and probabilities that do not separate them"
BOTH_CLASSES = "calibration in the large needs both"


class Calibration(NamedTuple):
    """Logistic recalibration: ``logit P(y = 1) = intercept + slope * logit(p)``.

    Source: Cox, Biometrika 1958;45:562-565.

    Args:
        slope: 1 is ideal; below 1, probabilities are too extreme. It is undefined if they separate the classes perfectly.
        intercept: Intercept of the line with that slope.
        in_the_large: Intercept with the slope fixed at 1; 0 is ideal, and below 0 probabilities are too high on average.
    """

    slope: Estimate
    intercept: Estimate
    in_the_large: Estimate


def logit(probabilities: np.ndarray) -> np.ndarray:
    """Log odds in float64 of probabilities clipped as for the log loss, so that 0 and 1 are -34.5 and 34.5."""
    p = np.clip(probabilities, CLIP, 1 - CLIP)
    return np.log(p) - np.log(1 - p)


def brier_score(labels: np.ndarray, probabilities: np.ndarray) -> Estimate:
    """Mean squared difference of probability and label of one label's known cases, ``(n,)`` each.

    Source: Brier, Mon Weather Rev 1950;78:1-3, halved as is usual for two classes.
    """
    positive, p, _ = known_cases(labels, probabilities)
    return estimate_or(((p - positive) ** 2).mean() if len(p) else np.nan, "no case with a known label")


def bin_edges(bins: int) -> np.ndarray:
    """Edges of bins of equal width over [0, 1], ``(bins + 1,)``."""
    if bins < 1:
        raise ConfigError("bins_out_of_range", where="reliability", got=f"{bins} bins", expected="at least 1")
    return np.arange(bins + 1) / bins  # 3 / 5 is the float64 nearest to 0.6, which linspace misses


def bin_of(probabilities: np.ndarray, bins: int) -> np.ndarray:
    """Index of each probability's bin; bins are equally wide and closed on the left, the last one on both sides."""
    return np.clip(np.searchsorted(bin_edges(bins), probabilities, side="right") - 1, 0, bins - 1)


def reliability(labels: np.ndarray, probabilities: np.ndarray, *, bins: int = 10) -> pd.DataFrame:
    """The table of the reliability diagram, with a row for each bin, empty ones included.

    Args:
        labels: ``(n,)``: 1 present, 0 absent, NaN unknown.
        probabilities: ``(n,)``, in [0, 1].
        bins: Number of bins of equal width over [0, 1], each closed on the left.

    Returns:
        Columns ``low, high, cases, mean_probability, observed``; the last two NaN in a bin without cases.
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
    """Mean over the cases of |mean probability - observed share| of their bin; see `reliability` for the bins.

    Source: Naeini, Cooper & Hauskrecht, AAAI 2015.
    """
    table = reliability(labels, probabilities, bins=bins)
    gap = (table["cases"] * (table["mean_probability"] - table["observed"]).abs()).sum()
    cases = table["cases"].sum()
    return estimate_or(gap / cases if cases else np.nan, "no case with a known label")


def calibration_line(labels: np.ndarray, probabilities: np.ndarray) -> Calibration:
    """Slope, intercept and calibration in the large of one label's known cases.

    Args:
        labels: ``(n,)``: 1 present, 0 absent, NaN unknown.
        probabilities: ``(n,)``, in [0, 1]; clipped to [1e-15, 1 - 1e-15], so a certain probability weighs heavily.
    """
    cases = known_cases(labels, probabilities)
    slope, intercept, in_the_large = calibration_values(cases)
    return Calibration(
        estimate_or(slope, f"{cases.classes}, {NOT_SEPARATED}"),
        estimate_or(intercept, f"{cases.classes}, {NOT_SEPARATED}"),
        estimate_or(in_the_large, f"{cases.classes}, {BOTH_CLASSES}"),
    )


def calibration_values(cases: Cases) -> tuple[float, float, float]:
    """Slope, intercept and calibration in the large, NaN where they do not exist."""
    x, group = np.unique(logit(cases.probabilities), return_inverse=True)
    positive = np.bincount(group, weights=cases.positive, minlength=len(x))[:, None]
    total = np.bincount(group, minlength=len(x)).astype(np.float64)[:, None]
    intercept, slope = fit_logistic(x, positive, total)
    in_the_large, _ = fit_logistic(x, positive, total, slope=1.0)
    return float(slope[0]), float(intercept[0]), float(in_the_large[0])
