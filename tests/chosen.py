"""Fabricate validation cases with known truth, and what is chosen on them, in one line."""

from typing import Any

import numpy as np
import pandas as pd

from ich_lstm.evaluation.evidence import Evidence, make_evidence
from ich_lstm.evaluation.thresholds.calibrate import fit_calibration
from ich_lstm.evaluation.thresholds.operating_points import parse_rule
from ich_lstm.inference.calibration import ModelCalibration
from ich_lstm.labels import ANY, LABELS

WEIGHTS = "0123456789ab"


def make_cases(
    patients: int = 400,
    seed: int = 0,
    *,
    name: str = "v",
    slope: float = 1.0,
    intercept: float = 0.0,
    part: str = "validation",
    coherent: bool = False,
) -> Evidence:
    """Scans of three slices; probabilities say ``sigmoid(intercept + slope * true log odds)``, of all labels alike.

    Every fourth patient has two scans. If ``coherent``, probabilities are raised as predictions are: a scan's to that of its most
    probable slice, and that of "any" to the most probable type's.
    """
    random = np.random.default_rng((seed, patients))
    of_scan = np.sort(np.concatenate([np.arange(patients), np.arange(0, patients, 4)]))
    scans = pd.DataFrame({"scan_id": [f"{name}{i:05d}" for i in range(len(of_scan))]})
    slices = scans.loc[scans.index.repeat(3)].reset_index(drop=True).assign(slice=np.tile([1, 2, 3], len(scans)))
    frames = []
    for frame in (slices, scans.assign(patient_id=[f"{name}p{patient:04d}" for patient in of_scan])):
        odds = random.normal(-0.7, 2, (len(frame), len(LABELS)))
        y = random.random(odds.shape) < 1 / (1 + np.exp(-odds))
        p = 1 / (1 + np.exp(-intercept - slope * odds))
        labels = pd.DataFrame(y.astype(float), columns=["label_" + label for label in LABELS])
        if coherent:
            p = np.maximum(p, frames[0][list(LABELS)].to_numpy().reshape(-1, 3, len(LABELS)).max(axis=1)) if frames else p
            p[:, LABELS.index(ANY)] = p.max(axis=1)
        frames.append(frame.join(pd.DataFrame(p, columns=list(LABELS))).join(labels))
    source: dict[str, Any] = {"kind": "run", "model": {"name": "m", "hash": WEIGHTS}, "part": part, "truth": "", "notes": []}
    return make_evidence(*frames, source, is_test=part != "validation")


def make_calibration(*rules: str, evidence: Evidence | None = None, **changes: Any) -> ModelCalibration:
    """What is chosen on `make_cases`, or on these cases."""
    settings: dict[str, Any] = {"replicates": 100}
    rules = rules or ("sensitivity=0.9",)
    return fit_calibration(evidence or make_cases(), [parse_rule(rule) for rule in rules], **(settings | changes))
