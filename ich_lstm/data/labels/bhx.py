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
"""The labels that have boxes, as BHX writes them but for the capital letter."""

CHRONIC = "chronic"
"""An old hemorrhage. BHX does not give its type. It is mostly subdural, but no slice gets a type that nobody wrote down."""

COLUMNS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "data", "labelName")
"""Those of the tables that are read."""

SIDES = ("x", "y", "width", "height")
MAX_BOX_CHARACTERS = 1000
"""Four numbers take a tenth of that; what is longer is not even parsed."""


def is_bhx(header: Collection[str]) -> bool:
    """Whether a CSV with these columns is one of BHX's three."""
    return {"SOPInstanceUID", "labelName"} <= set(header)


def read_bhx(path: Path | str) -> LabelTable:
    """Read boxes as labels of slices: what a box shows is present, and the rest is unknown.

    A box of chronic bleeding makes any 1 and tells no type. No slice is without hemorrhage by these tables alone: that a whole
    scan is, say the readers of CQ500 (`read_cq500`).

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
    """Read the boxes themselves.

    Args:
        path: As for `read_bhx`.

    Returns:
        One row per row of the file: ``sop_uid``, ``series_uid``, ``study_uid``, ``label`` (a hemorrhage type, or
        ``chronic``), ``x``, ``y``, ``width`` and ``height`` in pixels of the stored image, from its upper left corner (float64,
        NaN where the row has no box), and ``line``.

    Raises:
        TableError: As `read_bhx`, or if a box is none.
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
    """The table, and of each row what it speaks of."""
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
        stop_at(path, lines[nameless], "no_name", "rows without a slice", "a SOPInstanceUID in each")
    uids = cells.reindex(columns=["SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"], fill_value="")
    uids.columns = ["sop_uid", "series_uid", "study_uid"]
    return sheet, uids.assign(label=labels, line=lines)


def _parse_box(text: str) -> list[float] | None:
    """The four sides of a Python dictionary as text; NaN if empty, None if it is something else."""
    if not text:
        return [np.nan] * len(SIDES)
    if len(text) > MAX_BOX_CHARACTERS:
        return None
    try:
        box = ast.literal_eval(text)  # runs nothing
        sides = [float(box[side]) for side in SIDES]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError, OverflowError):
        return None
    return sides if np.isfinite(sides).all() and min(sides[2:]) >= 0 else None
