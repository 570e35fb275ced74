"""Temperature and Platt scaling, fitted on validation data."""

import numpy as np

from ich_lstm.errors import TableError
from ich_lstm.statistics.adjustment.corrections import Recalibration
from ich_lstm.statistics.cases import Cases, known_cases
from ich_lstm.statistics.logistic import fit_logistic
from ich_lstm.statistics.measures.scores import logit


def fit_temperature(labels: np.ndarray, probabilities: np.ndarray) -> Recalibration:
    """Fit one temperature for a label by maximum likelihood (Guo et al., ICML 2017).

    Args:
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown. They must be validation data, never data
            on which results are reported.
        probabilities: Probabilities of the cases in [0, 1], ``(n,)``.

    Raises:
        TableError: If the known labels are of one class, or probabilities do not increase with the label: temperature scaling
            cannot fix an inverted ranking.
    """
    _, slope = _fit(known_cases(labels, probabilities), intercept=0.0)
    return Recalibration(slope=slope)


def fit_platt(labels: np.ndarray, probabilities: np.ndarray) -> Recalibration:
    """Fit slope and intercept for a label by maximum likelihood (Platt, Advances in Large Margin Classifiers 1999).

    Args:
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown. They must be validation data, never data
            on which results are reported.
        probabilities: Probabilities of the cases in [0, 1], ``(n,)``.

    Raises:
        TableError: If the known labels are of one class, or probabilities do not increase with the label.
    """
    intercept, slope = _fit(known_cases(labels, probabilities), intercept=None)
    return Recalibration(slope=slope, intercept=intercept)


def _fit(cases: Cases, *, intercept: float | None) -> tuple[float, float]:
    positives = int(cases.positive.sum())
    negatives = len(cases.positive) - positives
    if not positives or not negatives:
        raise TableError(
            "one_class",
            where="recalibration",
            got=cases.classes,
            expected="cases of both classes",
            todo="Add validation cases of the missing class, or do not calibrate this label.",
        )
    x, group = np.unique(logit(cases.probabilities), return_inverse=True)
    total = np.bincount(group, minlength=len(x)).astype(np.float64)
    # Platt's targets instead of 1 and 0 keep the fit finite even if probabilities separate the classes.
    target = np.where(cases.positive, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    positive = np.bincount(group, weights=target, minlength=len(x))
    fitted = fit_logistic(x, positive[:, None], total[:, None], intercept=intercept)
    a, b = (float(value[0]) for value in fitted)
    if not b > 0:  # also if NaN, when all cases have the same probability
        raise TableError(
            "probabilities_do_not_rank",
            where="recalibration",
            got=f"a slope of {b:g} over {cases.classes}",
            expected="a slope above 0, that is, higher probabilities where the label is present",
            todo="Check the model's AUROC; probabilities that do not rank cases cannot be calibrated.",
        )
    return a, b
