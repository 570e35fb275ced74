"""The RSNA weighted multi-label log loss, for training on logits."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ich_lstm.labels import LABEL_WEIGHTS


def weighted_loss_sums(logits: Tensor, labels: Tensor) -> Tensor:
    """Weighted sum of the binary cross-entropies of known labels, and the sum of their weights.

    Both are sums, so that parts of a batch on several devices can be added before the division.

    Args:
        logits: ``(m, k)``, in the order of `LABELS`.
        labels: ``(m, k)``: 1 present, 0 absent, NaN unknown.

    Returns:
        Tensor of the two sums, ``(2,)``.
    """
    known = ~labels.isnan()
    weights = torch.tensor(LABEL_WEIGHTS, dtype=logits.dtype, device=logits.device) * known  # (m, k)
    # Unknown labels become 0 before the loss: NaN times weight 0 would still be NaN.
    losses = F.binary_cross_entropy_with_logits(logits, labels.nan_to_num(0.0).to(logits.dtype), reduction="none")
    return torch.stack([(weights * losses).sum(), weights.sum()])


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
