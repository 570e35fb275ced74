"""Functions shared by all commands: exit codes, errors in one line, and progress."""

import argparse
import difflib
import io
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from ich_lstm.cli.progress import ProgressLines
from ich_lstm.errors import ConfigError, IchLstmError, Spell, as_option
from ich_lstm.files.full_disk import disk_full, is_disk_full
from ich_lstm.printable import printable

if TYPE_CHECKING:
    from rich.console import Console

DONE, FAILED, WRONG_USAGE, SOME_FAILED = 0, 1, 2, 3
INTERRUPTED = 130

HANDED_OVER = "ICH_TRAIN_RUN"
"""Environment variable by which the first process of ich-train passes values to those that Lightning starts with the same command
line (`Settled`)."""

RESTARTS = ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT")
"""Environment variables in which torchrun and SLURM say how often they have restarted this command."""


class StoppedWhile(Exception):
    """A disk became full during an activity whose progress is known.

    Args:
        done: Number of items that were done.
        total: Number of all items; None if unknown.
    """

    def __init__(self, done: int, total: int | None) -> None:
        super().__init__("a disk is full")
        self.done, self.total = done, total


def run_command(
    name: str,
    help_text: str,
    command: Callable[[list[str]], int],
    argv: Sequence[str] | None = None,
    *,
    whole: str = "Files of it may be truncated.",
    spell: Spell = as_option,
) -> int:
    """Run a command: print its help, or run it and print errors without a traceback (unless ``--debug``).

    Args:
        name: Name of the command, for example ``ich-train``.
        help_text: Text that ``--help`` prints.
        command: Function that takes the arguments without ``--debug`` and returns the exit code.
        argv: Arguments of the command; None for those of the process.
        whole: Sentence about the state of the files in ``--out``, for the error that a disk is full.
        spell: Spelling of the settings that errors name, for this command.

    Returns:
        The exit code: 0 done, 1 failed, 2 wrong usage, 3 some inputs have no result (see the help of each command),
        130 interrupted.
    """
    if argv is None:
        _ensure_utf8()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # so that a path that the terminal cannot show does not stop the command
            stream.reconfigure(errors="backslashreplace")
    arguments = list(sys.argv[1:] if argv is None else argv)
    if any(argument in ("-h", "--help") for argument in arguments):
        print(help_text.strip())
        return DONE
    if "--version" in arguments:
        import ich_lstm

        print(f"{name} {ich_lstm.__version__}")
        return DONE
    debug = "--debug" in arguments
    try:
        return command([argument for argument in arguments if argument != "--debug"])
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        if debug:
            print(printable(traceback.format_exc(), keep="\n"), file=sys.stderr, end="")
        if is_disk_full(error):
            done, total = (error.done, error.total) if isinstance(error, StoppedWhile) else (0, None)
            error = disk_full(error, _out_of(arguments), done=done, total=total, whole=whole)
        if isinstance(error, IchLstmError):
            print(f"{name}: {error.spelt(spell)}", file=sys.stderr)
            return WRONG_USAGE if isinstance(error, ConfigError) else FAILED
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        first_line = printable(first_line)
        print(f"{name}: unexpected {type(error).__name__}: {first_line}. Run again with --debug to see where.", file=sys.stderr)
        return FAILED


def _ensure_utf8() -> None:
    """Restart the process in Python's UTF-8 mode if the locale has another encoding for file names.

    Under LC_ALL=C, for example, Arrow and Python encode the same file name differently, and some names cannot be written.
    """
    if sys.getfilesystemencoding().lower().replace("-", "") != "utf8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def _out_of(arguments: Sequence[str]) -> Path | None:
    """The output folder of a command, or the run that ich-train resumes, read from its arguments."""
    for number, argument in enumerate(arguments):
        option, has_value, value = argument.partition("=")
        if option in ("--out", "--resume") and (has_value or number + 1 < len(arguments)):
            return Path(value if has_value else arguments[number + 1])
    return None


def console() -> "Console":
    """The console on which commands print; it wraps lines only on a terminal, so that logs can be searched.

    Text is printed as it is, apart from control characters, line ends among them, which are escaped: ``[red]`` in a series
    description is no markup, and nothing that a file says looks like a line of its own.
    """
    from rich.console import Console
    from rich.text import Text

    class PlainConsole(Console):
        def render_str(self, text: str, **options: Any) -> Text:
            return super().render_str(printable(text), **options)

    return PlainConsole(soft_wrap=not sys.stdout.isatty(), highlight=False, markup=False, emoji=False)


def choose_device(device: str | None) -> str:
    """Choose the device to predict on: the one that was given, or else a GPU if there is one.

    Args:
        device: Value of ``--device``, ``cpu`` or ``cuda``; None if it was not given.

    Returns:
        ``cpu`` or ``cuda``.

    Raises:
        ConfigError: ``no_gpu``, if ``cuda`` was given and torch finds no GPU.
    """
    import torch

    has_gpu = torch.cuda.is_available()
    if device == "cuda" and not has_gpu:
        raise ConfigError("no_gpu", where="--device", got="cuda", expected="a GPU that torch can use", todo="Give --device cpu.")
    return device or ("cuda" if has_gpu else "cpu")


@contextmanager
def progress_bar(out: "Console") -> Iterator[Callable[[str, int, int | None], None]]:
    """Show the progress of activities: bars on a terminal, at most one line a minute elsewhere.

    Yields:
        A function of the activity, the number of items done since the last call, and the total, or None if it is unknown.
    """
    last: list[tuple[str, int, int | None]] = []
    with _bars(out) as show:

        def progress(what: str, done: int, total: int | None = None) -> None:
            before = last.pop()[1] if last and last[-1][0] == what else 0
            last[:] = [(what, before + done, total)]
            show(what, done, total)

        try:
            yield progress
        except Exception as error:
            if last and is_disk_full(error):
                raise StoppedWhile(*last[0][1:]) from error
            raise


@contextmanager
def _bars(out: "Console") -> Iterator[Callable[[str, int, int | None], None]]:
    """Show progress without tracking where a full disk stopped it."""
    if not out.is_terminal:
        yield ProgressLines(lambda line: out.print(line)).advance
        return
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: Task) -> Text:
            speed = task.finished_speed or task.speed
            return Text("" if speed is None else f"{speed:,.0f}/s" if speed >= 10 else f"{speed:.1f}/s")

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out) as bars:
        tasks = {}

        def show(what: str, done: int, total: int | None = None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], advance=done, total=total)

        yield show


class OptionParser(argparse.ArgumentParser):
    """An argument parser that raises a ConfigError; for an unknown option the error names the most similar one."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, add_help=False, allow_abbrev=False)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse the arguments of a command.

        Raises:
            ConfigError: If an option is unknown, missing or malformed.
        """
        known = list(self._option_string_actions)
        for argument in arguments:
            name = argument.split("=")[0]
            # Checked first, because argparse would report a misspelt option as a missing one.
            if name.startswith("--") and name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                self._fail(f"unknown option {name}", f"Did you mean {near[0]}? " if near else "")
        return self.parse_args(arguments)

    def error(self, message: str) -> NoReturn:
        """Raise a ConfigError; argparse itself would print its usage text and exit.

        Args:
            message: Message of argparse.
        """
        self._fail(message)

    def _fail(self, got: str, todo: str = "") -> NoReturn:
        raise ConfigError("wrong_usage", where="command line", got=got, todo=f"{todo}{self.prog} --help lists the options.")
