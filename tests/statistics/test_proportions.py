"""Confusion matrices, proportions and their intervals, against scipy, scikit-learn and the shared vectors."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from ich_lstm.errors import ConfigError
from ich_lstm.statistics import clopper_pearson, confusion, predictive_values, wilson
from ich_lstm.statistics.proportions import PROPORTIONS, Confusion, proportion


def test_ten_thousand_confusions_against_scikit_learn() -> None:
    random = np.random.default_rng(0)
    for size in random.integers(1, 30, 20):
        y, p = random.integers(0, 2, (size, 500)), random.integers(0, 8, (size, 500)) / 8
        tables = metrics.multilabel_confusion_matrix(y, p >= 0.5)
        got = [confusion(y[:, i], p[:, i], 0.5) for i in range(500)]
        flat = np.array([[c.true_negative, c.false_positive, c.false_negative, c.true_positive] for c in got])
        np.testing.assert_array_equal(flat, tables.reshape(-1, 4))


@pytest.mark.usefixtures("fast_sklearn")
def test_proportions_against_scikit_learn(small_cases: list) -> None:
    for y, p in small_cases[:150]:
        called = p >= 0.4
        expected = {
            "accuracy": metrics.accuracy_score(y, called),
            "sensitivity": metrics.recall_score(y, called, zero_division=np.nan),
            "specificity": metrics.recall_score(1 - y, ~called, zero_division=np.nan),
            "ppv": metrics.precision_score(y, called, zero_division=np.nan),
            "npv": metrics.precision_score(1 - y, ~called, zero_division=np.nan),
            "f1": metrics.f1_score(y, called, zero_division=np.nan),
        }
        table = confusion(y, p, 0.4)
        got = {name: float(proportion(name, table)) for name in PROPORTIONS}
        assert got == pytest.approx(expected, abs=1e-12, nan_ok=True)


def test_proportions_of_many_tables_at_once() -> None:
    table = Confusion(*np.array([[8.0, 0], [2, 0], [1, 3], [9, 4]]))
    np.testing.assert_allclose(proportion("sensitivity", table), [8 / 9, 0])
    np.testing.assert_array_equal(np.isnan(proportion("ppv", table)), [False, True])


class TestPredictiveValues:
    def test_shared_vectors(self, vectors: dict) -> None:
        case = vectors["predictive_value"]
        ppv, _ = predictive_values(case["sensitivity"], case["specificity"], case["prevalence"])
        np.testing.assert_allclose(ppv, case["ppv"], rtol=0, atol=5e-4)

    def test_at_the_prevalence_of_the_data_they_are_those_of_the_data(self) -> None:
        table = Confusion(*map(np.asarray, (40, 10, 5, 45)))
        got = predictive_values(proportion("sensitivity", table), proportion("specificity", table), 0.45)
        np.testing.assert_allclose(got, [proportion("ppv", table), proportion("npv", table)])

    def test_nobody_called(self) -> None:
        ppv, npv = predictive_values(0.0, 1.0, 0.1)
        assert np.isnan(ppv)
        assert npv == pytest.approx(0.9)


class TestIntervals:
    def test_shared_vectors(self, vectors: dict) -> None:
        for case in vectors["clopper_pearson_95"]:
            np.testing.assert_allclose(clopper_pearson(case["k"], case["n"]), case["ci"], rtol=0, atol=5.1e-5)

    @pytest.mark.parametrize("most", [40, pytest.param(140, marks=pytest.mark.slow)], ids="up-to-{}".format)
    def test_every_count_solves_its_equations(self, most: int) -> None:
        """Both are inversions of a test: of the binomial tails, and of the score."""
        sizes = np.arange(1, most + 1)
        cases = np.repeat(sizes, sizes + 1)
        successes = np.concatenate([np.arange(n + 1) for n in sizes])
        low, high = np.array([clopper_pearson(k, n) for k, n in zip(successes, cases, strict=True)]).T
        inner = successes > 0
        np.testing.assert_allclose(stats.binom.sf(successes - 1, cases, low)[inner], 0.025)
        np.testing.assert_array_equal(low[~inner], 0)
        inner = successes < cases
        np.testing.assert_allclose(stats.binom.cdf(successes, cases, high)[inner], 0.025)
        np.testing.assert_array_equal(high[~inner], 1)
        for limit in np.array([wilson(k, n) for k, n in zip(successes, cases, strict=True)]).T:
            z2 = (successes / cases - limit) ** 2 * cases
            np.testing.assert_allclose(z2, stats.norm.ppf(0.975) ** 2 * limit * (1 - limit), rtol=1e-8, atol=1e-12)

    def test_against_scipy(self) -> None:
        random = np.random.default_rng(0)
        for n in random.integers(1, 5000, 60):
            k = random.integers(0, n + 1)
            expected = stats.binomtest(int(k), int(n)).proportion_ci(0.9, "exact")
            np.testing.assert_allclose(clopper_pearson(k, n, confidence=0.9), (expected.low, expected.high), atol=1e-10)

    @pytest.mark.parametrize("interval", [wilson, clopper_pearson])
    @pytest.mark.parametrize(("k", "n", "confidence"), [(0, 0, 0.95), (3, 2, 0.95), (-1, 2, 0.95), (1, 2, 1.0)])
    def test_impossible_counts(self, interval, k: int, n: int, confidence: float) -> None:
        with pytest.raises(ConfigError, match="counts_out_of_range"):
            interval(k, n, confidence=confidence)
