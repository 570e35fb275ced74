"""Recalibration and operating points, fitted on the validation set and applied to other data."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from ich_lstm.errors import ConfigError, TableError
from ich_lstm.evaluation.aggregate import Level, LevelCases, aggregate, cases_at
from ich_lstm.evaluation.evidence import LABEL_PREFIX, Evidence, columns_of
from ich_lstm.evaluation.thresholds.operating_points import ALARMS, Rule, choose_threshold
from ich_lstm.inference.calibration import (
    CALIBRATED_LEVELS,
    ChosenOn,
    Correction,
    Method,
    ModelCalibration,
    OperatingPoints,
    Threshold,
    fingerprints,
)
from ich_lstm.labels import ANY, LABELS
from ich_lstm.statistics import Estimate, fit_platt, fit_temperature
from ich_lstm.statistics.bootstrap import PatientBootstrap, bootstrap_interval
from ich_lstm.statistics.cases import known_cases, patient_index
from ich_lstm.statistics.estimate import undefined
from ich_lstm.statistics.proportions import ratio

FITS = {"platt": fit_platt, "temperature": fit_temperature}

NO_THRESHOLD = 0.5
"""Replaces a threshold that could not be chosen, so that every cell of a table has one; the notes name the labels."""


def fit_calibration(
    evidence: Evidence,
    rules: Sequence[Rule],
    *,
    method: Method = "platt",
    training_share: float | None = None,
    replicates: int = 2000,
    seed: int = 0,
) -> ModelCalibration:
    """Choose operating points and fit corrections for each label, separately for slices and for the scan output.

    Args:
        evidence: Predictions and labels of validation patients.
        rules: The rule of each operating point; the first is the default.
        method: ``platt`` fits slope and intercept; ``temperature`` fits the slope alone, which leaves 0.5 unchanged.
        training_share: Share of positive scans in training. Temperature scaling is assumed to calibrate probabilities for this
            share, whereas Platt's intercept calibrates them for the share of the validation scans.
        replicates: Number of bootstrap resamples of patients.
        seed: Seed of the bootstrap.

    Raises:
        ConfigError: If these are test cases, a rule is given twice, or the model is unknown.
        TableError: If no label can be calibrated and no threshold can be chosen.
    """
    subset = str(evidence.source.get("part", ""))
    if evidence.is_test or subset == "test":
        raise ConfigError(
            "chosen_on_test",
            where="--calibrate",
            got="cases of a reported subset",
            expected="the validation patients of a run",
            todo="Results on cases used for choosing are too optimistic. Run ich-evaluate RUN --calibrate RULE.",
        )
    weights = str(evidence.source.get("model", {}).get("hash", ""))
    if not weights:
        raise ConfigError(
            "unknown_model",
            where="--calibrate",
            got="predictions without the model that made them",
            expected="a run's folder with its model",
            todo="Name the folder written by ich-train, which contains model/model.json.",
        )
    names = [str(rule) for rule in rules]
    if len(set(names)) < len(names):
        raise ConfigError("repeated_rule", where="--calibrate", got=", ".join(names), expected="each rule once")
    cases = {level: cases_at(evidence, level) for level in CALIBRATED_LEVELS}
    corrections = {level: _corrections(cases[level], method) for level in CALIBRATED_LEVELS}
    of_any = cases["scan"].labels[:, LABELS.index(ANY)]
    share, share_of = float(ratio((of_any == 1).sum(), (~np.isnan(of_any)).sum())), "validation"
    if method == "temperature" and training_share is not None:
        share, share_of = training_share, "training"
    calibration = ModelCalibration(
        weights=weights,
        method=method,
        corrections=corrections,
        share=None if np.isnan(share) else share,
        share_of=share_of,
        points=tuple(choose_points(evidence, rule, replicates=replicates, seed=seed) for rule in rules),
        coherent=is_coherent(evidence),
        chosen_on=ChosenOn(subset, fingerprints(evidence.scans["scan_id"]), fingerprints(evidence.scans["patient_id"])),
    )
    _check_not_empty(calibration)
    return calibration


def is_coherent(evidence: Evidence) -> bool:
    """Whether every scan is at least as probable as each of its slices, and "any" at least as probable as each type.

    Args:
        evidence: The predictions of slices and scans.
    """
    slices, scans = columns_of(evidence.slices, ""), columns_of(evidence.scans, "")
    of_any = LABELS.index(ANY)
    raised = all((values[:, of_any] >= values.max(axis=1)).all() for values in (slices, scans))
    return bool(raised and (scans >= aggregate(slices, evidence.scan_index, "max")).all())


def choose_points(evidence: Evidence, rule: Rule, *, replicates: int = 2000, seed: int = 0) -> OperatingPoints:
    """Choose a threshold for each label, separately for slices and for the scan output.

    Alarms are counted in scans. With a threshold for slices, a scan is an alarm if any of its slices is called positive.

    Args:
        evidence: Predictions and labels of validation patients.
        rule: The rule that chooses the operating point.
        replicates: Number of bootstrap resamples of patients.
        seed: Seed of the bootstrap.
    """
    thresholds = {}
    for level in CALIBRATED_LEVELS:
        cases = cases_at(evidence, level)
        labels, probabilities = cases.labels, cases.probabilities
        if level == "slice" and rule.kind == ALARMS:
            labels = columns_of(evidence.scans, LABEL_PREFIX)
            probabilities = aggregate(probabilities, evidence.scan_index, "max")
        index, count = patient_index(cases.patients)
        bootstrap = PatientBootstrap(count, replicates=replicates, seed=seed)
        found = {}
        for k, label in enumerate(LABELS):
            value, note = choose_threshold(rule, labels[:, k], probabilities[:, k])
            found[label] = _threshold(value, note, cases, k, index, bootstrap)
        thresholds[level] = found
    return OperatingPoints(str(rule), thresholds)


def check_unseen(calibration: ModelCalibration, evidence: Evidence) -> None:
    """Check that a calibration is not evaluated on the cases on which it was chosen.

    Raises:
        ConfigError: If scans or patients are among these cases, or the predictions were made by another model.
    """
    hash_now = evidence.source.get("model", {}).get("hash", "")
    if hash_now != calibration.weights:
        raise ConfigError(
            "calibration_of_another_model",
            where="--operating-point, --calibrated",
            got=f"predictions of the weights {hash_now or '(unknown)'}",
            expected=f"predictions of {calibration.weights}, for which operating points were chosen",
            todo="Evaluate the predictions of the calibrated model.",
        )
    scans = fingerprints(evidence.scans["scan_id"]) & calibration.chosen_on.scans
    patients = fingerprints(evidence.scans["patient_id"]) & calibration.chosen_on.patients
    if scans or patients:
        raise ConfigError(
            "chosen_on_these_cases",
            where="--operating-point, --calibrated",
            got=f"{len(scans)} scans and {len(patients)} patients on whom operating points and calibration were chosen",
            expected="other patients",
            todo="Evaluate held-out patients (--part test) or another data set.",
        )


def operating_thresholds(evidence: Evidence, calibration: ModelCalibration) -> tuple[dict[Level, list[float]], list[str]]:
    """Collect the thresholds of the operating point for `compute_figures`; patients have the threshold of the scan output.

    Args:
        evidence: Uncorrected predictions of cases on which nothing was chosen.
        calibration: The calibration that contains the operating point.

    Returns:
        Thresholds for each level, and notes for the report.

    Raises:
        ConfigError: If there is no operating point, or it was chosen on these cases or for another model.
    """
    check_unseen(calibration, evidence)
    points = calibration.operating_points
    if points is None:
        raise ConfigError(
            "no_operating_point",
            where="--operating-point",
            got="a model without an operating point",
            todo="Choose one on validation patients: ich-evaluate RUN --calibrate RULE --out DIR.",
        )
    values: dict[Level, list[float]] = {}
    notes = [f"operating point {points.rule}, chosen on {calibration.chosen_on.subset} patients"]
    for level in CALIBRATED_LEVELS:
        found = points.values(level)
        missing = [label for label, value in zip(LABELS, found, strict=True) if np.isnan(value)]
        values[level] = np.where(np.isnan(found), NO_THRESHOLD, found).tolist()
        notes += [
            f"{level}: no operating point for {label} ({points.thresholds[level][label].note}): {NO_THRESHOLD} is used instead"
            for label in missing
        ]
    values["patient"] = values["scan"]
    return values, notes


def calibrate_evidence(evidence: Evidence, calibration: ModelCalibration) -> Evidence:
    """Replace the model's probabilities by corrected ones; the notes of the source say so.

    Labels that could not be calibrated, and the encoder's own probabilities, stay as they are; this is noted too.

    Args:
        evidence: Predictions of cases on which nothing was chosen.
        calibration: The calibration to apply.

    Raises:
        ConfigError: If the calibration was fitted on these cases or for another model.
    """
    check_unseen(calibration, evidence)
    raw = columns_of(evidence.slices, ""), columns_of(evidence.scans, "")
    corrected = calibration.correct(*raw, evidence.scan_index)
    notes = [f"probabilities are calibrated: {calibration.in_words}"]
    for level in CALIBRATED_LEVELS:
        notes += [
            f"{level}: {label} is not calibrated ({correction.note}): the model's own probability is used"
            for label, correction in calibration.corrections[level].items()
            if correction.recalibration is None
        ]
    if evidence.has_encoder:
        notes.append("the encoder's own probabilities are not calibrated")
    frames = [
        frame.assign(**dict(zip(LABELS, np.where(np.isnan(new), old, new).T, strict=True)))
        for frame, old, new in zip((evidence.slices, evidence.scans), raw, corrected, strict=True)
    ]
    source = {**evidence.source, "notes": [*evidence.source["notes"], *notes]}
    return replace(evidence, slices=frames[0], scans=frames[1], source=source)


def _corrections(cases: LevelCases, method: Method) -> Mapping[str, Correction]:
    corrections = {}
    for k, label in enumerate(LABELS):
        positive = known_cases(cases.labels[:, k], cases.probabilities[:, k]).positive
        counts = int(positive.sum()), int((~positive).sum())
        try:
            corrections[label] = Correction(FITS[method](cases.labels[:, k], cases.probabilities[:, k]), *counts)
        except TableError as error:  # cases of one class or an inverted ranking, which concerns this label alone
            corrections[label] = Correction(None, *counts, error.got)
    return corrections


def _threshold(
    value: float | None, note: str, cases: LevelCases, k: int, patient: np.ndarray, bootstrap: PatientBootstrap
) -> Threshold:
    """Make a threshold with its sensitivity and specificity on the cases on which it was chosen."""
    known = ~np.isnan(cases.labels[:, k])
    y, p, _ = known_cases(cases.labels[:, k], cases.probabilities[:, k])
    counts = int(y.sum()), int((~y).sum())
    if value is None:
        return Threshold(None, undefined(note), undefined(note), *counts, note)
    right = (p >= value) == y
    patient = patient[known]
    sensitivity = _rate(right[y], patient[y], bootstrap, "positive")
    return Threshold(value, sensitivity, _rate(right[~y], patient[~y], bootstrap, "negative"), *counts)


def _rate(right: np.ndarray, patient: np.ndarray, bootstrap: PatientBootstrap, what: str) -> Estimate:
    if not len(right):
        return undefined(f"no {what} case")
    sums = np.stack([np.bincount(patient, weights=column, minlength=bootstrap.patients) for column in (right, right >= 0)])
    drawn = bootstrap.replicate(lambda counts: ratio(*(sums @ counts.astype(np.float64)))[None], cases=len(right))[0]
    patients = int((sums[1] > 0).sum())
    return bootstrap_interval(float(right.mean()), drawn, scale="proportion", patients=patients, binomial=True)


def _check_not_empty(calibration: ModelCalibration) -> None:
    """Stop if neither a correction nor a threshold could be fitted for any label."""
    fitted = any(
        calibration.corrections[level][label].recalibration is not None for level in CALIBRATED_LEVELS for label in LABELS
    )
    chosen = any(not np.isnan(points.values(level)).all() for points in calibration.points for level in CALIBRATED_LEVELS)
    if not fitted and not chosen:
        raise TableError(
            "nothing_to_choose",
            where="validation cases",
            got=f"for scans: {calibration.corrections['scan'][ANY].note}",
            expected="a label with positive and negative cases, and probabilities that correlate with it",
            todo="Use more validation patients.",
        )
