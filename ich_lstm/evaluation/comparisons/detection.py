"""Detection performance for one finding: AUROC, and the proportions at an operating point.

The numbers are those of `evaluate_labels`. Calibration is omitted, because its fits take most of a bootstrap's time, which
would add up over the many small tables of readers and strata.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from ich_lstm.labels import LABELS
from ich_lstm.statistics.bootstrap import PatientBootstrap, bootstrap_interval
from ich_lstm.statistics.cases import Cases, check_labels, check_probabilities, patient_index
from ich_lstm.statistics.estimate import undefined
from ich_lstm.statistics.measures.evaluation import check_settings
from ich_lstm.statistics.measures.figures import KINDS, LabelFigures
from ich_lstm.statistics.proportions import PROPORTIONS, Confusion, proportion

DETECTION = ("auroc", "accuracy", "sensitivity", "specificity", "ppv", "npv")
"""The figures in the order of the tables."""


def evaluate_detection(
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: Iterable,
    *,
    thresholds: float | Sequence[float] = 0.5,
    names: Sequence[str] = LABELS,
    replicates: int = 2000,
    seed: int = 0,
    workers: int = 2,
) -> pd.DataFrame:
    """Compute AUROC, accuracy, sensitivity, specificity, PPV and NPV of every label with 95 % intervals over patients.

    Args:
        labels: Labels of the cases, ``(n, k)``: 1 present, 0 absent, NaN unknown; unknown labels are excluded and counted.
        probabilities: Probabilities of the cases in [0, 1], ``(n, k)``; those of a reader are 0 and 1.
        patients: The patient of each case, ``(n,)``.
        thresholds: One operating point for all labels, or one for each.
        names: The names of the k labels.
        replicates: Number of bootstrap resamples.
        seed: Seed of the bootstrap.
        workers: Number of threads of the bootstrap.

    Returns:
        One row per figure: the columns ``label, metric, threshold, value, low, high, method, cases, positives, unknown, patients,
        note`` of `evaluate_labels`, and ``positive_patients`` and ``negative_patients``, the numbers of patients with a positive
        and with a negative case.

    Raises:
        TableError: If a probability is not a number in [0, 1], a label is not 0, 1 or NaN, or a patient is unknown.
        ConfigError: If a setting is out of range.
    """
    y, p = check_labels(labels), check_probabilities(probabilities)
    points = check_settings(y, p, thresholds, (), names, (1.0,) * len(names))
    index, count = patient_index(patients)
    bootstrap = PatientBootstrap(count, replicates=replicates, seed=seed, workers=workers)
    rows = []
    for k, name in enumerate(names):
        known = ~np.isnan(y[:, k])
        cases = Cases(y[known, k] == 1, p[known, k], int((~known).sum()))
        rows += [{"label": name, **row} for row in _rows(cases, index[known], bootstrap, float(points[k]))]
    return pd.DataFrame(rows)


def _rows(cases: Cases, patient: np.ndarray, bootstrap: PatientBootstrap, threshold: float) -> list[dict[str, Any]]:
    figures = LabelFigures(cases, patient, bootstrap.patients, threshold=threshold, prevalences=(), bins=1)
    size = len(cases.positive)
    called = cases.probabilities >= threshold
    outcomes = (cases.positive & called, ~cases.positive & called, cases.positive & ~called, ~cases.positive & ~called)
    sums = np.stack([np.bincount(patient, weights=each, minlength=bootstrap.patients) for each in outcomes])  # (4, patients)

    def proportions(counts: np.ndarray) -> np.ndarray:
        table = Confusion(*(sums @ counts.astype(np.float64)))
        return np.stack([proportion(metric, table) for metric in DETECTION[1:]])

    once = np.ones((bootstrap.patients, 1), dtype=np.float32)
    values = np.concatenate([figures.auroc(once), proportions(once)])[:, 0]
    drawn = np.concatenate(
        [
            bootstrap.replicate(figures.auroc, cases=size, strata=figures.with_positive),
            bootstrap.replicate(proportions, cases=size),
        ]
    )
    carriers = figures.carriers()
    counts = {"cases": size, "positives": int(cases.positive.sum()), "unknown": cases.unknown, "patients": carriers["known"]}
    sides = {f"{side}_patients": carriers[side] for side in ("positive", "negative")}
    rows = []
    for metric, value, replicates in zip(DETECTION, values, drawn, strict=True):
        kind = KINDS[metric]
        if np.isnan(value):
            estimate = undefined(f"{cases.classes}, {kind.needs}")
        else:
            patients, binomial = carriers[kind.carried_by], metric in PROPORTIONS
            estimate = bootstrap_interval(float(value), replicates, scale=kind.scale, patients=patients, binomial=binomial)
        numbers = {name: np.nan if number is None else number for name, number in estimate._asdict().items() if name != "note"}
        point = np.nan if metric == "auroc" else threshold
        rows.append({"metric": metric, "threshold": point, **numbers, **counts, **sides, "note": estimate.note})
    return rows
