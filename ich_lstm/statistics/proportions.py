"""Confusion matrices, the proportions derived from them, and intervals of proportions."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from scipy import stats

from ich_lstm.errors import ConfigError
from ich_lstm.statistics.cases import known_cases


class Confusion(NamedTuple):
    """A confusion matrix: numbers of cases, or arrays of equal shape.

    Args:
        true_positive: Number of positive cases that are called positive.
        false_positive: Number of negative cases that are called positive.
        false_negative: Number of positive cases that are called negative.
        true_negative: Number of negative cases that are called negative.
    """

    true_positive: np.ndarray
    false_positive: np.ndarray
    false_negative: np.ndarray
    true_negative: np.ndarray


class Proportion(NamedTuple):
    """A figure of the form part / whole.

    Args:
        part: Function from a confusion matrix to the numerator.
        whole: Function from a confusion matrix to the denominator.
        needs: A text that says when the denominator is not 0.
        binomial: Whether the numerator counts cases of the denominator, so that it is binomial if cases are independent.
    """

    part: Callable[[Confusion], np.ndarray]
    whole: Callable[[Confusion], np.ndarray]
    needs: str
    binomial: bool = True


PROPORTIONS: Mapping[str, Proportion] = MappingProxyType(
    {
        "accuracy": Proportion(
            lambda c: c.true_positive + c.true_negative, lambda c: np.sum(c, axis=0), "a case with a known label"
        ),
        "sensitivity": Proportion(lambda c: c.true_positive, lambda c: c.true_positive + c.false_negative, "a positive case"),
        "specificity": Proportion(lambda c: c.true_negative, lambda c: c.true_negative + c.false_positive, "a negative case"),
        "ppv": Proportion(
            lambda c: c.true_positive, lambda c: c.true_positive + c.false_positive, "a case that is called positive"
        ),
        "npv": Proportion(
            lambda c: c.true_negative, lambda c: c.true_negative + c.false_negative, "a case that is called negative"
        ),
        "f1": Proportion(
            lambda c: 2 * c.true_positive,
            lambda c: 2 * c.true_positive + c.false_positive + c.false_negative,
            "a case that is positive or called so",
            binomial=False,
        ),
    }
)
"""The proportions of a confusion matrix, by their names in tables."""


def confusion(labels: np.ndarray, probabilities: np.ndarray, threshold: float) -> Confusion:
    """Count the known cases of one label; a case is called positive at or above the threshold.

    Args:
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of the cases in [0, 1], ``(n,)``.
        threshold: Operating point in [0, 1].

    Example:
        >>> [int(count) for count in confusion(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.8]), 0.4)]
        [2, 1, 0, 1]
    """
    positive, p, _ = known_cases(labels, probabilities)
    called = p >= threshold
    pairs = ((positive, called), (~positive, called), (positive, ~called), (~positive, ~called))
    return Confusion(*(np.asarray((first & second).sum()) for first, second in pairs))


def proportion(name: str, counts: Confusion) -> np.ndarray:
    """Compute one of `PROPORTIONS`, float64 in the shape of the counts; NaN where its denominator is 0."""
    part, whole = PROPORTIONS[name].part(counts), PROPORTIONS[name].whole(counts)
    return ratio(part, whole)


def ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide the part by the whole; NaN where the whole is 0."""
    part, whole = np.broadcast_arrays(np.asarray(part, dtype=np.float64), np.asarray(whole, dtype=np.float64))
    return np.divide(part, whole, out=np.full(whole.shape, np.nan), where=whole != 0)


def predictive_values(
    sensitivity: np.ndarray | float, specificity: np.ndarray | float, prevalence: np.ndarray | float
) -> tuple[np.ndarray, np.ndarray]:
    """Compute PPV and NPV at a stated prevalence by Bayes' theorem.

    Args:
        sensitivity: Sensitivity in [0, 1].
        specificity: Specificity in [0, 1].
        prevalence: Prevalence in [0, 1]; the three arrays broadcast.

    Returns:
        PPV, NaN where no case would be called positive, and NPV, NaN where no case would be called negative.

    Example:
        >>> ppv, npv = predictive_values(0.9615, 0.9483, 0.10)
        >>> print(f"{ppv:.3f} {npv:.4f}")
        0.674 0.9955
    """
    share, sensitivity, specificity = (np.asarray(value, dtype=np.float64) for value in (prevalence, sensitivity, specificity))
    true_positive, true_negative = sensitivity * share, specificity * (1 - share)
    called = true_positive + (1 - specificity) * (1 - share)
    not_called = true_negative + (1 - sensitivity) * share
    return ratio(true_positive, called), ratio(true_negative, not_called)


def wilson(successes: int, cases: int, *, confidence: float = 0.95) -> tuple[float, float]:
    """Compute the interval of a proportion of independent cases by inversion of the score test.

    Source: Wilson, J Am Stat Assoc 1927;22:209-212.

    Args:
        successes: Number of successes, from 0 to the number of cases.
        cases: Number of cases, at least 1.
        confidence: Confidence of the interval, between 0 and 1.

    Example:
        >>> low, high = wilson(8, 10)
        >>> print(f"{low:.4f} {high:.4f}")
        0.4902 0.9433
    """
    _check_counts(successes, cases, confidence)
    limits = stats.binomtest(int(successes), int(cases)).proportion_ci(confidence, method="wilson")
    return float(limits.low), float(limits.high)


def clopper_pearson(successes: float, cases: float, *, confidence: float = 0.95) -> tuple[float, float]:
    """Compute the exact interval of a proportion of independent cases; its coverage is at least the confidence.

    Source: Clopper & Pearson, Biometrika 1934;26:404-413.

    Args:
        successes: Number of successes, from 0 to the number of cases.
        cases: Number of cases, at least 1.
        confidence: Confidence of the interval, between 0 and 1.

    Example:
        >>> low, high = clopper_pearson(453, 463)
        >>> print(f"{low:.4f} {high:.4f}")
        0.9606 0.9896
    """
    _check_counts(successes, cases, confidence)
    return exact_limits(successes, cases, confidence)


def exact_limits(successes: float, cases: float, confidence: float) -> tuple[float, float]:
    """Compute Clopper and Pearson's limits for numbers that need not be integers, such as an effective number of cases."""
    tail = (1 - confidence) / 2
    low = 0.0 if successes == 0 else float(stats.beta.ppf(tail, successes, cases - successes + 1))
    high = 1.0 if successes == cases else float(stats.beta.ppf(1 - tail, successes + 1, cases - successes))
    return low, high


def _check_counts(successes: float, cases: float, confidence: float) -> None:
    if not (cases >= 1 and 0 <= successes <= cases and 0 < confidence < 1):
        raise ConfigError(
            "counts_out_of_range",
            where="interval of a proportion",
            got=f"{successes:g} of {cases:g} at a confidence of {confidence:g}",
            expected="0 <= successes <= cases, at least one case, and a confidence between 0 and 1",
        )
