"""A folder of stored features: float16 arrays that are memory-mapped, checked, and written by any number of processes."""

import csv
import hashlib
import io
import json
import os
import secrets
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO

import numpy as np

from ich_lstm.errors import CacheError, StorageError, TrainingError
from ich_lstm.files.atomic_write import write_text
from ich_lstm.files.full_disk import disk_full, in_bytes, is_disk_full
from ich_lstm.printable import printable_logger
from ich_lstm.privacy import make_folder, opener_for

logger = printable_logger(__name__)

FORMAT = 1
"""The format of the files. It is part of the digest in a store's name, so that stores of another format are not read."""

MANIFEST = "manifest.json"
SHARD, INDEX = ".features", ".csv"
"""Suffixes of a shard and of its index. Each process writes a shard of its own, and never adds to one that exists."""

FEATURE, POSITION = np.dtype(np.float16), np.dtype(np.float32)
LARGEST = float(np.finfo(FEATURE).max)


class StoredView(NamedTuple):
    """The name under which the features of a scan are stored.

    Args:
        scan: Name of the scan's file in the prepared folder, which has a digest of the scan's header and preprocessing.
        view: 0 for the scan as it is, v > 0 for its v-th augmented copy.
    """

    scan: str
    view: int = 0


class StoredScan(NamedTuple):
    """The stored features of a scan.

    Args:
        features: The encoder's features of each slice, float16 ``(n, d)``.
        positions_mm: Position of each slice along the scan, float32 ``(n,)``.
    """

    features: np.ndarray
    positions_mm: np.ndarray


class _Record(NamedTuple):
    """Where the features of a scan lie in a shard: its positions come first, then its features."""

    shard: str
    offset: int
    slices: int
    crc32: int


class FeatureStore:
    """The features that one encoder gives for scans that are prepared in one way.

    Every process appends to a shard of its own: first the values, then a row of the shard's index. What a killed process has
    left is therefore whole up to its last row, and is used when the store is opened again.

    Args:
        folder: The folder of the store.
        features: Number of features of a slice, d.
    """

    def __init__(self, folder: Path, features: int) -> None:
        self.folder, self.features = folder, features
        self._records: dict[StoredView, _Record] = {}
        self._shards: dict[str, np.memmap] = {}

    @classmethod
    def open(cls, parent: Path, features: int, source: Mapping[str, Any]) -> "FeatureStore":
        """Open the store of a source below a folder, or begin an empty one. All stored values are read once and checked.

        Scans whose values are damaged count as not stored, with a warning.

        Args:
            parent: Folder of stores. Each source has a folder of its own in it, whose name is a digest of the source.
            features: Number of features of a slice, d.
            source: What the features depend on, in plain values: the hash of the encoder's weights, the preprocessing and so on.

        Raises:
            CacheError: ``other_features``, if the folder holds features of another source.
            StorageError: ``disk_full``.
        """
        content = json.dumps({"format": FORMAT, "features": features, **source}, sort_keys=True, indent=2)
        folder = make_folder(parent / hashlib.sha256(content.encode()).hexdigest()[:16])
        manifest = folder / MANIFEST
        if not manifest.exists():
            write_text(manifest, content + "\n")
        if (found := _source_in(manifest)) != json.loads(content):
            raise CacheError(
                "other_features",
                where=str(folder),
                got="an unreadable manifest" if found is None else f"features of {_differing(found, json.loads(content))}",
                expected=f"features of {_differing(json.loads(content), found or {})}",
                todo="Remove this folder; its features are computed again.",
            )
        store = cls(folder, features)
        store.read_index()
        return store

    def read_index(self) -> None:
        """Read what all processes have stored so far, and check what is new."""
        self._shards = {}
        broken = set()
        for view, record in _indexed(self.folder):
            if view in self._records:
                continue
            if self._is_whole(record):
                self._records[view] = record
            else:
                broken.add(view)
        broken -= self._records.keys()  # another shard may hold them, too
        if broken:
            logger.warning(
                "%s: the stored features of %d of %d scans and copies are damaged. They are not used, but computed again.",
                self.folder,
                len(broken),
                len(broken) + len(self._records),
            )

    def __contains__(self, view: StoredView) -> bool:
        """Whether the features of a scan are stored."""
        return view in self._records

    def __getstate__(self) -> dict[str, Any]:
        """The state for a loader process, without the memory maps, whose values would be copied."""
        return {**self.__dict__, "_shards": {}}

    def bytes_of(self, slices: int) -> int:
        """Room that the features of some slices need, in bytes."""
        return slices * bytes_per_slice(self.features)

    def check_room(self, slices: int) -> None:
        """Check that the features of further slices fit on the disk.

        Args:
            slices: Number of slices that are not stored yet.

        Raises:
            StorageError: ``disk_full``.
        """
        needed = self.bytes_of(slices)
        status = os.statvfs(self.folder)
        free = status.f_bavail * status.f_frsize
        if free < needed:
            raise StorageError(
                "disk_full",
                where=str(self.folder),
                got=f"{in_bytes(free)} free",
                expected=f"{in_bytes(needed)} for the features of {slices:,} slices",
                todo="Make room, use fewer views, or train the stage with features=computed, which stores nothing.",
            )

    def read(self, view: StoredView, slices: Sequence[int] | None = None) -> StoredScan:
        """Read the features of a scan; only what is asked for is read from the disk.

        Args:
            view: The scan, and which of its copies.
            slices: The slices to read, in this order; None for all.

        Raises:
            CacheError: ``features_missing``, if they are not stored.
        """
        record = self._records.get(view)
        if record is None:
            raise CacheError(
                "features_missing",
                where=str(self.folder),
                got=f"no features of {view.scan}, copy {view.view}",
                expected="stored features of every scan of the fit",
                todo="Give all processes the same folder of stored features, on a file system that they share.",
            )
        content = self._content(record)
        positions = content[: record.slices * POSITION.itemsize].view(POSITION)  # (n,)
        features = content[record.slices * POSITION.itemsize :].view(FEATURE).reshape(record.slices, self.features)  # (n, d)
        wanted = slice(None) if slices is None else list(slices)
        return StoredScan(np.array(features[wanted]), np.array(positions[wanted]))  # copies, in memory

    @contextmanager
    def writer(self) -> Iterator["FeatureWriter"]:
        """Begin a shard of this process. What is written is known to this store after `read_index`.

        Raises:
            StorageError: ``disk_full``.
        """
        path = self.folder / f"{secrets.token_hex(8)}{SHARD}"
        try:
            opener = opener_for(path)
            with open(path, "wb", opener=opener) as shard, open(path.with_suffix(INDEX), "w", opener=opener, newline="") as index:
                yield FeatureWriter(shard, index, self.features)
        except OSError as error:
            if is_disk_full(error):
                whole = "The features that were stored before are whole."
                raise disk_full(error, self.folder, whole=whole) from error
            raise

    def _content(self, record: _Record) -> np.ndarray:
        """The bytes of a record, uint8, memory-mapped."""
        if record.shard not in self._shards:
            self._shards[record.shard] = np.memmap(self.folder / record.shard, dtype=np.uint8, mode="r")
        return self._shards[record.shard][record.offset : record.offset + self.bytes_of(record.slices)]

    def _is_whole(self, record: _Record) -> bool:
        try:
            content = self._content(record)
        except (OSError, ValueError):  # a missing or an empty file
            return False
        return len(content) == self.bytes_of(record.slices) and zlib.crc32(content.data) == record.crc32


def bytes_per_slice(features: int) -> int:
    """Room that the features and the position of a slice need, in bytes.

    Args:
        features: Number of features of a slice, d.

    Example:
        >>> f"{752_803 * bytes_per_slice(2048) / 1e9:.1f} GB"  # RSNA's slices, encoded by a ResNeXt
        '3.1 GB'
    """
    return features * FEATURE.itemsize + POSITION.itemsize


class FeatureWriter:
    """Writes the features of one process.

    Args:
        shard: File for the values.
        index: File for a row per scan.
        features: Number of features of a slice, d.
    """

    def __init__(self, shard: BinaryIO, index: TextIO, features: int) -> None:
        self._shard, self._index, self._features = shard, index, features
        self._offset = 0

    def add(self, view: StoredView, features: np.ndarray, positions_mm: np.ndarray, *, shown: str) -> None:
        """Store the features of a scan.

        Args:
            view: The scan, and which of its copies.
            features: The encoder's features of each slice, ``(n, d)``.
            positions_mm: Position of each slice along the scan, ``(n,)``.
            shown: Id of the scan for errors.

        Raises:
            TrainingError: ``features_not_stored``, if a value is not finite, or too large for float16.
        """
        if features.shape != (len(positions_mm), self._features):
            raise ValueError(f"features: got {features.shape}, expected {(len(positions_mm), self._features)}")
        largest = float(np.abs(features).max(initial=0))
        if not largest <= LARGEST:  # NaN, too
            raise TrainingError(
                "features_not_stored",
                where=f"scan {shown}",
                got=f"a feature of {largest:g}",
                expected=f"at most {LARGEST:g}, because stored features are float16",
                todo="Train the stage with features=computed; or use another encoder, if its features are not finite.",
            )
        content = positions_mm.astype(POSITION).tobytes() + features.astype(FEATURE).tobytes()
        self._shard.write(content)
        self._shard.flush()  # the index must never name what is not there
        line = io.StringIO()
        csv.writer(line).writerow([view.scan, view.view, self._offset, len(features), zlib.crc32(content)])
        self._index.write(line.getvalue())
        self._index.flush()
        self._offset += len(content)


def _indexed(folder: Path) -> Iterable[tuple[StoredView, _Record]]:
    """The rows of all indices. The last row that a killed process has written may be cut; it is left out."""
    for index in sorted(folder.glob(f"*{INDEX}")):
        with open(index, newline="") as file:
            rows = csv.reader([line for line in file if line.endswith("\n")])
            for row in rows:
                with suppress(ValueError):  # a damaged row; its scan is encoded again
                    scan, *numbers = row
                    view, offset, slices, crc32 = map(int, numbers)
                    yield StoredView(scan, view), _Record(index.with_suffix(SHARD).name, offset, slices, crc32)


def _source_in(manifest: Path) -> dict[str, Any] | None:
    """What a manifest says; None if it cannot be read."""
    try:
        found = json.loads(manifest.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _differing(source: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """The settings of a source that differ from those of another one."""
    return ", ".join(f"{name} {value}" for name, value in source.items() if other.get(name) != value) or "nothing"
