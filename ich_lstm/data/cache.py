"""Preprocessed scans on disk: HU, compressed, one file a scan; nothing in it identifies a patient."""

import hashlib
import json
import os
import secrets
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import blosc2
import numpy as np

from ich_lstm.errors import CacheError
from ich_lstm.pixels.preprocess import Preprocessing
from ich_lstm.scan import Note

FORMAT = 2
"""Written into each file, and part of its name's digest: a change of the format leaves old files unread."""

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

    def path(self, scan_id: str, sop_uids: Sequence[str]) -> Path:
        """The file of a scan: its id, and a digest of its slices and the preprocessing.

        Args:
            scan_id: Keyed hash of the series.
            sop_uids: Raw identifiers of its slices, in any order.
        """
        content = json.dumps([FORMAT, self.preprocessing.to_dict(), sorted(sop_uids)], sort_keys=True)
        return self.folder / f"{scan_id}-{hashlib.sha256(content.encode()).hexdigest()[:12]}.b2nd"


def write_cached(path: Path, scan: CachedScan) -> None:
    """Write a scan aside and rename it, so that no half of one is ever read."""
    aside = path.with_name(f".{path.stem}.{secrets.token_hex(4)}.b2nd")
    try:
        array = blosc2.asarray(
            scan.hu,
            chunks=(1, *scan.hu.shape[1:]),  # one slice can be read alone
            urlpath=str(aside),
            mode="w",
            cparams=blosc2.CParams(codec=blosc2.Codec.ZSTD, clevel=1, filters=[blosc2.Filter.BITSHUFFLE]),
        )
        array.schunk.vlmeta["scan"] = {
            "format": FORMAT,
            "crc32": zlib.crc32(np.ascontiguousarray(scan.hu).data),
            "positions_mm": [float(position) for position in scan.positions_mm],
            "slice_ids": list(scan.slice_ids),
            "flags": [list(note) for note in scan.flags],
            "repairs": [list(note) for note in scan.repairs],
        }
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def read_cached(path: Path) -> CachedScan:
    """Read a scan back.

    Raises:
        CacheError: If the file is missing or damaged.
    """
    try:
        array = blosc2.open(str(path), mode="r")
        about = array.schunk.vlmeta["scan"]
        hu = array[:]
        if zlib.crc32(hu.data) != about["crc32"]:  # the compression itself does not notice a flipped bit
            raise ValueError("the pixels are not those that were written")
        return CachedScan(
            hu=hu,
            positions_mm=np.array(about["positions_mm"], dtype=np.float32),
            slice_ids=tuple(about["slice_ids"]),
            flags=tuple(Note(*note) for note in about["flags"]),
            repairs=tuple(Note(*note) for note in about["repairs"]),
        )
    except (OSError, RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CacheError(
            "cache_unreadable",
            where=path.name,
            got=f"{type(error).__name__}: {error}",
            expected="a cached scan",
            todo="Remove the file; it is made again from the DICOM files.",
        ) from error
