"""Logistic fits, against a general optimizer."""

import numpy as np
import pytest
from scipy import optimize

from ich_lstm.statistics.logistic import GRID, fit_logistic, group_cells


def optimum(x: np.ndarray, y: np.ndarray, n: np.ndarray, free: tuple[bool, bool], held: tuple[float, float]) -> np.ndarray:
    def loss(free_values: np.ndarray) -> float:
        values = np.array(held, dtype=float)
        values[list(free)] = free_values
        z = values[0] + values[1] * x
        return float((n * np.logaddexp(0, z) - y * z).sum())

    best = np.array(held, dtype=float)
    best[list(free)] = optimize.minimize(loss, best[list(free)], method="BFGS", options={"gtol": 1e-9}).x
    return best


@pytest.mark.parametrize("held", [{}, {"slope": 1.0}, {"intercept": 0.0}])
def test_against_an_optimizer(held: dict[str, float]) -> None:
    random = np.random.default_rng(0)
    x = np.sort(random.normal(0, 2, 30))
    n = random.integers(1, 9, (30, 12)).astype(float)
    y = random.binomial(n.astype(int), (1 / (1 + np.exp(-0.4 - 0.8 * x)))[:, None]).astype(float)
    got = np.stack(fit_logistic(x, y, n, **held))
    free = ("intercept" not in held, "slope" not in held)
    start = (held.get("intercept", 0.0), held.get("slope", 1.0))
    expected = np.stack([optimum(x, y[:, r], n[:, r], free, start) for r in range(12)], axis=1)
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_far_away_values_do_not_throw_it_off() -> None:
    x = np.array([-34.5, -2, -1, 0, 1, 34.5])
    y, n = np.array([[1.0], [0], [1], [0], [2], [1]]), np.array([[3.0], [2], [2], [2], [3], [2]])
    got = np.stack(fit_logistic(x, y, n))[:, 0]
    np.testing.assert_allclose(got, optimum(x, y[:, 0], n[:, 0], (True, True), (0, 0.1)), atol=1e-4)


@pytest.mark.parametrize("y", [[0, 0, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [0, 1, 1, 1]])
def test_no_maximum(y: list[float]) -> None:
    """Separated, upside down, or of one class: said so, in each column by itself."""
    fine = np.array([0, 1, 0, 1.0])
    a, b = fit_logistic(np.arange(4.0), np.stack([np.array(y, dtype=float), fine], axis=1), np.ones((4, 2)))
    assert np.isnan([a[0], b[0]]).all()
    assert np.isfinite([a[1], b[1]]).all()


def test_cells_keep_the_mean_and_every_case() -> None:
    x = np.random.default_rng(0).normal(size=20_000)
    values, cell = group_cells(x)
    assert len(values) <= GRID
    np.testing.assert_allclose((values[cell]).mean(), x.mean())
    assert np.abs(values[cell] - x).max() <= np.ptp(x) / GRID
    few = np.array([3.0, 1, 3, 2])
    values, cell = group_cells(few)
    np.testing.assert_array_equal(values[cell], few)
