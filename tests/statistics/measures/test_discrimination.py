"""AUROC, average precision and their curves, against scipy, scikit-learn and the shared vectors."""

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from ich_lstm.errors import TableError
from ich_lstm.statistics import auroc, average_precision, precision_recall_curve, roc_curve, stratified_auroc
from ich_lstm.statistics.cases import Cases
from ich_lstm.statistics.measures.discrimination import RankedCases, stratified_ranks


class TestAuroc:
    def test_shared_vectors(self, two_models: dict) -> None:
        for name, expected in zip(("s1", "s2"), two_models["auroc"], strict=True):
            assert auroc(two_models["y"], two_models[name]).value == pytest.approx(expected, abs=5e-8)

    @pytest.mark.parametrize("cases", [10, pytest.param(100, marks=pytest.mark.slow)], ids="100-times-{}".format)
    def test_many_cases_against_scipy(self, cases: int) -> None:
        random = np.random.default_rng(1)
        for batch in range(100):
            positives, negatives = random.integers(1, 25, 2)
            p = random.integers(0, 2 + batch, (cases, positives + negatives)) / (2 + batch)  # from nearly all tied to few
            y = np.repeat([1.0, 0.0], [positives, negatives])
            mann_whitney = stats.mannwhitneyu(p[:, :positives], p[:, positives:], axis=1, method="asymptotic").statistic
            np.testing.assert_allclose(
                [auroc(y, row).value for row in p], mann_whitney / (positives * negatives), rtol=0, atol=1e-12
            )

    @pytest.mark.usefixtures("fast_sklearn")
    def test_against_scikit_learn(self, small_cases: list) -> None:
        for y, p in small_cases[:500]:
            got = auroc(y, p)
            if y.min() == y.max():
                assert got.value is None
                assert "needs both" in got.note
            else:
                assert got.value == pytest.approx(metrics.roc_auc_score(y, p), abs=1e-12)

    def test_unknown_labels_are_left_out(self) -> None:
        y, p = np.array([0, np.nan, 1, 1, np.nan]), np.array([0.2, 0.9, 0.1, 0.3, 0.0])
        assert auroc(y, p).value == 0.5

    def test_probabilities_that_float32_could_not_tell_apart(self) -> None:
        assert auroc(np.array([1, 0, 1, 0]), 1 - np.arange(1, 5) * 1e-12).value == 0.75


class TestAveragePrecision:
    def test_shared_vectors(self, two_models: dict) -> None:
        for name, expected in zip(("s1", "s2"), two_models["average_precision"], strict=True):
            assert average_precision(two_models["y"], two_models[name]).value == pytest.approx(expected, abs=5e-8)

    @pytest.mark.usefixtures("fast_sklearn")
    def test_against_scikit_learn(self, small_cases: list) -> None:
        for y, p in small_cases:
            got = average_precision(y, p)
            if not y.any():
                assert got.value is None
                assert "positive" in got.note
            else:
                assert got.value == pytest.approx(metrics.average_precision_score(y, p), abs=1e-12)


class TestCurves:
    @pytest.mark.usefixtures("fast_sklearn")
    def test_against_scikit_learn(self, small_cases: list) -> None:
        for y, p in small_cases[:300]:
            if y.min() == y.max():
                assert roc_curve(y, p).note
                continue
            got = roc_curve(y, p)
            x, height, thresholds = metrics.roc_curve(y, p, drop_intermediate=False)
            np.testing.assert_allclose(np.stack(got[:3]), np.stack([x, height, thresholds]), atol=1e-12)
            precision, recall, thresholds = metrics.precision_recall_curve(y, p)
            got = precision_recall_curve(y, p)
            np.testing.assert_allclose(np.stack(got[:2]), np.stack([recall, precision])[:, ::-1], atol=1e-12)
            np.testing.assert_allclose(got.thresholds[1:], thresholds[::-1])

    def test_nothing_to_draw(self) -> None:
        for curve in (roc_curve, precision_recall_curve):
            empty = curve(np.array([]), np.array([]))
            assert len(empty.x) == 0
            assert empty.note


class TestRankedCases:
    @pytest.mark.parametrize("ties", [5, None])
    def test_weights_are_repetitions(self, make_study, ties: int | None) -> None:
        study = make_study(patients=20, ties=ties)
        y, p = study.labels[:, 0] == 1, study.probabilities[:, 0]
        counts = np.random.default_rng(0).multinomial(20, np.full(20, 0.05), 5).T  # (patients, r)
        ranked = RankedCases(Cases(y, p, 0), study.patients, 20).weigh(counts)
        for r in range(5):
            rows = np.repeat(np.arange(len(y)), counts[study.patients, r])
            assert ranked.auroc()[r] == pytest.approx(metrics.roc_auc_score(y[rows], p[rows]), abs=1e-12)
            assert ranked.average_precision()[r] == pytest.approx(metrics.average_precision_score(y[rows], p[rows]), abs=1e-12)

    def test_heavy_weights_stay_exact(self) -> None:
        y, p = np.array([True, False, False]), np.array([0.5, 0.5, 0.2])
        counts = np.array([[1.0], [2**24 + 1], [2**24 + 1]])  # float32 has no 2**24 + 1
        ranked = RankedCases(Cases(y, p, 0), np.arange(3), 3).weigh(counts)
        assert ranked.negative[0] == 2 * (2**24 + 1)
        assert ranked.auroc()[0] == 0.75

    def test_a_draw_without_a_positive_is_undefined(self) -> None:
        ranked = RankedCases(Cases(np.array([True, False]), np.array([0.9, 0.1]), 0), np.arange(2), 2)
        weights = ranked.weigh(np.array([[0.0, 1.0], [2.0, 1.0]]))
        assert np.isnan(weights.auroc()).tolist() == [True, False]
        assert np.isnan(weights.average_precision()).tolist() == [True, False]


class TestStratifiedAuroc:
    def test_by_hand(self) -> None:
        y = np.array([1, 0, 0, 1, 1, 0, 1, np.nan])
        p = np.array([0.9, 0.2, 0.9, 0.1, 0.4, 0.3, 0.5, 0.6])
        bins = np.array([0, 0, 0, 1, 1, 1, 2, 0])
        # Bin 0: 0.9 above 0.2, and tied with 0.9: 1.5 of 2. Bin 1: 0.1 below and 0.4 above 0.3: 1 of 2. Bin 2 has no pair.
        assert stratified_auroc(y, p, bins).value == 2.5 / 4

    def test_one_stratum_is_the_auroc(self, small_cases: list) -> None:
        for y, p in small_cases[:50]:
            assert stratified_auroc(y, p, np.zeros(len(y))).value == auroc(y, p).value

    def test_the_stratum_itself_knows_nothing_within_strata(self) -> None:
        random = np.random.default_rng(3)
        bins = random.integers(0, 10, 500)
        y = (random.random(500) < 0.05 + 0.09 * bins).astype(float)
        p = 0.05 + 0.09 * bins
        assert auroc(y, p).value > 0.7
        assert stratified_auroc(y, p, bins).value == 0.5

    def test_strata_without_pairs(self) -> None:
        found = stratified_auroc(np.array([1, 0]), np.array([0.9, 0.1]), np.array(["low", "high"]))
        assert found.value is None
        assert "no stratum" in found.note

    def test_interval_over_patients(self, make_study) -> None:
        study = make_study(patients=60)
        y, p = study.labels[:, 0], study.probabilities[:, 0]
        bins = np.arange(len(y)) % 3
        found = stratified_auroc(y, p, bins, study.patients, replicates=400)
        assert found.low < found.value < found.high
        again = stratified_auroc(y[::-1], p[::-1], bins[::-1], study.patients[::-1], replicates=400)
        assert again == pytest.approx(found[:3] + found[3:])

    def test_a_draw_of_patients_weights_their_cases(self, make_study) -> None:
        study = make_study(patients=20)
        y, p, bins = study.labels[:, 0], study.probabilities[:, 0], np.arange(len(study.labels)) % 4
        counts = np.random.default_rng(5).integers(0, 3, (20, 4))
        drawn = stratified_ranks(y, p, bins, study.patients).auroc(counts)
        index = np.unique(study.patients, return_inverse=True)[1]
        for r in range(4):
            rows = np.repeat(np.arange(len(y)), counts[index, r])
            assert drawn[r] == pytest.approx(stratified_auroc(y[rows], p[rows], bins[rows]).value, abs=1e-12)

    def test_shapes(self) -> None:
        with pytest.raises(TableError, match="shapes_differ"):
            stratified_auroc(np.array([0, 1]), np.array([0.1, 0.2]), np.array([0]))


@pytest.mark.parametrize("figure", [auroc, average_precision])
class TestBadCases:
    def test_one_case_and_none(self, figure) -> None:
        assert figure(np.array([0]), np.array([0.3])).value is None
        assert figure(np.array([]), np.array([])).value is None
        assert figure(np.array([np.nan]), np.array([0.3])).value is None

    @pytest.mark.parametrize("probability", [-0.1, 1.1, np.nan, np.inf])
    def test_no_probability(self, figure, probability: float) -> None:
        with pytest.raises(TableError, match="bad_probability") as caught:
            figure(np.array([0, 1, 1]), np.array([0.1, probability, 0.2]))
        assert "1 rows: 1," in str(caught.value)

    def test_no_label(self, figure) -> None:
        with pytest.raises(TableError, match="bad_label"):
            figure(np.array([0, 2]), np.array([0.1, 0.2]))

    def test_shapes(self, figure) -> None:
        with pytest.raises(TableError, match="shapes_differ"):
            figure(np.array([0, 1]), np.array([0.1]))
