"""The smoothed calibration curve, against a plain coding of local lines and against known truths."""

import numpy as np
import pytest

from ich_lstm.errors import ConfigError
from ich_lstm.statistics import smoothed_calibration


def local_line(p: np.ndarray, y: np.ndarray, at: float, span: float) -> float:
    """One point, case by case."""
    logit = np.log(p / (1 - p))
    distance = np.abs(logit - np.log(at / (1 - at)))
    reach = np.sort(distance)[int(np.ceil(span * len(p))) - 1] * (1 + 1e-6)
    weight = (1 - np.minimum(distance / reach, 1) ** 3) ** 3
    design = np.column_stack([np.ones(len(p)), p - at]) * np.sqrt(weight)[:, None]
    return float(np.clip(np.linalg.lstsq(design, y * np.sqrt(weight), rcond=None)[0][0], 0, 1))


def test_against_a_plain_coding(make_study) -> None:
    study = make_study(patients=50)  # 400 distinct probabilities: exact
    y, p = study.labels[:, 0], study.probabilities[:, 0]
    curve = smoothed_calibration(y, p, points=9, span=0.4)
    np.testing.assert_allclose(curve.observed, [local_line(p, y, at, 0.4) for at in curve.probability], atol=1e-8)


@pytest.mark.parametrize("power", [1.0, 1.6])
def test_finds_the_truth(power: float) -> None:
    random = np.random.default_rng(0)
    p = 1 / (1 + np.exp(-random.normal(-2, 2, 100_000)))
    y = (random.random(len(p)) < p**power).astype(float)
    curve = smoothed_calibration(y, p, span=0.2)
    np.testing.assert_allclose(curve.observed, curve.probability**power, atol=0.02)
    if power == 1:
        assert np.abs(curve.observed[:20] / curve.probability[:20] - 1).max() < 0.6  # rare ones too, near 0.001


@pytest.mark.parametrize("p", [[0.3, 0.3, 0.3], [0.0, 0.0, 1.0], [0.2]])
def test_few_distinct_probabilities(p: list[float]) -> None:
    curve = smoothed_calibration(np.array([0, 1, 1])[: len(p)], np.array(p))
    assert ((curve.observed >= 0) & (curve.observed <= 1)).all()


def test_nothing_known() -> None:
    assert smoothed_calibration(np.array([np.nan]), np.array([0.5])).note


@pytest.mark.parametrize("settings", [{"span": 0.0}, {"span": 1.1}, {"points": 1}])
def test_settings_out_of_range(settings: dict) -> None:
    with pytest.raises(ConfigError, match="smoothing_out_of_range"):
        smoothed_calibration(np.array([0, 1]), np.array([0.2, 0.5]), **settings)
