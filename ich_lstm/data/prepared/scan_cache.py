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
from ich_lstm.files.atomic_write import written_aside
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.reading import SliceHeader
from ich_lstm.reading.header.examinations import PATIENT_FIELDS
from ich_lstm.scan import Note

FORMAT = 3
"""Written into each file, and part of its name's digest: a change of the format leaves old files unread."""

CHUNK_BYTES = 1 << 20

UNREADABLE = (
    *(OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError),
    *(ArithmeticError, MemoryError, SyntaxError),  # what blosc2 makes of a damaged header
)

_row_of = attrgetter(*(field.name for field in fields(SliceHeader) if field.name not in ("source", *PATIENT_FIELDS)))
"""A slice's row of the index, without the place of its file, for a source may be moved, and without what tells two patients of
one id apart: that is in the scan's id where it counts."""

blosc2.set_nthreads(1)  # the loader's workers and the preparing processes are the parallel ones


class CachedScan(NamedTuple):
    """A preprocessed scan.

    Args:
        hu: int16 ``(n, size, size)``.
        positions_mm: float32 ``(n,)``.
        slice_ids: Keyed hash of each slice, inferior to superior.
        flags: What a reader should know of the scan.
        repairs: What was put right when it was read.
    """

    hu: np.ndarray
    positions_mm: np.ndarray
    slice_ids: tuple[str, ...]
    flags: tuple[Note, ...]
    repairs: tuple[Note, ...]


class ScanCache:
    """A folder of preprocessed scans.

    Args:
        folder: Where the files lie; made if missing.
        preprocessing: How the scans in it were prepared; part of each file's name, so two sizes can share a folder.
    """

    def __init__(self, folder: Path, preprocessing: Preprocessing) -> None:
        self.folder = folder
        self.preprocessing = preprocessing
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, scan_id: str, headers: Sequence[SliceHeader]) -> Path:
        """The file of a scan: its id, and a digest of its slices' rows of the index and of the preprocessing.

        Args:
            scan_id: Keyed hash of the series.
            headers: Its slices, in any order.
        """
        digest = hashlib.sha256(json.dumps([FORMAT, self.preprocessing.to_dict()], sort_keys=True).encode())
        for row in sorted(map(repr, map(_row_of, headers))):
            digest.update(row.encode(errors="surrogatepass"))
        return self.folder / f"{scan_id}-{digest.hexdigest()[:12]}.b2nd"


def write_cached(path: Path, scan: CachedScan) -> None:
    """Write a scan aside and rename it, so that no half of one is ever read."""
    with written_aside(path) as aside:
        aside.write_bytes(encode_scan(scan))


def encode_scan(scan: CachedScan) -> bytes:
    """The content of a scan's file."""
    array = blosc2.asarray(
        np.ascontiguousarray(scan.hu),
        chunks=(1, *scan.hu.shape[1:]),  # one slice can be read alone
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
    """Read a scan back, or some of its slices.

    Args:
        path: The file.
        slices: Which slices, and in which order; all by default. Only these are read and decompressed.

    Raises:
        CacheError: If the file is missing or damaged.
        IndexError: If there is no such slice.
    """
    try:
        array = blosc2.open(str(path), mode="r")
        scan = array.schunk.vlmeta["scan"]
        about = scan["about"]
        # the compression itself does not notice a flipped bit
        if scan["format"] != FORMAT or scan["about_crc32"] != _checksum(about):
            raise ValueError("another format, or not what was written")
        # nor one in the shape, which could lose slices, or fill the memory
        if array.shape != (len(about["slices_crc32"]), *array.chunks[1:]) or array.dtype != np.int16:
            raise ValueError("another shape or type than was written")
        chosen = list(range(len(array)) if slices is None else _chosen(slices, len(array)))
        hu = _read_slices(array, chosen)
        for image, place in zip(hu, chosen, strict=True):
            if zlib.crc32(image.data) != about["slices_crc32"][place]:
                raise ValueError("the pixels are not those that were written")
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
            todo="Run ich-prepare (or ich-train on the DICOM files) again as before: it makes this scan anew, and no other.",
        ) from error


def file_checksum(path: Path) -> int | None:
    """CRC-32 of a file's bytes, whatever they are; None if it cannot be read."""
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
    """Some slices of a cached array, int16 ``(n, h, w)``; those in a row are read at once."""
    first = chosen[0] if chosen else 0
    if chosen == list(range(first, first + len(chosen))):
        return array[first : first + len(chosen)]
    return np.stack([array[place] for place in chosen])


def _checksum(about: dict[str, Any]) -> int:
    return zlib.crc32(json.dumps(about, sort_keys=True).encode())
