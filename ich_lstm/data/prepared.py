"""A prepared folder: cached scans, and the key to their ids."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.errors import SourceError
from ich_lstm.pixels.preprocess import Preprocessing
from ich_lstm.privacy import ProjectKey
from ich_lstm.reading import FileRef, SliceHeader
from ich_lstm.reading.ledger import printable

MANIFEST = "manifest.json"
KEY_TABLE = "key.parquet"
LEDGER_TABLE = "ledger.csv"

KEY_COLUMNS = ("scan_id", "slice", "slice_id", "patient_id", "study_uid", "series_uid", "sop_uid", "file")
"""Of the key tables, here and in predictions."""


class PreparedScan(NamedTuple):
    """A scan in a prepared folder.

    Args:
        scan_id: Keyed hash of the series.
        patient_id: Raw; stays in memory and in ``private/``.
        series_uid: Raw.
        study_uid: Raw.
        cache_path: Its cached HU.
        slices: Rows of the key table, inferior to superior: ``slice_id``, ``sop_uid``, ``file``.
    """

    scan_id: str
    patient_id: str
    series_uid: str
    study_uid: str
    cache_path: Path
    slices: pd.DataFrame


@dataclass(frozen=True)
class PreparedFolder:
    """What `prepare` made: ``cache/``, ``manifest.json`` and, in ``private/``, the ledger and the key to all ids.

    Args:
        folder: The folder.
        preprocessing: How its scans were prepared.
        key: One row per slice: ``scan_id, slice, slice_id, patient_id, study_uid, series_uid, sop_uid, file, cache``.
        manifest: Counts and settings, without any identity.
    """

    folder: Path
    preprocessing: Preprocessing
    key: pd.DataFrame = field(repr=False)
    manifest: dict[str, Any] = field(repr=False)

    @classmethod
    def is_one(cls, folder: Path) -> bool:
        """Whether a folder was made by `prepare`."""
        return (folder / MANIFEST).is_file() and (folder / "private" / KEY_TABLE).is_file()

    @classmethod
    def open(cls, folder: Path) -> "PreparedFolder":
        """Read what `prepare` wrote.

        Raises:
            SourceError: If the folder was not made by `prepare`, or its files are damaged.
        """
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            key = pd.read_parquet(folder / "private" / KEY_TABLE)
            return cls(folder, Preprocessing(**manifest["preprocessing"]), key, manifest)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SourceError(
                "not_prepared",
                where=str(folder),
                got=f"{type(error).__name__}: {error}",
                expected=f"a folder with {MANIFEST} and private/{KEY_TABLE}",
                todo="Make it with ich-prepare.",
            ) from error

    @cached_property
    def left_out(self) -> frozenset[str]:
        """SOP and series UIDs that labels may name in vain: of what was refused, and of slices left out of a scan.

        Not those of series that were passed over: these could have been prepared.
        """
        columns = ["sop_uid", "series_uid", "action"]
        ledger = pd.read_csv(self.folder / "private" / LEDGER_TABLE, usecols=columns, dtype=str, keep_default_na=False)
        refused = ledger[ledger["action"] == "refused"]
        cut = ledger[(ledger["action"] == "skipped") & ledger["series_uid"].isin(self.key["series_uid"])]
        return frozenset(refused["sop_uid"]) | frozenset(refused["series_uid"]) | frozenset(cut["sop_uid"])

    @cached_property
    def scans(self) -> list[PreparedScan]:
        """Every scan, in the order of the key table."""
        return [
            PreparedScan(
                scan_id=rows["scan_id"].iloc[0],
                patient_id=rows["patient_id"].iloc[0],
                series_uid=rows["series_uid"].iloc[0],
                study_uid=rows["study_uid"].iloc[0],
                cache_path=self.folder / "cache" / str(cache),
                slices=rows,
            )
            # Not by scan_id: two kernels under one series UID are two scans.
            for cache, rows in self.key.groupby("cache", sort=False)
        ]


def relative_name(source: FileRef, root: Path) -> str:
    """A file as label tables name it: relative to the root, with ``/``; a zip counts as a folder."""
    base = root if root.is_dir() else root.parent
    name = Path(os.path.relpath(source.path, base)).as_posix()
    name = name if source.member is None else f"{name}/{source.member}"
    return printable(name)


def folders_of(name: str) -> list[str]:
    """All folders above a file: ``a/b/c.dcm`` gives ``a`` and ``a/b``."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]


def key_rows(key: ProjectKey, scan_id: str, headers: Sequence[SliceHeader], root: Path) -> pd.DataFrame:
    """The key to the ids of one scan, a row per slice, inferior to superior. Private.

    Args:
        key: The project's key.
        scan_id: The scan's id.
        headers: The scan's slices in order.
        root: What the files are named relative to.
    """
    first = headers[0]
    return pd.DataFrame(
        {
            "scan_id": scan_id,
            "slice": np.arange(1, len(headers) + 1),
            "slice_id": [key.hash_id(header.sop_uid) for header in headers],
            "patient_id": first.patient_id,
            "study_uid": first.study_uid,
            "series_uid": first.series_uid,
            "sop_uid": [header.sop_uid for header in headers],
            "file": [relative_name(header.source, root) for header in headers],
        }
    )
