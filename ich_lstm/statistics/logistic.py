"""Logistic regression on one covariate, for many weightings of the same cases at once."""

import numpy as np
from scipy import special

STEPS = 50
HALVINGS = 30
"""Maximum numbers of Newton steps, and of halvings of one step."""
TOLERANCE = 1e-6
"""Newton's method stops when a step changes no coefficient by more; the remaining error is of the order of its square."""

SAFE_STEP = 1.0
"""A step that changes no log odds by more cannot lower the likelihood; a longer step is halved until it does not lower it."""


GRID = 512
"""Number of cells of log odds to which bootstraps fit; with no more distinct values than this, the fit is exact."""


def group_cells(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Group values into cells, so that thousands of fits do not process every case.

    All cells have equal width, and each is represented by the mean of its cases. This changes the coefficients of a line by far
    less than the width of their intervals.

    Args:
        x: The covariate of each case, float64 ``(m,)``.

    Returns:
        The values of the cells, ascending, ``(g,)``, and the index of each case's cell, ``(m,)``.
    """
    distinct, cell = np.unique(x, return_inverse=True)
    if len(distinct) <= GRID:
        return distinct, cell
    edges = np.linspace(distinct[0], distinct[-1], GRID + 1)
    place = np.clip(np.searchsorted(edges, x, side="right") - 1, 0, GRID - 1)
    _, cell = np.unique(place, return_inverse=True)  # drops empty cells
    return np.bincount(cell, weights=x) / np.bincount(cell), cell


def fit_logistic(
    x: np.ndarray,
    positive: np.ndarray,
    total: np.ndarray,
    *,
    intercept: float | None = None,
    slope: float | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Fit by maximum likelihood ``P(y = 1) = sigmoid(intercept + slope * x)``, by Newton's method with step halving.

    Args:
        x: Covariate of each group of cases, ``(g,)``.
        positive: Weight of the positive cases of each group, ``(g, r)``, for r fits at once.
        total: Weight of all cases of each group, ``(g, r)``.
        intercept: A fixed intercept; None fits it.
        slope: A fixed slope; None fits it.

    Returns:
        Intercepts and slopes, ``(r,)`` each; NaN where the maximum does not exist, because all cases are of one class or x
        separates the classes.
    """
    exists = _has_maximum(x, positive, total, slope is None, intercept is None)
    a = np.full(positive.shape[1], 0.0 if intercept is None else intercept)
    b = np.full(positive.shape[1], 1.0 if slope is None else slope)
    rows = np.flatnonzero(exists)  # the fits that have not converged
    farthest = np.abs(x).max(initial=0)
    for _ in range(STEPS):
        if len(rows) == 0:
            break
        da, db = _newton_step(x, positive[:, rows], total[:, rows], a[rows], b[rows], intercept is None, slope is None)
        long = np.flatnonzero(np.abs(da) + np.abs(db) * farthest > SAFE_STEP)
        if len(long):
            some = rows[long]
            factor = _shortening(x, positive[:, some], total[:, some], a[some], b[some], da[long], db[long])
            da[long] *= factor
            db[long] *= factor
        a[rows] += da
        b[rows] += db
        rows = rows[np.maximum(np.abs(da), np.abs(db)) > TOLERANCE]
    return np.where(exists, a, np.nan), np.where(exists, b, np.nan)


def _newton_step(
    x: np.ndarray, positive: np.ndarray, total: np.ndarray, a: np.ndarray, b: np.ndarray, free_a: bool, free_b: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Compute the steps ``(r,)`` of intercept and slope; 0 for a fixed coefficient."""
    p = special.expit(a + np.multiply.outer(x, b))  # (g, r)
    error = positive - total * p
    curvature = total * p * (1 - p)
    score_a, score_b = error.sum(axis=0), x @ error
    aa, ab, bb = curvature.sum(axis=0), x @ curvature, (x * x) @ curvature
    if free_a and free_b:
        determinant = aa * bb - ab * ab
        determinant = np.where(determinant > 0, determinant, np.inf)  # the likelihood is flat to float64 precision: no step
        return (bb * score_a - ab * score_b) / determinant, (aa * score_b - ab * score_a) / determinant
    zero = np.zeros(len(a))
    if free_a:
        return score_a / np.where(aa > 0, aa, np.inf), zero
    return zero, score_b / np.where(bb > 0, bb, np.inf)


def _shortening(
    x: np.ndarray, positive: np.ndarray, total: np.ndarray, a: np.ndarray, b: np.ndarray, da: np.ndarray, db: np.ndarray
) -> np.ndarray:
    """Compute the factor that shortens each step, ``(r,)``, so that the likelihood does not fall."""
    now = _log_likelihood(x, positive, total, a, b)
    factor = np.ones(len(a))
    for _ in range(HALVINGS):
        then = _log_likelihood(x, positive, total, a + factor * da, b + factor * db)
        worse = ~(then >= now - 1e-12 * np.abs(now))
        if not worse.any():
            break
        factor[worse] /= 2
    return factor


def _log_likelihood(x: np.ndarray, positive: np.ndarray, total: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    z = a + np.multiply.outer(x, b)  # (g, r)
    return (positive * z - total * np.logaddexp(0, z)).sum(axis=0)


def _has_maximum(x: np.ndarray, positive: np.ndarray, total: np.ndarray, fit_slope: bool, fit_intercept: bool) -> np.ndarray:
    """Whether both classes exist and, for a slope, x does not separate them (Albert & Anderson, Biometrika 1984;71:1-10)."""
    has_positive, has_negative = positive > 0, total - positive > 0
    both = has_positive.any(axis=0) & has_negative.any(axis=0)
    if not fit_slope:
        return both
    column = x[:, None]
    low_positive, high_positive = _range(column, has_positive)
    low_negative, high_negative = _range(column, has_negative)
    if fit_intercept:
        return both & (high_negative > low_positive) & (high_positive > low_negative)
    # For a line through the origin, the classes are separated if sign(x) determines the class.
    right = (low_positive >= 0) & (high_negative <= 0)
    wrong = (high_positive <= 0) & (low_negative >= 0)
    return (has_positive.any(axis=0) | has_negative.any(axis=0)) & ~right & ~wrong


def _range(column: np.ndarray, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    low = np.where(there, column, np.inf).min(axis=0, initial=np.inf)
    high = np.where(there, column, -np.inf).max(axis=0, initial=-np.inf)
    return low, high
