"""Batch sampler with a slice budget: the same batches on every machine and after every restart."""

import hashlib
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from torch.utils.data import DistributedSampler, SequentialSampler

from ich_lstm.data.loading.packing import pack, spread_to
from ich_lstm.data.loading.slice_sampling import SampleRequest, SliceSampling
from ich_lstm.errors import ConfigError

SPARE = 0.005
"""Spare batches, as a share of the fewest that are needed. Random packings need slightly different numbers of batches, but every
epoch must have the same number."""

TRIES = 8
"""Number of shuffles to try for an epoch, until one needs few enough batches; the first usually does. If all fail, an order that
is known to need few enough is used."""


class _Samples(NamedTuple):
    """The samples of an epoch, in the order in which they are packed.

    Args:
        scans: Index of the scan of each sample, int64 ``(m,)``.
        draws: Number of each sample among those of its scan in this epoch, from 0, int64 ``(m,)``.
        sizes: Number of slices of each sample, int64 ``(m,)``.
    """

    scans: np.ndarray
    draws: np.ndarray
    sizes: np.ndarray


class SliceBudgetSampler(DistributedSampler):
    """Divides scans, or samples of them, into batches with a maximum number of slices; every process gets the same number.

    It samples *batches*, for a loader with ``batch_size=None``. It derives from torch's DistributedSampler because Lightning
    keeps such a sampler and sets its epoch, whereas it would replace a sampler of another class.

    The order is a pure function of the seed, the epoch and the scans' identifiers; the order in which the scans are listed does
    not matter. In evaluation every scan comes exactly once, for any number of processes; a process with too few scans gets empty
    batches, because all processes must make the same number of steps. In training a batch is repeated only if there are fewer
    samples than batches of all processes, for example with one scan in each; then fewer batches are repeated than there are
    processes.

    Args:
        lengths: Number of slices of each scan.
        identifiers: The raw series UID of each scan, which seeds its random draws; None for its index in the list.
        sampling: How a scan is divided into samples.
        weights: Relative frequency with which each scan is drawn; None for equal frequencies. An epoch keeps its number of
            samples, and samples that exceed its number of batches are left for another epoch.
        slices_per_batch: Maximum number of slices in a batch; a longer sample gets a batch of its own.
        scans_per_batch: Maximum number of samples in a batch; None for no limit.
        shuffle: Whether every epoch has different batches (training), or all have the same (evaluation).
        seed: Seed of the shuffling.
        rank: Index of this process.
        world_size: Number of processes.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        *,
        identifiers: Sequence[str] | None = None,
        sampling: SliceSampling | None = None,
        weights: Sequence[float] | np.ndarray | None = None,
        slices_per_batch: int,
        scans_per_batch: int | None = None,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        seed = seed if shuffle else 0
        super().__init__(range(len(lengths)), num_replicas=world_size, rank=rank, shuffle=shuffle, seed=seed)  # type: ignore[arg-type]  # it uses only the length
        sampling = sampling or SliceSampling()
        names = [str(i) for i in range(len(lengths))] if identifiers is None else identifiers
        self._digests = np.array([_digest(name) for name in names], dtype=np.uint64)
        self._samples = sampling.samples_of(lengths)  # number of samples of each scan
        self._scan = np.repeat(np.arange(len(lengths)), self._samples)  # index of the scan of each sample
        self._number = np.arange(len(self._scan)) - np.repeat(np.cumsum(self._samples) - self._samples, self._samples)
        self._sizes = sampling.sizes_of(lengths)
        self._weights = None
        if weights is not None:
            of_samples = np.asarray(weights, dtype=np.float64)[self._scan]
            self._weights = of_samples / of_samples.mean()
        self._budget = slices_per_batch
        self._most = scans_per_batch or max(1, len(self._scan))
        self._settings = f"{self.seed}/{shuffle}/{world_size}/{slices_per_batch}/{scans_per_batch}/"
        # This text must not change, so that existing checkpoints can be resumed.
        self._settings += f"Parts(slices={sampling.slices}, choice={sampling.choice!r})"
        # Epoch -1 never runs. Its orders determine the number of steps, which Lightning reads once and which must be constant.
        fillings = [self._filling(-1, attempt) for attempt in range(3)]
        needed = [len(self._packed(filling)) for filling in fillings]
        # With weights, the number of slices differs between epochs.
        most_needed = min(needed) if weights is None else max(needed)
        self._reference = fillings[needed.index(min(needed))]
        # There are at most as many batches as samples, so that no sample is repeated to fill a spare batch.
        self._enough = min(most_needed + int(SPARE * most_needed), max(most_needed, len(self._scan)))
        self._steps = -(-self._enough // world_size)
        self.consumed = 0
        """Number of batches of this epoch that training has received. The loader counts them, because its workers prefetch."""
        self._start = 0

    def __len__(self) -> int:
        """Number of batches of this process, equal in every epoch."""
        return self._steps

    def __iter__(self) -> Iterator[list[SampleRequest]]:
        # This is a generator, because a loader with workers makes two iterators and uses one. Only that one may consume _start.
        start, self._start = self._start, 0
        self.consumed = start
        samples, steps = self._steps_of_all_ranks()
        scans, draws = samples.scans.tolist(), samples.draws.tolist()
        for batches in steps[start:]:
            yield [SampleRequest(scans[place], self.epoch, draws[place]) for place in batches[self.rank]]

    def set_epoch(self, epoch: int) -> None:
        """Set the epoch of the next iteration."""
        if epoch != self.epoch:
            self._start = 0
        super().set_epoch(epoch)

    def state_dict(self) -> dict[str, Any]:
        """The progress of training: the epoch, the number of batches received, and a digest of what the batches depend on."""
        return {"epoch": self.epoch, "batches": self.consumed, "dealt_from": self._dealt_from}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume from a saved state: the next iteration of that epoch gives the remaining batches.

        Raises:
            ConfigError: If the state lies inside an epoch for which this sampler would make other batches.
        """
        inside = 0 < state["batches"] < self._steps
        if inside and state["dealt_from"] != self._dealt_from:
            raise ConfigError(
                "other_batches",
                where="resuming",
                got=f"a checkpoint after {state['batches']} batches of an epoch that had other batches",
                expected="the same scans, seed, batch settings and number of processes as in the run that wrote it",
                todo="Resume with the settings of that run, or from a checkpoint at the end of an epoch.",
            )
        self.epoch = state["epoch"]
        self._start = self.consumed = state["batches"]

    @cached_property
    def _dealt_from(self) -> str:
        weights = np.ones(len(self._sizes)) if self._weights is None else self._weights
        rows = np.stack([self._digests[self._scan], self._sizes.astype(np.uint64), weights.view(np.uint64)])
        rows = rows[:, np.lexsort(rows)]
        return hashlib.sha256(self._settings.encode() + np.ascontiguousarray(rows).tobytes()).hexdigest()[:12]

    def _steps_of_all_ranks(self) -> tuple[_Samples, list[list[list[int]]]]:
        """The samples of an epoch, and for each step and rank the samples of a batch, with similar numbers of slices per rank."""
        count = self._steps * self.num_replicas
        samples, batches = self._batches()
        sizes = samples.sizes.tolist()
        batches = spread_to(batches, sizes, count, self.num_replicas)
        if self.shuffle:
            batches += [batches[i % len(batches)] for i in range(count - len(batches))]
        else:
            batches += [[] for _ in range(count - len(batches))]
        loads = [sum(sizes[place] for place in batch) for batch in batches]
        order = np.argsort(loads, kind="stable").reshape(self._steps, self.num_replicas)
        if self.shuffle:
            random = np.random.default_rng((self.seed, self.epoch))
            order = random.permuted(random.permutation(order), axis=1)
        return samples, [[batches[i] for i in step] for step in order.tolist()]

    def _batches(self) -> tuple[_Samples, list[list[int]]]:
        """Pack the samples of an epoch; the result is the same for any number of processes."""
        samples, batches = self._reference, self._packed(self._reference)
        for attempt in range(TRIES if self.shuffle else 0):
            drawn = self._filling(self.epoch, attempt)
            packed = self._packed(drawn)
            # With weights, the reference epoch would have other scans, so the last attempt is used in any case.
            if len(packed) <= self._enough or (self._weights is not None and attempt == TRIES - 1):
                samples, batches = drawn, packed
                break
        if len(batches) > self._enough:
            batches = sorted(batches, key=lambda batch: -int(samples.sizes[batch].sum()))[: self._enough]
        return samples, batches

    def _packed(self, samples: _Samples) -> list[list[int]]:
        return pack(samples.sizes, self._budget, self._most)

    def _filling(self, epoch: int, attempt: int) -> _Samples:
        """Shuffle all samples of an epoch."""
        samples, turns = self._drawn(f"{epoch}/{attempt}")
        # Sizes break ties, because two reconstructions in one series share an identifier.
        order = np.lexsort((self._sizes[samples], self._keys(f"{epoch}/{attempt}", samples, turns)))
        samples, turns = samples[order], turns[order]
        scans = self._scan[samples]
        return _Samples(scans, self._number[samples] + turns * self._samples[scans], self._sizes[samples])

    def _drawn(self, what: str) -> tuple[np.ndarray, np.ndarray]:
        """Draw the samples of an epoch, and count for each how often it was drawn before in this epoch."""
        samples = np.arange(len(self._scan))
        if self._weights is None:
            return samples, np.zeros_like(samples)
        # Systematic sampling draws each sample as often as its weight says, rounded up or down at random, with a constant total.
        # Scans that share an identifier are ordered by weight and size, not by their place in the list.
        order = np.lexsort((self._weights, self._sizes, self._keys(f"{what}/drawn", samples, np.zeros_like(samples))))
        start = _digest(f"{self.seed}/{what}") / 2**64
        upper = np.floor(np.cumsum(self._weights[order]) + start)
        times = np.diff(upper, prepend=0).astype(np.int64)
        drawn = np.repeat(order, times)
        return drawn, np.arange(len(drawn)) - np.repeat(np.cumsum(times) - times, times)

    def _keys(self, what: str, samples: np.ndarray, turns: np.ndarray) -> np.ndarray:
        """Sort keys of samples, uint64: pure functions of the seed, the epoch in ``what``, and the scans' identifiers."""
        draws = (self._number[samples] + turns * self._samples[self._scan[samples]]).astype(np.uint64)
        salt = np.uint64(_digest(f"{self.seed}/{what}"))
        return _mixed(_mixed(self._digests[self._scan[samples]] ^ salt) + draws)


class FixedSliceBudgetSampler(SliceBudgetSampler, SequentialSampler):  # type: ignore[misc]  # it yields batches, not scans
    """A `SliceBudgetSampler` with the same batches in every epoch; it must be created with ``shuffle=False``.

    It derives from SequentialSampler only because, with ``overfit_batches``, Lightning replaces any other sampler by a sampler of
    single scans.
    """


def _digest(text: str) -> int:
    """The first 64 bits of the text's SHA-256."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Hash uint64 by SplitMix64 (Steele, Lea and Flood 2014); SHA-256 of a million numbers would take seconds."""
    numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
