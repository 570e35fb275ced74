"""Atomic writing: a file appears complete or not at all, even if the process is killed, or the disk becomes full."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ich_lstm.files.full_disk import disk_full, is_disk_full
from ich_lstm.privacy import PRIVATE_FILE, is_private

SUFFIX = ".unfinished"
"""Suffix of temporary files; if no process is writing, such a file was left by a process that was killed."""


@contextmanager
def atomic_write(path: Path, *, mode: int | None = None, durable: bool = True) -> Iterator[Path]:
    """Yield a temporary path, which is renamed to the file at the end, or removed after an error.

    Args:
        path: File to write. Below a private folder it can be read by its owner only.
        mode: Permissions of the file from the beginning, such as 0o600; None for the system's default.
        durable: Whether the file outlives a power failure: its content is flushed to the disk before it is renamed, and its
            folder afterwards. This takes about 10 ms, which is too much for files that are many, checked when they are read, and
            made again if they are damaged.

    Raises:
        StorageError: ``disk_full``.

    Example:
        >>> with atomic_write(Path("a.txt")) as unfinished:  # doctest: +SKIP
        ...     unfinished.write_text("whole")
    """
    unfinished = path.with_name(f".{path.name}.{secrets.token_hex(4)}{SUFFIX}")
    mode = PRIVATE_FILE if mode is None and is_private(path) else mode
    try:
        if mode is not None:
            unfinished.touch(mode=mode)
            unfinished.chmod(mode)  # the umask may have taken away more
        yield unfinished
        if durable:
            flush_file(unfinished)
        os.replace(unfinished, path)
        if durable:
            flush_folder(path.parent)
    except Exception as error:
        unfinished.unlink(missing_ok=True)  # first, because the error states how much is free
        if isinstance(error, OSError) and error.filename is None:  # the error of a full disk does not name the file
            error.filename = str(path)
        if is_disk_full(error):
            raise disk_full(error, path.parent, whole=f"{path.name} was not written; an older one is unchanged.") from error
        raise
    finally:
        unfinished.unlink(missing_ok=True)


def flush_file(path: Path) -> None:
    """Wait until the content of a file is on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk, where the system can do that."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def write_text(path: Path, text: str, *, durable: bool = True) -> None:
    """Write a text file in UTF-8, completely or not at all.

    Args:
        path: File to write.
        text: Its content; line ends are written as they are.
        durable: Whether the file outlives a power failure, see `atomic_write`.
    """
    write_bytes(path, text.encode(), durable=durable)


def write_bytes(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Write a file, completely or not at all.

    Args:
        path: File to write.
        content: Its content.
        durable: Whether the file outlives a power failure, see `atomic_write`.
    """
    with atomic_write(path, durable=durable) as unfinished:
        unfinished.write_bytes(content)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that killed processes have left below a folder. No process may be writing in the folder."""
    for unfinished in folder.rglob(f".*{SUFFIX}"):
        unfinished.unlink(missing_ok=True)
