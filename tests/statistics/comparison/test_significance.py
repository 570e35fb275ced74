"""Tests of differences, against the shared vectors and against codings straight from the papers."""

import itertools

import numpy as np
import pytest
from scipy import stats

from ich_lstm.statistics import auroc, compare_auroc, mcnemar
from ich_lstm.statistics.comparison.significance import auroc_covariance, exact_mcnemar


def obuchowski(y: np.ndarray, p: np.ndarray, patients: np.ndarray) -> np.ndarray:
    """Covariance after Obuchowski 1997, equations 2 to 5, pair by pair."""
    present, absent = np.flatnonzero(y == 1), np.flatnonzero(y == 0)
    ids, models = np.unique(patients), p.shape[1]

    def psi(r: int, i: int, j: int) -> float:
        return float(p[i, r] > p[j, r]) + 0.5 * float(p[i, r] == p[j, r])

    v10 = {(r, i): np.mean([psi(r, i, j) for j in absent]) for r in range(models) for i in present}
    v01 = {(r, j): np.mean([psi(r, i, j) for i in present]) for r in range(models) for j in absent}
    theta = [np.mean([v10[r, i] for i in present]) for r in range(models)]
    m = {c: sum(patients[i] == c for i in present) for c in ids}
    n = {c: sum(patients[j] == c for j in absent) for c in ids}
    a = {(r, c): sum(v10[r, i] for i in present if patients[i] == c) - m[c] * theta[r] for r in range(models) for c in ids}
    b = {(r, c): sum(v01[r, j] for j in absent if patients[j] == c) - n[c] * theta[r] for r in range(models) for c in ids}
    i10, i01, i = sum(v > 0 for v in m.values()), sum(v > 0 for v in n.values()), len(ids)
    big_m, big_n = len(present), len(absent)
    covariance = np.empty((models, models))
    for r, s in itertools.product(range(models), repeat=2):
        s10 = i10 / ((i10 - 1) * big_m) * sum(a[r, c] * a[s, c] for c in ids)
        s01 = i01 / ((i01 - 1) * big_n) * sum(b[r, c] * b[s, c] for c in ids)
        s11, s11_other = (i / (i - 1) * sum(a[u, c] * b[v, c] for c in ids) for u, v in ((r, s), (s, r)))
        covariance[r, s] = s10 / big_m + s01 / big_n + (s11 + s11_other) / (big_m * big_n)
    return covariance


class TestAuroc:
    def test_shared_vectors(self, two_models: dict) -> None:
        expected = two_models["delong"]
        p = np.stack([two_models["s1"], two_models["s2"]], axis=1)
        covariance = auroc_covariance(two_models["y"], p).covariance
        np.testing.assert_allclose(np.diag(covariance), expected["variance"], rtol=0, atol=5e-9)
        assert covariance[0, 1] == pytest.approx(expected["covariance"], abs=5e-9)
        got = compare_auroc(two_models["y"], two_models["s1"], two_models["s2"])
        assert got.statistic == pytest.approx(expected["z"], abs=5e-6)
        assert got.p_value == pytest.approx(expected["p"], abs=5e-8)
        assert got.method == "DeLong"

    @pytest.mark.parametrize("seed", range(5))
    def test_clusters_against_the_paper(self, make_study, seed: int) -> None:
        study = make_study(patients=9, slices=5, ties=10, seed=seed, unknown=0.1)
        p = np.hstack([study.probabilities, np.round(np.random.default_rng(seed).random((45, 1)), 1)])
        y = study.labels[:, 0]
        known = ~np.isnan(y)
        got = auroc_covariance(y, p, study.patients)
        assert got.method == "Obuchowski"
        np.testing.assert_allclose(got.covariance, obuchowski(y[known], p[known], study.patients[known]), atol=1e-14)

    def test_areas_are_those_of_the_figures_to_the_last_digit(self, make_study) -> None:
        study = make_study(patients=30, slices=7, ties=10, unknown=0.1)
        y, p = study.labels[:, 0], study.probabilities[:, :1]
        assert auroc_covariance(y, p, study.patients).values[0] == auroc(y, p[:, 0]).value

    def test_one_case_per_patient_is_delong(self, make_study) -> None:
        study = make_study(patients=80, slices=1)
        p = np.hstack([study.probabilities, study.probabilities[::-1]])
        delong, clustered = (auroc_covariance(study.labels[:, 0], p, patients) for patients in (None, study.patients))
        np.testing.assert_allclose(delong.covariance, clustered.covariance, atol=1e-16)

    def test_repeated_slices_say_nothing_new(self, make_study) -> None:
        study = make_study(patients=40)
        first, second = study.probabilities[:, 0], study.probabilities[::-1, 0]
        once = compare_auroc(study.labels[:, 0], first, second, study.patients)
        thrice = compare_auroc(*(np.repeat(part, 3) for part in (study.labels[:, 0], first, second, study.patients)))
        assert once.p_value == pytest.approx(thrice.p_value)
        assert once.first[1:3] == pytest.approx(thrice.first[1:3])

    def test_under_the_null_p_is_uniform(self, make_study) -> None:
        p_values = []
        for seed in range(150):
            study = make_study(patients=60, slices=5, seed=seed)
            noise = np.random.default_rng(seed).normal(0, 0.05, (2, len(study.patients)))
            first, second = np.clip(study.probabilities[:, 0] + noise, 0, 1)
            p_values.append(compare_auroc(study.labels[:, 0], first, second, study.patients).p_value)
        assert stats.kstest(p_values, "uniform").pvalue > 0.01

    @pytest.mark.parametrize("y", [[0, 0, 0, 0], [np.nan] * 4, [1, 0, 0, 0]])
    def test_undefined_says_so(self, y: list[float]) -> None:
        got = compare_auroc(np.array(y), np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.4, 0.2, 0.3, 0.1]))
        assert got.p_value is None
        assert got.note
        assert got.difference.low is None

    def test_the_same_model_twice(self, two_models: dict) -> None:
        got = compare_auroc(two_models["y"], two_models["s1"], two_models["s1"])
        assert (got.difference.value, got.p_value) == (0, None)
        assert got.note


class TestMcNemar:
    def test_shared_vectors(self, vectors: dict) -> None:
        case = vectors["mcnemar_exact"]
        assert exact_mcnemar(case["b"], case["c"]) == pytest.approx(case["p"], abs=5e-8)
        first = np.repeat([1, 0, 1, 0], [case["b"], case["c"], 7, 3])
        second = np.repeat([0, 1, 1, 0], [case["b"], case["c"], 7, 3])
        got = mcnemar(first, second)
        assert got.p_value == pytest.approx(case["p"], abs=5e-8)
        assert got.difference.value == pytest.approx(7 / 21)

    def test_exact_against_scipy(self) -> None:
        for b, c in itertools.product(range(12), repeat=2):
            expected = stats.binomtest(b, b + c).pvalue if b + c else 1
            assert exact_mcnemar(b, c) == pytest.approx(expected)

    def test_clusters_against_the_paper(self) -> None:
        random = np.random.default_rng(0)
        patients = random.integers(0, 12, 90)
        first, second = random.integers(0, 2, (2, 90)).astype(float)
        numerator = denominator = 0.0
        for patient in np.unique(patients):
            own = patients == patient
            b = sum((first[own] == 1) & (second[own] == 0))
            c = sum((first[own] == 0) & (second[own] == 1))
            numerator += (b - c) / own.sum()
            denominator += ((b - c) / own.sum()) ** 2
        got = mcnemar(first, second, patients)
        assert got.statistic == pytest.approx(numerator**2 / denominator)
        assert got.p_value == pytest.approx(stats.chi2.sf(numerator**2 / denominator, 1))

    def test_unknown_cases_are_counted(self) -> None:
        got = mcnemar(np.array([1, np.nan, 0, 1]), np.array([0, 1, np.nan, 1]), ["a", "b", "c", "d"])
        assert "2 cases" in got.note
        assert got.first.value == 1

    def test_nothing_to_compare(self) -> None:
        assert mcnemar(np.array([np.nan]), np.array([1])).first.value is None
        alike = mcnemar(np.array([1, 0]), np.array([1, 0]), ["a", "b"])
        assert alike.p_value is None
        assert alike.note
