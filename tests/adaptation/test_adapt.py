"""A model adapted to a site, from data to calibration."""

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from fabricated import make_classifier

from ich_lstm import LABELS, ScanClassifier, ScanDataModule, adapt
from ich_lstm.adaptation.adapt import NoisyLabels
from ich_lstm.adaptation.comparing.candidates import AS_IS, CANDIDATES
from ich_lstm.adaptation.comparing.corrections import FEWEST_POSITIVE_PATIENTS, apply_corrections, fit_corrections
from ich_lstm.adaptation.comparing.settings import AdaptSettings
from ich_lstm.adaptation.scans.site import Probabilities, Site, predict_pixels, store_site
from ich_lstm.errors import ConfigError, TableError
from ich_lstm.inference.calibration import CALIBRATED_LEVELS
from ich_lstm.labels import ANY

pytestmark = pytest.mark.usefixtures("few_steps")

QUICK = AdaptSettings(folds=2, repeats=1, epochs=1, head_lr=0.02, replicates=100)
KEEP_ALL = {"most_wrong": 1.0}


@pytest.fixture
def site(site_data, stranger, tmp_path: Path) -> Site:
    data = site_data(preprocessing=stranger.preprocessing)
    data.prepare_data()
    data.setup()
    return Site.of(data, tmp_path / "features", "cpu")


@pytest.mark.parametrize("test_time", ["none", "flip-reverse"])
def test_stored_predictions_are_those_of_the_pixels(site, test_time: str) -> None:
    stranger = make_classifier(seed=3, test_time=test_time).eval()
    rows = range(5)
    stored = store_site(stranger, site).predict(stranger, site, rows)
    pixels = predict_pixels(stranger, site, rows)
    for one, other in zip(stored, pixels, strict=True):
        assert np.allclose(one.slices, other.slices, atol=2e-3)  # features are float16
        assert np.allclose(one.scans, other.scans, atol=2e-3)


class TestCorrections:
    def test_prevalence_moves_odds_by_the_ratio_of_shares(self, site) -> None:
        p = Probabilities(np.full(site.slice_labels.shape, 0.3), np.full(site.scan_labels.shape, 0.3))
        shares = {level: dict.fromkeys(LABELS, 0.25) for level in CALIBRATED_LEVELS}
        fitted = fit_corrections("prevalence", site, p, np.arange(len(site.scans)), shares)
        new = apply_corrections(fitted, p)
        k = LABELS.index(ANY)
        share = (np.nansum(site.scan_labels[:, k]) + 0.5) / (len(site.scans) + 1)
        odds = 0.3 / 0.7 * (share / (1 - share)) / (0.25 / 0.75)
        assert new.scans[0, k] == pytest.approx(odds / (1 + odds))

    def test_platt_calibrates_in_the_large(self, site) -> None:
        random = np.random.default_rng(0)
        spread = np.where(site.scan_labels == 1, 0.6, 0.4) + random.uniform(-0.25, 0.25, site.scan_labels.shape)
        p = Probabilities(np.full(site.slice_labels.shape, 0.3), spread)
        new = apply_corrections(fit_corrections("platt", site, p, np.arange(len(site.scans)), None), p)
        k = LABELS.index(ANY)
        assert new.scans[:, k].mean() == pytest.approx(site.scan_labels[:, k].mean(), abs=0.02)

    def test_a_label_of_few_patients_stays_as_it_is(self, site) -> None:
        k = LABELS.index("epidural")
        labels = np.zeros_like(site.scan_labels)
        labels[: FEWEST_POSITIVE_PATIENTS - 1, k] = 1
        few = site.labelled(site.slice_labels, labels)
        p = Probabilities(np.full(site.slice_labels.shape, 0.3), np.random.default_rng(0).random(labels.shape))
        fitted = fit_corrections("platt", few, p, np.arange(len(site.scans)), None)
        assert fitted["scan"]["epidural"].recalibration is None
        assert "4 positive patients" in fitted["scan"]["epidural"].note
        assert np.array_equal(apply_corrections(fitted, p).scans[:, k], p.scans[:, k])


class TestAdapt:
    @pytest.fixture
    def adapted(self, site_data, stranger, tmp_path: Path):
        before = copy.deepcopy(stranger.model.state_dict())
        found = adapt(stranger, site_data(), AdaptSettings(**{**vars(QUICK), **KEEP_ALL}), features=tmp_path / "features")
        assert all(torch.equal(value, before[name]) for name, value in stranger.model.state_dict().items())
        assert stranger.calibration is None
        return found

    def test_every_candidate_is_judged_and_the_choice_is_calibrated(self, adapted, stranger) -> None:
        tried = list(adapted.candidates["candidate"])
        assert tried == [each.name for each in CANDIDATES if each.trains != "last stage"]
        assert adapted.candidates["loss"].notna().all()
        assert set(adapted.unavailable) == {each.name for each in CANDIDATES if each.trains == "last stage"}
        assert adapted.counts == {"patients": 24, "positive_patients": 10, "scans": 24, "slices": 192}
        assert adapted.is_adapted  # it calls everything positive: anything is better
        assert adapted.verdict.chosen != AS_IS
        calibration = adapted.classifier.calibration
        assert calibration.weights == adapted.classifier.weights_hash()
        assert len(calibration.chosen_on.scans) == 24
        losses = adapted.candidates.set_index("candidate")["loss"]
        assert losses[adapted.verdict.chosen] < losses[AS_IS]
        assert adapted.profile["numbers"]["probability of any hemorrhage"]["scans"] == 24

    def test_it_refuses_patients_it_was_adapted_to(self, adapted, site_data) -> None:
        with pytest.raises(ConfigError) as caught:
            adapt(adapted.classifier, site_data(), QUICK)
        assert caught.value.code == "trained_on"

    def test_the_last_stage_is_trained_where_it_is_asked_for(self, site_data, stranger) -> None:
        settings = AdaptSettings(**{**vars(QUICK), **KEEP_ALL, "last_stage": True, "last_stage_epochs": 1})
        found = adapt(stranger, site_data(), settings)
        assert "last stage, Platt" in set(found.candidates["candidate"])
        assert found.unavailable == {}

    def test_a_fixed_pooling_gets_one_by_attention(self, site_data, stranger) -> None:
        model = ScanClassifier.from_settings(
            type(stranger.settings)(
                **{**vars(stranger.settings), "pooling": type(stranger.settings.pooling)(kind="max")},
            )
        )
        model.preprocessing = stranger.preprocessing
        found = adapt(model.eval(), site_data(), AdaptSettings(**{**vars(QUICK), **KEEP_ALL}))
        assert {"pooling", "pooling, Platt"} <= set(found.candidates["candidate"])
        assert "prevalence" in found.unavailable  # it records no training


class TestRefusals:
    def labels(self, data: ScanDataModule, change: Callable[[np.ndarray], np.ndarray]) -> ScanDataModule:
        data.prepare_data()
        data.setup()
        for subset, scans in data.scans.items():
            data.scans[subset] = [
                scan._replace(slice_labels=change(scan.slice_labels), scan_labels=change(scan.scan_labels)) for scan in scans
            ]
        return data

    def test_one_class(self, site_data, stranger) -> None:
        data = self.labels(site_data(preprocessing=stranger.preprocessing), np.zeros_like)
        with pytest.raises(TableError) as caught:
            adapt(stranger, data, QUICK)
        assert caught.value.code == "one_class"
        assert "0 patients with a hemorrhage" in str(caught.value)

    def test_too_few_positives(self, site_data, stranger) -> None:
        with pytest.raises(TableError) as caught:
            adapt(stranger, site_data(), AdaptSettings(folds=8))
        assert caught.value.code == "too_few_positives"
        assert "10 patients" in str(caught.value)
        assert "at least 16" in str(caught.value)

    def test_another_preprocessing(self, site_data, stranger) -> None:
        data = site_data(preprocessing=type(stranger.preprocessing)(size=48))
        data.cache_dir = None
        with pytest.raises(ConfigError) as caught:
            adapt(stranger, data, QUICK)
        assert caught.value.code == "other_preprocessing"

    def test_patients_of_the_training(self, site_data, stranger) -> None:
        data = site_data(preprocessing=stranger.preprocessing)
        data.prepare_data()
        data.setup()
        with pytest.raises(ConfigError) as caught:
            adapt(stranger, data, QUICK, trained_on={data.scans["train"][0].patient_id})
        assert caught.value.code == "trained_on"

    def test_too_many_wrong_labels(self, site_data, stranger) -> None:
        with pytest.raises(NoisyLabels) as caught:
            adapt(stranger, site_data(), AdaptSettings(**{**vars(QUICK), "most_wrong": 1e-9}))
        assert caught.value.code == "noisy_labels"
        assert len(caught.value.series_uids) == 24
