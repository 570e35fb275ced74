"""Runs calls in other processes, on this machine or on a cluster, with a bounded number of prefetched results."""

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from functools import partial
from itertools import chain
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

from ich_lstm.errors import IchLstmError, SourceError, WorkerError
from ich_lstm.printable import printable_logger

logger = printable_logger(__name__)

CALLS_AHEAD = 4
"""Largest number of calls per worker that are running or whose results wait; it bounds the memory."""

PARENT_SECONDS = 1.0
"""Time between two looks at whether a parent that was not started by `multiprocessing` still runs."""

TO_ALL = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGUSR1") if hasattr(signal, name))
"""Signals that a terminal or a cluster sends to all processes at once."""

SHIELDED = TO_ALL if hasattr(signal, "sigwaitinfo") else ()
"""Those of them that leave some processes alone. Empty where a process cannot learn who sent a signal."""

LONGEST_TEMPORARY = 75
"""Longest path of the temporary folder in bytes. The sockets of `multiprocessing` lie in a folder below it, which needs 32 bytes
more, and Linux accepts 107 bytes."""

Item = TypeVar("Item")
Result = TypeVar("Result")


_carried: list[tuple[Callable[[], Any], Callable[[Any], None]]] = []


def carry(state: Callable[[], Result], use: Callable[[Result], None]) -> None:
    """Register a global state of this process that `map_ahead` passes to its processes with every call.

    Args:
        state: Function that returns the state, which must be picklable; `map_ahead` calls it at its start.
        use: Importable function that is called with the state in the other process, before each item.
    """
    _carried.append((state, use))


def count_cores() -> int:
    """Number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def map_ahead(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, executor: Executor | None = None
) -> Iterator[Result]:
    """Call a function for each item in other processes, and yield the results in the order of the items.

    If a process of this machine dies, the remaining items are processed in this process.

    Args:
        function: Importable function of one item.
        items: Items, which are consumed as they are needed.
        workers: Number of processes, or of calls that the executor can run at a time; with 1 and no executor, calls run in
            this process.
        executor: Executor that runs the calls; None starts processes on this machine.

    Raises:
        SourceError: ``executor_failed`` if the given executor loses its workers.
    """
    # The states are taken now and passed with every call, because a worker may serve several callers.
    there = partial(_call_with, [(use, state()) for state, use in _carried], function)
    if executor is not None:
        try:
            yield from _submit_ahead(executor, there, iter(items), workers, deque())
        except IchLstmError:
            raise
        except Exception as error:  # each kind of executor has its own exceptions
            raise SourceError(
                "executor_failed",
                where=type(executor).__name__,
                got=f"a call was lost ({type(error).__name__})",
                todo="Look at the workers' logs, then run the command again: finished work is not repeated.",
            ) from error
    # Workers of a data loader are daemonic and cannot have children.
    elif workers <= 1 or multiprocessing.current_process().daemon:
        yield from map(function, items)
    else:
        waiting: deque[tuple[Item, Future[Result]]] = deque()
        items = iter(items)
        with ProcessPoolExecutor(workers, mp_context=fork_server(), initializer=end_with_parent) as pool:
            try:
                yield from _submit_ahead(pool, there, items, workers, waiting)
                return
            except BrokenProcessPool:
                logger.warning("a worker process died; continuing in this process")
            finally:
                pool.shutdown(cancel_futures=True)  # after an error or Ctrl-C, only the calls that run are waited for
        yield from map(function, chain([item for item, _ in waiting], items))


def _call_with(states: list[tuple[Callable[[Any], None], Any]], function: Callable[[Item], Result], item: Item) -> Result:
    """Apply the carried states in this process, and then call the function."""
    for use, state in states:
        use(state)
    return function(item)


def fork_server(preload: Sequence[str] = ()) -> BaseContext:
    """Choose how processes are started: forked from a server process that has only imported what they need.

    A fork of this process would copy the locks of torch's threads in an undefined state. The server is not ended by a signal that
    a terminal or a cluster sends to all processes at once, because this process could not tell a server that has ended from
    workers that have died. It ends with this process.

    Args:
        preload: Modules that the server imports, if it does not run yet.

    Raises:
        WorkerError: ``temporary_folder_too_long``.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    temporary = tempfile.gettempdir()
    if len(os.fsencode(temporary)) > LONGEST_TEMPORARY:
        raise WorkerError(
            "temporary_folder_too_long",
            where=f"the temporary folder {temporary}",
            got=f"a path of {len(os.fsencode(temporary))} bytes",
            expected=f"at most {LONGEST_TEMPORARY} bytes, because processes are connected through sockets in it",
            todo="Set the environment variable TMPDIR to a folder with a shorter path, for example /tmp.",
        )
    context = multiprocessing.get_context("forkserver")
    if preload:
        context.set_forkserver_preload(list(preload))
    if SHIELDED and multiprocessing.parent_process() is None:
        from multiprocessing import forkserver, resource_tracker  # modules of systems with signals

        # A new process inherits the signals that are blocked. The tracker's start unblocks some again, so it comes first.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, SHIELDED)
        try:
            resource_tracker.ensure_running()
            signal.pthread_sigmask(signal.SIG_BLOCK, SHIELDED)
            forkserver.ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let signals to all processes at once wait while processes are started; an error in between would leave them half started.

    Their handlers are replaced, because to block them in this thread would not help: the system gives them to another one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # handlers run in the main thread
        return
    waiting: list[int] = []
    before = {signum: handler for signum in TO_ALL if (handler := signal.getsignal(signum)) is not None}
    for signum in before:
        signal.signal(signum, lambda signum, frame: waiting.append(signum))
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)
        for signum in dict.fromkeys(waiting):
            signal.raise_signal(signum)


def end_with_parent(*, shielded: bool = False) -> None:
    """End this process as soon as the process that started it has ended, in whatever way; otherwise it would wait forever.

    Every process that this library starts calls this first. A process of `multiprocessing` watches the pipe to the process that
    asked for it, which also works if a fork server forked it. Any other process watches the id of its parent.

    Args:
        shielded: Whether signals that all processes receive at once leave this one alone, because the process that asked for it
            decides when it ends. Only SIGTERM from that process ends it.
    """
    asked = multiprocessing.parent_process()
    forked_by = os.getppid()
    if SHIELDED and asked is not None:
        signal.pthread_sigmask(signal.SIG_BLOCK if shielded else signal.SIG_UNBLOCK, SHIELDED)

    def wait() -> None:
        if asked is not None:
            asked.join()
        else:
            while os.getppid() == forked_by:
                time.sleep(PARENT_SECONDS)
        os._exit(1)  # without cleaning up, because the main thread may be blocked in a queue or in a collective operation

    def take_signals() -> None:
        while True:
            signal_ = signal.sigwaitinfo(SHIELDED)
            if asked is not None and signal_.si_signo == signal.SIGTERM and signal_.si_pid == asked.pid:
                os._exit(0)

    threading.Thread(target=wait, daemon=True, name="end_with_parent").start()
    if SHIELDED and shielded and asked is not None:
        threading.Thread(target=take_signals, daemon=True, name="take_signals").start()


def _submit_ahead(
    executor: Executor,
    function: Callable[[Item], Result],
    items: Iterator[Item],
    workers: int,
    waiting: deque[tuple[Item, Future[Result]]],
) -> Iterator[Result]:
    """Submit calls ahead of their results, and keep the items without a result in ``waiting``."""
    for item in items:
        future: Future[Result] | None = None
        try:
            with undisturbed():  # the first calls start the processes
                future = executor.submit(function, item)
        finally:
            waiting.append((item, future or Future()))
        if len(waiting) >= workers * CALLS_AHEAD:
            yield _first(waiting)
    while waiting:
        yield _first(waiting)


def _first(waiting: deque[tuple[Item, Future[Result]]]) -> Result:
    """Wait for the oldest call; its item leaves the queue only after it has succeeded."""
    result = waiting[0][1].result()
    waiting.popleft()
    return result
