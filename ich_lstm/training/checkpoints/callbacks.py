"""Callbacks that save checkpoints: the best one, and the last one from which a fit can be resumed."""

import os
import time
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Checkpoint, ModelCheckpoint

from ich_lstm.training.checkpoints.checkpoint_io import LAST
from ich_lstm.training.checkpoints.exact_resume import validation_follows
from ich_lstm.training.checkpoints.interruption import Interruption
from ich_lstm.training.faults.processes import of_all_processes


def without_folders(value: Any) -> Any:
    """Copy nested values, and replace every absolute path by the name of its file or folder."""
    if isinstance(value, str):
        return Path(value).name if os.path.isabs(value) else value
    if isinstance(value, dict):
        return {without_folders(key): without_folders(item) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item) for item in value]
    return value


class PathlessCheckpoint(ModelCheckpoint):
    """A ModelCheckpoint that writes no path of this machine into the files it saves."""

    def state_dict(self) -> dict[str, Any]:
        """Lightning's state, with file names instead of paths."""
        state = super().state_dict()
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[name] = Path(state[name]).name
        state["best_k_models"] = {Path(path).name: score for path, score in state["best_k_models"].items()}
        state["dirpath"] = ""
        return state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore Lightning's state; the file names refer to the folder of this run."""
        folder = Path(self.dirpath or "")
        state = dict(state_dict)
        for name in ("best_model_path", "kth_best_model_path", "last_model_path"):
            state[name] = str(folder / state[name]) if state[name] else ""
        state["best_k_models"] = {str(folder / name): score for name, score in state["best_k_models"].items()}
        state["dirpath"] = self.dirpath
        super().load_state_dict(state)


class LastCheckpoint(Checkpoint):
    """Saves ``last.ckpt``, from which a fit can be resumed bit for bit: at intervals, before each validation, after each epoch.

    When the process is asked to stop, it saves after the running step, and then ends the fit.

    Args:
        folder: Folder for the checkpoints.
        minutes: Longest time between two checkpoints, apart from the time of a step and of a validation.
        interruption: Requests to stop; None if the process handles signals in another way.
    """

    def __init__(self, folder: Path, *, minutes: float = 15.0, interruption: Interruption | None = None) -> None:
        self.path = folder / LAST
        self.minutes = minutes
        self.interruption = interruption
        self._saved = 0.0
        self._is_new = False  # whether nothing was trained since it was saved

    def on_sanity_check_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the handling of signals from Lightning, whose handler waits for all processes and can wait forever."""
        if self.interruption is not None:
            self.interruption.stop_at_once()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock, and take over the handling of signals from Lightning, which would end the process without a word."""
        self._saved = time.monotonic()
        self._is_new = bool(trainer.ckpt_path)  # a resumed fit may begin with a validation
        if self.interruption is not None:
            self.interruption.wait_for_safe_moment()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop if a signal came after the last step; from here on, a signal stops the process at once."""
        must_stop = self._must_stop(trainer)
        if self.interruption is not None:
            self.interruption.stop_at_once()
        if must_stop:
            self._stop(trainer)

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Save if the time has come, if validation follows, or if the process was asked to stop."""
        self._is_new = False
        if (batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch:
            return  # gradients that are being accumulated are not in a checkpoint
        validates = validation_follows(trainer)
        if trainer.is_last_batch and not validates:
            return  # the end of the epoch follows, and is saved
        is_due = validates or _in_any_process(trainer, time.monotonic() - self._saved > 60 * self.minutes)
        must_stop = self._must_stop(trainer)
        if is_due or must_stop:
            self._save(trainer)
        if must_stop:
            self._stop(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end of the epoch."""
        must_stop = self._must_stop(trainer)
        self._save(trainer)
        if must_stop and trainer.current_epoch + 1 != trainer.max_epochs:
            self._stop(trainer)

    def on_validation_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Stop if the process was asked to; the checkpoint that was saved before the validation leads back to its start.

        None was saved if the validation lies between batches whose gradients are accumulated. The fit then stops after them.
        """
        if self._is_new and self._must_stop(trainer):
            self._stop(trainer)

    def _must_stop(self, trainer: Trainer) -> bool:
        """Whether one of the processes was asked to stop; all of them get the same answer."""
        if self.interruption is None:
            return False
        return _in_any_process(trainer, self.interruption.is_requested)

    def _save(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.path)
        self._saved, self._is_new = time.monotonic(), True

    def _stop(self, trainer: Trainer) -> None:
        assert self.interruption is not None
        received = of_all_processes(trainer, self.interruption.signum)
        self.interruption.stop(self.path, next(filter(None, received)))


def _in_any_process(trainer: Trainer, is_true: bool) -> bool:
    """Whether something is true in one of the processes; all of them get the same answer."""
    return trainer.strategy.reduce_boolean_decision(is_true, all=False)
