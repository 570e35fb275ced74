"""RSNA 2019 Intracranial Hemorrhage: reader of its label file, and parser of its identifiers."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from ich_lstm.data.tables.labelled import LabelTable, checked_table, repeated_flag, stop_at, stop_at_differing
from ich_lstm.data.tables.spreadsheet import read_sheet
from ich_lstm.labels import LABELS

LABEL_FILE = "stage_2_train.csv"
HEADER = ["ID", "Label"]

RSNA_LABELS = ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")
"""The labels that every image of RSNA has. A file in this format may have rows for further labels."""

IDENTIFIER = f"ID_<image>_<{'|'.join(LABELS)}>"


class RsnaIds(NamedTuple):
    """The images and labels that identifiers such as ``ID_12cadc6af_subdural`` reference.

    Args:
        names: The SOP Instance UID of each image, once: ``ID_12cadc6af``.
        image: The index of each row's image, ``(rows,)``.
        label: The index of each row's label in ``LABELS``, ``(rows,)``; -1 where the identifier is malformed.
    """

    names: np.ndarray
    image: np.ndarray
    label: np.ndarray

    @property
    def cell(self) -> np.ndarray:
        """The place of each row's image and label in a flattened table ``(images, k)``."""
        return self.image * len(LABELS) + self.label


def split_ids(identifiers: pd.Series) -> RsnaIds:
    """Split identifiers at their last underscore.

    Example:
        >>> split_ids(pd.Series(["ID_a_any", "ID_b_any", "ID_a_epidural", "any"]))
        RsnaIds(names=array(['ID_a', 'ID_b', 'any'], dtype=object), image=array([0, 1, 0, 2]), label=array([ 5,  5,  0, -1]))
    """
    # Arrow, because Python strings would take ten times as long for 4.5 million rows, and fill the memory.
    text = pa.Table.from_pandas(identifiers.to_frame("ID"), preserve_index=False)["ID"].combine_chunks()
    parts = pc.split_pattern(text, "_", max_splits=1, reverse=True)
    ends = np.cumsum(pc.list_value_length(parts).to_numpy())
    starts = np.concatenate([[0], ends[:-1]])
    pieces = parts.flatten()
    names = pieces.take(pa.array(starts)).dictionary_encode()
    label = pc.index_in(pieces.take(pa.array(ends - 1)), pa.array(LABELS)).fill_null(-1).to_numpy().astype(np.int64)
    is_whole = (ends - starts == 2) & pc.not_equal(names.cast(pa.string()), "").to_numpy(zero_copy_only=False)
    return RsnaIds(
        names=names.dictionary.to_numpy(zero_copy_only=False),
        image=names.indices.to_numpy().astype(np.int64),
        label=np.where(is_whole, label, -1),
    )


def first_rows(ids: RsnaIds) -> np.ndarray:
    """Find the first row of each image and label, ``(images * k,)``; -1 where there is none."""
    first = np.full(len(ids.names) * len(LABELS), -1)
    # Backwards, so that the first of several rows is written last.
    first[ids.cell[::-1]] = np.arange(len(ids.image) - 1, -1, -1)
    return first


def read_rsna_labels(path: Path, *, repair_any: bool = False) -> LabelTable:
    """Read ``stage_2_train.csv``: a row ``ID_<image>_<label>,<0 or 1>`` for each image and label.

    Four images occur twice in the original. Equal duplicates are dropped and counted; contradicting ones stop.

    Args:
        path: RSNA's CSV file.
        repair_any: If a type is 1 and any is 0, set any to 1 and count the row; otherwise stop.

    Returns:
        One row per image, named by its SOP Instance UID.

    Raises:
        TableError: If a row is malformed, an image lacks a label, or rows contradict one another.
    """
    sheet = read_sheet(path).named(HEADER)
    cells, lines = sheet.cells, sheet.lines
    ids = split_ids(cells["ID"])
    wrong = (ids.label < 0) | ~cells["Label"].isin(["0", "1"]).to_numpy()
    if wrong.any():
        got = f"{cells['ID'][wrong].iloc[0]!r} with label {cells['Label'][wrong].iloc[0]!r}"
        stop_at(path, lines[wrong], "bad_rsna_row", got, f"{IDENTIFIER} and 0 or 1")
    values = (cells["Label"] == "1").to_numpy()
    first = first_rows(ids)
    first_of_row = first[ids.cell]
    differs = values != values[first_of_row]
    stop_at_differing(path, lines[np.unique([first_of_row[differs], np.flatnonzero(differs)])])
    stop_at_incomplete(path, first, lines)
    surplus = first_of_row != np.arange(len(values))
    grid = first.reshape(-1, len(LABELS))  # (images, k)
    columns: dict[str, object] = {"kind": "sop_uid", "name": ids.names, "line": lines[_first_of_image(grid, len(lines))]}
    labels = np.where(grid < 0, np.float32(np.nan), values[grid])
    rows = pd.DataFrame(columns | dict(zip(LABELS, labels.T, strict=True)))
    table = checked_table(rows, path, repair_any=repair_any)
    repeated = (repeated_flag(lines[surplus]),) if surplus.any() else ()
    return LabelTable(table.rows, path, (*sheet.flags, *repeated, *table.flags))


def stop_at_incomplete(path: Path, first: np.ndarray, lines: np.ndarray) -> None:
    """Stop if an image lacks one of `RSNA_LABELS`.

    Args:
        path: The label file, for the message.
        first: The result of :func:`first_rows`.
        lines: The number of each row's line in the file.
    """
    grid = first.reshape(-1, len(LABELS))
    lacking = (grid[:, [LABELS.index(label) for label in RSNA_LABELS]] < 0).any(axis=1)
    if lacking.any():
        somewhere = _first_of_image(grid[lacking], len(lines))
        expected = f"rows of {', '.join(RSNA_LABELS)} for each image"
        stop_at(path, lines[somewhere], "incomplete_image", "images without all their labels", expected)


def _first_of_image(grid: np.ndarray, rows: int) -> np.ndarray:
    """The first row of each image, whatever its label, ``(images,)``."""
    return np.where(grid < 0, rows, grid).min(axis=1)
