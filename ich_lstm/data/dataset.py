"""Labelled scans as a torch dataset that yields packed batches."""

import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset

from ich_lstm.data.batch import SampleRequest, ScanBatch, ScanSample, pack_scans
from ich_lstm.data.cache import read_cached
from ich_lstm.data.labelled import NO_IMAGE, PATIENT, SCAN_KEYS, LabelTable, stop_at
from ich_lstm.data.prepared import PreparedScan, folders_of
from ich_lstm.errors import TableError
from ich_lstm.labels import LABELS
from ich_lstm.pixels.augment import Geometry, sample_seed

logger = logging.getLogger(__name__)


class LabelledScan(NamedTuple):
    """A cached scan and what is known of it.

    Args:
        scan_id: Keyed hash of the series.
        patient_id: Raw patient id; stays in memory.
        draw_id: Raw series UID, what random draws are made for; stays in memory.
        cache_path: Its cached HU.
        slice_ids: Keyed hash of each slice.
        slice_labels: float32 ``(n, k)``: 1 present, 0 absent, NaN unknown.
        scan_labels: float32 ``(k,)`` likewise.
    """

    scan_id: str
    patient_id: str
    draw_id: str
    cache_path: Path
    slice_ids: tuple[str, ...]
    slice_labels: np.ndarray
    scan_labels: np.ndarray


class ScanDataset(Dataset):
    """Batches of cached scans; a pure function of what is requested.

    Args:
        scans: The scans.
        geometry: Augmentation, or None.
        seed: Seed of its draws.
    """

    def __init__(self, scans: Sequence[LabelledScan], geometry: Geometry | None = None, *, seed: int = 0) -> None:
        self.scans = list(scans)
        self.geometry = geometry
        self.seed = seed

    @property
    def lengths(self) -> list[int]:
        """Slices of each scan."""
        return [len(scan.slice_labels) for scan in self.scans]

    def __getitem__(self, requests: Sequence[SampleRequest]) -> ScanBatch:
        """A batch: the sampler asks for scans, not for one scan."""
        return pack_scans([self._sample(request) for request in requests])

    def _sample(self, request: SampleRequest) -> ScanSample:
        scan = self.scans[request.scan]
        cached = read_cached(scan.cache_path)
        hu = cached.hu
        if self.geometry is not None:
            hu = self.geometry(hu, sample_seed(self.seed, request.epoch, scan.draw_id))
        return ScanSample(hu, cached.positions_mm, scan.slice_labels, scan.scan_labels, scan.scan_id)


def join_labels(
    scans: Sequence[PreparedScan], table: LabelTable, *, left_out: Collection[str] = (), allow_missing: bool = False
) -> list[LabelledScan]:
    """Give each prepared scan its labels. A scan's label is 1 if any of its slices is 1, 0 if all are known to be 0.

    Args:
        scans: Prepared scans.
        table: The labels.
        left_out: SOP and series UIDs of files that were left out with a reason; labels that name them are passed over.
        allow_missing: Whether labels may name images that are not there.

    Returns:
        The scans of which anything is known, in the order given.

    Raises:
        TableError: If labels name no image, a folder holds several scans, or patients are unknown or contradict the images.
    """
    place = {
        "sop_uid": {uid: (i, n) for i, scan in enumerate(scans) for n, uid in enumerate(scan.slices["sop_uid"])},
        "file": {file: (i, n) for i, scan in enumerate(scans) for n, file in enumerate(scan.slices["file"])},
    }
    places_of_scans = _places_of_scans(scans)
    slice_labels = [np.full((len(scan.slices), len(LABELS)), np.nan, np.float32) for scan in scans]
    scan_labels = np.full((len(scans), len(LABELS)), np.nan, np.float32)
    patients = [scan.patient_id for scan in scans]
    unmatched, ambiguous, contradicting, strangers, passed_over = [], [], [], [], 0
    columns = table.rows[["kind", "name", PATIENT, "line"]].itertuples(index=False)
    for (kind, name, patient, line), labels in zip(columns, table.rows[list(LABELS)].to_numpy(), strict=True):
        if kind in SCAN_KEYS:
            found = places_of_scans[kind].get(name, [])
            if len(found) > 1:
                ambiguous.append(line)
            scan = found[0] if found else None
            known = None if scan is None else scan_labels[scan]
        else:
            scan, n = place[kind].get(name, (None, 0))
            known = None if scan is None else slice_labels[scan][n]
        if scan is None or known is None:
            if name in left_out:
                passed_over += 1
            else:
                unmatched.append(line)
            continue
        # Two rows may speak of one thing by different names, say by UID and by file.
        if ((known == 1) & (labels == 0) | (known == 0) & (labels == 1)).any():
            contradicting.append(line)
        known[~np.isnan(labels)] = labels[~np.isnan(labels)]
        if patient:
            if patients[scan] not in ("", patient):
                strangers.append(line)
            patients[scan] = patient
    if contradicting:
        stop_at(
            table.source,
            contradicting,
            "contradicting_rows",
            "rows that contradict an earlier one on the same slice or scan",
            "labels that agree, by whatever name",
        )
    if strangers:
        stop_at(
            table.source,
            strangers,
            "contradicting_patients",
            "rows whose patient is not the one of the images, or of another row on the same scan",
            "one patient per scan, named as in the images where they name one",
        )
    if ambiguous:
        stop_at(table.source, ambiguous, "several_scans", "rows that fit several scans", "one scan: name it by series_uid")
    if unmatched and (not allow_missing or len(unmatched) == len(table)):
        stop_at(table.source, unmatched, *NO_IMAGE)
    if passed_over:
        logger.warning(
            "%s: %d labels name images that were left out, each with its reason in the ledger", table.source.name, passed_over
        )
    return _known_scans(scans, table, slice_labels, scan_labels, patients)


def _places_of_scans(scans: Sequence[PreparedScan]) -> dict[str, dict[str, list[int]]]:
    places: dict[str, dict[str, list[int]]] = {kind: {} for kind in SCAN_KEYS}
    for i, scan in enumerate(scans):
        places["series_uid"].setdefault(scan.series_uid, []).append(i)
        places["study_uid"].setdefault(scan.study_uid, []).append(i)
        for folder in folders_of(scan.slices["file"].iloc[0]):
            places["folder"].setdefault(folder, []).append(i)
    return places


def _known_scans(
    scans: Sequence[PreparedScan], table: LabelTable, slice_labels: list[np.ndarray], scan_labels: np.ndarray, patients: list[str]
) -> list[LabelledScan]:
    known, contradicting = [], 0
    for i, scan in enumerate(scans):
        slices = slice_labels[i]
        if ((slices == 1).any(axis=0) & (scan_labels[i] == 0) | (slices == 0).all(axis=0) & (scan_labels[i] == 1)).any():
            contradicting += 1
        from_slices = np.where((slices == 1).any(axis=0), 1, np.where((slices == 0).all(axis=0), 0, np.nan)).astype(np.float32)
        whole = np.where(np.isnan(scan_labels[i]), from_slices, scan_labels[i])
        # A scan without any is a scan whose every slice is without.
        slices = np.where(np.isnan(slices) & (whole == 0), np.float32(0), slices)
        if not np.isnan(whole).all() or not np.isnan(slices).all():
            ids = tuple(scan.slices["slice_id"])
            known.append(LabelledScan(scan.scan_id, patients[i], scan.series_uid, scan.cache_path, ids, slices, whole))
    if contradicting:
        raise TableError(
            "contradicting_rows",
            where=str(table.source),
            got=f"{contradicting} scans whose label differs from those of their slices",
            expected="1 for a scan if it is 1 for any of its slices, 0 if all of them are 0",
            todo="Correct the table, and run again.",
        )
    nameless = [scan for scan in known if not scan.patient_id]
    if nameless:
        raise TableError(
            "unknown_patients",
            where=str(table.source),
            got=f"{len(nameless)} of {len(known)} scans without a patient, in the images and in the table",
            expected="a patient for each, because scans of one patient must not be split",
            todo=f"Add a column {PATIENT} to the table.",
        )
    return known
