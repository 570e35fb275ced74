"""The input of every evaluation: probabilities with their labels, checked on entry."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ich_lstm.archive.folder.file_names import SCANS, SLICES
from ich_lstm.data.split.assign import SUBSETS, Subset
from ich_lstm.data.tables.labelled import stop_at
from ich_lstm.errors import ConfigError, TableError
from ich_lstm.files.csv_table import plain_table
from ich_lstm.files.untrusted import read_json
from ich_lstm.formatting import first_of
from ich_lstm.labels import LABELS

LABEL_PREFIX = "label_"
ENCODER_PREFIX = "encoder_"

PREDICTIONS = Path("predictions")
"""The folder of a run that holds both tables."""

IDS = ("scan_id", "slice_id", "patient_id", "split", "flags", "status")
"""Columns that are read as text, because a hash may consist of digits alone."""

FIRST_LINE = 2
"""The line of row 0 in a CSV file; the header is line 1."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """Probabilities with labels. The patient of every scan is known, and all of its slices are present.

    Args:
        slices: One row per slice; the slices of a scan are consecutive and in order. ``scan_id, slice`` (from 1), ``slice_id``,
            ``position_mm, patient_id`` (hashed), the probabilities, the labels (``label_``; NaN: unknown), and the encoder's own
            probabilities (``encoder_``) if the model has a recurrent head.
        scans: One row per scan, in the order of the slices: ``scan_id, patient_id``, the probabilities, the labels; further
            columns are strata.
        source: Origin of the predictions, without private information: ``kind``, ``model``, ``part``, ``truth``, ``counts`` (what
            was read, and what was excluded and why) and ``notes``.
        is_test: Whether these are held-out patients or another data set, on which nothing may be chosen.
    """

    slices: pd.DataFrame = field(repr=False)
    scans: pd.DataFrame = field(repr=False)
    source: Mapping[str, Any]
    is_test: bool

    @property
    def has_encoder(self) -> bool:
        """Whether the evidence holds the encoder's own probabilities."""
        return all(ENCODER_PREFIX + label in self.slices for label in LABELS)

    @property
    def scan_index(self) -> np.ndarray:
        """The row of each slice's scan, ``(n,)``, in ascending order."""
        return pd.Index(self.scans["scan_id"]).get_indexer(pd.Index(self.slices["scan_id"]))


def read_run(folder: Path | str, subset: Subset = "test") -> Evidence:
    """Read the predictions of a run that ``ich-train`` made.

    Args:
        folder: The run's folder, or its folder of predictions.
        subset: The subset to evaluate: ``test`` for held-out patients, ``validation`` for the validation set (used for model
            selection).

    Raises:
        TableError: If files or columns are missing, or a row is malformed.
    """
    folder = Path(folder)
    place = folder / PREDICTIONS if (folder / PREDICTIONS).is_dir() else folder
    tables = {name: read_predictions(place / name) for name in (SLICES, SCANS)}
    for name, frame in tables.items():
        _check_columns(str(place / name), frame, ["scan_id"])
        there = set(frame["split"]) if "split" in frame else set()
        if subset not in there:
            raise TableError(
                "no_such_part",
                where=str(place / name),
                got=f"subsets {', '.join(sorted(there)) or 'without a name'}",
                expected=f"rows whose split is {subset}",
                todo=f"Name another subset with --part ({', '.join(SUBSETS[1:])}). A split of too few patients holds none out.",
            )
    slices, scans = (frame[frame["split"] == subset].drop(columns="split") for frame in tables.values())
    other = {name: int((tables[SCANS]["split"] == name).sum()) for name in SUBSETS if name != subset}
    source = {
        "kind": "run",
        "model": _model_of(folder if place != folder else folder.parent),
        "part": subset,
        "truth": "",
        "counts": {f"scans_of_{name}_not_judged": count for name, count in other.items() if count},
        "notes": [],
    }
    return make_evidence(slices, scans, source, is_test=subset == "test", where=str(place))


def read_predictions(path: Path) -> pd.DataFrame:
    """Read a table of predictions; its index plus `FIRST_LINE` is the line of each row in the file.

    Raises:
        TableError: If the file is missing, is not a CSV, or has no rows.
    """
    try:
        frame = pd.read_csv(
            path,
            dtype=dict.fromkeys(IDS, str),
            low_memory=False,  # otherwise pandas infers a column's type separately in every chunk
            encoding="utf-8-sig",
        )
    except FileNotFoundError as error:
        raise TableError(
            "missing_predictions",
            where=str(path),
            got="no such file",
            expected=f"{SLICES} and {SCANS}, in a folder of ich-predict or below {PREDICTIONS}/ of a run",
            todo="Name the folder that ich-train or ich-predict made.",
        ) from error
    except (OSError, ValueError) as error:
        raise TableError(
            "unreadable_table", where=str(path), got=" ".join(str(error).split()), expected="a CSV in UTF-8"
        ) from error
    if not len(frame):
        raise TableError("no_rows", where=str(path), got="a header and no rows", expected="a row for each prediction")
    texts = [column for column in IDS if column in frame]
    frame[texts] = plain_table(frame[texts].fillna(""))
    return frame


def make_evidence(
    slices: pd.DataFrame, scans: pd.DataFrame, source: Mapping[str, Any], *, is_test: bool, where: str = "predictions"
) -> Evidence:
    """Check predictions with their labels, and sort them.

    Args:
        slices: Rows of slices with the columns of `Evidence`, in any order, without patients; the index plus 2 is the row's line
            in messages.
        scans: Rows of scans with the columns of `Evidence`, in any order; the index plus 2 is the row's line in messages.
        source: Origin of the predictions; the numbers of scans, slices and patients, and of unknown labels, are added to its
            counts.
        is_test: Whether these are held-out patients or another data set, on which nothing may be chosen.
        where: The folder of the predictions, for messages.

    Raises:
        TableError: If columns are missing, rows are repeated, slices and scans do not match, a probability is NaN or
            outside [0, 1], a label is not 0, 1 or unknown, or the patient of a scan is unknown.
    """
    names = {"slices": f"{where}/{SLICES}", "scans": f"{where}/{SCANS}"}
    _check_columns(names["slices"], slices, ["scan_id", "slice"])
    _check_columns(names["scans"], scans, ["scan_id", "patient_id"])
    check_unique(names["slices"], slices, ["scan_id", "slice"])
    check_unique(names["scans"], scans, ["scan_id"])
    _check_values(names["slices"], slices)
    _check_values(names["scans"], scans)
    nameless = scans["patient_id"].isin(["", np.nan]).to_numpy()
    if nameless.any():
        got, expected = "scans without a patient", "the patient of each scan, because cases of one patient are not independent"
        todo = "Give the patients in the column patient_id of the label table."
        stop_at(names["scans"], scans.index[nameless] + FIRST_LINE, "unknown_patients", got, expected, todo=todo)
    _check_fit(names, slices, scans)
    order = scans.sort_values("scan_id", ignore_index=True)
    slices = slices.sort_values(["scan_id", "slice"], ignore_index=True)
    patients = order.set_index("scan_id")["patient_id"]
    slices = slices.assign(patient_id=slices["scan_id"].map(patients))
    counts = {"scans": len(order), "slices": len(slices), "patients": int(patients.nunique())}
    unknown = {
        f"{level}_without_any_label": int(_labels(frame).isna().all(axis=1).sum())
        for level, frame in (("slices", slices), ("scans", order))
    }
    source = {**source, "counts": {**source.get("counts", {}), **counts, **unknown}}
    return Evidence(slices, order, source, is_test)


def check_unseen(patients: Collection[str], trained_on: Collection[str], *, where: str) -> None:
    """Check that a model is not evaluated on patients of its training or validation set.

    Args:
        patients: Raw ids of the patients to evaluate.
        trained_on: Raw ids of the patients of the training and validation sets.
        where: The predictions or the data, for the message.

    Raises:
        ConfigError: If patients are in both, with the code ``trained_on``.
    """
    seen = set(patients) & set(trained_on) - {""}
    if seen:
        raise ConfigError(
            "trained_on",
            where=where,
            got=f"{len(seen)} of {len(set(patients))} patients of the model's training or validation set",
            expected="patients whom the model has never seen",
            todo="Evaluate the run's own held-out patients: ich-evaluate RUN.",
        )


def columns_of(frame: pd.DataFrame, prefix: str) -> np.ndarray:
    """Take the columns of all labels with one prefix as an array ``(m, k)``; the prefix is empty, ``encoder_`` or ``label_``."""
    return frame[[prefix + label for label in LABELS]].to_numpy(dtype=np.float64)


def check_unique(where: str, frame: pd.DataFrame, key: list[str]) -> None:
    """Check that no row is repeated.

    Args:
        where: The file, for the message.
        frame: The rows of the file.
        key: The columns that identify a row.

    Raises:
        TableError: If a row is repeated.
    """
    repeated = frame.duplicated(key)
    if repeated.any():
        got = f"rows that repeat the {' and '.join(key)} of an earlier row"
        stop_at(where, frame.index[repeated] + FIRST_LINE, "repeated_rows", got, "each once", todo="Predict each study once.")


def _check_columns(where: str, frame: pd.DataFrame, ids: list[str]) -> None:
    missing = [name for name in (*ids, *LABELS, *(LABEL_PREFIX + label for label in LABELS)) if name not in frame]
    if missing:
        unlabelled = all(name.startswith(LABEL_PREFIX) for name in missing)
        raise TableError(
            "no_labels" if unlabelled else "missing_columns",
            where=where,
            got=f"no column {first_of(missing)}",
            expected="probabilities and labels" if unlabelled else "the columns that ich-train and ich-predict write",
            todo="Give the labels with --labels CSV." if unlabelled else "Name the folder that ich-train or ich-predict made.",
        )


def _check_values(where: str, frame: pd.DataFrame) -> None:
    prefixes = ["", ENCODER_PREFIX] if ENCODER_PREFIX + LABELS[0] in frame else [""]
    for columns in ([prefix + label for label in LABELS] for prefix in prefixes):
        p = _numbers(frame, columns)
        wrong = ~((p >= 0) & (p <= 1))  # also True for NaN
        if wrong.any():
            got = f"the probability {_first(frame[columns], wrong)}"
            todo = "Give probabilities, not logits, and one for every case."
            stop_at(where, frame[wrong.any(axis=1)].index + FIRST_LINE, "bad_probability", got, "numbers from 0 to 1", todo=todo)
    columns = [LABEL_PREFIX + label for label in LABELS]
    y = _numbers(frame, columns)
    wrong = ~((y == 0) | (y == 1)) & frame[columns].notna().to_numpy()
    if wrong.any():
        got = f"the label {_first(frame[columns], wrong)}"
        lines = frame[wrong.any(axis=1)].index + FIRST_LINE
        stop_at(where, lines, "bad_label", got, "0, 1 or an empty cell", todo="Correct the labels.")


def _check_fit(names: Mapping[str, str], slices: pd.DataFrame, scans: pd.DataFrame) -> None:
    """Stop at slices without their scan and at scans without slices."""
    places = pd.Index(scans["scan_id"]).get_indexer(pd.Index(slices["scan_id"]))
    todo = f"Use {SLICES} and {SCANS} of one folder, unchanged."
    lonely = slices[places < 0]
    if len(lonely):
        got = "slices of scans that are missing"
        stop_at(names["slices"], lonely.index + FIRST_LINE, "unknown_scans", got, f"their scans in {SCANS}", todo=todo)
    empty = scans[np.bincount(places, minlength=len(scans)) == 0]
    if len(empty):
        got, expected = "scans without a slice", f"their slices in {SLICES}"
        stop_at(names["scans"], empty.index + FIRST_LINE, "missing_slices", got, expected, todo=todo)


def _numbers(frame: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """The columns as float64, NaN where there is no number."""
    return frame[columns].apply(pd.to_numeric, errors="coerce").to_numpy(dtype=np.float64)


def _first(cells: pd.DataFrame, wrong: np.ndarray) -> str:
    """The first wrong cell, as in the file."""
    return str(cells.to_numpy(dtype=object)[wrong][0])


def _labels(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[[LABEL_PREFIX + label for label in LABELS]]


def _model_of(folder: Path) -> dict[str, str]:
    """Name and hash of a run's model; empty if the run no longer has a model."""
    try:
        about = read_json(folder / "model" / "model.json")
        return {name: str(about[name]) for name in ("name", "hash")}
    except (OSError, ValueError, KeyError):
        return {}
