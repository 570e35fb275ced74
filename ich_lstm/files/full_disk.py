"""Detection of a full disk or an exhausted quota, whichever library was writing."""

import errno
import os
import tempfile
from pathlib import Path

from ich_lstm.errors import StorageError

NUMBERS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""No space left, a quota used up, and the largest size of a file (``ulimit -f``, or that of the file system)."""
WORDS = tuple(map(os.strerror, NUMBERS))
"""Error texts of the system, which libraries repeat in their own errors."""

SCARCE = 1 << 20
"""A file system with fewer free bytes than this counts as full."""

UNITS = ("bytes", "KiB", "MiB", "GiB", "TiB")


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or the error from which it was raised, means that no more can be written."""
    return _cause(error) is not None


def disk_full(error: BaseException, out: Path | None, *, done: int = 0, total: int | None = None, whole: str) -> StorageError:
    """The error for the user, which states the folder, the space needed, and which files are complete.

    Args:
        error: Error for which `is_disk_full` holds.
        out: Output folder, if there is one.
        done: Number of finished studies or scans.
        total: Number of all studies or scans, if known.
        whole: Sentence that states which of the written files can be used.
    """
    cause = _cause(error)
    folder = _folder(cause, out)
    free, used = _free(folder), _size(folder)
    needed = f"more than the {in_bytes(free)} that are free" if free is not None else "more room"
    if done and total is not None and total > done and folder == out:
        needed = f"about {in_bytes(used * (total - done) // done)} more for {total - done:,} of {total:,} that are not done"
    return StorageError(
        "disk_full",
        where=str(folder),
        got=f"no space left, or a quota or limit used up ({in_bytes(used)} lie there)",
        expected=needed,
        todo=f"{whole} Make room, and run the same command again.",
    )


def in_bytes(count: int) -> str:
    """A number of bytes in a unit that is easy to read.

    Example:
        >>> in_bytes(500), in_bytes(3 << 19), in_bytes(5 << 30)
        ('500 bytes', '1.5 MiB', '5.0 GiB')
    """
    if count < 1024:
        return f"{count} bytes"
    power = min(len(UNITS) - 1, (count.bit_length() - 1) // 10)
    return f"{count / 1024**power:.1f} {UNITS[power]}"


def _cause(error: BaseException | None) -> BaseException | None:
    while error is not None:
        if (isinstance(error, OSError) and error.errno in NUMBERS) or any(word in str(error) for word in WORDS):
            return error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return None


def _folder(cause: BaseException | None, out: Path | None) -> Path:
    """The folder on the full file system: that of the file named in the error, else the output or the temporary folder."""
    # For a copy, the second name is the destination.
    name = getattr(cause, "filename2", None) or getattr(cause, "filename", None)
    temporary = Path(tempfile.gettempdir())
    if isinstance(name, str) and name:
        folder = Path(name).absolute().parent
        return out if out is not None and folder.is_relative_to(out.absolute()) else folder
    room = _free(temporary)
    if out is None or ((_free(out) or 0) > SCARCE and room is not None and room <= SCARCE):
        return temporary
    return out


def _free(folder: Path) -> int | None:
    try:
        status = os.statvfs(folder)
    except (OSError, AttributeError):
        return None
    return status.f_bavail * status.f_frsize


def _size(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    except OSError:  # the file was removed meanwhile
        return 0
