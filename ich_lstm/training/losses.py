"""The RSNA weighted multi-label log loss, for training on logits."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ich_lstm.labels import ANY, LABEL_WEIGHTS, LABELS
from ich_lstm.settings import require, require_choice

LossMean = Literal["weights", "labels"]


@dataclass(frozen=True, kw_only=True)
class Loss:
    """The training loss: a weighted sum of the losses of slices and scans.

    Args:
        slice: Weight of the loss of the slice logits, not below 0.
        encoder: Weight of the loss of the encoder's own slice logits, not below 0.
        scan: Weight of the loss of the scan logits, not below 0. This loss lets labels of whole scans train the network.
        instance: Weight of the loss of the scan logits by attention over the encoder's features (``pooling.instances``), not
            below 0.
        any_weight: Weight of the label "any" in each of these losses, relative to 1 for each type; RSNA's challenge uses 2.
        mean: Divisor of each loss: the sum of the ``weights`` of the known labels, as in RSNA's challenge, or the number of known
            ``labels``.

    Raises:
        ConfigError: ``training_out_of_range``, if a weight is below 0 or ``mean`` is unknown.
    """

    slice: float = 1.0
    encoder: float = 0.5
    scan: float = 0.25
    instance: float = 0.1
    any_weight: float = LABEL_WEIGHTS[LABELS.index(ANY)]
    mean: LossMean = "weights"

    def __post_init__(self) -> None:
        weights = {name: getattr(self, name) for name in ("slice", "encoder", "scan", "instance", "any_weight")}
        wrong = {f"loss.{name}": weight for name, weight in weights.items() if not 0 <= weight < math.inf}
        require("training_out_of_range", "not below 0, and finite", wrong)
        require_choice("training_out_of_range", "loss.mean", self.mean, LossMean)


def weighted_loss_sums(
    logits: Tensor, labels: Tensor, *, any_weight: float = LABEL_WEIGHTS[LABELS.index(ANY)], mean: LossMean = "weights"
) -> Tensor:
    """The weighted sum of the binary cross-entropies of known labels, and the divisor that makes it a mean.

    Both are sums, so that they can be added over devices before the division.

    Args:
        logits: Logits ``(m, k)``, in the order of `LABELS`.
        labels: Labels ``(m, k)``: 1 present, 0 absent, between 0 and 1 for mixed slices (CutMix), NaN unknown.
        any_weight: Weight of the label "any", relative to 1 for each type; RSNA's challenge uses 2.
        mean: Which divisor to give: ``weights`` for the sum of the weights of known labels, as in RSNA's challenge; ``labels``
            for the number of known labels.

    Returns:
        The sum and the divisor, in one tensor ``(2,)``.
    """
    known = (~labels.isnan()).to(logits.dtype)
    weights = torch.tensor([any_weight if label == ANY else 1.0 for label in LABELS], dtype=logits.dtype, device=logits.device)
    # Unknown labels become 0 before the loss, because NaN times a weight of 0 would still be NaN.
    losses = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(0.0).to(logits.dtype), reduction="none")
    weighted = weights * known  # (m, k)
    return torch.stack([(weighted * losses).sum(), (weighted if mean == "weights" else known).sum()])


def weighted_log_loss_with_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """RSNA's weighted log loss: ``sum(w * m * bce) / sum(w * m)``, w = 2 for "any" and 1 for each type, m = 1 if known, else 0.

    Args:
        logits: Logits ``(m, k)``, in the order of `LABELS`.
        labels: Labels ``(m, k)``: 1 present, 0 absent, NaN unknown.

    Returns:
        The loss, a scalar; 0 with zero gradients if no label is known.

    Example:
        >>> weighted_log_loss_with_logits(torch.zeros(1, 6), torch.zeros(1, 6))
        tensor(0.6931)
    """
    total, weight = weighted_loss_sums(logits, labels)
    return total / weight.clamp(min=1e-12)
