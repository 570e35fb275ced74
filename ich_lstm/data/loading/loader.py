"""A data loader that can stop within an epoch and resume with the remaining batches."""

import re
from collections.abc import Iterator
from multiprocessing.context import BaseContext
from typing import Any

from torch.utils.data import DataLoader

from ich_lstm.data.loading.batch import FeatureBatch, ScanBatch
from ich_lstm.data.loading.sampler import SliceBudgetSampler
from ich_lstm.errors import IchLstmError, WorkerError
from ich_lstm.parallel import end_with_parent, fork_server, undisturbed

MOST_WORKERS = 8
"""Upper bound of loader processes per training process. It was chosen, not measured: each process holds batches in memory."""


def worker_context() -> BaseContext:
    """Choose how loader processes are started: by a server that has imported torch, which takes each spawned process seconds."""
    return fork_server(["ich_lstm.data.loading.dataset"])


def begin_worker(worker: int) -> None:
    """Prepare a loader process, as the argument `worker_init_fn` of a loader.

    torch's own watch looks at the parent process, which is the fork server. That one lives as long as any loader process, so all
    would outlive a training that was killed, with their memory. A signal to all processes, such as Ctrl-C, leaves loader
    processes alone, because the training needs them until it has saved.

    Args:
        worker: Number of the loader process, which does not matter.
    """
    end_with_parent(shielded=True)


class CheckedLoader(DataLoader):
    """A DataLoader that raises the errors of its loader processes as they were, with their code and the name of the file."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]  # a generator is all that Lightning and loops need
        """Iterate over the batches.

        Raises:
            IchLstmError: The error of a loader process.
            WorkerError: ``worker_died``.
        """
        try:
            with undisturbed():
                batches = super().__iter__()
            for batch in batches:
                if isinstance(batch, IchLstmError):
                    raise batch
                yield batch
        except RuntimeError as error:
            if not _DEATH.search(str(error)):
                raise
            raise _worker_died(error) from error
        except (ConnectionError, EOFError, FileNotFoundError) as error:  # it ended while it handed over a batch
            if not self.num_workers:
                raise
            raise _worker_died(error) from error


class ScanLoader(CheckedLoader):
    """A loader that saves its place in an epoch in Lightning's checkpoints and resumes from there.

    Its arguments are those of torch's DataLoader; the sampler is a `SliceBudgetSampler`.

    No worker draws samples before the first batch is requested. When a fit resumes, Lightning makes the iterator before it tells
    the sampler the epoch, so workers that drew at once would draw the samples of another epoch.
    """

    sampler: SliceBudgetSampler

    def __iter__(self) -> Iterator[ScanBatch | FeatureBatch]:  # type: ignore[override]  # see CheckedLoader
        """Iterate over the batches that remain in the epoch. The errors are those of `CheckedLoader`."""
        for batch in super().__iter__():
            self.sampler.consumed += 1
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The place in the epoch, counted in batches that were returned, not in those that workers have prefetched."""
        return self.sampler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the saved place in the next iteration."""
        self.sampler.load_state_dict(state)


_DEATH = re.compile(r"DataLoader worker \(pid.*(exited unexpectedly|killed by signal)|Pin memory thread exited unexpectedly")
"""What torch says when a loader process has ended; it has no class of its own for that."""


def _worker_died(error: Exception) -> WorkerError:
    return WorkerError(
        "worker_died",
        where="a loader process",
        got=f"{type(error).__name__}: {(str(error) or 'no message').splitlines()[0].rstrip('. ')}",
        expected="loader processes that run to the end",
        todo="Most likely the machine ran out of memory, or shared memory (/dev/shm; docker's option shm-size) is full. "
        "Use fewer loader processes, or none (data.num_workers=0).",
    )


def workers_for(cores: int, processes: int = 1) -> int:
    """Choose the number of loader processes for a training process.

    Args:
        cores: Cores that may be used, which can be fewer than the machine has under a batch system or in a container.
        processes: Training processes that share them, each with loader processes of its own.

    Returns:
        One less than the cores of each training process, but at most `MOST_WORKERS`; 0 for two cores or fewer, because a loader
        process would take a core from the network.

    Example:
        >>> workers_for(2), workers_for(8), workers_for(64), workers_for(64, processes=16)
        (0, 7, 8, 3)
    """
    own = cores // max(1, processes)
    return 0 if own <= 2 else min(MOST_WORKERS, own - 1)
