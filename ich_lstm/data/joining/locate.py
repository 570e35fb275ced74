"""Finds the slices and scans to which the rows of a label table belong."""

from typing import NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.data.prepared.folder import SLICE_MARK, PreparedFolder, folders_of
from ich_lstm.data.tables.labelled import SCAN_KEYS, SLICE_KEYS, LabelTable
from ich_lstm.data.tables.paths import PathNames
from ich_lstm.data.tables.spreadsheet import find_lost_digits, show_lost_digits, stop_at_damage

NOWHERE, SEVERAL = -1, -2
"""In place of a place."""

SEVERAL_SCANS = (
    "several_scans",
    "rows that fit several scans, or images of several patients",
    "one scan of one patient: name it by series_uid; where patients share that too, by file",
)
"""Code, finding and expectation where a row of a table names more than one scan."""

SHARED = "shared"
"""Column of the key: kinds of names that another patient's images have too."""

STUDY_KEYS = tuple(key for key in SCAN_KEYS if key != "series_uid")
"""Names of a study as a whole, of which one series is read."""


class LabelPlaces(NamedTuple):
    """Where the rows of a label table belong, as indices into a key table whose scans are numbered as they come.

    Args:
        slice: The slice that each row speaks of; `NOWHERE` for rows on whole scans.
        scan: The scan, or the slice's scan: `NOWHERE` where there is none, `SEVERAL` where the row fits more than one, or
            images of more than one patient.
        name: What each row names, as the images' root has it.
    """

    slice: np.ndarray
    scan: np.ndarray
    name: np.ndarray


def locate_labels(table: LabelTable, key: pd.DataFrame) -> LabelPlaces:
    """Find the slice or scan that each row of a table speaks of.

    Args:
        table: The labels.
        key: As in `PreparedFolder`, with the slices of each scan in a row.
    """
    slices = KeyRows(key)
    at_slice = np.full(len(table), NOWHERE)
    at_scan = np.full(len(table), NOWHERE)
    kinds = table.rows["kind"].to_numpy()
    relative = table.rows["name"].to_numpy(object, copy=True)
    for kind in (*SLICE_KEYS, *SCAN_KEYS):
        here = kinds == kind
        if not here.any():
            continue
        names = table.rows["name"][here]
        at_slice[here], at_scan[here] = slices.find(kind, names)
        if kind in ("file", "folder") and (at_scan[here] == NOWHERE).any():
            at_slice[here], at_scan[here], relative[here] = _find_paths(slices, kind, names, at_slice[here], at_scan[here])
    return LabelPlaces(at_slice, at_scan, relative)


def _find_paths(
    slices: "KeyRows", kind: str, names: pd.Series, at_slice: np.ndarray, at_scan: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The slice, the scan, and the name as the images' root has it, of paths that may be written in other ways.

    Args:
        slices: The key table.
        kind: ``file`` or ``folder``.
        names: Paths.
        at_slice: The slice of each as it is written.
        at_scan: The scan of each as it is written; `NOWHERE` where there is none.
    """
    at_slice, at_scan, relative = at_slice.copy(), at_scan.copy(), names.to_numpy(object, copy=True)
    lost = at_scan == NOWHERE
    there = PathNames(slices.paths(kind))
    found, doubtful = there.resolve(names[lost])
    if lost.all() and (found == names.to_numpy(object)).all() and not doubtful.any():
        # The table was written one folder above the root that the images were read from.
        below = pd.Series(there.tidied(names), index=names.index).str.partition("/")[2]
        found, doubtful = there.resolve(below)
        if not doubtful.any() and (slices.find(kind, pd.Series(found, dtype=object))[1] == NOWHERE).all():
            return at_slice, at_scan, relative
    relative[lost] = found
    at_slice[lost], at_scan[lost] = slices.find(kind, pd.Series(found, dtype=object))
    at_slice[np.flatnonzero(lost)[doubtful]] = at_scan[np.flatnonzero(lost)[doubtful]] = SEVERAL
    return at_slice, at_scan, relative


def stop_at_lost_digits(table: LabelTable, nowhere: np.ndarray, places: LabelPlaces, key: pd.DataFrame) -> None:
    """Stop if names that fit nothing would fit, had a spreadsheet not taken their leading zeros.

    Args:
        table: The labels, or marks.
        nowhere: Rows that fit nothing, bool ``(rows,)``.
        places: Where the others belong, as of `locate_labels`.
        key: As in `PreparedFolder`.

    Raises:
        TableError: ``spreadsheet_damage``.
    """
    kinds = table.rows["kind"].to_numpy()
    for kind in ("accession_number", "folder"):
        here = nowhere & (kinds == kind)
        if not here.any():
            continue
        slices = KeyRows(key)
        named = set(places.name[(kinds == kind) & ~nowhere])
        there = set(slices.column(kind) if kind != "folder" else slices.paths(kind)) - named
        names = table.rows["name"][here]
        damaged = find_lost_digits(names, there)
        if damaged.any():
            example = show_lost_digits(names[damaged].iloc[0], there)
            stop_at_damage(table.source, table.rows["line"][here][damaged], kind, example)


def find_accounted(table: LabelTable, places: LabelPlaces, folder: PreparedFolder) -> np.ndarray:
    """Which rows name what is not there for a reason that the folder's ledger has, bool ``(rows,)``.

    That is what was left out; any slice of a file that was left out as a whole; and slices of a series that was passed over,
    where other rows name its study as a whole and the study's scan is there.

    Args:
        table: The labels.
        places: Where they belong, as of `locate_labels`.
        folder: The prepared scans.
    """
    missing = np.flatnonzero(places.scan == NOWHERE)
    accounted = np.zeros(len(table), bool)
    if not len(missing):
        return accounted
    kinds = table.rows["kind"].to_numpy()
    names = pd.Series(places.name[missing], dtype=object)
    paths = np.isin(kinds[missing], ("file", "folder"))
    if paths.any():
        names[paths], _ = PathNames({*folder.left_out, *folder.passed_over.index}).resolve(names[paths])
    files = names.where(kinds[missing] == "file", "").str.rpartition(SLICE_MARK)[0]
    slices = KeyRows(folder.key)
    of_studies = places.scan[np.isin(kinds, STUDY_KEYS) & (places.scan >= 0)]
    named = pd.Series(slices.column("study_uid"), dtype=object)[np.unique(of_studies)]
    others = folder.passed_over[folder.passed_over.isin(named)].index
    for there in (folder.left_out, others):
        accounted[missing] |= (names.isin(there) | files.isin(there)).to_numpy()
    return accounted


class KeyRows:
    """The key table, by slice and by scan.

    Args:
        key: As in `PreparedFolder`, with the slices of each scan in a row.
    """

    def __init__(self, key: pd.DataFrame) -> None:
        self.rows = key
        # Not by scan_id: two kernels under one series UID are two scans.
        self.scan, _ = pd.factorize(key["cache"])
        """The number of each slice's scan, ``(n,)``, not decreasing."""
        self.first = np.flatnonzero(np.diff(self.scan, prepend=-1))
        """The row of each scan's first slice, ``(scans,)``."""

    def column(self, name: str) -> list[str]:
        """A value of each scan."""
        return self.rows[name].iloc[self.first].tolist()

    def paths(self, kind: str) -> set[str]:
        """All files, or all folders above them, as the images' root has them; of files of many slices also the files alone."""
        files = self.rows["file"].tolist()
        if kind == "file":
            return {*files, *(file.rpartition(SLICE_MARK)[0] for file in files if SLICE_MARK in file)}
        return {folder for file in files for folder in folders_of(file)}

    def find(self, kind: str, names: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        """The slice, and its scan, that each name speaks of; of a file of many slices, and of a scan, the scan alone."""
        if kind in SCAN_KEYS:
            return np.full(len(names), NOWHERE), self._find_scans(kind, names)
        own = self.rows[kind]
        at_slice = _look_up(own, self._places(kind, np.arange(len(own)), slice(None)), names)
        at_scan = np.where(at_slice >= 0, self.scan[at_slice], at_slice)
        if (at_slice == NOWHERE).any():
            is_part = own.str.contains(SLICE_MARK, regex=False).to_numpy(bool)
            files = own[is_part].str.replace(rf"{SLICE_MARK}\d+$", "", regex=True)
            at_scan = np.where(at_slice == NOWHERE, _look_up(files, self.scan[is_part], names), at_scan)
        return at_slice, at_scan

    def _find_scans(self, kind: str, names: pd.Series) -> np.ndarray:
        """The scan that each name speaks of."""
        if kind not in ("folder", "folder_name"):
            # A scan may be joined from several series.
            own = pd.DataFrame({"name": self.rows[kind].to_numpy(object), "scan": self.scan}).drop_duplicates()
            return _look_up(own["name"], self._places(kind, own["scan"].to_numpy(int), own.index.to_numpy()), names)
        places = pd.DataFrame({"folder": self.rows["file"].str.rpartition("/")[0].to_numpy(), "scan": self.scan})
        places = places.drop_duplicates()
        above = {folder: folders_of(f"{folder}/") for folder in places["folder"].unique()}
        if kind == "folder_name":
            above = {folder: folder.split("/") for folder in above}
        places = places.assign(folder=places["folder"].map(above)).explode("folder")
        return _look_up(places["folder"], places["scan"].to_numpy(int), names)

    def _places(self, kind: str, places: np.ndarray, rows: slice | np.ndarray) -> np.ndarray:
        """Replace a place by `SEVERAL` where the name of the row also occurs among images of another patient.

        Those images need not be in the key: a study that was refused has a report as well.
        """
        if SHARED not in self.rows or not self.rows[SHARED].any():
            return places
        is_shared = self.rows[SHARED].str.split().map(lambda kinds: kind in kinds).to_numpy(bool)
        return np.where(is_shared[rows], SEVERAL, places)


def _look_up(names_there: pd.Series, places: np.ndarray, names: pd.Series) -> np.ndarray:
    """The place of each name: `NOWHERE` if it has none, `SEVERAL` if it has more than one."""
    there = pd.DataFrame({"name": names_there.to_numpy(object), "place": places})
    there = there[there["name"] != ""].drop_duplicates()
    several = there.duplicated("name", keep=False)
    there = there.assign(place=there["place"].where(~several, SEVERAL)).drop_duplicates("name")
    found = pd.Index(there["name"], dtype=object).get_indexer(pd.Index(names, dtype=object))
    return np.where(found >= 0, there["place"].to_numpy()[found], NOWHERE) if len(there) else np.full(len(names), NOWHERE)
