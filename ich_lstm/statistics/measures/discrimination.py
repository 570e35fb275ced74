"""Discrimination measures: AUROC, average precision, and their curves, exact with ties.

A bootstrap needs the same figure for thousands of weightings of the same cases, so cases are sorted only once. The result depends
only on the distinct probabilities of positive cases and on the negative cases at and between them. The weight of every such bin
is a sparse matrix (bins x patients) times the patients' counts (patients x replicates).
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ich_lstm.errors import TableError
from ich_lstm.statistics.bootstrap import PatientBootstrap, bootstrap_interval, sum_by_patient
from ich_lstm.statistics.cases import Cases, known_cases, patient_index
from ich_lstm.statistics.estimate import Estimate, estimate_or, undefined

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
        return _share(self.in_order(), self.pairs())

    def in_order(self) -> np.ndarray:
        """Compute the weight of pairs in which the positive case ranks above the negative one, ``(r,)``; ties count half."""
        return np.einsum("gr,gr->r", self.positive, self.below + self.tied / 2)

    def pairs(self) -> np.ndarray:
        """Compute the weight of all pairs of a positive and a negative case, ``(r,)``."""
        return self.positive.sum(axis=0) * self.negative

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


class StratifiedRanks:
    """The cases of one label, of which only pairs of one stratum are compared, for any number of weightings of their patients.

    Args:
        cases: The m cases with a known label.
        strata: Stratum of each case, ``(m,)``.
        patient: Index of the patient of each case, ``(m,)``.
        patients: Number of patients in the data.

    Raises:
        ValueError: If a probability is NaN.
    """

    def __init__(self, cases: Cases, strata: np.ndarray, patient: np.ndarray, patients: int) -> None:
        positive, probabilities, _ = cases
        self.cases, self.patients = len(positive), patients
        self.carriers = min(len(np.unique(patient[positive])), len(np.unique(patient[~positive])))
        """Number of patients with a positive case, or with a negative case if these are fewer."""
        members = [strata == stratum for stratum in np.unique(strata)]
        self._ranks = [RankedCases(Cases(positive[mine], probabilities[mine], 0), patient[mine], patients) for mine in members]

    def auroc(self, counts: np.ndarray) -> np.ndarray:
        """Compute the share of correctly ranked pairs, ``(r,)``, of all strata together; NaN without a pair.

        Args:
            counts: How often each patient was drawn, whole numbers ``(patients, r)``.
        """
        in_order, pairs = np.zeros(counts.shape[1]), np.zeros(counts.shape[1])
        for ranks in self._ranks:
            weights = ranks.weigh(counts)
            in_order += weights.in_order()
            pairs += weights.pairs()
        return _share(in_order, pairs)


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


def stratified_auroc(
    labels: np.ndarray,
    probabilities: np.ndarray,
    strata: np.ndarray,
    patients: Iterable | None = None,
    *,
    replicates: int = 2000,
    seed: int = 0,
    workers: int = 2,
) -> Estimate:
    """Compute the AUROC over pairs of cases of one stratum; undefined if no stratum has a pair.

    The pairs of all strata are pooled, so a stratum counts by its number of pairs. What is constant within each stratum, such as
    the stratum itself, gives 0.5 even if it gives more over all cases. Strata of a confounder, such as the height of a slice in
    the head, therefore show what a model knows beyond it.

    Source: a weighted mean of the AUROCs of the strata (Janes & Pepe, Biometrika 2009;96:371-382, who weight by positive cases).

    Args:
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of the cases in [0, 1], ``(n,)``.
        strata: Stratum of each case, ``(n,)``.
        patients: The patient of each case, ``(n,)``, for a 95 % interval by a bootstrap of patients; None for no interval.
        replicates: Number of bootstrap resamples.
        seed: Seed of the bootstrap.
        workers: Number of threads of the bootstrap.

    Raises:
        TableError: If a label or a probability is invalid, a patient is unknown, or the numbers of cases differ.

    Example:
        >>> stratified_auroc(np.array([0, 1, 0, 1]), np.array([0.1, 0.2, 0.6, 0.9]), np.array([0, 0, 1, 1])).value
        1.0
    """
    ranks = stratified_ranks(labels, probabilities, strata, patients)
    value = float(ranks.auroc(np.ones((ranks.patients, 1), dtype=np.float32))[0])
    if np.isnan(value):
        return undefined("no stratum with a positive and a negative case")
    if patients is None:
        return Estimate(value)
    bootstrap = PatientBootstrap(ranks.patients, replicates=replicates, seed=seed, workers=workers)
    drawn = bootstrap.replicate(lambda counts: ranks.auroc(counts)[None], cases=ranks.cases)[0]
    return bootstrap_interval(value, drawn, scale="logit", patients=ranks.carriers)


def stratified_ranks(
    labels: np.ndarray, probabilities: np.ndarray, strata: np.ndarray, patients: Iterable | None = None
) -> StratifiedRanks:
    """Check the cases of one label, and rank those whose label is known within their strata.

    Args:
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of the cases in [0, 1], ``(n,)``.
        strata: Stratum of each case, ``(n,)``.
        patients: The patient of each case, ``(n,)``; None for one patient.

    Raises:
        TableError: If a label or a probability is invalid, a patient is unknown, or the numbers of cases differ.
    """
    cases = known_cases(labels, probabilities)
    known = ~np.isnan(np.asarray(labels, dtype=np.float64))
    strata = np.asarray(strata)
    index, count = (np.zeros(len(known), int), 1) if patients is None else patient_index(patients)
    if not len(strata) == len(index) == len(known):
        raise TableError(
            "shapes_differ",
            where="cases to evaluate",
            got=f"{len(known)} labels, {len(strata)} strata, {len(index)} patients",
            expected="arrays of equal length",
            todo="Give one row per case.",
        )
    return StratifiedRanks(cases, strata[known], index[known], count)


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


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide, ``(r,)``; NaN where the whole is 0."""
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole > 0)


def _no_curve(note: str) -> Curve:
    return Curve(np.empty(0), np.empty(0), np.empty(0), note)
