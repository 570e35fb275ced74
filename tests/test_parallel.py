"""Processes that this library starts end with the process that asked for them, however that one ends."""

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from pathlib import Path

import pytest

from ich_lstm.errors import WorkerError
from ich_lstm.parallel import LONGEST_TEMPORARY, TO_ALL, fork_server, undisturbed

SECONDS = 10
"""Time within which no process may be left."""

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="processes are found in /proc")

SETUP = """
import multiprocessing, os, signal, subprocess, sys, time
from pathlib import Path

def ready(word):
    print(word, flush=True)
    while True:
        time.sleep(60)
"""

PROGRAMS = {
    # Workers that wait for requests, since the first epoch is over.
    "idle loader": """
if __name__ == "__main__":
    from fabricated import make_labelled
    from data.loading.test_loader import make_loader
    folder = Path(sys.argv[1])
    loader = make_loader([make_labelled(folder, f"1.2.{i}", slices=8, seed=i, size=16) for i in range(4)], workers=2)
    len([batch for batch in loader])
    ready("ready")
""",
    # Workers whose batches nobody takes.
    "full loader": """
if __name__ == "__main__":
    from fabricated import make_labelled
    from data.loading.test_loader import make_loader
    folder = Path(sys.argv[1])
    loader = make_loader([make_labelled(folder, f"1.2.{i}", slices=8, seed=i, size=16) for i in range(14)], workers=2)
    batches = iter(loader)
    next(batches)
    ready("ready")
""",
    "map_ahead": """
if __name__ == "__main__":
    from ich_lstm.parallel import map_ahead
    results = map_ahead(time.sleep, [0.1] * 4 + [1.0] * 400, workers=2)
    next(results)
    ready("ready")
""",
    # A process that Lightning starts is no child of multiprocessing.
    "subprocess": """
if __name__ == "__main__":
    if len(sys.argv) == 3:
        from ich_lstm.parallel import end_with_parent
        end_with_parent()
        ready("")
    subprocess.Popen([sys.executable, __file__, sys.argv[1], "child"])
    time.sleep(2)
    ready("ready")
""",
}


def processes_with(mark: str) -> dict[int, str]:
    """Process ids and command lines of the living processes whose environment holds a mark."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if mark.encode() in (folder / "environ").read_bytes() and "\nState:\tZ" not in (folder / "status").read_text():
                found[int(folder.name)] = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:200]
        except OSError:
            continue  # another user's, or it has ended
    return found


def wait_until_none(mark: str) -> dict[int, str]:
    """The processes that live on after the time limit, which are then killed."""
    until = time.monotonic() + SECONDS
    while (left := processes_with(mark)) and time.monotonic() < until:
        time.sleep(0.1)
    for process in left:
        os.kill(process, signal.SIGKILL)
    return left


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, *(pytest.param(how, marks=pytest.mark.slow) for how in (signal.SIGTERM, signal.SIGINT))]
)
@pytest.mark.parametrize(
    "program", [pytest.param(name, marks=pytest.mark.slow) if name == "full loader" else name for name in PROGRAMS]
)
def test_no_process_outlives_the_main_one(program: str, how: signal.Signals, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(SETUP + PROGRAMS[program])
    mark = f"ICH_LSTM_TEST_MARK={tmp_path}"
    paths = [str(Path(__file__).parent), *sys.path]
    environment = {**os.environ, "ICH_LSTM_TEST_MARK": str(tmp_path), "PYTHONPATH": os.pathsep.join(paths)}
    with subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as main:
        assert main.stdout is not None
        assert any(line == "ready\n" for line in main.stdout)
        assert len(processes_with(mark)) > 1
        main.send_signal(how)
        assert wait_until_none(mark) == {}


@pytest.mark.parametrize("signum", TO_ALL)
def test_signals_wait_until_processes_are_started(signum: signal.Signals) -> None:
    received = []
    before = signal.signal(signum, lambda *_: received.append(signum))
    other = threading.Event()
    thread = threading.Thread(target=other.wait)  # which would receive what is only blocked in this one
    thread.start()
    try:
        with undisturbed():
            os.kill(os.getpid(), signum)
            time.sleep(0.05)
            os.kill(os.getpid(), signum)
            time.sleep(0.05)
            assert not received
        assert received == [signum]
        os.kill(os.getpid(), signum)
        assert received == [signum, signum]
    finally:
        signal.signal(signum, before)
        other.set()
        thread.join()


def test_a_signal_that_ends_a_process_ends_it_afterwards() -> None:
    code = """
        import os, signal, time
        from ich_lstm.parallel import undisturbed
        with undisturbed():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            print("started", flush=True)
        time.sleep(10)
    """
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stdout, done.returncode) == ("started\n", -signal.SIGTERM), done.stderr


def test_a_long_path_of_the_temporary_folder_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets have short names; multiprocessing itself says that a path is too long, not which one."""
    monkeypatch.setattr(tempfile, "tempdir", f"/{LONGEST_TEMPORARY * 'a'}")
    with pytest.raises(WorkerError, match=r"temporary folder /aaa.*TMPDIR") as info:
        fork_server()
    assert info.value.code == "temporary_folder_too_long"


def test_the_longest_path_of_the_temporary_folder_can_be_used() -> None:
    with tempfile.TemporaryDirectory() as short:
        folder = Path(short) / ((LONGEST_TEMPORARY - len(short) - 1) * "a")
        folder.mkdir()
        assert len(str(folder)) == LONGEST_TEMPORARY
        code = "from ich_lstm.parallel import map_ahead\nif __name__ == '__main__':\n    print(*map_ahead(abs, [-1, -2], 2))"
        script = Path(short) / "script.py"
        script.write_text(code)
        done = subprocess.run(
            [sys.executable, str(script)],
            env={**os.environ, "TMPDIR": str(folder), "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.stdout, done.returncode) == ("1 2\n", 0), done.stderr
