"""``ich-train --plan``, and the value ``auto`` for numbers of slices."""

from typing import Any

import torch
from jsonargparse import Namespace
from rich.console import Console

from ich_lstm.training.classifier import ClassifierSettings
from ich_lstm.training.memory_planner import MIB, MemoryPlan, Trial, plan_memory

AUTO = "auto"

PLAN_MINUTES = 10.0
"""Default time limit of a plan. A GPU needs seconds, but on a CPU one step of a large batch may take many minutes."""


def wants_plan(config: Namespace) -> bool:
    """Whether the configuration needs a memory plan: ``--plan``, or a number of slices that is ``auto``."""
    return bool(config.plan) or AUTO in (config.data.batches.slices, config.model.encoder.slices_per_chunk)


def plan_training(config: Namespace, settings: ClassifierSettings, out: Console) -> MemoryPlan:
    """Find how many slices fit into memory, and print the result.

    Args:
        config: Configuration of ich-train.
        settings: Settings of the model; ``encoder.slices_per_chunk`` is ignored.
        out: Console that prints every trial and the plan.
    """
    device = training_device(str(config.trainer.accelerator))
    batch = config.data.batches.slices
    size = config.data.preprocessing.size
    out.print(f"Trying what fits on {device}, {size} x {size} pixels, {config.trainer.precision}:")
    plan = plan_memory(
        settings,
        size=size,
        device=device,
        precision=str(config.trainer.precision),
        processes=_processes(config.trainer.devices) if device.type == "cpu" else 1,
        slices_per_batch=batch if isinstance(batch, int) and not config.plan else None,
        seconds=60 * config.plan_minutes,
        begin=lambda trial: out.print(f"  trying {_in_words(trial)}"),
        progress=lambda trial, needed: out.print(f"  {_in_words(trial)}: {_needed(needed)}"),
    )
    out.print(str(plan))
    return plan


def training_device(accelerator: str) -> torch.device:
    """The first device of an accelerator.

    Args:
        accelerator: Lightning's name of the accelerator.
    """
    return torch.device("cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu")


def _processes(devices: Any) -> int:
    return int(devices) if isinstance(devices, int) or str(devices).isdigit() else 1


def _in_words(trial: Trial) -> str:
    return f"{trial.slices} slices" + (f" in chunks of {trial.chunk}" if trial.chunk else " at once")


def _needed(needed: int | None) -> str:
    return "too much" if needed is None else f"{needed / MIB:,.0f} MiB"
