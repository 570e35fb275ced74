"""Short fits that several tests look at."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from fabricated import make_classifier
from pytorch_lightning import Callback, LightningModule, Trainer, seed_everything

from ich_lstm import ScanClassifier, ScanDataModule
from ich_lstm.data.loading.batches import Batches
from ich_lstm.data.prepared.folder import PreparedFolder
from ich_lstm.data.split.split_file import Split
from ich_lstm.training.checkpoints.callbacks import PathlessCheckpoint

EPOCHS = 4


@dataclass
class Fit:
    """A fit that has ended."""

    folder: Path
    classifier: ScanClassifier
    checkpoint: PathlessCheckpoint
    data: Callable[..., ScanDataModule]
    monitored: list[float]
    losses: list[float]
    rates: list[list[float]]
    seen: list[list[str]]


class Watch(Callback):
    """Notes what a fit did: the monitored value of each epoch, and of each step the loss, the rates and the scans."""

    def __init__(self) -> None:
        self.monitored: list[float] = []
        self.losses: list[float] = []
        self.rates: list[list[float]] = []
        self.seen: list[list[str]] = []

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_index: int) -> None:
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])
        if batch_index == 0:
            self.seen.append([])
        self.seen[-1] += batch.scan_ids

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_index: int) -> None:
        self.losses.append(float(outputs["loss"]))

    def on_validation_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.monitored.append(float(trainer.callback_metrics["val/monitor"]))

    def state_dict(self) -> dict[str, Any]:
        return {"monitored": self.monitored, "losses": self.losses}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.monitored, self.losses = list(state["monitored"]), list(state["losses"])


class Stop(Exception):
    """A kill after so many epochs."""


class StopAfter(Callback):
    """Ends a fit as a kill would, when its checkpoint has been written."""

    def __init__(self, epochs: int) -> None:
        self.epochs = epochs

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        if trainer.current_epoch == self.epochs:
            raise Stop


@pytest.fixture(scope="session")
def data(prepared: PreparedFolder, phantom: Path) -> Callable[..., ScanDataModule]:
    """Data modules on the prepared phantom, four patients to train on."""

    def _data(**changes: Any) -> ScanDataModule:
        settings = {
            "labels": str(phantom / "stage_2_train.csv"),
            "num_workers": 0,
            "batches": Batches(slices=24),
            "split": Split(fractions=(4, 2, 0)),
        }
        return ScanDataModule(str(prepared.folder), **(settings | changes))

    return _data


@pytest.fixture(scope="session")
def fit(data: Callable[..., ScanDataModule]) -> Callable[..., Fit]:
    """Train a small classifier on the CPU."""

    def _fit(
        folder: Path,
        *,
        resume: bool = False,
        stop: int | None = None,
        labels: str | None = None,
        trainer: dict | None = None,
        way: Callable[[ScanClassifier], ScanClassifier] | None = None,
        slices: int = 24,
        loading: dict | None = None,
        **changes: Any,
    ) -> Fit:
        seed_everything(7, verbose=False)
        watch = Watch()
        checkpoint = PathlessCheckpoint(
            dirpath=folder / "checkpoints", filename="best", monitor="val/monitor", save_last=True, enable_version_counter=False
        )
        classifier = make_classifier(**({"optimizer": {"lr": 3e-3, "encoder_lr": 1e-3}} | changes))
        classifier.preprocessing = None
        classifier = way(classifier) if way else classifier
        settings: dict[str, Any] = {
            "max_epochs": EPOCHS,
            "accelerator": "cpu",
            "logger": False,
            "enable_progress_bar": False,
            "enable_model_summary": False,
            "num_sanity_val_steps": 0,
            "callbacks": [watch, checkpoint, *([StopAfter(stop)] if stop else [])],
        }
        last = folder / "checkpoints" / "last.ckpt"
        module = data(batches=Batches(slices=slices), **({"labels": labels} if labels else {}), **(loading or {}))
        Trainer(**(settings | (trainer or {}))).fit(classifier, module, ckpt_path=last if resume else None)
        return Fit(folder, classifier, checkpoint, data, watch.monitored, watch.losses, watch.rates, watch.seen)

    return _fit


@pytest.fixture(scope="session")
def trained(fit: Callable[..., Fit], tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """Four epochs without a stop."""
    return fit(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="session")
def resumed(fit: Callable[..., Fit], tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """The same four epochs, killed after two and resumed in the same folder."""
    folder = tmp_path_factory.mktemp("resumed")
    with pytest.raises(Stop):
        fit(folder, stop=2)
    with pytest.warns(UserWarning, match="exists and is not empty"):
        return fit(folder, resume=True)
