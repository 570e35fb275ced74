"""Label tables: RSNA's, or one's own."""

import difflib
from pathlib import Path

import numpy as np
import pandas as pd

from ich_lstm.data.labelled import PATIENT, SCAN_KEYS, SLICE_KEYS, LabelTable, checked_table, parse_labels, read_cells, stop_at
from ich_lstm.data.rsna import read_rsna_labels
from ich_lstm.errors import TableError
from ich_lstm.labels import LABELS


def read_label_table(path: Path | str) -> LabelTable:
    """Read RSNA's ``stage_2_train.csv``, or a table of one's own.

    A table of one's own is a CSV with a header and one row per slice (column ``sop_uid`` or ``file``) or per scan
    (``series_uid``, ``study_uid`` or ``folder``), any of the six label columns with cells 0, 1 or empty (unknown), and
    ``patient_id`` where the images do not name the patient. Slice and scan rows may be mixed. Files and folders are paths
    relative to the images' root.

    Args:
        path: The CSV file.

    Returns:
        The checked table.

    Raises:
        TableError: If the file is missing, empty, has no header, or a row is malformed or contradicts another.
    """
    path = Path(path)
    header = _read_header(path)
    if header == ["ID", "Label"]:
        return read_rsna_labels(path)
    _check_columns(path, header)
    cells, lines = read_cells(path)
    kinds, names = _kinds_and_names(path, cells, lines)
    labels = parse_labels(path, cells.reindex(columns=list(LABELS), fill_value=""), lines)
    patients = cells.get(PATIENT, "")
    rows = pd.DataFrame({"kind": kinds, "name": names, PATIENT: patients, "line": lines}).join(labels)
    table = checked_table(rows, path)
    unread = tuple(f"the column {column} is not read; did you mean {meant}?" for column, meant in _near_misses(header))
    return LabelTable(table.rows, path, (*table.flags, *unread))


def _read_header(path: Path) -> list[str]:
    try:
        with path.open(encoding="utf-8-sig") as file:
            line = file.readline()
    except FileNotFoundError as error:
        raise TableError(
            "missing_table", where=str(path), got="no such file", expected="a CSV of labels", todo="Check --data.labels."
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise TableError("unreadable_table", where=str(path), got=str(error), expected="a CSV in UTF-8") from error
    if not line.strip():
        raise TableError("empty_table", where=str(path), got="an empty file", expected="a header and rows")
    return [column.strip().strip('"') for column in line.split(",")]


def _check_columns(path: Path, header: list[str]) -> None:
    keys = [*SLICE_KEYS, *SCAN_KEYS]
    repeated = {column for column in header if header.count(column) > 1} & {*keys, *LABELS, PATIENT}
    if repeated:
        raise TableError(
            "repeated_columns", where=f"{path}, line 1", got=f"{', '.join(sorted(repeated))} more than once", expected="once each"
        )
    if not set(header) & set(keys) or not set(header) & set(LABELS):
        raise TableError(
            "missing_columns",
            where=f"{path}, line 1",
            got=f"columns {', '.join(header[:12])}",
            expected=f"one of {', '.join(keys)}, and one or more of {', '.join(LABELS)}",
            todo=" ".join(f"Did you mean {meant} by {column}?" for column, meant in _near_misses(header)[:3])
            or "Give the table a header.",
        )


def _near_misses(header: list[str]) -> list[tuple[str, str]]:
    """Columns that are not read, but are spelt nearly like one that would be."""
    known = [*SLICE_KEYS, *SCAN_KEYS, *LABELS, PATIENT]
    near = [(column, difflib.get_close_matches(column.lower(), known, n=1)) for column in header if column not in known]
    return [(column, meant[0]) for column, meant in near if meant]


def _kinds_and_names(path: Path, cells: pd.DataFrame, lines: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What each row speaks of: the first key column that is filled in it, slices before scans."""
    kinds = np.full(len(cells), "", dtype=object)
    names = np.full(len(cells), "", dtype=object)
    for key in [*SLICE_KEYS, *SCAN_KEYS]:
        if key in cells:
            text = cells[key].to_numpy()
            fill = (kinds == "") & (text != "")
            kinds[fill], names[fill] = key, text[fill]
    nameless = kinds == ""
    if nameless.any():
        stop_at(
            path,
            lines[nameless],
            "no_name",
            "rows without a slice or a scan",
            f"a value in one of {', '.join([*SLICE_KEYS, *SCAN_KEYS])}",
        )
    return kinds, names
