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
"""Sharpness of log-sum-exp pooling: the larger it is, the closer the result is to the maximum; towards 0 it becomes the mean."""


SMALL_ODDS = 1e-10
"""Where the odds of a scan are smaller, noisy-or adds up the odds of its slices; the relative error is then below this value."""


@dataclass(frozen=True, kw_only=True)
class Pooling:
    """How slice logits become the logits of their scan, so that labels of whole scans can train the slices.

    ``max`` is the largest slice logit. ``noisy-or`` assumes independent slices: 1 - prod(1 - p). ``log-sum-exp`` is a smooth
    maximum. ``attention`` is a weighted mean of the slice logits with learned weights per label, followed by a learned scale and
    shift, because a mean of slice logits is not calibrated as a scan logit. ``feature-attention`` does not use the slice logits:
    it takes a weighted mean of the slice features per label, with learned weights, and applies a linear classifier per label to
    it (attention-based multiple instance learning, Ilse et al. 2018).

    Args:
        kind: One of the five kinds above.
        attention_size: Number of hidden units of the attention, at least 1.
        encoder_residual: Add the encoder's own largest slice logit to the scan logit, through a learned gate per label.
        instances: Whether attention over the encoder's features, without the sequence head, gives further logits of each scan.
            They only serve the training loss (multiple-instance loss).

    Raises:
        ConfigError: If the kind is unknown, or ``attention_size`` is out of range.
    """

    kind: PoolingKind = "attention"
    attention_size: int = 64
    encoder_residual: bool = False
    instances: bool = False

    def __post_init__(self) -> None:
        require_choice("unknown_pooling", "pooling.kind", self.kind, PoolingKind)
        wrong = {"pooling.attention_size": self.attention_size} if self.attention_size < 1 else {}
        require("attention_size_out_of_range", "at least 1", wrong)


class ScanPooling(nn.Module):
    """Pools slices to one logit per scan and label.

    Args:
        settings: Kind of pooling, and size of its attention.
        in_features: Number of features per slice, d, which both kinds of attention take as input.
        labels: Number of labels, k.
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
            bound = 1 / math.sqrt(in_features)  # the initialization of nn.Linear
            self.classifier_weight = nn.Parameter(torch.empty(labels, in_features).uniform_(-bound, bound))
            self.classifier_bias = nn.Parameter(torch.zeros(labels))

    def forward(self, slice_logits: Tensor, features: Tensor, lengths: Tensor) -> Tensor:
        """Pool the slices of each scan.

        Args:
            slice_logits: Slice logits ``(n, k)``; ``feature-attention`` does not use them.
            features: Features of slices ``(n, d)``; only the two kinds of attention use them.
            lengths: Number of slices of each scan ``(b,)``.

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
            # Subtracting log(n) gives a scan of n equal slices their logit, whatever n is.
            pooled = [torch.logsumexp(SHARPNESS * logits, dim=0) - math.log(len(logits)) for logits in scans]
            return torch.stack(pooled) / SHARPNESS
        if self.kind == "feature-attention":
            # The classifier is linear and the attention weights of a scan sum to 1, so the mean of the classified slices equals
            # the classified mean. Classifying first needs no tensor of shape (b, k, d).
            scans = F.linear(features, self.classifier_weight, self.classifier_bias).split(sizes)
        scores = self.attention(features).split(sizes)
        pooled = [(score.softmax(dim=0) * values).sum(dim=0) for score, values in zip(scores, scans, strict=True)]
        if self.kind == "feature-attention":
            return torch.stack(pooled)
        return torch.stack(pooled) * self.scale + self.shift


def _noisy_or(logits: Tensor) -> Tensor:
    """The logit of 1 - prod(1 - sigmoid(logits)) over the slices, computed in log space."""
    # log prod(1 - p) = -sum softplus = -s, so the odds are (1 - e^-s) / e^-s = e^s - 1.
    s = F.softplus(logits).sum(dim=0)
    # For small odds, e^s - 1 is the sum of the slices' odds. Computed from s it would underflow, and so would its gradient.
    rare = torch.logsumexp(logits, dim=0)
    common = s.clamp(min=SMALL_ODDS)
    return torch.where(s < SMALL_ODDS, rare, common + torch.log(-torch.expm1(-common)))
