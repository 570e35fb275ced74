"""Where files come from: a folder of any depth and size, a zip, or a single file."""

import io
import os
import stat
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from ich_lstm.errors import FileError, SourceError

MAX_MEMBER_BYTES = 2 * 2**30
"""No single slice, not even an enhanced multi-frame one, comes near 2 GiB."""

MAX_ARCHIVE_RATIO = 200
"""CT compresses 2 to 10 times; deflate of zeros 1,000 times."""

SMALL_ARCHIVE_BYTES = 2**30
"""What inflates to less than 1 GiB in all does no harm, whatever its ratio (blank slices compress a thousand times)."""

ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
OPEN_ARCHIVES = 8
READ_AHEAD_BYTES = 1 << 15

OnProblem = Callable[["FileRef", FileError], None]


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file, or a member of a zip.

    Args:
        path: The file, or the zip that holds it.
        member: The name inside the zip; None for a plain file.
    """

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}!{self.member}"

    def open(self) -> BinaryIO:
        """Open for reading.

        Raises:
            FileError: If it cannot be opened (``unreadable``, ``encrypted``, ``bad_archive``).
        """
        try:
            if self.member is None:
                return open(self.path, "rb")
            archive = _open_archive(self.path)
            # ZipExtFile is slow at the small reads of a header parser.
            return io.BufferedReader(archive.open(self.member), READ_AHEAD_BYTES)  # type: ignore[type-var]
        except OSError as error:
            raise unreadable(self, error) from error
        except NotImplementedError as error:  # a kind of compression that zipfile does not know
            raise _bad_archive(self, str(error)) from error
        except RuntimeError as error:  # zipfile's word for "password required"
            raise FileError(
                "encrypted", where=str(self), got=str(error), todo="Unpack the archive, and name the folder instead."
            ) from error
        except (zipfile.BadZipFile, KeyError) as error:
            raise _bad_archive(self, str(error)) from error

    def size(self) -> int:
        """Bytes in the file."""
        try:
            if self.member is None:
                return self.path.stat().st_size
            return _open_archive(self.path).getinfo(self.member).file_size
        except (OSError, zipfile.BadZipFile, KeyError) as error:
            raise unreadable(self, error) from error


def unreadable(ref: FileRef, error: Exception) -> FileError:
    """The refusal of a file that the system, or a damaged archive, does not give out."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return FileError("unreadable", where=str(ref), got=reason, todo="Check the disk and the permissions, then run again.")


def walk_source(path: Path | str, *, on_problem: OnProblem | None = None) -> Iterator[FileRef]:
    """All files below a folder, in a zip, or the single file; zips inside a folder are opened too.

    A stream: memory does not grow with the number of files. Links are never followed. The order is the file system's.

    Args:
        path: A folder, a zip, or a file.
        on_problem: Called for what is not handed out: links, damaged or hostile zips, unreadable folders. By default
            refusals are raised, and links are passed over.

    Yields:
        One reference per file or zip member.

    Raises:
        SourceError: If there is nothing: ``missing_path``, ``empty_folder``, or a zip that is refused.
    """
    root = Path(path)
    report = on_problem or _raise_refusals
    try:
        mode = root.stat().st_mode
    except OSError as error:
        raise SourceError(
            "missing_path",
            where=str(root),
            got=error.strerror or "cannot be read",
            expected="a folder, a zip or a DICOM file",
            todo="Check the spelling, and that the disk is mounted.",
        ) from error
    if stat.S_ISDIR(mode):
        yield from _not_empty(root, _walk_folder(root, report))
    elif not stat.S_ISREG(mode):
        raise SourceError(
            "special_file", where=str(root), got="a device, pipe or socket", expected="a folder, a zip or a DICOM file"
        )
    elif _is_zip(root):
        try:
            members = list(_walk_zip(root))
        except FileError as error:
            raise SourceError(error.code, where=str(root), got=error.got, expected=error.expected, todo=error.todo) from error
        yield from _not_empty(root, iter(members))
    else:
        yield FileRef(root)


def _not_empty(root: Path, refs: Iterator[FileRef]) -> Iterator[FileRef]:
    nothing = True
    for ref in refs:
        nothing = False
        yield ref
    if nothing:
        raise SourceError(
            "empty_folder",
            where=str(root),
            got="no files",
            expected="DICOM files of head CT, in folders of any depth",
            todo="Name the folder that holds them.",
        )


def _raise_refusals(ref: FileRef, error: FileError) -> None:
    if error.code not in ("link", "special_file"):
        raise error


def _walk_folder(root: Path, report: OnProblem) -> Iterator[FileRef]:
    folders = [root]
    while folders:
        folder = folders.pop()
        try:
            entries = os.scandir(folder)
        except OSError as error:
            report(FileRef(folder), unreadable(FileRef(folder), error))
            continue
        with entries:
            for entry in entries:
                if entry.is_symlink():
                    ref = FileRef(Path(entry.path))
                    report(ref, FileError("link", where=str(ref), got="a symbolic link", expected="a file"))
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(Path(entry.path))
                elif not entry.is_file(follow_symlinks=False):
                    ref = FileRef(Path(entry.path))
                    report(ref, FileError("special_file", where=str(ref), got="a device, pipe or socket", expected="a file"))
                elif entry.name[-4:].lower() == ".zip":
                    try:
                        yield from list(_walk_zip(Path(entry.path)))
                    except FileError as error:
                        report(FileRef(Path(entry.path)), error)
                else:
                    yield FileRef(Path(entry.path))


def _is_zip(path: Path) -> bool:
    with FileRef(path).open() as stream:
        return stream.read(4) in ZIP_MAGICS


def _walk_zip(path: Path) -> Iterator[FileRef]:
    try:
        archive = _open_archive(path)
    except OSError as error:
        raise unreadable(FileRef(path), error) from error
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise _bad_archive(FileRef(path), str(error)) from error
    members = archive.infolist()
    _check_members(path, members)
    for member in members:
        if not member.is_dir():
            yield FileRef(path, member.filename)


def _check_members(path: Path, members: list[zipfile.ZipInfo]) -> None:
    """Refuse an archive that was made to do harm: paths outside it, or far more bytes than it has."""
    for member in members:
        name = member.orig_filename.replace("\\", "/")
        if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
            raise FileError(
                "archive_traversal",
                where=str(path),
                got="members with absolute paths or '..'",
                expected="paths inside the archive",
                todo="Do not unpack it; ask where it comes from.",
            )
    total = sum(member.file_size for member in members)
    largest = max((member.file_size for member in members), default=0)
    size = path.stat().st_size
    if largest > MAX_MEMBER_BYTES or (total > SMALL_ARCHIVE_BYTES and total > MAX_ARCHIVE_RATIO * size):
        raise FileError(
            "archive_bomb",
            where=str(path),
            got=f"{size:,} bytes that inflate to {total:,}, the largest file to {largest:,}",
            expected=f"at most {MAX_ARCHIVE_RATIO} times its size, and files of {MAX_MEMBER_BYTES:,} bytes",
            todo="Do not unpack it; ask where it comes from.",
        )


def _bad_archive(ref: FileRef, got: str) -> FileError:
    return FileError("bad_archive", where=str(ref), got=got, expected="a whole zip", todo="Copy it again.")


def _open_archive(path: Path) -> zipfile.ZipFile:
    status = path.stat()
    # The process id: a forked worker that shared its parent's file position would read the parent's bytes.
    return _cached_archive(path, status.st_mtime_ns, status.st_size, os.getpid())


@lru_cache(maxsize=OPEN_ARCHIVES)
def _cached_archive(path: Path, mtime_ns: int, size: int, pid: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(path)
