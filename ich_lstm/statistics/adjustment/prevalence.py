"""The prevalence of a site, estimated without labels."""

from collections.abc import Callable, Iterable

import numpy as np

from ich_lstm.statistics.adjustment.corrections import check_share
from ich_lstm.statistics.bootstrap import PatientBootstrap, bootstrap_interval, sum_by_patient
from ich_lstm.statistics.cases import check_probabilities, patient_index
from ich_lstm.statistics.estimate import Estimate, undefined
from ich_lstm.statistics.logistic import group_cells
from ich_lstm.statistics.measures.scores import logit

HALVINGS = 60
"""Number of bisections, enough for float64 precision."""
AT_AN_END = 1e-9
"""A share this close to 0 or 1 means that the likelihood is highest at that end, so every probability would become 0 or 1."""

ASSUMES = "assumes calibrated probabilities, and that only the share of positive cases differs from the training data"


def estimate_prevalence(
    probabilities: np.ndarray,
    trained: float,
    patients: Iterable | None = None,
    *,
    replicates: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Estimate the share of positive cases at a site from probabilities without labels.

    The result is that of the EM algorithm of Saerens et al. The likelihood of the share is concave, so bisection finds its
    maximum, the fixed point of EM, in fewer steps.

    Source: Saerens, Latinne & Decaestecker, Neural Comput 2002;14:21-41.

    Args:
        probabilities: Probabilities of all cases of the site in [0, 1], ``(n,)``.
        trained: Share of positive cases at which the probabilities were calibrated, between 0 and 1.
        patients: The patient of each case, ``(n,)``; None only if cases are independent.
        replicates: Number of bootstrap resamples of patients.
        seed: Seed of the bootstrap over patients.

    Returns:
        The share, with a note on its assumptions. It is undefined where the likelihood is highest at 0 or 1, which would make
        every probability 0 or 1.
    """
    p = check_probabilities(probabilities)
    check_share("trained", trained)
    if not len(p):
        return undefined("no case")
    index, count = (np.arange(len(p)), len(p)) if patients is None else patient_index(patients)
    if (p == p[0]).all():
        return undefined("all probabilities are equal, so they contain no information about the share")
    x, cell = group_cells(logit(p))
    cases = sum_by_patient(cell, index, (len(x), count), np.ones(len(p)))
    figure = _share_finder(1 / (1 + np.exp(-x)), trained)
    exact, place = np.unique(p, return_inverse=True)  # the estimate itself is exact; only the bootstrap uses cells
    value = float(_share_finder(exact, trained)(np.bincount(place)[:, None].astype(np.float64))[0, 0])
    if not AT_AN_END < value < 1 - AT_AN_END:
        return undefined(
            f"the likelihood is highest at {100 * round(value)} %: too few cases, or cases that differ from training"
        )
    bootstrap = PatientBootstrap(count, replicates=replicates, seed=seed)
    drawn = bootstrap.replicate(lambda counts: figure(cases @ counts.astype(np.float64)), cases=len(p))[0]
    estimate = bootstrap_interval(value, drawn, scale="percentile", patients=count)
    return estimate._replace(note="; ".join(filter(None, [ASSUMES, estimate.note])))


def _share_finder(p: np.ndarray, trained: float) -> Callable[[np.ndarray], np.ndarray]:
    """Make a function from weights of the probabilities ``(g, r)`` to the most likely shares ``(1, r)``."""
    present, absent = p / trained, (1 - p) / (1 - trained)  # likelihoods, up to a factor per case

    def find(weights: np.ndarray) -> np.ndarray:
        low, high = np.zeros(weights.shape[1]), np.ones(weights.shape[1])
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            gain = (present - absent)[:, None] / (np.multiply.outer(absent, 1 - middle) + np.multiply.outer(present, middle))
            rising = (weights * gain).sum(axis=0) > 0
            low, high = np.where(rising, middle, low), np.where(rising, high, middle)
        return ((low + high) / 2)[None]

    return find
