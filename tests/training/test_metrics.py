"""The metrics, against the shared vectors and scikit-learn."""

import numpy as np
import pytest
import torch
from metric_vectors import VECTORS
from sklearn.metrics import log_loss, roc_auc_score
from torchmetrics import MetricCollection

from ich_lstm import LABELS
from ich_lstm.training.metrics import LabelAUROC, WeightedLogLoss

ANY_FIRST = ("any", "epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
COLUMNS = [ANY_FIRST.index(label) for label in LABELS]


@pytest.fixture(scope="module")
def vectors() -> dict:
    return VECTORS


def draw(rows: int = 300, unknown: float = 0.2) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities with many ties, and labels, some of them unknown."""
    random = np.random.default_rng(0)
    labels = (random.random((rows, 6)) < 0.3).astype(np.float32)
    labels[random.random((rows, 6)) < unknown] = np.nan
    return torch.tensor(random.integers(1, 20, (rows, 6)) / 20), torch.tensor(labels)


def of(metric, probabilities: torch.Tensor, labels: torch.Tensor) -> np.ndarray:
    metric.update(probabilities, labels)
    return metric.compute().numpy()


class TestWeightedLogLoss:
    def test_shared_vectors(self, vectors: dict) -> None:
        names = []
        for case in vectors["weighted_log_loss"]:
            p, y = (torch.tensor(case[key], dtype=torch.float64)[:, COLUMNS] for key in "py")
            loss = float(of(WeightedLogLoss(), p, y))
            if "loss" in case:
                assert loss == pytest.approx(case["loss"], abs=1e-12), case["name"]
            else:
                assert 0 <= loss < case["loss_below"], case["name"]
            names.append(case["name"])
        assert names == list("ABCDEF")

    def test_from_logits_as_from_probabilities(self, vectors: dict) -> None:
        for case in vectors["weighted_log_loss"][:2]:
            p, y = (torch.tensor(case[key], dtype=torch.float64)[:, COLUMNS] for key in "py")
            assert float(of(WeightedLogLoss(), torch.sigmoid(torch.logit(p)), y)) == pytest.approx(case["loss"], abs=1e-12)

    def test_equals_scikit_learn(self) -> None:
        p, y = draw()
        weights = np.broadcast_to([1.0, 1, 1, 1, 1, 2], y.shape)[~y.isnan()]
        expected = log_loss(y[~y.isnan()], p[~y.isnan()], sample_weight=weights, labels=[0, 1])
        assert float(of(WeightedLogLoss(), p, y)) == pytest.approx(expected, abs=1e-12)

    def test_no_known_label(self) -> None:
        assert np.isnan(of(WeightedLogLoss(), torch.full((3, 6), 0.5), torch.full((3, 6), torch.nan)))

    def test_labels_known_only_as_present_can_be_left_out(self) -> None:
        p, y = draw()
        y[:, -1] = torch.where(y[:, -1] == 0, torch.nan, y[:, -1])
        without = y.clone()
        without[:, -1] = torch.nan
        assert float(of(WeightedLogLoss(needs_absent=True), p, y)) == float(of(WeightedLogLoss(), p, without))
        assert float(of(WeightedLogLoss(), p, y)) != float(of(WeightedLogLoss(), p, without))
        assert np.isnan(of(WeightedLogLoss(needs_absent=True), p, torch.ones_like(y)))


class TestLabelAUROC:
    def test_equals_scikit_learn_with_ties_and_unknown_labels(self) -> None:
        p, y = draw()
        got = of(LabelAUROC(), p, y)
        expected = [roc_auc_score(y[~y[:, k].isnan(), k], p[~y[:, k].isnan(), k]) for k in range(6)]
        assert got.dtype == np.float64
        np.testing.assert_allclose(got, expected, rtol=0, atol=1e-12)

    def test_shared_vectors(self, vectors: dict) -> None:
        models = vectors["two_models"]
        y = torch.tensor(models["y"], dtype=torch.float64)[:, None].expand(-1, 6)
        for name, expected in zip(("s1", "s2"), models["auroc"], strict=True):
            p = torch.tensor(models[name], dtype=torch.float64)[:, None].expand(-1, 6)
            np.testing.assert_allclose(of(LabelAUROC(), p, y), expected, atol=1e-7)

    def test_nan_for_one_class(self) -> None:
        p, y = draw(unknown=0)
        y[:, 0], y[:, 1], y[:, 2] = 0, 1, torch.nan
        assert np.isnan(of(LabelAUROC(), p, y)).tolist() == [True] * 3 + [False] * 3

    def test_probabilities_that_float32_could_not_tell_apart(self) -> None:
        p = 1 - torch.arange(1, 5, dtype=torch.float64)[:, None].expand(-1, 6) * 1e-12
        y = torch.tensor([1.0, 0, 1, 0])[:, None].expand(-1, 6)
        np.testing.assert_allclose(of(LabelAUROC(), p, y), 0.75)

    def test_all_equal_is_a_coin(self) -> None:
        y = torch.tensor([1.0, 0, 0])[:, None].expand(-1, 6)
        np.testing.assert_array_equal(of(LabelAUROC(), torch.full((3, 6), 0.3), y), 0.5)


@pytest.mark.parametrize("kind", [WeightedLogLoss, LabelAUROC])
class TestEveryMetric:
    def test_several_updates_are_one(self, kind: type) -> None:
        p, y = draw()
        whole = of(kind(), p, y)
        parts = kind()
        for rows in torch.randperm(len(p), generator=torch.Generator().manual_seed(0)).split(37):
            parts.update(p[rows], y[rows])
        parts.update(p[:0], y[:0])  # a process without work
        np.testing.assert_allclose(parts.compute().numpy(), whole, rtol=0, atol=1e-12)

    def test_reset_forgets(self, kind: type) -> None:
        p, y = draw()
        metric = kind()
        metric.update(1 - p, y)
        metric.reset()
        np.testing.assert_array_equal(of(metric, p, y), of(kind(), p, y))

    def test_does_not_hold_on_to_the_graph(self, kind: type) -> None:
        p, y = draw()
        metric = kind()
        metric.update(p.requires_grad_(), y)
        assert not metric.compute().requires_grad

    def test_in_a_collection(self, kind: type) -> None:
        p, y = draw()
        metrics = MetricCollection({"a": kind()}, compute_groups=False)
        metrics.update(p, y)
        assert metrics.compute()["a"].dtype == torch.float64
