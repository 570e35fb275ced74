"""Corrections of probabilities to a site, fitted to some of its scans: prevalence, temperature, and Platt scaling."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from ich_lstm.adaptation.scans.site import Probabilities, Site
from ich_lstm.errors import TableError
from ich_lstm.inference.calibration import CALIBRATED_LEVELS, CalibratedLevel, Correction
from ich_lstm.labels import LABELS
from ich_lstm.statistics.adjustment.corrections import Recalibration
from ich_lstm.statistics.logistic import fit_logistic
from ich_lstm.statistics.measures.scores import logit

CorrectionKind = Literal["none", "prevalence", "temperature", "temperature and prevalence", "platt"]

FEWEST_POSITIVE_PATIENTS = 5
"""A correction is fitted to a label only if at least so many patients have it; otherwise its probabilities stay as they are."""

Corrections = Mapping[CalibratedLevel, Mapping[str, Correction]]
"""Corrections by level and label."""

Shares = Mapping[CalibratedLevel, Mapping[str, float]]
"""Shares of positive cases, in (0, 1), by level and label."""


def training_shares(about: Mapping[str, Any] | None) -> Shares | None:
    """The shares of positive slices and scans in a model's training data; None if they are not recorded.

    Args:
        about: `ScanClassifier.training_data`.
    """
    if not about or not about.get("scans") or not about.get("slices"):
        return None
    counts: dict[CalibratedLevel, tuple[str, str]] = {"slice": ("positive_slices", "slices"), "scan": ("positive_scans", "scans")}
    return {
        level: {label: _share(about[positives][label], about[cases]) for label in LABELS}
        for level, (positives, cases) in counts.items()
    }


def fit_corrections(
    kind: CorrectionKind, site: Site, probabilities: Probabilities, rows: np.ndarray, trained: Shares | None
) -> Corrections:
    """Fit the corrections of all labels to some scans of a site.

    Args:
        kind: The kind of correction.
        site: The site. Soft labels count as their share of a positive and of a negative case.
        probabilities: Probabilities of all scans of the site, by a model that was not trained on these scans.
        rows: Indices of the scans to fit to.
        trained: Shares of positives for which the probabilities are calibrated; needed by the kinds that correct the prevalence.
    """
    chosen = np.isin(np.arange(len(site.scans)), rows)
    of_level: dict[CalibratedLevel, tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = {
        "slice": (site.slice_labels, probabilities.slices, site.patients[site.scan_index], chosen[site.scan_index]),
        "scan": (site.scan_labels, probabilities.scans, site.patients, chosen),
    }
    fitted: dict[CalibratedLevel, dict[str, Correction]] = {}
    for level in CALIBRATED_LEVELS:
        labels, p, patients, here = of_level[level]
        fitted[level] = {}
        for k, label in enumerate(LABELS):
            known = here & ~np.isnan(labels[:, k])
            share = None if trained is None else trained[level][label]
            fitted[level][label] = _fit(kind, labels[known, k], p[known, k], patients[known], share)
    return fitted


def apply_corrections(corrections: Corrections, probabilities: Probabilities) -> Probabilities:
    """Correct probabilities; a label without a correction keeps its own.

    Args:
        corrections: The corrections.
        probabilities: The probabilities.
    """
    corrected = []
    for level, values in zip(CALIBRATED_LEVELS, probabilities, strict=True):
        new = values.copy()
        for k, label in enumerate(LABELS):
            recalibration = corrections[level][label].recalibration
            if recalibration is not None:
                new[:, k] = recalibration.apply(values[:, k])
        corrected.append(new)
    return Probabilities(*corrected)


def _fit(kind: CorrectionKind, labels: np.ndarray, p: np.ndarray, patients: np.ndarray, trained: float | None) -> Correction:
    positives, negatives = int((labels >= 0.5).sum()), int((labels < 0.5).sum())
    if kind == "none":
        return Correction(Recalibration(), positives, negatives)
    people = len(np.unique(patients[labels >= 0.5].astype(str)))
    if people < FEWEST_POSITIVE_PATIENTS or not negatives:
        words = f"{people} positive patients, and at least {FEWEST_POSITIVE_PATIENTS} are needed"
        return Correction(None, positives, negatives, words if negatives else "no negative case")
    shift = 0.0
    if kind in ("prevalence", "temperature and prevalence"):
        if trained is None:
            raise TableError("no_training_share", where="prevalence", got="a model that does not record its training data")
        shift = float(logit(np.array(_share(labels.sum(), len(labels)))) - logit(np.array(trained)))
    if kind == "prevalence":
        return Correction(Recalibration(slope=1.0, intercept=shift), positives, negatives)
    # Platt's targets instead of 1 and 0 keep the fit finite even if probabilities separate the classes.
    high, low = (positives + 1) / (positives + 2), 1 / (negatives + 2)
    target = low + labels * (high - low)
    x, group = np.unique(logit(p) + shift, return_inverse=True)
    total = np.bincount(group, minlength=len(x)).astype(np.float64)
    positive = np.bincount(group, weights=target, minlength=len(x))
    fitted = fit_logistic(x, positive[:, None], total[:, None], intercept=None if kind == "platt" else 0.0)
    intercept, slope = (float(value[0]) for value in fitted)
    if not slope > 0:  # also if NaN
        return Correction(None, positives, negatives, f"a slope of {slope:g}: the probabilities do not rank the cases")
    return Correction(Recalibration(slope=slope, intercept=intercept + slope * shift), positives, negatives)


def _share(positives: float, cases: int) -> float:
    """A share that is never 0 or 1, which have no odds."""
    return (float(positives) + 0.5) / (cases + 1)
