"""What label tables become, and the checks that all of them share."""

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from ich_lstm.errors import TableError
from ich_lstm.labels import ANY, HEMORRHAGE_TYPES, LABELS

SLICE_KEYS = ("sop_uid", "file")
SCAN_KEYS = ("series_uid", "study_uid", "folder")
PATIENT = "patient_id"

ROWS_SHOWN = 10

NO_IMAGE = ("labels_without_image", "labels that name no readable image", "an image for each, or --data.allow_missing true")
"""Code, finding and expectation where labels name images that are not there."""


@dataclass(frozen=True, eq=False)
class LabelTable:
    """What is known of slices and scans.

    Args:
        rows: One line per labelled slice or scan, with the columns ``kind`` (one of `SLICE_KEYS` and `SCAN_KEYS`), ``name``
            (what of that kind the line speaks of), ``patient_id`` (empty: as the images say), ``line`` (its number in the
            file), and the six labels as float32: 1 present, 0 absent, NaN unknown.
        source: The file.
        flags: What a reader should know, for example how many equal duplicates were dropped.
    """

    rows: pd.DataFrame = field(repr=False)
    source: Path
    flags: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Labelled slices and scans."""
        return len(self.rows)


def read_cells(path: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """The cells of a CSV as text without blanks around it, and the number of each row's line in the file.

    Raises:
        TableError: If the file is no CSV in UTF-8, a row has more cells than the header, or there are no rows.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            cells = pd.read_csv(
                path,
                dtype=str,  # "007" is an identifier, and "True" must not become 1
                keep_default_na=False,
                encoding="utf-8-sig",  # with or without a byte-order mark
                skipinitialspace=True,
                skip_blank_lines=False,  # or the lines in messages would be wrong
                index_col=False,  # or rows with one cell too many would be shifted by one column
            )
    except (ValueError, pd.errors.ParserWarning) as error:
        raise TableError(
            "unreadable_table",
            where=str(path),
            got=" ".join(str(error).split()),
            expected="a CSV in UTF-8 whose rows have as many cells as the header",
        ) from error
    cells.columns = [column.strip() for column in cells.columns]
    cells = cells.fillna("").apply(lambda column: column.str.strip())
    filled = cells.ne("").any(axis=1).to_numpy()
    if not filled.any():
        raise TableError("no_rows", where=str(path), got="a header and no rows", expected="labelled slices or scans")
    return cells[filled].reset_index(drop=True), np.flatnonzero(filled) + 2


def checked_table(rows: pd.DataFrame, source: Path) -> LabelTable:
    """Drop equal duplicates, stop at contradictions, and complete what follows from the other labels.

    Args:
        rows: As in `LabelTable`.
        source: The file they are from.

    Raises:
        TableError: If two rows on one thing differ, or "any" contradicts the types.
    """
    key = ["kind", "name"]
    flags = []
    repeated = rows.duplicated(key, keep=False)
    if repeated.any():
        once = rows[repeated].drop_duplicates([*key, PATIENT, *LABELS])
        twice = once[once.duplicated(key, keep=False)]
        if len(twice):
            stop_at(
                source,
                twice["line"],
                "contradicting_rows",
                "rows that speak of the same thing and differ",
                "one row each, or equal ones",
            )
        count = int(rows.duplicated(key).sum())
        rows = rows.drop_duplicates(key).reset_index(drop=True)
        flags.append(f"{count} repeated rows, equal to others, were dropped")
    types = rows[list(HEMORRHAGE_TYPES)].to_numpy()
    present = (types == 1).any(axis=1)
    any_label = rows[ANY].to_numpy()
    wrong = present & (any_label == 0)
    if wrong.any():
        stop_at(
            source,
            rows["line"][wrong],
            "any_contradicts_types",
            "a type that is 1 while any is 0",
            "any = 1 where a type is present",
        )
    absent = (types == 0).all(axis=1)
    rows = rows.assign(
        any=np.where(np.isnan(any_label) & present, 1, np.where(np.isnan(any_label) & absent, 0, any_label)).astype(np.float32)
    )
    # Nothing at all: no type can be present. (any = 1 and no type is right where readers disagree on the type.)
    none = (rows[ANY] == 0).to_numpy()[:, None]
    rows[list(HEMORRHAGE_TYPES)] = np.where(none & np.isnan(types), 0, types).astype(np.float32)
    bare = int(((rows[ANY] == 1).to_numpy() & absent).sum())
    if bare:
        flags.append(f"{bare} rows say any = 1 and no type")
    return LabelTable(rows, source, tuple(flags))


def parse_labels(path: Path, cells: pd.DataFrame, lines: Iterable[int]) -> pd.DataFrame:
    """Cells 0, 1 or empty to float32 with NaN for unknown; anything else stops."""
    known = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "": np.nan}
    wrong = ~cells.isin(list(known)).all(axis=1).to_numpy()
    if wrong.any():
        first = cells[wrong].iloc[0]
        stop_at(
            path,
            np.asarray(lines)[wrong],
            "bad_label",
            f"the label {first[~first.isin(list(known))].iloc[0]!r}",
            "0, 1 or an empty cell",
        )
    return cells.apply(lambda column: column.map(known)).astype(np.float32)


def stop_at(path: Path, lines: Iterable[int], code: str, got: str, expected: str) -> None:
    """Raise a TableError that names the first ten lines and counts all."""
    lines = list(lines)
    shown = ", ".join(map(str, lines[:ROWS_SHOWN]))
    more = f" and {len(lines) - ROWS_SHOWN} more" if len(lines) > ROWS_SHOWN else ""
    raise TableError(
        code,
        where=f"{path}, line {shown}{more}",
        got=f"{got} ({len(lines)} rows)",
        expected=expected,
        todo="Correct the table, and run again.",
    )
