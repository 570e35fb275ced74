"""Where a training logs to: always a CSV, and what else is asked for."""

from pathlib import Path
from typing import Literal

from pytorch_lightning.loggers import CSVLogger, Logger

WandbMode = Literal["offline", "online"]


def make_loggers(
    given: Logger | list[Logger] | bool | None, place: Path, private: Path, *, wandb: WandbMode | None, tensorboard: bool
) -> list[Logger]:
    """The loggers of a stage.

    Args:
        given: Those of the configuration.
        place: The stage's folder, in which ``metrics.csv`` is written.
        private: The run's private folder.
        wandb: Whether, and how, Weights & Biases logs.
        tensorboard: Whether TensorBoard's files are written.
    """
    loggers: list[Logger] = [CSVLogger(place, name="", version="")]
    loggers += given if isinstance(given, list) else [given] if isinstance(given, Logger) else []
    return loggers
