"""Recognizes pickles by their content, whatever the file name; nothing is unpickled."""

import bz2
import gzip
import io
import lzma
import pickletools
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

PICKLE_SUFFIXES = (".pkl", ".pickle", ".pt", ".pth", ".bin", ".ckpt", ".joblib", ".npy", ".npz", ".dill")

ZIP_START = b"PK\x03\x04"
NUMPY_START = b"\x93NUMPY"
TAR_MARK, TAR_MARK_AT = b"ustar", 257
OPAQUE_STARTS = (b"\x28\xb5\x2f\xfd", b"\x04\x22\x4d\x18", b"7z\xbc\xaf\x27\x1c")
"""Zstandard, LZ4 and 7z, which Python's own library cannot unpack. None of them can begin safetensors: as the length of a header
they are above the 100 MB that its reader allows."""

HEADER_AT = 8
"""Where the header of safetensors begins, with a brace; before it stands its length."""

MOST_INFLATED = 64 * 2**20
"""So many bytes of a zlib stream are looked at, so that none can fill the memory."""

DEEPEST = 3
"""So many archives inside one another are looked into; who nests more has something to hide."""

NAMING = frozenset({"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"})
"""Opcodes that bring an object from outside the pickle, such as a function."""

CALLING = frozenset({"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"})
"""Opcodes that call such an object."""


def pickle_in(path: Path) -> str | None:
    """What makes a file dangerous to load; None if nothing does.

    A file is judged by what it is, not by its first bytes: safetensors begin with the length of their header, which may be any
    number, also one that looks like the first two bytes of a pickle.

    Args:
        path: The file. Archives and compressed files are looked into.

    Returns:
        A phrase such as ``a pickle``, or ``a zip with a pickle in it``.

    Raises:
        OSError: If the file cannot be read.
    """
    if path.suffix.lower() in PICKLE_SUFFIXES:
        return f"a {path.suffix.lower()} file"
    with path.open("rb") as file:
        return _find(file, depth=0)


def _find(file: IO[bytes], depth: int) -> str | None:
    """What makes the content of a file dangerous to load; the file is open, and able to seek."""
    if depth > DEEPEST:
        return f"archives inside archives, more than {DEEPEST} deep"
    if is_pickle(file):
        return "a pickle"
    start = _read_at(file, 0, TAR_MARK_AT + len(TAR_MARK))
    if start.startswith(OPAQUE_STARTS):
        return "an archive that cannot be looked into"
    if start.startswith(NUMPY_START) and _has_objects(file):
        return "an array of pickled objects"
    return _find_in_zip(file, start, depth) or _find_in_tar(file, start, depth) or _find_in_compressed(file, start, depth)


def is_pickle(file: IO[bytes]) -> bool:
    """Whether the bytes are a pickle of any protocol: valid opcodes, each with the stack that it needs, up to STOP.

    It need not reach STOP if it has called something before. Without a protocol's opcode at its start, as in protocols 0 and 1,
    STOP must be the last byte, for text may begin like a pickle (``N. B.`` is None).

    Args:
        file: Open, and able to seek.
    """
    begins_with_protocol = _read_at(file, 0, 1) == b"\x80"
    file.seek(0)
    stack: list[Any] = []
    has_named = False
    try:
        # pickletools decodes whatever stands behind an opcode, and Python warns of escapes that it does not know.
        with warnings.catch_warnings(action="ignore"):
            for opcode, argument, _ in pickletools.genops(file):
                if not _apply(opcode, stack):
                    return False
                if opcode.name in ("GLOBAL", "INST") and not _is_dotted_pair(str(argument)):
                    return False
                has_named = has_named or opcode.name in NAMING
                if has_named and opcode.name in CALLING:
                    return True
    except (ValueError, EOFError, OverflowError, MemoryError):
        return False  # the unpickler stops here too
    # genops ends behind STOP.
    return begins_with_protocol or not file.read().strip()


def _apply(opcode: pickletools.OpcodeInfo, stack: list[Any]) -> bool:
    """Do to a stack of kinds what an opcode does; False if the stack does not hold what it needs."""
    needed = len(opcode.stack_before)
    mark = pickletools.markobject
    if mark in opcode.stack_before or (opcode.name == "POP" and stack and stack[-1] is mark):
        if mark not in stack:
            return False
        while stack.pop() is not mark:
            pass
        needed = opcode.stack_before.index(mark) if mark in opcode.stack_before else 0
    if len(stack) < needed:
        return False
    del stack[len(stack) - needed :]
    stack.extend(opcode.stack_after)
    return True


def _is_dotted_pair(names: str) -> bool:
    """Whether these are a module and a name in it, as in ``collections OrderedDict``."""
    parts = names.split(" ")
    return len(parts) == 2 and all(word.isidentifier() for part in parts for word in part.split("."))


def _read_at(file: IO[bytes], place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _has_objects(file: IO[bytes]) -> bool:
    """Whether numpy would unpickle the array; a header that numpy cannot read counts as if."""
    file.seek(0)
    try:
        major, _ = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if major == 1 else np.lib.format.read_array_header_2_0
        return bool(read(file)[2].hasobject)
    except ValueError:
        return True


def _find_in_zip(file: IO[bytes], start: bytes, depth: int) -> str | None:
    file.seek(0)
    if not zipfile.is_zipfile(file):
        # As the length of a safetensors header, the zip's first bytes would mean 67 MB; byte 8 tells the two apart.
        is_damaged = start.startswith(ZIP_START) and start[HEADER_AT : HEADER_AT + 1] != b"{"
        return "a damaged zip, which some programs load all the same" if is_damaged else None
    try:
        with zipfile.ZipFile(file) as archive:
            for info in archive.infolist():
                with archive.open(info) as member:
                    if _is_dangerous(info.filename, member, depth):
                        return "a zip with a pickle in it"
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error):
        # Damaged or encrypted; or tensors whose last bytes look like the end of a zip.
        return "a zip that cannot be looked into" if start.startswith(ZIP_START) else None
    return None


def _find_in_tar(file: IO[bytes], start: bytes, depth: int) -> str | None:
    if start[TAR_MARK_AT:] != TAR_MARK:
        return None
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for info in archive:
                member = archive.extractfile(info) if info.isfile() else None
                if member is not None and _is_dangerous(info.name, member, depth):
                    return "a tar with a pickle in it"
    except tarfile.TarError:
        return "a tar that cannot be looked into"
    return None


def _is_dangerous(name: str, member: IO[bytes], depth: int) -> bool:
    return Path(name).suffix.lower() in PICKLE_SUFFIXES or _find(member, depth + 1) is not None


def _find_in_compressed(file: IO[bytes], start: bytes, depth: int) -> str | None:
    for what, (magic, opener) in COMPRESSED.items():
        if not start.startswith(magic):
            continue
        file.seek(0)
        try:
            found = _find(opener(file), depth + 1)
        except (OSError, EOFError, zlib.error, lzma.LZMAError):
            continue  # it only begins like one, or is damaged from its start
        if found is not None:
            return f"{what} of {found}"
    return None


def _inflated(file: IO[bytes]) -> IO[bytes]:
    """The beginning of a zlib stream, as joblib writes it."""
    return io.BytesIO(zlib.decompressobj().decompress(file.read(MOST_INFLATED), MOST_INFLATED))


COMPRESSED: dict[str, tuple[bytes, Callable[[IO[bytes]], IO[bytes]]]] = {
    "gzip": (b"\x1f\x8b", lambda file: cast(IO[bytes], gzip.GzipFile(fileobj=file, mode="rb"))),
    "bzip2": (b"BZh", bz2.BZ2File),
    "xz": (b"\xfd7zXZ\x00", lzma.LZMAFile),
    "lzma": (b"\x5d\x00\x00", lzma.LZMAFile),
    "zlib": (b"\x78", _inflated),
}
"""How the formats that joblib and others wrap pickles in begin, and how they are opened."""
