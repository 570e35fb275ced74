"""A lock that admits one command at a time to a folder; the system releases it however the process ends."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ich_lstm.privacy import opener_for

try:
    import fcntl
except ImportError:  # a system without such locks
    fcntl = None  # type: ignore[assignment]


@contextmanager
def claimed(lock: Path, *, when_taken: Callable[[str], None]) -> Iterator[bool]:
    """Hold a lock file. The lock of a process that was killed is released, so that nothing has to be removed by hand.

    Args:
        lock: The lock file, created if missing; it contains the number of the process that holds it.
        when_taken: Called with the number of the process that holds the lock, or with "unknown". It may raise an error;
            if it returns, this process waits until the lock is free.

    Yields:
        Whether it is certain that no other process holds the lock; some network file systems do not support locks.
    """
    with open(lock, "a+", opener=opener_for(lock)) as file:
        if fcntl is None:
            yield False
            return
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            when_taken(file.read().strip() or "unknown")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:  # the file system does not support locks
            yield False
            return
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield True
