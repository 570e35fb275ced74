"""Checks headers of encoded frames: whether a stream matches the DICOM header and is complete. Decodes nothing."""

import struct
from typing import NamedTuple

from ich_lstm.reading.pixels.codec_worker import JPEG_2000, JPEG_LS, RLE, CodecError

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_JPEG_FRAME, _JPEG_LS_FRAME = 0xC3, 0xF7
_JP2_BOX = b"\0\0\0\x0cjP  "
_SOC_SIZ = b"\xff\x4f\xff\x51"
_SOT = b"\xff\x90"


class StreamFacts(NamedTuple):
    """The properties that an encoded frame declares.

    Args:
        rows: Number of rows.
        columns: Number of columns.
        components: Samples per pixel.
        precision: Bits per sample.
        signed: Whether the values are signed; None if the format does not declare it.
    """

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool | None


def examine_stream(syntax: str, stream: bytes) -> StreamFacts | None:
    """Read the header of an encoded frame, and check that its end is present.

    Args:
        syntax: Transfer Syntax UID of the file.
        stream: Bytes of the encoded frame.

    Returns:
        The properties that the stream declares; None for RLE, which declares none.

    Raises:
        CodecError: ``decode_failed`` if the stream is of another format, ``truncated_pixels`` if it is incomplete.
    """
    if syntax == RLE:
        return None
    try:
        return _examine_jpeg_2000(stream) if syntax in JPEG_2000 else _examine_jpeg(syntax, stream)
    except (struct.error, IndexError) as error:
        raise CodecError("truncated_pixels", "a compressed frame that ends within its header") from error


def _examine_jpeg(syntax: str, stream: bytes) -> StreamFacts:
    """JPEG (ITU-T T.81, annex B) and JPEG-LS (T.87, annex C)."""
    if stream[:2] != _SOI:
        raise _wrong_format("JPEG")
    wanted = _JPEG_LS_FRAME if syntax in JPEG_LS else _JPEG_FRAME
    at = 2
    while True:
        mark, kind, length = struct.unpack_from(">BBH", stream, at)
        if mark != 0xFF:
            raise _wrong_format("JPEG")
        if kind == 0xFF:  # fill byte
            at += 1
            continue
        if kind == wanted:
            break
        if (0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC)) or kind == _JPEG_LS_FRAME:
            raise CodecError("decode_failed", "a stream of another JPEG process than the transfer syntax declares")
        at += 2 + length
    precision, rows, columns, components = struct.unpack_from(">BHHB", stream, at + 4)
    if not stream.rstrip(b"\0").endswith(_EOI):
        raise CodecError("truncated_pixels", "a compressed frame without its end")
    return StreamFacts(rows, columns, components, precision, None)


def _examine_jpeg_2000(stream: bytes) -> StreamFacts:
    """JPEG 2000 (ITU-T T.800, annex A), from SIZ to the last tile-part; tile-parts are skipped by their lengths."""
    at = 0
    if stream.startswith(_JP2_BOX):  # PS3.5 A.4.4 forbids the box, but some software writes it
        at = stream.find(_SOC_SIZ)
    if at < 0 or stream[at : at + 4] != _SOC_SIZ:
        raise _wrong_format("JPEG 2000")
    right, bottom, left, top = struct.unpack_from(">IIII", stream, at + 8)
    components, depth = struct.unpack_from(">HB", stream, at + 40)
    facts = StreamFacts(bottom - top, right - left, components, (depth & 0x7F) + 1, bool(depth & 0x80))
    at += 2
    while stream[at : at + 2] != _SOT:  # main header
        at += 2 + struct.unpack_from(">H", stream, at + 2)[0]
    while stream[at : at + 2] == _SOT:
        (length,) = struct.unpack_from(">I", stream, at + 6)
        if length == 0:  # the tile-part extends to the end of the stream
            if not stream.rstrip(b"\0").endswith(_EOI):
                raise CodecError("truncated_pixels", "a compressed frame without its end")
            break
        at += max(length, 12)
        if at > len(stream):
            raise CodecError("truncated_pixels", f"a compressed frame of {len(stream):,} bytes")
    return facts


def _wrong_format(kind: str) -> CodecError:
    return CodecError("decode_failed", f"pixels that are not a {kind} stream, which the transfer syntax declares")
