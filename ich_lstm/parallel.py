"""Runs calls in other processes, on this machine or on a cluster, with a bounded number of results prefetched."""

import logging
import multiprocessing
import os
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from ich_lstm.errors import IchLstmError, SourceError

logger = logging.getLogger(__name__)

CALLS_AHEAD = 4
"""Calls per worker that are under way or done, and not taken yet: bounds the memory, however many there are in all."""

Item = TypeVar("Item")
Result = TypeVar("Result")


_carried: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []


def carry(state: Callable[[], Result], use: Callable[[Result], None]) -> None:
    """See that the processes of `map_ahead` have a state of this one that is not among their arguments.

    Args:
        state: Gives the state, which can be pickled, at the time of a call.
        use: Importable; called with the state in the other process, before each of its items.
    """
    _carried.append((state, use))


def count_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, executor: Executor | None = None
) -> Iterator[Result]:
    """Call a function for each item, and give the results in the order of the items.

    Should a process of this machine die, the rest is done in this one.

    Args:
        function: Importable, for it is called in other processes.
        items: Taken as they are needed.
        workers: Processes, or calls that the executor can run at a time. With one and no executor: this process.
        executor: What runs the calls; by default processes of this machine.

    Raises:
        SourceError: ``executor_failed`` if the executor that was given loses its workers.
    """
    # They know what this process knows now; a worker may outlive several callers.
    there = partial(_call_with, [(use, state()) for state, use in _carried], function)
    if executor is not None:
        try:
            yield from _submit_ahead(executor, there, iter(items), workers, deque())
        except IchLstmError:
            raise
        except Exception as error:  # every kind of executor has its own
            raise SourceError(
                "executor_failed",
                where=type(executor).__name__,
                got=f"a call was lost ({type(error).__name__})",
                todo="Look at the workers' logs, then run again: what was done is not done twice.",
            ) from error
    # Workers of a data loader are daemonic and may have no children.
    elif workers <= 1 or multiprocessing.current_process().daemon:
        yield from map(function, items)
    else:
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        items = iter(items)
        # fork would copy the locks of torch's threads in whatever state they are.
        method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
        context = multiprocessing.get_context(method)
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_end_with_parent) as pool:
            try:
                yield from _submit_ahead(pool, there, items, workers, waiting)
                return
            except BrokenProcessPool:
                logger.warning("a process died; going on in this one")
        yield from map(function, chain([item for item, _ in waiting], items))


def _call_with(known: list[tuple[Callable[[Any], None], Any]], function: Callable[[Item], Result], item: Item) -> Result:
    for use, state in known:
        use(state)
    return function(item)


def _end_with_parent() -> None:
    """See that this process ends if its parent is killed: it would wait for calls for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def wait() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=wait, daemon=True).start()


def _submit_ahead(
    executor: Executor,
    function: Callable[[Item], Result],
    items: Iterator[Item],
    workers: int,
    waiting: deque[tuple[Item, Future[Result]]],
) -> Iterator[Result]:
    for item in items:
        future: Future[Result] | None = None
        try:
            future = executor.submit(function, item)
        finally:
            waiting.append((item, future or Future()))
        if len(waiting) >= workers * CALLS_AHEAD:
            yield _first(waiting)
    while waiting:
        yield _first(waiting)


def _first(waiting: deque[tuple[Item, Future[Result]]]) -> Result:
    result = waiting[0][1].result()
    waiting.popleft()
    return result
