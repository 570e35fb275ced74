"""Requests to stop: SIGTERM and SIGINT wait for the next moment at which a fit can be saved."""

import signal
import threading
from pathlib import Path
from types import FrameType


class Interrupted(Exception):
    """The process was asked to stop, and stops.

    Args:
        signum: The signal, SIGTERM or SIGINT; SIGTERM if another process of the training received it.
        checkpoint: The checkpoint from which the fit can be resumed; None if no fit was running.
    """

    def __init__(self, signum: int, checkpoint: Path | None = None) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum, self.checkpoint = signum, checkpoint

    @property
    def exit_code(self) -> int:
        """The exit code by the convention of shells: 143 for SIGTERM, 130 for SIGINT."""
        return 128 + self.signum


class Interruption:
    """Handles SIGTERM and SIGINT. During a fit the first signal only asks it to stop; another SIGINT stops it at once.

    Outside a fit, or for the second signal, `Interrupted` is raised wherever the process is.
    """

    def __init__(self) -> None:
        self._signum: int | None = None
        self._waits = False

    @property
    def is_requested(self) -> bool:
        """Whether this process has received a signal."""
        return self._signum is not None

    def wait_for_safe_moment(self) -> None:
        """Handle signals by asking the fit to stop. Lightning replaces handlers when a fit begins, so call this afterwards."""
        self._waits = True
        self._handle()

    def stop_at_once(self) -> None:
        """Handle signals by raising `Interrupted`."""
        self._waits = False
        self._handle()
        if self._signum is not None:  # it came during the last step
            self.stop(None)

    def stop(self, checkpoint: Path | None) -> None:
        """Raise `Interrupted`.

        Args:
            checkpoint: The checkpoint from which the fit can be resumed; None for none.
        """
        raise Interrupted(self._signum or signal.SIGTERM, checkpoint)

    def _handle(self) -> None:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers in no other thread
            for signum in (signal.SIGTERM, signal.SIGINT):
                signal.signal(signum, self._received)

    def _received(self, signum: int, frame: FrameType | None) -> None:
        is_second = self._signum is not None
        self._signum = signum
        if not self._waits or (is_second and signum == signal.SIGINT):
            raise Interrupted(signum)
