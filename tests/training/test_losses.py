"""The training loss."""

import numpy as np
import pytest
import torch
from metric_vectors import VECTORS

from ich_lstm import LABELS
from ich_lstm.training.losses import weighted_log_loss_with_logits, weighted_loss_sums

ANY_FIRST = ("any", "epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
COLUMNS = [ANY_FIRST.index(label) for label in LABELS]


def vector(name: str) -> dict:
    """A case of the shared vectors, its columns in the order of `LABELS`."""
    (case,) = [case for case in VECTORS["weighted_log_loss"] if case["name"] == name]
    return {
        **case,
        "y": torch.tensor(case["y"], dtype=torch.float64)[:, COLUMNS],
        "p": torch.tensor(case["p"], dtype=torch.float64)[:, COLUMNS],
    }


def draw(rows: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits and labels, a third of them unknown."""
    random = np.random.default_rng(0)
    labels = random.choice([0.0, 1.0, np.nan], (rows, 6))
    return torch.tensor(random.normal(0, 3, (rows, 6))), torch.tensor(labels)


class TestWeightedLogLoss:
    @pytest.mark.parametrize("name", ["A", "B"])
    def test_shared_vectors(self, name: str) -> None:
        case = vector(name)
        assert float(weighted_log_loss_with_logits(torch.logit(case["p"]), case["y"])) == pytest.approx(case["loss"], abs=1e-12)

    def test_rows_of_a_shared_vector(self) -> None:
        case = vector("B")
        rows = [
            float(weighted_log_loss_with_logits(torch.logit(p[None]), y[None])) for p, y in zip(case["p"], case["y"], strict=True)
        ]
        np.testing.assert_allclose(rows, case["rows"], atol=1e-11)

    def test_equals_a_sum_in_numpy(self) -> None:
        logits, labels = draw()
        p, y = 1 / (1 + np.exp(-logits.numpy())), labels.numpy()
        losses = -(y * np.log(p) + (1 - y) * np.log(1 - p))
        weights = np.where(np.array(LABELS) == "any", 2.0, 1.0) * ~np.isnan(y)
        expected = np.nansum(losses * weights) / weights.sum()
        assert float(weighted_log_loss_with_logits(logits, labels)) == pytest.approx(expected, rel=1e-12)

    def test_unknown_labels_neither_count_nor_pull(self) -> None:
        logits, labels = draw()
        logits.requires_grad_()
        loss = weighted_log_loss_with_logits(logits, labels)
        loss.backward()
        assert logits.grad is not None
        assert ((logits.grad == 0) == labels.isnan()).all()
        moved = torch.where(labels.isnan(), logits.detach() + 50, logits.detach())
        assert torch.equal(weighted_log_loss_with_logits(moved, labels), loss.detach())

    def test_no_known_label_no_loss_and_no_gradient(self) -> None:
        logits = torch.randn(4, 6, requires_grad=True)
        loss = weighted_log_loss_with_logits(logits, torch.full((4, 6), torch.nan))
        loss.backward()
        assert loss == 0
        assert logits.grad is not None
        assert (logits.grad == 0).all()
        assert weighted_log_loss_with_logits(torch.empty(0, 6), torch.empty(0, 6)) == 0

    def test_parts_add_up_to_the_whole(self) -> None:
        logits, labels = draw()
        parts = sum(weighted_loss_sums(x, y) for x, y in zip(logits.split(7), labels.split(7), strict=True))
        torch.testing.assert_close(parts, weighted_loss_sums(logits, labels))
        torch.testing.assert_close(parts[0] / parts[1], weighted_log_loss_with_logits(logits, labels))

    def test_extreme_logits_stay_finite(self) -> None:
        logits = torch.tensor([[-1e4, 1e4, -90.0, 90.0, 0.0, 1e4]], requires_grad=True)
        loss = weighted_log_loss_with_logits(logits, torch.tensor([[1.0, 0, 1, 0, torch.nan, torch.nan]]))
        loss.backward()
        assert loss.isfinite()
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
