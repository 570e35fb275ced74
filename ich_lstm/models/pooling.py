"""From the slices' logits to the scan's."""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

PoolingKind = Literal["max", "noisy-or", "log-sum-exp", "attention"]

SHARPNESS = 4.0
"""Of log-sum-exp pooling: towards infinity it becomes the maximum, towards 0 the mean."""


SMALL_ODDS = 1e-10
"""Below these odds of a scan, noisy-or is the sum of its slices' odds, to that relative error."""


class ScanPooling(nn.Module):
    """One logit per scan and label, so that a label of the whole scan can train the slices.

    ``max`` is the largest slice logit. ``noisy-or`` takes the slices as independent: 1 - prod(1 - p). ``log-sum-exp`` is a
    smooth maximum. ``attention`` is a weighted mean of the slice logits, the weights learned per label, then a learned scale
    and shift, because the mean of a scan's best slices is not yet the logit of the scan.

    Args:
        kind: One of the four.
        in_features: Features per slice, which attention looks at.
        labels: Number of labels k.
    """

    def __init__(self, kind: PoolingKind, *, in_features: int, labels: int) -> None:
        super().__init__()
        self.kind = kind
        if kind == "attention":
            self.attention = nn.Sequential(nn.Linear(in_features, 64), nn.Tanh(), nn.Linear(64, labels))
            self.scale = nn.Parameter(torch.ones(labels))
            self.shift = nn.Parameter(torch.zeros(labels))

    def forward(self, slice_logits: Tensor, features: Tensor, lengths: Tensor) -> Tensor:
        """Pool each scan.

        Args:
            slice_logits: ``(n, k)``.
            features: ``(n, d)``.
            lengths: ``(b,)``.

        Returns:
            Scan logits ``(b, k)``.
        """
        sizes = lengths.tolist()
        scans = slice_logits.split(sizes)  # b times (n_i, k)
        if self.kind == "max":
            return torch.stack([logits.amax(dim=0) for logits in scans])
        if self.kind == "noisy-or":
            return torch.stack([_noisy_or(logits) for logits in scans])
        if self.kind == "log-sum-exp":
            # Less log(n): a scan of equal slices has their logit, however many they are.
            pooled = [torch.logsumexp(SHARPNESS * logits, dim=0) - math.log(len(logits)) for logits in scans]
            return torch.stack(pooled) / SHARPNESS
        scores = self.attention(features).split(sizes)
        pooled = [(score.softmax(dim=0) * logits).sum(dim=0) for score, logits in zip(scores, scans, strict=True)]
        return torch.stack(pooled) * self.scale + self.shift


def _noisy_or(logits: Tensor) -> Tensor:
    """Logit of 1 - prod(1 - sigmoid(logits)) over the slices, without leaving log space."""
    # log prod(1 - p) = -sum softplus = -s, so the odds are (1 - e^-s) / e^-s = e^s - 1.
    s = F.softplus(logits).sum(dim=0)
    # Below, odds are so small that they add up; s itself would underflow, and the gradient with it.
    rare = torch.logsumexp(logits, dim=0)
    common = s.clamp(min=SMALL_ODDS)
    return torch.where(s < SMALL_ODDS, rare, common + torch.log(-torch.expm1(-common)))
