"""All figures of all labels, each with its interval, as one table."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ich_lstm.errors import ConfigError
from ich_lstm.labels import LABEL_WEIGHTS, LABELS
from ich_lstm.statistics.bootstrap import PatientBootstrap, bootstrap_interval
from ich_lstm.statistics.cases import Cases, check_labels, check_probabilities, patient_index
from ich_lstm.statistics.estimate import Estimate, undefined
from ich_lstm.statistics.measures.figures import AUROC, KINDS, LabelFigures
from ich_lstm.statistics.measures.scores import log_losses
from ich_lstm.statistics.proportions import PROPORTIONS, clopper_pearson, ratio, wilson

ALL_LABELS = "all"
"""The value of the column ``label`` for a figure over all labels together."""


@dataclass(frozen=True, kw_only=True)
class FigureSettings:
    """How figures and their intervals are computed; the same for every table of a report.

    Args:
        prevalences: Prevalences between 0 and 1 at which PPV and NPV are also computed.
        bins: Number of bins of equal width of the expected calibration error.
        replicates: Number of bootstrap resamples.
        seed: Seed of the bootstrap.
        workers: Number of threads of the bootstrap.
    """

    prevalences: Sequence[float] = ()
    bins: int = 10
    replicates: int = 2000
    seed: int = 0
    workers: int = 2


def evaluate_labels(
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: Iterable,
    *,
    thresholds: float | Sequence[float] = 0.5,
    prevalences: Sequence[float] = FigureSettings.prevalences,
    bins: int = FigureSettings.bins,
    names: Sequence[str] = LABELS,
    weights: Sequence[float] = LABEL_WEIGHTS,
    replicates: int = FigureSettings.replicates,
    seed: int = FigureSettings.seed,
    stratified: bool = True,
    workers: int = FigureSettings.workers,
) -> pd.DataFrame:
    """Compute every figure of every label with a 95 % interval over patients; a case is a slice, a scan or a patient.

    Args:
        labels: Labels of the cases, ``(n, k)``: 1 present, 0 absent, NaN unknown; unknown labels are excluded and counted.
        probabilities: Probabilities of the cases in [0, 1], ``(n, k)``.
        patients: The patient of each case, ``(n,)``.
        thresholds: One operating point for all labels, or one for each, at or above which a case is called positive. It must not
            have been chosen on these cases.
        prevalences: Prevalences between 0 and 1 at which PPV and NPV are also computed.
        bins: Number of bins of equal width of the expected calibration error.
        names: The names of the k labels.
        weights: Weights of the k labels in the weighted log loss.
        replicates: Number of bootstrap resamples.
        seed: Seed of the bootstrap; the order of the cases does not matter.
        stratified: Whether patients with and without a positive case are resampled separately, so that every resample has both;
            this applies only to AUROC.
        workers: Number of threads of the bootstrap.

    Returns:
        One row per figure: ``label`` (`ALL_LABELS` for the weighted log loss), ``metric``, ``prevalence`` (NaN for that of the
        data), ``threshold`` (NaN for figures without a threshold), ``value``, ``low`` and ``high`` (NaN if undefined, with the
        reason in the note), ``method`` (of the interval), ``cases``, ``positives``, ``unknown``, ``patients`` and ``note``. If no
        patient has two cases, accuracy, sensitivity, specificity, PPV and NPV have further rows with the ``method`` Wilson and
        Clopper-Pearson.

    Raises:
        TableError: If a probability is not a number in [0, 1], a label is not 0, 1 or NaN, or a patient is unknown.
        ConfigError: If shapes do not match, or a setting is out of range.

    Example:
        >>> labels, probabilities = np.array([[0.0], [1], [0], [1]]), np.array([[0.1], [0.9], [0.4], [0.3]])
        >>> table = evaluate_labels(labels, probabilities, ["a", "b", "c", "d"], names=("any",), weights=(1,))
        >>> print(table.set_index("metric").loc["auroc", "value"])
        0.75
    """
    y, p = check_labels(labels), check_probabilities(probabilities)
    points = check_settings(y, p, thresholds, prevalences, names, weights)
    index, count = patient_index(patients)
    if len(index) != len(y):
        raise ConfigError("shapes_differ", where="evaluation", got=f"{len(index)} patients", expected=f"{len(y)}, one per case")
    bootstrap = PatientBootstrap(count, replicates=replicates, seed=seed, workers=workers)
    rows = [_weighted_row(WeightedLosses(y, p, index, count, weights), bootstrap)]
    for k, name in enumerate(names):
        known = ~np.isnan(y[:, k])
        cases = Cases(y[known, k] == 1, p[known, k], int((~known).sum()))
        figures = LabelFigures(cases, index[known], count, threshold=points[k], prevalences=prevalences, bins=bins)
        rows += [{"label": name, **row} for row in _rows(figures, bootstrap, stratified, points[k])]
    return pd.DataFrame(rows)


class WeightedLosses:
    """The weighted log loss, reduced to sums per patient.

    Args:
        labels: Labels of the cases, float64 ``(n, k)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of the cases in [0, 1], float64 ``(n, k)``.
        patient: Index of the patient of each case, ``(n,)``.
        patients: Number of patients in the data.
        weights: The weight of each label.
    """

    def __init__(
        self, labels: np.ndarray, probabilities: np.ndarray, patient: np.ndarray, patients: int, weights: Sequence[float]
    ) -> None:
        losses = log_losses(labels, probabilities)  # (n, k)
        each = np.asarray(weights, dtype=np.float64) * ~np.isnan(losses)
        loss, weight = (np.nan_to_num(losses) * each).sum(axis=1), each.sum(axis=1)
        columns = [np.bincount(patient, weights=column, minlength=patients) for column in (loss, weight)]
        self._sums = np.stack(columns)  # (2, patients)
        self.counts = {
            "cases": int((weight > 0).sum()),
            "positives": int((labels == 1).any(axis=1).sum()),
            "unknown": int(np.isnan(labels).sum()),
            "patients": int((self._sums[1] > 0).sum()),
        }

    def value(self) -> float:
        """Compute the weighted log loss of all cases; NaN without a known label."""
        return float(ratio(*self._sums.sum(axis=1)))

    def weigh(self, counts: np.ndarray) -> np.ndarray:
        """Compute the weighted log loss for r weightings of the patients, from counts ``(patients, r)`` to ``(1, r)``."""
        return ratio(*(self._sums @ counts.astype(np.float64)))[None]


def check_settings(
    labels: np.ndarray,
    probabilities: np.ndarray,
    thresholds: float | Sequence[float],
    prevalences: Sequence[float],
    names: Sequence[str],
    weights: Sequence[float],
) -> np.ndarray:
    """Check shapes and settings.

    Returns:
        The threshold of each label, ``(k,)``.

    Raises:
        ConfigError: If shapes do not match, or a setting is out of range.
    """
    fits = labels.ndim == 2 and labels.shape == probabilities.shape and labels.shape[1] == len(names) == len(weights)
    if not fits:
        raise ConfigError(
            "shapes_differ",
            where="evaluation",
            got=f"labels {labels.shape}, probabilities {probabilities.shape}, {len(names)} names, {len(weights)} weights",
            expected="labels and probabilities (n, k), k names and k weights",
        )
    points = np.asarray(thresholds, dtype=np.float64)
    if points.shape not in ((), (len(names),)) or not ((points >= 0) & (points <= 1)).all():
        raise ConfigError(
            "threshold_out_of_range", where="thresholds", got=str(thresholds), expected=f"one or {len(names)} numbers from 0 to 1"
        )
    if not all(0 < share < 1 for share in prevalences):
        raise ConfigError("prevalence_out_of_range", where="prevalences", got=str(prevalences), expected="between 0 and 1")
    return np.broadcast_to(points, (len(names),))


def _rows(figures: LabelFigures, bootstrap: PatientBootstrap, stratified: bool, threshold: float) -> list[dict[str, Any]]:
    """Make all rows of a label, without its name."""
    values = figures.values()
    cases = figures.cases
    replicates = bootstrap.replicate(figures.weigh, cases=len(cases.positive))
    if stratified:
        stratified_auroc = bootstrap.replicate(figures.auroc, cases=len(cases.positive), strata=figures.with_positive)
        replicates[AUROC] = stratified_auroc[0]
    carriers = figures.carriers()
    counts = {
        "cases": len(cases.positive),
        "positives": int(cases.positive.sum()),
        "unknown": cases.unknown,
        "patients": carriers["known"],
    }
    rows = []
    for (metric, prevalence), value, drawn in zip(figures.figures, values, replicates, strict=True):
        kind = KINDS[metric]
        keys = {
            "metric": metric,
            "prevalence": np.nan if prevalence is None else prevalence,
            "threshold": threshold if metric in PROPORTIONS else np.nan,
        }
        if np.isnan(value):
            estimate = undefined(f"{cases.classes}, {kind.needs}")
        else:
            binomial = metric in PROPORTIONS and PROPORTIONS[metric].binomial and prevalence is None
            patients = carriers["both" if prevalence is not None else kind.carried_by]
            estimate = bootstrap_interval(float(value), drawn, scale=kind.scale, patients=patients, binomial=binomial)
        rows.append(_row(keys, estimate, counts))
    return rows + _exact_rows(figures, threshold, counts)


def _exact_rows(figures: LabelFigures, threshold: float, counts: dict[str, int]) -> list[dict[str, Any]]:
    """Make rows of proportions with the intervals for independent cases, if no patient has two cases."""
    if not figures.is_independent():
        return []
    rows = []
    table = figures.confusion()
    for metric, kind in PROPORTIONS.items():
        part, whole = int(kind.part(table)), int(kind.whole(table))  # whole numbers: each patient has one case
        if kind.binomial and whole:
            keys = {"metric": metric, "prevalence": np.nan, "threshold": threshold}
            for method, interval in (("Wilson", wilson), ("Clopper-Pearson", clopper_pearson)):
                rows.append(_row(keys, Estimate(part / whole, *interval(part, whole), method), counts))
    return rows


def _weighted_row(losses: WeightedLosses, bootstrap: PatientBootstrap) -> dict[str, Any]:
    value = losses.value()
    if np.isnan(value):
        estimate = undefined("no known label")
    else:
        drawn = bootstrap.replicate(losses.weigh, cases=bootstrap.patients)[0]
        estimate = bootstrap_interval(value, drawn, scale="log", patients=losses.counts["patients"])
    keys = {"label": ALL_LABELS, "metric": "weighted_log_loss", "prevalence": np.nan, "threshold": np.nan}
    return _row(keys, estimate, losses.counts)


def _row(keys: dict[str, Any], estimate: Estimate, counts: dict[str, int]) -> dict[str, Any]:
    numbers = {
        name: np.nan if number is None else number for name, number in zip(("value", "low", "high"), estimate, strict=False)
    }
    return {**keys, **numbers, "method": estimate.method, **counts, "note": estimate.note}
