"""What all commands share: exit codes, errors in one line, and progress."""

import argparse
import difflib
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

from ich_lstm.errors import ConfigError, IchLstmError, Spell, as_option

if TYPE_CHECKING:
    from rich.console import Console

DONE, FAILED, WRONG_USAGE, SOME_FAILED = 0, 1, 2, 3
INTERRUPTED = 130


def run_command(
    name: str,
    help_text: str,
    command: Callable[[list[str]], int],
    argv: Sequence[str] | None = None,
    *,
    spell: Spell = as_option,
) -> int:
    """Run a command: its help, its exit code, and its errors without a traceback (unless ``--debug``).

    Args:
        name: As it is called, for example ``ich-train``.
        help_text: What ``--help`` prints.
        command: Gets the arguments without ``--debug``, and returns the exit code.
        argv: Arguments; those of the process if None.
        spell: How this command calls the settings that errors name.

    Returns:
        The exit code: 0 all done, 1 failed, 2 wrong usage, 3 some inputs failed.
    """
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
    except IchLstmError as error:
        if debug:
            traceback.print_exc()
        print(f"{name}: {error.spelt(spell)}", file=sys.stderr)
        return WRONG_USAGE if isinstance(error, ConfigError) else FAILED
    except Exception as error:
        if debug:
            traceback.print_exc()
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else "no message"
        print(f"{name}: unexpected {type(error).__name__}: {first_line}. Run again with --debug to see where.", file=sys.stderr)
        return FAILED


def console() -> "Console":
    """Where commands print; it wraps nothing when the output is no terminal, so that lines can be searched."""
    from rich.console import Console

    return Console(soft_wrap=not sys.stdout.isatty(), highlight=False)


@contextmanager
def progress_bar(out: "Console") -> Iterator[Callable[[str, int, int | None], None]]:
    """A bar per activity, with its rate; yields a function of what is done, how much since, and the total if known."""
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
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        Rate(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=out, disable=not out.is_terminal) as bars:
        tasks = {}

        def tell(what: str, done: int, total: int | None = None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total)
            bars.update(tasks[what], advance=done, total=total)

        yield tell


class OptionParser(argparse.ArgumentParser):
    """An argument parser that raises a ConfigError, with the nearest option where one is unknown."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, add_help=False, allow_abbrev=False)

    def parse(self, arguments: Sequence[str]) -> argparse.Namespace:
        """Parse.

        Raises:
            ConfigError: If an option is unknown, missing or malformed.
        """
        known = list(self._option_string_actions)
        for argument in arguments:
            name = argument.split("=")[0]
            # Before anything else: a misspelt option would be reported as a missing one.
            if name.startswith("--") and name not in known:
                near = difflib.get_close_matches(name, known, n=1)
                self._fail(f"unknown option {name}", f"Did you mean {near[0]}? " if near else "")
        return self.parse_args(arguments)

    def error(self, message: str) -> NoReturn:
        """What argparse calls; without its usage text and its exit."""
        self._fail(message)

    def _fail(self, got: str, todo: str = "") -> NoReturn:
        raise ConfigError("wrong_usage", where="command line", got=got, todo=f"{todo}{self.prog} --help lists the options.")
