"""Reader of label tables of any kind: RSNA's, CT-ICH's, or one in the library's own format."""

import difflib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ich_lstm.data.labels.bhx import COLUMNS as BHX_COLUMNS
from ich_lstm.data.labels.bhx import is_bhx, read_bhx
from ich_lstm.data.labels.cq500 import COLUMNS as READS_COLUMNS
from ich_lstm.data.labels.cq500 import Truth, is_reads, read_cq500
from ich_lstm.data.labels.ct_ich import COLUMNS as CT_ICH_COLUMNS
from ich_lstm.data.labels.ct_ich import is_ct_ich, read_ct_ich
from ich_lstm.data.labels.rsna import HEADER as RSNA_HEADER
from ich_lstm.data.labels.rsna import read_rsna_labels
from ich_lstm.data.prepared.file_names import SLICE_MARK
from ich_lstm.data.tables.labelled import (
    PATH_KEYS,
    PATIENT,
    SCAN_KEYS,
    SLICE_KEYS,
    STUDY_DATE,
    LabelTable,
    checked_table,
    parse_labels,
    stop_at,
)
from ich_lstm.data.tables.spreadsheet import canonical, read_header, read_sheet
from ich_lstm.errors import TableError
from ich_lstm.labels import LABEL_SET, LABELS

KEYS = tuple(key for key in (*SLICE_KEYS, *SCAN_KEYS) if key != "folder_name")
"""Columns by which a table in the library's own format may name slices and scans, the finest first."""

SLICE = "slice"
"""The column with the number of a slice within its ``file``, from 1."""

COLUMNS = (*KEYS, *LABELS, PATIENT, SLICE, STUDY_DATE)

SYNONYMS = {
    "sopinstanceuid": "sop_uid",
    "seriesinstanceuid": "series_uid",
    "studyinstanceuid": "study_uid",
    "accession": "accession_number",
    "filename": "file",
    "path": "file",
    **{synonym: label.name for label in LABEL_SET for synonym in label.synonyms},
    "mrn": PATIENT,
    "date": STUDY_DATE,
}
"""Other names of our columns. They are not read, because they may mean something else; the error or a flag asks about them."""


def read_label_table(path: Path | str, *, truth: Truth = "majority", repair_any: bool = False) -> LabelTable:
    """Read RSNA's ``stage_2_train.csv``, CQ500's ``reads.csv``, BHX's boxes, CT-ICH's table, or a table in the library's own
    format.

    The header decides which reader is used. The library's own format is a CSV with one row per slice (column ``sop_uid``, or
    ``file`` with the number of the slice in ``slice`` where the file holds many) or per scan (``series_uid``, ``study_uid``,
    ``accession_number`` or ``folder``), any of the labels as columns with cells 0, 1 or empty (unknown), ``patient_id`` where the
    images do not name the patient, and ``study_date`` if scans are to be split by it. Slice and scan rows may be mixed. Files and
    folders are paths relative to the images' root. Tables that a spreadsheet saved are read too; one flag then says what was
    assumed (:func:`~ich_lstm.data.tables.spreadsheet.read_sheet`).

    Args:
        path: A CSV file of labels.
        truth: Whose reading counts in CQ500, one of :data:`~ich_lstm.data.labels.cq500.Truth`.
        repair_any: If a type is 1 and any is 0, set any to 1 and count the row; otherwise stop.

    Returns:
        The checked label table.

    Raises:
        TableError: If the file is missing, empty, has no header, or a row is malformed or contradicts another.
    """
    path = Path(path)
    header = _read_header(path)
    if [name.casefold() for name in header if name] == [name.casefold() for name in RSNA_HEADER]:
        return read_rsna_labels(path, repair_any=repair_any)
    if is_reads(canonical(header, READS_COLUMNS)):
        return read_cq500(path, truth, repair_any=repair_any)
    if is_bhx(canonical(header, BHX_COLUMNS)):
        return read_bhx(path)
    if is_ct_ich(canonical(header, CT_ICH_COLUMNS)):
        return read_ct_ich(path, repair_any=repair_any)
    return _read_own(path, header, repair_any)


def read_label_tables(paths: Sequence[Path | str], *, truth: Truth = "majority", repair_any: bool = False) -> LabelTable:
    """Read several label tables as one, for example slice rows in one and scan rows in another.

    Contradictions between the files show only when labels are joined to scans, because rows may name one slice differently.

    Args:
        paths: CSV files of labels.
        truth: Whose reading counts in CQ500, one of :data:`~ich_lstm.data.labels.cq500.Truth`.
        repair_any: If a type is 1 and any is 0, set any to 1 and count the row; otherwise stop.

    Returns:
        One table, whose lines are named ``file:number``; if two files have the same name, the second is called ``name (2)``.
    """
    tables = [read_label_table(path, truth=truth, repair_any=repair_any) for path in dict.fromkeys(map(Path, paths))]
    if len(tables) == 1:
        return tables[0]
    base = Path(os.path.commonpath([table.source.resolve().parent for table in tables]))
    names = _short_names([table.source for table in tables])
    rows = [
        table.rows.assign(line=f"{name}:" + table.rows["line"].astype(str)) for table, name in zip(tables, names, strict=True)
    ]
    strata = [table.strata for table in tables if table.strata is not None]
    return LabelTable(
        pd.concat(rows, ignore_index=True),
        base,
        tuple(f"{name}: {flag}" for table, name in zip(tables, names, strict=True) for flag in table.flags),
        pd.concat(strata, ignore_index=True) if strata else None,
    )


def _short_names(paths: Sequence[Path]) -> list[str]:
    """Name files without their folders, because these names appear in the audit, which is shared."""
    names = [path.name for path in paths]
    before = [names[:i].count(name) for i, name in enumerate(names)]
    return [f"{name} ({count + 1})" if count else name for name, count in zip(names, before, strict=True)]


def _read_own(path: Path, header: list[str], repair_any: bool) -> LabelTable:
    _check_columns(path, canonical(header, COLUMNS))
    sheet = read_sheet(path).named(COLUMNS)
    sheet = sheet.identifiers(key for key in (*KEYS, PATIENT) if key not in PATH_KEYS)
    sheet = sheet.truths([label for label in LABELS if label in sheet.cells])
    sheet = sheet.dates(STUDY_DATE) if STUDY_DATE in sheet.cells else sheet
    cells, lines = sheet.cells, sheet.lines
    kinds, names = _kinds_and_names(path, cells, lines)
    labels = parse_labels(path, cells.reindex(columns=list(LABELS), fill_value=""), lines)
    rows = pd.DataFrame(
        {
            "kind": kinds,
            "name": names,
            PATIENT: cells.get(PATIENT, ""),
            STUDY_DATE: cells.get(STUDY_DATE, ""),
            "line": lines,
        }
    )
    table = checked_table(rows.join(labels), path, repair_any=repair_any)
    unread = tuple(f"the column {column} is not read; did you mean {meant}?" for column, meant in _near_misses(sheet.header))
    return LabelTable(table.rows, path, (*sheet.flags, *table.flags, *unread))


def _read_header(path: Path) -> list[str]:
    try:
        return read_header(path)
    except FileNotFoundError as error:
        raise TableError(
            "missing_table", where=str(path), got="no such file", expected="a CSV of labels", todo="Check the path."
        ) from error
    except OSError as error:
        raise TableError("unreadable_table", where=str(path), got=str(error), expected="a CSV in UTF-8") from error


def _check_columns(path: Path, header: list[str]) -> None:
    repeated = {column for column in header if header.count(column) > 1} & set(COLUMNS)
    if repeated:
        raise TableError(
            "repeated_columns", where=f"{path}, line 1", got=f"{', '.join(sorted(repeated))} more than once", expected="once each"
        )
    if not set(header) & set(KEYS) or not set(header) & set(LABELS):
        todo = " ".join(f"Did you mean {meant} by {column}?" for column, meant in _near_misses(header)[:3])
        raise TableError(
            "missing_columns",
            where=f"{path}, line 1",
            got=f"columns {', '.join(header[:12])}",
            expected=f"one of {', '.join(KEYS)}, and one or more of {', '.join(LABELS)}",
            todo=todo or "Add a header to the table.",
        )


def _near_misses(header: Sequence[str]) -> list[tuple[str, str]]:
    """Find columns that are not read, but are spelt nearly like one that is, or are another word for it."""
    found = []
    for column in header:
        plain = column.lower().replace("_", "").replace(" ", "")
        near = [SYNONYMS[plain]] if plain in SYNONYMS else difflib.get_close_matches(column.lower(), COLUMNS, n=1)
        if near and column not in COLUMNS and near[0] not in header:
            found.append((column, near[0]))
    return found


def _kinds_and_names(path: Path, cells: pd.DataFrame, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Find the slice or scan that each row names: the first key column with a value in it, slices before scans."""
    kinds = np.full(len(cells), "", dtype=object)
    names = np.full(len(cells), "", dtype=object)
    for key in KEYS:
        if key in cells:
            text = cells[key].to_numpy(object)
            fill = (kinds == "") & (text != "")
            kinds[fill], names[fill] = key, text[fill]
    nameless = kinds == ""
    if nameless.any():
        stop_at(path, lines[nameless], "no_name", "rows without a slice or a scan", f"a value in one of {', '.join(KEYS)}")
    if SLICE in cells:
        _number_slices(path, cells[SLICE], kinds, names, lines)
    return kinds, names


def _number_slices(path: Path, numbers: pd.Series, kinds: np.ndarray, names: np.ndarray, lines: np.ndarray) -> None:
    """Append the numbers of slices to the names of their files."""
    numbers = numbers.str.replace(r"[.,]0$", "", regex=True)  # spreadsheets write 3.0 where the column has empty cells
    given = (numbers != "").to_numpy(bool)
    wrong = given & ~numbers.str.fullmatch(r"0*[1-9]\d{0,5}").to_numpy(bool)
    if wrong.any():
        got = f"the slice {numbers[wrong].iloc[0]!r}"
        stop_at(path, lines[wrong], "bad_slice_number", got, "a number from 1, or an empty cell")
    alone = given & np.isin(kinds, SCAN_KEYS)
    if alone.any():
        got, expected = "rows with the number of a slice and no file", "a file in each of these rows"
        stop_at(path, lines[alone], "slice_without_file", got, expected)
    numbered = given & (kinds == "file")
    names[numbered] = names[numbered] + SLICE_MARK + numbers[numbered].str.lstrip("0").to_numpy(object)
