"""Lines about the epochs of a training, for logs in which a progress bar would be unreadable."""

import math
import time
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback

from ich_lstm.cli.console import console
from ich_lstm.cli.progress import LINE_SECONDS, ProgressLines, in_words
from ich_lstm.labels import ANY, LABELS


class EpochLines(Callback):
    """Prints a line after every epoch and, in long epochs, one a minute.

    Args:
        stage: Name of the stage; empty for none.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._lines = ProgressLines(lambda line: console().print(line))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock also for a fit that is resumed inside an epoch."""
        self._started = time.monotonic()

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

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Print the progress of a long validation once a minute."""
        if trainer.is_global_zero and not trainer.sanity_checking:
            counts = [int(count) for count in trainer.num_val_batches if math.isfinite(count)]
            self._lines.advance(f"{self._name(trainer)} validation", 1, sum(counts) or None)


class TimeEstimate(Callback):
    """Prints once, when the first minute of a fit has passed, how long an epoch and the rest of the fit will take.

    Args:
        stage: Name of the stage; empty for none.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._batches = 0
        self._is_told = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._began = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Print the estimate once."""
        if self._is_told or not trainer.is_global_zero or not math.isfinite(trainer.num_training_batches):
            return
        self._batches += 1
        seconds = time.monotonic() - self._began
        if seconds < LINE_SECONDS:
            return
        self._is_told = True
        epoch = seconds / self._batches * trainer.num_training_batches
        line = f"{self.stage} about {in_words(epoch)} for the training of an epoch".strip()
        if trainer.max_epochs is not None and trainer.max_epochs > 0:
            rest = epoch * (trainer.max_epochs - trainer.current_epoch - (batch_idx + 1) / trainer.num_training_batches)
            line += f", {in_words(rest)} to the end of the {'stage' if self.stage else 'training'}, without validation"
        console().print(line, markup=False)
