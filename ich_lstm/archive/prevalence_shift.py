"""Correction of probabilities for a site whose share of positive scans differs from that of the calibration data."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ich_lstm.errors import ConfigError
from ich_lstm.files.atomic_write import atomic_write
from ich_lstm.inference.calibration import ModelCalibration, move_prevalence
from ich_lstm.labels import ANY, LABELS
from ich_lstm.prediction import CALIBRATED_PREFIX
from ich_lstm.statistics import Estimate, estimate_prevalence
from ich_lstm.statistics.estimate import undefined

COLUMNS = [CALIBRATED_PREFIX + label for label in LABELS]


def check_estimable(calibration: ModelCalibration | None) -> ModelCalibration:
    """Check that a site's share of positive scans can be estimated from a model's predictions.

    Args:
        calibration: The model's calibration; None if it has none.

    Returns:
        The calibration, if it is suitable.

    Raises:
        ConfigError: If the model is not calibrated, or the calibration already contains a stated share.
    """
    if calibration is None:
        raise ConfigError(
            "not_calibrated",
            where="--prevalence",
            got="a model without calibration.json",
            expected="probabilities calibrated at a known share of positive scans",
            todo="Calibrate the model on the validation set: ich-evaluate RUN --calibrate RULE --out DIR.",
        )
    calibration.check_movable()
    if calibration.prevalence is not None:
        raise ConfigError(
            "two_prevalences",
            where="--prevalence",
            got=f"a stated share of {calibration.prevalence:g} and a share to estimate",
            expected="one of the two",
        )
    return calibration


def move_to_estimated_share(
    slices: Path, scans: Path, calibration: ModelCalibration | None, *, replicates: int = 2000, seed: int = 0
) -> Estimate:
    """Estimate the share of positive scans from all predictions, and adjust the calibrated probabilities to it.

    Both tables are rewritten; all other columns, including the model's own probabilities, stay unchanged.

    Args:
        slices: Path of the table of slices.
        scans: Path of the table of scans.
        calibration: Calibration of the tables, not yet adjusted to a share; None is refused.
        replicates: Number of bootstrap replicates over patients; a scan without a known patient counts as a patient.
        seed: Seed of the bootstrap.

    Returns:
        The share with its assumptions. If it cannot be estimated, it has no value, and the tables are unchanged.
    """
    calibration = check_estimable(calibration)
    of_scans = pd.read_csv(scans, dtype=str, keep_default_na=False)
    predicted = of_scans[of_scans["status"] == "ok"]
    if not len(predicted):
        return undefined("no scan was predicted")
    of_slices = pd.read_csv(slices, dtype=str, keep_default_na=False)
    trained = calibration.share or np.nan
    before = _numbers(of_slices), _numbers(predicted)
    patients = predicted["patient_id"].where(predicted["patient_id"] != "", predicted["scan_id"])
    of_any = before[1][:, LABELS.index(ANY)]
    share = estimate_prevalence(of_any, trained, patients, replicates=replicates, seed=seed)
    if share.value is None or not 0 < share.value < 1:
        return share
    scan = pd.Index(predicted["scan_id"]).get_indexer(pd.Index(of_slices["scan_id"]))
    moved = move_prevalence(*before, scan, trained=trained, site=share.value)
    for path, table, rows, values in ((slices, of_slices, of_slices, moved[0]), (scans, of_scans, predicted, moved[1])):
        table.loc[rows.index, COLUMNS] = np.where(np.isnan(values), "", values.astype(str))
        with atomic_write(path) as unfinished:
            table.to_csv(unfinished, index=False)
    return share


def describe_calibration(calibration: ModelCalibration | None, estimated: Estimate | None = None) -> dict[str, Any] | None:
    """Describe operating point, thresholds and correction for a manifest; None without a calibration.

    Args:
        calibration: The calibration that was applied.
        estimated: The share of positive scans, if it was estimated.
    """
    if calibration is None:
        return None
    points = calibration.operating_points
    chosen = points and {
        "rule": points.rule,
        "thresholds": {
            level: {label: found.value for label, found in labels.items()} for level, labels in points.thresholds.items()
        },
    }
    return {
        "operating_point": chosen,
        "chosen_on": calibration.chosen_on.subset,
        "method": calibration.method,
        "not_calibrated": {
            level: [label for label, correction in labels.items() if correction.recalibration is None]
            for level, labels in calibration.corrections.items()
        },
        "share": calibration.share,
        "share_of": calibration.share_of,
        "prevalence": calibration.prevalence if estimated is None else estimated._asdict(),
    }


def _numbers(table: pd.DataFrame) -> np.ndarray:
    """The calibrated probabilities exactly as written; NaN for empty cells."""
    return table[COLUMNS].replace("", "nan").to_numpy(dtype=np.float64)
