"""Brier, ECE, reliability and recalibration's line, against the shared vectors, scikit-learn and definitions."""

import numpy as np
import pytest
from sklearn import metrics
from sklearn.linear_model import LogisticRegression

from ich_lstm.errors import ConfigError
from ich_lstm.statistics import brier_score, calibration_line, expected_calibration_error, reliability


class TestBrier:
    def test_shared_vectors(self, two_models: dict) -> None:
        for name, expected in zip(("s1", "s2"), two_models["brier"], strict=True):
            assert brier_score(two_models["y"], two_models[name]).value == pytest.approx(expected, abs=5e-8)

    @pytest.mark.usefixtures("fast_sklearn")
    def test_against_scikit_learn(self, small_cases: list) -> None:
        for y, p in small_cases[:300]:
            assert brier_score(y, p).value == pytest.approx(metrics.brier_score_loss(y, p, labels=[0, 1]), abs=1e-12)

    def test_nothing_known(self) -> None:
        assert brier_score(np.array([]), np.array([])).value is None


class TestReliability:
    def test_shared_vectors(self, two_models: dict) -> None:
        for name, expected in zip(("s1", "s2"), two_models["ece_5_bins_left_closed"], strict=True):
            assert expected_calibration_error(two_models["y"], two_models[name], bins=5).value == pytest.approx(
                expected, abs=5e-8
            )

    @pytest.mark.parametrize("bins", [1, 5, 10, 15, 20, 100])
    def test_bins_are_closed_on_the_left(self, bins: int) -> None:
        edges = np.array([round(i / bins, 12) for i in range(bins)])  # as people write them: 0.3, not 0.30000000000000004
        if bins == 15:
            edges = np.arange(bins) / bins
        table = reliability(np.zeros(bins), edges, bins=bins)
        assert table["cases"].tolist() == [1] * bins

    def test_one_belongs_to_the_last_bin(self) -> None:
        assert reliability(np.array([1]), np.array([1.0]))["cases"].tolist() == [0] * 9 + [1]

    def test_by_definition(self, make_study) -> None:
        study = make_study(unknown=0.1)
        y, p = study.labels[:, 0], study.probabilities[:, 0]
        table = reliability(y, p)
        ece = 0.0
        for _, row in table.iterrows():
            inside = ~np.isnan(y) & (p >= row["low"]) & (p < row["high"])
            assert row["cases"] == inside.sum()
            assert row["mean_probability"] == pytest.approx(p[inside].mean())
            assert row["observed"] == pytest.approx(y[inside].mean())
            ece += inside.sum() / (~np.isnan(y)).sum() * abs(p[inside].mean() - y[inside].mean())
        assert expected_calibration_error(y, p).value == pytest.approx(ece, abs=1e-12)

    def test_no_bins(self) -> None:
        with pytest.raises(ConfigError, match="bins_out_of_range"):
            reliability(np.array([1]), np.array([1.0]), bins=0)


class TestCalibration:
    def test_shared_vectors(self, two_models: dict) -> None:
        got, expected = calibration_line(two_models["y"], two_models["s1"]), two_models["s1_calibration"]
        assert got.slope.value == pytest.approx(expected["slope"], abs=5e-8)
        assert got.intercept.value == pytest.approx(expected["intercept"], abs=5e-8)
        assert got.in_the_large.value == pytest.approx(expected["in_the_large"], abs=5e-7)

    def test_against_scikit_learn(self, make_study) -> None:
        study = make_study(patients=200)
        y, p = study.labels[:, 0], study.probabilities[:, 0]
        model = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(np.log(p / (1 - p))[:, None], y)
        got = calibration_line(y, p)
        assert got.slope.value == pytest.approx(model.coef_[0, 0], abs=1e-5)
        assert got.intercept.value == pytest.approx(model.intercept_[0], abs=1e-5)

    def test_in_the_large_makes_the_means_equal(self, make_study) -> None:
        study = make_study()
        y, p = study.labels[:, 0], study.probabilities[:, 0] ** 1.5
        shift = calibration_line(y, p).in_the_large.value
        assert (1 / (1 + np.exp(-np.log(p / (1 - p)) - shift))).mean() == pytest.approx(y.mean(), abs=1e-9)

    @pytest.mark.parametrize(
        ("y", "slope", "in_the_large"),
        [([0, 0, 1, 1], False, True), ([0, 0, 0, 0], False, False), ([1, 1, 1, 1], False, False), ([0, 1, 0, 1], True, True)],
    )
    def test_undefined_says_so(self, y: list[float], slope: bool, in_the_large: bool) -> None:
        got = calibration_line(np.array(y), np.array([0.1, 0.2, 0.6, 0.9]))
        assert (got.slope.value is not None, got.in_the_large.value is not None) == (slope, in_the_large)
        for estimate in got:
            assert (estimate.value is None) == bool(estimate.note)

    def test_certain_probabilities_are_finite(self) -> None:
        got = calibration_line(np.array([0, 1, 0, 1, 1, 0]), np.array([0.0, 1.0, 1.0, 0.0, 1.0, 0.0]))
        assert all(np.isfinite(estimate.value) for estimate in got)
