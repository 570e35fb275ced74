"""Exponential moving average of the weights, which is validated and saved."""

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import EMAWeightAveraging


class MovingAverage(EMAWeightAveraging):
    """Lightning's exponential moving average, of the module alone.

    Lightning's own copies the module as it is, and with it the Trainer that it refers to, and the lists of all scans.

    Args:
        decay: Share of the average that stays at each step.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(decay=decay)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Copy the module when a fit begins."""
        pl_module.trainer = None
        try:
            super().setup(trainer, pl_module, stage)
        finally:
            pl_module.trainer = trainer
