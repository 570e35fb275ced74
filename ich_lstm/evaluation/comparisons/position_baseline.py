"""A null model that shows how well a slice's position in its scan alone predicts its labels.

Hemorrhage is rare at the vertex and at the skull base, so even a model that sees no image is better than chance on slices.
"""

import hashlib
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ich_lstm.errors import TableError
from ich_lstm.evaluation.evidence import LABEL_PREFIX, Evidence, columns_of
from ich_lstm.labels import LABELS


@dataclass(frozen=True, eq=False)
class PositionModel:
    """The share of positive slices at each place in a scan.

    Args:
        shares: Shares in (0, 1), ``(bins, k)``, from the inferior end to the superior end.
    """

    shares: np.ndarray

    @classmethod
    def fit(cls, places: np.ndarray, labels: np.ndarray, *, bins: int = 20) -> "PositionModel":
        """Fit the shares by counting slices in equal sections of the scan.

        The shares are smoothed, so that unobserved cases are improbable rather than impossible. Half a positive and half a
        negative slice are added to the overall counts, and one slice with the resulting overall share to each section.

        Args:
            places: Relative places of slices in their scans, ``(n,)``, see `places_in_scans`.
            labels: Labels of the slices, ``(n, k)``: 1 present, 0 absent, NaN unknown.
            bins: Number of equal sections of the scan.
        """
        section = _section(places, bins)
        known = ~np.isnan(labels)
        total, positive = (
            np.stack([np.bincount(section, weights=column, minlength=bins) for column in each.T], axis=1)  # (bins, k)
            for each in (known.astype(np.float64), np.nan_to_num(labels))
        )
        share = (positive.sum(axis=0) + 0.5) / (total.sum(axis=0) + 1)
        return cls((positive + share) / (total + 1))

    def predict(self, places: np.ndarray) -> np.ndarray:
        """Predict slices at these places; probabilities ``(n, k)``."""
        return self.shares[_section(places, len(self.shares))]


class PositionPredictions(NamedTuple):
    """Predictions of the null model.

    Args:
        probabilities: Probabilities of slices, ``(n, k)``.
        fitted_on: A text that says on which patients the model was fitted.
    """

    probabilities: np.ndarray
    fitted_on: str


def predict_from_position(
    evidence: Evidence, fitted_on: Evidence | None = None, *, bins: int = 20, folds: int = 5
) -> PositionPredictions:
    """Predict every slice from its place in the scan alone, with shares of other patients.

    Args:
        evidence: The predictions and labels to evaluate.
        fitted_on: Predictions on other patients; None cross-fits the model on the evidence itself, each fold from the patients of
            the other folds.
        bins: Number of equal sections of the scan.
        folds: Number of folds into which patients are divided by the hashes of their ids.

    Raises:
        TableError: If patients of ``fitted_on`` are evaluated, or there is only one patient.
    """
    places, labels = places_in_scans(evidence), columns_of(evidence.slices, LABEL_PREFIX)
    patients = evidence.slices["patient_id"]
    if fitted_on is not None:
        others = fitted_on.slices["patient_id"]
        _check_apart(set(patients) & set(others))
        model = PositionModel.fit(places_in_scans(fitted_on), columns_of(fitted_on.slices, LABEL_PREFIX), bins=bins)
        subset = fitted_on.source.get("part", "")
        words = f"fitted on {others.nunique():,} other patients" + (f" ({subset})" if subset else "")
        return PositionPredictions(model.predict(places), words)
    names = sorted(set(patients), key=lambda patient: hashlib.sha256(patient.encode()).digest())
    folds = min(folds, len(names))
    if folds < 2:
        raise TableError(
            "few_patients",
            where="null model of position",
            got="one patient",
            expected="other patients to fit the null model on",
            todo="Evaluate a run, whose validation patients are used for fitting, or add patients.",
        )
    fold = patients.map({patient: i % folds for i, patient in enumerate(names)}).to_numpy()
    probabilities = np.empty((len(places), len(LABELS)))
    for i in range(folds):
        own = fold == i
        probabilities[own] = PositionModel.fit(places[~own], labels[~own], bins=bins).predict(places[own])
    # A patient's own labels are held out, which biases the AUROC of an uninformative position below 0.5.
    words = f"cross-fitted by patient in {folds} folds, which makes its AUROC a little too low"
    return PositionPredictions(probabilities, words)


def places_in_scans(evidence: Evidence) -> np.ndarray:
    """Compute the relative place of the middle of each slice in its scan, ``(n,)``: 0 is the inferior end, 1 the superior end."""
    scan = evidence.scan_index
    first = np.flatnonzero(np.diff(scan, prepend=-1))
    lengths = np.diff(first, append=len(scan))
    return (np.arange(len(scan)) - first[scan] + 0.5) / lengths[scan]


def _section(places: np.ndarray, bins: int) -> np.ndarray:
    return np.minimum((places * bins).astype(int), bins - 1)


def _check_apart(both: set[str]) -> None:
    if both:
        raise TableError(
            "same_patients",
            where="null model of position",
            got=f"{len(both)} patients on whom it would be both fitted and evaluated",
            expected="other patients",
            todo="Fit it on another subset of the split.",
        )
