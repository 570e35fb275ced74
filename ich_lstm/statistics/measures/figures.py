"""All figures of one label, for many weightings of its patients at once."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ich_lstm.statistics.bootstrap import Scale, sum_by_patient
from ich_lstm.statistics.cases import Cases
from ich_lstm.statistics.logistic import fit_logistic, group_cells
from ich_lstm.statistics.measures.calibration import BOTH_CLASSES, NOT_SEPARATED, bin_of, calibration_values
from ich_lstm.statistics.measures.discrimination import RankedCases
from ich_lstm.statistics.measures.scores import log_losses, logit
from ich_lstm.statistics.proportions import PROPORTIONS, Confusion, predictive_values, proportion, ratio


class Kind(NamedTuple):
    """Properties of a figure that do not depend on the data.

    Args:
        scale: The scale on which its interval is computed.
        carried_by: The patients who contribute to the figure: those with a case that is ``known``, ``positive``, ``negative``,
            ``called`` or ``not called``, or ``both`` for the smaller group of positive and negative.
        needs: A text that says when the figure is defined; it follows the numbers of positive and negative cases.
    """

    scale: Scale
    carried_by: str
    needs: str


_KNOWN = "but a case with a known label is needed"
KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "log_loss": Kind("log", "known", _KNOWN),
        "auroc": Kind("logit", "both", "but AUROC needs both"),
        "average_precision": Kind("logit", "both", "but average precision needs a positive case"),
        "calibration_slope": Kind("percentile", "both", NOT_SEPARATED),
        "calibration_intercept": Kind("percentile", "both", NOT_SEPARATED),
        "calibration_in_the_large": Kind("percentile", "both", BOTH_CLASSES),
        "brier": Kind("logit", "known", _KNOWN),
        "ece": Kind("logit", "known", _KNOWN),
        "accuracy": Kind("proportion", "known", _KNOWN),
        "sensitivity": Kind("proportion", "positive", "but sensitivity needs a positive case"),
        "specificity": Kind("proportion", "negative", "but specificity needs a negative case"),
        "ppv": Kind("proportion", "called", "but PPV needs a case that is called positive"),
        "npv": Kind("proportion", "not called", "but NPV needs a case that is called negative"),
        "f1": Kind("proportion", "both", "but F1 needs a case that is positive or called positive"),
    }
)
"""Every figure of a label, in the order of the tables."""

AUROC = list(KINDS).index("auroc")
"""The index of AUROC in `KINDS`."""
CALIBRATION = [list(KINDS).index(f"calibration_{name}") for name in ("slope", "intercept", "in_the_large")]
"""The indices of the calibration figures in `KINDS`."""


class Figure(NamedTuple):
    """One figure of a label.

    Args:
        metric: A key of `KINDS`.
        prevalence: Stated prevalence of a predictive value; None for that of the data.
    """

    metric: str
    prevalence: float | None = None


def figures_at(prevalences: Sequence[float]) -> list[Figure]:
    """List all figures, including predictive values at the stated prevalences."""
    stated = [Figure(metric, share) for share in prevalences for metric in ("ppv", "npv")]
    return [*map(Figure, KINDS), *stated]


class LabelFigures:
    """The cases of one label, reduced once to sums per patient, for any number of weightings of the patients.

    Args:
        cases: The m cases with a known label.
        patient: Index of the patient of each case, ``(m,)``.
        patients: Number of patients in the data.
        threshold: Probability at or above which a case is called positive.
        prevalences: Prevalences at which PPV and NPV are also computed.
        bins: Number of bins of the expected calibration error.
    """

    def __init__(
        self, cases: Cases, patient: np.ndarray, patients: int, *, threshold: float, prevalences: Sequence[float], bins: int
    ) -> None:
        self.cases = cases
        self.figures = figures_at(prevalences)
        self.prevalences = prevalences
        self.ranks = RankedCases(cases, patient, patients)
        y, p = cases.positive, cases.probabilities
        called = p >= threshold
        columns = (np.ones(len(y)), y, called, y & called, log_losses(y, p), (p - y) ** 2)
        self._sums = np.stack([np.bincount(patient, weights=column, minlength=patients) for column in columns])  # (6, patients)
        place = bin_of(p, bins)
        self._bin_gaps = sum_by_patient(place, patient, (bins, patients), p - y)
        self._x, cell = group_cells(logit(p))
        shape = (len(self._x), patients)
        self._cell_total = sum_by_patient(cell, patient, shape, np.ones(len(y)))
        self._cell_positive = sum_by_patient(cell[y], patient[y], shape, np.ones(int(y.sum())))

    def values(self) -> np.ndarray:
        """Compute every figure of all cases, ``(figures,)``; NaN where undefined."""
        once = np.ones((self._sums.shape[1], 1), dtype=np.float32)
        values = self.weigh(once)[:, 0]
        # The values themselves are exact; only the bootstrap uses cells of log odds.
        values[CALIBRATION] = calibration_values(self.cases)
        return values

    def weigh(self, counts: np.ndarray) -> np.ndarray:
        """Compute every figure for r weightings of the patients.

        Args:
            counts: How often each patient is counted, whole numbers ``(patients, r)``.

        Returns:
            Figures ``(figures, r)``, NaN where undefined.
        """
        ranked = self.ranks.weigh(counts)
        counts = counts.astype(np.float64)
        total, positive, called, true_positive, losses, squares = self._sums @ counts  # (r,) each
        table = Confusion(
            true_positive, called - true_positive, positive - true_positive, total - positive - called + true_positive
        )
        proportions = {name: proportion(name, table) for name in PROPORTIONS}
        rows = {
            "log_loss": ratio(losses, total),
            "auroc": ranked.auroc(),
            "average_precision": ranked.average_precision(),
            **self._calibration(counts),
            "brier": ratio(squares, total),
            "ece": ratio(np.abs(self._bin_gaps @ counts).sum(axis=0), total),
            **proportions,
        }
        values = [rows[metric] for metric in KINDS]
        for share in self.prevalences:
            values += predictive_values(proportions["sensitivity"], proportions["specificity"], share)
        return np.stack(values)

    def auroc(self, counts: np.ndarray) -> np.ndarray:
        """Compute only AUROC, ``(1, r)``, from counts ``(patients, r)``."""
        return self.ranks.weigh(counts).auroc()[None]

    @property
    def with_positive(self) -> np.ndarray:
        """Whether each patient has a positive case, bool ``(patients,)``."""
        return self._sums[1] > 0

    def carriers(self) -> dict[str, int]:
        """Count the patients who contribute to a figure, by the values of `Kind.carried_by`."""
        total, positive, called = self._sums[:3]
        contributes = {
            "known": total > 0,
            "positive": positive > 0,
            "negative": total > positive,
            "called": called > 0,
            "not called": total > called,
        }
        numbers = {name: int(patients.sum()) for name, patients in contributes.items()}
        return {**numbers, "both": min(numbers["positive"], numbers["negative"])}

    def confusion(self) -> Confusion:
        """Compute the confusion matrix of all cases."""
        total, positive, called, both = (round(float(row.sum())) for row in self._sums[:4])
        return Confusion(*map(np.asarray, (both, called - both, positive - both, total - positive - called + both)))

    def is_independent(self) -> bool:
        """Whether no patient has more than one known case."""
        return bool((self._sums[0] <= 1).all())

    def _calibration(self, counts: np.ndarray) -> dict[str, np.ndarray]:
        total, positive = self._cell_total @ counts, self._cell_positive @ counts  # (g, r)
        intercept, slope = fit_logistic(self._x, positive, total)
        in_the_large, _ = fit_logistic(self._x, positive, total, slope=1.0)
        return {"calibration_slope": slope, "calibration_intercept": intercept, "calibration_in_the_large": in_the_large}
