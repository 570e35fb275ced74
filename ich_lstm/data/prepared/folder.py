"""A prepared folder: cached scans, and the private table that maps their ids to identities."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from ich_lstm.data.prepared.file_names import slice_name
from ich_lstm.data.prepared.images import ImageTable
from ich_lstm.errors import SourceError
from ich_lstm.files.atomic_write import write_text
from ich_lstm.files.csv_table import plain_table
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.printable import printable
from ich_lstm.privacy import PRIVATE, ProjectKey
from ich_lstm.reading import Ledger, SliceHeader
from ich_lstm.reading.header.examinations import identity_of
from ich_lstm.settings import differences, refuse_differences

MANIFEST = "manifest.json"
KEY_TABLE = "key.parquet"
SCANS_TABLE = "scans.parquet"
EXCLUDED_TABLE = "left_out.parquet"  # the name that folders on disk have
LEDGER_TABLE = "ledger.csv"
CACHE_FOLDER = "cache"

NO_LABEL = "no_label"
"""The code in the ledger of series that no label references."""

UNPREPARED_COLUMNS = ["path", "sop_uid", "series_uid", "action", "code"]
"""The columns of `PreparedFolder.unprepared`."""

KEY_COLUMNS = (
    "scan_id",
    "slice",
    "slice_id",
    "patient_id",
    "study_uid",
    "accession_number",
    "study_date",
    "series_uid",
    "sop_uid",
    "file",
    "shared",
)
"""The columns of the key tables, here and in predictions."""


class PreparedScan(NamedTuple):
    """A scan in a prepared folder.

    Args:
        scan_id: Keyed hash of the series.
        patient_id: Raw patient id; it stays in memory and in ``private/``.
        series_uid: Raw series UID; for a scan joined from several series, that of its lowest slice.
        study_uid: Raw study UID; it stays in memory and in ``private/``.
        cache_path: The path of the scan's cached HU.
        slices: Rows of the key table, inferior to superior: ``slice_id``, ``sop_uid``, ``file``, ``hu_hash``,
            ``accession_number``, ``study_date`` and the other `KEY_COLUMNS`.
    """

    scan_id: str
    patient_id: str
    series_uid: str
    study_uid: str
    cache_path: Path
    slices: pd.DataFrame


@dataclass(frozen=True, eq=False)
class PreparedFolder:
    """The output of `prepare`: ``cache/``, ``manifest.json`` and, in ``private/``, the ledger and the key to all ids.

    Args:
        folder: The path of the folder.
        preprocessing: How its scans were prepared.
        key: One row per slice: `KEY_COLUMNS`, ``cache`` (the name of the scan's file) and ``hu_hash`` (32 hexadecimal digits that
            only slices with equal HU share; empty for a slice of one value).
        manifest: Counts and settings, without any identity.
        tables: Tables of ``private/`` that are in memory already, by the name of their file; other tables are read on demand.
    """

    folder: Path
    preprocessing: Preprocessing
    key: pd.DataFrame = field(repr=False)
    manifest: dict[str, Any] = field(repr=False)
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict, repr=False)

    @classmethod
    def is_one(cls, folder: Path) -> bool:
        """Whether a folder was made by `prepare`."""
        return (folder / MANIFEST).is_file() and (folder / PRIVATE / KEY_TABLE).is_file()

    @classmethod
    def open(cls, folder: Path) -> "PreparedFolder":
        """Read what `prepare` wrote.

        Raises:
            SourceError: If the folder was not made by `prepare`, or its files are damaged.
        """
        try:
            manifest = json.loads((folder / MANIFEST).read_text())
            preprocessing = Preprocessing(**manifest["preprocessing"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _not_prepared(folder, MANIFEST, error) from error
        return cls(folder, preprocessing, _read_private(folder, KEY_TABLE), manifest)

    def _table(self, name: str) -> pd.DataFrame:
        return self.tables[name] if name in self.tables else _read_private(self.folder, name)

    @property
    def cache(self) -> Path:
        """The folder of the cached scans."""
        return self.folder / CACHE_FOLDER

    @cached_property
    def facts(self) -> pd.DataFrame:
        """One row per scan, in the order of `scans`; private.

        Columns: ``scan_id, cache, patient_id, study_uid, series_uid``; ``series_in_study``; ``slices, rows, columns`` (of the
        images as they were read); ``slice_mm`` (median distance between slices), ``thickness_mm`` (NaN if unknown), ``pixel_mm``;
        ``tilt_degrees``; ``hu_p1, hu_p50, hu_p99`` (percentiles of the HU in the middle half of the slices);
        ``brain_hu, brain_spread_hu`` (median and interquartile range of the HU between 0 and 80 there); ``kernel``,
        ``manufacturer`` (empty if unknown); ``flags`` (codes separated by blanks). Folders of earlier versions lack the columns
        from ``brain_hu`` to ``manufacturer``.
        """
        return self._table(SCANS_TABLE)

    @cached_property
    def images(self) -> ImageTable:
        """The images that labels may reference.

        Always excluded are SOP UIDs, series UIDs and files that were refused or that belong to slices missing from their scan;
        and for studies without a usable series also study UIDs, accession numbers and folders. Slices of series that were not
        chosen are excluded only if a label references their whole study. Studies that no label references are not excluded,
        because they could have been prepared.
        """
        return ImageTable(self.key, self._table(EXCLUDED_TABLE))

    @cached_property
    def unprepared(self) -> pd.DataFrame:
        """The rows of the ledger about files that were refused, or whose series no label references.

        Columns: ``path, sop_uid, series_uid, action, code``.
        """
        return self.tables[LEDGER_TABLE] if LEDGER_TABLE in self.tables else _read_unprepared(self.folder)

    @cached_property
    def scans(self) -> list[PreparedScan]:
        """Every scan, in the order of the key table."""
        return [
            PreparedScan(
                scan_id=rows["scan_id"].iloc[0],
                patient_id=rows["patient_id"].iloc[0],
                series_uid=rows["series_uid"].iloc[0],
                study_uid=rows["study_uid"].iloc[0],
                cache_path=self.cache / str(cache),
                slices=rows,
            )
            # Not by scan_id, because two kernels under one series UID are two scans.
            for cache, rows in self.key.groupby("cache", sort=False)
        ]


def name_private(folder: Path, name: str) -> None:
    """Add a file of ``private/`` to the manifest of a prepared folder.

    Args:
        folder: The prepared folder.
        name: The name of the file.
    """
    manifest = json.loads((folder / MANIFEST).read_text())
    named = f"{PRIVATE}/{name}"
    if named not in manifest["private"]:
        manifest["private"].append(named)
        write_text(folder / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def _read_private(folder: Path, table: str) -> pd.DataFrame:
    try:
        return pd.read_parquet(folder / PRIVATE / table)
    except (OSError, ValueError) as error:
        raise _not_prepared(folder, f"{PRIVATE}/{table}", error) from error


def _read_unprepared(folder: Path) -> pd.DataFrame:
    # Arrow's reader, because only few of RSNA's 750,000 rows are needed and pandas reads text slowly.
    ledger = csv.read_csv(
        folder / PRIVATE / LEDGER_TABLE,
        parse_options=csv.ParseOptions(newlines_in_values=True),
        convert_options=csv.ConvertOptions(
            include_columns=UNPREPARED_COLUMNS,
            column_types=dict.fromkeys(UNPREPARED_COLUMNS, pa.string()),
            strings_can_be_null=False,
        ),
    )
    wanted = pc.or_(pc.equal(ledger["action"], "refused"), pc.equal(ledger["code"], NO_LABEL))
    rows = plain_table(ledger.filter(wanted).to_pandas())
    return rows.assign(path=rows["path"].map(printable)).astype(str)


def unprepared_rows(ledger: Ledger) -> pd.DataFrame:
    """The rows of `PreparedFolder.unprepared`, taken from a ledger in memory."""
    rows = [
        (printable(row.path), row.sop_uid, row.series_uid, row.action, row.code)
        for row in ledger.rows()
        if row.action == "refused" or row.code == NO_LABEL
    ]
    return pd.DataFrame(rows, columns=UNPREPARED_COLUMNS, dtype=str)


def _not_prepared(folder: Path, file: str, error: Exception) -> SourceError:
    return SourceError(
        "not_prepared",
        where=str(folder),
        got=f"{type(error).__name__}: {error}",
        expected=f"a readable {file}",
        todo="Prepare the folder with ich-prepare.",
    )


def key_rows(key: ProjectKey, scan_id: str, headers: Sequence[SliceHeader], root: Path, *, shared: str = "") -> pd.DataFrame:
    """Tabulate the identifiers of one scan, a row per slice, inferior to superior. Private.

    Args:
        key: The project's key, from which ids are made.
        scan_id: Keyed hash of the scan's series.
        headers: The headers of the scan's slices, inferior to superior.
        root: The folder to which names of files are relative.
        shared: Kinds of names that another patient's images have too, in the format of `shared_kinds`; labels must not use them.

    Raises:
        SeriesError: If the slices are not those of one examination of one patient.
    """
    identity = identity_of(headers)
    return pd.DataFrame(
        {
            "scan_id": scan_id,
            "slice": np.arange(1, len(headers) + 1),
            "slice_id": [key.hash_id(header.sop_uid) for header in headers],
            "patient_id": identity.patient_id,
            "study_uid": identity.study_uid,
            "accession_number": identity.accession_number,
            "study_date": identity.study_date,
            "series_uid": [header.series_uid for header in headers],  # a joined scan has more than one
            "sop_uid": [header.sop_uid for header in headers],
            "file": [slice_name(header, root) for header in headers],
            "shared": shared,
        }
    )


def settle_preprocessing(root: Path | None, requested: Preprocessing | None = None) -> Preprocessing:
    """Determine how scans are prepared: as in the prepared folder if there is one, otherwise as requested.

    Args:
        root: The path of the data; None if it is not known yet.
        requested: How to prepare scans; None: as in the prepared folder if there is one, otherwise `Preprocessing`'s defaults.

    Raises:
        ConfigError: If something else is requested than the prepared folder has, with the code ``other_preprocessing``.
    """
    if root is None or not PreparedFolder.is_one(root):
        return requested or Preprocessing()
    prepared = PreparedFolder.open(root).preprocessing
    refuse_differences(
        "other_preprocessing",
        differences(prepared, requested or prepared),
        where="data.preprocessing.",
        whose=f"as {root.name} was prepared",
        todo="Leave data.preprocessing out (null), or prepare the scans again with these settings: ich-prepare.",
    )
    return prepared
