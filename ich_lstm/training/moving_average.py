"""The moving average of the weights, as a callback."""

from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EMAWeightAveraging


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

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the module the average, also if a finished fit was resumed, so that no step was left and no training ended."""
        self.on_train_end(trainer, pl_module)
