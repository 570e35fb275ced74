"""The RSNA weighted multi-label log loss, for training on logits."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from ich_lstm.labels import ANY, LABEL_WEIGHTS, LABELS

LossMean = Literal["weights", "labels"]


def weighted_loss_sums(
    logits: Tensor, labels: Tensor, *, any_weight: float = LABEL_WEIGHTS[LABELS.index(ANY)], mean: LossMean = "weights"
) -> Tensor:
    """Weighted sum of the binary cross-entropies of known labels, and what it is to be divided by.

    Both are sums, so that parts of a batch on several devices can be added before the division.

    Args:
        logits: ``(m, k)``, in the order of `LABELS`.
        labels: ``(m, k)``: 1 present, 0 absent, between them mixed, NaN unknown.
        any_weight: Weight of "any" beside 1 for each type; RSNA's is 2.
        mean: ``weights``: divide by the sum of the weights, as RSNA does; ``labels``: by the number of known labels.

    Returns:
        Tensor of the two sums, ``(2,)``.
    """
    known = (~labels.isnan()).to(logits.dtype)
    weights = torch.tensor([any_weight if label == ANY else 1.0 for label in LABELS], dtype=logits.dtype, device=logits.device)
    # Unknown labels become 0 before the loss: NaN times weight 0 would still be NaN.
    losses = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(0.0).to(logits.dtype), reduction="none")
    weighted = weights * known  # (m, k)
    return torch.stack([(weighted * losses).sum(), (weighted if mean == "weights" else known).sum()])


def weighted_log_loss_with_logits(logits: Tensor, labels: Tensor) -> Tensor:
    """RSNA's weighted log loss of logits: ``sum(w * m * bce) / sum(w * m)``, w = 2 for any and 1 otherwise, m = known.

    Args:
        logits: ``(m, k)``.
        labels: ``(m, k)``: 1 present, 0 absent, NaN unknown.

    Returns:
        A scalar; 0 (with zero gradients) if no label is known.

    Example:
        >>> weighted_log_loss_with_logits(torch.zeros(1, 6), torch.zeros(1, 6))
        tensor(0.6931)
    """
    total, weight = weighted_loss_sums(logits, labels)
    return total / weight.clamp(min=1e-12)
