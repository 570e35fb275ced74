"""BHX (Brain Hemorrhage Extended): bounding boxes of the hemorrhages in CQ500, read as labels of slices."""

import ast
from collections.abc import Collection
from pathlib import Path

import numpy as np
import pandas as pd

from ich_lstm.data.tables.labelled import LabelTable, checked_table, stop_at
from ich_lstm.data.tables.spreadsheet import Sheet, read_sheet
from ich_lstm.errors import TableError
from ich_lstm.labels import ANY

TYPES = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural")
"""The labels for which BHX has boxes; its files capitalize their names."""

CHRONIC = "chronic"
"""BHX's name for an old hemorrhage. Its type is not given; it is mostly subdural, but no slice gets a type that nobody
annotated."""

COLUMNS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "data", "labelName")
"""The columns that are read from BHX's tables."""

SIDES = ("x", "y", "width", "height")
MAX_BOX_CHARACTERS = 1000
"""Longest text of a box that is parsed; four numbers need a tenth of it."""


def is_bhx(header: Collection[str]) -> bool:
    """Whether a CSV with these columns is one of BHX's three."""
    return {"SOPInstanceUID", "labelName"} <= set(header)


def read_bhx(path: Path | str) -> LabelTable:
    """Read boxes as labels of slices: the label of a box is present in its slice, and all other labels are unknown.

    A box of chronic bleeding sets any to 1 and gives no type. These tables alone make no slice negative; that a whole scan is
    negative follows from the readings of CQ500 (`read_cq500`).

    Args:
        path: ``1_Initial_Manual_Labeling.csv``, ``2_Extrapolation_to_All_Series.csv`` or
            ``3_Extrapolation_to_Selected_Series.csv``.

    Returns:
        One row per slice, named by its SOP Instance UID.

    Raises:
        TableError: If a column is missing, or a row has no slice or an unknown label.
    """
    path = Path(path)
    sheet, marked = _read_rows(path)
    shown = pd.DataFrame({label: marked["label"] == label for label in TYPES})
    slices = shown.groupby(marked["sop_uid"], sort=False).any()
    labels = slices.where(slices).astype(np.float32)  # False to NaN: another box may be missing, or be in another table
    lines = marked.groupby("sop_uid", sort=False)["line"].first()
    rows = labels.assign(kind="sop_uid", name=labels.index, line=lines, **{ANY: np.float32(1)}).reset_index(drop=True)
    table = checked_table(rows, path)
    untyped = int((~slices.any(axis=1)).sum())
    flags = (f"{untyped} slices show chronic bleeding alone: any = 1, and the types are unknown",) if untyped else ()
    return LabelTable(table.rows, path, (*sheet.flags, *table.flags, *flags))


def read_boxes(path: Path | str) -> pd.DataFrame:
    """Read the bounding boxes themselves.

    Args:
        path: One of the three tables that `read_bhx` reads.

    Returns:
        One row per row of the file: ``sop_uid``, ``series_uid``, ``study_uid``, ``label`` (a hemorrhage type, or
        ``chronic``), ``x``, ``y``, ``width`` and ``height`` in pixels of the stored image, from its upper left corner (float64,
        NaN where the row has no box), and ``line``.

    Raises:
        TableError: If a column is missing, a row has no slice or an unknown label, or a box is malformed.
    """
    path = Path(path)
    sheet, marked = _read_rows(path)
    cells = sheet.cells
    boxes = [_parse_box(text) for text in cells["data"]] if "data" in cells else [None] * len(cells)
    wrong = np.array([box is None for box in boxes])
    if wrong.any():
        got = f"the box {cells['data'][wrong].iloc[0][:80]!r}" if "data" in cells else "no column data"
        stop_at(path, marked["line"][wrong], "bad_box", got, "{'x': 1, 'y': 2, 'width': 3, 'height': 4}, or an empty cell")
    sides = pd.DataFrame(boxes, columns=list(SIDES), dtype=float)
    return pd.concat([marked.drop(columns="line"), sides, marked["line"]], axis=1)


def _read_rows(path: Path) -> tuple[Sheet, pd.DataFrame]:
    """Read a table, and the slice and label of each of its rows."""
    sheet = read_sheet(path).named(COLUMNS).identifiers(COLUMNS[:3])
    cells, lines = sheet.cells, sheet.lines
    missing = [column for column in ("SOPInstanceUID", "labelName") if column not in cells]
    if missing:
        raise TableError(
            "missing_columns", where=f"{path}, line 1", got=f"no column {', '.join(missing)}", expected="a table of BHX"
        )
    labels = cells["labelName"].str.lower()
    unknown = ~labels.isin([*TYPES, CHRONIC]).to_numpy()
    if unknown.any():
        got = f"the label {cells['labelName'][unknown].iloc[0]!r}"
        expected = f"one of {', '.join(label.capitalize() for label in (*TYPES, CHRONIC))}"
        stop_at(path, lines[unknown], "bad_bhx_label", got, expected)
    nameless = (cells["SOPInstanceUID"] == "").to_numpy()
    if nameless.any():
        stop_at(path, lines[nameless], "no_name", "rows without a slice", "a SOPInstanceUID in each row")
    uids = cells.reindex(columns=["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"], fill_value="")
    uids.columns = ["sop_uid", "series_uid", "study_uid"]
    return sheet, uids.assign(label=labels, line=lines)


def _parse_box(text: str) -> list[float] | None:
    """Parse the four sides from a Python dictionary as text; NaN if the text is empty, None if it is something else."""
    if not text:
        return [np.nan] * len(SIDES)
    if len(text) > MAX_BOX_CHARACTERS:
        return None
    try:
        box = ast.literal_eval(text)  # executes no code
        sides = [float(box[side]) for side in SIDES]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError, OverflowError):
        return None
    return sides if np.isfinite(sides).all() and min(sides[2:]) >= 0 else None
