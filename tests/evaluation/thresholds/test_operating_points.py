"""Rules for thresholds."""

import numpy as np
import pytest

from ich_lstm.errors import ConfigError, TableError
from ich_lstm.evaluation.thresholds.operating_points import RULES, choose_threshold, parse_rule

NO_RULES = (
    *("", "0.5", "f1=0.5", "youden=1", "sensitivity", "sensitivity=0", "sensitivity=95", "sensitivity=0.9.5"),
    *("specificity=1.01", "sensitivity=0.9@0.1", "alarms", "alarms=0", "alarms=-3", "alarms=101", "alarms=10@0", "alarms=10@1"),
)


def simulate(cases: int = 500, seed: int = 0, digits: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Labels, a tenth of them unknown, and probabilities with many ties."""
    random = np.random.default_rng(seed)
    y = (random.random(cases) < 0.3).astype(float)
    p = np.round(1 / (1 + np.exp(1 - 2 * y + random.standard_normal(cases))), digits)
    y[random.random(cases) < 0.1] = np.nan
    return y, p


def rates(y: np.ndarray, p: np.ndarray, threshold: float) -> tuple[float, float]:
    """Sensitivity and specificity, counted one by one."""
    positive = [q >= threshold for label, q in zip(y, p, strict=True) if label == 1]
    negative = [q < threshold for label, q in zip(y, p, strict=True) if label == 0]
    return sum(positive) / len(positive), sum(negative) / len(negative)


def grid(p: np.ndarray) -> list[float]:
    """A threshold on each side of every probability."""
    levels = np.unique(p)
    return [0.0, *((levels[1:] + levels[:-1]) / 2), float(levels[-1])]


class TestRules:
    @pytest.mark.parametrize("text", RULES)
    def test_are_read_as_they_are_written(self, text: str) -> None:
        assert str(parse_rule(text)) == text

    @pytest.mark.parametrize("text", NO_RULES)
    def test_that_are_none(self, text: str) -> None:
        with pytest.raises(ConfigError) as caught:
            parse_rule(text)
        assert caught.value.code == "unknown_rule"


@pytest.mark.parametrize("seed", range(5))
class TestAgainstEveryThreshold:
    @pytest.mark.parametrize("wished", [0.5, 0.9, 0.95, 1.0])
    def test_sensitivity_is_reached_at_the_best_specificity(self, seed: int, wished: float) -> None:
        y, p = simulate(seed=seed)
        threshold, _ = choose_threshold(parse_rule(f"sensitivity={wished}"), y, p)
        sensitivity, specificity = rates(y, p, threshold)
        assert sensitivity >= wished
        assert specificity == max(there for t in grid(p) if (found := rates(y, p, t))[0] >= wished for there in found[1:])

    @pytest.mark.parametrize("wished", [0.5, 0.9, 0.99])
    def test_specificity_is_reached_at_the_best_sensitivity(self, seed: int, wished: float) -> None:
        y, p = simulate(seed=seed)
        threshold, _ = choose_threshold(parse_rule(f"specificity={wished}"), y, p)
        sensitivity, specificity = rates(y, p, threshold)
        assert specificity >= wished
        assert sensitivity == max(rates(y, p, t)[0] for t in grid(p) if rates(y, p, t)[1] >= wished)

    def test_youden_is_the_highest(self, seed: int) -> None:
        y, p = simulate(seed=seed)
        threshold, _ = choose_threshold(parse_rule("youden"), y, p)
        assert sum(rates(y, p, threshold)) == pytest.approx(max(sum(rates(y, p, t)) for t in grid(p)))

    @pytest.mark.parametrize("budget", [5, 20, 60])
    def test_alarms_use_the_budget_up(self, seed: int, budget: int) -> None:
        y, p = simulate(seed=seed)
        threshold, _ = choose_threshold(parse_rule(f"alarms={budget}"), y, p)
        assert 100 * (p >= threshold).mean() <= budget
        assert 100 * (p >= p[p < threshold].max()).mean() > budget

    @pytest.mark.parametrize("share", [0.05, 0.3])
    def test_alarms_at_a_site(self, seed: int, share: float) -> None:
        y, p = simulate(seed=seed)
        threshold, _ = choose_threshold(parse_rule(f"alarms=10@{share}"), y, p)
        alarms = []
        for t in (threshold, p[p < threshold].max()):
            sensitivity, specificity = rates(y, p, t)
            alarms.append(100 * (share * sensitivity + (1 - share) * (1 - specificity)))
        assert alarms[0] <= 10 < alarms[1]


class TestEdges:
    def test_a_threshold_lies_between_two_probabilities(self) -> None:
        y, p = np.array([0.0, 0, 1, 1]), np.array([0.1, 0.2, 0.6, 0.9])
        assert choose_threshold(parse_rule("sensitivity=1"), y, p)[0] == pytest.approx(0.4)
        assert choose_threshold(parse_rule("sensitivity=0.5"), y, p)[0] == pytest.approx(0.75)
        assert choose_threshold(parse_rule("alarms=100"), y, p)[0] == pytest.approx(0.05)

    def test_neighbours_in_float64_are_told_apart(self) -> None:
        high = np.nextafter(0.5, 1)
        threshold, _ = choose_threshold(parse_rule("sensitivity=1"), np.array([0.0, 1]), np.array([0.5, high]))
        assert 0.5 < threshold <= high

    @pytest.mark.parametrize("rule", ["sensitivity=0.9", "specificity=0.9", "youden", "alarms=10@0.1"])
    @pytest.mark.parametrize("label", [0, 1, np.nan])
    def test_one_class(self, rule: str, label: float) -> None:
        threshold, note = choose_threshold(parse_rule(rule), np.full(20, label), np.linspace(0, 1, 20))
        assert threshold is None
        assert "needs both" in note

    def test_alarms_need_no_label(self) -> None:
        threshold, _ = choose_threshold(parse_rule("alarms=10"), np.full(20, np.nan), np.linspace(0, 1, 20))
        assert (np.linspace(0, 1, 20) >= threshold).sum() == 2

    @pytest.mark.parametrize("rule", ["specificity=0.9", "youden", "alarms=10", "alarms=10@0.1"])
    def test_one_probability_for_all(self, rule: str) -> None:
        threshold, note = choose_threshold(parse_rule(rule), np.array([0.0, 1] * 10), np.full(20, 0.5))
        assert threshold is None
        assert note

    def test_upside_down_is_no_better_than_chance(self) -> None:
        assert choose_threshold(parse_rule("youden"), np.array([1.0, 1, 0, 0]), np.array([0.1, 0.2, 0.8, 0.9]))[0] is None

    def test_no_case(self) -> None:
        for rule in RULES:
            assert choose_threshold(parse_rule(rule), np.empty(0), np.empty(0))[0] is None

    @pytest.mark.parametrize("p", [np.nan, 1.5, -0.1])
    def test_what_is_no_probability(self, p: float) -> None:
        for rule in RULES:
            with pytest.raises(TableError):
                choose_threshold(parse_rule(rule), np.array([0.0, 1]), np.array([0.5, p]))
