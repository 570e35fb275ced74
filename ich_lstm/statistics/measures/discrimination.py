"""Discrimination measures: AUROC, average precision, and their curves, exact with ties.

A bootstrap needs the same figure for thousands of weightings of the same cases, so cases are sorted only once. The result depends
only on the distinct probabilities of positive cases and on the negative cases at and between them. The weight of every such bin
is a sparse matrix (bins x patients) times the patients' counts (patients x replicates).
"""

from typing import NamedTuple

import numpy as np

from ich_lstm.statistics.bootstrap import sum_by_patient
from ich_lstm.statistics.cases import Cases, known_cases
from ich_lstm.statistics.estimate import Estimate, estimate_or

EXACT_IN_FLOAT32 = 2**24
"""float32 represents every whole number up to this value, in half the memory and twice as fast as float64."""


class RankedWeights(NamedTuple):
    """Weights of cases at the g distinct probabilities ("levels") of positive cases, in ascending order, for r weightings.

    Args:
        positive: Weight of the positive cases of each level, ``(g, r)``.
        below: Weight of the negative cases below each level, ``(g, r)``.
        tied: Weight of the negative cases at the level itself, ``(g, r)``.
        negative: Weight of all negative cases, ``(r,)``.
    """

    positive: np.ndarray
    below: np.ndarray
    tied: np.ndarray
    negative: np.ndarray

    def auroc(self) -> np.ndarray:
        """Compute the area under the ROC curve, ``(r,)``; NaN without a pair of a positive and a negative case.

        The area is the share of correctly ranked pairs, in which ties count half.

        Source: Bamber, J Math Psychol 1975;12:387-415 (the area is the Mann-Whitney statistic).
        """
        in_order = np.einsum("gr,gr->r", self.positive, self.below + self.tied / 2)
        pairs = self.positive.sum(axis=0) * self.negative
        return np.divide(in_order, pairs, out=np.full(pairs.shape, np.nan), where=pairs > 0)

    def average_precision(self) -> np.ndarray:
        """Sum precision times the gain in recall over the thresholds, ``(r,)``; NaN without a positive case.

        The trapezoidal area is not used, because it is too optimistic (Davis & Goadrich, ICML 2006).
        """
        true_positive = np.cumsum(self.positive[::-1], axis=0)[::-1]  # at or above each level
        called = true_positive + (self.negative - self.below)
        # Where no case is called positive, the numerator is 0 too, so the gain is 0 / 1.
        gains = self.positive * true_positive / np.where(called > 0, called, 1)
        positives = self.positive.sum(axis=0)
        return np.divide(gains.sum(axis=0), positives, out=np.full(positives.shape, np.nan), where=positives > 0)


class RankedCases:
    """The cases of one label, sorted once, for any number of weightings of their patients.

    Args:
        cases: The m cases with a known label.
        patient: Index of the patient of each case, ``(m,)``.
        patients: Number of patients in the data.

    Raises:
        ValueError: If a probability is NaN.
    """

    def __init__(self, cases: Cases, patient: np.ndarray, patients: int) -> None:
        positive, probabilities, _ = cases
        if np.isnan(probabilities).any():  # sorting would rank NaN above every number
            raise ValueError("NaN has no rank among probabilities")
        levels, level = np.unique(probabilities, return_inverse=True)  # ascending
        has_positive = np.zeros(len(levels), dtype=bool)
        has_positive[level[positive]] = True
        # Each probability of a positive case is a separate bin; all probabilities between two of these are one bin.
        starts = has_positive.copy()
        starts[1:] |= has_positive[:-1]
        starts[:1] = True
        bin_of_level = np.cumsum(starts) - 1
        row = np.cumsum(has_positive) - 1
        self.levels = levels[has_positive]
        self._bins = bin_of_level[has_positive]
        negative = ~positive
        self._positive = sum_by_patient(row[level[positive]], patient[positive], (len(self.levels), patients))
        self._negative = sum_by_patient(bin_of_level[level[negative]], patient[negative], (int(starts.sum()), patients))
        self._cases = np.bincount(patient, minlength=patients)

    def weigh(self, counts: np.ndarray) -> RankedWeights:
        """Weight every case by how often its patient was drawn.

        Args:
            counts: How often each patient was drawn, whole numbers ``(patients, r)``.
        """
        heaviest = float((self._cases @ counts).max(initial=0))
        exact = np.float32 if heaviest < EXACT_IN_FLOAT32 else np.float64
        counts = counts.astype(exact, copy=False)
        negative = self._negative.astype(exact, copy=False) @ counts  # (bins, r)
        upto = np.cumsum(negative, axis=0)
        tied = negative[self._bins].astype(np.float64)
        total = upto[-1].astype(np.float64) if len(upto) else np.zeros(counts.shape[1])
        positive = (self._positive.astype(exact, copy=False) @ counts).astype(np.float64)
        return RankedWeights(positive, upto[self._bins] - tied, tied, total)


class Curve(NamedTuple):
    """A ROC or precision-recall curve over all thresholds.

    Args:
        x: False positive rate or recall at each threshold, ``(t,)``.
        y: True positive rate or precision at each threshold, ``(t,)``.
        thresholds: Thresholds at or above which a case is called positive, ``(t,)``, descending; the first is infinite, so that
            no case is called positive.
        note: The reason why the curve is empty, if it is.
    """

    x: np.ndarray
    y: np.ndarray
    thresholds: np.ndarray
    note: str = ""


def auroc(labels: np.ndarray, probabilities: np.ndarray) -> Estimate:
    """Compute the area under the ROC curve; undefined if known labels are of one class.

    Args:
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of the cases in [0, 1], ``(n,)``.

    Example:
        >>> auroc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.8])).value
        0.875
    """
    cases = known_cases(labels, probabilities)
    return estimate_or(area_under_roc(cases.positive, cases.probabilities), f"{cases.classes}, but AUROC needs both")


def area_under_roc(positive: np.ndarray, values: np.ndarray) -> float:
    """Compute the area under the ROC curve; NaN if the cases are of one class, or if a value is NaN and so has no rank.

    Args:
        positive: Whether the label is present, bool ``(m,)``.
        values: Probabilities, or other numbers that rank the cases, ``(m,)``.
    """
    if np.isnan(values).any():
        return float("nan")
    return float(_weighed_once(Cases(positive, values, 0)).auroc()[0])


def average_precision(labels: np.ndarray, probabilities: np.ndarray) -> Estimate:
    """Compute the average precision of one label's known cases; undefined without a positive case.

    Args:
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of the cases in [0, 1], ``(n,)``.
    """
    cases = known_cases(labels, probabilities)
    return estimate_or(
        _weighed_once(cases).average_precision()[0], f"{cases.classes}, but average precision needs a positive case"
    )


def roc_curve(labels: np.ndarray, probabilities: np.ndarray) -> Curve:
    """Compute the ROC curve at every threshold, from (0, 0) to (1, 1); empty if known labels are of one class.

    Args:
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of the cases in [0, 1], ``(n,)``.
    """
    cases = known_cases(labels, probabilities)
    true_positive, false_positive, thresholds = _called(cases)
    if not true_positive[-1] or not false_positive[-1]:
        return _no_curve(f"{cases.classes}, but a ROC curve needs both")
    return Curve(false_positive / false_positive[-1], true_positive / true_positive[-1], thresholds)


def precision_recall_curve(labels: np.ndarray, probabilities: np.ndarray) -> Curve:
    """Compute the precision-recall curve at every threshold, with ascending recall; empty without a positive case.

    The first point, at which no case is called positive, has precision 1 by convention.

    Args:
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of the cases in [0, 1], ``(n,)``.
    """
    cases = known_cases(labels, probabilities)
    true_positive, false_positive, thresholds = _called(cases)
    if not true_positive[-1]:
        return _no_curve(f"{cases.classes}, but a precision-recall curve needs a positive case")
    called = true_positive + false_positive
    precision = np.divide(true_positive, called, out=np.ones(len(called)), where=called > 0)
    return Curve(true_positive / true_positive[-1], precision, thresholds)


def _called(cases: Cases) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Count true and false positives at each threshold; returns both and the descending thresholds, ``(t,)`` each."""
    levels, level = np.unique(cases.probabilities, return_inverse=True)
    positives = np.bincount(level, weights=cases.positive, minlength=len(levels))
    negatives = np.bincount(level, weights=~cases.positive, minlength=len(levels))
    start = np.zeros(1)
    true_positive = np.concatenate([start, np.cumsum(positives[::-1])])
    false_positive = np.concatenate([start, np.cumsum(negatives[::-1])])
    return true_positive, false_positive, np.concatenate([[np.inf], levels[::-1]])


def _weighed_once(cases: Cases) -> RankedWeights:
    return RankedCases(cases, np.zeros(len(cases.positive), dtype=int), 1).weigh(np.ones((1, 1)))


def _no_curve(note: str) -> Curve:
    return Curve(np.empty(0), np.empty(0), np.empty(0), note)
