"""Agreement of readers beyond chance: Cohen's and Fleiss' kappa, with intervals over patients."""

from collections.abc import Callable, Iterable

import numpy as np

from ich_lstm.errors import TableError
from ich_lstm.statistics.bootstrap import PatientBootstrap, bootstrap_interval
from ich_lstm.statistics.cases import patient_index
from ich_lstm.statistics.estimate import Estimate, undefined
from ich_lstm.statistics.proportions import ratio

ONE_CATEGORY = "all marks are of one category, so agreement by chance is already complete"


def cohen_kappa(
    first: np.ndarray, second: np.ndarray, patients: Iterable | None = None, *, replicates: int = 2000, seed: int = 0
) -> Estimate:
    """Compute Cohen's kappa, the agreement of two readers beyond chance.

    Source: Cohen, Educ Psychol Meas 1960;20:37-46.

    Args:
        first: The first reader's marks, ``(n,)``: 0 and 1, or other categories as numbers; NaN unknown.
        second: The second reader's marks on the same cases, ``(n,)``; cases that only one reader marked are excluded and counted.
        patients: The patient of each case, ``(n,)``; None only if cases are independent.
        replicates: Number of bootstrap resamples of patients.
        seed: Seed of the bootstrap over patients.
    """
    marks = np.stack([np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)])  # (2, n)
    known = np.asarray(~np.isnan(marks).any(axis=0))
    excluded = f"{int((~known).sum())} cases excluded, not marked by both readers" if not known.all() else ""
    if not known.any():
        return undefined("; ".join(filter(None, ["no case marked by both readers", excluded])))
    categories, codes = np.unique(marks[:, known], return_inverse=True)
    one, other = codes.reshape(2, -1)
    size = len(categories)
    index, count = _units(patients, known)
    pairs = _sums_by_patient(np.eye(size * size)[one * size + other], index, count)  # (size * size, patients)

    def kappa(counts: np.ndarray) -> np.ndarray:
        table = (pairs @ counts).reshape(size, size, -1)
        total = table.sum(axis=(0, 1))
        observed = ratio(np.einsum("iir->r", table), total)
        expected = ratio((table.sum(axis=0) * table.sum(axis=1)).sum(axis=0), total**2)
        return ratio(observed - expected, np.where(expected > 1 - 1e-12, 0, 1 - expected))[None]

    return _with_interval(kappa, index, count, PatientBootstrap(count, replicates=replicates, seed=seed), excluded)


def fleiss_kappa(counts: np.ndarray, patients: Iterable | None = None, *, replicates: int = 2000, seed: int = 0) -> Estimate:
    """Compute Fleiss' kappa, the agreement of several readers beyond chance.

    The readers need not be the same for every case, but every case must have the same number of readers.

    Source: Fleiss, Psychol Bull 1971;76:378-382.

    Args:
        counts: Number of readers who put each case into each category, ``(n, categories)``.
        patients: The patient of each case, ``(n,)``; None only if cases are independent.
        replicates: Number of bootstrap resamples of patients.
        seed: Seed of the bootstrap over patients.

    Raises:
        TableError: If the number of readers differs between cases, or is below 2.

    Example:
        >>> fleiss_kappa(np.array([[3, 0], [2, 1], [0, 3], [1, 2], [3, 0], [3, 0], [0, 3], [2, 1]])).value.__round__(7)
        0.4857143
    """
    marks = np.asarray(counts, dtype=np.float64)
    if marks.ndim != 2 or not np.isfinite(marks).all() or (marks < 0).any():
        raise _readers_differ(f"counts {marks.shape} that are not all finite and at least 0")
    if not len(marks):
        return undefined("no case")
    readers = marks.sum(axis=1)
    if (readers != readers[0]).any() or readers[0] < 2:
        raise _readers_differ(f"{readers.min():g} to {readers.max():g} readers per case")
    agreeing = (marks * (marks - 1)).sum(axis=1) / (readers * (readers - 1))
    index, count = _units(patients, np.ones(len(marks), dtype=bool))
    sums = _sums_by_patient(np.column_stack([agreeing, np.ones(len(marks)), marks]), index, count)

    def kappa(draws: np.ndarray) -> np.ndarray:
        agreement, cases, *categories = sums @ draws
        total = np.stack(categories)
        expected = (ratio(total, total.sum(axis=0)) ** 2).sum(axis=0)
        return ratio(ratio(agreement, cases) - expected, np.where(expected > 1 - 1e-12, 0, 1 - expected))[None]

    return _with_interval(kappa, index, count, PatientBootstrap(count, replicates=replicates, seed=seed), "")


def _with_interval(
    kappa: Callable[[np.ndarray], np.ndarray], index: np.ndarray, count: int, bootstrap: PatientBootstrap, note: str
) -> Estimate:
    value = float(kappa(np.ones((count, 1)))[0, 0])
    if np.isnan(value):
        return undefined("; ".join(filter(None, [ONE_CATEGORY, note])))
    drawn = bootstrap.replicate(kappa, cases=len(index))[0]
    estimate = bootstrap_interval(value, drawn, scale="percentile", patients=len(np.unique(index)))
    return estimate._replace(note="; ".join(filter(None, [note, estimate.note])))


def _units(patients: Iterable | None, known: np.ndarray) -> tuple[np.ndarray, int]:
    """Number the patient of each known case, or the case itself if patients are unknown, and count the patients."""
    if patients is None:
        return np.arange(int(known.sum())), int(known.sum())
    index, count = patient_index(patients)
    return index[known], count


def _sums_by_patient(columns: np.ndarray, index: np.ndarray, count: int) -> np.ndarray:
    """Sum columns ``(n, m)`` over the cases of each patient; ``(m, patients)``."""
    return np.stack([np.bincount(index, weights=column, minlength=count) for column in columns.T])


def _readers_differ(got: str) -> TableError:
    return TableError(
        "readers_differ",
        where="Fleiss' kappa",
        got=got,
        expected="the same number of readers, at least 2, for every case",
        todo="Exclude cases that were not marked by all readers.",
    )
