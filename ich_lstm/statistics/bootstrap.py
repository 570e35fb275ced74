"""The patient bootstrap: patients are drawn with replacement, each with all of its cases.

Slices of a patient are not independent: if they were drawn one by one, intervals would be far too narrow.
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

FEW_PATIENTS = 30
"""With fewer patients, simulated intervals covered the true value less often than their confidence promises."""

NARROWEST = 16
WIDEST_CELLS = 2**22
"""Replicates are computed together, as many as keep cases times replicates below this: tens of megabytes per array."""

Scale = Literal["proportion", "logit", "log", "percentile"]
"""Scale on which an interval is computed; see `bootstrap_interval`."""


class PatientBootstrap:
    """How often each patient is drawn in each replicate: a pure function of seed, replicate and number of patients.

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
        """Draws of each patient, float32 ``(patients, stop - start)``.

        Args:
            start: Number of the first replicate.
            stop: Number of the last replicate plus 1.
            strata: Two groups of patients, bool ``(patients,)``, each drawn by itself in its own size; None: one group.
        """
        whole = np.arange(self.patients)
        groups = [whole] if strata is None else [whole[strata], whole[~strata]]
        counts = np.zeros((stop - start, self.patients), dtype=np.float32)
        for row, replicate in enumerate(range(start, stop)):
            # Each replicate has its own random stream, so that draws do not depend on the distribution among threads.
            random = np.random.default_rng(np.random.SeedSequence(self.seed, spawn_key=(replicate,)))
            for group in groups:
                if len(group):
                    drawn = random.integers(len(group), size=len(group))
                    counts[row, group] = np.bincount(drawn, minlength=len(group))
        return np.ascontiguousarray(counts.T)

    def replicate(
        self, figures: Callable[[np.ndarray], np.ndarray], *, cases: int, strata: np.ndarray | None = None
    ) -> np.ndarray:
        """Figures of every replicate.

        Args:
            figures: Function from counts ``(patients, r)`` to figures ``(m, r)``, NaN where undefined; several threads call it.
            cases: Approximate number of cases, which decides how many replicates are computed together.
            strata: Groups of patients that are drawn apart, as in `counts`.

        Returns:
            Figures ``(m, replicates)``, NaN where undefined.
        """
        width = max(NARROWEST, min(self.replicates, WIDEST_CELLS // max(1, cases)))
        starts = range(0, self.replicates, width)

        def part(start: int) -> np.ndarray:
            return figures(self.counts(start, min(start + width, self.replicates), strata))

        with ThreadPoolExecutor(self.workers) as threads:
            return np.concatenate(list(threads.map(part, starts)), axis=1)


def sum_by_patient(
    rows: np.ndarray, patient: np.ndarray, shape: tuple[int, int], values: np.ndarray | None = None
) -> sparse.csr_array:
    """Add up cases by row and patient; the product with counts ``(patients, r)`` gives the sums of r replicates.

    Args:
        rows: Row to which each case belongs, ``(m,)``.
        patient: Index of the patient of each case, ``(m,)``.
        shape: Numbers of rows and of patients.
        values: Values that are added up, ``(m,)``; None: cases are counted, in float32.
    """
    values = np.ones(len(rows), dtype=np.float32) if values is None else values
    return sparse.csr_array((values, (rows, patient)), shape=shape)


def bootstrap_interval(
    value: float, replicates: np.ndarray, *, scale: Scale, patients: int, binomial: bool = False, confidence: float = 0.95
) -> Estimate:
    """Interval of a figure from its bootstrap replicates.

    Plain percentile intervals are too narrow and do not take the ends of a scale into account: they cover 89 to 92 % where 30
    patients are positive and a figure lies near 1 (simulated in ``examples/benchmarks/coverage.py``). Therefore:

    - ``proportion``: Clopper and Pearson's interval of the effective number of cases, ``value * (1 - value) / variance``, with
      the variance of the replicates (Korn & Graubard, Survey Methodology 1998;24:193-201);
    - ``logit``, ``log``: value and standard deviation of the replicates on that scale;
    - ``percentile``: percentiles, widened for the number of patients (Hesterberg, Am Stat 2015;69:371-386), for figures
      whose replicates may lie far out.

    The quantile is Student's with ``patients - 1`` degrees of freedom, and the variance is divided by ``patients - 1``.

    Args:
        value: The figure on all cases; not NaN.
        replicates: Figures of the replicates, ``(r,)``; undefined ones (NaN) are left out and counted in the note.
        scale: One of the four scales above.
        patients: Number of patients on whom the figure rests: for a sensitivity, those with a positive case.
        binomial: Whether the figure is a proportion of cases; if it is 0 or 1, it gets Clopper and Pearson's interval with
            patients as units, which is wide but defined.
        confidence: Confidence of the interval, between 0 and 1.
    """
    defined = replicates[~np.isnan(replicates)]
    notes = []
    if len(defined) < len(replicates):
        notes.append(f"{len(replicates) - len(defined)} of {len(replicates)} resamples left out, where it is undefined")
    if patients < 2:
        return Estimate(value, note="; ".join([*notes, "no interval: it rests on fewer than 2 patients"]))
    if patients < FEW_PATIENTS:
        notes.append(f"rests on {patients} patients: the interval is approximate")
    if len(defined) < len(replicates) / 2:
        return Estimate(value, note="; ".join([*notes, "no interval"]))
    if np.ptp(defined) <= 1e-12 * abs(value):
        if binomial and value in (0, 1):
            low, high = clopper_pearson(value * patients, patients, confidence=confidence)
            return Estimate(value, low, high, EXACT_ON_PATIENTS, "; ".join([*notes, "all resamples agree"]))
        return Estimate(value, note="; ".join([*notes, "no interval: all resamples agree"]))
    # Both corrections vanish as patients grow.
    quantile = float(stats.t.ppf((1 + confidence) / 2, patients - 1)) * np.sqrt(patients / (patients - 1))
    low, high = _limits(value, defined, scale, quantile, confidence)
    return Estimate(value, low, high, METHOD, "; ".join(notes))


def _limits(value: float, replicates: np.ndarray, scale: Scale, quantile: float, confidence: float) -> tuple[float, float]:
    normal = float(stats.norm.ppf((1 + confidence) / 2))
    if scale == "percentile":
        low, high = np.quantile(replicates, stats.norm.cdf([-quantile, quantile]))
        return float(low), float(high)
    if scale == "proportion":
        if value in (0, 1):  # although replicates differ, as for a predictive value at a stated prevalence
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
    # A figure at the very end was moved inside to have odds; its interval reaches the end.
    return float(min(low, value)), float(max(high, value))


def _inside(values: np.ndarray, top: float) -> np.ndarray:
    """Values at an end of the scale, moved half-way towards the nearest value inside, where log odds are finite."""
    inner = values[(values > 0) & (values < top)]
    if len(inner) == 0:
        inner = np.array([0.5])
    bottom_end = inner.min() / 2
    return np.clip(values, bottom_end, top if np.isinf(top) else top - (top - inner.max()) / 2)
