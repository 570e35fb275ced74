"""Atomic writing: a file appears complete or not at all, even if the process that writes it is killed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SUFFIX = ".aside"
"""Of files that are being written; what bears it when nobody writes is the rest of a process that was killed."""


@contextmanager
def written_aside(path: Path) -> Iterator[Path]:
    """Where to write a file, which takes its own name at the end; after an error nothing of it is left.

    Example:
        >>> with written_aside(Path("a.txt")) as aside:  # doctest: +SKIP
        ...     aside.write_text("whole")
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{SUFFIX}")
    try:
        yield aside
        os.replace(aside, path)
    except OSError as error:
        if error.filename is None:  # a write that fails for want of space does not know its file
            error.filename = str(path)
        raise
    finally:
        aside.unlink(missing_ok=True)


def remove_asides(folder: Path) -> None:
    """Remove what killed processes have left below a folder; to be called when nobody writes there."""
    for aside in folder.rglob(f".*{SUFFIX}"):
        aside.unlink(missing_ok=True)
