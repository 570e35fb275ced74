"""Reads zip and tar archives safely: no paths outside, no decompression bombs, no links, nothing unpacked into folders."""

import bz2
import gzip
import io
import os
import stat
import tarfile
import tempfile
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import IO, BinaryIO, NamedTuple

from ich_lstm.errors import FileError

MAX_MEMBER_BYTES = 2 * 2**30
"""Limit for one member: even enhanced multi-frame files are much smaller than 2 GiB."""

MAX_ARCHIVE_RATIO = 200
"""Limit of the compression ratio: CT compresses 2 to 10 times, zeros 1,000 times."""

SMALL_ARCHIVE_BYTES = 2**30
"""Archives that inflate to less than 1 GiB are harmless at any ratio (blank slices compress a thousand times)."""

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2")
NESTED = "!"
"""Separates the name of an archive from the name of a file in it."""

OPEN_ARCHIVES = 8
READ_AHEAD_BYTES = 1 << 15
COPY_BYTES = 1 << 20

ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
GZIP_MAGIC, BZIP2_MAGIC = b"\x1f\x8b", b"BZh"
TAR_MAGIC, TAR_MAGIC_AT = b"ustar", 257

READ_ERRORS = (OSError, EOFError, zipfile.BadZipFile, zlib.error, tarfile.TarError, RuntimeError, NotImplementedError, KeyError)
"""Exceptions raised when a damaged member is read."""


class Member(NamedTuple):
    """A file in an archive.

    Args:
        name: Name under which the member is opened.
        size: Size in bytes after inflation.
        kind: Reason code if the member is not read; otherwise empty.
        written: The name as stored in the archive; zipfile truncates it at a zero byte.
    """

    name: str
    size: int
    kind: str
    written: str


class Archive(ABC):
    """An open archive: its members by name."""

    @abstractmethod
    def members(self) -> list[Member]:
        """All members except folders."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """Open one member for reading."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Size of one member in bytes; raises KeyError if no member has the name."""

    def has(self, name: str) -> bool:
        """Whether a member has the name."""
        try:
            return self.size(name) >= 0
        except KeyError:
            return False


class ZipArchive(Archive):
    """A zip archive."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._zip = zipfile.ZipFile(file)

    def __del__(self) -> None:
        self._file.close()

    def members(self) -> list[Member]:
        infos = [info for info in self._zip.infolist() if not info.is_dir()]
        return [Member(info.filename, info.file_size, _zip_refusal_code(info), info.orig_filename) for info in infos]

    def open(self, name: str) -> BinaryIO:
        # ZipExtFile is slow for the many small reads of a header parser.
        return io.BufferedReader(self._zip.open(name), READ_AHEAD_BYTES)  # type: ignore[type-var]

    def size(self, name: str) -> int:
        return self._zip.getinfo(name).file_size


def _zip_refusal_code(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    return "link" if stat.S_ISLNK(mode) else "special_file" if stat.S_IFMT(mode) and not stat.S_ISREG(mode) else ""


class TarArchive(Archive):
    """A tar archive; a compressed one is inflated into a temporary file, up to a limit."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._lock = file, threading.Lock()
        inflate = _inflater_of(file)
        if inflate is not None:
            with file, inflate(file) as stream:
                self._file = copy_to_temporary(stream, max(SMALL_ARCHIVE_BYTES, MAX_ARCHIVE_RATIO * size), must_be_tar=True)
        with tarfile.open(fileobj=self._file, mode="r:") as tar:
            infos = [info for info in tar if not info.isdir()]
        self._members = [Member(info.name, info.size, _tar_refusal_code(info), info.name) for info in infos]
        self._places = {info.name: (info.offset_data, info.size) for info in infos}

    def __del__(self) -> None:
        self._file.close()

    def members(self) -> list[Member]:
        return self._members

    def open(self, name: str) -> BinaryIO:
        return io.BufferedReader(_MemberStream(self, *self._places[name]), READ_AHEAD_BYTES)

    def size(self, name: str) -> int:
        return self._places[name][1]

    def read_at(self, offset: int, size: int) -> bytes:
        """Read bytes of the tar file itself."""
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)


class NotAnArchive(Exception):
    """Raised for a compressed file that contains no tar."""


def _tar_refusal_code(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "link"
    return "" if info.isreg() and not info.issparse() else "special_file"


def _inflater_of(file: IO[bytes]) -> Callable[[IO[bytes]], IO[bytes]] | None:
    start = file.read(len(BZIP2_MAGIC))
    file.seek(0)
    if start[:2] == GZIP_MAGIC:
        return lambda packed: gzip.GzipFile(fileobj=packed)  # type: ignore[return-value]
    return bz2.BZ2File if start == BZIP2_MAGIC else None


class _MemberStream(io.RawIOBase):
    """A member of a tar as a seekable stream with its own position."""

    def __init__(self, tar: TarArchive, start: int, size: int) -> None:
        super().__init__()
        self._tar, self._start, self._size, self._at = tar, start, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence])
        return self._at

    def readinto(self, buffer: bytearray | memoryview) -> int:  # type: ignore[override]
        data = self._tar.read_at(self._start + self._at, max(0, min(len(buffer), self._size - self._at)))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def copy_to_temporary(stream: IO[bytes], limit: int, *, must_be_tar: bool = False) -> IO[bytes]:
    """Copy a stream into a temporary file.

    Args:
        stream: The bytes to copy.
        limit: Largest number of bytes.
        must_be_tar: Whether the content must be a tar archive.

    Raises:
        OverflowError: If the stream is longer than the limit.
        NotAnArchive: If the content must be a tar archive and is not.
    """
    file = tempfile.TemporaryFile(prefix="ich_lstm-")  # noqa: SIM115  # open as long as the archive
    try:
        while data := stream.read(COPY_BYTES):
            if must_be_tar and not file.tell() and data[TAR_MAGIC_AT:][: len(TAR_MAGIC)] != TAR_MAGIC:
                raise NotAnArchive
            if file.tell() + len(data) > limit:
                raise OverflowError
            file.write(data)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def is_archive(path: Path) -> bool:
    """Whether the first bytes are those of a zip, a tar, or a compressed file (which may contain a tar)."""
    with open(path, "rb") as file:
        start = file.read(TAR_MAGIC_AT + len(TAR_MAGIC))
    return start[:4] in ZIP_MAGICS or start[:2] == GZIP_MAGIC or start[:3] == BZIP2_MAGIC or start[TAR_MAGIC_AT:] == TAR_MAGIC


def has_suffix(name: str) -> bool:
    """Whether a file name has the suffix of an archive."""
    return name.lower().endswith(SUFFIXES)


def open_archive(path: Path) -> Archive:
    """Open an archive; recently used archives stay open."""
    status = path.stat()
    # The process id is part of the key: a forked worker must not share the file position of its parent.
    return _cached_archive(path, "", status.st_mtime_ns, status.st_size, os.getpid())


@lru_cache(maxsize=OPEN_ARCHIVES)
def _cached_archive(path: Path, inner: str, modified_ns: int, size: int, pid: int) -> Archive:
    if not inner:
        return _archive_of(open(path, "rb"), size)  # open as long as the archive
    outer = _cached_archive(path, "", modified_ns, size, pid)
    with outer.open(inner) as stream:
        return _archive_of(copy_to_temporary(stream, MAX_MEMBER_BYTES), outer.size(inner))


def _archive_of(file: IO[bytes], size: int) -> Archive:
    try:
        start = file.read(len(ZIP_MAGICS[0]))
        file.seek(0)
        return ZipArchive(file) if start in ZIP_MAGICS else TarArchive(file, size)
    except BaseException:
        file.close()
        raise


def locate(path: Path, member: str) -> tuple[Archive, str]:
    """The archive that contains a member, and the member's name in it; an archive inside the archive is opened for it."""
    inner, _, name = member.partition(NESTED)
    outer = open_archive(path)
    if not (name and has_suffix(inner)) or outer.has(member):
        return outer, member
    status = path.stat()
    return _cached_archive(path, inner, status.st_mtime_ns, status.st_size, os.getpid()), name


def walk_archive(path: Path) -> Iterator[tuple[str, FileError | None]]:
    """Yield the names of all members of an archive and of archives inside it, with the reason if a member is not read.

    Args:
        path: The archive.

    Raises:
        FileError: If the archive is damaged or malicious.
        NotAnArchive: If it is a compressed file without a tar.
    """
    archive = _open_or_refuse(path, None)
    total, size = _check_members(str(path), archive.members(), path.stat().st_size)
    for member in _rename_replaced(archive.members()):
        where = f"{path}{NESTED}{member.name}"
        if member.kind or not has_suffix(member.name):
            yield member.name, _refusal_of(where, member.kind)
            continue
        try:
            inner = _open_or_refuse(path, member.name)
            added, _ = _check_members(where, inner.members(), max(member.size, 1))
            total += added
            _check_total(str(path), total, 0, size)
        except NotAnArchive:
            yield member.name, None
        except FileError as error:
            yield member.name, error
        else:
            for file in _rename_replaced(inner.members()):
                name = f"{member.name}{NESTED}{file.name}"
                deeper = "nested_archive" if has_suffix(file.name) else file.kind
                yield name, _refusal_of(f"{path}{NESTED}{name}", deeper)


def _open_or_refuse(path: Path, inner: str | None) -> Archive:
    where = str(path) if inner is None else f"{path}{NESTED}{inner}"
    try:
        return open_archive(path) if inner is None else locate(path, f"{inner}{NESTED}x")[0]
    except (NotAnArchive, FileError):
        raise
    except OverflowError as error:
        raise _bomb(where, "more bytes than the limit") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise bad_archive(where, str(error)) from error
    except RuntimeError as error:
        raise encrypted(where, error) from error
    except Exception as error:  # zipfile and tarfile raise many kinds on damaged files
        raise bad_archive(where, str(error) or type(error).__name__) from error


def _rename_replaced(members: list[Member]) -> Iterator[Member]:
    """Rename all but the last of several members with one name: every unpacking tool keeps the last."""
    left = Counter(member.name for member in members)
    for member in members:
        left[member.name] -= 1
        if left[member.name]:
            yield member._replace(name=f"{member.name} (replaced {left[member.name]})", kind="duplicate_file")
        else:
            yield member


def _refusal_of(where: str, kind: str) -> FileError | None:
    got = {
        "link": ("a link", "a file"),
        "special_file": ("a device, pipe or sparse file", "a file"),
        "duplicate_file": ("a later member has the same name", ""),
        "nested_archive": ("an archive in an archive in an archive", "a file"),
    }.get(kind)
    return None if got is None else FileError(kind, where=where, got=got[0], expected=got[1])


def _check_members(where: str, members: list[Member], size: int) -> tuple[int, int]:
    """Refuse a malicious archive: paths outside it, or inflated bytes far beyond its size."""
    for member in members:
        name = member.written.replace("\\", "/")
        if name.startswith("/") or name[1:2] == ":" or ".." in name.split("/"):
            raise FileError(
                "archive_traversal",
                where=where,
                got="members with absolute paths or '..'",
                expected="paths inside the archive",
                todo="Do not unpack it; ask where it comes from.",
            )
    total = sum(member.size for member in members)
    _check_total(where, total, max((member.size for member in members), default=0), size)
    return total, size


def _check_total(where: str, total: int, largest: int, size: int) -> None:
    if largest > MAX_MEMBER_BYTES or (total > SMALL_ARCHIVE_BYTES and total > MAX_ARCHIVE_RATIO * size):
        raise _bomb(where, f"{size:,} bytes that inflate to {total:,}, the largest file to {largest:,}")


def _bomb(where: str, got: str) -> FileError:
    return FileError(
        "archive_bomb",
        where=where,
        got=got,
        expected=f"at most {MAX_ARCHIVE_RATIO} times its size, and files of {MAX_MEMBER_BYTES:,} bytes",
        todo="Do not unpack it; ask where it comes from.",
    )


def encrypted(where: str, error: Exception) -> FileError:
    """The error for a member that requires a password."""
    return FileError("encrypted", where=where, got=str(error), todo="Unpack the archive, and name the folder instead.")


def bad_archive(where: str, got: str) -> FileError:
    """The error for a damaged archive."""
    return FileError("bad_archive", where=where, got=got, expected="a whole archive", todo="Copy it again.")
