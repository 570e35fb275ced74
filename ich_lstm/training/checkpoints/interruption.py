"""Requests to stop: SIGTERM and SIGINT wait for the next moment at which a fit can be saved."""

import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupted(BaseException):
    """The process was asked to stop, and stops.

    It is no `Exception`, as KeyboardInterrupt is none, so that it passes code that refuses one file for any error and goes on.

    Args:
        signum: The signal, SIGTERM or SIGINT; SIGTERM if another process of the training received it.
        told: What the user is told: what is saved, and how to go on.
    """

    def __init__(self, signum: int, told: str) -> None:
        super().__init__(f"stopped by {signal.Signals(signum).name}. {told}")
        self.signum = signum

    @property
    def exit_code(self) -> int:
        """The exit code by the convention of shells: 143 for SIGTERM, 130 for SIGINT."""
        return 128 + self.signum


class Interruption:
    """Handles SIGTERM and SIGINT in its context.

    During a fit, the first signal asks the fit to stop. Outside a fit, and for a second signal that is SIGINT, `Interrupted` is
    raised wherever the process is.

    Args:
        next_step: A sentence that tells a stopped user what to do. Whoever begins or ends a piece of work changes it.
    """

    def __init__(self, next_step: str) -> None:
        self.next_step = next_step
        self._signum: int | None = None
        self._waits = False
        self._handlers: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take over the handling of the signals; Python allows that in the main thread only."""
        if threading.current_thread() is threading.main_thread():
            self._handlers = {signum: signal.getsignal(signum) for signum in (signal.SIGTERM, signal.SIGINT)}
        self._handle()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """Give the signals back to those who handled them before."""
        for signum, handler in self._handlers.items():
            signal.signal(signum, signal.SIG_DFL if handler is None else handler)

    @property
    def is_requested(self) -> bool:
        """Whether this process has received a signal."""
        return self._signum is not None

    def wait_for_safe_moment(self) -> None:
        """Handle signals by asking the fit to stop. Lightning replaces handlers when a fit begins, so call this afterwards."""
        self._waits = True
        self._handle()

    def stop_at_once(self) -> None:
        """Handle signals by raising `Interrupted`.

        Raises:
            Interrupted: If a signal came before.
        """
        self._waits = False
        self._handle()
        if self._signum is not None:
            raise self._stopped(self._signum, "")

    def stop(self, checkpoint: Path) -> None:
        """Stop a fit.

        Args:
            checkpoint: The checkpoint from which the fit can be resumed.

        Raises:
            Interrupted: Always.
        """
        raise self._stopped(self._signum or signal.SIGTERM, f"Everything is saved in {checkpoint}. ")

    def _stopped(self, signum: int, saved: str) -> Interrupted:
        return Interrupted(signum, saved + self.next_step)

    def _handle(self) -> None:
        for signum in self._handlers:
            signal.signal(signum, self._received)

    def _received(self, signum: int, frame: FrameType | None) -> None:
        is_second = self._signum is not None
        self._signum = signum
        if not self._waits or (is_second and signum == signal.SIGINT):
            raise self._stopped(signum, "")
