"""The Trainer of each stage of a training, from the configuration."""

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from jsonargparse import Namespace
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.strategies import Strategy

from ich_lstm.cli.console import console
from ich_lstm.cli.training.monitoring.epoch_lines import EpochLines, TimeEstimate
from ich_lstm.cli.training.monitoring.logs import make_loggers
from ich_lstm.models.execution.bfloat16 import has_bfloat16
from ich_lstm.privacy import private_folder
from ich_lstm.training.checkpoints.callbacks import PathlessCheckpoint
from ich_lstm.training.checkpoints.exact_resume import logged_steps
from ich_lstm.training.classifier import MONITOR
from ich_lstm.training.stages import Stage


def make_trainer(
    built: Namespace, stage: Stage, place: Path, folder: Path, own: Sequence[Callback], *, shown: str, resumed: Path | None
) -> Trainer:
    """Make the Trainer of a stage.

    Args:
        built: The configuration with objects instead of ``class_path``. All stages share its callbacks and loggers.
        stage: The stage.
        place: Folder for the files of the stage: the run's folder for the last stage, otherwise a folder in ``stages/``.
        folder: The run's folder.
        own: Callbacks of the run that are not in the configuration.
        shown: Name of the stage in progress lines; empty for none.
        resumed: The checkpoint from which the stage is resumed; None if it begins.
    """
    given = vars(built.trainer)
    best = PathlessCheckpoint(dirpath=place / "checkpoints", filename="best", monitor=MONITOR, enable_version_counter=False)
    # save_last is not used, because Lightning would write it only together with a new best checkpoint.
    is_terminal = console().is_terminal
    lines = [TimeEstimate(shown), RichProgressBar() if is_terminal else EpochLines(shown)]
    callbacks = given["callbacks"] if isinstance(given["callbacks"], list) else [given["callbacks"]]
    changes = {
        "default_root_dir": str(folder),
        "enable_progress_bar": is_terminal,
        "max_epochs": stage.max_epochs,
        "callbacks": [*filter(None, callbacks), best, *own, *lines],
        "logger": make_loggers(
            given["logger"],
            place,
            private_folder(folder),
            wandb=built.wandb,
            tensorboard=built.tensorboard,
            logged=0 if resumed is None else logged_steps(resumed),
        ),
        **stage.trainer,
    }
    if isinstance(given["strategy"], Strategy):
        changes.setdefault("strategy", copy.deepcopy(given["strategy"]))  # a strategy can run only once
    return Trainer(**{**given, **changes})


def best_precision(accelerator: str) -> Literal["bf16-mixed", "32-true"]:
    """Choose bfloat16 if the hardware supports it, which halves the time, and float32 if it would be emulated.

    Args:
        accelerator: Lightning's name of the accelerator.
    """
    device_type = "cuda" if accelerator != "cpu" and torch.cuda.is_available() else "cpu"
    return "bf16-mixed" if has_bfloat16(device_type) else "32-true"


def best_of(trainer: Trainer) -> str:
    """Path of the checkpoint with the best monitored value; empty if there is none."""
    checkpoints = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, PathlessCheckpoint)]
    return next((callback.best_model_path for callback in checkpoints if callback.monitor is not None), "")
