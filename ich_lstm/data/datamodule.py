"""Labelled head CT as a LightningDataModule: from a folder of DICOM files and a label table to packed batches."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from platformdirs import user_cache_path
from pytorch_lightning import LightningDataModule
from pytorch_lightning.utilities import rank_zero_only

from ich_lstm.data.audit.audit import Audit, audit_scans
from ich_lstm.data.audit.checks import UNDIVIDED
from ich_lstm.data.describe import describe_scans
from ich_lstm.data.joining.join import Disagreement, LabelledScan, PatientIds, join_labels
from ich_lstm.data.joining.locate import LocatedLabels, locate_labels
from ich_lstm.data.labels.choices import read_choices
from ich_lstm.data.labels.corrections import apply_corrections, read_corrections
from ich_lstm.data.labels.cq500 import Truth
from ich_lstm.data.labels.rsna import LABEL_FILE
from ich_lstm.data.labels.table import read_label_tables
from ich_lstm.data.loading.balance import balanced_weights
from ich_lstm.data.loading.batches import Batches
from ich_lstm.data.loading.dataset import ScanDataset
from ich_lstm.data.loading.loader import ScanLoader, worker_context, workers_for
from ich_lstm.data.loading.sampler import FixedSliceBudgetSampler, SliceBudgetSampler
from ich_lstm.data.loading.slice_sampling import SliceSampling
from ich_lstm.data.prepare.prepare import Progress, prepare
from ich_lstm.data.prepared.folder import PreparedFolder, settle_preprocessing
from ich_lstm.data.prepared.scan_cache import read_cached
from ich_lstm.data.split.assign import Subset, tabulate_patients
from ich_lstm.data.split.split_file import Split, SplitFile
from ich_lstm.data.tables.labelled import LabelTable, Unmatched
from ich_lstm.errors import ConfigError, SourceError, SplitError
from ich_lstm.parallel import count_cores
from ich_lstm.preprocessing.augmentation import Geometry, sample_seed
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.privacy import ProjectKey

logger = logging.getLogger(__name__)

SCANS_SAMPLED = 64
"""Enough for the median distance of slices, and read in a second."""


class ScanDataModule(LightningDataModule):
    """Whole scans in packed batches, split by patient.

    Args:
        root: A folder or zip of DICOM files, or a folder made by ``ich-prepare``.
        labels: CSV of labels (RSNA's, CQ500's, BHX's, CT-ICH's, or one's own), or several of them, which count together; by
            default ``stage_2_train.csv`` in the root.
        corrections: CSV of corrections, or several: they win over the labels. Which scans are read, the labels alone say.
        truth: Who of CQ500's three readers must have seen a finding: ``majority``, ``unanimous``, ``any``, or one of them.
        repair_any: Where labels say that a type is present and any is not, believe the type, and count it; otherwise stop.
        preprocessing: How scans are prepared for the network: size, crop and clip. Null: as in a prepared folder, otherwise
            `Preprocessing`'s defaults. Other settings than the prepared folder's are refused.
        choices: CSV of the series to take (columns ``study`` and ``series``) where the rules would take another; a prepared
            folder has its own.
        batches: How training samples are made and put into batches; ``batches=Batches(slices=128)``.
        augment: Flip, shift, scale and rotation in training; null for none.
        split: How patients are divided into those to train on, to validate on, and to hold out.
        patient_ids: What to do with ids that seem not to tell patients apart: ``checked``: stop; ``trusted``: take them;
            ``study``: count every study as a patient's.
        disagreement: Where what labels say of a scan is not what they say of its slices: ``stop``, or let this label be
            ``unknown`` for the scan and its slices, and count it.
        unmatched: What may be left out where labels and images do not fit, and is counted: ``labels`` without an image,
            ``images`` without a label, or ``both``; otherwise ``stop``.
        seed: Seed of the order of the scans and of the augmentation.
        num_workers: Loader processes of each training process. None: one less than it has cores, at most 8; none where it has
            two cores or one.
        cache_dir: Where prepared scans are kept; by default in the user's cache folder.
        project_key: Key file for the ids; by default in the user's configuration folder.
    """

    progress: Progress | None = None
    """Told about the preparation, if set."""

    def __init__(
        self,
        root: Path | str | None = None,
        labels: list[Path] | Path | str | None = None,
        *,
        corrections: list[Path] | Path | str | None = None,
        truth: Truth = "majority",
        repair_any: bool = False,
        preprocessing: Preprocessing | None = None,
        choices: Path | str | None = None,
        batches: Batches = Batches(),  # noqa: B008  (frozen)
        augment: Geometry | None = Geometry(),  # noqa: B008  (frozen)
        split: Split = Split(),  # noqa: B008  (frozen)
        patient_ids: PatientIds = "checked",
        disagreement: Disagreement = "stop",
        unmatched: Unmatched = "stop",
        seed: int = 0,
        num_workers: int | None = None,
        cache_dir: Path | str | None = None,
        project_key: Path | str | None = None,
    ) -> None:
        super().__init__()
        if num_workers is not None and num_workers < 0:
            raise ConfigError("workers_out_of_range", where="num_workers", got=str(num_workers), expected="at least 0")
        self.root = root
        self.labels = labels
        self.corrections = corrections
        self.truth = truth
        self.repair_any = repair_any
        self._requested_preprocessing = preprocessing
        self.preprocessing = settle_preprocessing(None, preprocessing)
        """How scans are prepared: as requested; after `setup`, as they were."""
        self.choices = choices
        self.batches = batches
        """How training samples are made and put into batches, from the next loader on; evaluation uses the budgets alone."""
        self.augment = augment
        self.split = split
        self.patient_ids = patient_ids
        self.disagreement = disagreement
        self.unmatched = unmatched
        self.seed = seed
        self.num_workers = num_workers
        self.cache_dir = cache_dir
        self.project_key = project_key
        self.scans: dict[Subset, list[LabelledScan]] = {}
        self.audit: Audit | None = None
        """What was found in the scans; known after `setup`, also if that stopped."""
        self.patients: SplitFile | None = None
        """Who is in which subset; known after `setup`."""
        self.is_synthetic = False
        """Whether the scans are synthetic heads; known after `setup`."""
        self._is_prepared = False
        self._prepared: PreparedFolder | None = None
        self._table: LabelTable | None = None

    def prepare_data(self) -> None:
        """Read and cache the scans, unless that is done; Lightning calls it in one process only."""
        root = self._checked_root()
        if self._is_prepared or PreparedFolder.is_one(root):
            return
        self._prepared = prepare(
            root,
            self._prepared_path(root),
            preprocessing=self.preprocessing,
            key=ProjectKey.open(Path(self.project_key) if self.project_key else None),
            labels=self._label_table(root),
            choices=read_choices(self.choices) if self.choices else None,
            progress=self.progress,
        )
        self._is_prepared = True

    def setup(self, stage: str | None = None) -> None:
        """Join the labels, divide the patients, and check everything.

        Raises:
            ConfigError: If another preprocessing is asked for than a prepared folder has.
            TableError: If the labels are malformed, or do not fit the images.
            SplitError: If the patients cannot be divided.
            AuditError: If something speaks against training on these scans.
        """
        if self.scans:
            return
        root = self._checked_root()
        if PreparedFolder.is_one(root):
            self.preprocessing = settle_preprocessing(root, self._requested_preprocessing)
            folder = PreparedFolder.open(root)
        else:  # it is read where another process has prepared the scans
            folder = self._prepared or PreparedFolder.open(self._prepared_path(root))
        self._prepared = None  # its tables are large, and training does not need them
        self.is_synthetic = bool(folder.manifest.get("synthetic"))
        table = self._corrected_table(root)
        for flag in table.flags:
            logger.warning("%s: %s", table.source.name, flag)
        located = locate_labels(table, folder.images)
        located.check_unmatched("both")  # the audit stops at labels and at images without the other, and lists both
        known = join_labels(located, patient_ids=self.patient_ids, disagreement=self.disagreement).scans(folder.cache)
        try:
            split = SplitFile.open(tabulate_patients(known), self.split)
            scans = split.divide(known, self.split.fold)
        except SplitError:
            # Ids that many patients share leave too few of them to divide: then the audit says what is wrong.
            audit = self._audit({UNDIVIDED: known}, folder, located)
            if audit.stops:
                self.audit = audit
                audit.stop()
            raise
        self.audit = self._audit({str(subset): mine for subset, mine in scans.items()}, folder, located, split)
        self.audit.stop()
        kept_in = Path(self.split.file) if self.split.file else None
        if kept_in and kept_in.suffix.lower() != ".csv" and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            split.write(kept_in)
        self.scans, self.patients = scans, split

    def _audit(
        self,
        scans: Mapping[str, Sequence[LabelledScan]],
        folder: PreparedFolder,
        located: LocatedLabels,
        split: SplitFile | None = None,
    ) -> Audit:
        return audit_scans(
            scans,
            folder,
            located,
            patient_ids=self.patient_ids,
            unmatched=self.unmatched,
            split=split,
            fold=self.split.fold,
            key=ProjectKey.open(Path(self.project_key) if self.project_key else None),
        )

    @cached_property
    def slice_mm(self) -> float:
        """The usual distance of slices in the training scans, in mm, from a sample of them; 0 if all have one slice."""
        scans = self._scans_of("train")
        sample = scans[:: max(1, len(scans) // SCANS_SAMPLED)][:SCANS_SAMPLED]
        steps = [np.median(np.diff(read_cached(scan.cache_path).positions_mm)) for scan in sample if len(scan.slice_ids) > 1]
        return float(np.median(steps)) if steps else 0.0

    def describe_training(self) -> dict[str, Any]:
        """The training scans in numbers without any identity, for ``model.json``; known after `setup`.

        Returns:
            The summary made by :func:`~ich_lstm.data.describe.describe_scans`.
        """
        return describe_scans(self._scans_of("train"), is_synthetic=self.is_synthetic)

    def train_dataloader(self) -> ScanLoader:
        """Augmented, shuffled batches of the training patients."""
        return self._loader("train", training=True)

    def val_dataloader(self) -> ScanLoader:
        """Every validation scan once."""
        return self._loader("validation")

    def test_dataloader(self) -> ScanLoader:
        """Every held-out scan once."""
        return self._loader("test")

    def predict_dataloader(self) -> ScanLoader:
        """Every held-out scan once, for ``Trainer.predict``."""
        return self._loader("test")

    def evaluation_loader(self, subset: Subset) -> ScanLoader:
        """Every scan of a subset once, in this process alone, not augmented."""
        return self._loader(subset, alone=True)

    def sample_loader(self, subset: Subset, slices: int) -> ScanLoader:
        """Whole scans of a subset, drawn at random until they have so many slices, in this process alone, not augmented.

        The draw is a pure function of the seed and the raw identifiers.
        """
        drawn = sorted(self._scans_of(subset), key=lambda scan: sample_seed(self.seed, 0, scan.series_uid, purpose="sample"))
        before = np.cumsum([0, *(len(scan.slice_labels) for scan in drawn)])[:-1]
        return self._loader(subset, alone=True, scans=[scan for scan, count in zip(drawn, before, strict=True) if count < slices])

    def _loader(
        self, subset: Subset, *, training: bool = False, alone: bool = False, scans: list[LabelledScan] | None = None
    ) -> ScanLoader:
        scans = self._scans_of(subset) if scans is None else scans
        batches = self.batches
        sampling = batches.sampling if training else SliceSampling()
        dataset = ScanDataset(
            scans,
            self.augment if training else None,
            sampling=sampling,
            cutmix=batches.cutmix if training else 0.0,
            seed=self.seed,
        )
        trainer = None if alone else self.trainer
        # To overfit some batches they must be the same ones in every epoch.
        shuffle = training and not (trainer and trainer.overfit_batches > 0)  # type: ignore[attr-defined]
        weights = None
        if shuffle and batches.balance:
            weights = balanced_weights([scan.slice_labels for scan in scans], np.array([scan.scan_labels for scan in scans]))
        sampler = (SliceBudgetSampler if shuffle else FixedSliceBudgetSampler)(
            dataset.lengths,
            identifiers=[scan.series_uid for scan in scans],
            sampling=sampling,
            weights=weights,
            slices_per_batch=batches.slices,
            scans_per_batch=batches.scans,
            shuffle=shuffle,
            seed=self.seed,
            rank=trainer.global_rank if trainer else 0,
            world_size=trainer.world_size if trainer else 1,
        )
        workers = self.num_workers
        if workers is None:
            workers = workers_for(count_cores(), trainer.num_devices if trainer else 1)
        # batch_size=None: the sampler deals whole batches, and the dataset packs them.
        return ScanLoader(
            dataset,
            batch_size=None,
            sampler=sampler,
            num_workers=workers,
            persistent_workers=workers > 0,
            multiprocessing_context=worker_context() if workers else None,
            # Copies to a GPU wait for nothing only out of pinned memory.
            pin_memory=trainer is not None and trainer.strategy.root_device.type == "cuda",
            # A generator of its own: the loader would draw from torch's, more or less often with more or fewer workers.
            generator=torch.Generator().manual_seed(self.seed),
        )

    def _scans_of(self, subset: Subset) -> list[LabelledScan]:
        if subset not in self.scans:
            raise ConfigError(
                "not_set_up",
                where="ScanDataModule",
                got="no scans yet: they have not been read and divided",
                expected=f"the scans of the subset {subset}",
                todo="Call prepare_data() and setup() first; a Trainer does so when it gets datamodule=data.",
            )
        return self.scans[subset]

    def _checked_root(self) -> Path:
        if not self.root:
            raise ConfigError(
                "no_data", where="root", got="nothing", expected="a folder of head CT", todo="Name it: --data.root of ich-train."
            )
        root = Path(self.root)
        if not root.exists():
            raise SourceError("missing_path", where=str(root), got="no such file or folder", todo="Check the path.")
        return root

    def _label_table(self, root: Path) -> LabelTable:
        paths = self._label_files() or [root / LABEL_FILE]
        if not self.labels and not paths[0].is_file():
            raise ConfigError(
                "no_labels",
                where="labels",
                got=f"nothing, and no {LABEL_FILE} in the root",
                expected="a CSV of labels",
                todo="Give [labels=FILE].",
            )
        if self._table is None:
            self._table = read_label_tables(paths, truth=self.truth, repair_any=self.repair_any)
        return self._table

    def _corrected_table(self, root: Path) -> LabelTable:
        table, files = self._label_table(root), _paths(self.corrections)
        return apply_corrections(table, read_corrections(files, repair_any=self.repair_any)) if files else table

    def _label_files(self) -> list[Path]:
        return _paths(self.labels)

    def _prepared_path(self, root: Path) -> Path:
        if self.cache_dir:
            return Path(self.cache_dir)
        # One folder per source, labels and choices; the scans' own files are named for their content as well.
        tables = [path.resolve() for path in (*self._label_files(), *_paths(self.choices))]
        name = "|".join(map(str, [root.resolve(), *tables, self.preprocessing]))
        return user_cache_path("ich_lstm") / hashlib.sha256(name.encode()).hexdigest()[:16]


def _paths(files: list[Path] | Path | str | None) -> list[Path]:
    return [Path(file) for file in ([files] if isinstance(files, str | Path) else files or []) if file]
