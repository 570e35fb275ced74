"""Runs work on a dask.distributed cluster instead of local processes."""

from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from typing import NamedTuple

from ich_lstm.errors import ConfigError

SECONDS_TO_CONNECT = 15


class Workforce(NamedTuple):
    """The processes that do the work.

    Args:
        executor: Executor of a cluster; None for processes of this machine.
        workers: Number of simultaneous calls; None for the number of cores.
    """

    executor: Executor | None
    workers: int | None


@contextmanager
def workforce(address: str | None, workers: int | None) -> Iterator[Workforce]:
    """Yield the workers of a dask scheduler, or processes of this machine if there is no address.

    Args:
        address: Address of the scheduler, for example ``tcp://10.0.0.1:8786``; None for this machine.
        workers: Number of processes of this machine; None for the number of cores. Ignored with an address.

    Raises:
        ConfigError: ``extra_missing``, ``cluster_unreachable``, or ``cluster_empty``.
    """
    if address is None:
        yield Workforce(None, workers)
        return
    try:
        from dask.distributed import Client
    except ImportError as error:
        raise ConfigError(
            "extra_missing",
            where="--cluster",
            got="dask.distributed is not installed",
            todo='Install it with: pip install "ich_lstm[cluster]"',
        ) from error
    try:
        client = Client(address, timeout=SECONDS_TO_CONNECT, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError(
            "cluster_unreachable",
            where=f"--cluster {address}",
            got=f"no scheduler answers ({type(error).__name__})",
            expected="the address of a dask scheduler, for example tcp://10.0.0.1:8786",
        ) from error
    with client:
        threads = sum(client.nthreads().values())
        if not threads:
            raise ConfigError(
                "cluster_empty", where=f"--cluster {address}", got="a scheduler without workers", todo="Start dask workers."
            )
        yield Workforce(client.get_executor(pure=False), threads)
