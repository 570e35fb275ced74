"""Log loss, against the shared vectors and scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from ich_lstm import LABELS
from ich_lstm.errors import ConfigError
from ich_lstm.labels import LABEL_WEIGHTS
from ich_lstm.statistics import log_loss, weighted_log_loss

ANY_FIRST = ("any", "epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
COLUMNS = [ANY_FIRST.index(label) for label in LABELS]


class TestWeightedLogLoss:
    def test_shared_vectors(self, vectors: dict) -> None:
        names = []
        for case in vectors["weighted_log_loss"]:
            y, p = (np.array(case[key], dtype=float)[:, COLUMNS] for key in "yp")
            loss = weighted_log_loss(y, p).value
            if "loss" in case:
                assert loss == pytest.approx(case["loss"], abs=1e-12), case["name"]
            else:
                assert 0 <= loss < case["loss_below"], case["name"]
            for i, row in enumerate(case.get("rows", [])):
                assert weighted_log_loss(y[i : i + 1], p[i : i + 1]).value == pytest.approx(row, abs=5e-13)
            if "unweighted" in case:
                assert weighted_log_loss(y, p, weights=[1] * 6).value == pytest.approx(case["unweighted"], abs=1e-12)
            names.append(case["name"])
        assert names == list("ABCDEF")

    @pytest.mark.usefixtures("fast_sklearn")
    def test_against_scikit_learn(self) -> None:
        random = np.random.default_rng(0)
        for _ in range(200):
            y = random.integers(0, 2, (random.integers(1, 20), 6)).astype(float)
            p = random.random(y.shape)
            y[random.random(y.shape) < 0.1] = np.nan
            known = ~np.isnan(y)
            weights = np.broadcast_to(LABEL_WEIGHTS, y.shape)[known]
            expected = metrics.log_loss(y[known], p[known], sample_weight=weights, labels=[0, 1])
            assert weighted_log_loss(y, p).value == pytest.approx(expected, abs=1e-12)

    def test_no_known_label(self) -> None:
        assert "no known label" in str(weighted_log_loss(np.full((2, 6), np.nan), np.full((2, 6), 0.5)))

    def test_weights_that_do_not_fit(self) -> None:
        with pytest.raises(ConfigError, match="weights_do_not_fit"):
            weighted_log_loss(np.zeros((2, 3)), np.full((2, 3), 0.5))


class TestLogLoss:
    @pytest.mark.usefixtures("fast_sklearn")
    def test_against_scikit_learn(self, small_cases: list) -> None:
        for y, p in small_cases[:400]:
            inside = np.clip(p, 1e-15, 1 - 1e-15)
            assert log_loss(y, p).value == pytest.approx(metrics.log_loss(y, inside, labels=[0, 1]), abs=1e-12)

    def test_nothing_known(self) -> None:
        assert log_loss(np.array([np.nan]), np.array([0.5])).value is None
