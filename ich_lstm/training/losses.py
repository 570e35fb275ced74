"""The RSNA weighted multi-label log loss, for training on logits."""

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
    """The training loss: a weighted sum of losses of slices and scans.

    Args:
        slice: Weight of the slices' loss.
        encoder: Weight of the loss of the encoder's own logits, which sees each slice alone.
        scan: Weight of the scans' loss, which lets labels of whole scans train the network.
        instance: Weight of the loss of the scans' logits by attention over the encoder's features (``pooling.instances``).
        any_weight: Weight of "any" in all of these beside 1 for each type; RSNA's is 2.
        mean: Whether the losses are divided by the sum of the ``weights``, as RSNA does, or by the number of ``labels``.

    Raises:
        ConfigError: ``training_out_of_range``.
    """

    slice: float = 1.0
    encoder: float = 0.5
    scan: float = 0.25
    instance: float = 0.1
    any_weight: float = LABEL_WEIGHTS[LABELS.index(ANY)]
    mean: LossMean = "weights"

    def __post_init__(self) -> None:
        weights = {name: getattr(self, name) for name in ("slice", "encoder", "scan", "instance", "any_weight")}
        wrong = {f"loss.{name}": weight for name, weight in weights.items() if weight < 0}
        require("training_out_of_range", "not below 0", wrong)
        require_choice("training_out_of_range", "loss.mean", self.mean, LossMean)


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
