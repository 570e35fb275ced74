"""Preprocessed scans on disk: compressed HU, one file per scan, with nothing that identifies a patient."""

import hashlib
import json
import zlib
from collections.abc import Sequence
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import blosc2
import numpy as np

from ich_lstm.errors import CacheError
from ich_lstm.files.atomic_write import write_bytes
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.privacy import make_folder
from ich_lstm.reading import SliceHeader
from ich_lstm.reading.header.examinations import PATIENT_FIELDS
from ich_lstm.scan import Note

FORMAT = 3
"""The format is written into each file and is part of the digest in its name, so that files of another format are not read."""

CHUNK_BYTES = 1 << 20

UNREADABLE = (
    *(OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError),
    *(ArithmeticError, MemoryError, SyntaxError),  # errors of blosc2 for a damaged header
)

_row_of = attrgetter(
    *(field.name for field in fields(SliceHeader) if field.name not in ("source", "manufacturer", *PATIENT_FIELDS))
)
"""The columns of the index that identify a slice for the digest. The place of its file is not among them, because a source may be
moved, nor the maker of the scanner, nor what distinguishes patients with equal ids, because the scan's id includes that where it
matters."""

blosc2.set_nthreads(1)  # loader workers and preparing processes run in parallel already


class CachedScan(NamedTuple):
    """A preprocessed scan.

    Args:
        hu: Preprocessed HU, int16 ``(n, size, size)``.
        positions_mm: Position of each slice along the scan, float32 ``(n,)``.
        slice_ids: Keyed hash of each slice, inferior to superior.
        flags: Flags that a reader of the result should know.
        repairs: Repairs that were made when the scan was read.
    """

    hu: np.ndarray
    positions_mm: np.ndarray
    slice_ids: tuple[str, ...]
    flags: tuple[Note, ...]
    repairs: tuple[Note, ...]


class ScanCache:
    """A folder of preprocessed scans.

    Args:
        folder: The folder of the files; created if missing.
        preprocessing: How the scans in it were prepared; part of each file's name, so that scans of two sizes can share a folder.
    """

    def __init__(self, folder: Path, preprocessing: Preprocessing) -> None:
        self.folder = folder
        self.preprocessing = preprocessing
        make_folder(folder)

    def path(self, scan_id: str, headers: Sequence[SliceHeader]) -> Path:
        """Name the file of a scan by its id and a digest of its slices' index rows and of the preprocessing.

        Args:
            scan_id: Keyed hash of the series.
            headers: The headers of the scan's slices, in any order.
        """
        digest = hashlib.sha256(json.dumps([FORMAT, self.preprocessing.to_dict()], sort_keys=True).encode())
        for row in sorted(map(repr, map(_row_of, headers))):
            digest.update(row.encode(errors="surrogatepass"))
        return self.folder / f"{scan_id}-{digest.hexdigest()[:12]}.b2nd"


def write_cached(path: Path, scan: CachedScan) -> None:
    """Write a scan to a temporary file and rename it, so that no partial file is ever read."""
    write_bytes(path, encode_scan(scan), durable=False)


def encode_scan(scan: CachedScan) -> bytes:
    """Encode a scan as the content of its file."""
    array = blosc2.asarray(
        np.ascontiguousarray(scan.hu),
        chunks=(1, *scan.hu.shape[1:]),  # so that one slice can be read alone
        cparams=blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=1, filters=[blosc2.Filter.BITSHUFFLE]),
    )
    about = {
        "positions_mm": [float(position) for position in scan.positions_mm],
        "slice_ids": list(scan.slice_ids),
        "flags": [list(note) for note in scan.flags],
        "repairs": [list(note) for note in scan.repairs],
        "slices_crc32": [zlib.crc32(image.data) for image in np.ascontiguousarray(scan.hu)],
    }
    array.schunk.vlmeta["scan"] = {"format": FORMAT, "about": about, "about_crc32": _checksum(about)}
    return array.to_cframe()


def read_cached(path: Path, slices: slice | Sequence[int] | None = None) -> CachedScan:
    """Read a cached scan, or some of its slices.

    Args:
        path: The path of the cached file.
        slices: The slices to read, in this order; all by default. Only these are read and decompressed.

    Raises:
        CacheError: If the file is missing or damaged.
        IndexError: If a slice does not exist.
    """
    try:
        array = blosc2.open(str(path), mode="r")
        scan = array.schunk.vlmeta["scan"]
        about = scan["about"]
        # blosc2 does not notice a flipped bit
        if scan["format"] != FORMAT or scan["about_crc32"] != _checksum(about):
            raise ValueError("another format, or metadata with a wrong checksum")
        # Neither does it notice a wrong shape, which could lose slices or fill the memory.
        if array.shape != (len(about["slices_crc32"]), *array.chunks[1:]) or array.dtype != np.int16:
            raise ValueError("a shape or type other than the one written")
        chosen = list(range(len(array)) if slices is None else _chosen(slices, len(array)))
        hu = _read_slices(array, chosen)
        for image, place in zip(hu, chosen, strict=True):
            if zlib.crc32(image.data) != about["slices_crc32"][place]:
                raise ValueError("pixels with a wrong checksum")
        return CachedScan(
            hu=hu,
            positions_mm=np.array([about["positions_mm"][place] for place in chosen], dtype=np.float32),
            slice_ids=tuple(about["slice_ids"][place] for place in chosen),
            flags=tuple(Note(*note) for note in about["flags"]),
            repairs=tuple(Note(*note) for note in about["repairs"]),
        )
    except UNREADABLE as error:
        raise CacheError(
            "cache_unreadable",
            where=path.name,
            got=f"{type(error).__name__}: {error}",
            expected="a cached scan",
            todo="Run ich-prepare (or ich-train on the DICOM files) again as before; only this scan is prepared again.",
        ) from error


def file_checksum(path: Path) -> int | None:
    """Compute the CRC-32 of a file's bytes; None if it cannot be read."""
    checksum = 0
    try:
        with path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                checksum = zlib.crc32(chunk, checksum)
    except OSError:
        return None
    return checksum


def _chosen(slices: slice | Sequence[int], count: int) -> Sequence[int]:
    if isinstance(slices, slice):
        return range(count)[slices]
    return [range(count)[place] for place in slices]


def _read_slices(array: Any, chosen: list[int]) -> np.ndarray:
    """Read some slices of a cached array, int16 ``(n, h, w)``; consecutive slices are read at once."""
    first = chosen[0] if chosen else 0
    if chosen == list(range(first, first + len(chosen))):
        return array[first : first + len(chosen)]
    return np.stack([array[place] for place in chosen])


def _checksum(about: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(about, sort_keys=True).encode())
