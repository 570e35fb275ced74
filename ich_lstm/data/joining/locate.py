"""Finds the slice or scan that each row of a label table references."""

from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from ich_lstm.data.prepared.file_names import SLICE_MARK
from ich_lstm.data.prepared.images import NOWHERE, SEVERAL, ImageTable
from ich_lstm.data.tables.labelled import NO_IMAGE, PATH_KEYS, SCAN_KEYS, LabelTable, Unmatched, stop_at
from ich_lstm.data.tables.paths import PathNames
from ich_lstm.data.tables.spreadsheet import find_lost_digits, show_lost_digits, stop_at_damage
from ich_lstm.printable import printable_logger

logger = printable_logger(__name__)

STUDY_KEYS = tuple(key for key in SCAN_KEYS if key != "series_uid")
"""Kinds of names that denote a whole study, of which one series is read."""

NUMBER_KEYS = ("accession_number", "folder")
"""Kinds of names that may be numbers, so that a spreadsheet drops their leading zeros."""


@dataclass(frozen=True, eq=False)
class LocatedLabels:
    """The rows of a label table with the slices and scans that they reference.

    Args:
        table: The label table, whose rows are located.
        images: The images that labels may reference.
        slice: The row in the key of the slice that each label references, ``(rows,)``; `NOWHERE` for labels of whole scans.
        scan: The index of the scan that each label references directly or by one of its slices, ``(rows,)``; `NOWHERE` where
            there is none.
        excluded: Whether each row references an image that has no scan for a reason given in the ledger, bool ``(rows,)``.
    """

    table: LabelTable
    images: ImageTable = field(repr=False)
    slice: np.ndarray = field(repr=False)
    scan: np.ndarray = field(repr=False)
    excluded: np.ndarray = field(repr=False)

    @property
    def unmatched(self) -> np.ndarray:
        """Whether each row references no image, without a reason for it in the ledger, bool ``(rows,)``."""
        return (self.scan == NOWHERE) & ~self.excluded

    def check_unmatched(self, unmatched: Unmatched) -> None:
        """Count labels that reference no image, or stop unless that is allowed and other labels do reference one.

        Args:
            unmatched: What may be excluded where labels and images do not match.

        Raises:
            TableError: If such labels are not allowed, with the code ``labels_without_image``.
        """
        missing, table = self.unmatched, self.table
        if missing.any() and (unmatched not in ("labels", "both") or missing.all()):
            todo = "Check the table and the folder."
            if not missing.all():
                todo = "Complete the images, or ignore these labels on purpose: [unmatched=labels]."
            stop_at(table.source, table.rows["line"][missing], *NO_IMAGE, todo=todo)
        for rows, what in ((missing, "no readable image"), (self.excluded, "images that the ledger excludes with a reason")):
            if rows.any():
                logger.warning("%s: %d labels reference %s", table.source.name, rows.sum(), what)


def locate_labels(table: LabelTable, images: ImageTable) -> LocatedLabels:
    """Join the rows of a label table to the images that they reference, by ``kind`` and ``name``.

    Args:
        table: The label table, whose rows are located.
        images: The images that labels may reference.

    Raises:
        TableError: ``several_scans`` if a name fits several scans or images of several patients; ``spreadsheet_damage`` if
            names without a match would match, had a spreadsheet not dropped their leading zeros.
    """
    kinds = table.rows["kind"].to_numpy(object)
    located = pd.DataFrame({"name": table.rows["name"].to_numpy(object), "slice": NOWHERE, "scan": NOWHERE})
    names = {kind: images.names(kind) for kind in pd.unique(kinds)}
    for kind, known in names.items():
        here = kinds == kind
        found = _look_up(located["name"][here], known)
        if kind in ("file", "folder") and (found["scan"] == NOWHERE).any():
            found = _look_up_paths(found, known)
        located[here] = found.set_axis(located.index[here])
    several = (located["scan"] == SEVERAL).to_numpy()
    if several.any():
        stop_at(
            table.source,
            table.rows["line"][several],
            "several_scans",
            "rows that fit several scans or images of several patients",
            "one scan of one patient. Name the scan by series_uid or, where patients share that too, by file",
        )
    at_slice, at_scan = (located[column].to_numpy(int) for column in ("slice", "scan"))
    excluded = _find_excluded(kinds, located, images)
    result = LocatedLabels(table, images, at_slice, at_scan, excluded)
    for kind in NUMBER_KEYS:
        if kind in names:
            here = kinds == kind
            referenced = located["name"][here & ~result.unmatched]
            _stop_at_lost_digits(result, here, kind, set(names[kind]["name"]) - set(referenced))
    return result


def _look_up(names: pd.Series, known: pd.DataFrame) -> pd.DataFrame:
    """Look up each name: ``name``, ``slice`` and ``scan``, which are `NOWHERE` where the name is unknown."""
    found = names.to_frame("name").merge(known, on="name", how="left")
    return found.fillna({"slice": NOWHERE, "scan": NOWHERE}).astype({"slice": int, "scan": int})


def _look_up_paths(found: pd.DataFrame, known: pd.DataFrame) -> pd.DataFrame:
    """Look up the paths that are not found as they are written by the files or folders they probably mean; see `PathNames`.

    Args:
        found: The ``name``, ``slice`` and ``scan`` of paths as they are written.
        known: All files or folders, as in `ImageTable.names`.

    Returns:
        The ``name`` as the images' root has it, ``slice`` and ``scan`` of each path.
    """
    lost = (found["scan"] == NOWHERE).to_numpy()
    paths = PathNames(known["name"])
    meant, doubtful = paths.resolve(found["name"][lost])
    if lost.all() and (meant == found["name"].to_numpy(object)).all() and not doubtful.any():
        # The table may have been written one folder above the root that the images were read from.
        meant, doubtful = paths.resolve(pd.Series(paths.tidied(found["name"])).str.partition("/")[2])
        if not doubtful.any() and set(known["name"]).isdisjoint(meant):
            return found
    again = _look_up(pd.Series(meant, dtype=object), known)
    again.loc[doubtful, ["slice", "scan"]] = SEVERAL
    found = found.copy()
    found[lost] = again.set_axis(found.index[lost])
    return found


def _find_excluded(kinds: np.ndarray, located: pd.DataFrame, images: ImageTable) -> np.ndarray:
    """Find the rows that reference excluded images, bool ``(rows,)``.

    Slices of a file that was excluded as a whole count too. So do slices of a series that was not chosen, if other rows reference
    its study as a whole and there is a scan of that study.
    """
    missing = (located["scan"] == NOWHERE).to_numpy()
    excluded = np.zeros(len(located), bool)
    if not missing.any() or images.excluded.empty:
        return excluded
    names = located["name"][missing].reset_index(drop=True)
    paths = np.isin(kinds[missing], PATH_KEYS[:2])
    if paths.any():
        names[paths], _ = PathNames(images.excluded["name"]).resolve(names[paths])
    files = names.where(kinds[missing] == "file", "").str.rpartition(SLICE_MARK)[0]
    of_studies = located["scan"][np.isin(kinds, STUDY_KEYS) & ~missing].unique()
    studies = ["", *images.of_scans("study_uid")[of_studies]]
    there = images.excluded["name"][images.excluded["study_uid"].isin(studies)]
    excluded[missing] = (names.isin(there) | files.isin(there)).to_numpy()
    return excluded


def _stop_at_lost_digits(located: LocatedLabels, of_kind: np.ndarray, kind: str, unnamed: set[str]) -> None:
    """Stop if labels would reference images without a label, had a spreadsheet not dropped leading zeros."""
    rows = located.table.rows[located.unmatched & of_kind]
    damaged = find_lost_digits(rows["name"], unnamed)
    if damaged.any():
        example = show_lost_digits(rows["name"][damaged].iloc[0], unnamed)
        stop_at_damage(located.table.source, rows["line"][damaged], kind, example)
