"""What was chosen for a model: beside it on disk, in its predictions, and moved to another site."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from chosen import make_calibration, make_cases
from fabricated import make_classifier, make_scan
from scipy import special

from ich_lstm import ScanClassifier
from ich_lstm.errors import CheckpointError, ConfigError
from ich_lstm.inference.calibration import ModelCalibration, move_prevalence
from ich_lstm.inference.calibration_file import CALIBRATION_FILE, write_calibration
from ich_lstm.labels import ANY, LABELS

ANY_PLACE = LABELS.index(ANY)


@pytest.fixture(scope="module")
def chosen() -> ModelCalibration:
    """Two operating points; of epidural in scans nothing is known."""
    evidence = make_cases(200)
    evidence = replace(evidence, scans=evidence.scans.assign(label_epidural=0.0))
    calibration = make_calibration("sensitivity=0.9", "alarms=10@0.08", evidence=evidence)
    return replace(calibration, weights=make_classifier().weights_hash(), coherent=True)


@pytest.fixture
def saved(tmp_path: Path, chosen: ModelCalibration) -> Path:
    """A run's folder with a model and what was chosen for it."""
    make_classifier().save_pretrained(tmp_path / "model")
    write_calibration(tmp_path / "model", chosen)
    return tmp_path


class TestFile:
    def test_comes_back_with_the_model(self, saved: Path, chosen: ModelCalibration) -> None:
        for name in (saved, saved / "model", saved / "model" / "model.json", saved / "model" / "model.safetensors"):
            assert ScanClassifier.load(name).calibration == chosen

    def test_is_saved_with_the_model(self, saved: Path, chosen: ModelCalibration, tmp_path: Path) -> None:
        ScanClassifier.load(saved).save_pretrained(tmp_path / "again")
        assert ScanClassifier.load(tmp_path / "again").calibration == chosen

    def test_without_one(self, saved: Path) -> None:
        (saved / "model" / CALIBRATION_FILE).unlink()
        assert ScanClassifier.load(saved).calibration is None

    def test_of_other_weights_is_refused(self, saved: Path) -> None:
        make_classifier(seed=1).save_pretrained(saved / "model")
        with pytest.raises(CheckpointError) as caught:
            ScanClassifier.load(saved)
        assert caught.value.code == "calibration_of_another_model"

    def test_holds_no_id(self, saved: Path) -> None:
        text = (saved / "model" / CALIBRATION_FILE).read_text()
        evidence = make_cases(200)
        assert not any(name in text for name in [*evidence.scans["scan_id"], *evidence.scans["patient_id"]])

    @pytest.mark.parametrize(
        "change",
        [
            lambda about: about.update(format=99),
            lambda about: about.update(format="x"),
            lambda about: about.update(labels=list(reversed(LABELS))),
            lambda about: about.update(method="isotonic"),
            lambda about: about.update(share=1.5),
            lambda about: about.update(share=float("nan")),
            lambda about: about.pop("chosen_on"),
            lambda about: about.update(chosen_on=None),
            lambda about: about["corrections"]["scan"].pop("any"),
            lambda about: about["corrections"]["scan"]["any"].update(slope=-1.0),
            lambda about: about["corrections"]["scan"]["any"].update(slope="a"),
            lambda about: about["operating_points"][0]["slice"]["any"].update(value=1.1),
            lambda about: about["operating_points"][0]["slice"]["any"].update(sensitivity={"worth": 1}),
            lambda about: about["operating_points"].append(about["operating_points"][0]),
        ],
    )
    def test_damaged_is_refused(self, saved: Path, change) -> None:
        path = saved / "model" / CALIBRATION_FILE
        about = json.loads(path.read_text())
        change(about)
        path.write_text(json.dumps(about))
        with pytest.raises(CheckpointError) as caught:
            ScanClassifier.load(saved)
        assert caught.value.code in ("bad_calibration", "newer_format")

    @pytest.mark.parametrize("text", ["", "{", "[]", "null", "3"])
    def test_something_else_is_refused(self, saved: Path, text: str) -> None:
        (saved / "model" / CALIBRATION_FILE).write_text(text)
        with pytest.raises(CheckpointError) as caught:
            ScanClassifier.load(saved)
        assert caught.value.code == "bad_calibration"


class TestPrediction:
    def test_keeps_the_model_s_probabilities(self, saved: Path, project_key) -> None:
        classifier = ScanClassifier.load(saved)
        after = classifier.predict_scan(make_scan(), project_key)
        classifier.calibration = None
        before = classifier.predict_scan(make_scan(), project_key)
        np.testing.assert_array_equal(after.slice_probabilities, before.slice_probabilities)
        np.testing.assert_array_equal(after.scan_probabilities, before.scan_probabilities)
        assert before.calibrated is before.operating_point is None

    def test_has_the_rest_beside_them(self, saved: Path, chosen: ModelCalibration, project_key) -> None:
        prediction = ScanClassifier.load(saved).predict_scan(make_scan(), project_key)
        recalibration = chosen.corrections["scan"]["any"].recalibration
        expected = special.expit(recalibration.intercept + recalibration.slope * special.logit(prediction.scan_probabilities[-1]))
        (row,) = prediction.scan_frame().to_dict("records")
        assert row["calibrated_any"] == pytest.approx(expected)
        assert row["called_any"] == (row["any"] >= chosen.points[0].thresholds["scan"]["any"].value)
        assert np.isnan(row["calibrated_epidural"])
        assert np.isnan(prediction.scan_calls[0])
        slices = prediction.to_frame()
        value = chosen.points[0].thresholds["slice"]["any"].value
        assert slices["called_any"].tolist() == (slices["any"] >= value).astype(int).tolist()
        assert slices["calibrated_epidural"].notna().all()
        assert [c for c in slices.columns if c.startswith("cal")] == chosen.columns

    def test_at_another_operating_point(self, saved: Path, chosen: ModelCalibration, project_key) -> None:
        classifier = ScanClassifier.load(saved)
        classifier.calibration = classifier.calibration.choose("alarms=10@0.08")
        point = classifier.predict_scan(make_scan(), project_key).operating_point
        assert point.name == "alarms=10@0.08"
        np.testing.assert_array_equal(point.scan_thresholds, chosen.points[1].values("scan"))

    def test_tells_how_its_thresholds_did(self, saved: Path, chosen: ModelCalibration, project_key) -> None:
        point = ScanClassifier.load(saved).predict_scan(make_scan(), project_key).operating_point
        for rates, name in ((point.sensitivity, "sensitivity"), (point.specificity, "specificity")):
            rate = getattr(chosen.points[0].thresholds["scan"]["any"], name)
            assert rates.shape == (len(LABELS), 3)
            assert rates[ANY_PLACE].tolist() == [rate.value, rate.low, rate.high]
            assert rate.low <= rate.value <= rate.high
            assert np.isnan(rates[0]).all()

    @pytest.mark.parametrize("prevalence", [0.0, 1.0, -0.1, 8.0, np.nan])
    def test_shares_that_are_none(self, chosen: ModelCalibration, prevalence: float) -> None:
        with pytest.raises(ConfigError):
            chosen.choose(prevalence=prevalence)

    def test_an_operating_point_that_is_not_stored(self, chosen: ModelCalibration) -> None:
        with pytest.raises(ConfigError) as caught:
            chosen.choose("youden")
        assert caught.value.code == "unknown_operating_point"
        assert "alarms=10@0.08" in caught.value.expected


class TestPrevalence:
    @staticmethod
    def simulate(share: float, trained: float, scans: int = 40_000) -> tuple[np.ndarray, np.ndarray]:
        """Labels and probabilities that are right at the trained share: of scans, and of a slice of each."""
        random = np.random.default_rng(0)
        any_label = random.random(scans) < share
        x = random.normal(np.where(any_label, 1.0, -1.0))
        p = special.expit(special.logit(trained) + 2 * x)  # by Bayes' theorem
        of_type = random.random(scans)  # a type's probability, given that the scan is positive
        in_slice = random.random(scans)
        labels = [any_label & (random.random(scans) < of_type), any_label & (random.random(scans) < in_slice), any_label]
        return np.stack(labels, axis=1), np.stack([p * of_type, p * in_slice, p], axis=1)

    @pytest.mark.parametrize("site", [0.05, 0.41, 0.7])
    def test_types_and_slices_are_moved_with_their_scan(self, site: float) -> None:
        labels, p = self.simulate(site, trained=0.41)
        scans, slices = np.tile(p[:, :1], 6), np.tile(p[:, 1:2], 6)
        scans[:, ANY_PLACE] = p[:, 2]
        moved_slices, moved_scans = move_prevalence(slices, scans, np.arange(len(p)), trained=0.41, site=site)
        moved = [moved_scans[:, 0], moved_slices[:, 0], moved_scans[:, ANY_PLACE]]
        for y, q in zip(labels.T, moved, strict=True):
            assert q.mean() == pytest.approx(y.mean(), abs=0.01)
            for low in (0.0, 0.25, 0.5):  # calibrated, not only on the whole
                there = (q >= low) & (q < low + 0.25)
                assert q[there].mean() == pytest.approx(y[there].mean(), abs=0.04)

    def test_the_same_share_changes_nothing(self) -> None:
        p = np.random.default_rng(0).random((7, 6))
        moved = move_prevalence(p, p[:3], np.array([0, 0, 0, 1, 1, 2, 2]), trained=0.3, site=0.3)
        np.testing.assert_allclose(moved[0], p)
        np.testing.assert_allclose(moved[1], p[:3])

    def test_sure_probabilities_stay(self) -> None:
        scans = np.array([np.zeros(6), np.ones(6)])
        for site in (0.01, 0.99):
            moved = move_prevalence(scans, scans, np.array([0, 1]), trained=0.41, site=site)
            np.testing.assert_allclose(moved[1], scans, atol=1e-12)
            np.testing.assert_allclose(moved[0], scans, atol=1e-12)

    def test_needs_scans_that_are_calibrated_for_any(self) -> None:
        evidence = make_cases(100)
        calibration = make_calibration(evidence=replace(evidence, scans=evidence.scans.assign(label_any=1.0)))
        with pytest.raises(ConfigError) as caught:
            calibration.choose(prevalence=0.1)
        assert caught.value.code == "not_calibrated"

    def test_of_a_model_is_applied(self, saved: Path, project_key) -> None:
        classifier = ScanClassifier.load(saved)
        predictions = []
        for share in (None, 0.02):
            classifier.calibration = classifier.calibration.choose(prevalence=share)
            predictions.append(classifier.predict_scan(make_scan(), project_key))
        as_trained, rare = (prediction.calibrated.scan_probabilities[ANY_PLACE] for prediction in predictions)
        odds = [p / (1 - p) for p in (as_trained, rare, classifier.calibration.share, 0.02)]
        assert odds[1] / odds[0] == pytest.approx(odds[3] / odds[2])
        np.testing.assert_array_equal(predictions[0].scan_calls, predictions[1].scan_calls)


class TestTraining:
    def test_stores_the_share_of_positive_scans(self, trained, tmp_path: Path) -> None:
        classifier = trained.classifier
        data = classifier.trainer.datamodule
        assert classifier.positive_share == np.mean([scan.scan_labels[ANY_PLACE] for scan in data.scans["train"]])
        classifier.save_pretrained(tmp_path)
        assert ScanClassifier.load(tmp_path).positive_share == classifier.positive_share

    def test_voids_what_was_chosen_before(self, chosen: ModelCalibration, trained) -> None:
        from pytorch_lightning import Trainer

        classifier = make_classifier()
        classifier.calibration = chosen
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "enable_checkpointing": False}
        Trainer(max_steps=1, accelerator="cpu", limit_val_batches=0, num_sanity_val_steps=0, **quiet).fit(
            classifier, trained.data()
        )
        assert classifier.calibration is None
