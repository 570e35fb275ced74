"""A lock that admits one command at a time to a folder; the system releases it however the process ends."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None  # type: ignore[assignment]


@contextmanager
def claimed(lock: Path, *, when_taken: Callable[[str], None]) -> Iterator[bool]:
    """Hold a lock file; a process that was killed holds none, so nothing has to be removed by hand.

    Args:
        lock: The lock file, made if missing; holds the number of the process that has it.
        when_taken: Called with the number of the process that holds the lock, or with "unknown". It may raise an error;
            if it returns, this process waits until the lock is free.

    Yields:
        Whether it is certain that no other process holds the lock; some network file systems have no locks.
    """
    with lock.open("a+") as file:
        if fcntl is None:
            yield False
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            when_taken(file.read().strip() or "unknown")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # a file system without locks
            yield False
            return
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield True
