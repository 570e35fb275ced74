"""Labels, probabilities and patients, checked on entry."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from ich_lstm.errors import TableError
from ich_lstm.formatting import first_of


class Cases(NamedTuple):
    """The cases of one label with a known label.

    Args:
        positive: Whether the label is present, bool ``(m,)``.
        probabilities: Probabilities in [0, 1], float64 ``(m,)``.
        unknown: Number of cases that were excluded because their label is unknown.
    """

    positive: np.ndarray
    probabilities: np.ndarray
    unknown: int

    @property
    def classes(self) -> str:
        """The number of cases of each class as text."""
        positives = int(self.positive.sum())
        return f"{positives} positive and {len(self.positive) - positives} negative cases"


def known_cases(labels: np.ndarray, probabilities: np.ndarray) -> Cases:
    """Check the cases of one label, and exclude those whose label is unknown.

    Args:
        labels: Labels of the cases, ``(n,)``: 1 present, 0 absent, NaN unknown.
        probabilities: Probabilities of the cases in [0, 1], ``(n,)``.

    Raises:
        TableError: If the shapes differ, a label is not 0, 1 or NaN, or a probability is NaN or outside [0, 1].
    """
    y, p = check_labels(labels), check_probabilities(probabilities)
    if y.ndim != 1 or y.shape != p.shape:
        _stop(
            "shapes_differ", f"labels {y.shape}, probabilities {p.shape}", "two arrays of equal length", "Give one row per case."
        )
    known = ~np.isnan(y)
    return Cases(y[known] == 1, p[known], int(len(y) - known.sum()))


def check_labels(labels: np.ndarray) -> np.ndarray:
    """Check labels of any shape and convert them to float64.

    Raises:
        TableError: If a label is not 0, 1 or NaN.
    """
    y = np.asarray(labels, dtype=np.float64)
    wrong = ~(np.isnan(y) | (y == 0) | (y == 1))
    if wrong.any():
        _stop("bad_label", f"the label {y[wrong].flat[0]:g}", "0, 1 or NaN", "Correct the labels.", wrong)
    return y


def check_probabilities(probabilities: np.ndarray) -> np.ndarray:
    """Check probabilities of any shape and convert them to float64.

    Raises:
        TableError: If a probability is NaN or outside [0, 1].
    """
    p = np.asarray(probabilities, dtype=np.float64)
    wrong = ~((p >= 0) & (p <= 1))  # also True for NaN
    if wrong.any():
        todo = "Give a probability for every case; apply the sigmoid to logits."
        _stop("bad_probability", f"the probability {p[wrong].flat[0]:g}", "a number from 0 to 1", todo, wrong)
    return p


def patient_index(patients: Iterable) -> tuple[np.ndarray, int]:
    """Number the patients in the order of their ids, so that the order of rows does not matter.

    Args:
        patients: The id of the patient of each case, ``(n,)``.

    Returns:
        Indices from 0, ``(n,)``, and the number of patients.

    Raises:
        TableError: If the patient of a case is unknown.
    """
    import pandas as pd  # half a second, and a prediction does not number patients

    ids = pd.Series(patients if isinstance(patients, (np.ndarray, pd.Series)) else list(patients))
    wrong = (ids.isna() | (ids.astype(str) == "")).to_numpy()
    if wrong.any():
        todo = "Give the patient of every case, because cases of one patient are not independent."
        _stop("patient_unknown", "no patient", "an id", todo, wrong)
    index, distinct = pd.factorize(ids, sort=True)
    return index, len(distinct)


def _stop(code: str, got: str, expected: str, todo: str, wrong: np.ndarray | None = None) -> None:
    """Raise a TableError that counts the rows with any True in ``wrong``, and names the first ten of them."""
    if wrong is not None:
        rows = np.flatnonzero(wrong.reshape(len(wrong) if wrong.ndim else 1, -1).any(axis=1))
        got = f"{got} ({len(rows)} rows: {first_of(rows)}, counted from 0)"
    raise TableError(code, where="cases to evaluate", got=got, expected=expected, todo=todo)
