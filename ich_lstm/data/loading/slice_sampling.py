"""Selects the slices of a scan that make a training sample, with their labels."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import numpy as np

from ich_lstm.errors import ConfigError
from ich_lstm.preprocessing.augmentation import sample_seed

SliceChoice = Literal["adjacent", "random", "every"]


class SampleRequest(NamedTuple):
    """Which scan, and for which random draws: workers keep no count of epochs, so the request brings it along.

    Args:
        scan: Number of the scan in the dataset.
        epoch: The epoch, from 0.
        draw: Counts the samples of one scan in one epoch, from 0.
    """

    scan: int
    epoch: int
    draw: int = 0


@dataclass(frozen=True)
class SliceSampling:
    """How a scan is made into samples.

    Args:
        slices: Most slices of a sample; a shorter scan gives all it has. None for whole scans.
        choice: ``adjacent``: neighbours around a centre drawn anew, clamped to the ends. ``random``: drawn from the whole scan.
            ``every``: the scan's slices in random groups, so that each slice comes once in an epoch.
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
        """Samples that a scan of each length gives in an epoch, int64 like ``lengths``."""
        lengths = np.asarray(lengths, dtype=np.int64)
        if self.slices is None or self.choice != "every":
            return np.ones_like(lengths)
        return -(-lengths // self.slices)

    def sizes_of(self, lengths: Sequence[int] | np.ndarray) -> np.ndarray:
        """Slices of each sample, int64, the samples of all scans in a row."""
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
        """The slices of a sample, a pure function of the arguments.

        Args:
            length: Slices of the scan.
            request: Which sample of it.
            seed: The run's seed.
            identifier: What is drawn for: the raw series UID.

        Returns:
            Places of the slices, from 0, in rising order; None for all.
        """
        if self.slices is None or length <= self.slices:
            return None
        groups = int(self.samples_of([length])[0])
        # The groups of one turn through the scan come out of one shuffling.
        turn, group = divmod(request.draw, groups)
        random = np.random.default_rng(sample_seed(seed, request.epoch, identifier, draw=turn, purpose="slices"))
        if self.choice == "adjacent":
            centre = int(random.integers(length))
            first = min(max(centre - self.slices // 2, 0), length - self.slices)
            return np.arange(first, first + self.slices)
        shuffled = random.permutation(length)
        return np.sort(shuffled[group * self.slices : (group + 1) * self.slices])


def scan_labels_of_sample(slice_labels: np.ndarray, scan_labels: np.ndarray) -> np.ndarray:
    """The scan label of a sample: what its own slices show, and not what the rest of the scan does.

    A hemorrhage of the scan may lie outside the sample, so a positive scan says nothing about a sample whose slices are unknown;
    every sample of a negative scan is negative.

    Args:
        slice_labels: Labels of the slices of the sample, float32 ``(n, k)``: 1 present, 0 absent, NaN unknown.
        scan_labels: Labels of the whole scan, float32 ``(k,)``: 1 present, 0 absent, NaN unknown.

    Returns:
        float32 ``(k,)``: 1 present, 0 absent, NaN unknown.
    """
    shown = (slice_labels == 1).any(axis=0)
    absent = (slice_labels == 0).all(axis=0) | (scan_labels == 0)
    return np.where(shown, 1, np.where(absent, 0, np.nan)).astype(np.float32)
