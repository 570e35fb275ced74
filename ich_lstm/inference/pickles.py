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
"""The first bytes of Zstandard, LZ4 and 7z, which Python's standard library cannot unpack. No safetensors file begins with them:
as the length of a header, they would exceed the 100 MB that its reader allows."""

HEADER_AT = 8
"""Offset of the header of safetensors, which begins with a brace and follows its length."""

MOST_INFLATED = 64 * 2**20
"""Maximum number of bytes that are inspected of a compressed file, of all members of an archive together, or of one argument in a
pickle. What is larger is suspicious: beside weights there is only text, and nothing may exhaust memory or time."""

MOST_MEMBERS = 1000
"""Maximum number of inspected members of an archive."""

MOST_OPCODES = 200_000
"""Maximum number of inspected opcodes. Text and weights stop being valid opcodes long before."""

DEEPEST = 3
"""Maximum depth of nested archives that are inspected; deeper nesting is suspicious."""

NAMING = frozenset({"GLOBAL", "STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"})
"""Opcodes that import an object from outside the pickle, for example a function."""

CALLING = frozenset({"REDUCE", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "BUILD"})
"""Opcodes that call an imported object."""


def pickle_in(path: Path) -> str | None:
    """Find out why a file is dangerous to load; None if it is not.

    The first bytes of a file are not sufficient: safetensors begin with the length of their header, which can be equal to the
    first two bytes of a pickle. The whole content is therefore inspected.

    Args:
        path: The file to inspect, including the contents of archives and compressed files.

    Returns:
        A phrase such as ``a pickle`` or ``a zip with a pickle in it``; None if the file is not dangerous.

    Raises:
        OSError: If the file cannot be read.
    """
    if path.suffix.lower() in PICKLE_SUFFIXES:
        return f"a {path.suffix.lower()} file"
    with path.open("rb") as file:
        return _find(file, depth=0)


def _find(file: IO[bytes], depth: int) -> str | None:
    """Find out why the content of an open, seekable file is dangerous to load; None if it is not."""
    if depth > DEEPEST:
        return f"archives inside archives, more than {DEEPEST} deep"
    if is_pickle(file):
        return "a pickle"
    start = _read_at(file, 0, TAR_MARK_AT + len(TAR_MARK))
    if start.startswith(OPAQUE_STARTS):
        return "an archive that cannot be inspected"
    if start.startswith(NUMPY_START) and _has_objects(file):
        return "an array of pickled objects"
    return _find_in_zip(file, start, depth) or _find_in_tar(file, start, depth) or _find_in_compressed(file, start, depth)


def is_pickle(file: IO[bytes]) -> bool:
    """Whether the content is a pickle of any protocol: valid opcodes up to STOP, each with its operands on the stack.

    A pickle that has called an imported object need not reach STOP. If the content does not begin with a protocol opcode, as in
    protocols 0 and 1, STOP must be the last byte, because text can begin like a pickle (``N. B.`` is None).

    Args:
        file: An open, seekable file.
    """
    begins_with_protocol = _read_at(file, 0, 1) == b"\x80"
    file.seek(0)
    stack: list[Any] = []
    has_named = False
    try:
        # pickletools decodes arbitrary bytes as arguments, and Python warns of unknown escape sequences in them.
        with warnings.catch_warnings(action="ignore"):
            for count, (opcode, argument, _) in enumerate(pickletools.genops(cast(IO[bytes], _Bounded(file)))):
                if count > MOST_OPCODES:
                    return True
                if not _apply(opcode, stack):
                    return False
                if opcode.name in ("GLOBAL", "INST") and not _is_dotted_pair(str(argument)):
                    return False
                has_named = has_named or opcode.name in NAMING
                if has_named and opcode.name in CALLING:
                    return True
    except _TooLarge:
        return True
    except (ValueError, EOFError, OverflowError, MemoryError):
        return False  # the unpickler would fail here too
    # genops stops after STOP.
    return begins_with_protocol or not file.read().strip()


class _TooLarge(Exception):
    """A file asks for more memory or time than text or weights would."""


class _Bounded:
    """Reads a file for pickletools, which reads each argument of an opcode at once.

    Args:
        file: An open, seekable file.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.tell = file.tell

    def read(self, count: int) -> bytes:
        """Read some bytes.

        Args:
            count: The number of bytes.

        Raises:
            _TooLarge: If the file has more than `MOST_INFLATED` of them.
        """
        content = self._file.read(min(count, MOST_INFLATED + 1))
        if len(content) > MOST_INFLATED:
            raise _TooLarge
        return content

    def readline(self) -> bytes:
        """Read up to the end of the line.

        Raises:
            _TooLarge: If the line has more than `MOST_INFLATED` bytes.
        """
        content = self._file.readline(MOST_INFLATED + 1)
        if len(content) > MOST_INFLATED:
            raise _TooLarge
        return content


def _apply(opcode: pickletools.OpcodeInfo, stack: list[Any]) -> bool:
    """Apply an opcode to a stack of types; False if the stack lacks its operands."""
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
    """Whether the text is a module and a name in it, as in ``collections OrderedDict``."""
    pair = names.split(" ")
    return len(pair) == 2 and all(word.isidentifier() for dotted in pair for word in dotted.split("."))


def _read_at(file: IO[bytes], place: int, count: int) -> bytes:
    file.seek(place)
    return file.read(count)


def _has_objects(file: IO[bytes]) -> bool:
    """Whether numpy would unpickle the array; True also for a header that numpy cannot read."""
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
        # As the length of a safetensors header, the first bytes of a zip would be 67 MB; byte 8 distinguishes the two.
        is_damaged = start.startswith(ZIP_START) and start[HEADER_AT : HEADER_AT + 1] != b"{"
        return "a damaged zip, which some programs would load" if is_damaged else None
    try:
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            if len(members) > MOST_MEMBERS or sum(info.file_size for info in members) > MOST_INFLATED:
                return "a zip that is too large to inspect"
            for info in members:
                with archive.open(info) as member:
                    if _is_dangerous(info.filename, member, depth):
                        return "a zip with a pickle in it"
    except (zipfile.BadZipFile, NotImplementedError, RuntimeError, EOFError, zlib.error):
        # The zip is damaged or encrypted, or the file has tensors whose last bytes look like the end of a zip.
        return "a zip that cannot be inspected" if start.startswith(ZIP_START) else None
    return None


def _find_in_tar(file: IO[bytes], start: bytes, depth: int) -> str | None:
    if start[TAR_MARK_AT:] != TAR_MARK:
        return None
    file.seek(0)
    try:
        with tarfile.open(fileobj=file, mode="r:") as archive:
            for count, info in enumerate(archive):
                if count > MOST_MEMBERS or info.size > MOST_INFLATED:
                    return "a tar that is too large to inspect"
                member = archive.extractfile(info) if info.isfile() else None
                if member is not None and _is_dangerous(info.name, member, depth):
                    return "a tar with a pickle in it"
    except tarfile.TarError:
        return "a tar that cannot be inspected"
    return None


def _is_dangerous(name: str, member: IO[bytes], depth: int) -> bool:
    return Path(name).suffix.lower() in PICKLE_SUFFIXES or _find(member, depth + 1) is not None


def _find_in_compressed(file: IO[bytes], start: bytes, depth: int) -> str | None:
    for what, (magic, opener) in COMPRESSED.items():
        if not start.startswith(magic):
            continue
        file.seek(0)
        content = io.BytesIO()
        try:
            stream = opener(file)
            while content.tell() <= MOST_INFLATED and (piece := stream.read(io.DEFAULT_BUFFER_SIZE)):
                content.write(piece)
        except (OSError, EOFError, ValueError, MemoryError, zlib.error, lzma.LZMAError):
            pass  # the file only begins like this format, or is damaged; what comes before the damage is inspected
        if content.tell() > MOST_INFLATED:
            return f"{what} that is too large to inspect"
        found = _find(content, depth + 1)
        if found is not None:
            return f"{what} of {found}"
    return None


def _inflated(file: IO[bytes]) -> IO[bytes]:
    """Decompress the beginning of a zlib stream, which joblib writes."""
    return io.BytesIO(zlib.decompressobj().decompress(file.read(MOST_INFLATED), MOST_INFLATED))


COMPRESSED: dict[str, tuple[bytes, Callable[[IO[bytes]], IO[bytes]]]] = {
    "gzip": (b"\x1f\x8b", lambda file: cast(IO[bytes], gzip.GzipFile(fileobj=file, mode="rb"))),
    "bzip2": (b"BZh", bz2.BZ2File),
    "xz": (b"\xfd7zXZ\x00", lzma.LZMAFile),
    "lzma": (b"\x5d\x00\x00", lzma.LZMAFile),
    "zlib": (b"\x78", _inflated),
}
"""The first bytes of the formats in which joblib and others compress pickles, and functions that open them."""
