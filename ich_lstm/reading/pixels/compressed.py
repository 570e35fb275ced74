"""Reads compressed pixels: extracts the encoded frame here, and decodes it in the child process of `codec_worker`."""

import io
import warnings
import zipfile
import zlib
from typing import BinaryIO

import numpy as np

from ich_lstm.errors import FileError
from ich_lstm.reading.files.container import cached_bytes
from ich_lstm.reading.files.sources import unreadable
from ich_lstm.reading.header.header import SliceHeader
from ich_lstm.reading.pixels.codec_worker import CODECS, CodecError, DecodeRequest, decode_frame, is_installed
from ich_lstm.reading.pixels.codestream import examine_stream

KNOWN_PREFIX = "1.2.840.10008.1.2."

TODO = {
    "truncated_pixels": "Copy or export the file again.",
    "codec_timeout": "Export the file again; if it is sound, decompress it with another program.",
    "codec_crashed": "Export the file again; if it is sound, decompress it with another program.",
}


class BoundedFile:
    """A file that refuses to read past its end: a wrong length field would otherwise allocate memory.

    Args:
        stream: The open file.
        size: Size of the file in bytes.
    """

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._size = size

    def read(self, count: int = -1, /) -> bytes:
        """Read up to `count` bytes, but never past the end, with the interface of a binary file."""
        rest = max(0, self._size - self._stream.tell())
        return self._stream.read(rest if count < 0 else min(count, rest))

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move to an offset, with the interface of a binary file."""
        return self._stream.seek(offset, whence)

    def tell(self) -> int:
        """The current offset, with the interface of a binary file."""
        return self._stream.tell()


def read_compressed(header: SliceHeader) -> np.ndarray:
    """Decode the pixels of a slice.

    Args:
        header: Header of a file in a compressed transfer syntax.

    Returns:
        Stored values, uint16 or int16 ``(rows, columns)``.

    Raises:
        FileError: ``unknown_transfer_syntax``, ``codec_missing``, ``truncated_pixels``, ``decode_failed``,
            ``codec_crashed``, ``codec_timeout`` or ``unreadable``.
    """
    syntax = header.transfer_syntax
    _check_codec(header)
    stream = _encoded_frame(header)
    try:
        facts = examine_stream(syntax, stream)
        if facts is not None and (facts.rows, facts.columns, facts.components) != (header.rows, header.columns, 1):
            raise CodecError(
                "decode_failed",
                f"a stream of {facts.rows} x {facts.columns} pixels with {facts.components} components in an image of "
                f"{header.rows} x {header.columns}",
            )
        precision = 16 if facts is None else facts.precision
        if not 1 <= precision <= 16:
            raise CodecError("decode_failed", f"a stream of {precision} bits per value")
        pixels = decode_frame(stream, DecodeRequest(syntax, header.rows, header.columns, precision))
        size = 1 if precision <= 8 and facts is not None else 2
        if len(pixels) != size * header.rows * header.columns:
            raise CodecError("decode_failed", f"{len(pixels):,} bytes of pixels after decoding")
    except CodecError as error:
        raise FileError(
            error.code,
            where=str(header.source),
            got=f"{_name(syntax)}: {error.got}",
            expected=f"{header.rows} x {header.columns} pixels of 16 bits",
            todo=TODO.get(error.code, "Export the file again."),
        ) from error
    stored = np.frombuffer(pixels, "<u2" if size == 2 else "u1").astype(np.uint16).reshape(header.rows, header.columns)
    return _with_sign(stored, header.pixel_representation == 1, precision, None if facts is None else facts.signed)


def _with_sign(stored: np.ndarray, wanted: bool, precision: int, signed: bool | None) -> np.ndarray:
    """Convert values of ``precision`` bits to the signedness that the header declares, which may differ from the stream's."""
    unused = 16 - precision
    if wanted:
        values = stored.view(np.int16)
        return values if (signed and precision > 8) or not unused else (values << unused) >> unused
    return stored & np.uint16((1 << precision) - 1) if signed and unused else stored


def _check_codec(header: SliceHeader) -> None:
    syntax = header.transfer_syntax
    if syntax not in CODECS:
        raise FileError(
            "unknown_transfer_syntax",
            where=str(header.source),
            got=f"transfer syntax {_name(syntax)}",
            todo="Export the series uncompressed (Explicit VR Little Endian).",
        )
    if not is_installed(syntax):
        raise FileError(
            "codec_missing",
            where=str(header.source),
            got=f"{_name(syntax)} without a decoder",
            todo='Install one with: pip install "ich_lstm[codecs]"',
        )


def _name(syntax: str) -> str:
    if not syntax.startswith(KNOWN_PREFIX):
        return syntax
    from pydicom.uid import UID

    return f"{UID(syntax).name} ({syntax})" if UID(syntax).name != syntax else syntax


def _encoded_frame(header: SliceHeader) -> bytes:
    from pydicom.encaps import get_frame

    ref = header.source
    try:
        size = ref.size()
        with ref.open() if ref.member is None else io.BytesIO(cached_bytes(ref, False, size)) as stream:
            stream.seek(header.pixel_offset)
            # pydicom warns about harmless deviations; this module decides what is acceptable.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                frames = max(1, header.frames)
                return get_frame(BoundedFile(stream, size), max(0, header.frame - 1), number_of_frames=frames)
    except FileError:
        raise
    except (OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise unreadable(ref, error) from error
    except Exception as error:  # ValueError, struct.error, StopIteration and others, from damaged fragments
        raise FileError(
            "decode_failed",
            where=str(ref),
            got=f"encapsulated pixels that cannot be parsed ({type(error).__name__})",
            expected="fragments (PS3.5, A.4)",
            todo="Export the file again.",
        ) from error
