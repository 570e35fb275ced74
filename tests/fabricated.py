"""Fabricate scans, samples and small networks in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ich_lstm.data.joining.join import LabelledScan
from ich_lstm.data.loading.batch import ScanSample
from ich_lstm.data.prepared.scan_cache import CachedScan, write_cached
from ich_lstm.labels import LABELS
from ich_lstm.models.encoder import Encoder
from ich_lstm.models.heads import GRU, LSTM
from ich_lstm.models.scan_model import ModelSettings, ScanModel
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.scan import Scan
from ich_lstm.settings import merged
from ich_lstm.training.classifier import ClassifierSettings, ScanClassifier

TINY = ClassifierSettings(encoder=Encoder(backbone="test_resnet", pretrained=False), head=LSTM(hidden_size=8, num_layers=1))
"""The settings of a network that is built in a blink."""

TINY_GRU = GRU(hidden_size=8, num_layers=1)
"""A head of the same size."""


def make_scan(hu: np.ndarray | None = None, **changes: Any) -> Scan:
    """A scan with slices 5 mm apart; by default 4 slices of 32 x 32 with a head of 20 x 16 pixels in air."""
    if hu is None:
        hu = np.full((4, 32, 32), -1000, np.int16)
        hu[:, 6:26, 8:24] = 40
    fields: dict[str, Any] = {
        "hu": hu,
        "positions_mm": np.arange(len(hu)) * 5.0,
        "spacing_mm": (5.0, 1.0, 1.0),
        "sop_uids": tuple(f"1.2.3.{i}" for i in range(len(hu))),
        "series_uid": "1.2.3",
        "study_uid": "1.2",
        "patient_id": "P1",
    }
    return Scan(**(fields | changes))


def make_sample(slices: int, seed: int = 0, size: int = 32) -> ScanSample:
    """A sample of noise around 40 HU with labels drawn at random."""
    random = np.random.default_rng((seed, slices))
    labels = random.integers(0, 2, (slices, len(LABELS))).astype(np.float32)
    return ScanSample(
        hu=random.normal(40, 30, (slices, size, size)).astype(np.int16),
        positions_mm=(np.arange(slices) * 5 - 20).astype(np.float32),
        slice_labels=labels,
        scan_labels=labels.max(axis=0),
        draws=np.random.default_rng((seed, slices, 1)).integers(2**32, size=slices),
        scan_id=f"{seed:08x}{slices:08x}",
    )


def make_model(seed: int = 0, settings: ModelSettings = TINY, **changes: Any) -> ScanModel:
    """A small network in evaluation mode whose every parameter plays a part; not even the zeros of the start are left.

    ``changes`` are settings that differ from ``settings``, as `merged` takes them.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ScanModel(merged(settings, changes))
        for name, parameter in model.named_parameters():
            if not name.startswith("encoder."):
                torch.nn.init.normal_(parameter, std=0.3)
    return model.eval()


def make_classifier(seed: int = 0, size: int = 32, settings: ClassifierSettings = TINY, **changes: Any) -> ScanClassifier:
    """A small classifier that knows how scans are prepared for it.

    ``changes`` are settings that differ from ``settings``, as `merged` takes them.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        classifier = ScanClassifier.from_settings(merged(settings, changes))
    classifier.preprocessing = Preprocessing(size=size)
    return classifier


def make_labelled(folder: Path, name: str, slices: int, seed: int = 0, size: int = 32) -> LabelledScan:
    """A cached scan with the content and labels of `make_sample`; its series is called ``name``."""
    sample = make_sample(slices, seed, size)
    path = folder / f"{name}.b2nd"
    slice_ids = tuple(f"{name}-{i}" for i in range(slices))
    write_cached(path, CachedScan(sample.hu, sample.positions_mm, slice_ids, (), ()))
    return LabelledScan(
        scan_id=f"id-{name}",
        patient_id=f"P{name}",
        series_uid=name,
        study_uid=f"study-{name}",
        study_date="",
        cache_path=path,
        slice_ids=slice_ids,
        slice_hashes=slice_ids,
        slice_labels=sample.slice_labels,
        scan_labels=sample.scan_labels,
    )
