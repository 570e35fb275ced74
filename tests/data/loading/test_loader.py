"""Stopping inside an epoch, and going on with the batches that remain."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from fabricated import make_labelled
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import Tensor

from ich_lstm.data.joining.join import LabelledScan
from ich_lstm.data.loading.batch import ScanBatch
from ich_lstm.data.loading.dataset import ScanDataset
from ich_lstm.data.loading.loader import ScanLoader, begin_worker, worker_context
from ich_lstm.data.loading.sampler import SliceBudgetSampler
from ich_lstm.data.loading.slice_sampling import SliceSampling
from ich_lstm.preprocessing.augmentation import Geometry

STEPS, EPOCHS, KILLED = 7, 3, 10
"""Batches of an epoch; the fit is killed inside the second one."""


@pytest.fixture(scope="module")
def scans(tmp_path_factory: pytest.TempPathFactory) -> list[LabelledScan]:
    """Fourteen scans, of which two fill a batch."""
    folder = tmp_path_factory.mktemp("cache")
    return [make_labelled(folder, f"1.2.{i}", slices=8 + i % 5, seed=i, size=16) for i in range(2 * STEPS)]


def make_loader(scans: list[LabelledScan], workers: int = 0, sampling: SliceSampling | None = None, **changes: Any) -> ScanLoader:
    sampler = SliceBudgetSampler(
        [len(scan.slice_labels) for scan in scans],
        identifiers=[scan.series_uid for scan in scans],
        sampling=sampling,
        **({"slices_per_batch": 30, "scans_per_batch": 2, "shuffle": True, "seed": 1} | changes),
    )
    return ScanLoader(
        ScanDataset(scans, Geometry(), sampling=sampling, seed=1),
        batch_size=None,
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context=worker_context() if workers else None,
        worker_init_fn=begin_worker,
        generator=torch.Generator(),
    )


def content_of(batch: ScanBatch) -> list[tuple[str, str]]:
    """Each sample of a batch: its id, and a hash of its HU, positions, labels and draws."""
    split = [tensor.split(batch.lengths.tolist()) for tensor in (batch.hu, batch.positions_mm, batch.slice_labels, batch.draws)]
    samples = zip(batch.scan_ids, batch.scan_labels, *split, strict=True)
    return [(name, hashlib.sha256(b"".join(t.numpy().tobytes() for t in tensors)).hexdigest()) for name, *tensors in samples]


class Stop(Exception):
    """A kill."""


class Recorder(LightningModule):
    """Learns nothing, and notes what it is given."""

    def __init__(self, kill_after: int | None = None) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.kill_after = kill_after
        self.seen: list[list[tuple[str, str]]] = []

    def training_step(self, batch: ScanBatch, batch_index: int) -> Tensor:
        if len(self.seen) == self.kill_after:
            raise Stop
        self.seen.append(content_of(batch))
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(recorder: Recorder, loader: ScanLoader, folder: Path, *, every: int | None = None, resume: bool = False) -> Recorder:
    """Train with a checkpoint after every so many steps, or at the end of each epoch."""
    checkpoint = ModelCheckpoint(
        dirpath=folder,
        filename="last",
        enable_version_counter=False,
        every_n_train_steps=every,
        save_on_train_epoch_end=not every,
    )
    trainer = Trainer(
        max_epochs=EPOCHS,
        accelerator="cpu",
        logger=False,
        callbacks=[checkpoint],
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(recorder, loader, ckpt_path=folder / "last.ckpt" if resume else None)
    return recorder


@pytest.fixture(scope="module")
def whole(scans: list[LabelledScan], tmp_path_factory: pytest.TempPathFactory) -> list[list[tuple[str, str]]]:
    """What three epochs without a stop are given."""
    return fit(Recorder(), make_loader(scans), tmp_path_factory.mktemp("whole")).seen


def test_every_epoch_gives_all_scans_anew(whole: list[list[tuple[str, str]]], scans: list[LabelledScan]) -> None:
    assert len(whole) == STEPS * EPOCHS
    for epoch in range(EPOCHS):
        given = [name for batch in whole[epoch * STEPS : (epoch + 1) * STEPS] for name, _ in batch]
        assert sorted(given) == sorted(scan.scan_id for scan in scans)
    assert len({sample for batch in whole for sample in batch}) == 2 * STEPS * EPOCHS


@pytest.mark.parametrize(
    ("before", "after"), [(0, 0), (0, 1), *(pytest.param(*each, marks=pytest.mark.slow) for each in ((2, 0), (0, 2)))]
)
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_fit_killed_inside_an_epoch_goes_on_where_it_was(
    before: int, after: int, whole: list[list[tuple[str, str]]], scans: list[LabelledScan], tmp_path: Path
) -> None:
    """Whatever the number of loader processes, which have drawn several batches ahead."""
    killed = Recorder(kill_after=KILLED)
    with pytest.raises(Stop):
        fit(killed, make_loader(scans, before), tmp_path, every=1)
    assert killed.seen == whole[:KILLED]
    assert fit(Recorder(), make_loader(scans, after), tmp_path, every=1, resume=True).seen == whole[KILLED:]


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_a_fit_killed_between_epochs_goes_on_with_the_next(
    workers: int, whole: list[list[tuple[str, str]]], scans: list[LabelledScan], tmp_path: Path
) -> None:
    with pytest.raises(Stop):
        fit(Recorder(kill_after=KILLED), make_loader(scans), tmp_path)
    assert fit(Recorder(), make_loader(scans, workers), tmp_path, resume=True).seen == whole[STEPS:]


@pytest.mark.parametrize(
    "sampling", [SliceSampling(5), *(pytest.param(each, marks=pytest.mark.slow) for each in (None, SliceSampling(5, "every")))]
)
@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_any_number_of_processes_and_workers_gives_the_same_samples(
    sampling: SliceSampling | None, scans: list[LabelledScan]
) -> None:
    """In an epoch: the same HU, positions and labels."""
    given = []
    for world, workers in [(1, 0), (2, 0), (1, 1), (1, 2), (1, 4), (2, 1)]:
        samples: Counter = Counter()
        for rank in range(world):
            loader = make_loader(scans, workers, sampling, rank=rank, world_size=world)
            loader.sampler.set_epoch(2)
            for batch in loader:
                samples.update(content_of(batch))
        given.append(samples)
    assert all(samples == given[0] for samples in given)


def test_the_state_counts_what_was_given_not_what_was_drawn(scans: list[LabelledScan]) -> None:
    loader = make_loader(scans)
    for _, batches in zip(loader, range(1, 4), strict=False):
        assert loader.state_dict()["batches"] == batches
    assert len(list(loader)) == STEPS
