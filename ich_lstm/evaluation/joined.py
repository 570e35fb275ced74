"""Joins the predictions of `ich-predict` to a label table by the private key of ids."""

import json
from collections.abc import Collection
from pathlib import Path, PurePath

import numpy as np
import pandas as pd

from ich_lstm.archive.folder.file_names import KEY_TABLE, LEDGER_TABLE, MANIFEST, PREDICTED, SCANS, SERIES_TABLE, SLICES
from ich_lstm.data.joining.join import Disagreement, JoinedLabels, PatientIds, join_labels
from ich_lstm.data.joining.locate import LocatedLabels, locate_labels
from ich_lstm.data.prepared.folder import KEY_COLUMNS
from ich_lstm.data.prepared.images import NOWHERE, ImageTable
from ich_lstm.data.tables.labelled import LabelTable, Unmatched, name_lines, stop_at
from ich_lstm.errors import ConfigError, TableError
from ich_lstm.evaluation.evidence import (
    FIRST_LINE,
    LABEL_PREFIX,
    Evidence,
    check_unique,
    check_unseen,
    make_evidence,
    read_predictions,
)
from ich_lstm.files.csv_table import plain_table
from ich_lstm.labels import LABELS
from ich_lstm.privacy import PRIVATE, ProjectKey

STATUS = "status"

NO_PREDICTION = ("labels_without_prediction", "labels of images that were neither predicted nor refused")
"""Code and finding of the error about labels whose image has no prediction."""


def join_predictions(
    folder: Path | str,
    table: LabelTable,
    key: Path | str | None = None,
    *,
    project_key: ProjectKey,
    truth: str = "",
    unmatched: Unmatched = "stop",
    patient_ids: PatientIds = "checked",
    trained_on: Collection[str] = (),
    disagreement: Disagreement = "stop",
) -> Evidence:
    """Join labels to the predictions of `ich-predict`.

    Refused scans have no probability and are not evaluated; the figures state their number by reason.

    Args:
        folder: The folder with ``slices.csv`` and ``scans.csv``.
        table: The labels to join.
        key: The private key to the ids; by default ``private/key.csv`` in the folder.
        project_key: The project key with which the predictions were made; it hashes the ids of patients that the table names.
        truth: The rule by which several readers made the labels; it is only recorded.
        unmatched: What may be excluded: ``labels`` of images that were neither predicted nor refused, predictions of ``images``
            that have no label, or ``both``.
        patient_ids: How patients are found where the table does not name them, see `join_labels`.
        disagreement: What to do where labels of a scan contradict those of its slices, see `join_labels`.
        trained_on: Raw ids of the patients of the training and validation sets. If empty, they are unknown, and the evidence
            notes that this was not checked.

    Raises:
        TableError: If labels and predictions do not match.
        ConfigError: If the predictions were made with another project key, or the model was trained on some of the patients.
    """
    folder = Path(folder)
    slices, scans = (read_predictions(folder / name) for name in (SLICES, SCANS))
    if STATUS not in scans:
        raise TableError(
            "labelled_already",
            where=str(folder / SCANS),
            got=f"no column {STATUS}",
            expected="predictions of ich-predict",
            todo="The predictions of a run include their labels. Name the run's folder without --labels.",
        )
    refused = scans[scans[STATUS] != PREDICTED]
    scans = scans[scans[STATUS] == PREDICTED].drop(columns=STATUS)
    check_unique(str(folder / SLICES), slices, ["scan_id", "slice"])
    check_unique(str(folder / SCANS), scans, ["scan_id"])
    names = read_key(Path(key) if key else folder / PRIVATE / KEY_TABLE)
    _check_key(folder, slices, scans, names, project_key)
    located = locate_labels(table, ImageTable(names, _excluded_names(folder / PRIVATE)))
    missing = located.unmatched
    if missing.any() and (located.scan == NOWHERE).all():
        code, got = NO_PREDICTION
        todo = "Give the labels of the predicted images; none of the labelled images was predicted."
        stop_at(table.source, table.rows["line"][missing], code, got, "a prediction of every labelled image", todo=todo)
    joined = join_labels(located, patient_ids=patient_ids, disagreement=disagreement)
    check_unseen(set(joined.patient_ids[joined.is_labelled]), trained_on, where=str(folder))
    slice_labels, scan_labels = _label_frames(joined, project_key)
    labelled = scan_labels["scan_id"]
    unlabelled = ~scans["scan_id"].isin(labelled)
    _stop_at_unmatched(table, missing, folder / SCANS, scans.index[unlabelled], unmatched)
    scan_labels = scan_labels.merge(_strata(located), on="scan_id", how="left")
    counts = {
        "labels": len(table),
        "labels_of_excluded_images": int(located.excluded.sum()),
        "labels_without_prediction": int(missing.sum()),
        "scans_refused": refused[STATUS].value_counts().sort_index().to_dict(),
        "scans_without_labels_not_judged": int(unlabelled.sum()),
    }
    source = {
        "kind": "predictions",
        "is_unseen": bool(trained_on),
        "model": _model_of(folder),
        "part": "",
        "truth": truth,
        "counts": counts,
        "notes": list(table.flags),
    }
    return make_evidence(
        _with_labels(slices[slices["scan_id"].isin(labelled)], slice_labels, ["scan_id", "slice"]),
        _with_labels(scans.drop(columns="patient_id"), scan_labels, ["scan_id"]),
        source,
        is_test=True,
        where=str(folder),
    )


def read_key(path: Path) -> pd.DataFrame:
    """Read the key to the ids of predictions, with the columns of a prepared folder's key.

    Raises:
        TableError: If the key is missing or malformed.
    """
    try:
        key = plain_table(pd.read_csv(path, dtype=str, keep_default_na=False))
    except FileNotFoundError as error:
        raise TableError(
            "missing_key",
            where=str(path),
            got="no such file",
            expected="the key to the ids, which ich-predict wrote",
            todo=f"Name it with --key. ich-predict writes it to {PRIVATE}/{KEY_TABLE} in the folder of predictions.",
        ) from error
    except (OSError, ValueError) as error:
        raise TableError(
            "unreadable_table", where=str(path), got=" ".join(str(error).split()), expected="a CSV in UTF-8"
        ) from error
    missing = {"scan_id", "slice", "sop_uid"} - set(key.columns)
    if missing or not key.get("slice", pd.Series(dtype=str)).str.fullmatch(r"\d+").all():
        got = f"no column {', '.join(sorted(missing))}" if missing else "slices that are not numbers"
        raise TableError("bad_key", where=str(path), got=got, expected="a key that ich-predict wrote")
    key = key.assign(slice=key["slice"].astype(int)).sort_values(["scan_id", "slice"], ignore_index=True)
    # Predictions have no cached scan, so the scan's id replaces the name of its file.
    return key.reindex(columns=[*KEY_COLUMNS, "hu_hash"], fill_value="").assign(cache=key["scan_id"])


def _check_key(folder: Path, slices: pd.DataFrame, scans: pd.DataFrame, key: pd.DataFrame, project_key: ProjectKey) -> None:
    """Check that the key names the slices that were predicted, and that the project key gives the ids of their patients."""
    rows = slices[["scan_id", "slice"]].merge(key[["scan_id", "slice"]], how="outer", indicator=True)
    alone = rows["_merge"].value_counts()
    if alone["left_only"] or alone["right_only"]:
        raise TableError(
            "key_does_not_fit",
            where=str(folder),
            got=f"{alone['left_only']} slices that the key does not name, {alone['right_only']} that only the key names",
            expected="the key that was written with these predictions",
            todo="Name the correct key with --key.",
        )
    patients = key.drop_duplicates("scan_id").set_index("scan_id")["patient_id"]
    hashed = scans.set_index("scan_id")["patient_id"]
    both = patients[(patients != "") & (hashed.reindex(patients.index, fill_value="") != "")]
    if len(both) and project_key.hash_id(both.iloc[0]) != hashed[both.index[0]]:
        raise ConfigError(
            "other_project_key",
            where="--project-key",
            got="a project key whose ids differ from those of the predictions",
            expected="the project key that ich-predict used",
            todo="Name its file with --project-key.",
        )


def _stop_at_unmatched(table: LabelTable, missing: np.ndarray, scans: Path, unlabelled: pd.Index, unmatched: Unmatched) -> None:
    """Stop if there are labels without a prediction or predictions without a label; the error names both.

    Args:
        table: The labels that were joined.
        missing: Whether each row of labels names an image that was neither predicted nor refused, bool ``(rows,)``.
        scans: Path of the table of predictions.
        unlabelled: Index of the predictions that have no label.
        unmatched: What may be excluded, see `join_predictions`.
    """
    no_image = bool(missing.any()) and unmatched not in ("labels", "both")
    no_label = len(unlabelled) > 0 and unmatched not in ("images", "both")
    got, expected = "predictions without a label", "labels of every scan that was predicted"
    if no_image:
        also = f"; and {len(unlabelled)} {got}, {name_lines(unlabelled + FIRST_LINE)} of {scans.name}" if no_label else ""
        todo = f"Predict these images too; or, to exclude them on purpose, say --unmatched {'both' if no_label else 'labels'}."
        code, what = NO_PREDICTION
        both = "a prediction of every labelled image" + (f", and {expected}" if no_label else "")
        lines = table.rows["line"][missing]
        raise TableError(
            code,
            where=f"{table.source}, {name_lines(lines)}",
            got=f"{what} ({len(lines)} rows){also}",
            expected=both,
            todo=todo,
        )
    if no_label:
        todo = "Add the labels, or exclude these scans on purpose: --unmatched images."
        stop_at(scans, unlabelled + FIRST_LINE, "unlabelled_scans", got, expected, todo=todo)


def _excluded_names(private: Path) -> pd.DataFrame:
    """The studies, series, images and folders that labels may reference although they were not predicted; see `ImageTable`."""
    names: set[str] = set()
    for name, column, predicted in ((LEDGER_TABLE, "action", "used"), (SERIES_TABLE, "read", "True")):
        if not (private / name).is_file():
            continue
        rows = plain_table(pd.read_csv(private / name, dtype=str, keep_default_na=False))
        rows = rows[rows[column] != predicted]
        for ids in {"study_uid", "series_uid", "sop_uid"} & set(rows.columns):
            names |= set(rows[ids])
        if "path" in rows:
            names |= {folder for path in rows["path"] for folder in PurePath(path).parts[:-1]}
    return pd.DataFrame({"name": sorted(names - {""}), "study_uid": ""}, dtype=object)


def _label_frames(joined: JoinedLabels, project_key: ProjectKey) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tabulate the labels of labelled scans: those of slices by scan and number, and those of scans with their patients."""
    columns = [LABEL_PREFIX + label for label in LABELS]
    images, labelled = joined.images, joined.is_labelled
    slices = images.key[["scan_id", "slice"]].join(pd.DataFrame(joined.slice_labels, columns=columns))
    patients = [project_key.hash_id(patient) for patient in joined.patient_ids[labelled]]
    scans = pd.DataFrame({"scan_id": images.of_scans("scan_id")[labelled], "patient_id": patients})
    return slices[labelled[images.scan]], scans.join(pd.DataFrame(joined.scan_labels[labelled], columns=columns))


def _strata(located: LocatedLabels) -> pd.DataFrame:
    """Tabulate the strata of each scan from the label table."""
    if located.table.strata is None:
        return pd.DataFrame({"scan_id": []}, dtype=object)
    here = located.scan != NOWHERE
    rows = located.table.rows.loc[here, ["name"]].assign(scan_id=located.images.of_scans("scan_id")[located.scan[here]])
    return rows.merge(located.table.strata, on="name").drop(columns="name").drop_duplicates("scan_id")


def _with_labels(frame: pd.DataFrame, labels: pd.DataFrame, on: list[str]) -> pd.DataFrame:
    """Add labels to predictions; the index still gives the line of each prediction."""
    return frame.reset_index().merge(labels, on=on).set_index("index").rename_axis(None)


def _model_of(folder: Path) -> dict[str, str]:
    try:
        model = json.loads((folder / MANIFEST).read_text())["model"]
        return {name: str(model[name]) for name in ("name", "hash")}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
