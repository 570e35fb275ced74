"""Probabilities moved to another prevalence, known or estimated."""

import numpy as np
import pytest

from ich_lstm.errors import ConfigError
from ich_lstm.statistics import estimate_prevalence, shift_prevalence

TRAINED = 0.41


def site(share: float, n: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Labels at a site, and a model's probabilities that are calibrated at `TRAINED`."""
    random = np.random.default_rng(seed)
    y = (random.random(n) < share).astype(float)
    x = random.normal(1.8 * y, 1)
    odds = TRAINED / (1 - TRAINED) * np.exp(1.8 * x - 1.8**2 / 2)
    return y, odds / (1 + odds)


def test_shifted_probabilities_are_calibrated_at_the_site() -> None:
    y, p = site(0.07)
    moved = shift_prevalence(p, TRAINED, 0.07)
    assert moved.mean() == pytest.approx(y.mean(), abs=0.005)
    assert p.mean() > 2 * y.mean()
    np.testing.assert_allclose(shift_prevalence(moved, 0.07, TRAINED), p, atol=1e-12)
    np.testing.assert_array_equal(shift_prevalence(np.array([0.0, 1.0]), TRAINED, 0.07), [0, 1])


@pytest.mark.parametrize("share", [0.05, 0.1, 0.6])
def test_the_share_is_recovered_without_labels(share: float) -> None:
    _, p = site(share)
    got = estimate_prevalence(p, TRAINED, replicates=100)
    assert got.low < share < got.high
    assert got.high - got.low < 0.03
    assert "assumes" in got.note


def test_ends_where_em_ends() -> None:
    """Saerens' iteration, as printed."""
    _, p = site(0.1, 300)
    share = TRAINED
    for _ in range(5000):
        share = float(shift_prevalence(p, TRAINED, share).mean())
    assert estimate_prevalence(p, TRAINED, replicates=100).value == pytest.approx(share, abs=1e-9)


def test_patients_make_the_interval_wider() -> None:
    _, p = site(0.1, 200)
    slices, patients = np.repeat(p, 10), np.repeat(np.arange(200), 10)
    alone, clustered = (estimate_prevalence(slices, TRAINED, who, replicates=100) for who in (None, patients))
    assert alone.value == pytest.approx(clustered.value)
    assert clustered.high - clustered.low > 2 * (alone.high - alone.low)


@pytest.mark.parametrize("p", [[], [0.3], [0.3, 0.3]])
def test_undefined_says_so(p: list[float]) -> None:
    got = estimate_prevalence(np.array(p), TRAINED)
    assert got.value is None
    assert got.note


@pytest.mark.parametrize(("trained", "share"), [(0.0, 0.1), (0.4, 1.0), (0.4, np.nan)])
def test_shares_out_of_range(trained: float, share: float) -> None:
    with pytest.raises(ConfigError, match="prevalence_out_of_range"):
        shift_prevalence(np.array([0.5]), trained, share)
