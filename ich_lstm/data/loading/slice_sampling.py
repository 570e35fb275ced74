"""Selects the slices of a scan that make a training sample, with their labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from ich_lstm.errors import ConfigError
from ich_lstm.preprocessing.augmentation import sample_seed

SliceChoice = Literal["adjacent", "random", "every"]


class SampleRequest(NamedTuple):
    """A request for one sample. It carries the epoch, because workers do not know it.

    Args:
        scan: Index of the scan in the dataset.
        epoch: The epoch, from 0.
        draw: Number of the sample among those of its scan in this epoch, from 0.
    """

    scan: int
    epoch: int
    draw: int = 0


@dataclass(frozen=True)
class SliceSampling:
    """How a scan is divided into samples.

    Args:
        slices: Maximum number of slices in a sample; a shorter scan gives all its slices. None: one sample is the whole scan.
        choice: Which slices a sample has. ``adjacent``: neighbours around a newly drawn centre, clamped to the ends of the scan.
            ``random``: slices drawn from the whole scan. ``every``: random groups of the scan's slices, so that each slice comes
            once per epoch.
    """

    slices: int | None = None
    choice: SliceChoice = "adjacent"

    def __post_init__(self) -> None:
        if self.slices is not None and self.slices < 1:
            raise ConfigError(
                "part_out_of_range", where="slices_per_sample", got=str(self.slices), expected="at least 1, or null"
            )
        if self.choice not in get_args(SliceChoice):
            raise ConfigError(
                "unknown_sample", where="sample", got=repr(self.choice), expected=f"one of {', '.join(get_args(SliceChoice))}"
            )

    def samples_of(self, lengths: Sequence[int] | np.ndarray) -> np.ndarray:
        """Number of samples that a scan of each length gives in an epoch, int64 like ``lengths``."""
        lengths = np.asarray(lengths, dtype=np.int64)
        if self.slices is None or self.choice != "every":
            return np.ones_like(lengths)
        return -(-lengths // self.slices)

    def sizes_of(self, lengths: Sequence[int] | np.ndarray) -> np.ndarray:
        """Number of slices of each sample, int64, with the samples of all scans in a row."""
        lengths = np.asarray(lengths, dtype=np.int64)
        if self.slices is None:
            return lengths
        if self.choice != "every":
            return np.minimum(lengths, self.slices)
        samples = self.samples_of(lengths)
        last = np.cumsum(samples) - 1
        sizes = np.full(int(samples.sum()), self.slices, dtype=np.int64)
        sizes[last] = lengths - (samples - 1) * self.slices
        return sizes

    def choose(self, length: int, request: SampleRequest, *, seed: int, identifier: str) -> np.ndarray | None:
        """Choose the slices of a sample, as a pure function of the arguments.

        Args:
            length: Number of slices of the scan.
            request: The sample that is requested.
            seed: Seed of the run.
            identifier: The raw series UID of the scan, which seeds its random draws.

        Returns:
            Indices of the slices in ascending order; None for all slices.
        """
        if self.slices is None or length <= self.slices:
            return None
        groups = int(self.samples_of([length])[0])
        # All groups of one pass through the scan come from one shuffling.
        turn, group = divmod(request.draw, groups)
        random = np.random.default_rng(sample_seed(seed, request.epoch, identifier, draw=turn, purpose="slices"))
        if self.choice == "adjacent":
            centre = int(random.integers(length))
            first = min(max(centre - self.slices // 2, 0), length - self.slices)
            return np.arange(first, first + self.slices)
        shuffled = random.permutation(length)
        return np.sort(shuffled[group * self.slices : (group + 1) * self.slices])


def with_neighbours(places: Sequence[int], neighbours: int, length: int) -> tuple[list[int], np.ndarray]:
    """Add the neighbours of slices, each of them once.

    Args:
        places: Indices of slices in a scan.
        neighbours: Number of neighbours on either side, at least 1.
        length: Number of slices of the scan.

    Returns:
        Indices of all these slices in the scan, in ascending order; and for each of ``places`` the indices in that list of the
        slice and its neighbours, int64 ``(n, 2 * neighbours + 1)``, the lowest slice first, and -1 beyond the ends of the scan.
    """
    wanted = np.asarray(places, dtype=np.int64)[:, None] + np.arange(-neighbours, neighbours + 1)  # (n, s)
    is_there = (wanted >= 0) & (wanted < length)
    together = np.unique(wanted[is_there])
    return together.tolist(), np.where(is_there, np.searchsorted(together, wanted), -1)


def scan_labels_of_sample(slice_labels: np.ndarray, scan_labels: np.ndarray) -> np.ndarray:
    """Derive the scan label of a sample from its own slices, not from the rest of the scan.

    A hemorrhage of the scan may lie outside the sample, so a sample of a positive scan is unknown if its slices are unknown;
    every sample of a negative scan is negative.

    Args:
        slice_labels: Labels of the slices of the sample, float32 ``(n, k)``: 1 present, 0 absent, NaN unknown.
        scan_labels: Labels of the whole scan, float32 ``(k,)``: 1 present, 0 absent, NaN unknown.

    Returns:
        Scan label of the sample, float32 ``(k,)``: 1 present, 0 absent, NaN unknown.
    """
    shown = (slice_labels == 1).any(axis=0)
    absent = (slice_labels == 0).all(axis=0) | (scan_labels == 0)
    return np.where(shown, 1, np.where(absent, 0, np.nan)).astype(np.float32)
