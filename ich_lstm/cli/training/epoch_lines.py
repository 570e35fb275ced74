"""Prints one line per epoch of a training, for logs in which a progress bar would be unreadable."""

import math
import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from ich_lstm.cli.console import console
from ich_lstm.cli.progress import ProgressLines
from ich_lstm.labels import ANY, LABELS


class EpochLines(Callback):
    """Prints a line after every epoch and, in long epochs, one a minute.

    Args:
        stage: Name of the stage; empty for none.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._lines = ProgressLines(lambda line: console().print(line))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Print the progress of the epoch once a minute."""
        if trainer.is_global_zero:
            batches = trainer.num_training_batches
            self._lines.advance(self._name(trainer), 1, int(batches) if math.isfinite(batches) else None)

    def _name(self, trainer: Trainer) -> str:
        return f"{self.stage} epoch {trainer.current_epoch + 1}/{trainer.max_epochs}".strip()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print the losses and the AUC of the epoch."""
        if not trainer.is_global_zero:
            return
        known = {name: float(value) for name, value in trainer.callback_metrics.items() if not math.isnan(float(value))}
        # If only whole scans are labelled, the slices of positive scans are unknown, and only the scans' figures are meaningful.
        level, whose = ("val/", "") if any(f"val/auroc_{label}" in known for label in LABELS) else ("val/scan_", ", scans")
        if f"{level}loss" not in known:
            level, whose = "val/", ""
        shown = {
            "train/loss": "train loss",
            f"{level}loss": f"validation loss{whose}",
            f"{level}auroc_{ANY}": f"AUC any{whose}",
        }
        figures = [f"{name} {known[key]:.4f}" for key, name in shown.items() if key in known]
        console().print(f"{self._name(trainer)}: {', '.join(figures)} ({time.monotonic() - self._started:.0f} s)")
