"""The patient bootstrap: its draws, and the intervals made of them."""

import numpy as np
import pytest
from scipy import stats

from ich_lstm.errors import ConfigError
from ich_lstm.statistics import clopper_pearson
from ich_lstm.statistics.bootstrap import EXACT_ON_PATIENTS, METHOD, PatientBootstrap, bootstrap_interval


class TestPatientBootstrap:
    def test_draws_as_many_patients_as_there_are(self) -> None:
        counts = PatientBootstrap(50).counts(0, 300)
        assert counts.shape == (50, 300)
        np.testing.assert_array_equal(counts.sum(axis=0), 50)
        assert counts.mean(axis=1) == pytest.approx(np.ones(50), abs=0.3)
        assert counts.var() == pytest.approx(1, abs=0.1)  # of a multinomial

    def test_strata_keep_their_size(self) -> None:
        strata = np.arange(50) < 7
        counts = PatientBootstrap(50).counts(0, 100, strata)
        np.testing.assert_array_equal(counts[strata].sum(axis=0), 7)
        np.testing.assert_array_equal(counts[~strata].sum(axis=0), 43)

    def test_one_stratum_may_be_empty(self) -> None:
        np.testing.assert_array_equal(PatientBootstrap(5).counts(0, 3, np.ones(5, dtype=bool)).sum(axis=0), 5)

    def test_a_replicate_does_not_depend_on_how_they_are_shared_out(self) -> None:
        whole = PatientBootstrap(20, seed=4).counts(0, 40)
        np.testing.assert_array_equal(whole[:, 17:23], PatientBootstrap(20, seed=4).counts(17, 23))
        assert (whole != PatientBootstrap(20, seed=5).counts(0, 40)).any()

    def test_threads_and_width_change_nothing(self) -> None:
        def figures(counts: np.ndarray) -> np.ndarray:
            return np.stack([counts[0], counts[3] * 2])

        runs = [
            PatientBootstrap(9, replicates=150, workers=workers).replicate(figures, cases=cases)
            for workers, cases in ((1, 1), (2, 10**9), (3, 10**5))
        ]
        assert runs[0].shape == (2, 150)
        for run in runs[1:]:
            np.testing.assert_array_equal(run, runs[0])

    def test_global_randomness_is_left_alone(self) -> None:
        np.random.seed(3)  # noqa: NPY002
        before = np.random.get_state()[1].copy()  # noqa: NPY002
        PatientBootstrap(9).counts(0, 10)
        np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002

    @pytest.mark.parametrize("settings", [{"replicates": 10}, {"workers": 0}])
    def test_settings_out_of_range(self, settings: dict) -> None:
        with pytest.raises(ConfigError, match="bootstrap_out_of_range"):
            PatientBootstrap(5, **settings)


class TestBootstrapInterval:
    def test_a_proportion_of_independent_cases_gets_clopper_and_pearsons(self) -> None:
        """One case per patient: the effective number of cases is their number."""
        drawn = np.random.default_rng(0).binomial(400, 0.9, 200_000) / 400
        got = bootstrap_interval(0.9, drawn, scale="proportion", patients=400, binomial=True)
        assert got.method == METHOD
        assert got[1:3] == pytest.approx(clopper_pearson(360, 400), abs=1e-3)

    def test_a_normal_figure_gets_students_interval(self) -> None:
        drawn = np.random.default_rng(0).normal(0.3, 0.1, 200_000)
        half = 0.1 * np.sqrt(40 / 39) * stats.t.ppf(0.975, 39)
        got = bootstrap_interval(0.3, drawn, scale="percentile", patients=40)
        assert got[1:3] == pytest.approx((0.3 - half, 0.3 + half), abs=2e-3)

    @pytest.mark.parametrize(("scale", "value"), [("logit", 0.97), ("log", 0.05), ("proportion", 0.97)])
    def test_limits_stay_on_the_scale_and_around_the_value(self, scale, value: float) -> None:
        drawn = np.clip(np.random.default_rng(0).normal(value, 0.04, 1000), 0, 1)
        got = bootstrap_interval(value, drawn, scale=scale, patients=40)
        assert 0 <= got.low < value < got.high
        assert scale == "log" or got.high <= 1

    def test_a_figure_at_its_end_reaches_it(self) -> None:
        drawn = np.array([1.0] * 900 + [0.98] * 100)
        got = bootstrap_interval(1.0, drawn, scale="logit", patients=40)
        assert 0.9 < got.low < 1
        assert got.high == 1

    def test_wider_with_fewer_patients(self) -> None:
        drawn = np.random.default_rng(0).normal(0.8, 0.02, 1000)
        few, many = (bootstrap_interval(0.8, drawn, scale="logit", patients=n) for n in (12, 500))
        assert few.low < many.low < many.high < few.high
        assert "12 patients" in few.note
        assert many.note == ""

    def test_resamples_that_agree_fall_back_on_patients(self) -> None:
        got = bootstrap_interval(1.0, np.ones(200), scale="proportion", patients=45, binomial=True)
        assert (got.low, got.high, got.method) == (*clopper_pearson(45, 45), EXACT_ON_PATIENTS)

    def test_resamples_that_agree_on_something_else(self) -> None:
        got = bootstrap_interval(1.0, np.ones(200), scale="logit", patients=45)
        assert got.low is None
        assert "agree" in got.note

    def test_undefined_resamples_are_counted(self) -> None:
        drawn = np.random.default_rng(0).normal(0.8, 0.02, 1000)
        drawn[:30] = np.nan
        got = bootstrap_interval(0.8, drawn, scale="logit", patients=100)
        assert "30 of 1000" in got.note
        assert got.low is not None
        drawn[:700] = np.nan
        assert bootstrap_interval(0.8, drawn, scale="logit", patients=100).low is None

    def test_one_patient(self) -> None:
        got = bootstrap_interval(0.8, np.full(100, 0.8), scale="logit", patients=1)
        assert got.low is None
        assert "fewer than 2 patients" in got.note
