"""Out-of-fold predictions of everything that is trained on a site, by repeated cross-validation over patients."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from ich_lstm.adaptation.comparing.candidates import AS_IS, Candidate, Part, trained
from ich_lstm.adaptation.comparing.corrections import Corrections, Shares, apply_corrections, fit_corrections
from ich_lstm.adaptation.comparing.settings import AdaptSettings
from ich_lstm.adaptation.scans.site import Probabilities, Site, StoredSite, joined, predict_pixels
from ich_lstm.data.split.assign import place_patients, tabulate_patients
from ich_lstm.statistics.measures.scores import logit
from ich_lstm.training.classifier import ScanClassifier


class OutOfFold(NamedTuple):
    """Predictions of the scans of each fold by models that were not trained on them.

    Args:
        folds: The fold of each scan in each repeat, ``(repeats, b)``.
        by_part: For each trained part, the probabilities of all scans in each repeat.
    """

    folds: np.ndarray
    by_part: Mapping[Part, Sequence[Probabilities]]

    def corrected(self, candidate: Candidate, site: Site, shares: Shares | None, own: Corrections | None) -> list[Probabilities]:
        """The probabilities of a candidate in each repeat, its correction fitted to the other folds.

        The correction of a trained part is fitted to out-of-fold predictions of the other folds. The models that made these have
        seen the scans of this fold, but not their own.

        Args:
            candidate: The candidate.
            site: The site.
            shares: Shares of positives in the training data of the model.
            own: The corrections of the model's own calibration, which belong to the model as it is; None if it has none.
        """
        if candidate.name == AS_IS and own is not None:
            return [apply_corrections(own, each) for each in self.by_part["nothing"]]
        found = []
        for folds, probabilities in zip(self.folds, self.by_part[candidate.trains], strict=True):
            if candidate.correction == "none":
                found.append(probabilities)
                continue
            slices, scans = probabilities.slices.copy(), probabilities.scans.copy()
            for fold in np.unique(folds):
                mine = folds == fold
                corrections = fit_corrections(candidate.correction, site, probabilities, np.flatnonzero(~mine), shares)
                new = apply_corrections(corrections, probabilities)
                scans[mine] = new.scans[mine]
                slices[mine[site.scan_index]] = new.slices[mine[site.scan_index]]
            found.append(Probabilities(slices, scans))
        return found


def cross_validate(
    classifier: ScanClassifier,
    site: Site,
    stored: StoredSite,
    parts: Sequence[Part],
    settings: AdaptSettings,
    progress: Callable[[int, int], None],
) -> OutOfFold:
    """Train each part on all folds but one, and predict that one.

    Args:
        classifier: The model.
        site: The site.
        stored: Its stored features.
        parts: The parts to train; ``nothing`` predicts with the model as it is.
        settings: Folds, repeats, and how parts are trained.
        progress: Called with the number of fits done since the last call, and the number of all fits.
    """
    everyone = np.arange(len(site.scans))
    folds = np.stack([_folds(site, settings, repeat) for repeat in range(settings.repeats)])
    to_train = [part for part in parts if part != "nothing"]
    total = len(to_train) * settings.repeats * settings.folds
    found: dict[Part, list[Probabilities]] = {}
    if "nothing" in parts:
        found["nothing"] = [joined(stored.predict(classifier, site, everyone))] * settings.repeats
    progress(0, total)
    for part in to_train:
        found[part] = []
        for places in folds:
            of_scans: dict[int, Probabilities] = {}
            for fold in range(settings.folds):
                inside, outside = np.flatnonzero(places != fold), np.flatnonzero(places == fold)
                if len(outside):
                    model = trained(classifier, part, site, inside, settings)
                    predictions = (
                        predict_pixels(model, site, outside) if part == "last stage" else stored.predict(model, site, outside)
                    )
                    of_scans.update(zip(outside.tolist(), predictions, strict=True))
                progress(1, total)
            found[part].append(joined([of_scans[row] for row in everyone.tolist()]))
    return OutOfFold(folds, found)


def mean_of(repeats: Sequence[Probabilities]) -> Probabilities:
    """The mean of several predictions of the same scans, in log odds.

    Args:
        repeats: The predictions.
    """
    if len(repeats) == 1:
        return repeats[0]
    return Probabilities(*(special.expit(np.mean([logit(each[level]) for each in repeats], axis=0)) for level in range(2)))


def _folds(site: Site, settings: AdaptSettings, repeat: int) -> np.ndarray:
    """The fold of each scan: all scans of a patient in one, the positive patients of each label spread evenly."""
    patients = tabulate_patients(site.scans)
    places = place_patients(patients, np.full(settings.folds, 1 / settings.folds), seed=settings.seed + repeat)
    of_patient = dict(zip(patients.index, places.tolist(), strict=True))
    return np.array([of_patient[patient] for patient in site.patients])
