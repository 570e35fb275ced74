"""``ich-train --plan``, and the value ``auto`` for numbers of slices."""

import inspect
import sys
from typing import Any

import torch
from jsonargparse import Namespace
from rich.console import Console

from ich_lstm.errors import ConfigError
from ich_lstm.models.scan_model import ScanModel
from ich_lstm.training.memory_planner import MIB, MemoryPlan, Trial, plan_memory

AUTO = "auto"

PLAN_MINUTES = 10.0
"""How long may be tried by default: on a GPU seconds are enough, on a CPU one step of a large batch may take many minutes."""


def wants_plan(config: Namespace) -> bool:
    """Whether the configuration asks for a plan of the memory."""
    return bool(config.plan) or AUTO in (config.data.slices_per_batch, config.model.slices_per_chunk)


def plan_training(config: Namespace, out: Console, *, rank: int) -> MemoryPlan:
    """Find out how many slices fit, say so, and put the numbers where ``auto`` stands.

    Args:
        config: Of ich-train; changed in place.
        out: Where every trial is told.
        rank: Of this process.

    Raises:
        ConfigError: In a further process: all must train with the same numbers, so the first one decides before it starts them.
    """
    if rank != 0:
        raise ConfigError(
            "auto_unresolved",
            where="slices_per_batch, slices_per_chunk",
            got="auto, in one of several processes that were started together",
            expected="numbers",
            todo="Find them with ich-train --plan on one process, and give them.",
        )
    device = _device(str(config.trainer.accelerator))
    processes = _processes(config.trainer.devices) if device.type == "cpu" else 1
    batch = config.data.slices_per_batch
    settings = {**vars(config.model), "slices_per_chunk": None}
    out.print(f"Trying what fits on {device}, {config.data.size} x {config.data.size} pixels, {config.trainer.precision}:")
    plan = plan_memory(
        {name: value for name, value in settings.items() if name in _network_settings()},
        size=config.data.size,
        device=device,
        precision=str(config.trainer.precision),
        processes=processes,
        slices_per_batch=batch if isinstance(batch, int) and not config.plan else None,
        seconds=60 * config.plan_minutes,
        begin=lambda trial: out.print(f"  trying {_in_words(trial)}"),
        progress=lambda trial, needed: out.print(f"  {_in_words(trial)}: {_needed(needed)}"),
    )
    out.print(str(plan))
    for section, name, value in (
        (config.data, "slices_per_batch", plan.slices_per_batch),
        (config.model, "slices_per_chunk", plan.slices_per_chunk),
    ):
        if section[name] == AUTO:
            section[name] = value
            # Lightning starts its other processes with this command line.
            key = "data" if section is config.data else "model"
            sys.argv.append(f"--{key}.{name}={'null' if value is None else value}")
    return plan


def _network_settings() -> set[str]:
    return set(inspect.signature(ScanModel.__init__).parameters) - {"self"}


def _device(accelerator: str) -> torch.device:
    return torch.device("cuda" if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available() else "cpu")


def _processes(devices: Any) -> int:
    return int(devices) if isinstance(devices, int) or str(devices).isdigit() else 1


def _in_words(trial: Trial) -> str:
    return f"{trial.slices} slices" + (f" in chunks of {trial.chunk}" if trial.chunk else " at once")


def _needed(needed: int | None) -> str:
    return "too much" if needed is None else f"{needed / MIB:,.0f} MiB"
