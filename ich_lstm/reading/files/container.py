"""The container of a DICOM data set: preamble, File Meta Information, transfer syntax, deflation (PS3.10)."""

import io
import struct
import zlib
from functools import lru_cache
from typing import Any, BinaryIO

from pydicom.filereader import data_element_generator

from ich_lstm.errors import FileError
from ich_lstm.reading.files.sources import FileRef

IMPLICIT_LITTLE = "1.2.840.10008.1.2"
EXPLICIT_LITTLE = "1.2.840.10008.1.2.1"
DEFLATED = "1.2.840.10008.1.2.1.99"
EXPLICIT_BIG = "1.2.840.10008.1.2.2"

DICOMDIR_CLASS = "1.2.840.10008.1.3.10"

PREAMBLE = 128
MAX_INFLATED_BYTES = 256 * 2**20
"""Limit for an inflated data set: a slice has 0.5 to 8 MiB, so that a larger one is a decompression bomb."""

UNDEFINED_LENGTH = 0xFFFFFFFF
_TRANSFER_SYNTAX = 0x00020010
_MEDIA_CLASS = 0x00020002


def start_data_set(ref: FileRef, stream: BinaryIO) -> str:
    """Read preamble and File Meta Information, and position the stream at the data set.

    Args:
        ref: The file, for messages.
        stream: The open file, at its beginning.

    Returns:
        The Transfer Syntax UID; if the file does not state it, it is inferred from the first element.

    Raises:
        FileError: If the file is empty, a DICOMDIR, or not DICOM.
    """
    start = stream.read(PREAMBLE + 4)
    if not start:
        raise FileError("empty_file", where=str(ref), got="empty file", expected="DICOM")
    if start[PREAMBLE:] != b"DICM":
        if not _looks_like_data_set(start):
            raise FileError("not_dicom", where=str(ref), got=_kind_of(start), expected="DICOM")
        stream.seek(0)
    meta: dict[int, Any] = {}
    group = stream.read(2)
    stream.seek(-len(group), io.SEEK_CUR)
    if group == b"\x02\x00":
        after_meta = 0x00030000
        for element in data_element_generator(stream, False, True, stop_when=lambda tag, vr, length: tag >= after_meta):
            meta[element.tag] = element.value
    if _uid(meta.get(_MEDIA_CLASS)) == DICOMDIR_CLASS:
        raise FileError(
            "dicomdir",
            where=str(ref),
            got="DICOMDIR",
            expected="an image",
            todo="No action is needed: the images that it lists are read directly.",
        )
    return _uid(meta.get(_TRANSFER_SYNTAX)) or _guess_syntax(stream)


def _guess_syntax(stream: BinaryIO) -> str:
    """Distinguish the three uncompressed encodings by the first element (PS3.5, 7.1)."""
    first = stream.read(6)
    stream.seek(-len(first), io.SEEK_CUR)
    if len(first) < 6 or not first[4:].isalpha() or not first[4:].isupper():
        return IMPLICIT_LITTLE
    return EXPLICIT_LITTLE if first[1] == 0 else EXPLICIT_BIG


def _looks_like_data_set(start: bytes) -> bool:
    """Whether bytes without the DICM prefix begin with an element of group 0002 or 0008."""
    if len(start) < 12:
        return False
    for order in "<", ">":
        group, element = struct.unpack(order + "HH", start[:4])
        if group in (0x0002, 0x0008) and element < 0x2000:
            explicit = start[4:6].isalpha() and start[4:6].isupper()
            return explicit or struct.unpack("<I", start[4:8])[0] < 1024
    return False


def _kind_of(start: bytes) -> str:
    try:
        text = start.decode()
    except UnicodeDecodeError:
        return "binary"
    return "text" if text.isprintable() or not set(text) & set(map(chr, (*range(9), *range(14, 32)))) else "binary"


def inflate(ref: FileRef, stream: BinaryIO) -> BinaryIO:
    """Inflate the rest of a deflated file (PS3.5, A.5), up to ``MAX_INFLATED_BYTES``."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        data = inflater.decompress(stream.read(MAX_INFLATED_BYTES), MAX_INFLATED_BYTES)
    except zlib.error as error:
        raise FileError(
            "decode_failed", where=str(ref), got="a deflated data set that cannot be inflated", todo="Export the file again."
        ) from error
    if inflater.unconsumed_tail:
        raise FileError(
            "deflated_bomb",
            where=str(ref),
            got=f"more than {MAX_INFLATED_BYTES:,} bytes after inflation",
            todo="Do not open it; ask where it comes from.",
        )
    return io.BytesIO(data)


@lru_cache(maxsize=1)
def cached_bytes(ref: FileRef, inflated: bool, size: int) -> bytes:
    """A complete file, or the inflated data set of a deflated one; the last result is cached for the file's other frames.

    Args:
        ref: File to read.
        inflated: Whether to return the inflated data set of a deflated file.
        size: Current size of the file, part of the cache key: a changed file is read again.
    """
    with ref.open() as stream:
        if inflated:
            start_data_set(ref, stream)
            stream = inflate(ref, stream)
        return stream.read()


def _uid(value: bytes | None) -> str:
    return (value or b"").decode("latin-1").strip(" \0")
