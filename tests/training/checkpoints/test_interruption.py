"""Requests to stop that arrive where Python ignores errors."""

import os
import signal
import sys
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from ich_lstm.training.checkpoints.interruption import Interrupted, Interruption


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    handler, hook = signal.getsignal(signal.SIGUSR1), sys.unraisablehook
    yield
    signal.signal(signal.SIGUSR1, handler)
    sys.unraisablehook = hook


def _ask() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


class Asks:
    def __del__(self) -> None:
        _ask()


def in_a_destructor() -> None:
    Asks()


def in_a_callback() -> None:
    class Plain:
        pass

    plain = Plain()
    reference = weakref.ref(plain, lambda _: _ask())
    del plain
    assert reference() is None


@pytest.mark.parametrize("ask", [_ask, in_a_destructor, in_a_callback])
def test_a_request_is_not_lost(ask: Callable[[], None], capsys: pytest.CaptureFixture[str]) -> None:
    def work() -> None:
        ask()
        time.sleep(10)

    Interruption([signal.SIGUSR1]).stop_at_once()
    with pytest.raises(Interrupted, match="SIGUSR1"):
        work()
    assert "ignored" not in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_other_ignored_errors_are_told_as_before() -> None:
    told = []
    sys.unraisablehook = told.append
    Interruption([signal.SIGUSR1]), Interruption([signal.SIGUSR1])

    class Broken:
        def __del__(self) -> None:
            raise ValueError("broken")

    Broken()
    assert [str(lost.exc_value) for lost in told] == ["broken"]
