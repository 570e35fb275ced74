"""Reading and writing ``calibration.json``, which is stored next to its model."""

import json
import math
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ich_lstm.errors import CheckpointError
from ich_lstm.files.atomic_write import write_text
from ich_lstm.files.untrusted import LONGEST_TEXT, read_json, shown
from ich_lstm.inference.calibration import (
    CALIBRATED_LEVELS,
    METHODS,
    CalibratedLevel,
    ChosenOn,
    Correction,
    ModelCalibration,
    OperatingPoints,
    Threshold,
)
from ich_lstm.labels import LABELS
from ich_lstm.statistics.adjustment.corrections import Recalibration
from ich_lstm.statistics.estimate import Estimate

CALIBRATION_FILE = "calibration.json"
FORMAT = 1


def write_calibration(folder: Path, calibration: ModelCalibration) -> Path:
    """Write ``calibration.json``, which is shareable: it identifies patients only by fingerprints of hashed ids.

    Args:
        folder: The folder that contains ``model.json``.
        calibration: The calibration to write.

    Returns:
        The path of the file.
    """
    about = {
        "format": FORMAT,
        "ich_lstm": version("ich_lstm"),
        "labels": list(LABELS),
        "weights": calibration.weights,
        "method": calibration.method,
        "share": calibration.share,
        "share_of": calibration.share_of,
        "coherent": calibration.coherent,
        "corrections": _by_level(calibration.corrections, _correction_fields),
        "operating_points": [
            {"rule": points.rule, **_by_level(points.thresholds, _threshold_fields)} for points in calibration.points
        ],
        "chosen_on": {
            "part": calibration.chosen_on.subset,
            "scans": sorted(calibration.chosen_on.scans),
            "patients": sorted(calibration.chosen_on.patients),
        },
    }
    path = folder / CALIBRATION_FILE
    write_text(path, json.dumps(about, indent=1, allow_nan=False) + "\n")
    return path


def read_calibration(folder: Path, weights: str) -> ModelCalibration | None:
    """Read the calibration of a model; None if it has none.

    Args:
        folder: The folder that contains ``model.json``.
        weights: Hash of the model's weights.

    Raises:
        CheckpointError: If the file is damaged, newer than this library, or belongs to other weights.
    """
    path = folder / CALIBRATION_FILE
    if not path.exists():
        return None
    try:
        about = read_json(path)
        if about["format"] > FORMAT:
            raise CheckpointError(
                "newer_format",
                where=str(path),
                got=f"format {about['format']}",
                expected=f"at most {FORMAT}",
                todo="Install a newer ich_lstm.",
            )
        if about["labels"] != list(LABELS):
            raise ValueError(f"other labels, expected {', '.join(LABELS)}")
        calibration = _read(about)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError) as error:
        raise CheckpointError(
            "bad_calibration",
            where=str(path),
            got=f"{type(error).__name__}: {shown(str(error))}",
            expected="a file written by ich-evaluate --calibrate",
            todo="Calibrate again, or remove the file to predict without operating points.",
        ) from error
    if calibration.weights != weights:
        raise CheckpointError(
            "calibration_of_another_model",
            where=str(path),
            got=f"operating points of the weights {calibration.weights}",
            expected=f"operating points of {weights}, the weights in the same folder",
            todo="Calibrate this model with ich-evaluate RUN --calibrate RULE --out DIR, or remove the file.",
        )
    return calibration


def _read(about: Mapping[str, Any]) -> ModelCalibration:
    if about["method"] not in METHODS:
        raise ValueError(f"method {about['method']!r}")
    share, points, chosen_on = about["share"], about["operating_points"], about["chosen_on"]
    rules = [_text(point["rule"]) for point in points]
    if len(set(rules)) < len(rules):
        raise ValueError("two operating points with the same rule")
    return ModelCalibration(
        weights=_text(about["weights"]),
        method=about["method"],
        corrections={level: _of_labels(about["corrections"][level], _correction) for level in CALIBRATED_LEVELS},
        share=None if share is None else _within(share, 0, 1),
        share_of=_text(about["share_of"]),
        coherent=about.get("coherent", False) is True,  # earlier versions had only raw probabilities
        points=tuple(
            OperatingPoints(rule, {level: _of_labels(point[level], _threshold) for level in CALIBRATED_LEVELS})
            for rule, point in zip(rules, points, strict=True)
        ),
        chosen_on=ChosenOn(
            _text(chosen_on["part"]), frozenset(map(_text, chosen_on["scans"])), frozenset(map(_text, chosen_on["patients"]))
        ),
    )


def _by_level(table: Mapping[CalibratedLevel, Mapping[str, Any]], fields: Any) -> dict[str, dict[str, Any]]:
    return {level: {label: fields(table[level][label]) for label in LABELS} for level in CALIBRATED_LEVELS}


def _of_labels(table: Mapping[str, Any], build: Any) -> dict[str, Any]:
    return {label: build(table[label]) for label in LABELS}


def _correction_fields(correction: Correction) -> dict[str, Any]:
    found = correction.recalibration
    numbers = {"slope": None, "intercept": None} if found is None else {"slope": found.slope, "intercept": found.intercept}
    return {**numbers, **{name: getattr(correction, name) for name in ("positives", "negatives", "note")}}


def _correction(fields: Mapping[str, Any]) -> Correction:
    slope, intercept = fields["slope"], fields["intercept"]
    found = None if slope is None else Recalibration(_within(slope, 1e-9, 1e9), _within(intercept, -1e9, 1e9))
    return Correction(found, _count(fields["positives"]), _count(fields["negatives"]), _text(fields["note"]))


def _threshold_fields(threshold: Threshold) -> dict[str, Any]:
    estimates = {name: getattr(threshold, name)._asdict() for name in ("sensitivity", "specificity")}
    return {**threshold._asdict(), **estimates}


def _threshold(fields: Mapping[str, Any]) -> Threshold:
    value = fields["value"]
    return Threshold(
        None if value is None else _within(value, 0, 1),
        _rate(fields["sensitivity"]),
        _rate(fields["specificity"]),
        _count(fields["positives"]),
        _count(fields["negatives"]),
        _text(fields["note"]),
    )


def _rate(fields: Mapping[str, Any]) -> Estimate:
    checks: dict[str, Any] = {"method": _text, "note": _text}
    rate: dict[str, Any] = {name: value if value is None else checks.get(name, _share)(value) for name, value in fields.items()}
    return Estimate(**rate)


def _share(value: Any) -> float:
    return _within(value, 0, 1)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.isprintable() or len(value) > LONGEST_TEXT:
        raise ValueError(f"{value!r}, expected text of at most {LONGEST_TEXT} printable characters")
    return value


def _count(value: Any) -> int:
    if not isinstance(value, int) or value < 0:
        raise ValueError(f"{value!r}, expected a count")
    return value


def _within(value: Any, low: float, high: float) -> float:
    number = float(value)
    if not math.isfinite(number) or not low <= number <= high:
        raise ValueError(f"{number:g}, expected {low:g} to {high:g}")
    return number
