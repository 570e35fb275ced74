"""Labelled head CT as a LightningDataModule: from a folder of DICOM files and a label table to packed batches."""

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

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
from ich_lstm.data.loading.batching import Batching
from ich_lstm.data.loading.dataset import ScanDataset
from ich_lstm.data.loading.loader import ScanLoader, worker_context, workers_for
from ich_lstm.data.loading.sampler import FixedSliceBudgetSampler, SliceBudgetSampler
from ich_lstm.data.loading.slice_sampling import SliceChoice, SliceSampling
from ich_lstm.data.prepare.prepare import Progress, prepare
from ich_lstm.data.prepared.folder import PreparedFolder, settle_preprocessing
from ich_lstm.data.prepared.scan_cache import read_cached
from ich_lstm.data.split.assign import SplitBy, Subset, tabulate_patients
from ich_lstm.data.split.split_file import SplitFile
from ich_lstm.data.tables.labelled import LabelTable, Unmatched
from ich_lstm.errors import ConfigError, SourceError, SplitError
from ich_lstm.keywords import changes_of, keywords_of, takes_keywords
from ich_lstm.parallel import count_cores
from ich_lstm.preprocessing.augmentation import Geometry, sample_seed
from ich_lstm.preprocessing.crop_and_resize import Crop
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
        size: Side of the network's input in pixels. Null: that of a prepared folder, otherwise `Preprocessing`'s default. Another
            size than the prepared folder's is refused.
        crop: ``head``, ``center`` or ``none``. Null: that of a prepared folder, otherwise `Preprocessing`'s default. Another crop
            than the prepared folder's is refused.
        clip: Lowest and highest HU to keep, for a smaller cache. Null: those of a prepared folder, otherwise all HU. Others than
            the prepared folder's are refused.
        choices: CSV of the series to take (columns ``study`` and ``series``) where the rules would take another; a prepared
            folder has its own.
        slices_per_batch: Most slices in a batch; a longer scan travels alone. ``auto``, which is for ich-train alone: as many as
            the device's memory holds, found by trying.
        scans_per_batch: Most scans in a batch, if given.
        slices_per_sample: Most slices of a scan in a training sample; null for whole scans. Evaluation is on whole scans.
        sample: Which slices these are: ``adjacent`` around a random centre, ``random`` ones, or ``every`` slice of the scan once
            in an epoch, in random groups.
        balance: Draw scans of rare hemorrhage types more often in training, so that all types are seen equally often.
        cutmix: Alpha of CutMix over the slices of a batch in training (Yun et al. 2019), which makes labels soft; 0 for none.
        augment: Flip, shift, scale and rotation in training; null for none.
        split: Shares of patients to train on, to validate on, and to hold out.
        split_by: ``random``: each label's positive patients in nearly these shares; ``date``: the earliest patients train, the
            latest are held out.
        split_seed: Seed of the split. It is not the run's, so that all runs hold out the same patients.
        split_file: Where the split is kept: made if missing, otherwise read, and only new patients are placed. Or a table of
            one's own: a CSV with ``patient_id`` and ``subset`` (train, validation, test).
        folds: Number of folds, in place of the shares.
        fold: The fold that is held out, from 0; the next one validates, the others train.
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
        root: str | None = None,
        labels: list[str] | str | None = None,
        *,
        corrections: list[str] | str | None = None,
        truth: Truth = "majority",
        repair_any: bool = False,
        size: int | None = None,
        crop: Crop | None = None,
        clip: tuple[int, int] | None = None,
        choices: str | None = None,
        slices_per_batch: int | Literal["auto"] = 256,
        scans_per_batch: int | None = None,
        slices_per_sample: int | None = None,
        sample: SliceChoice = "adjacent",
        balance: bool = False,
        cutmix: float = 0.0,
        augment: Geometry | None = Geometry(),  # noqa: B008  (frozen)
        split: Sequence[float] = (0.7, 0.15, 0.15),
        split_by: SplitBy = "random",
        split_seed: int = 0,
        split_file: str | None = None,
        folds: int | None = None,
        fold: int = 0,
        patient_ids: PatientIds = "checked",
        disagreement: Disagreement = "stop",
        unmatched: Unmatched = "stop",
        seed: int = 0,
        num_workers: int | None = None,
        cache_dir: str | None = None,
        project_key: str | None = None,
    ) -> None:
        super().__init__()
        if num_workers is not None and num_workers < 0:
            raise ConfigError("workers_out_of_range", where="num_workers", got=str(num_workers), expected="at least 0")
        if slices_per_batch == "auto":
            raise ConfigError(
                "auto_unresolved",
                where="slices_per_batch",
                got="auto",
                expected="a number: only ich-train replaces auto, before it makes the data",
                todo="Find it with ich-train --plan, or with ich_lstm.training.memory_planner.plan_memory.",
            )
        self.root = root
        self.labels = labels
        self.corrections = corrections
        self.truth = truth
        self.repair_any = repair_any
        self._asked_preprocessing: dict[str, Any] = {"size": size, "crop": crop, "clip": clip}
        self.preprocessing = settle_preprocessing(None, **self._asked_preprocessing)
        """How scans are prepared: as was asked for; after `setup`, as they were."""
        self.choices = choices
        self._batching = Batching(
            slices_per_batch=slices_per_batch,
            scans_per_batch=scans_per_batch,
            slices_per_sample=slices_per_sample,
            sample=sample,
            balance=balance,
            cutmix=cutmix,
        )
        self.augment = augment
        self.split = split
        self.split_by = split_by
        self.split_seed = split_seed
        self.split_file = split_file
        self.folds = folds
        self.fold = fold
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

    @property
    def batching(self) -> dict[str, Any]:
        """How training samples are made and put into batches: what `set_batching` can change, by name."""
        return asdict(self._batching)

    @takes_keywords(changes_of(keywords_of(Batching)), code="unknown_batching")
    def set_batching(self, **changes: Any) -> None:
        """Make other batches from the next loader on, for another stage of the training; evaluation heeds the budgets alone.

        Args:
            **changes: Some of ``slices_per_batch, scans_per_batch, slices_per_sample, sample, balance, cutmix``, as in the
                constructor.

        Raises:
            ConfigError: If a name is none of these, or a value is out of range; then nothing is changed.
        """
        self._batching = replace(self._batching, **changes)

    @property
    def balance(self) -> bool:
        """Whether scans of rare hemorrhage types are drawn more often in training."""
        return self._batching.balance

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
            self.preprocessing = settle_preprocessing(root, **self._asked_preprocessing)
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
            split = self._split(known)
            scans = split.divide(known, self.fold)
        except SplitError:
            # Ids that many patients share leave too few of them to divide: then the audit says what is wrong.
            audit = self._audit({UNDIVIDED: known}, folder, located)
            if audit.stops:
                self.audit = audit
                audit.stop()
            raise
        self.audit = self._audit({str(subset): mine for subset, mine in scans.items()}, folder, located, split)
        self.audit.stop()
        if self.split_file and not self.split_file.lower().endswith(".csv") and rank_zero_only.rank == 0:  # type: ignore[attr-defined]
            split.write(Path(self.split_file))
        self.scans, self.patients = scans, split

    def _split(self, known: Sequence[LabelledScan]) -> SplitFile:
        """Who is in which subset: as the file says, and new patients as the settings say."""
        return SplitFile.open(
            Path(self.split_file) if self.split_file else None,
            tabulate_patients(known),
            fractions=self.split,
            seed=self.split_seed,
            by=self.split_by,
            folds=self.folds,
        )

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
            fold=self.fold,
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
        batching = self._batching
        sampling = batching.sampling if training else SliceSampling()
        dataset = ScanDataset(
            scans,
            self.augment if training else None,
            sampling=sampling,
            cutmix=batching.cutmix if training else 0.0,
            seed=self.seed,
        )
        trainer = None if alone else self.trainer
        # To overfit some batches they must be the same ones in every epoch.
        shuffle = training and not (trainer and trainer.overfit_batches > 0)  # type: ignore[attr-defined]
        weights = None
        if shuffle and batching.balance:
            weights = balanced_weights([scan.slice_labels for scan in scans], np.array([scan.scan_labels for scan in scans]))
        sampler = (SliceBudgetSampler if shuffle else FixedSliceBudgetSampler)(
            dataset.lengths,
            identifiers=[scan.series_uid for scan in scans],
            sampling=sampling,
            weights=weights,
            slices_per_batch=batching.slices_per_batch,
            scans_per_batch=batching.scans_per_batch,
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
        tables = [path.resolve() for path in (*self._label_files(), *map(Path, filter(None, [self.choices])))]
        name = "|".join(map(str, [root.resolve(), *tables, self.preprocessing]))
        return user_cache_path("ich_lstm") / hashlib.sha256(name.encode()).hexdigest()[:16]


def _paths(files: list[str] | str | None) -> list[Path]:
    return [Path(file) for file in ([files] if isinstance(files, str) else files or []) if file]
