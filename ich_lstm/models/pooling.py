"""Pooling of slice logits to scan logits."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ich_lstm.settings import require, require_choice

PoolingKind = Literal["max", "noisy-or", "log-sum-exp", "attention", "feature-attention"]

SHARPNESS = 4.0
"""Of log-sum-exp pooling: towards infinity it becomes the maximum, towards 0 the mean."""


SMALL_ODDS = 1e-10
"""Below these odds of a scan, noisy-or is the sum of its slices' odds, to that relative error."""


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """How the logits of slices become those of their scan, so that a label of the whole scan can train the slices.

    ``max`` is the largest slice logit. ``noisy-or`` takes the slices as independent: 1 - prod(1 - p). ``log-sum-exp`` is a
    smooth maximum. ``attention`` is a weighted mean of the slice logits, the weights learned per label, then a learned scale
    and shift, because the mean of a scan's best slices is not yet the logit of the scan. ``feature-attention`` leaves the
    slice logits alone: a mean of the slice features per label, with learned weights, then a linear classifier per label
    (attention-based multiple instance learning, Ilse et al. 2018).

    Args:
        kind: One of the five.
        attention_size: Hidden units of the attention, at least 1.
        encoder_residual: Add the largest of the encoder's own logits in a scan to the scan's, through a learned gate per label.
        instances: Whether there are further logits of each scan by attention over the encoder's features, without the sequence
            head, which only train (multiple-instance loss).

    Raises:
        ConfigError: If the kind is unknown, or ``attention_size`` is out of range.
    """

    kind: PoolingKind = "attention"
    attention_size: int = 64
    encoder_residual: bool = False
    instances: bool = False

    def __post_init__(self) -> None:
        require_choice("unknown_pooling", "pooling", self.kind, PoolingKind)
        wrong = {"attention_size": self.attention_size} if self.attention_size < 1 else {}
        require("attention_size_out_of_range", "at least 1", wrong)


class ScanPooling(nn.Module):
    """One logit per scan and label.

    Args:
        settings: Kind of pooling, as `Pooling` describes them, and its attention.
        in_features: Features per slice d, which both kinds of attention look at.
        labels: Number of labels k.
    """

    def __init__(self, settings: Pooling, *, in_features: int, labels: int) -> None:
        super().__init__()
        kind, attention_size = settings.kind, settings.attention_size
        self.kind = kind
        if kind in ("attention", "feature-attention"):
            self.attention = nn.Sequential(nn.Linear(in_features, attention_size), nn.Tanh(), nn.Linear(attention_size, labels))
        if kind == "attention":
            self.scale = nn.Parameter(torch.ones(labels))
            self.shift = nn.Parameter(torch.zeros(labels))
        if kind == "feature-attention":
            bound = 1 / math.sqrt(in_features)  # as nn.Linear begins
            self.classifier_weight = nn.Parameter(torch.empty(labels, in_features).uniform_(-bound, bound))
            self.classifier_bias = nn.Parameter(torch.zeros(labels))

    def forward(self, slice_logits: Tensor, features: Tensor, lengths: Tensor) -> Tensor:
        """Pool each scan.

        Args:
            slice_logits: ``(n, k)``; ``feature-attention`` does not look at them.
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
        if self.kind == "feature-attention":
            # The classifier is linear and a scan's weights add up to 1, so to classify each slice and then take the mean is to
            # classify the mean, and needs no (b, k, d).
            scans = F.linear(features, self.classifier_weight, self.classifier_bias).split(sizes)
        scores = self.attention(features).split(sizes)
        pooled = [(score.softmax(dim=0) * values).sum(dim=0) for score, values in zip(scores, scans, strict=True)]
        if self.kind == "feature-attention":
            return torch.stack(pooled)
        return torch.stack(pooled) * self.scale + self.shift


def _noisy_or(logits: Tensor) -> Tensor:
    """Logit of 1 - prod(1 - sigmoid(logits)) over the slices, without leaving log space."""
    # log prod(1 - p) = -sum softplus = -s, so the odds are (1 - e^-s) / e^-s = e^s - 1.
    s = F.softplus(logits).sum(dim=0)
    # Below, odds are so small that they add up; s itself would underflow, and the gradient with it.
    rare = torch.logsumexp(logits, dim=0)
    common = s.clamp(min=SMALL_ODDS)
    return torch.where(s < SMALL_ODDS, rare, common + torch.log(-torch.expm1(-common)))
