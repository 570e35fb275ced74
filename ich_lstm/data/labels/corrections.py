"""Corrections of labels by reviewers; they override the label tables for the same slice or scan."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.data.labels.table import read_label_table
from ich_lstm.data.tables.labelled import CORRECTS, UNSURE, LabelTable, stop_at
from ich_lstm.data.tables.spreadsheet import read_sheet
from ich_lstm.labels import ANY, LABELS, UNIONS, unions_of


def read_corrections(paths: Sequence[Path | str], *, repair_any: bool = False) -> LabelTable:
    """Read corrections of labels: tables in the library's own format, in which an empty cell means "not corrected".

    A column ``unsure`` may list labels, separated by blanks, that cannot be told from the images: they become unknown. A column
    ``comment`` is not read; it is for people.

    Args:
        paths: CSV files. Several may correct the same slice if they do not contradict one another.
        repair_any: Where a type is 1 and any is 0, make any 1, and count it; otherwise stop.

    Returns:
        A table for :func:`apply_corrections`, whose lines are named ``file:number``.

    Raises:
        TableError: If :func:`read_label_table` refuses the file, a row is unsure of something that is not a label, or a row is
            unsure of a label that it also gives.
    """
    tables = [_read(path, repair_any) for path in dict.fromkeys(map(Path, paths))]
    return LabelTable(
        pd.concat([table.rows for table in tables], ignore_index=True),
        tables[0].source,
        tuple(f"{table.source.name}: {flag}" for table in tables for flag in table.flags),
    )


def apply_corrections(table: LabelTable, corrections: LabelTable) -> LabelTable:
    """Add corrections to a label table; they override its labels, by whichever names the two reference a slice or a scan.

    Names can be compared only once the images are known, so the labels change in `join_labels`, which logs how many.

    Args:
        table: The labels to correct.
        corrections: Table made by :func:`read_corrections`.
    """
    rows = table.rows.assign(line=table.rows["line"].astype(str))
    if CORRECTS not in rows:
        rows[CORRECTS], rows[UNSURE] = False, ""
    return replace(table, rows=pd.concat([rows, corrections.rows], ignore_index=True), flags=(*table.flags, *corrections.flags))


class Correction(NamedTuple):
    """The corrections of slices, or of scans.

    Args:
        labels: float32 ``(m, k)``: 1 present, 0 absent, NaN not corrected.
        unsure: bool ``(m, k)``: labels that count as unknown.
    """

    labels: np.ndarray
    unsure: np.ndarray

    @property
    def said(self) -> np.ndarray:
        """Whether the correction gives each label or makes it unknown, bool ``(m, k)``."""
        return ~np.isnan(self.labels) | self.unsure


def correct_labels(labels: np.ndarray, correction: Correction) -> np.ndarray:
    """Override labels with a correction, and derive again what followed from the labels that it changes.

    "Any" becomes 1 with a type that is corrected to 1. Where the last type is removed, "any" becomes 0, or unknown if another
    type is unknown. Where "any" is corrected to 1 and all types are 0, the types that are not corrected become unknown, because
    one of them must be present. Where "any" is unsure, the types that were 1 become unknown too.

    Args:
        labels: ``(m, k)``: 1 present, 0 absent, NaN unknown; consistent.
        correction: The corrections of the ``m`` slices or scans; consistent.

    Example:
        >>> absent = Correction(np.array([[np.nan] * 4 + [0, np.nan]]), np.zeros((1, 6), bool))
        >>> correct_labels(np.array([[0, 0, 0, 0, 1, 1.0]]), absent)
        array([[0., 0., 0., 0., 0., 0.]])
    """
    said = correction.said
    new = np.where(correction.unsure, np.nan, np.where(said, correction.labels, labels))
    for union, members in UNIONS.items():
        of_types = list(members)
        types, before, old_union = new[:, of_types], labels[:, of_types], labels[:, union]
        lost = ((before == 1) & (types != 1)).any(axis=1)
        is_unsure = correction.unsure[:, union]
        # A union without a present type stays as it was, unless it may have followed from a type that was present before.
        one_may_be = (is_unsure | (correction.labels[:, union] == 1) & ((old_union != 1) | lost)) & (types == 0).all(axis=1)
        doubtful = one_may_be[:, None] | is_unsure[:, None] & (types == 1)
        new[:, of_types] = np.where(doubtful & ~said[:, of_types], np.nan, types)
        follows = np.where(~lost & (old_union == 1), old_union, unions_of(new)[:, union])
        new[:, union] = np.where(said[:, union], new[:, union], follows)
    return np.where(np.any(said, axis=1, keepdims=True), new, labels).astype(labels.dtype)


def correct_scans(
    slice_labels: np.ndarray, scan_labels: np.ndarray, of_slices: Correction, of_scans: Correction, scan: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Correct slices and scans, each also by the corrections of the other.

    All slices of a scan that is corrected to 0 become 0. The slices of a scan that is corrected to 1 become unknown if all of
    them were 0, and so do those of a scan that is unsure. A label of a whole scan that contradicts corrected slices is discarded.

    Args:
        slice_labels: Labels of slices from the tables, float32 ``(n, k)``; known wherever the label of their scan is 0.
        scan_labels: Labels of scans from the tables, float32 ``(scans, k)``.
        of_slices: Corrections of slices, ``(n, k)``.
        of_scans: Corrections of scans, ``(scans, k)``; they must not contradict those of slices.
        scan: The index of each slice's scan, ``(n,)``, in ascending order.

    Returns:
        The corrected labels of slices and of scans.
    """
    first = np.flatnonzero(np.diff(scan, prepend=-1))
    slice_labels = correct_labels(slice_labels, of_slices)
    free = ~of_slices.said
    none_positive = np.logical_and.reduceat(slice_labels == 0, first)  # (scans, k)
    unknown = of_scans.unsure | (of_scans.labels == 1) & none_positive
    by_scan = Correction(np.where(free & (of_scans.labels == 0)[scan], np.float32(0), np.float32(np.nan)), free & unknown[scan])
    slice_labels = correct_labels(slice_labels, by_scan)

    scan_labels = correct_labels(scan_labels, of_scans)
    touched = np.any(of_slices.said, axis=1, keepdims=True)
    not_absent = np.logical_or.reduceat(touched & (slice_labels != 0), first)
    all_absent = np.logical_and.reduceat(slice_labels == 0, first) & np.logical_or.reduceat(touched, first)
    gives_way = (scan_labels == 0) & not_absent | (scan_labels == 1) & all_absent
    return slice_labels, np.where(gives_way & ~of_scans.said, np.float32(np.nan), scan_labels)


def unsure_labels(rows: pd.DataFrame) -> np.ndarray:
    """Which labels rows of corrections are unsure of, bool ``(rows, k)``."""
    words = rows[UNSURE].str.split()
    return np.array([[label in named for label in LABELS] for named in words], dtype=bool).reshape(-1, len(LABELS))


def _read(path: Path, repair_any: bool) -> LabelTable:
    table = read_label_table(path, repair_any=repair_any)
    sheet = read_sheet(path).named((UNSURE,))
    cells, lines = sheet.cells, sheet.lines
    texts = cells.get(UNSURE, pd.Series("", index=cells.index)).str.replace(r"[,;\s]+", " ", regex=True).str.strip()
    _check_words(path, texts, lines)
    named = pd.Series(texts.to_numpy(object), index=lines)
    dropped = named[~named.index.isin(table.rows["line"]) & (named != "")]
    if len(dropped):
        got = "rows that repeat another row and are unsure of a label"
        stop_at(path, dropped.index, "contradicting_rows", got, "one row for each slice or scan")
    rows = table.rows.copy()
    rows[CORRECTS], rows[UNSURE] = True, named.reindex(rows["line"], fill_value="").to_numpy()
    given = (unsure_labels(rows) & rows[list(LABELS)].notna().to_numpy()).any(axis=1)
    if given.any():
        stop_at(
            path,
            rows["line"][given],
            "contradicting_rows",
            "rows that are unsure of a label that they give, or that follows from those they give",
            f"each label either given or unsure; {ANY} = 1 follows from a type that is 1, and all types 0 from {ANY} = 0",
        )
    told = rows[list(LABELS)].notna().to_numpy().any(axis=1) | (rows[UNSURE] != "").to_numpy()
    empty = f", {(~told).sum()} of which correct nothing" if not told.all() else ""
    flag = f"{len(rows)} rows of corrections, which override the labels{empty}"
    rows = rows.assign(line=f"{path.name}:" + rows["line"].astype(str))
    return LabelTable(rows, path, (flag, *table.flags))


def _check_words(path: Path, texts: pd.Series, lines: np.ndarray) -> None:
    wrong = np.array([not set(text.split()) <= set(LABELS) for text in texts])
    if wrong.any():
        got = f"unsure of {texts[wrong].iloc[0]!r}"
        stop_at(path, lines[wrong], "bad_label", got, f"{', '.join(LABELS)}, separated by blanks, or an empty cell")
