"""The calibration of a model, fitted on the validation set: recalibration and operating points."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple, get_args

import numpy as np

from ich_lstm.errors import ConfigError
from ich_lstm.labels import ANY, LABELS
from ich_lstm.prediction import CALIBRATED_PREFIX, CALLED_PREFIX, CalibratedProbabilities, OperatingPoint, ScanPrediction
from ich_lstm.statistics.adjustment.prevalence import shift_prevalence
from ich_lstm.statistics.adjustment.recalibration import Recalibration
from ich_lstm.statistics.estimate import Estimate

CalibratedLevel = Literal["slice", "scan"]
CALIBRATED_LEVELS: tuple[CalibratedLevel, ...] = get_args(CalibratedLevel)
"""Slices, and scans by the model's own output: a maximum over slices is never calibrated."""

Method = Literal["platt", "temperature"]
METHODS: tuple[Method, ...] = get_args(Method)

FINGERPRINT_DIGITS = 12
SMALLEST = 1e-15
"""A probability of 0 has no odds; the log loss clips at the same place."""


class Correction(NamedTuple):
    """How the probabilities of one label are corrected.

    Args:
        recalibration: None if it could not be fitted.
        positives: Validation cases with the label.
        negatives: Those without.
        note: Why there is none.
    """

    recalibration: Recalibration | None
    positives: int
    negatives: int
    note: str = ""


class Threshold(NamedTuple):
    """Where one label is called positive.

    Args:
        value: Called positive at or above this probability, before any correction; None if none could be chosen.
        sensitivity: On the validation cases on which it was chosen, where it is better than elsewhere.
        specificity: On the validation cases on which it was chosen, where it is better than elsewhere.
        positives: Validation cases with the label.
        negatives: Those without.
        note: Why there is none.
    """

    value: float | None
    sensitivity: Estimate
    specificity: Estimate
    positives: int
    negatives: int
    note: str = ""


@dataclass(frozen=True)
class OperatingPoints:
    """The thresholds of all labels, of slices and of scans, that one rule has chosen.

    Args:
        rule: For example ``sensitivity=0.95``; it is also their name.
        thresholds: By level and label.
    """

    rule: str
    thresholds: Mapping[CalibratedLevel, Mapping[str, Threshold]]

    def values(self, level: CalibratedLevel) -> np.ndarray:
        """Float64 ``(k,)`` in the order of `LABELS`, NaN where there is none."""
        found = (self.thresholds[level][label].value for label in LABELS)
        return np.array([np.nan if value is None else value for value in found], dtype=np.float64)

    def scan_rates(self, name: Literal["sensitivity", "specificity"]) -> np.ndarray:
        """Of scans, with its limits: float64 ``(k, 3)``, NaN where there is none."""
        found: list[Estimate] = [getattr(self.thresholds["scan"][label], name) for label in LABELS]
        return np.array([[rate.value, rate.low, rate.high] for rate in found], dtype=np.float64)  # None becomes NaN


class ChosenOn(NamedTuple):
    """The cases on which something was chosen, so that nothing is ever judged on them.

    Args:
        part: Of the run's patients.
        scans: Fingerprints of the scans' ids.
        patients: Fingerprints of the patients' ids.
    """

    part: str
    scans: frozenset[str]
    patients: frozenset[str]


@dataclass(frozen=True, kw_only=True)
class ModelCalibration:
    """What belongs to one model's weights, and nothing else's.

    Args:
        weights: Hash of the weights.
        method: Of the recalibration.
        corrections: By level and label.
        share: Share of positive scans at which corrected probabilities are right; None if it is unknown.
        share_of: Whose share that is: ``validation`` or ``training``.
        points: Operating points, by their rules.
        chosen_on: The cases on which all of this was chosen.
        point: The rule whose thresholds are applied; empty: the first one's. Not stored.
        prevalence: Share of positive scans to which probabilities are moved; None: as in the validation data. Not stored.
        coherent: Whether it was fitted to coherent probabilities, as predictions are unless raw ones are asked for.
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
        """Those that are applied; None if there are none."""
        if not self.point:
            return self.points[0] if self.points else None
        return next(points for points in self.points if points.rule == self.point)

    @property
    def columns(self) -> list[str]:
        """Columns that tables of predictions have beside the probabilities."""
        prefixes = (CALIBRATED_PREFIX, CALLED_PREFIX) if self.points else (CALIBRATED_PREFIX,)
        return [prefix + label for prefix in prefixes for label in LABELS]

    @property
    def in_words(self) -> str:
        """How probabilities are corrected, in a few words."""
        share = self.share if self.prevalence is None else self.prevalence
        whose = f"as in {self.share_of}" if self.prevalence is None else "as stated"
        at = "" if share is None else f", for {100 * share:.3g} % positive scans, {whose}"
        return f"{self.method} per label on {len(self.chosen_on.scans):,} {self.chosen_on.part} scans{at}"

    def choose(self, point: str | None = None, prevalence: float | None = None) -> "ModelCalibration":
        """Copy the calibration with another operating point or share of positive scans.

        Args:
            point: A rule; None: as it is.
            prevalence: Between 0 and 1; None: as it is.

        Raises:
            ConfigError: If no such point is stored, or probabilities cannot be moved to another share.
        """
        rules = [points.rule for points in self.points]
        if point is not None and point not in rules:
            raise ConfigError(
                "unknown_operating_point",
                where="operating point",
                got=repr(point),
                expected=f"one of {', '.join(rules)}" if rules else "none, for this model has no operating point",
                todo=f"Choose it on validation patients: ich-evaluate RUN --calibrate {point or 'sensitivity=0.95'} --out DIR.",
            )
        if prevalence is not None:
            self.check_movable()
            shift_prevalence(np.empty(0), self.share or np.nan, prevalence)  # refuses shares that are none
        return replace(
            self,
            point=self.point if point is None else point,
            prevalence=self.prevalence if prevalence is None else prevalence,
        )

    def check_fits(self, coherent: bool) -> None:
        """See that this was fitted to the kind of probabilities that it is to be applied to.

        Args:
            coherent: Whether the predictions are coherent; otherwise they are raw.

        Raises:
            ConfigError: If not.
        """
        if coherent == self.coherent:
            return
        kinds = {True: "coherent probabilities", False: "raw probabilities"}
        raise ConfigError(
            "calibration_of_other_probabilities",
            where="coherent (--raw-probabilities of ich-predict)",
            got=f"{kinds[coherent]}, and a calibration of {kinds[self.coherent]}",
            expected="a calibration that was fitted to the kind of probabilities that are predicted",
            todo="Leave --raw-probabilities of ich-predict out."
            if self.coherent
            else "Predict with --raw-probabilities of ich-predict; or train again, and calibrate on what that run predicts.",
        )

    def check_movable(self) -> None:
        """See that probabilities can be moved to another share of positive scans.

        Raises:
            ConfigError: If the scans' output for "any" is not calibrated, or the share it is calibrated for is unknown.
        """
        correction = self.corrections["scan"][ANY]
        if correction.recalibration is None or self.share is None or not 0 < self.share < 1:
            raise ConfigError(
                "not_calibrated",
                where="prevalence",
                got=f"scans not calibrated for {ANY}: {correction.note or 'the share of positive scans is unknown'}",
                expected="probabilities that were right at a known share of positive scans",
                todo="Calibrate on validation scans of which some are positive and some are not.",
            )

    def correct(self, slices: np.ndarray, scans: np.ndarray, scan: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Correct the probabilities of scans and their slices.

        Args:
            slices: ``(n, k)``, in [0, 1].
            scans: ``(b, k)``, in [0, 1].
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
        whom = f"{self.chosen_on.part} patients"
        rates = points.scan_rates("sensitivity"), points.scan_rates("specificity")
        point = OperatingPoint(points.rule, points.values("slice"), points.values("scan"), whom, *rates)
        return replace(prediction, calibrated=calibrated, operating_point=point)


def move_prevalence(
    slices: np.ndarray, scans: np.ndarray, scan: np.ndarray, *, trained: float, site: float
) -> tuple[np.ndarray, np.ndarray]:
    """Move calibrated probabilities to another share of positive scans.

    If nothing but that share differs, then what is probable given that a scan is positive stays as it is; so all probabilities
    of a scan, and of its slices, change by the factor by which its probability of "any" does.

    Source: Bayes' theorem; for "any" it is `shift_prevalence` (Saerens et al., Neural Comput 2002;14:21-41).

    Args:
        slices: ``(n, k)``, in [0, 1] or NaN.
        scans: ``(b, k)``, in [0, 1] or NaN, but not for "any".
        scan: Index of each slice's scan, ``(n,)``.
        trained: Share of positive scans at which they are right, between 0 and 1.
        site: Share where they are used.

    Example:
        >>> slices, scans = np.full((1, 6), 0.1), np.full((1, 6), 0.41)
        >>> print(*(values[0, -1].round(4) for values in move_prevalence(slices, scans, np.array([0]), trained=0.41, site=0.08)))
        0.0195 0.08
    """
    of_scans = np.maximum(scans[:, LABELS.index(ANY)], SMALLEST)
    factor = shift_prevalence(of_scans, trained, site) / of_scans  # (b,)
    return np.minimum(slices * factor[scan, None], 1), np.minimum(scans * factor[:, None], 1)


def fingerprints(ids: Iterable[str]) -> frozenset[str]:
    """What tells that an id was there, without telling the id."""
    return frozenset(hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:FINGERPRINT_DIGITS] for name in set(ids))
