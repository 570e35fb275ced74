"""Log loss, exactly as the RSNA challenge computes it."""

from collections.abc import Sequence

import numpy as np

from ich_lstm.errors import ConfigError
from ich_lstm.labels import LABEL_WEIGHTS
from ich_lstm.statistics.cases import check_labels, check_probabilities, known_cases
from ich_lstm.statistics.estimate import Estimate, estimate_or

CLIP = 1e-15
"""Kaggle clips probabilities to [1e-15, 1 - 1e-15] in float64, so a wrong probability of 0 or 1 has a loss of 34.5."""


def clipped(probabilities: np.ndarray) -> np.ndarray:
    """Clip probabilities as Kaggle does; NaN and numbers outside [0, 1] are no probabilities, and become NaN."""
    p = np.asarray(probabilities)
    return np.where((p >= 0) & (p <= 1), np.clip(p, CLIP, 1 - CLIP), np.nan)


def logit(probabilities: np.ndarray) -> np.ndarray:
    """Compute float64 log odds of probabilities, clipped as for the log loss, so that 0 and 1 give -34.5 and 34.5.

    NaN and numbers outside [0, 1] give NaN.
    """
    p = clipped(probabilities)
    return np.log(p) - np.log(1 - p)


def log_losses(labels: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
    """Compute the log loss of each probability.

    Args:
        labels: Labels of any shape: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities in [0, 1], float64 in the shape of the labels.

    Returns:
        Log losses, float64 in the shape of the labels; NaN where the label is unknown, or the probability is none.
    """
    p = clipped(probabilities)
    # log(1 - p) instead of log1p(-p), because the published numbers round 1 - p to float64 first.
    return np.where(np.isnan(labels), np.nan, -np.log(np.where(labels == 1, p, 1 - p)))


def log_loss(labels: np.ndarray, probabilities: np.ndarray) -> Estimate:
    """Compute the mean log loss of one label's known cases; undefined without a known label.

    Args:
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of the cases in [0, 1], ``(n,)``.
    """
    positive, p, _ = known_cases(labels, probabilities)
    return estimate_or(log_losses(positive, p).mean() if len(p) else np.nan, "no case with a known label")


def weighted_log_loss(labels: np.ndarray, probabilities: np.ndarray, *, weights: Sequence[float] = LABEL_WEIGHTS) -> Estimate:
    """Compute RSNA's weighted multi-label log loss over the known labels; undefined without a known label.

    Args:
        labels: Labels of the cases, ``(n, k)``, in the order of `LABELS`: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of the cases in [0, 1], ``(n, k)``.
        weights: The weight of each label.

    Example:
        >>> print(weighted_log_loss(np.zeros((1, 6)), np.full((1, 6), 0.5)))
        0.693
    """
    losses = log_losses(check_labels(labels), check_probabilities(probabilities))  # (n, k)
    if losses.ndim != 2 or losses.shape[1] != len(weights):
        raise ConfigError(
            "weights_do_not_fit", where="weighted log loss", got=f"{len(weights)} weights", expected=f"labels {losses.shape}"
        )
    each = np.asarray(weights, dtype=np.float64) * ~np.isnan(losses)
    total = each.sum()
    return estimate_or((np.nan_to_num(losses) * each).sum() / total if total else np.nan, "no known label")
