"""Significance tests of the difference between two models, or between a model and a reader, on the same cases."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from scipy import special, stats

from ich_lstm.errors import ConfigError
from ich_lstm.statistics.cases import check_labels, check_probabilities, patient_index
from ich_lstm.statistics.estimate import Estimate, undefined
from ich_lstm.statistics.measures.discrimination import area_under_roc

DELONG = "DeLong"
OBUCHOWSKI = "Obuchowski"
"""The names of the methods in tables."""


class AurocCovariance(NamedTuple):
    """Areas under the ROC curves of several models on the same cases, and their covariance.

    Args:
        values: Areas under the curves, ``(m,)``; NaN if labels are of one class.
        covariance: Covariance of the areas, ``(m, m)``; NaN if it is undefined.
        method: `DELONG`, or `OBUCHOWSKI` if cases belong to patients.
        note: The reason why something is undefined.
    """

    values: np.ndarray
    covariance: np.ndarray
    method: str
    note: str = ""


class Comparison(NamedTuple):
    """A figure of two models on the same cases, and the test of its difference.

    Args:
        first: The figure of the first model.
        second: The figure of the second model.
        difference: The figure of the first model minus that of the second.
        statistic: The test statistic; None if the test has no statistic or is undefined.
        p_value: The two-sided p value; None if it is undefined.
        method: The name of the test.
        note: The reason why something is undefined, or a caution.
    """

    first: Estimate
    second: Estimate
    difference: Estimate
    statistic: float | None
    p_value: float | None
    method: str
    note: str = ""


def auroc_covariance(labels: np.ndarray, probabilities: np.ndarray, patients: Iterable | None = None) -> AurocCovariance:
    """Compute the covariance of AUROCs by DeLong's method, or by Obuchowski's if several cases belong to one patient.

    Sources: DeLong, DeLong & Clarke-Pearson, Biometrics 1988;44:837-845; by mid-ranks as in Sun & Xu, IEEE Signal Process Lett
    2014;21:1389-1393; Obuchowski, Biometrics 1997;53:567-578. With one case per patient, the two methods agree.

    Args:
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of m models, ``(n, m)``, in [0, 1].
        patients: The patient of each case, ``(n,)``; None only if cases are independent.
    """
    y, p = check_labels(labels), check_probabilities(probabilities)
    if y.ndim != 1 or p.ndim != 2 or len(y) != len(p):
        raise ConfigError(
            "shapes_differ", where="AUROC", got=f"{y.shape} and {p.shape}", expected="labels (n,), probabilities (n, m)"
        )
    known = ~np.isnan(y)
    positive, p = y[known] == 1, p[known]
    if patients is None:
        cluster, method = np.arange(len(positive)), DELONG
    else:
        cluster, method = patient_index(patients)[0][known], OBUCHOWSKI
    models = p.shape[1]
    nothing = np.full((models, models), np.nan)
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        note = f"{positives} positive and {negatives} negative cases, but AUROC needs both"
        return AurocCovariance(np.full(models, np.nan), nothing, method, note)
    of_positive, of_negative = _placements(positive, p)  # (positives, m), (negatives, m)
    values = np.array([area_under_roc(positive, column) for column in p.T])
    _, cluster = np.unique(cluster, return_inverse=True)
    groups = int(cluster.max()) + 1
    with_positive, with_negative = len(np.unique(cluster[positive])), len(np.unique(cluster[~positive]))
    if min(with_positive, with_negative) < 2:
        unit = "cases" if patients is None else "patients"
        note = f"{with_positive} {unit} with a positive and {with_negative} with a negative case, but a variance needs 2 of each"
        return AurocCovariance(values, nothing, method, note)
    a = _sum_by_cluster(of_positive - values, cluster[positive], groups) / positives  # (groups, m)
    b = _sum_by_cluster(of_negative - values, cluster[~positive], groups) / negatives
    covariance = with_positive / (with_positive - 1) * a.T @ a + with_negative / (with_negative - 1) * b.T @ b
    covariance += groups / (groups - 1) * (a.T @ b + b.T @ a)  # 0 unless a patient has cases of both classes
    return AurocCovariance(values, covariance, method)


def compare_auroc(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    patients: Iterable | None = None,
    *,
    confidence: float = 0.95,
) -> Comparison:
    """Test whether two models' AUROCs differ; see `auroc_covariance`.

    Args:
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown.
        first: Probabilities of the first model, ``(n,)``.
        second: Probabilities of the second model, ``(n,)``.
        patients: The patient of each case, ``(n,)``; None only if cases are independent.
        confidence: Confidence of the intervals. The interval of each AUROC is computed on the logit scale.
    """
    values, covariance, method, note = auroc_covariance(labels, np.stack([first, second], axis=-1), patients)
    if np.isnan(values).any():
        nothing = undefined(note)
        return Comparison(nothing, nothing, nothing, None, None, method, note)
    quantile = float(stats.norm.ppf((1 + confidence) / 2))
    one, other = (_auroc_estimate(float(values[i]), float(covariance[i, i]), quantile, method, note) for i in range(2))
    difference = float(values[0] - values[1])
    variance = float(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
    if not variance > 1e-20:  # also if NaN
        note = note or "no variance: the two models rank every pair of cases equally"
        return Comparison(one, other, Estimate(difference, note=note), None, None, method, note)
    error = np.sqrt(variance)
    z = float(difference / error)
    interval = Estimate(difference, float(difference - quantile * error), float(difference + quantile * error), method)
    return Comparison(one, other, interval, z, float(2 * stats.norm.sf(abs(z))), method)


def mcnemar(first_correct: np.ndarray, second_correct: np.ndarray, patients: Iterable | None = None) -> Comparison:
    """Test whether one of two raters is right more often: exactly if cases are independent, by Durkalski's test if they are not.

    To compare sensitivities, give only positive cases; to compare specificities, only negative ones.

    Sources: McNemar, Psychometrika 1947;12:153-157, in its exact binomial form; Durkalski et al., Stat Med 2003;22:2417-2428, in
    which every patient has the same weight, regardless of the number of cases.

    Args:
        first_correct: Whether the first rater is right, ``(n,)``: 1 right, 0 wrong, NaN unknown.
        second_correct: Whether the second rater is right on the same cases, ``(n,)``: 1 right, 0 wrong, NaN unknown.
        patients: The patient of each case, ``(n,)``; None only if cases are independent.
    """
    pair = check_labels(np.stack([first_correct, second_correct], axis=-1))  # (n, 2)
    known = ~np.isnan(pair).any(axis=1)
    first, second = pair[known].T
    method = "McNemar, exact" if patients is None else "McNemar, clustered (Durkalski)"
    excluded = f"{int((~known).sum())} cases excluded, in which one or both raters are unknown" if not known.all() else ""
    if not len(first):
        nothing = undefined("no case that both raters judged")
        return Comparison(nothing, nothing, nothing, None, None, method, excluded)
    one, other, difference = (Estimate(float(value)) for value in (first.mean(), second.mean(), (first - second).mean()))
    if patients is None:
        p_value = exact_mcnemar(int(((first == 1) & (second == 0)).sum()), int(((first == 0) & (second == 1)).sum()))
        return Comparison(one, other, difference, None, p_value, method, excluded)
    cluster = np.unique(patient_index(patients)[0][known], return_inverse=True)[1]
    per_patient = np.bincount(cluster, weights=first - second) / np.bincount(cluster)
    squares = float((per_patient**2).sum())
    if squares == 0:
        note = "; ".join(filter(None, [excluded, "in no patient is one rater right more often than the other"]))
        return Comparison(one, other, difference, None, None, method, note)
    statistic = float(per_patient.sum() ** 2 / squares)
    return Comparison(one, other, difference, statistic, float(stats.chi2.sf(statistic, 1)), method, excluded)


def exact_mcnemar(first_alone: int, second_alone: int) -> float:
    """Compute the two-sided p value of McNemar's test.

    Args:
        first_alone: Number of cases in which only the first rater is right.
        second_alone: Number of cases in which only the second rater is right.

    Example:
        >>> print(f"{exact_mcnemar(9, 2):.7f}")
        0.0654297
    """
    discordant = first_alone + second_alone
    return float(min(1, 2 * stats.binom.cdf(min(first_alone, second_alone), discordant, 0.5)))


def _placements(positive: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Compute the share of negative cases below each positive case, and of positive cases above each negative case.

    Args:
        positive: Whether each case is positive, bool ``(n,)``.
        p: Probabilities of m models, ``(n, m)``.

    Returns:
        Shares of the positive cases ``(positives, m)`` and of the negative cases ``(negatives, m)``; ties count half.
    """
    ranks = stats.rankdata(p, axis=0)  # mid-ranks
    within_positive, within_negative = stats.rankdata(p[positive], axis=0), stats.rankdata(p[~positive], axis=0)
    positives, negatives = len(within_positive), len(within_negative)
    return (ranks[positive] - within_positive) / negatives, 1 - (ranks[~positive] - within_negative) / positives


def _sum_by_cluster(values: np.ndarray, cluster: np.ndarray, groups: int) -> np.ndarray:
    return np.stack([np.bincount(cluster, weights=column, minlength=groups) for column in values.T], axis=1)


def _auroc_estimate(value: float, variance: float, quantile: float, method: str, note: str) -> Estimate:
    if not variance > 0 or not 0 < value < 1:
        return Estimate(value, note=note or "no interval: no variance")
    half = quantile * np.sqrt(variance) / (value * (1 - value))
    odds = special.logit(value)
    return Estimate(value, float(special.expit(odds - half)), float(special.expit(odds + half)), method)
