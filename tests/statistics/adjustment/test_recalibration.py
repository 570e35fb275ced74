"""Temperature and Platt scaling recover what was done to probabilities."""

import numpy as np
import pytest
from scipy import optimize

from ich_lstm.errors import TableError
from ich_lstm.statistics import calibration_line, fit_platt, fit_temperature, log_loss


def truth(n: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    logits = random.normal(-1, 2, n)
    return (random.random(n) < 1 / (1 + np.exp(-logits))).astype(float), logits


def test_a_temperature_is_recovered() -> None:
    y, logits = truth()
    overconfident = 1 / (1 + np.exp(-2.5 * logits))
    fitted = fit_temperature(y, overconfident)
    assert fitted.temperature == pytest.approx(2.5, rel=0.03)
    assert fitted.intercept == 0
    assert log_loss(y, fitted.apply(overconfident)).value < log_loss(y, overconfident).value


def test_platt_leaves_nothing_to_calibrate() -> None:
    y, logits = truth()
    off = 1 / (1 + np.exp(-(0.6 * logits + 0.8)))
    line = calibration_line(y, fit_platt(y, off).apply(off))
    assert line.slope.value == pytest.approx(1, abs=1e-3)
    assert line.in_the_large.value == pytest.approx(0, abs=1e-3)


def test_platt_against_an_optimizer() -> None:
    y, logits = truth(300)
    targets = np.where(y == 1, (y.sum() + 1) / (y.sum() + 2), 1 / ((1 - y).sum() + 2))

    def loss(line: np.ndarray) -> float:
        z = line[0] * logits + line[1]
        return float((np.logaddexp(0, z) - targets * z).sum())

    fitted = fit_platt(y, 1 / (1 + np.exp(-logits)))
    assert (fitted.slope, fitted.intercept) == pytest.approx(optimize.minimize(loss, [1.0, 0.0]).x, abs=1e-5)


@pytest.mark.parametrize("fit", [fit_temperature, fit_platt])
class TestBadCases:
    def test_separated_classes_stay_finite(self, fit) -> None:
        p = np.array([0.2, 0.3, 0.6, 0.9])
        corrected = fit(np.array([0, 0, 1, 1]), p).apply(p)
        assert (np.diff(corrected) > 0).all()
        assert ((corrected > 0) & (corrected < 1)).all()

    def test_one_class(self, fit) -> None:
        with pytest.raises(TableError, match="one_class"):
            fit(np.array([0, 0, np.nan]), np.array([0.1, 0.2, 0.3]))

    def test_upside_down(self, fit) -> None:
        with pytest.raises(TableError, match="probabilities_do_not_rank"):
            fit(np.array([1, 1, 0, 0]), np.array([0.1, 0.2, 0.8, 0.9]))
