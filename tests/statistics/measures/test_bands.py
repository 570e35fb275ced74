"""Curves with bands: the curves are those of the single functions, and bands surround them."""

import numpy as np
import pytest
from sklearn import metrics

from ich_lstm.statistics import curve_bands, reliability, smoothed_calibration


@pytest.mark.parametrize("ties", [12, None])
def test_curves(make_study, ties: int | None) -> None:
    study = make_study(ties=ties, unknown=0.1)
    y, p = study.labels[:, 0], study.probabilities[:, 0]
    known = ~np.isnan(y)
    bands = curve_bands(y, p, study.patients, points=21, replicates=100)
    x, height, _ = metrics.roc_curve(y[known], p[known], drop_intermediate=False)
    np.testing.assert_allclose(bands.roc["value"], np.interp(bands.roc["x"], x, height), atol=1e-12)
    precision, recall, _ = metrics.precision_recall_curve(y[known], p[known])
    for at, value in zip(bands.precision_recall["x"], bands.precision_recall["value"], strict=True):
        reached = np.flatnonzero((recall >= at - 1e-12) & (recall > 0)).max()  # thresholds rise, recall falls
        assert value == pytest.approx(precision[reached])
    table = reliability(y, p).dropna()
    np.testing.assert_allclose(bands.reliability[["x", "value", "cases"]], table[["mean_probability", "observed", "cases"]])
    smooth = smoothed_calibration(y, p, points=21)
    np.testing.assert_allclose(bands.smoothed[["x", "value"]], np.stack(smooth[:2], axis=1), atol=1e-12)
    for band in bands[:4]:
        assert (band["low"] <= band["high"]).all()
        assert ((band["low"] <= band["value"]) & (band["value"] <= band["high"])).mean() > 0.9


def test_one_class() -> None:
    bands = curve_bands(np.zeros(4), np.array([0.1, 0.2, 0.3, 0.4]), range(4), replicates=100)
    assert all(len(band) == 0 for band in bands[:4])
    assert "need both" in bands.note
