"""Labels given by readers, aligned with the evaluated scans."""

from pathlib import Path

import numpy as np
import pandas as pd

from ich_lstm.data.joining.locate import locate_labels
from ich_lstm.data.labels.cq500 import COLUMNS as READS_COLUMNS
from ich_lstm.data.labels.cq500 import FINDING_OF_LABEL, folder_name, is_reads, read_reads
from ich_lstm.data.prepared.images import NOWHERE, ImageTable
from ich_lstm.data.tables.labelled import PATH_KEYS, SCAN_KEYS, LabelTable, parse_labels, stop_at
from ich_lstm.data.tables.spreadsheet import canonical, read_header, read_sheet
from ich_lstm.errors import TableError
from ich_lstm.labels import LABELS

SCAN_ID = "scan_id"
KEYS = (SCAN_ID, *(key for key in SCAN_KEYS if key != "folder_name"))
"""The columns by which a CSV of marks may name scans."""

READER = "reader"


def read_marks(path: Path | str) -> pd.DataFrame:
    """Read CQ500's ``reads.csv``, or a CSV with a row per scan and reader.

    Such a CSV has the column ``reader``, one column that names the scan (`KEYS`), and any of the six labels with cells 0, 1 or
    empty (not marked).

    Args:
        path: The CSV file to read.

    Returns:
        The columns ``kind`` (one of `KEYS`, or ``folder_name``), ``name``, ``reader``, six labels as float32 (NaN: not marked),
        and ``line``.

    Raises:
        TableError: If the file is malformed.
    """
    path = Path(path)
    if is_reads(canonical(read_header(path), READS_COLUMNS)):
        return marks_of_reads(read_reads(path).marks)
    sheet = read_sheet(path).named((*KEYS, READER, *LABELS)).identifiers(key for key in KEYS if key not in PATH_KEYS)
    sheet = sheet.truths([label for label in LABELS if label in sheet.cells])
    sheet.log()
    cells, lines = sheet.cells, sheet.lines
    kinds = [key for key in KEYS if key in cells]
    labels = [label for label in LABELS if label in cells]
    strange = [column for column in cells if column not in (*kinds, *labels, READER)]
    if len(kinds) != 1 or not labels or READER not in cells or strange:
        raise TableError(
            "wrong_columns",
            where=f"{path}, line 1",
            got=f"the columns {', '.join(cells.columns)}",
            expected=f"{READER}, one of {', '.join(KEYS)}, and any of {', '.join(LABELS)}",
            todo="Rename the columns, or give CQ500's reads.csv as it was published.",
        )
    nameless = ((cells[kinds[0]] == "") | (cells[READER] == "")).to_numpy()
    if nameless.any():
        stop_at(path, lines[nameless], "empty_name", f"rows without {kinds[0]} or {READER}", "both in every row")
    marks = parse_labels(path, cells[labels], lines).reindex(columns=list(LABELS))
    return pd.DataFrame({"kind": kinds[0], "name": cells[kinds[0]], READER: cells[READER]}).join(marks).assign(line=lines)


def marks_of_reads(marks: pd.DataFrame) -> pd.DataFrame:
    """Convert CQ500's marks to the form of `read_marks`; scans are named by their folders.

    Args:
        marks: The table `Reads.marks`: ``name, reader, finding, mark``.
    """
    own = marks[marks["finding"].isin(FINDING_OF_LABEL.values())]
    wide = own.pivot(index=["name", READER], columns="finding", values="mark")[list(FINDING_OF_LABEL.values())]
    rows = wide.set_axis(list(FINDING_OF_LABEL), axis=1).reindex(columns=list(LABELS)).astype(np.float32).reset_index()
    folders = rows["name"].map(folder_name)
    return rows.assign(kind="folder_name", name=folders, line=np.arange(len(rows)) + 2)[["kind", "name", READER, *LABELS, "line"]]


def place_marks(marks: pd.DataFrame, path: Path | str, key: pd.DataFrame | None = None) -> pd.DataFrame:
    """Find the scan of each mark.

    Args:
        marks: Table made by `read_marks`.
        path: The file of the marks, for messages.
        key: The private key to the ids, with the columns of `PreparedFolder.key`; needed unless scans are named by their ids.

    Returns:
        The columns ``scan_id`` (empty where the key has no such scan), ``name``, ``reader``, the labels, and ``line``.

    Raises:
        TableError: If a name fits several scans, a reader marked a scan twice, or the key is needed but was not given.
    """
    path = Path(path)
    if (marks["kind"] == SCAN_ID).all():
        ids = marks["name"].to_numpy(object)
    elif key is None:
        raise TableError(
            "missing_key",
            where=str(path),
            got=f"scans named by {marks['kind'].iloc[0]}",
            expected=f"the private key to the ids, or a column {SCAN_ID}",
            todo="Evaluate a folder of ich-predict, which has its key. For a run, name its folder of ich-prepare with --key.",
        )
    else:
        images = ImageTable(key)
        places = locate_labels(LabelTable(marks, path), images).scan
        ids = np.where(places == NOWHERE, "", images.of_scans(SCAN_ID)[places])
    placed = marks.assign(scan_id=ids)[[SCAN_ID, "name", READER, *LABELS, "line"]]
    repeated = placed[placed[SCAN_ID] != ""].duplicated([SCAN_ID, READER], keep="first")
    if repeated.any():
        got, expected = "rows of a reader on a scan that the reader marked already", "one row per scan and reader"
        stop_at(path, placed["line"][repeated.index[repeated]], "repeated_rows", got, expected)
    return placed
