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
    """Read corrections of labels: tables of one's own, of which an empty cell means "not corrected".

    A column ``unsure`` may name labels (with blanks between) that cannot be told from the images: they become unknown. A column
    ``comment`` is for people.

    Args:
        paths: CSV files. Two of them may speak of one slice, if they do not contradict each other.
        repair_any: Where a type is 1 and any is 0, make any 1, and count it; otherwise stop.

    Returns:
        A table for :func:`apply_corrections`, whose lines are named ``file:number``.

    Raises:
        TableError: If :func:`read_label_table` refuses the file, or a row is unsure of what is no label or of what it also says.
    """
    tables = [_read(path, repair_any) for path in dict.fromkeys(map(Path, paths))]
    return LabelTable(
        pd.concat([table.rows for table in tables], ignore_index=True),
        tables[0].source,
        tuple(f"{table.source.name}: {flag}" for table in tables for flag in table.flags),
    )


def apply_corrections(table: LabelTable, corrections: LabelTable) -> LabelTable:
    """Put corrections beside the labels that they win over, by whatever names the two call a slice or a scan.

    Names can be compared only where the images are known: the labels change in `join_labels`, which says how many.

    Args:
        table: The labels.
        corrections: Table made by :func:`read_corrections`.
    """
    rows = table.rows.assign(line=table.rows["line"].astype(str))
    if CORRECTS not in rows:
        rows[CORRECTS], rows[UNSURE] = False, ""
    return replace(table, rows=pd.concat([rows, corrections.rows], ignore_index=True), flags=(*table.flags, *corrections.flags))


class Correction(NamedTuple):
    """What is corrected of slices, or of scans.

    Args:
        labels: float32 ``(m, k)``: 1 present, 0 absent, NaN not corrected.
        unsure: bool ``(m, k)``: what is to count as unknown.
    """

    labels: np.ndarray
    unsure: np.ndarray

    @property
    def said(self) -> np.ndarray:
        """Of which labels anything is said, bool ``(m, k)``."""
        return ~np.isnan(self.labels) | self.unsure


def correct_labels(labels: np.ndarray, correction: Correction) -> np.ndarray:
    """Let a correction win, and what followed from the labels that it changes follow anew.

    "Any" becomes 1 with a type that is made 1; where the last type is taken away, it becomes 0, or unknown if another type is.
    Where any is made 1 and all types are 0, those of which nothing is said become unknown: one of them must be there. Where
    any is unsure, so do the types that were 1.

    Args:
        labels: ``(m, k)``: 1 present, 0 absent, NaN unknown; consistent.
        correction: What a reviewer says of the ``m`` slices or scans; consistent.

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
        # A union without a type stays as it was, as long as no type was there that it may have followed from.
        one_may_be = (is_unsure | (correction.labels[:, union] == 1) & ((old_union != 1) | lost)) & (types == 0).all(axis=1)
        doubtful = one_may_be[:, None] | is_unsure[:, None] & (types == 1)
        new[:, of_types] = np.where(doubtful & ~said[:, of_types], np.nan, types)
        follows = np.where(~lost & (old_union == 1), old_union, unions_of(new)[:, union])
        new[:, union] = np.where(said[:, union], new[:, union], follows)
    return np.where(np.any(said, axis=1, keepdims=True), new, labels).astype(labels.dtype)


def correct_scans(
    slice_labels: np.ndarray, scan_labels: np.ndarray, of_slices: Correction, of_scans: Correction, scan: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Correct slices and scans, each also by what is corrected of the other.

    A scan that is corrected to 0 has only slices that are 0; one that is corrected to 1 of slices that were all 0, or of which
    one is unsure, has slices that are unknown. A label of a whole scan that corrected slices contradict gives way.

    Args:
        slice_labels: float32 ``(n, k)``: what the tables say of slices; known where the scan is without.
        scan_labels: float32 ``(scans, k)``: what they say of scans.
        of_slices: Corrections of slices, ``(n, k)``.
        of_scans: Corrections of scans, ``(scans, k)``; they do not contradict those of slices.
        scan: The number of each slice's scan, ``(n,)``, not decreasing.

    Returns:
        Both, corrected.
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
        got = "rows that repeat another one, and are unsure of something"
        stop_at(path, dropped.index, "contradicting_rows", got, "one row each")
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
    empty = f", of which {(~told).sum()} correct nothing" if not told.all() else ""
    flag = f"{len(rows)} rows of corrections, which win over the labels{empty}"
    rows = rows.assign(line=f"{path.name}:" + rows["line"].astype(str))
    return LabelTable(rows, path, (flag, *table.flags))


def _check_words(path: Path, texts: pd.Series, lines: np.ndarray) -> None:
    wrong = np.array([not set(text.split()) <= set(LABELS) for text in texts])
    if wrong.any():
        got = f"unsure of {texts[wrong].iloc[0]!r}"
        stop_at(path, lines[wrong], "bad_label", got, f"{', '.join(LABELS)}, with blanks between, or an empty cell")
