"""Joins labels to the prepared scans that they describe."""

from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.data.joining.locate import LocatedLabels
from ich_lstm.data.labels.corrections import Correction, correct_scans, unsure_labels
from ich_lstm.data.prepared.images import ImageTable
from ich_lstm.data.tables.labelled import PATIENT, STUDY_DATE, LabelTable, labels_of_scans, name_lines, stop_at
from ich_lstm.data.tables.spreadsheet import find_lost_digits, show_lost_digits, stop_at_damage
from ich_lstm.labels import LABELS, complete_labels
from ich_lstm.printable import printable_logger

logger = printable_logger(__name__)

PatientIds = Literal["checked", "trusted", "study"]
Disagreement = Literal["stop", "unknown"]

SCAN_OF_SLICES = "1 for a scan if it is 1 for any of its slices, 0 if all of them are 0"
"""The expected value in errors about labels of scans that contradict labels of slices."""


class LabelledScan(NamedTuple):
    """A cached scan and its labels.

    Args:
        scan_id: Keyed hash of the series.
        patient_id: Raw patient id; stays in memory.
        series_uid: Raw series UID, to which random draws are tied; stays in memory.
        study_uid: Raw study UID; stays in memory.
        study_date: ``YYYY-MM-DD``, from the table, or else from the images; empty if unknown.
        cache_path: The path of the scan's cached HU.
        slice_ids: Keyed hash of each slice.
        slice_hashes: Hash of each slice's HU before any preprocessing; empty for a constant slice.
        slice_labels: float32 ``(n, k)``: 1 present, 0 absent, NaN unknown.
        scan_labels: float32 ``(k,)``: 1 present, 0 absent, NaN unknown.
    """

    scan_id: str
    patient_id: str
    series_uid: str
    study_uid: str
    study_date: str
    cache_path: Path
    slice_ids: tuple[str, ...]
    slice_hashes: tuple[str, ...]
    slice_labels: np.ndarray
    scan_labels: np.ndarray


class JoinedLabels(NamedTuple):
    """The labels, patient and date of every scan, in the order of the key.

    Args:
        images: The images that were joined.
        slice_labels: float32 ``(n, k)``: 1 present, 0 absent, NaN unknown.
        scan_labels: float32 ``(scans, k)``: 1 present, 0 absent, NaN unknown.
        patient_ids: Raw patient id of each scan, ``(scans,)``.
        study_dates: Date of each scan's study as ``YYYY-MM-DD``, ``(scans,)``; empty if unknown.
        is_labelled: Whether each scan has a known label, of the scan or of a slice, bool ``(scans,)``.
    """

    images: ImageTable
    slice_labels: np.ndarray
    scan_labels: np.ndarray
    patient_ids: np.ndarray
    study_dates: np.ndarray
    is_labelled: np.ndarray

    def scans(self, cache: Path) -> list[LabelledScan]:
        """The labelled scans, in the order of the key.

        Args:
            cache: The folder of the scans' cached HU.
        """
        images = self.images
        of_scans = [images.of_scans(column) for column in ("scan_id", "series_uid", "study_uid", "cache")]
        of_slices = [images.key[column].to_numpy(object) for column in ("slice_id", "hu_hash")]
        ends = [*images.first[1:].tolist(), len(images.key)]
        known = []
        for i in np.flatnonzero(self.is_labelled).tolist():
            rows = slice(int(images.first[i]), ends[i])
            scan_id, series_uid, study_uid, file = (column[i] for column in of_scans)
            slice_ids, slice_hashes = (tuple(column[rows]) for column in of_slices)
            known.append(
                LabelledScan(
                    scan_id=scan_id,
                    patient_id=self.patient_ids[i],
                    series_uid=series_uid,
                    study_uid=study_uid,
                    study_date=self.study_dates[i],
                    cache_path=cache / file,
                    slice_ids=slice_ids,
                    slice_hashes=slice_hashes,
                    slice_labels=self.slice_labels[rows],
                    scan_labels=self.scan_labels[i],
                )
            )
        return known


def join_labels(
    located: LocatedLabels, *, patient_ids: PatientIds = "checked", disagreement: Disagreement = "stop"
) -> JoinedLabels:
    """Give each scan its labels. A scan's label is 1 if any of its slices is 1, and 0 if all are known to be 0.

    Labels that reference no image have no effect; see `LocatedLabels.check_unmatched`. Scans without a label are counted in
    the audit, not here.

    Args:
        located: The labels, with the images that they reference.
        patient_ids: How a scan gets a patient if the table names none: with ``study`` each study is a patient of its own,
            whatever the images say; otherwise the patient is the one named by the images. (``checked`` and ``trusted`` differ
            only in the audit.)
        disagreement: What to do where the label of a scan contradicts those of its slices, for example because readers and boxes
            disagree: ``stop``, or make this label ``unknown`` for that scan and all its slices, and count it.

    Raises:
        TableError: If labels contradict one another, or patients are unknown or contradict the images.
    """
    table, images, at_scan = located.table, located.images, located.scan
    slice_labels, scan_labels = _labels(located, disagreement)
    is_labelled = ~np.isnan(scan_labels).all(axis=1) | np.logical_or.reduceat(~np.isnan(slice_labels).all(axis=1), images.first)
    patients = _patients(table, images, at_scan, is_labelled, patient_ids)
    return JoinedLabels(images, slice_labels, scan_labels, patients, _study_dates(table, images, at_scan), is_labelled)


def _labels(located: LocatedLabels, disagreement: Disagreement) -> tuple[np.ndarray, np.ndarray]:
    """The labels of slices, ``(n, k)``, and of scans, ``(scans, k)``, each completed by the other."""
    table, images = located.table, located.images
    of_slice, of_scan = located.slice >= 0, (located.slice < 0) & (located.scan >= 0)
    slice_labels = _combine(table, of_slice & ~table.corrects, located.slice, len(images.scan))
    scan_labels = _combine(table, of_scan & ~table.corrects, located.scan, len(images.first))
    if table.corrects.any():
        corrections = (
            _correction(table, of_slice & table.corrects, located.slice, len(slice_labels)),
            _correction(table, of_scan & table.corrects, located.scan, len(scan_labels)),
        )
        slice_labels, scan_labels = _correct(located, slice_labels, scan_labels, *corrections)
    from_slices = labels_of_scans(slice_labels, images.first)
    wrong = np.abs(from_slices - scan_labels) == 1  # (scans, k)
    if wrong.any():
        _report_disagreement(table, of_scan & wrong.any(axis=1)[located.scan], wrong, disagreement)
    scan_labels = complete_labels(np.where(np.isnan(scan_labels), from_slices, scan_labels))
    # This comes after completing, because an uncertain label must not be derived from the others again.
    scan_labels = np.where(wrong, np.float32(np.nan), scan_labels)
    slice_labels = np.where(wrong[images.scan], np.float32(np.nan), slice_labels)
    return _fill_absent(slice_labels, scan_labels, images.scan), scan_labels


def _fill_absent(slice_labels: np.ndarray, scan_labels: np.ndarray, scan: np.ndarray) -> np.ndarray:
    """Make unknown labels of slices 0 where the label of their scan is 0."""
    return np.where(np.isnan(slice_labels) & (scan_labels == 0)[scan], np.float32(0), slice_labels)


def _correct(
    located: LocatedLabels, slice_labels: np.ndarray, scan_labels: np.ndarray, of_slices: Correction, of_scans: Correction
) -> tuple[np.ndarray, np.ndarray]:
    """Apply the table's corrections, and count the labels that they change."""
    table, scan = located.table, located.images.scan
    wrong = (np.abs(labels_of_scans(of_slices.labels, located.images.first) - of_scans.labels) == 1).any(axis=1)
    if wrong.any():
        rows = table.corrects & (located.scan >= 0) & wrong[located.scan]
        got = "corrections of scans that differ from those of their slices"
        stop_at(table.source, table.rows["line"][rows], "contradicting_rows", got, SCAN_OF_SLICES)
    slice_labels = _fill_absent(slice_labels, scan_labels, scan)
    corrected = correct_scans(slice_labels, scan_labels, of_slices, of_scans, scan)
    for level, before, after in zip(("slices", "scans"), (slice_labels, scan_labels), corrected, strict=True):
        other = (before != after) & ~(np.isnan(before) & np.isnan(after))
        logger.warning(
            "%s: corrections change %d labels of %d %s", table.source.name, other.sum(), other.any(axis=1).sum(), level
        )
    return corrected


def _correction(table: LabelTable, chosen: np.ndarray, places: np.ndarray, count: int) -> Correction:
    """The correction of each slice or scan, combined from the rows that reference it."""
    labels = _combine(table, chosen, places, count)
    unsure = np.zeros(labels.shape, bool)
    np.logical_or.at(unsure, places[chosen], unsure_labels(table.rows[chosen]))
    both = (unsure & ~np.isnan(labels)).any(axis=1)
    if both.any():
        got = "corrections where one gives a label that another is unsure of"
        stop_at(table.source, table.rows["line"][chosen & both[places]], "contradicting_rows", got, "corrections that agree")
    return Correction(labels, unsure)


def _report_disagreement(table: LabelTable, rows: np.ndarray, wrong: np.ndarray, disagreement: Disagreement) -> None:
    if disagreement == "stop":
        todo = "Correct the tables; or, to make uncertain labels unknown, say [disagreement=unknown]."
        got = "labels of scans that differ from those of their slices"
        stop_at(table.source, table.rows["line"][rows], "contradicting_rows", got, SCAN_OF_SLICES, todo=todo)
    logger.warning(
        "%s: %d labels of %d scans differ from those of their slices and count as unknown: %s",
        table.source.name,
        wrong.sum(),
        wrong.any(axis=1).sum(),
        name_lines(table.rows["line"][rows]),
    )


def _combine(table: LabelTable, chosen: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """The labels of each slice or scan, float32 ``(count, k)``; several rows may reference the same one by different names.

    Args:
        table: The label table, whose rows are combined.
        chosen: The rows to combine, bool ``(rows,)``.
        places: The index of the slice or scan that each row references, ``(rows,)``.
        count: The number of slices or scans.
    """
    rows, places = table.rows[chosen], places[chosen]
    labels = rows[list(LABELS)].to_numpy(np.float32)
    known = np.full((count, len(LABELS)), np.nan, np.float32)
    if len(np.unique(places)) == len(places):
        known[places] = labels
        return known
    together = pd.DataFrame(labels).groupby(places)
    low, high = together.min(), together.max()  # unknown labels are ignored
    differing = low.index[(low < high).any(axis=1)]
    if len(differing):
        stop_at(
            table.source,
            rows["line"][np.isin(places, differing)],
            "contradicting_rows",
            "rows that name the same slice or scan in different ways and contradict each other",
            "labels that agree, whichever names are used",
        )
    known[high.index] = high.to_numpy(np.float32)
    return complete_labels(known)


def _patients(
    table: LabelTable, images: ImageTable, at_scan: np.ndarray, is_labelled: np.ndarray, patient_ids: PatientIds
) -> np.ndarray:
    """The raw patient id of each scan, ``(scans,)``."""
    by_study = patient_ids == "study"
    of_images = np.full(len(images.first), "", dtype=object) if by_study else images.of_scans(PATIENT)
    patients, differing = _one_per_scan(table.rows[PATIENT], at_scan, of_images)
    if differing.any():
        named = table.rows[PATIENT][differing]
        whose = set(patients[at_scan[differing]])
        damaged = find_lost_digits(named, whose)
        if damaged.any():
            example = show_lost_digits(named[damaged].iloc[0], whose)
            stop_at_damage(table.source, table.rows["line"][differing][damaged], PATIENT, example)
        stop_at(
            table.source,
            table.rows["line"][differing],
            "contradicting_patients",
            "rows whose patient is not the one of the images, or of another row on the same scan",
            "one patient per scan, named as in the images where they name one",
        )
    if by_study:
        patients = np.where(patients == "", images.of_scans("study_uid"), patients)
    nameless = (patients == "") & is_labelled
    if nameless.any():
        stop_at(
            table.source,
            table.rows["line"][(at_scan >= 0) & nameless[at_scan]],
            "unknown_patients",
            f"{nameless.sum()} of {is_labelled.sum()} scans have no patient, neither in the images nor in the table",
            "a patient for each scan, because scans of one patient must be in one subset",
            todo=f"Add a column {PATIENT} to the table; or, if each study has a patient of its own, say [patient_ids=study].",
        )
    return patients


def _study_dates(table: LabelTable, images: ImageTable, at_scan: np.ndarray) -> np.ndarray:
    """The date of each scan's study, ``(scans,)``, preferably from the table: dates in images are often shifted for privacy."""
    dates, differing = _one_per_scan(table.rows[STUDY_DATE], at_scan, np.full(len(images.first), "", dtype=object))
    if differing.any():
        stop_at(
            table.source,
            table.rows["line"][differing],
            "contradicting_dates",
            "rows whose study date is not the one of another row on the same scan",
            "one date per scan",
        )
    of_images = images.of_scans(STUDY_DATE)
    other = ((dates != "") & (of_images != "") & (dates != of_images)).sum()
    if other:
        logger.warning("%s: %d scans have another date in their images; the table's counts", table.source.name, other)
    return np.where(dates == "", of_images, dates)


def _one_per_scan(texts: pd.Series, at_scan: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The text of each scan, which is the known one or else that of its first row; and which rows give another text.

    Args:
        texts: A column of the label table; empty where a row gives nothing.
        at_scan: The index of the scan that each row references, ``(rows,)``; negative where there is none.
        known: The text that is known for each scan beforehand, ``(scans,)``; empty where there is none.
    """
    gives = (texts != "").to_numpy() & (at_scan >= 0)
    first = pd.Series(texts.to_numpy(object)[gives]).groupby(at_scan[gives]).first()
    known = known.copy()
    fill = first.index[known[first.index] == ""]
    known[fill] = first[fill]
    differing = np.zeros(len(texts), bool)
    differing[gives] = texts.to_numpy(object)[gives] != known[at_scan[gives]]
    return known, differing
