"""Kappa, against the shared vectors, scikit-learn and a known truth."""

import numpy as np
import pytest
from sklearn import metrics

from ich_lstm.errors import TableError
from ich_lstm.statistics import cohen_kappa, fleiss_kappa

FEW = {"replicates": 100}


@pytest.mark.usefixtures("fast_sklearn")
def test_cohen_against_scikit_learn() -> None:
    random = np.random.default_rng(0)
    for _ in range(60):
        first, second = random.integers(0, random.integers(2, 5), (2, random.integers(3, 40))).astype(float)
        got = cohen_kappa(first, second, **FEW)
        if len(np.unique([first, second])) == 1:
            assert got.value is None
        else:
            assert got.value == pytest.approx(metrics.cohen_kappa_score(first, second), abs=1e-12)


def test_fleiss_shared_vectors(vectors: dict) -> None:
    case = vectors["fleiss_kappa"]
    assert fleiss_kappa(np.array(case["counts"])).value == pytest.approx(case["kappa"], abs=5e-8)


def test_intervals_cover_a_known_kappa() -> None:
    """Two readers who copy the truth (half 1) with probability 0.6 and else toss a coin: kappa = 0.36."""
    random = np.random.default_rng(0)
    covered = []
    for seed in range(60):
        truth = random.integers(0, 2, 150)
        marks = [np.where(random.random(150) < 0.6, truth, random.integers(0, 2, 150)) for _ in range(2)]
        counts = np.stack([2 - sum(marks), sum(marks)], axis=1)
        for estimate in (cohen_kappa(*marks, seed=seed, **FEW), fleiss_kappa(counts, seed=seed, **FEW)):
            covered.append(estimate.low <= 0.36 <= estimate.high)
    assert 0.85 <= np.mean(covered) <= 1


def test_patients_make_the_interval_wider() -> None:
    random = np.random.default_rng(0)
    first = np.repeat(random.integers(0, 2, 30), 10)
    second = np.where(np.repeat(random.random(30) < 0.3, 10), 1 - first, first)
    alone, clustered = cohen_kappa(first, second, **FEW), cohen_kappa(first, second, np.repeat(np.arange(30), 10), **FEW)
    assert clustered.high - clustered.low > 2 * (alone.high - alone.low)


def test_unknown_marks_are_counted() -> None:
    got = cohen_kappa(np.array([0, 1, 1, np.nan, 0]), np.array([0, 1, 0, 1, np.nan]), **FEW)
    assert "2 cases excluded" in got.note
    assert got.value == pytest.approx(metrics.cohen_kappa_score([0, 1, 1], [0, 1, 0]))


def test_undefined_says_so() -> None:
    for estimate in (
        cohen_kappa(np.zeros(5), np.zeros(5)),
        cohen_kappa(np.array([np.nan]), np.array([1.0])),
        fleiss_kappa(np.array([[3, 0], [3, 0]])),
        fleiss_kappa(np.empty((0, 2))),
    ):
        assert estimate.value is None
        assert estimate.note


@pytest.mark.parametrize("counts", [[[3, 0], [1, 1]], [[1, 0], [0, 1]], [[-1, 4], [3, 0]], [[np.nan, 3], [3, 0]]])
def test_readers_differ(counts: list) -> None:
    with pytest.raises(TableError, match="readers_differ"):
        fleiss_kappa(np.array(counts))
