"""No scan is less probable than one of its slices, and "any" nowhere less than a type, unless raw values are asked for."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from chosen import make_calibration, make_cases
from fabricated import make_classifier, make_sample, make_scan
from scipy import special

from ich_lstm import LABELS, ScanClassifier
from ich_lstm.data.loading.batch import pack_scans
from ich_lstm.errors import ConfigError
from ich_lstm.evaluation.evaluate import predict_subset
from ich_lstm.evaluation.thresholds.calibrate import is_coherent
from ich_lstm.inference.calibration_file import CALIBRATION_FILE, write_calibration
from ich_lstm.inference.forward import predicted
from ich_lstm.labels import ANY
from ich_lstm.models.scan_model import ScanLogits

OF_ANY = LABELS.index(ANY)
LENGTHS = torch.tensor([4, 1, 7])


def made_coherent(slices: np.ndarray, scans: np.ndarray, lengths: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """The definition, written down label by label and scan by scan."""
    slices, scans = slices.copy(), scans.copy()
    for row in slices:
        row[OF_ANY] = max(row)
    first = 0
    for scan, length in zip(scans, lengths, strict=True):
        for k in range(len(LABELS)):
            scan[k] = max([scan[k], *slices[first : first + length, k]])
        scan[OF_ANY] = max(scan)
        first += length
    return slices, scans


class TestProbabilities:
    @pytest.mark.parametrize("seed", range(5))
    def test_are_raised_as_the_definition_says(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        slices, scans = random.normal(size=(12, 6)) * 3, random.normal(size=(3, 6)) * 3
        raw = ScanLogits(torch.tensor(slices), torch.tensor(scans), torch.tensor(slices))
        plain = predicted(raw, LENGTHS, coherent=False)
        np.testing.assert_allclose(plain.slices, special.expit(slices), rtol=1e-12)
        np.testing.assert_allclose(plain.scans, special.expit(scans), rtol=1e-12)
        found = predicted(raw, LENGTHS)
        expected = made_coherent(plain.slices.numpy(), plain.scans.numpy(), LENGTHS.tolist())
        np.testing.assert_array_equal(found.slices, expected[0])
        np.testing.assert_array_equal(found.scans, expected[1])


@pytest.fixture(
    params=[
        {},
        {"head": {"class_path": "NoHead"}, "pooling": {"kind": "attention"}},
        {"pooling": {"kind": "max"}},
        {"test_time": "flip-reverse"},
    ],
    ids=str,
)
def classifier(request) -> ScanClassifier:
    """Models whose scans hang together with their slices in several ways."""
    return make_classifier(seed=3, **request.param).eval()


class TestPredictions:
    def test_are_coherent_and_raw_on_request(self, classifier: ScanClassifier, project_key) -> None:
        random = np.random.default_rng(0)
        scan = make_scan(random.normal(40, 30, (6, 32, 32)).astype(np.int16))
        shown = classifier.predict_scan(scan, project_key)
        raw = classifier.predict_scan(scan, project_key, coherent=False)
        slices, scans = made_coherent(raw.slice_probabilities, raw.scan_probabilities[None], [6])
        np.testing.assert_array_equal(shown.slice_probabilities, slices)
        np.testing.assert_array_equal(shown.scan_probabilities, scans[0])
        assert (shown.scan_probabilities >= shown.slice_probabilities.max(axis=0)).all()
        assert all(result.probability >= result.peak_probability for result in shown.results())
        (by_path,) = classifier.predict(scan, project_key=project_key, coherent=False)
        np.testing.assert_array_equal(by_path.scan_probabilities, raw.scan_probabilities)

    def test_something_is_raised_in_these_models(self, project_key) -> None:
        classifier = make_classifier(seed=3).eval()
        scan = make_scan(np.random.default_rng(0).normal(40, 30, (6, 32, 32)).astype(np.int16))
        raw = classifier.predict_scan(scan, project_key, coherent=False)
        assert (raw.scan_probabilities < raw.slice_probabilities.max(axis=0)).any()
        assert (raw.slice_probabilities[:, OF_ANY] < raw.slice_probabilities.max(axis=1)).any()

    def test_training_sees_the_raw_logits(self) -> None:
        classifier = make_classifier(seed=3).eval()
        batch = pack_scans([make_sample(4), make_sample(7)])
        with torch.inference_mode():
            plain, inferred = classifier(batch), classifier.infer(batch)
        assert torch.equal(plain.scan_logits, inferred.scan_logits)
        assert torch.equal(plain.slice_logits, inferred.slice_logits)

    def test_what_is_judged_is_what_is_predicted(self, trained, project_key) -> None:
        data = trained.data()
        data.prepare_data()
        data.setup()
        judged, raw = (
            predict_subset(trained.classifier, data, "validation", hash_patient=str, coherent=value) for value in (True, False)
        )
        slices, scans = made_coherent(
            raw.slices[list(LABELS)].to_numpy(), raw.scans[list(LABELS)].to_numpy(), raw.slices.groupby("scan_id").size().tolist()
        )
        np.testing.assert_array_equal(judged.slices[list(LABELS)], slices)
        np.testing.assert_array_equal(judged.scans[list(LABELS)], scans)
        default = predict_subset(trained.classifier, data, "validation", hash_patient=str)
        np.testing.assert_array_equal(default.scans[list(LABELS)], scans)


class TestCalibration:
    def test_knows_to_which_kind_it_was_fitted(self) -> None:
        raw = make_cases(100)
        slices, scans = raw.slices.copy(), raw.scans.copy()
        slices[list(LABELS)], scans[list(LABELS)] = made_coherent(
            slices[list(LABELS)].to_numpy(), scans[list(LABELS)].to_numpy(), [3] * len(scans)
        )
        coherent = replace(raw, slices=slices, scans=scans)
        assert is_coherent(coherent)
        assert make_calibration(evidence=coherent).coherent
        assert not is_coherent(raw)
        assert not make_calibration(evidence=raw).coherent
        assert not is_coherent(replace(coherent, scans=raw.scans))
        assert not is_coherent(replace(coherent, slices=raw.slices))

    @pytest.mark.parametrize("coherent", [True, False])
    def test_is_applied_to_that_kind_alone(self, coherent: bool, tmp_path: Path, project_key) -> None:
        classifier = make_classifier()
        classifier.save_pretrained(tmp_path)
        write_calibration(tmp_path, replace(make_calibration(), weights=classifier.weights_hash(), coherent=coherent))
        classifier = ScanClassifier.load(tmp_path)
        assert classifier.calibration.coherent is coherent
        assert classifier.predict_scan(make_scan(), project_key, coherent=coherent).calibrated is not None
        with pytest.raises(ConfigError) as caught:
            classifier.predict_scan(make_scan(), project_key, coherent=not coherent)
        assert caught.value.code == "calibration_of_other_probabilities"

    def test_of_an_earlier_version_is_of_raw_probabilities(self, tmp_path: Path) -> None:
        classifier = make_classifier()
        classifier.save_pretrained(tmp_path)
        path = write_calibration(tmp_path, replace(make_calibration(), weights=classifier.weights_hash(), coherent=True))
        about = json.loads(path.read_text())
        del about["coherent"]
        (tmp_path / CALIBRATION_FILE).write_text(json.dumps(about))
        assert not ScanClassifier.load(tmp_path).calibration.coherent
