"""Bootstrap bands around the ROC, precision-recall, reliability and smoothed calibration curves."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.statistics.bootstrap import PatientBootstrap, sum_by_patient
from ich_lstm.statistics.cases import known_cases, patient_index
from ich_lstm.statistics.logistic import group_cells
from ich_lstm.statistics.measures.calibration import bin_of
from ich_lstm.statistics.measures.discrimination import RankedCases, RankedWeights
from ich_lstm.statistics.measures.scores import logit
from ich_lstm.statistics.measures.smoothing import LocalLines
from ich_lstm.statistics.proportions import ratio


class CurveBands(NamedTuple):
    """The curves of one label with pointwise 95 % bands; each table has ``x, value, low, high``, NaN where undefined.

    Args:
        roc: The true positive rate at each false positive rate.
        precision_recall: The precision at each recall, at the highest threshold that reaches it.
        reliability: The observed share at the mean probability of each non-empty bin, and the number of its ``cases``.
        smoothed: The smoothed observed share at each probability.
        note: The reason why curves are empty, if they are.
    """

    roc: pd.DataFrame
    precision_recall: pd.DataFrame
    reliability: pd.DataFrame
    smoothed: pd.DataFrame
    note: str = ""


def curve_bands(
    labels: np.ndarray,
    probabilities: np.ndarray,
    patients: Iterable,
    *,
    points: int = 101,
    bins: int = 10,
    span: float = 0.5,
    replicates: int = 2000,
    seed: int = 0,
    workers: int = 2,
) -> CurveBands:
    """Compute the curves of one label's known cases, with the 2.5th and 97.5th percentile of the patient bootstrap at each point.

    Args:
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of the cases in [0, 1], ``(n,)``.
        patients: The patient of each case, ``(n,)``.
        points: Number of points of each curve.
        bins: Number of bins of equal width in the reliability diagram.
        span: Share of the cases that each point of the smoothed curve uses, above 0 and at most 1.
        replicates: Number of bootstrap resamples.
        seed: Seed of the bootstrap.
        workers: Number of threads of the bootstrap.
    """
    cases = known_cases(labels, probabilities)
    index, count = patient_index(patients)
    y, p = cases.positive, cases.probabilities
    if not y.any() or y.all():
        nothing = pd.DataFrame(columns=["x", "value", "low", "high"], dtype=np.float64)
        return CurveBands(nothing, nothing, nothing.assign(cases=[]), nothing, f"{cases.classes}, but curves need both")
    index = index[~np.isnan(np.asarray(labels, dtype=np.float64))]
    ranks = RankedCases(cases, index, count)
    x, cell = group_cells(logit(p))
    by_cell = [sum_by_patient(cell[rows], index[rows], (len(x), count), np.ones(rows.sum())) for rows in (y, y | True)]
    lines = LocalLines(x, np.bincount(cell), points=points, span=span)
    filled, place = np.unique(bin_of(p, bins), return_inverse=True)
    by_bin = [sum_by_patient(place[rows], index[rows], (len(filled), count), np.ones(rows.sum())) for rows in (y, y | True)]
    share = np.linspace(0, 1, points)

    def curves(counts: np.ndarray) -> np.ndarray:
        ranked = ranks.weigh(counts)
        counts = counts.astype(np.float64)
        positive, total = (matrix @ counts for matrix in by_cell)
        observed = ratio(*(matrix @ counts for matrix in by_bin))
        return np.concatenate([_roc_at(ranked, share), _precision_at(ranked, share), observed, lines.fit(positive, total)])

    bootstrap = PatientBootstrap(count, replicates=replicates, seed=seed, workers=workers)
    values = curves(np.ones((count, 1), dtype=np.float32))[:, 0]
    drawn = bootstrap.replicate(curves, cases=len(y))
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=1)
    in_bin = np.bincount(place)
    at = np.concatenate([share, share, np.bincount(place, weights=p) / in_bin, lines.at])
    table = pd.DataFrame({"x": at, "value": values, "low": low, "high": high})
    ends = np.cumsum([points, points, len(filled)])
    roc, recall, reliable, smooth = (table.iloc[rows].reset_index(drop=True) for rows in np.split(np.arange(len(table)), ends))
    return CurveBands(roc, recall, reliable.assign(cases=in_bin), smooth)


def _roc_at(ranked: RankedWeights, rates: np.ndarray) -> np.ndarray:
    """Compute true positive rates ``(points, r)`` at false positive rates, with linear interpolation along ties."""
    columns = []
    for positive, below, tied, negative in zip(*(weights.T for weights in ranked[:3]), ranked.negative, strict=True):
        if not negative or not positive.any():
            columns.append(np.full(len(rates), np.nan))
            continue
        upto = np.cumsum(positive[::-1])
        above = (negative - below - tied)[::-1]  # false positives at thresholds above each level
        x = np.column_stack([above, above + tied[::-1]]).ravel() / negative
        y = np.column_stack([upto - positive[::-1], upto]).ravel() / upto[-1]
        columns.append(np.interp(rates, x, y, left=0, right=1))
    return np.stack(columns, axis=1)


def _precision_at(ranked: RankedWeights, recalls: np.ndarray) -> np.ndarray:
    """Compute precisions ``(points, r)`` at the highest thresholds that reach the recalls."""
    columns = []
    for positive, below, negative in zip(ranked.positive.T, ranked.below.T, ranked.negative, strict=True):
        drawn = positive[::-1] > 0
        if not drawn.any():
            columns.append(np.full(len(recalls), np.nan))
            continue
        upto = np.cumsum(positive[::-1][drawn])
        precision = upto / (upto + (negative - below)[::-1][drawn])
        # The factor prevents rounding from requesting a recall above 1.
        columns.append(precision[np.searchsorted(upto, recalls * upto[-1] * (1 - 1e-12))])
    return np.stack(columns, axis=1)
