"""Errors that nobody foresaw, in work on one of many things: they become the library's own, so that the others go on."""

import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from errno import ENOMEM
from pathlib import Path

from ich_lstm.errors import CheckpointError, ConfigError, IchLstmError, StorageError, UnexpectedError
from ich_lstm.files.full_disk import is_disk_full

OUT_OF_MEMORY = (
    *("out of memory", "can't allocate memory", "not enough memory", "insufficient memory", "bad_alloc", "failed to allocate"),
    *("status_alloc_failed", "cudnn_status_not_supported"),  # of cuBLAS and cuDNN, whose workspace did not fit
    os.strerror(ENOMEM).lower(),
)
"""Texts about memory in the errors of torch, OpenCV, C++ and the system, in lower case."""

MOST_CHARACTERS = 300
"""Characters of a strange message that are kept."""

PACKAGE = Path(__file__).parent


@contextmanager
def one_of_many(where: str) -> Iterator[None]:
    """Turn an error that nobody foresaw into an `UnexpectedError`, so that the caller refuses one thing and goes on.

    A full disk is no matter of one thing, and passes unchanged. So do the library's own errors, KeyboardInterrupt and SystemExit.

    Args:
        where: The study, series or file that is worked on.

    Raises:
        UnexpectedError: ``out_of_memory`` or ``unexpected_error``.
    """
    try:
        yield
    except IchLstmError:
        raise
    except Exception as error:
        if is_disk_full(error):
            raise
        raise unexpected(error, where) from error


def unexpected(error: Exception, where: str) -> UnexpectedError:
    """The library's own error for one that nobody foresaw.

    Args:
        error: The error that was raised.
        where: The study, series or file that was worked on.
    """
    lines = str(error).strip().splitlines() or ["no message"]
    got = f"{type(error).__name__}{_place(error)}: {lines[0][:MOST_CHARACTERS].rstrip('.')}"
    if is_out_of_memory(error):
        todo = "Close other programs or use fewer processes, and run the same command again."
        return UnexpectedError("out_of_memory", where=where, got=got, todo=todo)
    return UnexpectedError("unexpected_error", where=where, got=got, todo="Run the same command again; if it recurs, report it.")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out, of the machine or of a GPU.

    torch and OpenCV raise a RuntimeError or an error of their own, which only its text tells from others.
    """
    text = str(error).lower()
    is_named = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"  # torch's, which is not imported here
    return is_named or any(word in text for word in OUT_OF_MEMORY)


def concerns_all(error: BaseException) -> bool:
    """Whether an error would meet all other studies too: a full disk, a setting, or the model. It ends the command."""
    return isinstance(error, StorageError | ConfigError | CheckpointError) or is_disk_full(error)


def _place(error: BaseException) -> str:
    """The innermost line of this library at which an error was raised; empty if there is none."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        file = Path(frame.filename)
        if file.is_relative_to(PACKAGE) and file != Path(__file__):
            return f" ({file.relative_to(PACKAGE).as_posix()}, line {frame.lineno})"
    return ""
