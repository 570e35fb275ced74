"""Correction of probabilities for a site whose share of positive scans differs from that of the calibration data."""

from typing import Any

import numpy as np
import pandas as pd

from ich_lstm.errors import ConfigError
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


def estimate_share(
    scans: pd.DataFrame, calibration: ModelCalibration | None, *, replicates: int = 2000, seed: int = 0
) -> Estimate:
    """Estimate the share of positive scans from all predictions.

    Args:
        scans: All rows of the table of scans.
        calibration: Calibration of the rows, not yet adjusted to a share; None is refused.
        replicates: Number of bootstrap replicates over patients; a scan without a known patient counts as a patient.
        seed: Seed of the bootstrap.

    Returns:
        The share with its assumptions; without a value if it cannot be estimated.
    """
    calibration = check_estimable(calibration)
    predicted = scans[scans["status"] == "ok"]
    if not len(predicted):
        return undefined("no scan was predicted")
    patients = predicted["patient_id"].where(predicted["patient_id"] != "", predicted["scan_id"])
    of_any = predicted[CALIBRATED_PREFIX + ANY].to_numpy(np.float64)
    return estimate_prevalence(of_any, calibration.share or np.nan, patients, replicates=replicates, seed=seed)


def move_to_share(
    slices: pd.DataFrame, scans: pd.DataFrame, share: Estimate, calibration: ModelCalibration | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Adjust the calibrated probabilities of some scans to a share of positive scans.

    Args:
        slices: Their rows of the table of slices.
        scans: Their rows of the table of scans, all of them predicted.
        share: The result of `estimate_share`; without a value between 0 and 1, nothing is adjusted.
        calibration: Calibration of the rows, not yet adjusted to a share; None is refused.

    Returns:
        Both tables; all other columns, including the model's own probabilities, are unchanged.
    """
    trained = check_estimable(calibration).share or np.nan
    if share.value is None or not 0 < share.value < 1:
        return slices, scans
    before = slices[COLUMNS].to_numpy(np.float64), scans[COLUMNS].to_numpy(np.float64)
    scan = pd.Index(scans["scan_id"]).get_indexer(pd.Index(slices["scan_id"]))
    moved = move_prevalence(*before, scan, trained=trained, site=share.value)
    after = (dict(zip(COLUMNS, values.T, strict=True)) for values in moved)
    return slices.assign(**next(after)), scans.assign(**next(after))


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
