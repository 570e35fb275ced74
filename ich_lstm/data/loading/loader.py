"""A data loader that can stop within an epoch and resume with the remaining batches."""

import multiprocessing
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from typing import Any

from torch.utils.data import DataLoader

from ich_lstm.data.loading.batch import ScanBatch
from ich_lstm.data.loading.sampler import SliceBudgetSampler

MOST_WORKERS = 8
"""Of a training process. A bound that was chosen, not measured: each holds batches of its own in memory."""


def worker_context() -> BaseContext:
    """How workers are started: forked from a process that has imported what they need, and nothing else.

    A forked training process could deadlock in its own threads; a spawned worker imports torch for seconds, each of them anew.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["ich_lstm.data.loading.dataset"])
    return context


class ScanLoader(DataLoader):
    """A DataLoader whose place in an epoch is saved in Lightning's checkpoints, and found again.

    Its arguments are those of torch's DataLoader; the sampler is a `SliceBudgetSampler`.

    Nothing is drawn before the first batch is asked for: when a fit resumes, Lightning makes the iterator first and tells the
    sampler the epoch afterwards, and workers that drew at once would draw another epoch's samples.
    """

    sampler: SliceBudgetSampler

    def __iter__(self) -> Iterator[ScanBatch]:  # type: ignore[override]  # a generator is all that Lightning and loops need
        for batch in super().__iter__():
            self.sampler.consumed += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The place in the epoch, counted in batches that were given away, not in those that workers have drawn ahead."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from that place when next iterated."""
        self.sampler.load_state_dict(state)


def workers_for(cores: int, processes: int = 1) -> int:
    """How many loader processes help a training process.

    Args:
        cores: Cores that may be used on this machine: fewer than it has under a batch system or in a container.
        processes: Training processes that share them, each with loader processes of its own.

    Returns:
        One core less than each has; none where it has two or less, for a loader process would take a core from the network
        that it feeds; at most `MOST_WORKERS`.

    Example:
        >>> workers_for(2), workers_for(8), workers_for(64), workers_for(64, processes=16)
        (0, 7, 8, 3)
    """
    own = cores // max(1, processes)
    return 0 if own <= 2 else min(MOST_WORKERS, own - 1)
