"""Paired comparison of two models on the same cases: the difference of every figure, by one bootstrap of patients for both."""

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from ich_lstm.errors import ConfigError
from ich_lstm.labels import LABEL_WEIGHTS, LABELS
from ich_lstm.statistics.bootstrap import METHOD, PatientBootstrap
from ich_lstm.statistics.cases import Cases, check_labels, check_probabilities, patient_index
from ich_lstm.statistics.measures.discrimination import stratified_ranks
from ich_lstm.statistics.measures.evaluation import ALL_LABELS, FigureSettings, WeightedLosses, check_settings
from ich_lstm.statistics.measures.figures import AUROC, KINDS, LabelFigures

NOT_COMPARED = ("calibration_slope", "calibration_intercept", "calibration_in_the_large")
"""Figures without a better direction: their ideal is 1 or 0, so a difference does not tell which model is better."""


def compare_labels(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    patients: Iterable,
    *,
    thresholds: tuple[float | Sequence[float], float | Sequence[float]] = (0.5, 0.5),
    prevalences: Sequence[float] = FigureSettings.prevalences,
    bins: int = FigureSettings.bins,
    names: Sequence[str] = LABELS,
    weights: Sequence[float] = LABEL_WEIGHTS,
    replicates: int = FigureSettings.replicates,
    seed: int = FigureSettings.seed,
    stratified: bool = True,
    workers: int = FigureSettings.workers,
) -> pd.DataFrame:
    """Compute the differences of two models' figures with 95 % intervals and p values, paired by patient.

    An interval is the difference plus and minus Student's quantile times the bootstrap's standard error. The degrees of freedom
    are the number of patients who contribute to the figure, minus 1. The p value is that of the same t statistic.

    Args:
        labels: Labels of the cases, ``(n, k)``: 1 present, 0 absent, NaN unknown.
        first: Probabilities of the first model, ``(n, k)``.
        second: Probabilities of the second model, ``(n, k)``.
        patients: The patient of each case, ``(n,)``.
        thresholds: Operating points of the first and of the second model: for each, one number or one number per label.
        prevalences: Prevalences at which PPV and NPV are also computed.
        bins: Number of bins of the expected calibration error.
        names: The names of the k labels.
        weights: Weights of the k labels in the weighted log loss.
        replicates: Number of bootstrap resamples.
        seed: Seed of the bootstrap.
        stratified: Whether patients with and without a positive case are resampled separately; this applies only to AUROC.
        workers: Number of threads of the bootstrap.

    Returns:
        One row per figure, except those in `NOT_COMPARED`: ``label``, ``metric``, ``prevalence``, ``first``, ``second``,
        ``difference`` (first minus second), ``low``, ``high`` and ``p_value`` (NaN if undefined, with the reason in the note),
        ``method``, ``cases``, ``positives``, ``patients`` and ``note``.

    Raises:
        TableError: If a probability is not a number in [0, 1], a label is not 0, 1 or NaN, or a patient is unknown.
        ConfigError: If shapes do not match, or a setting is out of range.
    """
    y = check_labels(labels)
    models = [check_probabilities(first), check_probabilities(second)]
    points = [check_settings(y, p, given, prevalences, names, weights) for p, given in zip(models, thresholds, strict=True)]
    index, count = patient_index(patients)
    if len(index) != len(y):
        raise ConfigError("shapes_differ", where="comparison", got=f"{len(index)} patients", expected=f"{len(y)}, one per case")
    bootstrap = PatientBootstrap(count, replicates=replicates, seed=seed, workers=workers)
    rows = [_weighted(y, models, index, bootstrap, weights)]
    for k, name in enumerate(names):
        known = ~np.isnan(y[:, k])
        pair = [
            LabelFigures(
                Cases(y[known, k] == 1, p[known, k], int((~known).sum())),
                index[known],
                count,
                threshold=point[k],
                prevalences=prevalences,
                bins=bins,
            )
            for p, point in zip(models, points, strict=True)
        ]
        rows += [{"label": name, **row} for row in _label_rows(pair, bootstrap, stratified)]
    return pd.DataFrame(rows)


def compare_stratified_auroc(
    labels: np.ndarray,
    first: np.ndarray,
    second: np.ndarray,
    strata: np.ndarray,
    patients: Iterable,
    *,
    replicates: int = FigureSettings.replicates,
    seed: int = FigureSettings.seed,
    workers: int = FigureSettings.workers,
) -> dict[str, Any]:
    """Compute the difference of two models' AUROC over pairs of one stratum, as `compare_labels` computes other differences.

    Args:
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown.
        first: Probabilities of the first model, ``(n,)``.
        second: Probabilities of the second model, ``(n,)``.
        strata: Stratum of each case, ``(n,)``.
        patients: The patient of each case, ``(n,)``.
        replicates: Number of bootstrap resamples.
        seed: Seed of the bootstrap.
        workers: Number of threads of the bootstrap.

    Returns:
        ``first``, ``second``, ``difference`` (first minus second), ``low``, ``high`` and ``p_value`` (NaN if undefined, with the
        reason in the note), ``method``, ``cases``, ``positives``, ``patients`` and ``note``.

    Raises:
        TableError: If a probability is not a number in [0, 1], a label is not 0, 1 or NaN, a patient is unknown, or the numbers
            of cases differ.
    """
    patients = list(patients)
    one, other = (stratified_ranks(labels, probabilities, strata, patients) for probabilities in (first, second))
    bootstrap = PatientBootstrap(one.patients, replicates=replicates, seed=seed, workers=workers)
    drawn = bootstrap.replicate(lambda counts: (one.auroc(counts) - other.auroc(counts))[None], cases=one.cases)[0]
    once = np.ones((one.patients, 1), dtype=np.float32)
    values = float(one.auroc(once)[0]), float(other.auroc(once)[0])
    counts = {"cases": one.cases, "positives": int((np.asarray(labels) == 1).sum()), "patients": one.patients}
    return _difference(*values, drawn, one.carriers, "no stratum with a positive and a negative case", counts)


def _label_rows(pair: list[LabelFigures], bootstrap: PatientBootstrap, stratified: bool) -> list[dict[str, Any]]:
    one, other = pair
    cases = one.cases
    drawn = bootstrap.replicate(lambda counts: one.weigh(counts) - other.weigh(counts), cases=len(cases.positive))
    if stratified:
        drawn[AUROC] = bootstrap.replicate(
            lambda counts: one.auroc(counts) - other.auroc(counts), cases=len(cases.positive), strata=one.with_positive
        )[0]
    carriers = one.carriers(), other.carriers()
    counts = {"cases": len(cases.positive), "positives": int(cases.positive.sum()), "patients": carriers[0]["known"]}
    rows = []
    for figure, first, second, differences in zip(one.figures, one.values(), other.values(), drawn, strict=True):
        kind = KINDS[figure.metric]
        if figure.metric in NOT_COMPARED:
            continue
        carried_by = kind.carried_by if figure.prevalence is None else "both"
        carrying = min(each[carried_by] for each in carriers)
        reason = f"{cases.classes}, {kind.needs}"
        keys = {"metric": figure.metric, "prevalence": np.nan if figure.prevalence is None else figure.prevalence}
        rows.append({**keys, **_difference(first, second, differences, carrying, reason, counts)})
    return rows


def _difference(
    first: float, second: float, differences: np.ndarray, patients: int, reason: str, counts: dict[str, int]
) -> dict[str, Any]:
    defined = differences[~np.isnan(differences)]
    difference = first - second
    low = high = p_value = np.nan
    notes = []
    error = float(defined.std()) if len(defined) else 0.0
    if len(defined) < len(differences):
        notes.append(f"{len(differences) - len(defined)} of {len(differences)} resamples excluded, in which it is undefined")
    if np.isnan(difference):
        notes = [reason]
    elif patients < 2:
        notes.append("no interval: there are fewer than 2 patients")
    elif error <= 1e-15 * max(abs(first), abs(second)):
        notes.append("no interval: all resamples agree")
    elif len(defined) < len(differences) / 2:
        notes.append("no interval")
    else:
        error *= np.sqrt(patients / (patients - 1))
        half = float(stats.t.ppf(0.975, patients - 1)) * error
        low, high = difference - half, difference + half
        p_value = float(2 * stats.t.sf(abs(difference) / error, patients - 1))
    numbers = {"first": first, "second": second, "difference": difference, "low": low, "high": high, "p_value": p_value}
    return {**numbers, "method": "" if np.isnan(low) else METHOD, **counts, "note": "; ".join(notes)}


def _weighted(
    labels: np.ndarray,
    models: list[np.ndarray],
    index: np.ndarray,
    bootstrap: PatientBootstrap,
    weights: Sequence[float],
) -> dict[str, Any]:
    losses = [WeightedLosses(labels, p, index, bootstrap.patients, weights) for p in models]
    drawn = bootstrap.replicate(lambda counts: losses[0].weigh(counts) - losses[1].weigh(counts), cases=bootstrap.patients)[0]
    first, second = (loss.value() for loss in losses)
    counts = {name: number for name, number in losses[0].counts.items() if name != "unknown"}
    keys = {"label": ALL_LABELS, "metric": "weighted_log_loss", "prevalence": np.nan}
    return {**keys, **_difference(first, second, drawn, counts["patients"], "no known label", counts)}
