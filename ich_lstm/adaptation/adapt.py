"""Adapts a model to a site: compares the candidates, chooses one, and fits it to all scans."""

import tempfile
from collections.abc import Callable, Collection
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from ich_lstm.adaptation.comparing.candidates import AS_IS, CANDIDATES, Candidate, Part, trained
from ich_lstm.adaptation.comparing.choice import Verdict, decide, tabulate
from ich_lstm.adaptation.comparing.corrections import fit_corrections, training_shares
from ich_lstm.adaptation.comparing.cross_validation import OutOfFold, cross_validate, mean_of
from ich_lstm.adaptation.comparing.label_noise import LabelNoise, estimate_all, judge_of_labels, treat_doubtful
from ich_lstm.adaptation.comparing.settings import AdaptSettings
from ich_lstm.adaptation.scans.evidence import make_site_evidence
from ich_lstm.adaptation.scans.site import Probabilities, Site, store_site, without_remarks
from ich_lstm.data.datamodule import ScanDataModule
from ich_lstm.data.profile import Drift, compare_profiles, profile_scans
from ich_lstm.errors import TableError
from ich_lstm.evaluation.evidence import Evidence, check_unseen
from ich_lstm.evaluation.thresholds.calibrate import choose_points
from ich_lstm.evaluation.thresholds.operating_points import parse_rule
from ich_lstm.inference.calibration import ChosenOn, ModelCalibration, fingerprints
from ich_lstm.labels import ANY, LABELS
from ich_lstm.privacy import ProjectKey
from ich_lstm.training.classifier import ScanClassifier

Progress = Callable[[str, int, int | None], None]
"""Takes the name of an activity, the number of items done since the last call, and the number of all items."""

VALIDATING = "cross-validating"
SUBSET = "adaptation"
"""Name of the scans in calibrations and reports."""

RECORDS = ("preprocessing", "name", "slice_mm", "is_synthetic", "positive_share", "training_data", "fits", "starting_weights")
"""What a model keeps whose weights stay as they are."""


class NoisyLabels(TableError):
    """Too many labels are probably wrong."""

    noise: list[LabelNoise]
    """The estimated noise of each label."""
    series_uids: tuple[str, ...]
    """Raw series UID of each scan, in the order of the estimates; private."""

    def about(self, noise: list[LabelNoise], series_uids: tuple[str, ...]) -> "NoisyLabels":
        """Add what is known about the labels.

        Args:
            noise: The estimated noise of each label.
            series_uids: Raw series UID of each scan.
        """
        self.noise, self.series_uids = noise, series_uids
        return self


@dataclass(frozen=True, eq=False)
class Adaptation:
    """The result of an adaptation.

    Args:
        classifier: The adapted model with its calibration and operating points; the model as it was if nothing is better.
        verdict: What was chosen, and why.
        candidates: One row per candidate, see `tabulate`.
        unavailable: Candidates that could not be tried, with the reason.
        before: Predictions of the model as it is.
        after: Out-of-fold predictions of the chosen candidate, corrected; those of the model as it is if nothing is better.
        uncorrected: Out-of-fold predictions of the chosen candidate without its correction, to which thresholds belong.
        noise: Estimated noise of each label, over scans.
        profile: The site's profile, with the probabilities of the adapted model.
        drift: The site's scans against the training scans of the model; empty if the model does not record them.
        training_share: Share of positive scans in the training of the model; None if unknown.
        settings: How the model was adapted.
        counts: Numbers of ``patients, scans, slices, positive_patients``.
        series_uids: Raw series UID of each scan; private.
    """

    classifier: ScanClassifier
    verdict: Verdict
    candidates: pd.DataFrame
    unavailable: dict[str, str]
    before: Evidence
    after: Evidence
    uncorrected: Evidence
    noise: list[LabelNoise]
    profile: dict[str, Any]
    drift: list[Drift]
    training_share: float | None
    settings: AdaptSettings
    counts: dict[str, int]
    series_uids: tuple[str, ...] = field(repr=False)

    @property
    def is_adapted(self) -> bool:
        """Whether the model was changed."""
        return self.verdict.is_adapted

    @property
    def calibration(self) -> ModelCalibration | None:
        """The correction and the operating points of the adapted model."""
        return self.classifier.calibration if self.is_adapted else None


def adapt(
    model: ScanClassifier,
    data: ScanDataModule,
    settings: AdaptSettings = AdaptSettings(),  # noqa: B008  (frozen)
    *,
    features: Path | str | None = None,
    accelerator: str = "cpu",
    trained_on: Collection[str] = (),
    show: Callable[[], AbstractContextManager[Progress]] | None = None,
) -> Adaptation:
    """Adapt a model to the scans of a site.

    Every scan is encoded once. Then the model as it is, corrections of its probabilities, a new pooling and a new head are
    compared by repeated cross-validation over patients. The simplest candidate within one standard error of the best is fitted
    to all scans, if it is better than the model as it is.

    Args:
        model: The model; it stays as it is.
        data: The scans and their labels; all subsets of its split are used.
        settings: How to adapt.
        features: Folder for the encoder's features, with which a killed run goes on; None for a temporary one.
        accelerator: Lightning's name of the device: ``cpu`` or ``gpu``.
        trained_on: Raw ids of patients of the model's training and validation sets, who must not be among these.
        show: Makes a context that shows progress; None for silence.

    Raises:
        ConfigError: ``other_preprocessing``, if the scans are prepared for another model; ``trained_on``, if the model was
            trained, calibrated or adapted on some of these patients.
        TableError: ``one_class`` or ``too_few_positives``, before anything is computed; ``noisy_labels``, if too many labels are
            probably wrong.

    Example:
        >>> adaptation = adapt(ScanClassifier.load("runs/rsna"), ScanDataModule("export/", "reports.csv"))  # doctest: +SKIP
        >>> print(adaptation.verdict.reason)  # doctest: +SKIP
    """
    data.prepare_as(model.known_preprocessing())
    data.prepare_data()
    data.setup("fit")
    key = ProjectKey.open(Path(data.project_key) if data.project_key else None)
    with tempfile.TemporaryDirectory() as temporary, without_remarks():
        site = Site.of(data, Path(features) if features is not None else Path(temporary), accelerator)
        _check_unseen(model, site, key, trained_on)
        _check_positives(site, settings)
        return _adapt(model, site, key, settings, show or (lambda: nullcontext(lambda what, done, total: None)))


def _adapt(
    model: ScanClassifier,
    site: Site,
    key: ProjectKey,
    settings: AdaptSettings,
    show: Callable[[], AbstractContextManager[Progress]],
) -> Adaptation:
    shares = training_shares(model.training_data)
    unavailable = _unavailable(model, settings, shares is not None)
    candidates = [each for each in CANDIDATES if each.name not in unavailable]
    parts: list[Part] = list(dict.fromkeys(each.trains for each in candidates))
    stored = store_site(model, site, show)
    with show() as progress:

        def validate(of: Site) -> OutOfFold:
            return cross_validate(
                model, of, stored, parts, settings, lambda done, total: progress("cross-validating", done, total)
            )

        out_of_fold = validate(site)
        judge = judge_of_labels(out_of_fold, site, candidates)
        noise = estimate_all(site, judge)
        _check_noise(noise, site, settings)
        taught = treat_doubtful(site, noise, judge, settings.doubtful)
        if taught is not site:
            out_of_fold = validate(taught)
        own = None if model.calibration is None else model.calibration.corrections
        found = {each.name: out_of_fold.corrected(each, taught, shares, own) for each in candidates}
        table = tabulate(candidates, taught, found)
        people = _patients(site)
        verdict = decide(table, patients=people["patients"], positives=people["positive_patients"])
        chosen = next(each for each in candidates if each.name == verdict.chosen)
        adapted = model if chosen.trains == "nothing" else trained(model, chosen.trains, taught, _everyone(site), settings)
    uncorrected, before = mean_of(out_of_fold.by_part[chosen.trains]), mean_of(found[AS_IS])
    evidences = {
        "before": make_site_evidence(site, stored.plain, before, key, model, AS_IS),
        "after": make_site_evidence(site, stored.plain, mean_of(found[chosen.name]), key, adapted, chosen.name),
        "uncorrected": make_site_evidence(site, stored.plain, uncorrected, key, adapted, chosen.name),
    }
    if verdict.is_adapted:
        adapted = _with_calibration(adapted, model, taught, chosen, uncorrected, evidences["uncorrected"], settings)
    facts = site.data.facts_of(site.scans)
    scores = uncorrected.scans[:, LABELS.index(ANY)]
    recorded = (model.training_data or {}).get("profile")
    return Adaptation(
        classifier=adapted,
        verdict=verdict,
        candidates=table,
        unavailable=unavailable,
        noise=noise,
        profile=profile_scans(facts, scores),
        drift=[] if recorded is None else compare_profiles(recorded, profile_scans(facts)),
        training_share=model.positive_share,
        settings=settings,
        series_uids=tuple(scan.series_uid for scan in site.scans),
        counts={**people, "scans": len(site.scans), "slices": len(site.slice_labels)},
        **evidences,
    )


def _with_calibration(
    adapted: ScanClassifier,
    model: ScanClassifier,
    site: Site,
    chosen: Candidate,
    uncorrected: Probabilities,
    evidence: Evidence,
    settings: AdaptSettings,
) -> ScanClassifier:
    """Give the adapted model its correction and its operating points."""
    corrections = fit_corrections(chosen.correction, site, uncorrected, _everyone(site), training_shares(model.training_data))
    of_any = site.scan_labels[:, LABELS.index(ANY)]
    calibration = ModelCalibration(
        weights=adapted.weights_hash(),
        method=chosen.correction,
        corrections=corrections,
        share=float(np.nanmean(of_any)),
        share_of=SUBSET,
        points=tuple(
            choose_points(evidence, parse_rule(rule), replicates=settings.replicates, seed=settings.seed)
            for rule in settings.rules
        ),
        chosen_on=ChosenOn(SUBSET, fingerprints(evidence.scans["scan_id"]), fingerprints(evidence.scans["patient_id"])),
    )
    if adapted is model:  # the caller's model stays as it is
        adapted = ScanClassifier.from_settings(model.settings)
        adapted.model.load_state_dict(model.model.state_dict())
        for name in RECORDS:
            setattr(adapted, name, getattr(model, name))
        adapted.eval()
    adapted.calibration = calibration
    return adapted.to(torch.device("cpu"))


def _everyone(site: Site) -> np.ndarray:
    return np.arange(len(site.scans))


def _patients(site: Site) -> dict[str, int]:
    people = site.patients.astype(str)
    return {
        "patients": len(np.unique(people)),
        "positive_patients": len(np.unique(people[site.scan_labels[:, LABELS.index(ANY)] == 1])),
    }


def _unavailable(model: ScanClassifier, settings: AdaptSettings, has_shares: bool) -> dict[str, str]:
    """Candidates that cannot be tried, with the reason."""
    reasons: dict[str, str] = {}
    for each in CANDIDATES:
        if each.correction in ("prevalence", "temperature and prevalence") and not has_shares:
            reasons[each.name] = "the model does not record the share of positives in its training"
        if each.trains == "head" and model.model.sequence is None:
            reasons[each.name] = "the model has no head along the scan"
        if each.trains == "last stage" and not settings.last_stage:
            reasons[each.name] = "not asked for, because it takes hours on a CPU"
    return reasons


def _check_unseen(model: ScanClassifier, site: Site, key: ProjectKey, trained_on: Collection[str]) -> None:
    people = set(site.patients.tolist())
    check_unseen(people, trained_on, where="data")
    if model.calibration is not None:
        hashed = {key.hash_id(patient): patient for patient in people}
        used = {patient for name, patient in hashed.items() if fingerprints([name]) & model.calibration.chosen_on.patients}
        check_unseen(people, used, where="data, patients on whom the model was calibrated")


def _check_positives(site: Site, settings: AdaptSettings) -> None:
    """Refuse labels from which nothing can be learned, or from which a fold would have none."""
    positives, negatives, what = _best_known(site)
    if not positives or not negatives:
        raise TableError(
            "one_class",
            where="labels",
            got=f"{positives} patients with {what}, {negatives} with a scan or slice that is known to have none",
            expected="patients of both kinds",
            todo="Add the reports of the others. A scan without hemorrhage has any = 0.",
        )
    needed = 2 * settings.folds
    if min(positives, negatives) < needed:
        which = f"with {what}" if positives < negatives else f"known to be without {what}"
        raise TableError(
            "too_few_positives",
            where="labels",
            got=f"{min(positives, negatives)} patients {which}",
            expected=f"at least {needed}, two in each of {settings.folds} folds",
            todo="Add scans of further patients; or give fewer folds, at least 2, if differences may be coarse.",
        )


def _best_known(site: Site) -> tuple[int, int, str]:
    """Numbers of patients with and without a finding, and the finding: "any" over scans, or else what is known best."""
    people, order = site.patients.astype(str), [LABELS.index(ANY), *(k for k, label in enumerate(LABELS) if label != ANY)]
    found: list[tuple[int, int, str]] = []
    for labels, patients in ((site.scan_labels, people), (site.slice_labels, people[site.scan_index])):
        for k in order:
            positives, negatives = (len(np.unique(patients[labels[:, k] == each])) for each in (1, 0))
            found.append((positives, negatives, "a hemorrhage" if LABELS[k] == ANY else LABELS[k]))
    if found[0][0] and found[0][1]:
        return found[0]
    return max(found, key=lambda each: min(each[:2]))


def _check_noise(noise: list[LabelNoise], site: Site, settings: AdaptSettings) -> None:
    of_any = noise[LABELS.index(ANY)]
    if settings.doubtful == "keep" and of_any.wrong > settings.most_wrong:
        raise NoisyLabels(
            "noisy_labels",
            where="labels",
            got=f"about {100 * of_any.wrong:.0f} % wrong labels of {ANY}, by cross-validated predictions "
            f"({int(of_any.doubtful.sum())} of {of_any.known} scans are doubtful)",
            expected=f"at most {100 * settings.most_wrong:.0f} %, because a model that is adapted to wrong labels gets worse",
            todo="Have a radiologist look at the doubtful scans, and give the corrections; or count doubtful labels as unknown "
            "or soft (--doubtful of ich-adapt, doubtful of AdaptSettings).",
        ).about(noise, tuple(scan.series_uid for scan in site.scans))
