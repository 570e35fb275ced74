"""Sampling weights of scans that balance the hemorrhage types."""

from collections.abc import Sequence

import numpy as np

from ich_lstm.labels import HEMORRHAGE_TYPES, LABELS
from ich_lstm.printable import printable_logger

logger = printable_logger(__name__)

MOST_DRAWS = 32.0
"""Largest factor for drawing a scan more or less often than one without hemorrhage; augmentation adds no new patients."""

ROUNDS = 200
"""Rounds of adjusting one type after the other; a handful is enough unless two types cannot be separated."""

CLOSE = 0.01
"""Relative difference below which types count as equally frequent."""


def balanced_weights(slice_labels: Sequence[np.ndarray], scan_labels: np.ndarray) -> np.ndarray:
    """Compute how often each scan is drawn per epoch, on average, so that all types have equally many positive slices.

    A scan's weight is the product of one factor for each type that it shows; a scan without any has the weight 1. The factors are
    chosen so that the weighted number of positive slices of every type equals that of the originally most frequent type::

        w_i = prod over types t of scan i of f_t,      sum_i w_i n_it = max_t sum_i n_it

    where n_it is the number of slices of scan i that show t, or 1 if only the scan is labelled. The factors are found by
    adjusting one after the other (iterative proportional fitting, Deming and Stephan 1940). If no factors fit, because one type
    never occurs without another, a warning gives the frequencies that were reached. Finally the weights are scaled to a mean of
    1, so that an epoch has as many samples as without balancing.

    Args:
        slice_labels: Labels of the slices of each scan, float32 ``(n, k)``: 1 present, 0 absent, NaN unknown.
        scan_labels: Labels of each scan, float32 ``(scans, k)``: 1 present, 0 absent, NaN unknown.

    Returns:
        Weight of each scan with a mean of 1, float64 ``(scans,)``.
    """
    types = [LABELS.index(name) for name in HEMORRHAGE_TYPES]
    shown = np.array([(labels[:, types] == 1).sum(axis=0) for labels in slice_labels], dtype=np.float64).reshape(-1, len(types))
    counts = np.where(shown > 0, shown, scan_labels[:, types] == 1)  # (scans, types)
    weights = np.ones(len(counts))
    present = [t for t in range(len(types)) if counts[:, t].any()]
    if not present:
        return weights
    target = counts.sum(axis=0).max()
    for _ in range(ROUNDS):
        for t in present:
            positive = counts[:, t] > 0
            weights[positive] *= target / (weights @ counts[:, t])
        np.clip(weights, 1 / MOST_DRAWS, MOST_DRAWS, out=weights)
        reached = weights @ counts[:, present]
        if np.abs(reached / target - 1).max() < CLOSE:
            break
    else:
        figures = ", ".join(f"{HEMORRHAGE_TYPES[t]} {share:.0%}" for t, share in zip(present, reached / target, strict=True))
        logger.warning("types cannot be balanced exactly; share of the common frequency that each type reaches: %s", figures)
    return weights / weights.mean()
