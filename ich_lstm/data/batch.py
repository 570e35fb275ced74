"""Scans packed into batches: slices of all scans in a row, never padded."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from ich_lstm.labels import LABELS

LENGTH_JITTER = 8
"""Slices by which lengths are blurred before packing, so that scans of one length do not always meet the same company."""


class ScanSample(NamedTuple):
    """One scan as the network gets it.

    Args:
        hu: int16 ``(n, h, w)``.
        positions_mm: float32 ``(n,)``.
        slice_labels: float32 ``(n, k)``: 1 present, 0 absent, NaN unknown.
        scan_labels: float32 ``(k,)`` likewise.
        scan_id: Keyed hash of the series.
    """

    hu: np.ndarray
    positions_mm: np.ndarray
    slice_labels: np.ndarray
    scan_labels: np.ndarray
    scan_id: str


class ScanBatch(NamedTuple):
    """Scans in a row; n counts the slices of all of them, b the scans.

    Args:
        hu: int16 ``(n, h, w)``.
        lengths: Slices of each scan, int64 ``(b,)``.
        positions_mm: float32 ``(n,)``.
        slice_labels: float32 ``(n, k)``: 1 present, 0 absent, NaN unknown.
        scan_labels: float32 ``(b, k)`` likewise.
        scan_ids: Keyed hash of each series, b of them.
    """

    hu: Tensor
    lengths: Tensor
    positions_mm: Tensor
    slice_labels: Tensor
    scan_labels: Tensor
    scan_ids: list[str]


def pack_scans(samples: Sequence[ScanSample]) -> ScanBatch:
    """Put samples of one size in a row; no sample gives an empty batch, which a rank without work needs."""
    if not samples:
        k = len(LABELS)
        return ScanBatch(
            hu=torch.empty(0, 0, 0, dtype=torch.int16),
            lengths=torch.empty(0, dtype=torch.int64),
            positions_mm=torch.empty(0),
            slice_labels=torch.empty(0, k),
            scan_labels=torch.empty(0, k),
            scan_ids=[],
        )
    return ScanBatch(
        hu=torch.from_numpy(np.concatenate([sample.hu for sample in samples])),
        lengths=torch.tensor([len(sample.hu) for sample in samples]),
        positions_mm=torch.from_numpy(np.concatenate([sample.positions_mm for sample in samples])),
        slice_labels=torch.from_numpy(np.concatenate([sample.slice_labels for sample in samples])),
        scan_labels=torch.from_numpy(np.stack([sample.scan_labels for sample in samples])),
        scan_ids=[sample.scan_id for sample in samples],
    )


class SampleRequest(NamedTuple):
    """Which scan, and for which epoch's random draws: workers keep no count of epochs, so the request brings it along."""

    scan: int
    epoch: int


class SliceBudgetSampler(DistributedSampler):
    """Deals scans into batches of at most a number of slices, the same number of batches to every process.

    It is a sampler *of batches*, for a loader with ``batch_size=None``. It derives from torch's DistributedSampler because
    Lightning leaves such a sampler alone, and tells it the epoch, where it would replace any other.

    In evaluation every scan comes exactly once, whatever the number of processes; a process with too few scans gets empty
    batches, because all must make the same number of steps. In training batches are repeated for that instead.

    Args:
        lengths: Slices of each scan.
        slices_per_batch: Budget of slices; a longer scan travels alone.
        scans_per_batch: At most so many scans in a batch, if given.
        shuffle: Deal anew in every epoch (training); otherwise in order (evaluation).
        seed: Seed of the shuffling.
        rank: This process.
        world_size: Number of processes.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        slices_per_batch: int,
        scans_per_batch: int | None = None,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        super().__init__(range(len(lengths)), num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]  # only its length is asked for
        self._lengths = np.asarray(lengths)
        self._budget = slices_per_batch
        self._most = scans_per_batch or len(lengths)
        fewest = len(self._pack(np.argsort(-self._lengths, kind="stable")))
        # A constant number of steps, which Lightning asks for once, with 2 % to spare for the random fillings.
        self._steps = -(-max(fewest, int(fewest * 1.02)) // world_size)

    def __len__(self) -> int:
        """Batches of this process in an epoch, the same in every epoch."""
        return self._steps

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        for batches in self._steps_of_all_ranks():
            yield [SampleRequest(scan, self.epoch) for scan in batches[self.rank]]

    def _steps_of_all_ranks(self) -> list[list[list[int]]]:
        """For each step, the scans of each rank; ranks of one step get nearly the same number of slices."""
        count = self._steps * self.num_replicas
        random = np.random.default_rng((self.seed, self.epoch))
        batches = self._packed_for_training(random, count) if self.shuffle else self._packed_for_evaluation(count)
        batches.sort(key=lambda batch: int(self._lengths[batch].sum()))
        steps = [batches[first : first + self.num_replicas] for first in range(0, count, self.num_replicas)]
        if self.shuffle:
            order = random.permutation(len(steps))
            steps = [[steps[step][rank] for rank in random.permutation(self.num_replicas)] for step in order]
        return steps

    def _packed_for_training(self, random: np.random.Generator, count: int) -> list[list[int]]:
        shuffled = random.permutation(len(self._lengths))
        blurred = self._lengths[shuffled] + random.uniform(0, LENGTH_JITTER, len(shuffled))
        batches = self._pack(shuffled[np.argsort(-blurred)])
        if len(batches) > count:  # an unlucky filling: longest first needs the fewest batches
            batches = self._pack(shuffled[np.argsort(-self._lengths[shuffled], kind="stable")])
        batches = _split_to(batches, count)
        return batches + [batches[i % len(batches)] for i in range(count - len(batches))]

    def _packed_for_evaluation(self, count: int) -> list[list[int]]:
        batches = _split_to(self._pack(np.argsort(-self._lengths, kind="stable")), count)
        return batches + [[] for _ in range(count - len(batches))]

    def _pack(self, order: np.ndarray) -> list[list[int]]:
        """Each scan into the first batch that has room, in the given order."""
        batches: list[list[int]] = []
        room: list[int] = []
        first_open = 0
        smallest = int(self._lengths.min()) if len(self._lengths) else 1
        for index in order.tolist():
            length = int(self._lengths[index])
            for place in range(first_open, len(batches)):
                if room[place] >= length and len(batches[place]) < self._most:
                    break
            else:
                place = len(batches)
                batches.append([])
                room.append(self._budget)
            batches[place].append(index)
            room[place] -= length
            while first_open < len(batches) and (room[first_open] < smallest or len(batches[first_open]) >= self._most):
                first_open += 1
        return batches


def _split_to(batches: list[list[int]], count: int) -> list[list[int]]:
    """Halve the batches of most scans until there are ``count``, or only single scans are left."""
    batches = sorted(batches, key=len)
    while len(batches) < count and batches and len(batches[-1]) > 1:
        largest = batches.pop()
        half = len(largest) // 2
        batches = sorted([*batches, largest[:half], largest[half:]], key=len)
    return batches
