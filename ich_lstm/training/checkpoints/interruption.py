"""Requests to stop: signals wait for the next moment at which a fit can be saved."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType

AGAIN_SECONDS = 1.0
"""A second SIGINT means "at once" only after this time, because torchrun repeats the terminal's SIGINT to its processes."""

AFTERWARDS_SECONDS = 0.05
"""Time after which a signal is sent again whose error was lost."""


class Interrupted(BaseException):
    """The process was asked to stop, and stops.

    It is no `Exception`, as KeyboardInterrupt is none, so that it passes code that refuses one file for any error and goes on.

    Args:
        signum: The signal that this process or another one of the training has received.
        checkpoint: The checkpoint from which the fit can be resumed; None if no fit was running.
    """

    def __init__(self, signum: int, checkpoint: Path | None = None) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum, self.checkpoint = signum, checkpoint

    @property
    def exit_code(self) -> int:
        """The exit code by the convention of shells: 143 for SIGTERM, 130 for SIGINT, 138 for SIGUSR1."""
        return 128 + self.signum


class Interruption:
    """Handles signals. During a fit the first one only asks it to stop; another SIGINT stops it at once.

    Args:
        signals: The signals that ask the process to stop.
        outside: What a signal does outside a fit: None raises `Interrupted` wherever the process is, ``SIG_IGN`` ignores it,
            ``SIG_DFL`` ends the process, also if it waits in a library.
    """

    def __init__(self, signals: Sequence[int] = (signal.SIGTERM, signal.SIGINT), outside: signal.Handlers | None = None) -> None:
        self._signals, self._outside = signals, outside
        self.next_step = "Nothing was begun."
        """What a stopped user is told; whoever begins or ends a piece of work changes it."""
        self._signum: int | None = None
        self._asked = 0.0
        self._waits = False
        if not isinstance(sys.unraisablehook, _Resender):
            sys.unraisablehook = _Resender(sys.unraisablehook)

    @property
    def is_requested(self) -> bool:
        """Whether this process has received a signal."""
        return self._signum is not None

    @property
    def signum(self) -> int | None:
        """The first signal that this process has received; None if it has received none."""
        return self._signum

    def wait_for_safe_moment(self) -> None:
        """Handle signals by asking the fit to stop. Lightning replaces handlers when a fit begins, so call this afterwards."""
        self._waits = True
        self._handle()

    def stop_at_once(self) -> None:
        """Handle signals as it is said for the time outside a fit."""
        self._waits = False
        self._handle()

    def stop(self, checkpoint: Path | None, signum: int | None = None) -> None:
        """Raise `Interrupted`.

        Args:
            checkpoint: The checkpoint from which the fit can be resumed; None for none.
            signum: The signal, if another process may have received it; None for the one that this process has received.
        """
        raise Interrupted(signum or self._signum or signal.SIGTERM, checkpoint)

    def _handle(self) -> None:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers in no other thread
            for signum in self._signals:
                signal.signal(signum, self._received if self._waits or self._outside is None else self._outside)

    def _received(self, signum: int, frame: FrameType | None) -> None:
        is_again = self._signum is not None and time.monotonic() - self._asked > AGAIN_SECONDS
        if self._signum is None:
            self._signum, self._asked = signum, time.monotonic()
        if not self._waits or (is_again and signum == signal.SIGINT):
            raise Interrupted(signum)


class _Resender:
    """Sends a signal again if its error was raised where Python ignores errors: in a destructor or a callback.

    Args:
        before: The hook for all other ignored errors.
    """

    def __init__(self, before: Callable[["sys.UnraisableHookArgs"], object]) -> None:
        self._before = before

    def __call__(self, lost: "sys.UnraisableHookArgs") -> None:
        if isinstance(lost.exc_value, Interrupted):
            # Later, and from another thread: an error that is raised in this hook is ignored, too.
            timer = threading.Timer(AFTERWARDS_SECONDS, os.kill, (os.getpid(), lost.exc_value.signum))
            timer.daemon = True
            timer.start()
        else:
            self._before(lost)
