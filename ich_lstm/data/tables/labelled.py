"""The common form of all label tables, and the checks that they share."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn

import numpy as np
import pandas as pd

from ich_lstm.errors import TableError
from ich_lstm.formatting import first_of
from ich_lstm.labels import ANY, LABELS, complete_labels, unions_of

SLICE_KEYS = ("sop_uid", "file")
SCAN_KEYS = ("series_uid", "study_uid", "accession_number", "folder", "folder_name")
PATH_KEYS = ("file", "folder", "folder_name")
"""The keys of slices and of scans whose values are paths, or parts of paths."""

PATIENT = "patient_id"
STUDY_DATE = "study_date"
CORRECTS = "corrects"
UNSURE = "unsure"

Unmatched = Literal["stop", "labels", "images", "both"]
"""What may be excluded if labels and images do not match: nothing, labels without an image, images without a label, or both."""

NO_IMAGE = ("labels_without_image", "labels that name no readable image", "an image for each label")
"""Code, finding and expected value of the error about labels whose image is missing."""


@dataclass(frozen=True, eq=False)
class LabelTable:
    """The labels of slices and scans.

    Args:
        rows: One row per labelled slice or scan, with the columns ``kind`` (one of `SLICE_KEYS` and `SCAN_KEYS`), ``name`` (the
            slice or scan, named by this kind of key), ``patient_id`` and ``study_date`` (``YYYY-MM-DD``; empty where the images
            decide), ``line`` (its number in the file), and the labels as float32: 1 present, 0 absent, NaN unknown. With
            corrections there are also ``corrects`` (bool: the row overrides the others) and ``unsure`` (the labels that it makes
            unknown).
        source: The file that was read.
        flags: Remarks that a user of the table should know, for example how many equal duplicates were dropped.
        strata: Groups for which results are also reported, or None: the column ``name`` as in ``rows``, and one column per
            grouping.
    """

    rows: pd.DataFrame = field(repr=False)
    source: Path
    flags: tuple[str, ...] = ()
    strata: pd.DataFrame | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """The number of labelled slices and scans."""
        return len(self.rows)

    @property
    def corrects(self) -> np.ndarray:
        """Whether each row overrides the others, bool ``(rows,)``."""
        return self.rows[CORRECTS].to_numpy(bool) if CORRECTS in self.rows else np.zeros(len(self.rows), bool)


def checked_table(rows: pd.DataFrame, source: Path, *, repair_any: bool = False) -> LabelTable:
    """Drop equal duplicates, stop at contradictions, and complete labels that follow from others.

    Args:
        rows: A table with the columns of `LabelTable.rows`. ``patient_id`` and ``study_date`` may be missing; the images then
            decide. Columns of labels may be missing too; these labels are unknown.
        source: The file that the rows are from.
        repair_any: If a type is 1 and any is 0, set any to 1 and count the row; otherwise stop.

    Raises:
        TableError: If two rows about one slice or scan differ, or "any" contradicts the types.
    """
    rows = rows.assign(**{column: "" for column in (PATIENT, STUDY_DATE) if column not in rows})
    rows = rows.assign(**{label: np.float32(np.nan) for label in LABELS if label not in rows})
    key = ["kind", "name"]
    flags = []
    repeated = rows.duplicated(key, keep=False)
    if repeated.any():
        once = rows[repeated].drop_duplicates([*key, PATIENT, STUDY_DATE, *LABELS])
        stop_at_differing(source, once["line"][once.duplicated(key, keep=False)])
        surplus = rows.duplicated(key)
        flags.append(repeated_flag(rows["line"][surplus]))
        rows = rows[~surplus].reset_index(drop=True)
    labels = rows[list(LABELS)].to_numpy(np.float32, copy=True)
    any_label, follows = labels[:, LABELS.index(ANY)], unions_of(labels)[:, LABELS.index(ANY)]
    wrong = (follows == 1) & (any_label == 0)
    if wrong.any() and not repair_any:
        stop_at(
            source,
            rows["line"][wrong],
            "any_contradicts_types",
            "a type that is 1 while any is 0",
            "any = 1 where a type is present",
            todo="Correct the table; or, if the types are correct, say [repair_any=true].",
        )
    if wrong.any():
        labels[wrong, LABELS.index(ANY)] = 1
        flags.append(f"any was changed from 0 to 1 in {wrong.sum()} rows where a type is 1: {name_lines(rows['line'][wrong])}")
    bare = (follows == 0) & (any_label == 1)
    if bare.any():
        flags.append(f"{bare.sum()} rows have any = 1 and no type: {name_lines(rows['line'][bare])}")
    labels = complete_labels(labels)
    return LabelTable(rows.assign(**dict(zip(LABELS, labels.T, strict=True))), source, tuple(flags))


def stop_at_differing(source: Path, lines: Iterable[int]) -> None:
    """Stop if there are different rows about one slice or scan."""
    lines = list(lines)
    if lines:
        got = "rows about the same slice or scan that contradict each other"
        stop_at(source, lines, "contradicting_rows", got, "one row per slice or scan, or equal ones")


def repeated_flag(lines: Iterable[int]) -> str:
    """Describe rows that were dropped because they equal earlier ones."""
    lines = list(lines)
    return f"{len(lines)} repeated rows, equal to others, were dropped: {name_lines(lines)}"


def labels_of_scans(slice_labels: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Derive the labels of scans from those of their slices: 1 if any is 1, 0 if all are 0, otherwise unknown.

    Args:
        slice_labels: ``(n, k)``: 1 present, 0 absent, NaN unknown; the slices of each scan in consecutive rows.
        first: The row of each scan's first slice, ``(scans,)``.

    Returns:
        The labels of the scans, ``(scans, k)``.

    Example:
        >>> labels_of_scans(np.array([[0, 0.0], [1, 0], [np.nan, 0]]), np.array([0, 2]))
        array([[ 1.,  0.],
               [nan,  0.]])
    """
    positive = np.logical_or.reduceat(slice_labels == 1, first)
    negative = np.logical_and.reduceat(slice_labels == 0, first)
    return np.where(positive, 1, np.where(negative, 0, np.nan))


def parse_labels(path: Path, cells: pd.DataFrame, lines: Iterable[int]) -> pd.DataFrame:
    """Convert cells 0, 1 or empty to float32 with NaN for unknown; any other cell stops."""
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


def stop_at(
    path: Path | str, lines: Iterable[int], code: str, got: str, expected: str, *, todo: str = "Correct the table, and run again."
) -> NoReturn:
    """Raise a TableError that names the first ten lines and the number of all.

    Args:
        path: The file, for the message.
        lines: Numbers of the lines at fault; the header is line 1.
        code: Stable code of the error.
        got: The fault of these lines.
        expected: The content that these lines should have.
        todo: What the user can do about it.
    """
    lines = list(lines)
    raise TableError(
        code,
        where=f"{path}, {name_lines(lines)}",
        got=f"{got} ({len(lines)} rows)",
        expected=expected,
        todo=todo,
    )


def name_lines(lines: Iterable[int]) -> str:
    """List the first ten lines by number, and how many more there are.

    Example:
        >>> name_lines(range(2, 14))
        'line 2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more'
    """
    return f"line {first_of(lines)}"
