"""The optimizer: which weights are trained, their learning rates, and the schedule over a fit."""

import math
from collections import defaultdict
from typing import Literal

import torch
from torch import nn

from ich_lstm.models.compiled import plain_name

OptimizerKind = Literal["adamw", "adam"]
Schedule = Literal["cosine", "constant"]


def make_optimizer(
    model: nn.Module,
    *,
    kind: OptimizerKind,
    learning_rate: float,
    encoder_learning_rate: float,
    window_learning_rate: float,
    weight_decay: float,
    epsilon: float,
) -> torch.optim.Optimizer:
    """An optimizer of all weights that are to be trained.

    Args:
        model: A `ScanModel`; what stands in its ``encoder`` and ``windows`` has rates of its own.
        kind: ``adamw`` (decay apart from the gradient, Loshchilov and Hutter 2019) or ``adam`` (as a term of it).
        learning_rate: Peak rate of the head.
        encoder_learning_rate: Peak rate of the encoder.
        window_learning_rate: Peak rate of learnable windows, in HU.
        weight_decay: Not applied to biases and normalizations.
        epsilon: Added to the denominator.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = plain_name(name).partition(".")[0]
            rate = {"encoder": encoder_learning_rate, "windows": window_learning_rate}.get(part, learning_rate)
            groups[rate, weight_decay if parameter.ndim > 1 else 0.0].append(parameter)
    optimizer = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[kind]
    return optimizer(
        [{"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()], eps=epsilon
    )


def make_schedule(
    optimizer: torch.optim.Optimizer, kind: Schedule, *, steps: int, warmup: float
) -> torch.optim.lr_scheduler.LRScheduler:
    """Rates that rise linearly to their peaks, and then stay (``constant``) or fall to 0 along a cosine.

    Args:
        optimizer: Its groups hold the peaks.
        kind: Which.
        steps: Of the whole fit.
        warmup: Share of the steps in which the rates rise.
    """
    warm = round(warmup * steps)

    def share_of_peak(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        if kind == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share_of_peak)
