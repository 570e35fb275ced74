"""The calibration of a model on the validation set: recalibration and operating points."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import numpy as np

from ich_lstm.errors import ConfigError
from ich_lstm.labels import ANY, LABELS
from ich_lstm.prediction import CALIBRATED_PREFIX, CALLED_PREFIX, CalibratedProbabilities, OperatingPoint, ScanPrediction
from ich_lstm.statistics.adjustment.corrections import Recalibration, shift_prevalence
from ich_lstm.statistics.estimate import Estimate

CalibratedLevel = Literal["slice", "scan"]
CALIBRATED_LEVELS: tuple[CalibratedLevel, ...] = get_args(CalibratedLevel)
"""Slices, and scans by the model's own output; a maximum over slices is never calibrated."""

Method = Literal["platt", "temperature", "prevalence", "temperature and prevalence", "none"]
"""How probabilities are corrected. ``prevalence``: the log odds are moved by the difference of two shares of positives, with no
fit; ``none``: not at all, because the model was trained on the site."""

METHODS: tuple[Method, ...] = get_args(Method)

FINGERPRINT_DIGITS = 12
"""Number of hexadecimal digits of a fingerprint."""

SMALLEST = 1e-15
"""Smallest probability for which a ratio is computed, to avoid division by 0; the log loss is clipped at the same value."""


class Correction(NamedTuple):
    """The correction of the probabilities of one label.

    Args:
        recalibration: The fitted recalibration; None if it could not be fitted.
        positives: Number of validation cases with the label.
        negatives: Number of validation cases without the label.
        note: The reason why there is no recalibration; empty if there is one.
    """

    recalibration: Recalibration | None
    positives: int
    negatives: int
    note: str = ""


class Threshold(NamedTuple):
    """The threshold of one label.

    Args:
        value: The probability, before any correction, at or above which the label is called positive; None if no threshold could
            be chosen.
        sensitivity: Sensitivity on the validation cases on which the threshold was chosen, which is optimistic for other cases.
        specificity: Specificity on the validation cases on which the threshold was chosen, which is optimistic for other cases.
        positives: Number of validation cases with the label.
        negatives: Number of validation cases without the label.
        note: The reason why there is no threshold; empty if there is one.
    """

    value: float | None
    sensitivity: Estimate
    specificity: Estimate
    positives: int
    negatives: int
    note: str = ""


@dataclass(frozen=True)
class OperatingPoints:
    """The thresholds of all labels for slices and for scans, chosen by one rule.

    Args:
        rule: The rule, for example ``sensitivity=0.95``; it is also the name of the operating point.
        thresholds: The thresholds by level and label.
    """

    rule: str
    thresholds: Mapping[CalibratedLevel, Mapping[str, Threshold]]

    def values(self, level: CalibratedLevel) -> np.ndarray:
        """The thresholds of one level, float64 ``(k,)`` in the order of `LABELS`; NaN where there is no threshold."""
        found = (self.thresholds[level][label].value for label in LABELS)
        return np.array([np.nan if value is None else value for value in found], dtype=np.float64)

    def scan_rates(self, name: Literal["sensitivity", "specificity"]) -> np.ndarray:
        """Sensitivity or specificity for scans with the limits of its interval, float64 ``(k, 3)``; NaN where undefined."""
        found: list[Estimate] = [getattr(self.thresholds["scan"][label], name) for label in LABELS]
        return np.array([[rate.value, rate.low, rate.high] for rate in found], dtype=np.float64)  # None becomes NaN


class ChosenOn(NamedTuple):
    """The cases on which a calibration was chosen, so that it is never evaluated on them.

    Args:
        subset: The subset of the run's patients, for example ``validation``.
        scans: Fingerprints of the scans' ids.
        patients: Fingerprints of the patients' ids.
    """

    subset: str
    scans: frozenset[str]
    patients: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class ModelCalibration:
    """The calibration of one model; it applies only to the weights for which it was fitted.

    Args:
        weights: Hash of the weights.
        method: Method of the recalibration.
        corrections: Corrections by level and label.
        share: Share of positive scans for which corrected probabilities are valid; None if it is unknown.
        share_of: Subset that has this share: ``validation`` or ``training``.
        points: All operating points, one per rule.
        chosen_on: The cases on which corrections and operating points were chosen.
        point: The rule of the operating point to apply; empty for the first one. It is not stored.
        prevalence: Share of positive scans for which probabilities are corrected; None for ``share``. It is not stored.
        coherent: Whether the calibration was fitted to coherent probabilities, which predictions contain by default, instead of
            raw ones.
    """

    weights: str
    method: Method
    corrections: Mapping[CalibratedLevel, Mapping[str, Correction]]
    share: float | None
    share_of: str
    points: tuple[OperatingPoints, ...]
    chosen_on: ChosenOn
    point: str = ""
    prevalence: float | None = None
    coherent: bool = True

    @property
    def operating_points(self) -> OperatingPoints | None:
        """The operating points to apply; None if there are none."""
        if not self.point:
            return self.points[0] if self.points else None
        return next(points for points in self.points if points.rule == self.point)

    @property
    def columns(self) -> list[str]:
        """The columns that tables of predictions have in addition to the probabilities."""
        prefixes = (CALIBRATED_PREFIX, CALLED_PREFIX) if self.points else (CALIBRATED_PREFIX,)
        return [prefix + label for prefix in prefixes for label in LABELS]

    @property
    def in_words(self) -> str:
        """A short description of the correction."""
        share = self.share if self.prevalence is None else self.prevalence
        whose = f"as in {self.share_of}" if self.prevalence is None else "as stated"
        at = "" if share is None else f", for {100 * share:.3g} % positive scans, {whose}"
        method = "no correction" if self.method == "none" else f"{self.method} per label"
        return f"{method} on {len(self.chosen_on.scans):,} {self.chosen_on.subset} scans{at}"

    def choose(self, point: str | None = None, prevalence: float | None = None) -> "ModelCalibration":
        """Copy the calibration with another operating point or share of positive scans.

        Args:
            point: The rule of a stored operating point; None keeps the current one.
            prevalence: Share of positive scans, between 0 and 1; None keeps the current one.

        Raises:
            ConfigError: If there is no such operating point, or probabilities cannot be corrected for another share.
        """
        rules = [points.rule for points in self.points]
        if point is not None and point not in rules:
            raise ConfigError(
                "unknown_operating_point",
                where="operating point",
                got=repr(point),
                expected=f"one of {', '.join(rules)}" if rules else "no operating point, because this model has none",
                todo=f"Choose it on validation patients: ich-evaluate RUN --calibrate {point or 'sensitivity=0.95'} --out DIR.",
            )
        if prevalence is not None:
            self.check_movable()
            shift_prevalence(np.empty(0), self.share or np.nan, prevalence)  # refuses shares outside (0, 1)
        return replace(
            self,
            point=self.point if point is None else point,
            prevalence=self.prevalence if prevalence is None else prevalence,
        )

    def check_fits(self, coherent: bool) -> None:
        """Check that the calibration was fitted to the kind of probabilities to which it will be applied.

        Args:
            coherent: Whether the predictions are coherent instead of raw.

        Raises:
            ConfigError: If the calibration was fitted to the other kind.
        """
        if coherent == self.coherent:
            return
        kinds = {True: "coherent probabilities", False: "raw probabilities"}
        raise ConfigError(
            "calibration_of_other_probabilities",
            where="coherent (--raw-probabilities of ich-predict)",
            got=f"{kinds[coherent]}, but a calibration of {kinds[self.coherent]}",
            expected="a calibration that was fitted to the predicted kind of probabilities",
            todo="Predict without --raw-probabilities of ich-predict."
            if self.coherent
            else "Predict with --raw-probabilities of ich-predict, or train again and calibrate the predictions of that run.",
        )

    def check_movable(self) -> None:
        """Check that probabilities can be corrected for another share of positive scans.

        Raises:
            ConfigError: If the scan output for "any" is not calibrated, or the share for which it is calibrated is unknown.
        """
        correction = self.corrections["scan"][ANY]
        if correction.recalibration is None or self.share is None or not 0 < self.share < 1:
            raise ConfigError(
                "not_calibrated",
                where="prevalence",
                got=f"scans not calibrated for {ANY}: {correction.note or 'the share of positive scans is unknown'}",
                expected="probabilities that are calibrated for a known share of positive scans",
                todo="Calibrate on validation data with both positive and negative scans.",
            )

    def correct(self, slices: np.ndarray, scans: np.ndarray, scan: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Correct the probabilities of scans and their slices.

        Args:
            slices: Probabilities of slices in [0, 1], ``(n, k)``.
            scans: Probabilities of scans in [0, 1], ``(b, k)``.
            scan: Index of each slice's scan, ``(n,)``.

        Returns:
            Corrected probabilities of slices and scans, NaN for labels that could not be calibrated.
        """
        corrected = self._recalibrated("slice", slices), self._recalibrated("scan", scans)
        if self.prevalence is None or self.share is None:
            return corrected
        return move_prevalence(*corrected, scan, trained=self.share, site=self.prevalence)

    def _recalibrated(self, level: CalibratedLevel, probabilities: np.ndarray) -> np.ndarray:
        corrected = np.full(probabilities.shape, np.nan)
        for k, label in enumerate(LABELS):
            recalibration = self.corrections[level][label].recalibration
            if recalibration is not None:
                corrected[:, k] = recalibration.apply(probabilities[:, k])
        return corrected

    def apply(self, prediction: ScanPrediction) -> ScanPrediction:
        """Add the corrected probabilities and the operating point to a prediction; its original probabilities stay unchanged."""
        scan = np.zeros(len(prediction), dtype=int)
        slices, scans = self.correct(prediction.slice_probabilities, prediction.scan_probabilities[None], scan)
        calibrated = CalibratedProbabilities(slices, scans[0], self.in_words)
        points = self.operating_points
        if points is None:
            return replace(prediction, calibrated=calibrated)
        whom = f"{self.chosen_on.subset} patients"
        rates = points.scan_rates("sensitivity"), points.scan_rates("specificity")
        point = OperatingPoint(points.rule, points.values("slice"), points.values("scan"), whom, *rates)
        return replace(prediction, calibrated=calibrated, operating_point=point)


def move_prevalence(
    slices: np.ndarray, scans: np.ndarray, scan: np.ndarray, *, trained: float, site: float
) -> tuple[np.ndarray, np.ndarray]:
    """Correct calibrated probabilities for another share of positive scans.

    If only that share differs, probabilities given that a scan is positive do not change. All probabilities of a scan and of its
    slices therefore change by the same factor as its probability of "any".

    Source: Bayes' theorem; for "any", this is `shift_prevalence` (Saerens et al., Neural Comput 2002;14:21-41).

    Args:
        slices: Probabilities of slices, ``(n, k)``, in [0, 1] or NaN.
        scans: Probabilities of scans, ``(b, k)``, in [0, 1] or NaN; those of "any" must not be NaN.
        scan: Index of each slice's scan, ``(n,)``.
        trained: Share of positive scans for which the probabilities are calibrated, between 0 and 1.
        site: Share of positive scans where they are used, between 0 and 1.

    Example:
        >>> slices, scans = np.full((1, 6), 0.1), np.full((1, 6), 0.41)
        >>> print(*(values[0, -1].round(4) for values in move_prevalence(slices, scans, np.array([0]), trained=0.41, site=0.08)))
        0.0195 0.08
    """
    of_scans = np.maximum(scans[:, LABELS.index(ANY)], SMALLEST)
    factor = shift_prevalence(of_scans, trained, site) / of_scans  # (b,)
    return np.minimum(slices * factor[scan, None], 1), np.minimum(scans * factor[:, None], 1)


def fingerprints(ids: Iterable[str]) -> frozenset[str]:
    """Compute the fingerprints of ids, which allow a comparison of ids without containing them."""
    return frozenset(hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:FINGERPRINT_DIGITS] for name in set(ids))
