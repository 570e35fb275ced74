"""Labelled head CT as a LightningDataModule: from a folder of DICOM files and a table to packed batches."""

import hashlib
import logging
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from platformdirs import user_cache_path
from pytorch_lightning import LightningDataModule
from torch.utils.data import DataLoader

from ich_lstm.data.batch import SliceBudgetSampler
from ich_lstm.data.cache import read_cached
from ich_lstm.data.dataset import LabelledScan, ScanDataset, join_labels
from ich_lstm.data.labelled import LabelTable
from ich_lstm.data.prepare import Progress, prepare
from ich_lstm.data.prepared import PreparedFolder
from ich_lstm.data.rsna import LABEL_FILE
from ich_lstm.data.split import PARTS, Part, split_patients
from ich_lstm.data.table import read_label_table
from ich_lstm.errors import ConfigError, SourceError
from ich_lstm.pixels.augment import Geometry
from ich_lstm.pixels.preprocess import Preprocessing
from ich_lstm.privacy import ProjectKey

logger = logging.getLogger(__name__)

SCANS_SAMPLED = 64
"""Enough for the median distance of slices, and read in a second."""


class ScanDataModule(LightningDataModule):
    """Whole scans in packed batches, split by patient.

    Args:
        root: A folder or zip of DICOM files, or a folder made by ``ich-prepare``.
        labels: CSV of labels (RSNA's, or one's own); by default ``stage_2_train.csv`` in the root.
        size: Side of the network's input in pixels; of a prepared folder, the size it was made with.
        crop: ``head`` or ``none``; of a prepared folder likewise.
        slices_per_batch: Most slices in a batch; a longer scan travels alone.
        scans_per_batch: Most scans in a batch, if given.
        augment: Flip, shift, scale and rotation in training; null for none.
        split: Shares of patients to train on, to validate on, and to hold out.
        seed: Of the split, the order and the augmentation.
        num_workers: Loader processes.
        allow_missing: Whether labels may name images that are not there.
        cache_dir: Where prepared scans are kept; by default in the user's cache folder.
        project_key: Key file for the ids; by default in the user's configuration folder.
    """

    progress: Progress | None = None
    """Told about the preparation, if set."""

    def __init__(
        self,
        root: str | None = None,
        labels: str | None = None,
        *,
        size: int = 256,
        crop: Literal["head", "none"] = "head",
        slices_per_batch: int = 256,
        scans_per_batch: int | None = None,
        augment: Geometry | None = Geometry(),  # noqa: B008  (frozen)
        split: Sequence[float] = (0.7, 0.15, 0.15),
        seed: int = 0,
        num_workers: int = 2,
        allow_missing: bool = False,
        cache_dir: str | None = None,
        project_key: str | None = None,
    ) -> None:
        super().__init__()
        if slices_per_batch < 1 or (scans_per_batch is not None and scans_per_batch < 1) or num_workers < 0:
            raise ConfigError(
                "batch_out_of_range",
                where="slices_per_batch, scans_per_batch, num_workers",
                got=f"{slices_per_batch}, {scans_per_batch}, {num_workers}",
                expected="at least 1, at least 1 or null, at least 0",
            )
        self.root = root
        self.labels = labels
        self.preprocessing = Preprocessing(size=size, crop=crop)
        self.slices_per_batch = slices_per_batch
        self.scans_per_batch = scans_per_batch
        self.augment = augment
        self.split = split
        self.seed = seed
        self.num_workers = num_workers
        self.allow_missing = allow_missing
        self.cache_dir = cache_dir
        self.project_key = project_key
        self.scans: dict[Part, list[LabelledScan]] = {}
        self.is_synthetic = False
        """Whether the scans are synthetic heads; known after `setup`."""
        self._is_prepared = False
        self._table: LabelTable | None = None

    def prepare_data(self) -> None:
        """Read and cache the scans, unless that is done; Lightning calls it in one process only."""
        root = self._checked_root()
        if self._is_prepared or PreparedFolder.is_one(root):
            return
        prepare(
            root,
            self._prepared_path(root),
            preprocessing=self.preprocessing,
            key=ProjectKey.open(Path(self.project_key) if self.project_key else None),
            labels=self._label_table(root),
            progress=self.progress,
        )
        self._is_prepared = True

    def setup(self, stage: str | None = None) -> None:
        """Join the labels, and divide the patients."""
        if self.scans:
            return
        root = self._checked_root()
        folder = PreparedFolder.open(root if PreparedFolder.is_one(root) else self._prepared_path(root))
        self.preprocessing = folder.preprocessing
        self.is_synthetic = bool(folder.manifest.get("synthetic"))
        table = self._label_table(root)
        for flag in table.flags:
            logger.warning("%s: %s", table.source.name, flag)
        known = join_labels(folder.scans, table, left_out=folder.left_out, allow_missing=self.allow_missing)
        positive = {scan.patient_id: False for scan in known}
        for scan in known:
            positive[scan.patient_id] |= bool((scan.scan_labels == 1).any())
        parts = split_patients(positive, self.split, seed=self.seed)
        self.scans = {part: [scan for scan in known if parts[scan.patient_id] == part] for part in PARTS}

    @cached_property
    def slice_mm(self) -> float:
        """The usual distance of slices in the training scans, in mm, from a sample of them; 0 if all have one slice."""
        scans = self.scans["train"]
        sample = scans[:: max(1, len(scans) // SCANS_SAMPLED)][:SCANS_SAMPLED]
        steps = [np.median(np.diff(read_cached(scan.cache_path).positions_mm)) for scan in sample if len(scan.slice_ids) > 1]
        return float(np.median(steps)) if steps else 0.0

    def train_dataloader(self) -> DataLoader:
        """Augmented, shuffled batches of the training patients."""
        return self._loader("train", training=True)

    def val_dataloader(self) -> DataLoader:
        """Every validation scan once."""
        return self._loader("validation")

    def test_dataloader(self) -> DataLoader:
        """Every held-out scan once."""
        return self._loader("test")

    def evaluation_loader(self, part: Part) -> DataLoader:
        """Every scan of a part once, in this process alone, not augmented."""
        return self._loader(part, alone=True)

    def _loader(self, part: Part, *, training: bool = False, alone: bool = False) -> DataLoader:
        dataset = ScanDataset(self.scans[part], self.augment if training else None, seed=self.seed)
        trainer = None if alone else self.trainer
        sampler = SliceBudgetSampler(
            dataset.lengths,
            slices_per_batch=self.slices_per_batch,
            scans_per_batch=self.scans_per_batch,
            shuffle=training,
            seed=self.seed,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        # batch_size=None: the sampler deals whole batches, and the dataset packs them.
        return DataLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            multiprocessing_context="spawn" if self.num_workers else None,
            # A generator of its own: the loader would draw from torch's, more or less often with more or fewer workers.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _checked_root(self) -> Path:
        if not self.root:
            raise ConfigError(
                "no_data", where="--data.root", got="nothing", expected="a folder of head CT", todo="Give --data.root PATH."
            )
        root = Path(self.root)
        if not root.exists():
            raise SourceError("missing_path", where=str(root), got="no such file or folder", todo="Check --data.root.")
        return root

    def _label_table(self, root: Path) -> LabelTable:
        path = Path(self.labels) if self.labels else root / LABEL_FILE
        if not self.labels and not path.is_file():
            raise ConfigError(
                "no_labels",
                where="--data.labels",
                got=f"nothing, and no {LABEL_FILE} in the root",
                expected="a CSV of labels",
                todo="Give --data.labels FILE.",
            )
        if self._table is None:
            self._table = read_label_table(path)
        return self._table

    def _prepared_path(self, root: Path) -> Path:
        if self.cache_dir:
            return Path(self.cache_dir)
        # One folder per source and labels; the scans' own files are named for their content as well.
        name = f"{root.resolve()}|{self.labels and Path(self.labels).resolve()}|{self.preprocessing}"
        return user_cache_path("ich_lstm") / hashlib.sha256(name.encode()).hexdigest()[:16]
