"""The optimizer: which weights are trained, their learning rates, and the schedule over a fit."""

import math
from collections import defaultdict
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from ich_lstm.models.compiled import plain_name
from ich_lstm.settings import require, require_choice

OptimizerKind = Literal["adamw", "adam"]
Schedule = Literal["cosine", "constant"]


@dataclass(frozen=True, kw_only=True)
class Optimizer:
    """The optimizer, its learning rates, and their schedule over a fit.

    Args:
        kind: ``adamw`` (decay apart from the gradient, Loshchilov and Hutter 2019) or ``adam`` (as a term of it).
        lr: Peak rate of the head.
        encoder_lr: Peak rate of the encoder; pretrained weights want about a tenth of the head's.
        window_lr: Peak rate of learnable windows, in HU: the others' would not move them.
        weight_decay: Not applied to biases and normalizations.
        epsilon: Added to the denominator of the update.
        schedule: What the rates do after the warm-up: ``cosine``: fall to 0; ``constant``: stay. They stay under either where
            nobody knows the number of steps, as with ``Trainer(max_epochs=-1, max_time=...)``, and the record of the fit says so.
        warmup: Share of the steps in which the rates rise linearly to their peaks; where nobody knows the number of steps, share
            of the first epoch's.

    Raises:
        ConfigError: ``training_out_of_range``.
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
        wrong = {f"optimizer.{name}": rate for name, rate in rates.items() if rate < 0}
        require("training_out_of_range", "not below 0", wrong)
        require("training_out_of_range", "in [0, 1)", {} if 0 <= self.warmup < 1 else {"optimizer.warmup": self.warmup})
        require_choice("training_out_of_range", "optimizer.kind", self.kind, OptimizerKind)
        require_choice("training_out_of_range", "optimizer.schedule", self.schedule, Schedule)


def make_optimizer(model: nn.Module, settings: Optimizer) -> torch.optim.Optimizer:
    """An optimizer of all weights that are to be trained.

    Args:
        model: A `ScanModel`; what stands in its ``encoder`` and ``windows`` has rates of its own.
        settings: Kind of optimizer, rates and decay.
    """
    groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = plain_name(name).partition(".")[0]
            rate = {"encoder": settings.encoder_lr, "windows": settings.window_lr}.get(part, settings.lr)
            groups[rate, settings.weight_decay if parameter.ndim > 1 else 0.0].append(parameter)
    optimizer = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[settings.kind]
    return optimizer(
        [{"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()],
        eps=settings.epsilon,
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
