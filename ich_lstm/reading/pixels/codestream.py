"""Headers of encoded frames: whether a stream matches the DICOM header, and whether it is complete. No decoding."""

import struct
from typing import NamedTuple

from ich_lstm.reading.pixels.codec_worker import JPEG_2000, JPEG_LS, RLE, CodecError

_SOI, _EOI = b"\xff\xd8", b"\xff\xd9"
_JPEG_FRAME, _JPEG_LS_FRAME = 0xC3, 0xF7
_JP2_BOX = b"\0\0\0\x0cjP  "
_SOC_SIZ = b"\xff\x4f\xff\x51"
_SOT = b"\xff\x90"


class StreamFacts(NamedTuple):
    """What an encoded frame says of itself.

    Args:
        rows: Its rows.
        columns: Its columns.
        components: Samples per pixel.
        precision: Bits per value.
        signed: Whether its values are signed; None if the format cannot say.
    """

    rows: int
    columns: int
    components: int
    precision: int
    signed: bool | None


def examine_stream(syntax: str, stream: bytes) -> StreamFacts | None:
    """Read the head of an encoded frame, and see that its end is there.

    Args:
        syntax: Transfer Syntax UID.
        stream: The frame.

    Returns:
        What it says of itself; None for RLE, which says nothing.

    Raises:
        CodecError: ``decode_failed`` if it is no such stream, ``truncated_pixels`` if it breaks off.
    """
    if syntax == RLE:
        return None
    try:
        return _examine_jpeg_2000(stream) if syntax in JPEG_2000 else _examine_jpeg(syntax, stream)
    except (struct.error, IndexError) as error:
        raise CodecError("truncated_pixels", "a compressed frame that breaks off in its head") from error


def _examine_jpeg(syntax: str, stream: bytes) -> StreamFacts:
    """JPEG (ITU-T T.81, annex B) and JPEG-LS (T.87, annex C)."""
    if stream[:2] != _SOI:
        raise _other("JPEG")
    wanted = _JPEG_LS_FRAME if syntax in JPEG_LS else _JPEG_FRAME
    at = 2
    while True:
        mark, kind, length = struct.unpack_from(">BBH", stream, at)
        if mark != 0xFF:
            raise _other("JPEG")
        if kind == 0xFF:  # fill byte
            at += 1
            continue
        if kind == wanted:
            break
        if (0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC)) or kind == _JPEG_LS_FRAME:
            raise CodecError("decode_failed", "a stream of another kind of JPEG than the header says")
        at += 2 + length
    precision, rows, columns, components = struct.unpack_from(">BHHB", stream, at + 4)
    if not stream.rstrip(b"\0").endswith(_EOI):
        raise CodecError("truncated_pixels", "a compressed frame without its end")
    return StreamFacts(rows, columns, components, precision, None)


def _examine_jpeg_2000(stream: bytes) -> StreamFacts:
    """JPEG 2000 (ITU-T T.800, annex A), from SIZ to the last tile-part, which are counted by their lengths."""
    at = 0
    if stream.startswith(_JP2_BOX):  # against PS3.5 A.4.4, but written by some
        at = stream.find(_SOC_SIZ)
    if at < 0 or stream[at : at + 4] != _SOC_SIZ:
        raise _other("JPEG 2000")
    right, bottom, left, top = struct.unpack_from(">IIII", stream, at + 8)
    components, depth = struct.unpack_from(">HB", stream, at + 40)
    facts = StreamFacts(bottom - top, right - left, components, (depth & 0x7F) + 1, bool(depth & 0x80))
    at += 2
    while stream[at : at + 2] != _SOT:  # main header
        at += 2 + struct.unpack_from(">H", stream, at + 2)[0]
    while stream[at : at + 2] == _SOT:
        (length,) = struct.unpack_from(">I", stream, at + 6)
        if length == 0:  # up to the end of the stream
            if not stream.rstrip(b"\0").endswith(_EOI):
                raise CodecError("truncated_pixels", "a compressed frame without its end")
            break
        at += max(length, 12)
        if at > len(stream):
            raise CodecError("truncated_pixels", f"a compressed frame of {len(stream):,} bytes")
    return facts


def _other(kind: str) -> CodecError:
    return CodecError("decode_failed", f"pixels that are no {kind} stream, as the header says")
