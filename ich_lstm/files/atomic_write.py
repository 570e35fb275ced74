"""Atomic writing: a file appears complete or not at all, even if the process that writes it is killed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUFFIX = ".unfinished"
"""Suffix of temporary files; if no process is writing, such a file was left by a process that was killed."""


@contextmanager
def atomic_write(path: Path, *, mode: int | None = None) -> Iterator[Path]:
    """Yield a temporary path, which is renamed to the file at the end, or removed after an error.

    Args:
        path: File to write.
        mode: Permissions of the file from the beginning, such as 0o600; None for the system's default.

    Example:
        >>> with atomic_write(Path("a.txt")) as unfinished:  # doctest: +SKIP
        ...     unfinished.write_text("whole")
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}{SUFFIX}")
    try:
        if mode is not None:
            unfinished.touch(mode=mode)
        yield unfinished
        os.replace(unfinished, path)
    except OSError as error:
        if error.filename is None:  # the error of a full disk does not name the file
            error.filename = str(path)
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, completely or not at all."""
    with atomic_write(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that killed processes have left below a folder. No process may be writing in the folder."""
    for unfinished in folder.rglob(f".*{SUFFIX}"):
        unfinished.unlink(missing_ok=True)
