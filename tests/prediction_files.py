"""Fabricate the tables of predictions of a run or of `ich-predict`, with labels, in one line."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ich_lstm.labels import HEMORRHAGE_TYPES, LABELS


def make_tables(patients: int = 12, seed: int = 0, *, scans: int = 2, slices: int = 5) -> dict[str, pd.DataFrame]:
    """``slices`` and ``scans`` of predictions with labels, as of a run; patients from the third on have two scans.

    A third of the scans bleeds, each in two slices and of one type; probabilities are noise about the truth.
    """
    random = np.random.default_rng((seed, patients))
    slice_rows, scan_rows = [], []
    of_patient = [patient for patient in range(patients) for _ in range(1 if patient < 2 else scans)]
    for number, patient in enumerate(of_patient):
        y = np.zeros((slices, len(LABELS)))
        if number % 3 == 0:
            y[1:3, [number // 3 % len(HEMORRHAGE_TYPES), len(HEMORRHAGE_TYPES)]] = 1
        ids: dict[str, Any] = {"scan_id": f"{number:016d}"}
        truths = [y, y, y.max(axis=0, keepdims=True)]
        p, encoder, own = (1 / (1 + np.exp(2 - 3 * truth + 1.5 * random.standard_normal(truth.shape))) for truth in truths)
        more = {"slice": np.arange(1, slices + 1), "slice_id": f"{number:08x}", "position_mm": np.arange(slices) * 5.0}
        slice_rows.append(
            pd.concat([_ids(slices, ids | more), _six("", p), _six("encoder_", encoder), _six("label_", y)], axis=1)
        )
        whose = ids | {"patient_id": f"p{patient:03d}"}
        scan_rows.append(pd.concat([_ids(1, whose), _six("", own), _six("label_", truths[2])], axis=1))
    tables = {"slices": pd.concat(slice_rows, ignore_index=True), "scans": pd.concat(scan_rows, ignore_index=True)}
    return {name: table.assign(split="test") for name, table in tables.items()}


def write_run(folder: Path, tables: dict[str, pd.DataFrame] | None = None) -> Path:
    """A run's folder with these predictions; by default those of `make_tables`."""
    for name, table in (tables or make_tables()).items():
        (folder / "predictions").mkdir(parents=True, exist_ok=True)
        table.to_csv(folder / "predictions" / f"{name}.csv", index=False)
    return folder


def _ids(rows: int, columns: dict[str, Any]) -> pd.DataFrame:
    return pd.DataFrame(columns, index=range(rows))


def _six(prefix: str, values: np.ndarray) -> pd.DataFrame:
    return pd.DataFrame(values, columns=[prefix + label for label in LABELS])


def write_predictions(folder: Path, key: Any, tables: dict[str, pd.DataFrame] | None = None) -> Path:
    """A folder of `ich-predict` with these predictions, one study more that was refused, and the key to the ids.

    Args:
        folder: To make.
        key: The project's key.
        tables: By default those of `make_tables`; slice n of scan s is ``1.s.n`` in the series ``1.s`` and the folder ``case s``.
    """
    tables = tables or make_tables()
    scans, slices = (
        tables[name].loc[:, lambda table: ~table.columns.str.match("label_|encoder_|split")] for name in ("scans", "slices")
    )
    number = slices["scan_id"].astype(int).astype(str)
    private = slices[["scan_id", "slice", "slice_id"]].assign(
        patient_id=number.map(dict(zip(scans["scan_id"].astype(int).astype(str), scans["patient_id"], strict=True))),
        study_uid="2." + number,
        series_uid="1." + number,
        sop_uid="1." + number + "." + slices["slice"].astype(str),
        file="case " + number + "/" + slices["slice"].astype(str) + ".dcm",
    )
    scans = scans.assign(patient_id=scans["patient_id"].map(key.hash_id), flags="", status="ok")
    refused = pd.DataFrame([{"scan_id": "f" * 16, "patient_id": "", "status": "truncated_pixels"}])
    (folder / "private").mkdir(parents=True)
    slices.to_csv(folder / "slices.csv", index=False)
    pd.concat([scans, refused]).to_csv(folder / "scans.csv", index=False)
    private.to_csv(folder / "private" / "key.csv", index=False)
    ledger = pd.DataFrame(
        {"path": "/export/" + private["file"], "sop_uid": private["sop_uid"], "series_uid": private["series_uid"]}
    )
    lost = {
        "path": "/export/case x/1.dcm",
        "sop_uid": "1.x.1",
        "series_uid": "1.x",
        "action": "refused",
        "code": "truncated_pixels",
    }
    pd.concat([ledger.assign(action="used", code=""), pd.DataFrame([lost])]).to_csv(
        folder / "private" / "ledger.csv", index=False
    )
    (folder / "manifest.json").write_text('{"model": {"name": "net", "hash": "abc"}}')
    return folder


def label_text(tables: dict[str, pd.DataFrame], kind: str = "sop_uid") -> str:
    """What `write_predictions` predicts, as a label table of slices (``sop_uid``) or of scans (any other name of a scan)."""
    table = tables["slices" if kind == "sop_uid" else "scans"]
    number = table["scan_id"].astype(int).astype(str)
    names = {
        "sop_uid": lambda: "1." + number + "." + table["slice"].astype(str),
        "series_uid": lambda: "1." + number,
        "folder_name": lambda: "case " + number,
    }
    labels = table[[f"label_{label}" for label in LABELS]].set_axis(list(LABELS), axis=1).astype(int)
    return pd.concat([names[kind]().rename(kind), labels], axis=1).to_csv(index=False)
