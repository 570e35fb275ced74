"""Callbacks for training: a moving average of the weights, and checkpoints that hold no path of this machine."""

import os
from pathlib import Path
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EMAWeightAveraging, ModelCheckpoint


class MovingAverage(EMAWeightAveraging):
    """Lightning's exponential moving average, without a copy of the Trainer, and without the steps that a fit skips.

    Lightning's own class deep-copies the module together with its reference to the Trainer, and so with the lists of all scans.

    Args:
        decay: Share of the old average that is kept at each step, in (0, 1).
    """

    def __init__(self, decay: float) -> None:
        super().__init__(decay=decay)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the module without its Trainer when a fit begins."""
        pl_module.trainer = None
        try:
            super().setup(trainer, pl_module, stage)
        finally:
            pl_module.trainer = trainer

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Update the average, unless the step was skipped because its numbers were not finite."""
        if pl_module.step_is_skipped:
            # Lightning counts the step, and would make up for its average after the next batch of an accumulation window.
            self.load_state_dict({"latest_update_step": trainer.global_step})
        else:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)


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
