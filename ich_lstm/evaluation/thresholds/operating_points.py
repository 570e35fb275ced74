"""Rules that choose thresholds on validation cases."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from ich_lstm.errors import ConfigError
from ich_lstm.statistics import roc_curve
from ich_lstm.statistics.cases import check_labels, check_probabilities, known_cases

SENSITIVITY, SPECIFICITY, YOUDEN, ALARMS = "sensitivity", "specificity", "youden", "alarms"
RULES = ("sensitivity=0.95", "specificity=0.9", YOUDEN, "alarms=10", "alarms=10@0.08")
"""The rules in the notation of the command line, with example numbers."""

MOST_ALARMS = 100
ROUNDING = 1e-9
"""Alarms may exceed the budget by this much, because shares such as 0.1 have no exact binary fraction."""

_WRITTEN = re.compile(r"([a-z]+)(?:=(\d*\.?\d+)(?:@(\d*\.?\d+))?)?")


@dataclass(frozen=True)
class Rule:
    """A rule that chooses a threshold.

    Args:
        kind: ``sensitivity`` or ``specificity``: at least this value is reached, with the other one as high as possible;
            ``youden``: the sum of both is highest; ``alarms``: at most this number of 100 scans is called positive.
        value: Sensitivity or specificity to reach, or number of alarms; 0 for ``youden``.
        share: The share of positive scans at which ``alarms`` are counted; None uses that of the validation data.

    Example:
        >>> print(parse_rule("alarms=10@0.08"))
        alarms=10@0.08
    """

    kind: str
    value: float = 0
    share: float | None = None

    def __str__(self) -> str:
        value = "" if self.kind == YOUDEN else f"={self.value:g}"
        return f"{self.kind}{value}" + ("" if self.share is None else f"@{self.share:g}")


def parse_rule(text: str) -> Rule:
    """Parse a rule from the command line.

    Raises:
        ConfigError: If the text is not a rule.
    """
    written = _WRITTEN.fullmatch(text)
    kind, *numbers = written.groups() if written else ("", None, None)
    value, share = (None if number is None else float(number) for number in numbers)
    highest = MOST_ALARMS if kind == ALARMS else 1
    fits = value is None if kind == YOUDEN else value is not None and 0 < value <= highest
    if kind not in _CHOOSERS or not fits or (share is not None and (kind != ALARMS or not 0 < share < 1)):
        raise ConfigError(
            "unknown_rule",
            where="--calibrate",
            got=repr(text),
            expected=f"rules like {', '.join(RULES)}",
            todo="Shares lie between 0 and 1. Alarms are counted per 100 scans, at the validation data's share of positive scans "
            "or at the share that follows an @.",
        )
    return Rule(kind, value or 0, share)


def choose_threshold(rule: Rule, labels: np.ndarray, probabilities: np.ndarray) -> tuple[float | None, str]:
    """Choose a threshold on the cases of one label; a case is called positive at or above it.

    The threshold lies halfway between the lowest probability that is called positive and the next lower one. The last digit of
    a probability, which differs between machines, therefore changes no call.

    Args:
        rule: The rule to apply; for ``alarms``, the cases must be scans.
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of the cases in [0, 1], ``(n,)``.

    Returns:
        The threshold and an empty text, or None and the reason why there is none.

    Raises:
        TableError: If a label is not 0, 1 or NaN, or a probability lies outside [0, 1].
    """
    return _CHOOSERS[rule.kind](rule, labels, probabilities)


def _by_curve(rule: Rule, labels: np.ndarray, probabilities: np.ndarray) -> tuple[float | None, str]:
    curve = roc_curve(labels, probabilities)
    if curve.note:
        return None, curve.note.replace("a ROC curve", "a threshold")
    cases = known_cases(labels, probabilities)
    negatives = int((~cases.positive).sum())
    specificity = (negatives - np.round(curve.x * negatives)) / negatives
    if rule.kind == SENSITIVITY:
        place = int(np.argmax(curve.y >= rule.value))  # the last point calls every case positive
    elif rule.kind == SPECIFICITY:
        place = int(np.flatnonzero(specificity >= rule.value)[-1])  # the first point calls no case positive
        if place == 0:
            return None, f"the highest probability is that of {1 - specificity[1]:.2g} of the negative cases"
    else:
        gain = curve.y + specificity - 1
        place = int(np.flatnonzero(gain == gain.max())[-1])  # among equal points, the most sensitive
        if not 0 < place < len(gain) - 1:
            return None, "no threshold is better than chance"
    return _halfway(curve.thresholds, place), ""


def _by_alarms(rule: Rule, labels: np.ndarray, probabilities: np.ndarray) -> tuple[float | None, str]:
    y, p = check_labels(labels), check_probabilities(probabilities)
    weights = np.ones(len(p))
    if rule.share is not None:
        positives, negatives = int((y == 1).sum()), int((y == 0).sum())
        if not positives or not negatives:
            return None, f"{positives} positive and {negatives} negative cases, but a stated share of positive scans needs both"
        weights = np.where(y == 1, rule.share / positives, np.where(y == 0, (1 - rule.share) / negatives, 0))
    if not len(p):
        return None, "no scan"
    levels, level = np.unique(p, return_inverse=True)
    alarms = np.cumsum(np.bincount(level, weights=weights)[::-1]) * 100 / weights.sum()  # at each level, from the highest
    within = np.flatnonzero(alarms <= rule.value + ROUNDING)
    if not len(within):
        return None, f"the highest probability alone gives {alarms[0]:.3g} alarms per 100 scans"
    return _halfway(np.append(np.inf, levels[::-1]), int(within[-1]) + 1), ""


def _halfway(thresholds: np.ndarray, place: int) -> float:
    """Compute the middle between one of several descending thresholds and the next lower one, or 0."""
    here = float(thresholds[place])
    below = float(thresholds[place + 1]) if place + 1 < len(thresholds) else 0.0
    middle = (here + below) / 2
    return middle if below < middle else here


_CHOOSERS: MappingProxyType[str, Callable[[Rule, np.ndarray, np.ndarray], tuple[float | None, str]]] = MappingProxyType(
    {SENSITIVITY: _by_curve, SPECIFICITY: _by_curve, YOUDEN: _by_curve, ALARMS: _by_alarms}
)
