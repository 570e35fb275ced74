"""Joins labels to the prepared scans that they describe."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.data.joining.locate import (
    NOWHERE,
    SEVERAL,
    SEVERAL_SCANS,
    KeyRows,
    LabelPlaces,
    find_accounted,
    locate_labels,
    stop_at_lost_digits,
)
from ich_lstm.data.labels.corrections import Correction, correct_scans, find_contradictions, unsure_labels
from ich_lstm.data.prepared.folder import PreparedFolder
from ich_lstm.data.tables.labelled import (
    NO_IMAGE,
    PATIENT,
    STUDY_DATE,
    LabelTable,
    Unmatched,
    name_lines,
    stop_at,
)
from ich_lstm.data.tables.spreadsheet import find_lost_digits, show_lost_digits, stop_at_damage
from ich_lstm.labels import LABELS, complete_labels

logger = logging.getLogger(__name__)

PatientIds = Literal["checked", "trusted", "study"]
Disagreement = Literal["stop", "unknown"]


class LabelledScan(NamedTuple):
    """A cached scan and what is known of it.

    Args:
        scan_id: Keyed hash of the series.
        patient_id: Raw patient id; stays in memory.
        series_uid: Raw series UID, what random draws are made for; stays in memory.
        study_uid: Raw study UID; stays in memory.
        study_date: ``YYYY-MM-DD``, of the table or else of the images; empty if unknown.
        cache_path: Its cached HU.
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


def join_labels(
    folder: PreparedFolder,
    table: LabelTable,
    *,
    unmatched: Unmatched = "stop",
    patient_ids: PatientIds = "checked",
    disagreement: Disagreement = "stop",
) -> list[LabelledScan]:
    """Give each prepared scan its labels. A scan's label is 1 if any of its slices is 1, 0 if all are known to be 0.

    Labels that name what the folder's ledger accounts for are passed over, and counted (`find_accounted`).

    Args:
        folder: The prepared scans.
        table: The labels.
        unmatched: Whether labels may name images that are not there: ``labels`` or ``both``. (Images without a label are
            counted in the audit, not here.)
        patient_ids: Whose scan it is where the table does not say: the images' patient, or with ``study`` a patient per
            study, whatever the images say. (``checked`` and ``trusted`` differ in the audit, not here.)
        disagreement: Where what is said of a scan is not what is said of its slices, say by readers and by boxes: ``stop``, or
            let this label be ``unknown`` for that scan and all its slices, and count it.

    Returns:
        The scans of which anything is known, in the order of the folder.

    Raises:
        TableError: If labels name no image or several scans, or contradict one another, or patients are unknown or
            contradict the images.
    """
    slices = KeyRows(folder.key)
    places = locate_labels(table, folder.key)
    at_scan = places.scan
    _check_places(table, places, folder, unmatched)
    slice_labels, scan_labels = _labels(table, slices, places, disagreement)
    is_known = ~np.isnan(scan_labels).all(axis=1) | np.logical_or.reduceat(~np.isnan(slice_labels).all(axis=1), slices.first)
    patients = _patients(table, slices, at_scan, is_known, patient_ids)
    dates = _study_dates(table, slices, at_scan)
    columns = {name: slices.column(name) for name in ("scan_id", "series_uid", "study_uid", "cache")}
    slice_ids, hashes = slices.rows["slice_id"].tolist(), slices.rows["hu_hash"].tolist()
    ends = [*slices.first[1:].tolist(), len(slices.scan)]
    known = []
    for i in np.flatnonzero(is_known).tolist():
        part = slice(int(slices.first[i]), ends[i])
        known.append(
            LabelledScan(
                scan_id=columns["scan_id"][i],
                patient_id=patients[i],
                series_uid=columns["series_uid"][i],
                study_uid=columns["study_uid"][i],
                study_date=dates[i],
                cache_path=folder.folder / "cache" / columns["cache"][i],
                slice_ids=tuple(slice_ids[part]),
                slice_hashes=tuple(hashes[part]),
                slice_labels=slice_labels[part],
                scan_labels=scan_labels[i],
            )
        )
    return known


def _check_places(table: LabelTable, places: LabelPlaces, folder: PreparedFolder, unmatched: Unmatched) -> None:
    lines = table.rows["line"].to_numpy()
    several = places.scan == SEVERAL
    if several.any():
        stop_at(table.source, lines[several], *SEVERAL_SCANS)
    left_out = find_accounted(table, places, folder)
    nowhere = (places.scan == NOWHERE) & ~left_out
    stop_at_lost_digits(table, nowhere, places, folder.key)
    if nowhere.any() and (unmatched not in ("labels", "both") or nowhere.all()):
        todo = "Check the table and the folder."
        if not nowhere.all():
            todo = "Complete the images; or pass over these labels on purpose: [unmatched=labels]."
        stop_at(table.source, lines[nowhere], *NO_IMAGE, todo=todo)
    if nowhere.any():
        logger.warning("%s: %d labels name no readable image", table.source.name, nowhere.sum())
    if left_out.any():
        logger.warning(
            "%s: %d labels name images that are not used, each with its reason in the ledger", table.source.name, left_out.sum()
        )


def _labels(table: LabelTable, slices: KeyRows, places: LabelPlaces, disagreement: Disagreement) -> tuple[np.ndarray, np.ndarray]:
    """What is known of each slice, ``(n, k)``, and of each scan, ``(scans, k)``, each told by the other."""
    of_slice, of_scan = places.slice >= 0, (places.slice < 0) & (places.scan >= 0)
    slice_labels = _labels_by_place(table, of_slice & ~table.corrects, places.slice, len(slices.scan))
    scan_labels = _labels_by_place(table, of_scan & ~table.corrects, places.scan, len(slices.first))
    if table.corrects.any():
        slice_labels, scan_labels = _correct(table, slices, places, slice_labels, scan_labels)
    positive = np.logical_or.reduceat(slice_labels == 1, slices.first)  # (scans, k)
    negative = np.logical_and.reduceat(slice_labels == 0, slices.first)
    wrong = positive & (scan_labels == 0) | negative & (scan_labels == 1)  # (scans, k)
    if wrong.any():
        _say_disagreement(table, of_scan & wrong.any(axis=1)[places.scan], wrong, disagreement)
    from_slices = np.where(positive, 1, np.where(negative, 0, np.nan))
    scan_labels = complete_labels(np.where(np.isnan(scan_labels), from_slices, scan_labels))
    # After completing: what is doubtful must not follow from the other labels.
    scan_labels = np.where(wrong, np.float32(np.nan), scan_labels)
    slice_labels = np.where(wrong[slices.scan], np.float32(np.nan), slice_labels)
    return _fill_absent(slice_labels, scan_labels, slices.scan), scan_labels


def _fill_absent(slice_labels: np.ndarray, scan_labels: np.ndarray, scan: np.ndarray) -> np.ndarray:
    """A scan without any is a scan whose every slice is without."""
    return np.where(np.isnan(slice_labels) & (scan_labels == 0)[scan], np.float32(0), slice_labels)


def _correct(
    table: LabelTable, slices: KeyRows, places: LabelPlaces, slice_labels: np.ndarray, scan_labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Let the table's corrections win, and count what they change."""
    of_slice = table.corrects & (places.slice >= 0)
    of_scan = table.corrects & (places.slice < 0) & (places.scan >= 0)
    corrections = (
        _correction(table, of_slice, places.slice, len(slice_labels)),
        _correction(table, of_scan, places.scan, len(scan_labels)),
    )
    wrong = find_contradictions(*corrections, slices.scan)
    if wrong.any():
        stop_at(
            table.source,
            table.rows["line"][table.corrects & (places.scan >= 0) & wrong[places.scan]],
            "contradicting_rows",
            "corrections of scans that differ from those of their slices",
            "1 for a scan if it is 1 for any of its slices, 0 if all of them are 0",
        )
    slice_labels = _fill_absent(slice_labels, scan_labels, slices.scan)
    corrected = correct_scans(slice_labels, scan_labels, *corrections, slices.scan)
    for level, before, after in zip(("slices", "scans"), (slice_labels, scan_labels), corrected, strict=True):
        other = (before != after) & ~(np.isnan(before) & np.isnan(after))
        logger.warning(
            "%s: corrections change %d labels of %d %s", table.source.name, other.sum(), other.any(axis=1).sum(), level
        )
    return corrected


def _correction(table: LabelTable, chosen: np.ndarray, places: np.ndarray, count: int) -> Correction:
    """What rows correct together of each place."""
    labels = _labels_by_place(table, chosen, places, count)
    unsure = np.zeros(labels.shape, bool)
    of_rows = unsure_labels(table.rows[chosen])
    np.logical_or.at(unsure, places[chosen], of_rows)
    both = (unsure & ~np.isnan(labels)).any(axis=1)
    if both.any():
        stop_at(
            table.source,
            table.rows["line"][chosen & both[places]],
            "contradicting_rows",
            "corrections of which one gives what another is unsure of",
            "corrections that agree",
        )
    return Correction(labels, unsure)


def _say_disagreement(table: LabelTable, rows: np.ndarray, wrong: np.ndarray, disagreement: Disagreement) -> None:
    if disagreement == "stop":
        stop_at(
            table.source,
            table.rows["line"][rows],
            "contradicting_rows",
            "labels of scans that differ from those of their slices",
            "1 for a scan if it is 1 for any of its slices, 0 if all of them are 0",
            todo="Correct the tables; or, to leave what is doubtful unknown, say [disagreement=unknown].",
        )
    logger.warning(
        "%s: %d labels of %d scans differ from those of their slices, and count as unknown: %s",
        table.source.name,
        wrong.sum(),
        wrong.any(axis=1).sum(),
        name_lines(table.rows["line"][rows]),
    )


def _labels_by_place(table: LabelTable, chosen: np.ndarray, places: np.ndarray, count: int) -> np.ndarray:
    """What rows say together of each place, float32 ``(count, k)``; two rows may speak of one by different names."""
    rows, places = table.rows[chosen], places[chosen]
    labels = rows[list(LABELS)].to_numpy(np.float32)
    known = np.full((count, len(LABELS)), np.nan, np.float32)
    if len(np.unique(places)) == len(places):
        known[places] = labels
        return known
    together = pd.DataFrame(labels).groupby(places)
    low, high = together.min(), together.max()  # NaN is passed over
    differing = low.index[(low < high).any(axis=1)]
    if len(differing):
        stop_at(
            table.source,
            rows["line"][np.isin(places, differing)],
            "contradicting_rows",
            "rows that name the same slice or scan in different ways, and contradict each other",
            "labels that agree, by whatever name",
        )
    known[high.index] = high.to_numpy(np.float32)
    return complete_labels(known)


def _patients(
    table: LabelTable, slices: KeyRows, at_scan: np.ndarray, is_known: np.ndarray, patient_ids: PatientIds
) -> Sequence[str]:
    """The raw patient of each scan."""
    by_study = patient_ids == "study"
    of_images = np.array([""] * len(slices.first) if by_study else slices.column(PATIENT), dtype=object)
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
        studies = np.array(slices.column("study_uid"), dtype=object)
        patients = np.where(patients == "", studies, patients)
    nameless = (patients == "") & is_known
    if nameless.any():
        stop_at(
            table.source,
            table.rows["line"][(at_scan >= 0) & nameless[at_scan]],
            "unknown_patients",
            f"{nameless.sum()} of {is_known.sum()} scans without a patient, in the images and in the table",
            "a patient for each, because scans of one patient must not be split",
            todo=f"Add a column {PATIENT} to the table; or, if every study is of another patient, say [patient_ids=study].",
        )
    return patients.tolist()


def _study_dates(table: LabelTable, slices: KeyRows, at_scan: np.ndarray) -> Sequence[str]:
    """The date of each scan's study: the table's, for those in images are often shifted to hide the patient."""
    dates, differing = _one_per_scan(table.rows[STUDY_DATE], at_scan, np.full(len(slices.first), "", dtype=object))
    if differing.any():
        stop_at(
            table.source,
            table.rows["line"][differing],
            "contradicting_dates",
            "rows whose study date is not the one of another row on the same scan",
            "one date per scan",
        )
    of_images = np.array(slices.column(STUDY_DATE), dtype=object)
    other = ((dates != "") & (of_images != "") & (dates != of_images)).sum()
    if other:
        logger.warning("%s: %d scans have another date in their images; the table's counts", table.source.name, other)
    return np.where(dates == "", of_images, dates).tolist()


def _one_per_scan(texts: pd.Series, at_scan: np.ndarray, known: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What is known of each scan, or else what its first row says; and which rows say something else."""
    says = (texts != "").to_numpy() & (at_scan >= 0)
    first = pd.Series(texts.to_numpy(object)[says]).groupby(at_scan[says]).first()
    known = known.copy()
    fill = first.index[known[first.index] == ""]
    known[fill] = first[fill]
    differing = np.zeros(len(texts), bool)
    differing[says] = texts.to_numpy(object)[says] != known[at_scan[says]]
    return known, differing
