"""Scans packed into batches: the slices of all scans follow one another, without padding."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from ich_lstm.labels import LABELS


class ScanSample(NamedTuple):
    """One scan as input of the network.

    Args:
        hu: Preprocessed HU, int16 ``(n, h, w)``.
        positions_mm: Position of each slice along the scan, float32 ``(n,)``.
        slice_labels: Labels of slices, float32 ``(n, k)``: 1 present, 0 absent, NaN unknown.
        scan_labels: Labels of the scan, float32 ``(k,)``: 1 present, 0 absent, NaN unknown.
        draws: A seed for each slice, int64 ``(n,)`` in [0, 2**32), for random draws on the device.
        scan_id: Keyed hash of the series.
    """

    hu: np.ndarray
    positions_mm: np.ndarray
    slice_labels: np.ndarray
    scan_labels: np.ndarray
    draws: np.ndarray
    scan_id: str


class ScanBatch(NamedTuple):
    """A batch of packed scans: n counts the slices of all scans, b the scans.

    Args:
        hu: Preprocessed HU, int16 ``(n, h, w)``.
        lengths: Number of slices of each scan, int64 ``(b,)``.
        positions_mm: Position of each slice along its scan, float32 ``(n,)``.
        slice_labels: Labels of slices, float32 ``(n, k)``: 1 present, 0 absent, NaN unknown.
        scan_labels: Labels of scans, float32 ``(b, k)``: 1 present, 0 absent, NaN unknown.
        draws: A seed for each slice, int64 ``(n,)`` in [0, 2**32), for random draws on the device.
        scan_ids: Keyed hash of each series, b of them.
    """

    hu: Tensor
    lengths: Tensor
    positions_mm: Tensor
    slice_labels: Tensor
    scan_labels: Tensor
    draws: Tensor
    scan_ids: list[str]


def pack_scans(samples: Sequence[ScanSample]) -> ScanBatch:
    """Pack samples of one image size into a batch. Without samples the batch is empty, which a rank without work needs."""
    if not samples:
        k = len(LABELS)
        return ScanBatch(
            hu=torch.empty(0, 0, 0, dtype=torch.int16),
            lengths=torch.empty(0, dtype=torch.int64),
            positions_mm=torch.empty(0),
            slice_labels=torch.empty(0, k),
            scan_labels=torch.empty(0, k),
            draws=torch.empty(0, dtype=torch.int64),
            scan_ids=[],
        )
    return ScanBatch(
        hu=_concatenated([sample.hu for sample in samples]),
        lengths=torch.tensor([len(sample.hu) for sample in samples]),
        positions_mm=torch.from_numpy(np.concatenate([sample.positions_mm for sample in samples])),
        slice_labels=torch.from_numpy(np.concatenate([sample.slice_labels for sample in samples])),
        scan_labels=torch.from_numpy(np.stack([sample.scan_labels for sample in samples])),
        draws=torch.from_numpy(np.concatenate([sample.draws for sample in samples])),
        scan_ids=[sample.scan_id for sample in samples],
    )


def _concatenated(images: Sequence[np.ndarray]) -> Tensor:
    """Concatenate int16 ``(n, h, w)``. A loader's worker does it in shared memory, so that the batch is copied only once."""
    shape = (sum(map(len, images)), *images[0].shape[1:])
    if get_worker_info() is None:
        joined = torch.empty(shape, dtype=torch.int16)
    else:
        storage = torch.UntypedStorage._new_shared(int(np.prod(shape)) * torch.int16.itemsize)
        joined = torch.empty(0, dtype=torch.int16).set_(storage).reshape(shape)
    np.concatenate(images, out=joined.numpy())
    return joined
