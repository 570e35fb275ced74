"""Loads hostile files, each in a process of its own, and reports what the library did with them.

One process imports the library once and forks for every file, so that each case has its own memory and its own end.
"""

import importlib
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

SECONDS = 10
"""Time limit of one case."""

MEGABYTES = 1000
"""Limit of the memory of one case, above that of the imported library."""

LOADED = "loaded"
"""The outcome of a file that was read without an error."""


class Outcome(NamedTuple):
    """What happened to one file.

    Args:
        code: Code of the error, or `LOADED`; the name of the exception if it is none of the library's own; ``time`` for too long.
        message: The message of the error.
        seconds: Duration.
        megabytes: Largest resident memory above that before the case.
        seen: What the library did and must not: files opened elsewhere or written, connections, programs.
    """

    code: str
    message: str
    seconds: float
    megabytes: float
    seen: list[str]


def outcomes(cases: dict[str, tuple[str, Path]], *, seconds: float = SECONDS) -> dict[str, Outcome]:
    """Run each case in a process of its own.

    Args:
        cases: For each name, a key of `LOADERS` and the file or folder.
        seconds: Time limit of one case.
    """
    given = json.dumps([seconds, {name: [kind, str(path)] for name, (kind, path) in cases.items()}])
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-W", "ignore", __file__]
    done = subprocess.run(command, input=given, capture_output=True, text=True, env=environment, timeout=280)
    assert done.returncode == 0, done.stderr[-2000:]
    return {name: Outcome(*outcome) for name, outcome in map(json.loads, done.stdout.splitlines())}


def load_model(path: str) -> None:
    from ich_lstm.inference.predictor import Predictor
    from ich_lstm.training.classifier import ScanClassifier

    try:
        Predictor.load(path)
    finally:
        ScanClassifier.load(path)


def read_config(path: str) -> None:
    from ich_lstm.cli.train import _train

    _train(["--config", path, "--data.root", path, "--plan"])


def open_a_file(path: str) -> None:
    (Path(path).parent / "outside").read_text()


def write_a_file(path: str) -> None:
    (Path(path) / "inside").write_text("")


def run_a_program(path: str) -> None:
    os.system("true")


def connect(path: str) -> None:
    import socket

    socket.socket().connect_ex(("127.0.0.1", 9))


def wait(path: str) -> None:
    time.sleep(60)


def take_memory(path: str) -> None:
    assert bytearray(os.urandom(1)) * (1200 * 2**20)


TRIALS = (open_a_file, write_a_file, run_a_program, connect, wait, take_memory)
"""Functions that do what must be seen."""

LOADERS: dict[str, Callable[[str], None]] = {each.__name__: each for each in (load_model, read_config, *TRIALS)}

IMPORTED = ("ich_lstm.cli.training.fit", "ich_lstm.inference.predictor", "ich_lstm.training.classifier")
"""Imported once, before the forks."""

FORBIDDEN = ("socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn")


def watch(path: str, seen: list[str]) -> None:
    """Record what must not happen, from now on."""
    import ich_lstm

    home = os.path.realpath(path)
    installed = [
        sys.prefix,
        sys.base_prefix,
        os.path.dirname(ich_lstm.__file__),
        *(place for place in sys.path if "site-" in place),
    ]
    homes = [home, *map(os.path.realpath, installed), "/proc/", "/sys/", "/dev/null", "/usr/lib/", "/usr/local/lib/"]

    def hook(event: str, details: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(details[0], str):
            place, mode, flags = os.path.realpath(details[0]), *details[1:]
            writes = bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)) if isinstance(flags, int) else "w" in (mode or "")
            if not place.startswith(tuple(homes)) or (writes and place != "/dev/null"):
                seen.append(f"{'wrote' if writes else 'opened'} {details[0]}")
        elif event.startswith(FORBIDDEN):
            seen.append(event)

    sys.addaudithook(hook)


def memory(field: str) -> float:
    """A line of the process' status, in megabytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1000
    return 0.0


def run_alone(load: Callable[[str], None], path: str, seconds: float) -> Outcome:
    """Load in a fork of this process."""
    from ich_lstm.errors import IchLstmError

    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        seen: list[str] = []
        before, started = memory("VmRSS"), time.monotonic()
        watch(path, seen)
        code, message = LOADED, ""
        try:
            load(path)
        except IchLstmError as error:
            code, message = error.code, str(error)
        except BaseException as error:
            code, message = type(error).__name__, str(error)
        seen = list(seen)
        outcome = Outcome(code, message[:2000], time.monotonic() - started, memory("VmHWM") - before, seen)
        os.write(writer, json.dumps(outcome).encode())
        os._exit(0)
    os.close(writer)
    has_ended = bool(select.select([reader], [], [], seconds)[0])
    content = os.read(reader, 2**16) if has_ended else b""
    os.close(reader)
    if not has_ended:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if content:
        return Outcome(*json.loads(content))
    return Outcome("crash" if has_ended else "time", f"status {status}", seconds, 0.0, [])


def main() -> None:
    for module in IMPORTED:
        importlib.import_module(module)
    seconds, cases = json.loads(sys.stdin.read())
    for name, (kind, path) in cases.items():
        sys.stdout.write(json.dumps([name, run_alone(LOADERS[kind], path, seconds)]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
