"""Safe reading of zip and tar archives: no paths outside, no decompression bombs, no links followed, nothing unpacked to disk."""

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
"""No single slice, not even an enhanced multi-frame one, comes near 2 GiB."""

MAX_ARCHIVE_RATIO = 200
"""CT compresses 2 to 10 times; deflate of zeros 1,000 times."""

SMALL_ARCHIVE_BYTES = 2**30
"""What inflates to less than 1 GiB in all does no harm, whatever its ratio (blank slices compress a thousand times)."""

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2")
NESTED = "!"
"""Between the name of an archive and that of a file in it."""

OPEN_ARCHIVES = 8
READ_AHEAD_BYTES = 1 << 15
COPY_BYTES = 1 << 20

ZIP_MAGICS = (b"PK\x03\x04", b"PK\x05\x06")
GZIP_MAGIC, BZIP2_MAGIC = b"\x1f\x8b", b"BZh"
TAR_MAGIC, TAR_MAGIC_AT = b"ustar", 257

READ_ERRORS = (OSError, EOFError, zipfile.BadZipFile, zlib.error, tarfile.TarError, RuntimeError, NotImplementedError, KeyError)
"""What reading a damaged member raises."""


class Member(NamedTuple):
    """A name in an archive.

    Args:
        name: By which it is opened.
        size: Bytes after inflation.
        kind: Code of the reason for which it is not read, or empty.
        written: The name as the archive writes it; zipfile cuts it at a zero byte.
    """

    name: str
    size: int
    kind: str
    written: str


class Archive(ABC):
    """An open archive."""

    @abstractmethod
    def members(self) -> list[Member]:
        """All but folders."""

    @abstractmethod
    def open(self, name: str) -> BinaryIO:
        """One file for reading."""

    @abstractmethod
    def size(self, name: str) -> int:
        """Bytes of one file; KeyError if there is none of the name."""

    def has(self, name: str) -> bool:
        """Whether there is a file of the name."""
        try:
            return self.size(name) >= 0
        except KeyError:
            return False


class ZipArchive(Archive):
    """A zip."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._zip = zipfile.ZipFile(file)

    def __del__(self) -> None:
        self._file.close()

    def members(self) -> list[Member]:
        infos = [info for info in self._zip.infolist() if not info.is_dir()]
        return [Member(info.filename, info.file_size, _zip_kind(info), info.orig_filename) for info in infos]

    def open(self, name: str) -> BinaryIO:
        # ZipExtFile is slow at the small reads of a header parser.
        return io.BufferedReader(self._zip.open(name), READ_AHEAD_BYTES)  # type: ignore[type-var]

    def size(self, name: str) -> int:
        return self._zip.getinfo(name).file_size


def _zip_kind(info: zipfile.ZipInfo) -> str:
    mode = info.external_attr >> 16
    return "link" if stat.S_ISLNK(mode) else "special_file" if stat.S_IFMT(mode) and not stat.S_ISREG(mode) else ""


class TarArchive(Archive):
    """A tar; a compressed one is inflated into a file of the moment, up to a bound."""

    def __init__(self, file: IO[bytes], size: int) -> None:
        self._file, self._lock = file, threading.Lock()
        inflate = _inflater_of(file)
        if inflate is not None:
            with file, inflate(file) as stream:
                self._file = spooled(stream, max(SMALL_ARCHIVE_BYTES, MAX_ARCHIVE_RATIO * size), must_be_tar=True)
        with tarfile.open(fileobj=self._file, mode="r:") as tar:
            infos = [info for info in tar if not info.isdir()]
        self._members = [Member(info.name, info.size, _tar_kind(info), info.name) for info in infos]
        self._places = {info.name: (info.offset_data, info.size) for info in infos}

    def __del__(self) -> None:
        self._file.close()

    def members(self) -> list[Member]:
        return self._members

    def open(self, name: str) -> BinaryIO:
        return io.BufferedReader(_Span(self, *self._places[name]), READ_AHEAD_BYTES)

    def size(self, name: str) -> int:
        return self._places[name][1]

    def read_at(self, offset: int, size: int) -> bytes:
        """Bytes of the tar itself."""
        with self._lock:
            self._file.seek(offset)
            return self._file.read(size)


class NoArchive(Exception):
    """A compressed file that holds no tar."""


def _tar_kind(info: tarfile.TarInfo) -> str:
    if info.issym() or info.islnk():
        return "link"
    return "" if info.isreg() and not info.issparse() else "special_file"


def _inflater_of(file: IO[bytes]) -> Callable[[IO[bytes]], IO[bytes]] | None:
    start = file.read(len(BZIP2_MAGIC))
    file.seek(0)
    if start[:2] == GZIP_MAGIC:
        return lambda packed: gzip.GzipFile(fileobj=packed)  # type: ignore[return-value]
    return bz2.BZ2File if start == BZIP2_MAGIC else None


class _Span(io.RawIOBase):
    """One file of a tar, with a position of its own."""

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


def spooled(stream: IO[bytes], limit: int, *, must_be_tar: bool = False) -> IO[bytes]:
    """A stream's bytes in a file of the moment.

    Raises:
        OverflowError: If there are more than the limit.
        NoArchive: If it must be a tar, and is none.
    """
    file = tempfile.TemporaryFile(prefix="ich_lstm-")  # noqa: SIM115  # it lives as long as the archive
    try:
        while data := stream.read(COPY_BYTES):
            if must_be_tar and not file.tell() and data[TAR_MAGIC_AT:][: len(TAR_MAGIC)] != TAR_MAGIC:
                raise NoArchive
            if file.tell() + len(data) > limit:
                raise OverflowError
            file.write(data)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def is_archive(path: Path) -> bool:
    """Whether a file is a zip or a tar, by its first bytes; a compressed file counts, for it may hold a tar."""
    with open(path, "rb") as file:
        start = file.read(TAR_MAGIC_AT + len(TAR_MAGIC))
    return start[:4] in ZIP_MAGICS or start[:2] == GZIP_MAGIC or start[:3] == BZIP2_MAGIC or start[TAR_MAGIC_AT:] == TAR_MAGIC


def has_suffix(name: str) -> bool:
    """Whether a file is an archive by its name."""
    return name.lower().endswith(SUFFIXES)


def open_archive(path: Path) -> Archive:
    """An archive, opened once and kept for a while."""
    status = path.stat()
    # The process id: a forked worker that shared its parent's file position would read the parent's bytes.
    return _cached_archive(path, "", status.st_mtime_ns, status.st_size, os.getpid())


@lru_cache(maxsize=OPEN_ARCHIVES)
def _cached_archive(path: Path, inner: str, modified_ns: int, size: int, pid: int) -> Archive:
    if not inner:
        return _archive_of(open(path, "rb"), size)  # it lives as long as the archive
    outer = _cached_archive(path, "", modified_ns, size, pid)
    with outer.open(inner) as stream:
        return _archive_of(spooled(stream, MAX_MEMBER_BYTES), outer.size(inner))


def _archive_of(file: IO[bytes], size: int) -> Archive:
    try:
        start = file.read(len(ZIP_MAGICS[0]))
        file.seek(0)
        return ZipArchive(file) if start in ZIP_MAGICS else TarArchive(file, size)
    except BaseException:
        file.close()
        raise


def locate(path: Path, member: str) -> tuple[Archive, str]:
    """The archive that holds a member, and the member's name there; an archive inside the archive is opened for it."""
    inner, _, name = member.partition(NESTED)
    outer = open_archive(path)
    if not (name and has_suffix(inner)) or outer.has(member):
        return outer, member
    status = path.stat()
    return _cached_archive(path, inner, status.st_mtime_ns, status.st_size, os.getpid()), name


def walk_archive(path: Path) -> Iterator[tuple[str, FileError | None]]:
    """The names of all members of an archive, and of the archives in it, with the reason if one is not to be read.

    Raises:
        FileError: If the archive is damaged, or was made to do harm.
        NoArchive: If it is a compressed file without a tar.
    """
    archive = _opened(path, None)
    total, size = _check(str(path), archive.members(), path.stat().st_size)
    for member in _unique(archive.members()):
        where = f"{path}{NESTED}{member.name}"
        if member.kind or not has_suffix(member.name):
            yield member.name, _not_read(where, member.kind)
            continue
        try:
            inner = _opened(path, member.name)
            added, _ = _check(where, inner.members(), max(member.size, 1))
            total += added
            _check_total(str(path), total, 0, size)
        except NoArchive:
            yield member.name, None
        except FileError as error:
            yield member.name, error
        else:
            for file in _unique(inner.members()):
                name = f"{member.name}{NESTED}{file.name}"
                deeper = "nested_archive" if has_suffix(file.name) else file.kind
                yield name, _not_read(f"{path}{NESTED}{name}", deeper)


def _opened(path: Path, inner: str | None) -> Archive:
    where = str(path) if inner is None else f"{path}{NESTED}{inner}"
    try:
        return open_archive(path) if inner is None else locate(path, f"{inner}{NESTED}x")[0]
    except (NoArchive, FileError):
        raise
    except OverflowError as error:
        raise _bomb(where, "more bytes than the bound") from error
    except OSError as error:
        if error.errno is not None:
            raise
        raise bad_archive(where, str(error)) from error
    except RuntimeError as error:
        raise encrypted(where, error) from error
    except Exception as error:  # zipfile and tarfile let many kinds escape from damaged files
        raise bad_archive(where, str(error) or type(error).__name__) from error


def _unique(members: list[Member]) -> Iterator[Member]:
    """Of members with one name the last is the file, as for every tool that unpacks; the others are named apart."""
    left = Counter(member.name for member in members)
    for member in members:
        left[member.name] -= 1
        if left[member.name]:
            yield member._replace(name=f"{member.name} (replaced {left[member.name]})", kind="duplicate_file")
        else:
            yield member


def _not_read(where: str, kind: str) -> FileError | None:
    got = {
        "link": ("a link", "a file"),
        "special_file": ("a device, pipe or sparse file", "a file"),
        "duplicate_file": ("a later member has the same name", ""),
        "nested_archive": ("an archive in an archive in an archive", "a file"),
    }.get(kind)
    return None if got is None else FileError(kind, where=where, got=got[0], expected=got[1])


def _check(where: str, members: list[Member], size: int) -> tuple[int, int]:
    """Refuse an archive that was made to do harm: paths outside it, or far more bytes than it has."""
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
    """The refusal of what needs a password."""
    return FileError("encrypted", where=where, got=str(error), todo="Unpack the archive, and name the folder instead.")


def bad_archive(where: str, got: str) -> FileError:
    """The refusal of a damaged archive."""
    return FileError("bad_archive", where=where, got=got, expected="a whole archive", todo="Copy it again.")
