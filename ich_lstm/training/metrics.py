"""Metrics of torchmetrics on probabilities, computed in float64."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from ich_lstm.labels import LABEL_WEIGHTS, LABELS
from ich_lstm.statistics.measures.discrimination import area_under_roc
from ich_lstm.statistics.measures.scores import CLIP


def log_losses(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Log loss of each probability, after the clipping that Kaggle applies.

    Args:
        probabilities: Probabilities in [0, 1], of any shape, float64, because float32 cannot represent 1 - 1e-15.
        labels: Labels in the shape of ``probabilities``: 1 present, 0 absent, NaN unknown.

    Returns:
        Log losses in the shape of ``probabilities``, float64; NaN where the label is unknown, or the probability is none.
    """
    given = probabilities.to(torch.float64)
    p = given.clamp(CLIP, 1 - CLIP).masked_fill(~((given >= 0) & (given <= 1)), torch.nan)
    y = labels.to(torch.float64)
    # log(1 - p), not log1p(-p), because the published numbers round 1 - p to float64 first.
    return -(y * torch.log(p) + (1 - y) * torch.log(1 - p))


class _OfLabelledProbabilities(Metric):
    """Base of metrics that keep the probabilities and labels of all batches and processes."""

    is_differentiable = False
    full_state_update = False
    probabilities: list[Tensor]
    labels: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("probabilities", default=[], dist_reduce_fx="cat")
        self.add_state("labels", default=[], dist_reduce_fx="cat")

    def update(self, probabilities: Tensor, labels: Tensor) -> None:
        """Add a batch.

        Args:
            probabilities: Probabilities in [0, 1], ``(m, k)``, float64, in the order of `LABELS`.
            labels: Labels ``(m, k)``: 1 present, 0 absent, NaN unknown.
        """
        self.probabilities.append(probabilities.detach().to(torch.float64))
        self.labels.append(labels.detach().to(torch.float32))

    def _all(self) -> tuple[Tensor, Tensor]:
        """The probabilities and labels of all batches, each ``(m, k)``."""
        if len(self.probabilities) == 0:  # the state is a list of batches, and a tensor after torchmetrics has gathered it
            empty = torch.empty(0, len(LABELS), dtype=torch.float64, device=self.device)
            return empty, empty
        return dim_zero_cat(self.probabilities), dim_zero_cat(self.labels)


class WeightedLogLoss(_OfLabelledProbabilities):
    """RSNA's weighted multi-label log loss over the known labels; NaN if none is known or its probability is none.

    Args:
        needs_absent: Leave out labels that are known only as present, never as absent. A model that always calls such a label
            present has no loss in it, so its loss cannot rank models.

    Example:
        >>> metric = WeightedLogLoss()
        >>> metric.update(torch.full((1, 6), 0.5, dtype=torch.float64), torch.zeros(1, 6))
        >>> round(float(metric.compute()), 4)
        0.6931
    """

    higher_is_better = False

    def __init__(self, *, needs_absent: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.needs_absent = needs_absent

    def compute(self) -> Tensor:
        """The loss, a float64 scalar."""
        probabilities, labels = self._all()
        losses = log_losses(probabilities, labels)  # (m, k)
        known = ~labels.isnan()
        if self.needs_absent:
            known &= (labels == 0).any(dim=0)
        weights = torch.tensor(LABEL_WEIGHTS, dtype=torch.float64, device=losses.device) * known
        return (losses.masked_fill(~known, 0.0) * weights).sum() / weights.sum()


class LabelAUROC(_OfLabelledProbabilities):
    """Area under the ROC curve of each label, over the items whose label is known.

    It is NaN if these items are all of one class, or if the probability of one is not in [0, 1].
    """

    higher_is_better = True

    def compute(self) -> Tensor:
        """The areas ``(k,)``, float64, in the order of `LABELS`."""
        probabilities, labels = self._all()
        areas = []
        for p, y in zip(probabilities.T.cpu().numpy(), labels.T.cpu().numpy(), strict=True):
            known = ~np.isnan(y)
            areas.append(area_under_roc(y[known] == 1, np.where((p >= 0) & (p <= 1), p, np.nan)[known]))
        return torch.tensor(areas, dtype=torch.float64, device=probabilities.device)
