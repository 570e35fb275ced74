"""Reads one DICOM file: its header, and its pixels in Hounsfield units with the known repairs."""

import io
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from typing import BinaryIO

import numpy as np

from ich_lstm.errors import FileError
from ich_lstm.reading.files.container import (
    DEFLATED,
    EXPLICIT_BIG,
    EXPLICIT_LITTLE,
    IMPLICIT_LITTLE,
    UNDEFINED_LENGTH,
    cached_bytes,
    inflate,
    start_data_set,
)
from ich_lstm.reading.files.sources import unreadable
from ich_lstm.reading.header.header import SliceHeader as SliceHeader
from ich_lstm.reading.header.header import read_header as read_header
from ich_lstm.reading.pixels.compressed import read_compressed
from ich_lstm.reading.pixels.rescale import RescaleError, Storage, StoredPeaks, to_hu
from ich_lstm.scan import Note

NATIVE_SYNTAXES = frozenset({IMPLICIT_LITTLE, EXPLICIT_LITTLE, EXPLICIT_BIG, DEFLATED})

MAX_MATRIX = 8192
"""CT matrices have at most 2048; a file that declares more than 8192 is damaged, and would cost memory."""

BYTES_PER_PIXEL = 2

READ_BYTES = 1 << 20

RAW_TRAILING_GROUPS = range(0x7FE0, 0xFFFF)
"""Groups of elements that may follow Pixel Data."""


def read_hu(header: SliceHeader) -> tuple[np.ndarray, tuple[Note, ...]]:
    """Read the pixels of a slice as HU.

    Args:
        header: A header from :func:`read_header`.

    Returns:
        HU, int16 ``(rows, columns)`` within [-1024, 3071], in the stored orientation (not yet in the display convention),
        and a note for each repair.

    Raises:
        FileError: If the pixels cannot be read, or are not HU; the code says why (``truncated_pixels``, ``bad_matrix``,
            ``pixel_format``, ``rescale_missing``, ``bad_rescale``, ``codec_missing`` and others).
    """
    stored, repairs = read_stored(header)
    storage = Storage(
        slope=header.slope,
        intercept=header.intercept,
        bits_stored=header.bits_stored or 16,
        signed=header.pixel_representation == 1,
        padding=header.padding,
        padding_limit=header.padding_limit,
    )
    try:
        hu, fixes = to_hu(stored, storage)
    except RescaleError as error:
        raise FileError(
            error.code,
            where=str(header.source),
            got=error.got,
            expected=error.expected,
            todo="Export the series again, with all attributes.",
        ) from error
    return hu, repairs + fixes


def read_stored(header: SliceHeader) -> tuple[np.ndarray, tuple[Note, ...]]:
    """Read the stored pixel values of a slice, before any rescale.

    Args:
        header: A header from :func:`read_header`.

    Returns:
        Stored values, uint16 or int16 ``(rows, columns)``, and a note for each repair.

    Raises:
        FileError: If the pixels cannot be read; the code says why, see :func:`read_hu`.
    """
    _check_format(header)
    return _read_native(header) if header.transfer_syntax in NATIVE_SYNTAXES else (read_compressed(header), ())


def has_rescale(header: SliceHeader) -> bool:
    """Whether the header has both Rescale Slope and Rescale Intercept."""
    return header.slope is not None and header.intercept is not None


def assume_rescale(headers: Sequence[SliceHeader]) -> list[SliceHeader]:
    """Accept stored values without rescale as HU, if the values of all slices together have the peaks of HU.

    A single slice may not suffice: one through the vertex has too little soft tissue.

    Args:
        headers: Headers of one series.

    Returns:
        The headers, with slope 1 and intercept 0 filled in where a rescale is missing; unchanged if the values are not HU.
    """
    peaks = StoredPeaks()
    for header in headers:
        if not has_rescale(header):
            with suppress(FileError):  # the error is reported when the slice is read
                peaks.add(read_stored(header)[0])
    if not peaks.are_hu():
        return list(headers)
    return [header if has_rescale(header) else replace(header, slope=1.0, intercept=0.0) for header in headers]


def _check_format(header: SliceHeader) -> None:
    where = str(header.source)
    if not (0 < header.rows <= MAX_MATRIX and 0 < header.columns <= MAX_MATRIX):
        raise FileError(
            "bad_matrix",
            where=where,
            got=f"{header.rows} x {header.columns} pixels",
            expected=f"1 to {MAX_MATRIX} each way",
            todo="Export the file again.",
        )
    if header.samples_per_pixel not in (1, None) or header.photometric not in ("MONOCHROME1", "MONOCHROME2", ""):
        raise FileError(
            "pixel_format",
            where=where,
            got=f"{header.photometric or 'unknown'} pixels of {header.samples_per_pixel} samples",
            expected="MONOCHROME2 with one sample",
            todo="Choose the series of CT slices, not of screenshots.",
        )
    if header.bits_allocated != 8 * BYTES_PER_PIXEL or not 8 <= (header.bits_stored or 16) <= 16:
        raise FileError(
            "pixel_format",
            where=where,
            got=f"{header.bits_stored} bits stored in {header.bits_allocated}",
            expected="16-bit integers",
            todo="Export the series as the scanner made it.",
        )


def _read_native(header: SliceHeader) -> tuple[np.ndarray, tuple[Note, ...]]:
    expected = header.rows * header.columns * BYTES_PER_PIXEL
    if header.pixel_length < expected or header.pixel_length == UNDEFINED_LENGTH:
        raise _truncated(header, header.pixel_length if header.pixel_length < expected else 0, expected)
    if header.transfer_syntax != DEFLATED and header.pixel_offset + expected > header.source.size():
        raise _truncated(header, max(0, header.source.size() - header.pixel_offset), expected)
    kind = "i2" if header.pixel_representation == 1 else "u2"
    stored = np.empty((header.rows, header.columns), ("<", ">")[header.big_endian] + kind)
    view = stored.data.cast("B")
    with _open_data(header) as stream:
        try:
            if header.transfer_syntax == DEFLATED and not header.frame:
                start_data_set(header.source, stream)
                stream = inflate(header.source, stream)
            in_archive = header.source.member is not None
            if in_archive:
                stream.read(header.pixel_offset)  # a seek would disable zipfile's check of the checksum
            else:
                stream.seek(header.pixel_offset)
            got = 0
            while got < expected and (count := stream.readinto(view[got:])):  # type: ignore[attr-defined]
                got += count
            if got < expected:
                raise _truncated(header, got, expected)
            spare = min(header.pixel_length - expected, expected)
            after = stream.read(spare + 4)
            while in_archive and stream.read(READ_BYTES):
                pass  # the checksum is compared at the end
        except FileError:
            raise
        except Exception as error:  # OSError of a disk; BadZipFile, zlib.error and EOFError of an archive
            raise unreadable(header.source, error) from error
    if header.pixel_length > expected + 1 and len(after) < spare:
        raise _truncated(header, got + len(after), header.pixel_length)
    native = stored.astype(stored.dtype.newbyteorder("="), copy=False)
    return native, _trailing_notes(header, spare, after[spare:])


def _open_data(header: SliceHeader) -> BinaryIO:
    """Open the file. For frames in an archive or of a deflated file, the complete content is cached, and unpacked only once."""
    deflated = header.transfer_syntax == DEFLATED
    if header.frame and (deflated or header.source.member is not None):
        try:
            return io.BytesIO(cached_bytes(header.source, deflated, header.source.size()))
        except FileError:
            raise
        except Exception as error:  # BadZipFile, zlib.error and EOFError of an archive
            raise unreadable(header.source, error) from error
    return header.source.open()


def _trailing_notes(header: SliceHeader, spare: int, after: bytes) -> tuple[Note, ...]:
    if header.frame < header.frames and header.frame:
        return ()  # the next frame follows
    if spare > 1:
        return (Note("excess_pixels", f"{spare} bytes of pixel data beyond the matrix were ignored"),)
    if after and int.from_bytes(after[:2], "big" if header.big_endian else "little") not in RAW_TRAILING_GROUPS:
        return (Note("trailing_bytes", "bytes after the last element were ignored"),)
    return ()


def _truncated(header: SliceHeader, got: int, expected: int) -> FileError:
    return FileError(
        "truncated_pixels",
        where=str(header.source),
        got=f"{got:,} bytes of pixels",
        expected=f"{expected:,}",
        todo="Copy or export the file again.",
    )
