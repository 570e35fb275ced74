"""RSNA 2019 Intracranial Hemorrhage: its label file."""

from pathlib import Path

import numpy as np
import pandas as pd

from ich_lstm.data.labelled import PATIENT, LabelTable, checked_table, read_cells, stop_at
from ich_lstm.labels import LABELS

LABEL_FILE = "stage_2_train.csv"


def read_rsna_labels(path: Path) -> LabelTable:
    """Read ``stage_2_train.csv``: six rows ``ID_<image>_<label>,<0 or 1>`` per image.

    Four images stand twice in the original; equal duplicates are dropped, contradicting ones stop.

    Args:
        path: The CSV file.

    Returns:
        One row per image, named by its SOP Instance UID.

    Raises:
        TableError: If a row is malformed, an image lacks a label, or rows contradict one another.
    """
    cells, lines = read_cells(path)
    parts = cells["ID"].str.rsplit("_", n=1, expand=True).reindex(columns=[0, 1], fill_value="")
    wrong = ~(parts[1].isin(LABELS) & parts[0].ne("") & cells["Label"].isin(["0", "1"])).to_numpy()
    if wrong.any():
        got = f"{cells['ID'][wrong].iloc[0]!r} with label {cells['Label'][wrong].iloc[0]!r}"
        stop_at(path, lines[wrong], "bad_rsna_row", got, f"ID_<image>_<{'|'.join(LABELS)}> and 0 or 1")
    long = pd.DataFrame({"name": parts[0], "label": parts[1], "value": cells["Label"].to_numpy() == "1", "line": lines})
    differing = long.drop_duplicates(["name", "label", "value"])
    differing = differing[differing.duplicated(["name", "label"], keep=False)]
    if len(differing):
        stop_at(
            path,
            differing["line"],
            "contradicting_rows",
            "rows that speak of the same thing and differ",
            "one row each, or equal ones",
        )
    once = long.drop_duplicates(["name", "label"])
    wide = once.pivot(index="name", columns="label", values="value").reindex(columns=list(LABELS))
    first_line = once.groupby("name")["line"].first().reindex(wide.index)
    missing = wide.isna().any(axis=1).to_numpy()
    if missing.any():
        stop_at(path, first_line[missing], "incomplete_image", "images without all six labels", "six rows per image")
    rows = pd.DataFrame({"kind": "sop_uid", "name": wide.index, PATIENT: "", "line": first_line.to_numpy()})
    rows = rows.join(wide.astype(np.float32).reset_index(drop=True))
    table = checked_table(rows, path)
    dropped = len(long) - len(once)
    flags = (f"{dropped} repeated rows, equal to others, were dropped", *table.flags) if dropped else table.flags
    return LabelTable(table.rows, path, flags)
