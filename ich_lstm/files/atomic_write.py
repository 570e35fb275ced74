"""Atomic writing: a file appears complete or not at all, even if the process that writes it is killed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUFFIX = ".aside"
"""Suffix of files that are being written; such a file is the remains of a killed process if no process is writing."""


@contextmanager
def written_aside(path: Path, *, mode: int | None = None) -> Iterator[Path]:
    """A temporary path for a file, which is renamed at the end; after an error nothing of it is left.

    Args:
        path: File to be written.
        mode: Permissions of the file from its first byte on, such as 0o600; None: those that the system gives.

    Example:
        >>> with written_aside(Path("a.txt")) as aside:  # doctest: +SKIP
        ...     aside.write_text("whole")
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{SUFFIX}")
    try:
        if mode is not None:
            aside.touch(mode=mode)
        yield aside
        os.replace(aside, path)
    except OSError as error:
        if error.filename is None:  # the error of a full disk does not name the file
            error.filename = str(path)
        raise
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, complete or not at all."""
    with written_aside(path) as aside:
        aside.write_text(text, encoding="utf-8")


def remove_asides(folder: Path) -> None:
    """Remove what killed processes have left below a folder; to be called when no process is writing there."""
    for aside in folder.rglob(f".*{SUFFIX}"):
        aside.unlink(missing_ok=True)
