"""Prediction of an archive on several devices: Lightning distributes the studies, and each process writes its own results."""

from collections.abc import Callable
from typing import Any

from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import BasePredictionWriter
from torch.utils.data import DataLoader, Dataset

from ich_lstm.archive.run import ArchiveRun, Progressed
from ich_lstm.training.faults.processes import leave_processes


class _Studies(LightningModule):
    """The model for Lightning's predict loop, in which a batch is the number of a study."""

    def __init__(self, run: ArchiveRun) -> None:
        super().__init__()
        self.model = run.predictor.model  # a submodule, so that Lightning moves it to the device of the process
        self.run = run

    def predict_step(self, number: int, batch_index: int) -> Progressed:
        """Read and predict one study."""
        return self.run.predict(number)

    def on_predict_end(self) -> None:
        """Wait for all processes, because the first one then builds the tables from all results."""
        self.trainer.strategy.barrier()


class _Numbers(Dataset[int]):
    """The numbers of the studies, as a data set."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> int:
        return number


class _Writer(BasePredictionWriter):
    """Reports each study that a process has predicted; `ArchiveRun.predict` has already written its results."""

    def __init__(self, progress: Callable[[Progressed], None]) -> None:
        super().__init__(write_interval="batch")
        self.progress = progress

    def write_on_batch_end(self, trainer: Trainer, pl_module: LightningModule, prediction: Any, *_: Any) -> None:
        """Report a finished study."""
        self.progress(prediction)


def predict_on_devices(run: ArchiveRun, *, accelerator: str, devices: int, progress: Callable[[Progressed], None]) -> bool:
    """Predict all studies of a run.

    Args:
        run: The run, which every process has made from the same arguments.
        accelerator: The `accelerator` argument of Lightning's Trainer.
        devices: Number of devices, each with its own process.
        progress: Called in each process with every study that the process has predicted.

    Returns:
        Whether this process must finish the run; the others have nothing more to do.
    """
    trainer = Trainer(
        accelerator=accelerator,
        devices=devices,
        strategy="ddp",
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        callbacks=[_Writer(progress)],
    )
    loader: DataLoader[int] = DataLoader(_Numbers(len(run)), batch_size=None, num_workers=0)
    trainer.predict(_Studies(run), loader, return_predictions=False)
    is_first = trainer.is_global_zero
    leave_processes()
    return is_first
