"""Labelled head CT as a LightningDataModule: from a folder of DICOM files and a label table to packed batches."""

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from platformdirs import user_cache_path
from pytorch_lightning import LightningDataModule, Trainer
from pytorch_lightning.utilities import rank_zero_only

from ich_lstm.data.audit.audit import Audit, audit_scans
from ich_lstm.data.audit.checks import UNDIVIDED
from ich_lstm.data.describe import describe_scans
from ich_lstm.data.features.feature_dataset import FeatureDataset, ScanFeatures
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
from ich_lstm.data.loading.loader import CheckedLoader, ScanLoader, begin_worker, worker_context, workers_for
from ich_lstm.data.loading.sampler import FixedSliceBudgetSampler, SliceBudgetSampler
from ich_lstm.data.loading.slice_sampling import SampleRequest, SliceSampling
from ich_lstm.data.prepare.prepare import Progress, prepare
from ich_lstm.data.prepared.folder import PreparedFolder, settle_preprocessing
from ich_lstm.data.prepared.scan_cache import read_cached
from ich_lstm.data.profile import profile_scans
from ich_lstm.data.split.assign import Subset, TrainingPatients, is_left_to_head, tabulate_patients
from ich_lstm.data.split.split_file import Split, SplitFile
from ich_lstm.data.tables.labelled import LabelTable, Unmatched
from ich_lstm.errors import ConfigError, SourceError, SplitError
from ich_lstm.labels import never_absent
from ich_lstm.parallel import count_cores
from ich_lstm.preprocessing.augmentation import Geometry, sample_seed
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.printable import printable_logger
from ich_lstm.privacy import ProjectKey
from ich_lstm.settings import require

logger = printable_logger(__name__)

SCANS_SAMPLED = 64
"""Number of training scans from which the median slice spacing is estimated; they are read in about a second."""


class ScanDataModule(LightningDataModule):
    """Whole scans in packed batches, split by patient.

    Args:
        root: A folder or zip of DICOM files, or a folder made by ``ich-prepare``.
        labels: CSV of labels, or several that are read as one: those of RSNA, CQ500, BHX or CT-ICH, or your own. Null for
            ``stage_2_train.csv`` in the root.
        corrections: CSV of corrections that override the labels, or several of them. Corrections add no scans: only scans with
            labels are read.
        truth: Which of CQ500's three readers must have marked a finding: ``majority``, ``unanimous`` or ``any`` of them, or one
            reader, ``R1``, ``R2`` or ``R3``.
        repair_any: If labels say that a type is present and "any" is absent, set "any" to present and count the repair. False
            stops with an error.
        preprocessing: How scans are prepared for the network: size, crop and clip. Null takes the settings of a prepared folder,
            and otherwise the defaults of `Preprocessing`. Settings that differ from those of the prepared folder are refused.
        choices: CSV (columns ``study`` and ``series``) of series to use instead of those that the rules choose. A prepared folder
            holds its own choices.
        batches: How training samples are made and batched, for example ``batches=Batches(slices=128)``.
        augment: Random flip, shift, scaling and rotation in training; null for none.
        split: How patients are divided into training, validation and held-out test.
        head_share: Share of the training patients, in [0, 1), that stages with ``patients: encoder`` leave to those with
            ``patients: head``. A head that learns from scans that the encoder has been trained on sees features that are better
            than those of any other scan.
        patient_ids: How to treat patient ids that seem not to distinguish patients. ``checked``: stop; ``trusted``: use them;
            ``study``: count every study as a patient of its own.
        disagreement: How to treat a scan label that contradicts the labels of the scan's slices. ``stop``: stop; ``unknown``: set
            the label to unknown for the scan and its slices, and count the case.
        unmatched: How to treat labels and images that do not match. ``stop``: stop; ``labels``: exclude and count labels without
            an image; ``images``: exclude and count images without a label; ``both``: exclude and count labels and images.
        seed: Seed of the order of the scans and of the augmentation.
        num_workers: Number of loader processes per training process, at least 0. Null for one less than the cores of each
            training process, at most 8, and 0 if it has one or two cores.
        cache_dir: Folder for prepared scans; null for a folder in the user's cache.
        project_key: Key file for the hashed ids; null for the one in the user's configuration folder.
    """

    progress: Progress | None = None
    """Function that is called with the progress of the preparation; None for no calls."""

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
        head_share: float = 0.0,
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
        require("head_share_out_of_range", "in [0, 1)", {} if 0 <= head_share < 1 else {"head_share": head_share})
        self.root = root
        self.labels = labels
        self.corrections = corrections
        self.truth = truth
        self.repair_any = repair_any
        self._requested_preprocessing = preprocessing
        self.preprocessing = settle_preprocessing(None, preprocessing)
        """How scans are prepared: the requested settings, and after `setup` the actual ones."""
        self.choices = choices
        self.batches = batches
        """How training samples are made and batched; a change takes effect with the next loader. Evaluation uses only the limits
        of slices and scans per batch."""
        self.augment = augment
        self.split = split
        self.head_share = head_share
        self.training_patients: TrainingPatients = "all"
        """The training patients whose scans the next training loader gives; a stage sets it."""
        self.adjacent_slices = 0
        """How many neighbours on either side come with each slice of a part of a scan; the model sets it."""
        self.patient_ids = patient_ids
        self.disagreement = disagreement
        self.unmatched = unmatched
        self.seed = seed
        self.num_workers = num_workers
        self.cache_dir = cache_dir
        self.project_key = project_key
        self.scans: dict[Subset, list[LabelledScan]] = {}
        self.audit: Audit | None = None
        """Findings of the audit of scans and labels; known after `setup`, even if `setup` raised an error."""
        self.patients: SplitFile | None = None
        """The subset of each patient; known after `setup`."""
        self.features: ScanFeatures | None = None
        """Stored features that all loaders give in place of HU, while a fit trains only the head; None for HU."""
        self.is_synthetic = False
        """Whether the scans are synthetic heads; known after `setup`."""
        self._is_prepared = False
        self._prepared: PreparedFolder | None = None
        self._table: LabelTable | None = None
        self._facts: pd.DataFrame | None = None

    def prepare_data(self) -> None:
        """Read and cache the scans, unless they are prepared already. Lightning calls this in one process only."""
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

    def prepare_as(self, preprocessing: Preprocessing) -> None:
        """Prepare scans for a model, if no preprocessing was requested.

        Args:
            preprocessing: The preprocessing of the model.

        Raises:
            ConfigError: ``other_preprocessing``, if another one was requested.
        """
        if self._requested_preprocessing not in (None, preprocessing):
            raise ConfigError(
                "other_preprocessing",
                where="data",
                got=str(self._requested_preprocessing),
                expected=f"{preprocessing}, for which the model has been trained",
                todo="Leave preprocessing out, or give that of the model.",
            )
        self._requested_preprocessing = preprocessing
        root = Path(self.root) if self.root else None
        self.preprocessing = settle_preprocessing(
            root if root is not None and PreparedFolder.is_one(root) else None, preprocessing
        )

    def setup(self, stage: str | None = None) -> None:
        """Join labels and scans, split the patients, and audit the result.

        Args:
            stage: Lightning's name of the stage; it has no effect.

        Raises:
            ConfigError: If the requested preprocessing differs from that of a prepared folder.
            TableError: If the labels are malformed, or do not match the images.
            SplitError: If the patients cannot be divided.
            AuditError: If a finding of the audit forbids training on these scans.
        """
        if self.scans:
            return
        root = self._checked_root()
        if PreparedFolder.is_one(root):
            self.preprocessing = settle_preprocessing(root, self._requested_preprocessing)
            folder = PreparedFolder.open(root)
        else:  # another process may have prepared the scans; then they are read from its folder
            folder = self._prepared or PreparedFolder.open(self._prepared_path(root))
        self._prepared = None  # its tables are large, and training does not need them
        self._facts = folder.facts.drop(columns=["patient_id", "study_uid", "series_uid"]).set_index("cache")
        self.is_synthetic = bool(folder.manifest.get("synthetic"))
        table = self._corrected_table(root)
        for flag in table.flags:
            logger.warning("%s: %s", table.source.name, flag)
        located = locate_labels(table, folder.images)
        located.check_unmatched("both")  # the audit reports unmatched labels and images, and stops if it must
        known = join_labels(located, patient_ids=self.patient_ids, disagreement=self.disagreement).scans(folder.cache)
        try:
            split = SplitFile.open(tabulate_patients(known), self.split)
            scans = split.divide(known, self.split.fold)
        except SplitError:
            # If many patients share an id, there may be too few ids to divide. The audit then explains the cause.
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
        """The usual slice spacing in mm, from a sample of the training scans; 0 if all of them have one slice."""
        scans = self._scans_of("train")
        sample = scans[:: max(1, len(scans) // SCANS_SAMPLED)][:SCANS_SAMPLED]
        steps = [np.median(np.diff(read_cached(scan.cache_path).positions_mm)) for scan in sample if len(scan.slice_ids) > 1]
        return float(np.median(steps)) if steps else 0.0

    def describe_training(self) -> dict[str, Any]:
        """Summarize the training scans in numbers, without any identity, for ``model.json``; known after `setup`.

        Returns:
            The summary made by :func:`~ich_lstm.data.describe.describe_scans`, and ``profile``, made by
            :func:`~ich_lstm.data.profile.profile_scans`.
        """
        scans = self._scans_of("train")
        about = describe_scans(scans, is_synthetic=self.is_synthetic)
        return about | ({} if self._facts is None else {"profile": profile_scans(self.facts_of(scans))})

    def facts_of(self, scans: Sequence[LabelledScan]) -> pd.DataFrame:
        """The facts about some scans, a row for each; known after `setup`.

        Args:
            scans: Scans of this module.

        Returns:
            Columns of `PreparedFolder.facts`, apart from the identities.
        """
        assert self._facts is not None
        return self._facts.loc[[scan.cache_path.name for scan in scans]].reset_index(drop=True)

    def never_absent(self) -> dict[Literal["slices", "scans"], np.ndarray]:
        """Find labels that the training slices, or the training scans, have only as present, bool ``(k,)`` each."""
        scans = self._scans_of("train")
        of_slices = np.concatenate([scan.slice_labels for scan in scans])
        return {"slices": never_absent(of_slices), "scans": never_absent(np.stack([scan.scan_labels for scan in scans]))}

    def train_dataloader(self) -> ScanLoader:
        """Shuffled and augmented batches of the training patients."""
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
        """Every scan of a subset once, without augmentation, all in this process."""
        return self._loader(subset, alone=True)

    def sample_loader(self, subset: Subset, slices: int) -> ScanLoader:
        """Random whole scans of a subset, without augmentation, all in this process; of training scans, those of the stage.

        The draw is a pure function of the seed and the raw identifiers.

        Args:
            subset: The subset to draw from.
            slices: Scans are drawn until they have at least this many slices together.
        """
        scans = self.training_scans() if subset == "train" else self._scans_of(subset)
        drawn = sorted(scans, key=lambda scan: sample_seed(self.seed, 0, scan.series_uid, purpose="sample"))
        before = np.cumsum([0, *(len(scan.slice_labels) for scan in drawn)])[:-1]
        return self._loader(subset, alone=True, scans=[scan for scan, count in zip(drawn, before, strict=True) if count < slices])

    def view_loader(self, scans: Sequence[LabelledScan], view: int) -> CheckedLoader:
        """Whole scans one by one, in this order.

        Args:
            scans: The scans.
            view: 0 for the scans as they are, v > 0 for the augmented copies that are drawn for the v-th epoch.
        """
        dataset = ScanDataset(scans, self.augment if view else None, seed=self.seed)
        requests = [[SampleRequest(number, view)] for number in range(len(scans))]
        return CheckedLoader(dataset, batch_size=None, sampler=requests, **self._loading(self.trainer))

    def _loader(
        self, subset: Subset, *, training: bool = False, alone: bool = False, scans: list[LabelledScan] | None = None
    ) -> ScanLoader:
        if scans is None:
            scans = self.training_scans() if training else self._scans_of(subset)
        batches = self.batches
        sampling = batches.sampling if training else SliceSampling()
        dataset = self._dataset(scans, sampling, training=training)
        trainer = None if alone else self.trainer
        # With overfit_batches, the batches must be the same in every epoch.
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
        # batch_size=None, because the sampler yields whole batches and the dataset packs them.
        return ScanLoader(dataset, batch_size=None, sampler=sampler, **self._loading(trainer))

    def _dataset(self, scans: Sequence[LabelledScan], sampling: SliceSampling, *, training: bool) -> ScanDataset:
        """The samples of scans: HU, or stored features if there are any."""
        if self.features is not None:
            return FeatureDataset(scans, self.features, training=training, sampling=sampling, seed=self.seed)
        return ScanDataset(
            scans,
            self.augment if training else None,
            sampling=sampling,
            cutmix=self.batches.cutmix if training else 0.0,
            adjacent_slices=self.adjacent_slices,
            seed=self.seed,
        )

    def _loading(self, trainer: Trainer | None) -> dict[str, Any]:
        """How a loader works, as arguments of torch's DataLoader.

        Args:
            trainer: The Trainer that uses the loader; None for a loader of this process alone.
        """
        workers = self.num_workers
        if self.features is not None:
            workers = 0  # another process would take longer to hand over a batch than this one needs to read it
        elif workers is None:
            workers = workers_for(count_cores(), trainer.num_devices if trainer else 1)
        return {
            "num_workers": workers,
            "persistent_workers": workers > 0,
            "multiprocessing_context": worker_context() if workers else None,
            "worker_init_fn": begin_worker,
            # Copies to a GPU are asynchronous only from pinned memory.
            "pin_memory": trainer is not None and trainer.strategy.root_device.type == "cuda",
            # With its own generator, the loader does not draw from torch's, which would depend on the number of workers.
            "generator": torch.Generator().manual_seed(self.seed),
        }

    def training_scans(self) -> list[LabelledScan]:
        """The training scans of `training_patients`.

        Raises:
            ConfigError: ``no_training_patients``, if there are none.
        """
        scans = self._scans_of("train")
        if self.training_patients == "all":
            return scans
        wanted = self.training_patients == "head"
        chosen = [scan for scan in scans if is_left_to_head(scan.patient_id, self.head_share, self.split.seed) == wanted]
        if not chosen:
            raise ConfigError(
                "no_training_patients",
                where=f"data.head_share, patients={self.training_patients}",
                got=f"{self.head_share:g} of {len({scan.patient_id for scan in scans})} training patients, which leaves none",
                expected="some patients for the encoder, and some for the head",
                todo="Set data.head_share, for example to 0.3; or patients=all in all stages.",
            )
        return chosen

    def _scans_of(self, subset: Subset) -> list[LabelledScan]:
        if subset not in self.scans:
            raise ConfigError(
                "not_set_up",
                where="ScanDataModule",
                got="no scans, because they have not been read and split yet",
                expected=f"the scans of the subset {subset}",
                todo="Call prepare_data() and setup() first; a Trainer does so when it gets datamodule=data.",
            )
        return self.scans[subset]

    def _checked_root(self) -> Path:
        if not self.root:
            raise ConfigError(
                "no_data",
                where="root",
                got="nothing",
                expected="a folder of head CT",
                todo="Give its path: --data.root of ich-train.",
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
        # There is one folder for each combination of source, labels, choices and preprocessing.
        tables = [path.resolve() for path in (*self._label_files(), *_paths(self.choices))]
        name = "|".join(map(str, [root.resolve(), *tables, self.preprocessing]))
        return user_cache_path("ich_lstm") / hashlib.sha256(name.encode()).hexdigest()[:16]


def _paths(files: list[Path] | Path | str | None) -> list[Path]:
    return [Path(file) for file in ([files] if isinstance(files, str | Path) else files or []) if file]
