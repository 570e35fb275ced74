"""The labelled scans of a site, and predictions for them from features that are stored once."""

import copy
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_lightning import Trainer

from ich_lstm.data.datamodule import ScanDataModule
from ich_lstm.data.features.feature_dataset import ScanFeatures
from ich_lstm.data.joining.join import LabelledScan
from ich_lstm.data.split.assign import SUBSETS
from ich_lstm.inference.forward import evaluating, infer, predicted
from ich_lstm.labels import LABELS
from ich_lstm.models.execution.compiled import unwrapped
from ich_lstm.models.scan_model import ScanModel, mean_logits
from ich_lstm.training.classifier import ScanClassifier
from ich_lstm.training.features.stored_features import StoredFeatures, store_features

REMARKS = (
    ".*does not have many workers.*",
    "Found .* module.s. in eval mode at the start of training.*",
    ".*isinstance\\(treespec, LeafSpec\\).*",
    ".*The number of training batches.*",
)
"""Lightning's remarks about fits of frozen parts and of few scans."""


class Probabilities(NamedTuple):
    """Coherent probabilities of all slices and scans of a site, in the order of its scans.

    Args:
        slices: Probabilities of slices, float64 ``(n, k)``.
        scans: Probabilities of scans, float64 ``(b, k)``.
    """

    slices: np.ndarray
    scans: np.ndarray


@dataclass(frozen=True, eq=False)
class Site:
    """The labelled scans of a site.

    Args:
        data: A copy of the data in which all scans are training scans.
        scans: All scans, in the order of their ids.
        folder: Folder of the stored features.
        accelerator: Lightning's name of the device: ``cpu`` or ``gpu``.
        slice_labels: Labels of all slices, float64 ``(n, k)``: 1 present, 0 absent, NaN unknown.
        scan_labels: Labels of all scans, float64 ``(b, k)``.
    """

    data: ScanDataModule
    scans: tuple[LabelledScan, ...]
    folder: Path
    accelerator: str
    slice_labels: np.ndarray
    scan_labels: np.ndarray

    @classmethod
    def of(cls, data: ScanDataModule, folder: Path, accelerator: str) -> "Site":
        """Gather the scans of all subsets.

        Args:
            data: The data, after `setup`.
            folder: Folder for the stored features.
            accelerator: Lightning's name of the device.
        """
        scans = tuple(sorted((scan for subset in SUBSETS for scan in data.scans[subset]), key=lambda scan: scan.scan_id))
        every = copy.copy(data)
        every.scans = {"train": list(scans), "validation": [], "test": []}
        every.training_patients, every.features, every.adjacent_slices = "all", None, 0
        slice_labels = np.concatenate([scan.slice_labels for scan in scans]).astype(np.float64)
        return cls(
            every, scans, folder, accelerator, slice_labels, np.stack([scan.scan_labels for scan in scans]).astype(np.float64)
        )

    @property
    def lengths(self) -> np.ndarray:
        """Number of slices of each scan, ``(b,)``."""
        return np.array([len(scan.slice_labels) for scan in self.scans])

    @property
    def scan_index(self) -> np.ndarray:
        """Index of each slice's scan, ``(n,)``, in ascending order."""
        return np.repeat(np.arange(len(self.scans)), self.lengths)

    @property
    def patients(self) -> np.ndarray:
        """Raw patient id of each scan, ``(b,)``; private."""
        return np.array([scan.patient_id for scan in self.scans], dtype=object)

    def labelled(self, slice_labels: np.ndarray, scan_labels: np.ndarray) -> "Site":
        """The same scans with other labels, which may be soft: in [0, 1], or NaN.

        Args:
            slice_labels: ``(n, k)``.
            scan_labels: ``(b, k)``.
        """
        parts = np.split(slice_labels.astype(np.float32), np.cumsum(self.lengths)[:-1])
        scans = tuple(
            scan._replace(slice_labels=part, scan_labels=of_scan)
            for scan, part, of_scan in zip(self.scans, parts, scan_labels.astype(np.float32), strict=True)
        )
        return replace(self, scans=scans, slice_labels=slice_labels, scan_labels=scan_labels)

    def some(self, rows: Sequence[int] | np.ndarray) -> ScanDataModule:
        """A copy of the data whose training scans are some of the site's.

        Args:
            rows: Indices of the scans.
        """
        data = copy.copy(self.data)
        data.scans = {"train": [self.scans[row] for row in rows], "validation": [], "test": []}
        vars(data).pop("slice_mm", None)  # a cached property of the scans
        return data

    def make_trainer(self, **settings: Any) -> Trainer:
        """A Trainer for one fit, without checkpoints, logs and validation.

        Args:
            settings: Arguments of Lightning's Trainer.
        """
        return Trainer(
            accelerator=self.accelerator,
            devices=1,
            precision="32-true",  # so that stored features do not depend on the machine's best precision
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
            num_sanity_val_steps=0,
            **settings,
        )


class StoredSite(NamedTuple):
    """The stored features of a site's scans.

    Args:
        plain: Features of the scans.
        mirrored: Features of their left-right mirror images; None if the model's test-time augmentation has no flip.
    """

    plain: ScanFeatures
    mirrored: ScanFeatures | None

    def predict(self, classifier: ScanClassifier, site: Site, rows: Sequence[int] | np.ndarray) -> list[Probabilities]:
        """Predict scans, as the classifier would predict their pixels.

        Args:
            classifier: A model with the encoder that made the features.
            site: The site.
            rows: Indices of the scans.

        Returns:
            The probabilities of each scan: of its slices ``(n, k)``, and of itself ``(1, k)``.
        """
        model = unwrapped(classifier.model)
        assert isinstance(model, ScanModel)
        device = next(model.parameters()).device
        both_ways = classifier.settings.test_time == "flip-reverse"
        views = [self.plain, *([] if self.mirrored is None else [self.mirrored])]
        found = []
        with evaluating(model):
            for row in rows:
                logits = []
                for view in views:
                    stored = view.read(site.scans[row])
                    features = torch.from_numpy(stored.features).to(device, torch.float32)
                    positions = torch.from_numpy(stored.positions_mm).to(device)
                    logits.append(model.logits_of(features, torch.tensor([len(features)]), positions, both_ways=both_ways))
                found.append(_as_arrays(predicted(mean_logits(logits), torch.tensor([len(features)]))))
        return found


def store_site(classifier: ScanClassifier, site: Site, show: Callable[[], Any] | None = None) -> StoredSite:
    """Encode every scan once, unless that has been done: a killed run goes on with what it has stored.

    Args:
        classifier: The model.
        site: The site.
        show: Makes a context that shows the progress of encoding, see `StoredFeatures`.
    """
    model, trainer = unwrapped(classifier.model), site.make_trainer(max_epochs=1)
    assert isinstance(model, ScanModel)
    wanted = [StoredFeatures(folder=site.folder)]
    if classifier.settings.test_time != "none":
        wanted.append(StoredFeatures(folder=site.folder, mirrored=True))
    if show is not None:
        wanted = [replace(each, show=show) for each in wanted]
    stored = [store_features(model, trainer, site.some(range(len(site.scans))), each) for each in wanted]
    return StoredSite(stored[0], stored[1] if len(stored) > 1 else None)


def predict_pixels(classifier: ScanClassifier, site: Site, rows: Sequence[int] | np.ndarray) -> list[Probabilities]:
    """Predict scans from their pixels, for a model whose encoder was trained on the site.

    Args:
        classifier: The model.
        site: The site.
        rows: Indices of the scans.
    """
    model, data = unwrapped(classifier.model), site.some(rows)
    assert isinstance(model, ScanModel)
    device = next(model.parameters()).device
    found = []
    with evaluating(model):
        for batch in data.view_loader(data.scans["train"], 0):
            logits = infer(
                model,
                batch.hu.to(device),
                batch.lengths,
                batch.positions_mm.to(device),
                test_time=classifier.settings.test_time,
            )
            found.append(_as_arrays(predicted(logits, batch.lengths)))
    return found


def joined(parts: Sequence[Probabilities]) -> Probabilities:
    """The probabilities of all scans, from those of each.

    Args:
        parts: The probabilities of each scan, in the order of the site's scans.
    """
    return Probabilities(np.concatenate([part.slices for part in parts]), np.concatenate([part.scans for part in parts]))


@contextmanager
def without_remarks() -> Iterator[None]:
    """Silence what Lightning remarks on each of many fits, which nobody can act on."""
    loggers = [logging.getLogger(name) for name in ("pytorch_lightning", "lightning_fabric")]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for remark in REMARKS:
                warnings.filterwarnings("ignore", message=remark)
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def _as_arrays(found: Any) -> Probabilities:
    return Probabilities(found.slices.cpu().numpy().reshape(-1, len(LABELS)), found.scans.cpu().numpy().reshape(-1, len(LABELS)))
