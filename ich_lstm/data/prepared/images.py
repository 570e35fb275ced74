"""The images that labels may reference, and every name by which they can do so."""

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pandas as pd

from ich_lstm.data.prepared.file_names import SLICE_MARK, folders_of
from ich_lstm.data.tables.labelled import SLICE_KEYS

NOWHERE, SEVERAL = -1, -2
"""Values in place of the index of a slice or scan: the name fits none, or it fits more than one."""

SHARED = "shared"
"""Column of the key table with the kinds of names that images of other patients have too."""


def no_exclusions() -> pd.DataFrame:
    """A table of excluded names without rows; see `ImageTable`."""
    return pd.DataFrame(columns=["name", "study_uid"], dtype=object)


@dataclass(frozen=True, eq=False)
class ImageTable:
    """The slices of all scans, and the names of images that were excluded.

    Args:
        key: One row per slice, the slices of each scan in consecutive rows: the identifiers of the slice and of its scan (see
            `PreparedFolder`), and ``cache``, which identifies the scan, because two kernels under one series UID are two scans.
        excluded: Identifiers that labels may reference although there is no scan, each with its reason in the ledger: ``name``;
            and ``study_uid``, which is empty, or the study whose scan was made from another series. In the latter case the name
            may be referenced only if other labels reference that study as a whole.
    """

    key: pd.DataFrame = field(repr=False)
    excluded: pd.DataFrame = field(default_factory=no_exclusions, repr=False)

    @cached_property
    def scan(self) -> np.ndarray:
        """The index of each slice's scan, ``(n,)``, in ascending order."""
        return pd.factorize(self.key["cache"])[0]

    @cached_property
    def first(self) -> np.ndarray:
        """The row of each scan's first slice, ``(scans,)``."""
        return np.flatnonzero(np.diff(self.scan, prepend=-1))

    def of_scans(self, column: str) -> np.ndarray:
        """The values that a column of the key has in the first slice of each scan, ``(scans,)``."""
        return self.key[column].iloc[self.first].to_numpy(object)

    def names(self, kind: str) -> pd.DataFrame:
        """List every name of one kind.

        Args:
            kind: The kind of name, one of `SLICE_KEYS` or `SCAN_KEYS`.

        Returns:
            One row per name: ``name``; ``slice``, the row of the slice in the key, or `NOWHERE` for a name of a whole scan; and
            ``scan``, the index of the scan. Both are `SEVERAL` for a name that fits several slices or scans, and for a name that
            images of another patient have too, even if those are not in the key.
        """
        if kind in ("folder", "folder_name"):
            rows = pd.DataFrame({"name": self.key["file"].str.rpartition("/")[0], "slice": NOWHERE, "scan": self.scan})
            rows = rows.drop_duplicates()
            above = {folder: folders_of(f"{folder}/") if kind == "folder" else folder.split("/") for folder in set(rows["name"])}
            rows = rows.assign(name=rows["name"].map(above)).explode("name")
        else:
            slices = np.arange(len(self.key)) if kind in SLICE_KEYS else NOWHERE
            rows = pd.DataFrame({"name": self.key[kind], "slice": slices, "scan": self.scan})
        if kind in SLICE_KEYS:
            rows = pd.concat([rows, _whole_files(rows)])
        if SHARED in self.key and self.key[SHARED].any():
            is_shared = self.key[SHARED].str.split().map(lambda kinds: kind in kinds)
            rows.loc[is_shared[rows.index].to_numpy(bool), ["slice", "scan"]] = SEVERAL
        rows = rows[rows["name"] != ""].drop_duplicates()
        rows.loc[rows.duplicated("name", keep=False), ["slice", "scan"]] = SEVERAL
        return rows.drop_duplicates("name", ignore_index=True)


def _whole_files(rows: pd.DataFrame) -> pd.DataFrame:
    """List the files that hold several slices, each as a name of its whole scan."""
    files = rows[rows["name"].str.contains(SLICE_MARK, regex=False)]
    files = files.assign(name=files["name"].str.replace(rf"{SLICE_MARK}\d+$", "", regex=True), slice=NOWHERE)
    files = files.drop_duplicates()
    taken = rows["name"][rows["name"].isin(files["name"])]  # slices whose own file has such a name
    return files[~files["name"].isin(taken)]
