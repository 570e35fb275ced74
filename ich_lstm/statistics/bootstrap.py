"""The patient bootstrap: patients are drawn with replacement, each with all of its cases.

Slices of a patient are not independent. If they were drawn one by one, intervals would be far too narrow.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import numpy as np
from scipy import sparse, stats

from ich_lstm.errors import ConfigError
from ich_lstm.statistics.estimate import Estimate
from ich_lstm.statistics.proportions import clopper_pearson, exact_limits

METHOD = "patient bootstrap"
EXACT_ON_PATIENTS = "Clopper-Pearson on patients"
"""The names of the methods in tables."""

FEW_PATIENTS = 30
"""With fewer patients, the coverage of simulated intervals was below their confidence."""

NARROWEST = 16
WIDEST_CELLS = 2**22
"""Replicates are computed in blocks whose cases times replicates stay below the maximum (tens of megabytes per array), but of at
least the minimum number of replicates."""

Scale = Literal["proportion", "logit", "log", "percentile"]
"""Scale on which an interval is computed; see `bootstrap_interval`."""


class PatientBootstrap:
    """Draws patients with replacement; the draws are a pure function of seed, replicate and number of patients.

    Args:
        patients: Number of patients in the data.
        replicates: Number of replicates, at least 100.
        seed: Seed of the draws.
        workers: Number of threads; numpy and scipy release the interpreter lock while they compute.
    """

    def __init__(self, patients: int, *, replicates: int = 2000, seed: int = 0, workers: int = 2) -> None:
        if replicates < 100 or workers < 1:
            raise ConfigError(
                "bootstrap_out_of_range",
                where="patient bootstrap",
                got=f"{replicates} replicates, {workers} workers",
                expected="at least 100 replicates and one worker",
            )
        self.patients = patients
        self.replicates = replicates
        self.seed = seed
        self.workers = workers

    def counts(self, start: int, stop: int, strata: np.ndarray | None = None) -> np.ndarray:
        """Draw patients for several replicates.

        Args:
            start: Index of the first replicate.
            stop: Index of the last replicate plus 1.
            strata: Division of the patients into two groups that are resampled separately, bool ``(patients,)``; None for one
                group.

        Returns:
            How often each patient is drawn, float32 ``(patients, stop - start)``.
        """
        whole = np.arange(self.patients)
        groups = [whole] if strata is None else [whole[strata], whole[~strata]]
        counts = np.zeros((stop - start, self.patients), dtype=np.float32)
        for row, replicate in enumerate(range(start, stop)):
            # Each replicate has its own random stream, so that draws do not depend on the division into blocks.
            random = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(replicate,)))
            for group in groups:
                if len(group):
                    drawn = random.integers(len(group), size=len(group))
                    counts[row, group] = np.bincount(drawn, minlength=len(group))
        return np.ascontiguousarray(counts.T)

    def replicate(
        self, figures: Callable[[np.ndarray], np.ndarray], *, cases: int, strata: np.ndarray | None = None
    ) -> np.ndarray:
        """Compute the figures of every replicate.

        Args:
            figures: Function from counts ``(patients, r)`` to figures ``(m, r)``, NaN where undefined; several threads call it.
            cases: Approximate number of cases, which determines how many replicates are computed in one block.
            strata: Division of the patients into two groups that are resampled separately, bool ``(patients,)``; None for one
                group.

        Returns:
            Figures ``(m, replicates)``, NaN where undefined.
        """
        width = max(NARROWEST, min(self.replicates, WIDEST_CELLS // max(1, cases)))
        starts = range(0, self.replicates, width)

        def block(start: int) -> np.ndarray:
            return figures(self.counts(start, min(start + width, self.replicates), strata))

        with ThreadPoolExecutor(self.workers) as threads:
            return np.concatenate(list(threads.map(block, starts)), axis=1)


def sum_by_patient(
    rows: np.ndarray, patient: np.ndarray, shape: tuple[int, int], values: np.ndarray | None = None
) -> sparse.csr_array:
    """Sum cases by row and patient; the product with counts ``(patients, r)`` gives the sums of r replicates.

    Args:
        rows: Row to which each case belongs, ``(m,)``.
        patient: Index of the patient of each case, ``(m,)``.
        shape: Numbers of rows and of patients.
        values: Values to sum, ``(m,)``; None counts the cases, in float32.

    Returns:
        Sums ``(rows, patients)``, sparse.
    """
    values = np.ones(len(rows), dtype=np.float32) if values is None else values
    return sparse.csr_array((values, (rows, patient)), shape=shape)


def bootstrap_interval(
    value: float, replicates: np.ndarray, *, scale: Scale, patients: int, binomial: bool = False, confidence: float = 0.95
) -> Estimate:
    """Compute the interval of a figure from its bootstrap replicates.

    Plain percentile intervals are too narrow and ignore the bounds of a scale: their coverage is 89 to 92 % where 30 patients are
    positive and a figure is near 1 (simulated in ``examples/benchmarks/coverage.py``). Each scale therefore has its own method:

    - ``proportion``: Clopper and Pearson's interval of the effective number of cases, ``value * (1 - value) / variance``, with
      the variance of the replicates (Korn & Graubard, Survey Methodology 1998;24:193-201);
    - ``logit``, ``log``: Student's interval around the value on that scale, with the standard deviation of the replicates;
    - ``percentile``: percentiles, widened for the number of patients (Hesterberg, Am Stat 2015;69:371-386), for figures
      whose replicates may be outliers.

    The quantile is Student's with ``patients - 1`` degrees of freedom, and the variance is divided by ``patients - 1``.

    Args:
        value: The figure on all cases; not NaN.
        replicates: Figures of the replicates, ``(r,)``; undefined ones (NaN) are excluded and counted in the note.
        scale: Scale that selects the method.
        patients: Number of patients who contribute to the figure; for a sensitivity, those with a positive case.
        binomial: Whether the figure is a proportion of cases, which gets Clopper and Pearson's interval with patients as units if
            it is 0 or 1; this interval is wide but defined.
        confidence: Confidence of the interval, between 0 and 1.
    """
    defined = replicates[~np.isnan(replicates)]
    notes = []
    if len(defined) < len(replicates):
        notes.append(f"{len(replicates) - len(defined)} of {len(replicates)} resamples excluded, in which it is undefined")
    if patients < 2:
        return Estimate(value, note="; ".join([*notes, "no interval: there are fewer than 2 patients"]))
    if patients < FEW_PATIENTS:
        notes.append(f"only {patients} patients: the interval is approximate")
    if len(defined) < len(replicates) / 2:
        return Estimate(value, note="; ".join([*notes, "no interval"]))
    if np.ptp(defined) <= 1e-12 * abs(value):
        if binomial and value in (0, 1):
            low, high = clopper_pearson(value * patients, patients, confidence=confidence)
            return Estimate(value, low, high, EXACT_ON_PATIENTS, "; ".join([*notes, "all resamples agree"]))
        return Estimate(value, note="; ".join([*notes, "no interval: all resamples agree"]))
    # Both corrections vanish as the number of patients grows.
    quantile = float(stats.t.ppf((1 + confidence) / 2, patients - 1)) * np.sqrt(patients / (patients - 1))
    low, high = _limits(value, defined, scale, quantile, confidence)
    return Estimate(value, low, high, METHOD, "; ".join(notes))


def _limits(value: float, replicates: np.ndarray, scale: Scale, quantile: float, confidence: float) -> tuple[float, float]:
    normal = float(stats.norm.ppf((1 + confidence) / 2))
    if scale == "percentile":
        low, high = np.quantile(replicates, stats.norm.cdf([-quantile, quantile]))
        return float(low), float(high)
    if scale == "proportion":
        if value in (0, 1):  # replicates may still differ, for example those of a predictive value at a stated prevalence
            return float(min(value, replicates.min())), float(max(value, replicates.max()))
        effective = value * (1 - value) / float(np.var(replicates)) * (normal / quantile) ** 2
        return exact_limits(value * effective, effective, confidence)
    if scale == "log":
        both = np.log(_inside(np.append(replicates, value), np.inf))
        half = quantile * both[:-1].std()
        return float(np.exp(both[-1] - half)), float(np.exp(both[-1] + half))
    both = _inside(np.append(replicates, value), 1.0)
    odds = np.log(both) - np.log1p(-both)
    half = quantile * odds[:-1].std()
    low, high = 1 / (1 + np.exp(half - odds[-1])), 1 / (1 + np.exp(-half - odds[-1]))
    # A figure of 0 or 1 was moved inside to have finite log odds, but its interval must contain it.
    return float(min(low, value)), float(max(high, value))


def _inside(values: np.ndarray, top: float) -> np.ndarray:
    """Move values at an end of the scale halfway towards the nearest inner value, so that log odds are finite."""
    inner = values[(values > 0) & (values < top)]
    if len(inner) == 0:
        inner = np.array([0.5])
    bottom_end = inner.min() / 2
    return np.clip(values, bottom_end, top if np.isinf(top) else top - (top - inner.max()) / 2)
