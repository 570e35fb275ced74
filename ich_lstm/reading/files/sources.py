"""Sources of files: a folder of any depth and size, an archive, or a single file."""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from ich_lstm.errors import FileError, SourceError
from ich_lstm.reading.files import archives

MAX_OPEN_FOLDERS = 100
"""Below this depth a folder is listed completely before it is searched: a process may open 1,024 files."""

OnProblem = Callable[["FileRef", FileError], None]


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file, or a member of an archive.

    Args:
        path: Path of the file, or of the archive that contains it.
        member: Name inside the archive, ``inner.zip!name`` for a member of an archive inside the archive; None for a plain
            file.
    """

    path: Path
    member: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}!{self.member}"

    def open(self) -> BinaryIO:
        """Open the file for reading.

        Raises:
            FileError: If it cannot be opened (``unreadable``, ``encrypted``, ``bad_archive``).
        """
        if self.member is None:
            try:
                return open(self.path, "rb")
            except OSError as error:
                raise unreadable(self, error) from error
        try:
            archive, name = archives.locate(self.path, self.member)
            return archive.open(name)
        except OSError as error:
            raise unreadable(self, error) from error
        except NotImplementedError as error:  # a compression method that zipfile does not support
            raise archives.bad_archive(str(self), str(error)) from error
        except RuntimeError as error:  # raised by zipfile if a password is required
            raise archives.encrypted(str(self), error) from error
        except Exception as error:  # an archive that was damaged after it was listed
            raise archives.bad_archive(str(self), str(error) or type(error).__name__) from error

    def size(self) -> int:
        """Size in bytes."""
        try:
            if self.member is None:
                return self.path.stat().st_size
            archive, name = archives.locate(self.path, self.member)
            return archive.size(name)
        except archives.READ_ERRORS as error:
            raise unreadable(self, error) from error


def unreadable(ref: FileRef, error: Exception) -> FileError:
    """The error for a file that cannot be read from the disk or from a damaged archive."""
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error) or type(error).__name__
    return FileError("unreadable", where=str(ref), got=reason, todo="Check the disk and the permissions, then run again.")


Found: TypeAlias = FileRef | tuple[FileRef, FileError]
"""A file to read, or a file that is not read together with the error."""


def walk_source(path: Path | str, *, on_problem: OnProblem | None = None, exclude: Path | None = None) -> Iterator[FileRef]:
    """Yield all files below a folder or in an archive, or the single file; archives inside a folder are opened too.

    Files are streamed: memory does not grow with their number. Links are never followed. The order is that of the file
    system.

    Args:
        path: A folder, an archive, or a file.
        on_problem: Called for each file that is not yielded: links, damaged or malicious archives, unreadable folders. By
            default, refusals are raised and links are skipped.
        exclude: A folder inside the source that is not searched, such as the output folder.

    Yields:
        One reference per file or member of an archive.

    Raises:
        SourceError: If there is nothing to read: ``missing_path``, ``empty_folder``, or the code of a refused archive.
    """
    report = on_problem or _raise_refusals
    nothing = True
    for found in find_files(path, exclude=exclude):
        if isinstance(found, FileRef):
            nothing = False
            yield found
        else:
            report(*found)
    if nothing:
        raise _empty_source(Path(path))


def find_files(path: Path | str, *, exclude: Path | None = None) -> Iterator[Found]:
    """Yield the files of :func:`walk_source`, and the unreadable ones with their errors, in one sequence.

    Args:
        path: A folder, an archive, or a file.
        exclude: A folder inside the source that is not searched, such as the output folder.

    Raises:
        SourceError: ``missing_path``, ``special_file``, ``empty_folder``, or the code of an archive that was given as path
            and is refused.
    """
    root = Path(path)
    try:
        mode = root.stat().st_mode
    except OSError as error:
        raise SourceError(
            "missing_path",
            where=str(root),
            got=error.strerror or "cannot be read",
            expected="a folder, an archive or a DICOM file",
            todo="Check the spelling, and that the disk is mounted.",
        ) from error
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise SourceError(
            "special_file", where=str(root), got="a device, pipe or socket", expected="a folder, an archive or a DICOM file"
        )
    nothing = True
    try:
        for found in _walk_folder(root, exclude) if stat.S_ISDIR(mode) else _walk_file(root):
            nothing = False
            yield found
    except FileError as error:
        raise SourceError(error.code, where=str(root), got=error.got, expected=error.expected, todo=error.todo) from error
    if nothing:
        raise _empty_source(root)


def _empty_source(root: Path) -> SourceError:
    return SourceError(
        "empty_folder",
        where=str(root),
        got="no files",
        expected="DICOM files of head CT, in folders of any depth",
        todo="Name the folder that holds them.",
    )


def _raise_refusals(ref: FileRef, error: FileError) -> None:
    if error.code not in ("link", "special_file"):
        raise error


def _walk_folder(root: Path, exclude: Path | None) -> Iterator[Found]:
    # Folders are compared by inode, because a folder can have several paths.
    own = exclude.stat() if exclude is not None and exclude.is_dir() else None
    # Open listings are kept, not names: only one name is held even if a folder has a million subfolders.
    listings = [_list_folder(root)]
    while listings:
        entry = next(listings[-1], None)
        if entry is None:
            listings.pop()
        elif isinstance(entry, tuple):
            yield entry
        elif entry.is_symlink():
            yield _not_read(entry, "link", "a symbolic link")
        elif entry.is_dir(follow_symlinks=False):
            if own is not None and os.path.samestat(entry.stat(follow_symlinks=False), own):
                continue
            listing = _list_folder(Path(entry.path))
            listings.append(listing if len(listings) < MAX_OPEN_FOLDERS else iter(list(listing)))
        elif not entry.is_file(follow_symlinks=False):
            yield _not_read(entry, "special_file", "a device, pipe or socket")
        elif archives.has_suffix(entry.name):
            try:
                yield from list(_walk_archive(Path(entry.path)))
            except FileError as error:
                yield FileRef(Path(entry.path)), error
        else:
            yield FileRef(Path(entry.path))


def _list_folder(folder: Path) -> Iterator["os.DirEntry[str] | tuple[FileRef, FileError]"]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError as error:
        yield FileRef(folder), unreadable(FileRef(folder), error)


def _not_read(entry: "os.DirEntry[str]", code: str, got: str) -> tuple[FileRef, FileError]:
    ref = FileRef(Path(entry.path))
    return ref, FileError(code, where=str(ref), got=got, expected="a file")


def _walk_file(path: Path) -> Iterator[Found]:
    try:
        archive = archives.is_archive(path)
    except OSError as error:
        raise unreadable(FileRef(path), error) from error
    yield from _walk_archive(path) if archive else iter([FileRef(path)])


def _walk_archive(path: Path) -> Iterator[Found]:
    try:
        for name, error in archives.walk_archive(path):
            yield FileRef(path, name) if error is None else (FileRef(path, name), error)
    except archives.NotAnArchive:
        yield FileRef(path)
    except OSError as error:
        raise unreadable(FileRef(path), error) from error
