"""Scans packed into batches: the slices of all scans follow one another, without padding."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import get_worker_info

from ich_lstm.data.loading.slice_sampling import with_neighbours
from ich_lstm.labels import LABELS


class ScanSample(NamedTuple):
    """One scan, or a part of it, as input of the network.

    Args:
        hu: Preprocessed HU, int16 ``(n, h, w)``; with ``stacks`` also the neighbours of the n slices.
        positions_mm: Position of each slice along the scan, float32 ``(n,)``.
        slice_labels: Labels of slices, float32 ``(n, k)``: 1 present, 0 absent, NaN unknown.
        scan_labels: Labels of the scan, float32 ``(k,)``: 1 present, 0 absent, NaN unknown.
        draws: A seed for each slice, int64 ``(n,)`` in [0, 2**32), for random draws on the device.
        scan_id: Keyed hash of the series.
        stacks: For each of the n slices the indices in ``hu`` of what the encoder sees: the slice and its neighbours, int64
            ``(n, s)``, the lowest one first, and -1 for none. None: all are there, beside one another.
    """

    hu: np.ndarray
    positions_mm: np.ndarray
    slice_labels: np.ndarray
    scan_labels: np.ndarray
    draws: np.ndarray
    scan_id: str
    stacks: np.ndarray | None = None


class FeatureSample(NamedTuple):
    """One scan whose slices an encoder has turned into features already.

    Args:
        features: Features of the slices, float16 ``(n, d)``.
        positions_mm: Position of each slice along the scan, float32 ``(n,)``.
        slice_labels: Labels of slices, float32 ``(n, k)``: 1 present, 0 absent, NaN unknown.
        scan_labels: Labels of the scan, float32 ``(k,)``: 1 present, 0 absent, NaN unknown.
        draws: A seed for each slice, int64 ``(n,)`` in [0, 2**32), for random draws on the device.
        scan_id: Keyed hash of the series.
    """

    features: np.ndarray
    positions_mm: np.ndarray
    slice_labels: np.ndarray
    scan_labels: np.ndarray
    draws: np.ndarray
    scan_id: str


class ScanBatch(NamedTuple):
    """A batch of packed scans: n counts the slices of all scans, b the scans.

    Args:
        hu: Preprocessed HU, int16 ``(n, h, w)``; with ``stacks`` also the neighbours of the n slices.
        lengths: Number of slices of each scan, int64 ``(b,)``.
        positions_mm: Position of each slice along its scan, float32 ``(n,)``.
        slice_labels: Labels of slices, float32 ``(n, k)``: 1 present, 0 absent, NaN unknown.
        scan_labels: Labels of scans, float32 ``(b, k)``: 1 present, 0 absent, NaN unknown.
        draws: A seed for each slice, int64 ``(n,)`` in [0, 2**32), for random draws on the device.
        scan_ids: Keyed hash of each series, b of them.
        stacks: For each of the n slices the indices in ``hu`` of what the encoder sees: the slice and its neighbours, int64
            ``(n, s)``, the lowest one first, and -1 for none. None: the slices of each scan are beside one another.
    """

    hu: Tensor
    lengths: Tensor
    positions_mm: Tensor
    slice_labels: Tensor
    scan_labels: Tensor
    draws: Tensor
    scan_ids: list[str]
    stacks: Tensor | None = None


class FeatureBatch(NamedTuple):
    """A batch of packed scans with stored features in place of HU: n counts the slices of all scans, b the scans.

    Args:
        features: The encoder's features of each slice, float16 ``(n, d)``.
        lengths: Number of slices of each scan, int64 ``(b,)``.
        positions_mm: Position of each slice along its scan, float32 ``(n,)``.
        slice_labels: Labels of slices, float32 ``(n, k)``: 1 present, 0 absent, NaN unknown.
        scan_labels: Labels of scans, float32 ``(b, k)``: 1 present, 0 absent, NaN unknown.
        draws: A seed for each slice, int64 ``(n,)`` in [0, 2**32), for random draws on the device.
        scan_ids: Keyed hash of each series, b of them.
    """

    features: Tensor
    lengths: Tensor
    positions_mm: Tensor
    slice_labels: Tensor
    scan_labels: Tensor
    draws: Tensor
    scan_ids: list[str]


def pack_scans(samples: Sequence[ScanSample]) -> ScanBatch:
    """Pack samples of one image size into a batch. Without samples the batch is empty, which a rank without work needs."""
    if not samples:
        return ScanBatch(torch.empty(0, 0, 0, dtype=torch.int16), *_packed(samples))
    hu = _concatenated([sample.hu for sample in samples])
    return ScanBatch(hu, *_packed(samples), stacks=_packed_stacks(samples))


def pack_features(samples: Sequence[FeatureSample], features: int) -> FeatureBatch:
    """Pack samples of stored features into a batch. Without samples the batch is empty, which a rank without work needs.

    Args:
        samples: The samples.
        features: Number of features of a slice, d.
    """
    arrays = [np.empty((0, features), dtype=np.float16), *(sample.features for sample in samples)]
    return FeatureBatch(torch.from_numpy(np.concatenate(arrays)), *_packed(samples))


def _packed(
    samples: Sequence[ScanSample] | Sequence[FeatureSample],
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, list[str]]:
    """Pack all fields but the first: lengths, positions, labels of slices and scans, draws and ids."""
    k = len(LABELS)
    if not samples:
        whole = torch.int64
        return torch.empty(0, dtype=whole), torch.empty(0), torch.empty(0, k), torch.empty(0, k), torch.empty(0, dtype=whole), []
    return (
        torch.tensor([len(sample.slice_labels) for sample in samples]),
        torch.from_numpy(np.concatenate([sample.positions_mm for sample in samples])),
        torch.from_numpy(np.concatenate([sample.slice_labels for sample in samples])),
        torch.from_numpy(np.stack([sample.scan_labels for sample in samples])),
        torch.from_numpy(np.concatenate([sample.draws for sample in samples])),
        [sample.scan_id for sample in samples],
    )


def _packed_stacks(samples: Sequence[ScanSample]) -> Tensor | None:
    """Pack the stacks of all samples, as indices in the packed HU; None if no sample has any.

    A short scan is whole, also where others are parts; its stacks are made here.
    """
    sizes = {sample.stacks.shape[1] for sample in samples if sample.stacks is not None}
    if not sizes:
        return None
    (size,) = sizes
    packed, first = [], 0
    for sample in samples:
        count = len(sample.hu)
        stacks = sample.stacks
        if stacks is None:
            _, stacks = with_neighbours(range(count), size // 2, count)
        packed.append(np.where(stacks < 0, -1, stacks + first))
        first += count
    return torch.from_numpy(np.concatenate(packed))


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
