"""The optimizer: which weights are trained, their learning rates, and the schedule over a fit."""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ich_lstm.models.execution.compiled import plain_name
from ich_lstm.settings import require, require_choice

OptimizerKind = Literal["adamw", "adam"]
Schedule = Literal["cosine", "constant"]

FUSED = {"cpu", "cuda"}
"""Kinds of devices on which the optimizer is one kernel. On a CPU a step of 17 million weights takes a quarter of the time."""

FLOAT32_ENDS = 1e37
"""Rates must be below it: AdamW multiplies a rate by at most 10 in the first step, and float32 ends at 3e38."""


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """The optimizer, its learning rates, and their schedule over a fit.

    Args:
        kind: ``adamw`` (decoupled weight decay, Loshchilov and Hutter 2019) or ``adam`` (weight decay as a term of the gradient).
        lr: Peak learning rate of the head, not below 0.
        encoder_lr: Peak learning rate of the encoder, not below 0; about a tenth of the head's suits pretrained weights.
        window_lr: Peak learning rate of learnable windows, not below 0. Levels and widths are in HU, so the rates of the other
            weights would hardly move them.
        weight_decay: Weight decay, not below 0. It is not applied to biases and normalization layers.
        epsilon: Number added to the denominator of the update, not below 0.
        schedule: The learning rates after the warm-up. ``cosine``: they fall to 0; ``constant``: they keep their peaks. If the
            number of steps is unknown, as with ``Trainer(max_epochs=-1, max_time=...)``, they keep their peaks in any case, and
            the record of the fit says so.
        warmup: Share of the steps of a fit in which the learning rates rise linearly to their peaks, in [0, 1). If the number of
            steps is unknown, it is a share of the steps of one epoch.

    Raises:
        ConfigError: ``training_out_of_range``, if a value is out of range.
    """

    kind: OptimizerKind = "adamw"
    lr: float = 1e-3
    encoder_lr: float = 1e-4
    window_lr: float = 0.1
    weight_decay: float = 1e-2
    epsilon: float = 1e-8
    schedule: Schedule = "cosine"
    warmup: float = 0.05

    def __post_init__(self) -> None:
        rates = {name: getattr(self, name) for name in ("lr", "encoder_lr", "window_lr", "weight_decay", "epsilon")}
        wrong = {f"optimizer.{name}": rate for name, rate in rates.items() if not 0 <= rate < FLOAT32_ENDS}
        require("training_out_of_range", f"not below 0, and below {FLOAT32_ENDS:g}", wrong)
        require("training_out_of_range", "in [0, 1)", {} if 0 <= self.warmup < 1 else {"optimizer.warmup": self.warmup})
        require_choice("training_out_of_range", "optimizer.kind", self.kind, OptimizerKind)
        require_choice("training_out_of_range", "optimizer.schedule", self.schedule, Schedule)


def make_optimizer(model: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """Make the optimizer of all weights that are not frozen. It is one kernel ("fused") on devices that have it.

    Args:
        model: A `ScanModel`; the weights of its ``encoder`` and ``windows`` have learning rates of their own.
        settings: Kind of optimizer, learning rates and weight decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = plain_name(name).partition(".")[0]
            rate = {"encoder": settings.encoder_lr, "windows": settings.window_lr}.get(part, settings.lr)
            groups[rate, settings.weight_decay if parameter.ndim > 1 else 0.0].append(parameter)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[settings.kind]
    devices = {parameter.device.type for parameters in groups.values() for parameter in parameters}
    optimizer = kind(
        [{"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()],
        eps=settings.epsilon,
        fused=devices <= FUSED or None,
    )
    # torch and Lightning would leave it to the kernel to unscale gradients in mixed precision, and Lightning refuses to clip
    # gradients then. Unscaled and clipped before the step, they give the same result.
    optimizer._step_supports_amp_scaling = False
    return optimizer


def make_schedule(
    optimizer: torch.optim.Optimizer, kind: Schedule, *, steps: int, warmup: float
) -> torch.optim.lr_scheduler.LRScheduler:
    """Make a schedule in which the learning rates rise linearly to their peaks, and then stay or fall to 0 along a cosine.

    Args:
        optimizer: The optimizer; the learning rates of its parameter groups are the peaks.
        kind: ``constant`` to keep the peaks, ``cosine`` to fall to 0.
        steps: Number of steps of the whole fit.
        warmup: Share of the steps in which the learning rates rise, in [0, 1).
    """
    warm = round(warmup * steps)

    def share_of_peak(step: int) -> float:
        if step < warm:
            return (step + 1) / (warm + 1)
        if kind == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share_of_peak)
