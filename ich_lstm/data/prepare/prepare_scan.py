"""Prepares one scan in a worker process: reuses a valid cache file, or reads, caches and records the scan."""

import contextlib
import hashlib
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.data.prepared.folder import CACHE_FOLDER, key_rows
from ich_lstm.data.prepared.scan_cache import CachedScan, ScanCache, encode_scan, file_checksum
from ich_lstm.errors import IchLstmError, UnexpectedError
from ich_lstm.files.atomic_write import write_bytes, write_text
from ich_lstm.preprocessing.crop_and_resize import Preprocessing, preprocess_scan
from ich_lstm.privacy import PRIVATE, ProjectKey, make_folder
from ich_lstm.reading import FileRef, Ledger, Series, SliceHeader, load_scan, read_nifti
from ich_lstm.reading.ledger.ledger import LedgerRow
from ich_lstm.reading.series.load import name_series
from ich_lstm.reading.series.members import thickness_of
from ich_lstm.reading.series.nifti import NiftiSeries
from ich_lstm.scan import HU_MAX, HU_MIN, Scan
from ich_lstm.unexpected import concerns_all, one_of_many

RECORDS_FOLDER = "prepared"
"""The folder in ``private/`` with one record for each cached scan."""

HASH_DIGITS = 32
"""128 bits of SHA-256, which processors compute in hardware; different slices practically never share them."""

SAMPLING_STEP = 4
"""Step between the rows and columns that percentiles of HU are taken from: equal to 1 HU, for a sixteenth of the time."""


BRAIN_HU = (0, 80)
"""Between these HU lie brain, blood and fluid, without bone, fat and air; their spread tells noise and kernel."""


class ScanJob(NamedTuple):
    """A scan to prepare.

    Args:
        series: The series to read.
        series_in_study: The number of series in its study.
        root: The folder to which names of files are relative; an absolute path.
        out: The prepared folder; an absolute path.
        key: The project's key, from which ids are made.
        preprocessing: Size, crop and clipping of the scan.
        shared: Kinds of its names that images of other patients have too, in the format of `shared_kinds`.
    """

    series: Series
    series_in_study: int
    root: Path
    out: Path
    key: ProjectKey
    preprocessing: Preprocessing
    shared: str = ""


class ScanDone(NamedTuple):
    """The result of preparing one scan.

    Args:
        state: ``made``; ``whole`` if the scan was cached before; ``damaged`` if it was made again because its file was damaged;
            or ``refused``.
        ledger: Rows of the ledger on files that are not in the scan.
        key: Rows of the key table, inferior to superior; None if refused.
        facts: A row of the table of scans; None if refused.
    """

    state: Literal["made", "whole", "damaged", "refused"]
    ledger: list[LedgerRow]
    key: pd.DataFrame | None = None
    facts: dict[str, Any] | None = None


def prepare_scan(job: ScanJob) -> ScanDone:
    """Prepare a scan unless it is cached, undamaged, and its files have not changed."""
    series = job.series.decoded()
    headers = series.headers
    scan_id = job.key.hash_id(job.series.identifier)
    path = ScanCache(job.out / CACHE_FOLDER, job.preprocessing).path(scan_id, headers)
    known = _Record.read(_record_path(job, path))
    if known is not None and known.files == _states(headers):
        checksum = file_checksum(path)
        if checksum == known.crc32:
            return _done(job, headers, path, known, "whole")
        known = None if checksum is None else known
    else:
        known = None
    ledger = Ledger()
    try:
        with one_of_many(name_series(series)):
            scan = _load(series, ledger)
            record = _make(job, headers, path, scan, ledger.rows())
            return _done(job, headers, path, record, "made" if known is None else "damaged")
    except IchLstmError as error:
        if concerns_all(error):
            raise
        if isinstance(error, UnexpectedError):
            ledger.mark(headers, error.code, error.detail)
        return ScanDone("refused", ledger.rows())


class _Record(NamedTuple):
    """The record of a cached scan; private, and without paths, because the source may be moved.

    Args:
        files: Size and time of change of each file, in the order of the paths.
        crc32: Checksum of the cached file.
        sop_uids: SOP Instance UID of each slice, inferior to superior.
        hu_hashes: Hash of each slice's HU, inferior to superior, with the digits of the key table.
        excluded: Rows of the ledger on files that are not in the scan: the index of the file, its UID, action, code and detail.
        facts: Columns of the table of scans that depend on this scan alone.
    """

    files: list[list[int]]
    crc32: int
    sop_uids: list[str]
    hu_hashes: list[str]
    excluded: list[list[Any]]
    facts: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "_Record | None":
        try:
            return cls(**json.loads(path.read_text()))
        except (OSError, ValueError, TypeError):
            return None  # there is no record, or another version of the library wrote it

    def write(self, path: Path) -> None:
        make_folder(path.parent)
        write_text(path, json.dumps(self._asdict()), durable=False)  # a scan whose record is damaged is prepared again


def _record_path(job: ScanJob, path: Path) -> Path:
    return job.out / PRIVATE / RECORDS_FOLDER / f"{path.stem}.json"


def _load(series: Series, ledger: Ledger) -> Scan:
    """Load a scan with all its slices, because labels reference single slices."""
    if not isinstance(series, NiftiSeries):
        return load_scan(series, training=True, ledger=ledger, slab_mm=None)
    try:
        return read_nifti(series.headers[0].source.path, identifier=series.series_uid, slab_mm=None)
    except IchLstmError as error:
        ledger.mark(series.headers, error.code, error.detail)
        raise


def _make(job: ScanJob, headers: Sequence[SliceHeader], path: Path, scan: Scan, excluded: list[LedgerRow]) -> _Record:
    """Record a scan and cache it."""
    cached = CachedScan(
        hu=preprocess_scan(scan, job.preprocessing),
        positions_mm=scan.positions_mm.astype(np.float32),
        slice_ids=tuple(job.key.hash_id(uid) for uid in scan.sop_uids),
        flags=scan.flags,
        repairs=scan.repairs,
    )
    content = encode_scan(cached)
    places = {str(source): place for place, source in enumerate(_sources(headers))}
    record = _Record(
        files=_states(headers),
        crc32=zlib.crc32(content),
        sop_uids=list(scan.sop_uids),
        hu_hashes=[_hash_hu(image) for image in scan.hu],
        excluded=[[places[row.path], row.sop_uid, row.action, row.code, row.detail] for row in excluded],
        facts=_facts_of(scan, headers),
    )
    # In this order, because a record without a cached scan does no harm, but a cached scan without a record would.
    if all(row.action != "refused" for row in excluded):
        record.write(_record_path(job, path))
    else:  # refused files are tried again the next time, when a codec may be installed
        _record_path(job, path).unlink(missing_ok=True)
    write_bytes(path, content, durable=False)  # the record has its checksum
    return record


def _done(
    job: ScanJob, headers: Sequence[SliceHeader], path: Path, record: _Record, state: Literal["made", "whole", "damaged"]
) -> ScanDone:
    sources = _sources(headers)
    ledger = [LedgerRow(str(sources[place]), uid, job.series.series_uid, *row) for place, uid, *row in record.excluded]
    dropped = {row.path for row in ledger}
    by_uid = {header.sop_uid: header for header in headers if str(header.source) not in dropped}
    scan_id = job.key.hash_id(job.series.identifier)
    key = key_rows(job.key, scan_id, [by_uid[uid] for uid in record.sop_uids], job.root, shared=job.shared)
    ids: dict[str, Any] = {
        "scan_id": scan_id,
        "cache": path.name,
        "patient_id": key["patient_id"].iloc[0],
        "study_uid": key["study_uid"].iloc[0],
    }
    ids |= {"series_uid": job.series.series_uid, "series_in_study": job.series_in_study}
    return ScanDone(state, ledger, key.assign(hu_hash=record.hu_hashes, cache=path.name), ids | record.facts)


def _hash_hu(image: np.ndarray) -> str:
    """Hash the HU of a slice; empty for a constant slice, of which there are many."""
    if image.min() == image.max():
        return ""
    return hashlib.sha256(np.ascontiguousarray(image).data).hexdigest()[:HASH_DIGITS]


def _facts_of(scan: Scan, headers: Sequence[SliceHeader]) -> dict[str, Any]:
    count, rows, columns = scan.hu.shape
    thickness = thickness_of(headers)
    middle = scan.hu[count // 4 : count - count // 4, ::SAMPLING_STEP, ::SAMPLING_STEP]
    shares = np.cumsum(np.bincount((middle - HU_MIN).ravel(), minlength=HU_MAX - HU_MIN + 1)) / middle.size
    percentiles = np.searchsorted(shares, [0.01, 0.5, 0.99]) + HU_MIN
    brain = np.sort(middle[(middle > BRAIN_HU[0]) & (middle < BRAIN_HU[1])])
    quartiles = brain[[len(brain) // 4, len(brain) // 2, 3 * len(brain) // 4]].tolist() if len(brain) else [float("nan")] * 3
    return {
        "slices": count,
        "rows": rows,
        "columns": columns,
        "slice_mm": scan.spacing_mm[0],
        "thickness_mm": float("nan") if thickness is None else thickness,
        "pixel_mm": scan.spacing_mm[1],
        "tilt_degrees": scan.tilt_degrees,
        **dict(zip(("hu_p1", "hu_p50", "hu_p99"), percentiles.tolist(), strict=True)),
        "brain_hu": float(quartiles[1]),
        "brain_spread_hu": float(quartiles[2] - quartiles[0]),
        "kernel": _most_common(header.kernel for header in headers),
        "manufacturer": _most_common(header.manufacturer for header in headers),
        "flags": " ".join(note.code for note in scan.flags),
    }


def _most_common(words: Iterable[str]) -> str:
    """The most frequent word; among equally frequent ones, the first in the alphabet."""
    counts = Counter(words)
    return min(counts, key=lambda word: (-counts[word], word))


def _sources(headers: Sequence[SliceHeader]) -> list[FileRef]:
    return sorted({header.source for header in headers}, key=str)


def _states(headers: Sequence[SliceHeader]) -> list[list[int]]:
    """List the size and time of change of each file of a scan; for a member of an archive, those of the archive."""
    states = []
    for source in _sources(headers):
        with contextlib.suppress(OSError):  # a missing file differs from its record, and reading reports it
            state = source.path.stat()
            states.append([state.st_size, state.st_mtime_ns])
    return states
