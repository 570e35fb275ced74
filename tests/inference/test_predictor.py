"""Predicting without training: a `Predictor` says what its classifier says, and loads nothing that it does not need."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fabricated import make_classifier, make_scan

from ich_lstm import LABELS, ScanClassifier, explain
from ich_lstm.errors import CheckpointError
from ich_lstm.inference.predictor import Predictor
from ich_lstm.privacy import ProjectKey

TRAINING = ("ich_lstm.data", "ich_lstm.training", "ich_lstm.evaluation", "ich_lstm.pages", "albumentations", "wandb")
"""What no prediction needs: rooms of the package, and what they alone import."""


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[ScanClassifier, Path]:
    """A classifier that predicts as the mean over mirror images, and the folder that it was saved to."""
    classifier = make_classifier(test_time="flip-reverse")
    classifier.name, classifier.is_synthetic, classifier.slice_mm = "a model", True, 1.0
    folder = tmp_path_factory.mktemp("model")
    classifier.save_pretrained(folder)
    return classifier, folder


def test_it_predicts_as_the_classifier_that_was_saved(stored: tuple[ScanClassifier, Path], project_key: ProjectKey) -> None:
    classifier, folder = stored
    predictor = Predictor.load(folder)
    scan = make_scan()
    ours, theirs = (model.predict_scan(scan, project_key) for model in (predictor, classifier))
    np.testing.assert_array_equal(ours.slice_probabilities, theirs.slice_probabilities)
    np.testing.assert_array_equal(ours.scan_probabilities, theirs.scan_probabilities)
    assert repr(ours) == repr(theirs)  # the model's name and hash, and the flags
    assert ours.flags[-1].code == "synthetic_model"
    assert (predictor.slab_mm, predictor.test_time) == (classifier.slab_mm, "flip-reverse")
    assert not predictor.model.training


def test_of_what_was_encoded_comes_the_same(stored: tuple[ScanClassifier, Path], project_key: ProjectKey) -> None:
    predictor, scan = stored[0].predictor, make_scan()
    encoded = predictor.encode(scan)
    ours, whole = predictor.predict_scan(encoded, project_key), predictor.predict_scan(scan, project_key)
    np.testing.assert_array_equal(ours.slice_probabilities, whole.slice_probabilities)
    maps = [explain(predictor, each, labels=["any"]).maps[:, LABELS.index("any")] for each in (encoded, scan)]
    np.testing.assert_array_equal(*maps)


def test_a_setting_of_a_newer_version_is_refused(stored: tuple[ScanClassifier, Path], tmp_path: Path) -> None:
    stored[0].save_pretrained(tmp_path)
    about = json.loads((tmp_path / "model.json").read_text())
    about["settings"]["attention_heads"] = 4
    del about["checksum"]
    (tmp_path / "model.json").write_text(json.dumps(about))
    for load in (Predictor.load, ScanClassifier.load):
        with pytest.raises(CheckpointError) as caught:
            load(tmp_path)
        assert caught.value.code == "weights_do_not_fit"
        assert "attention_heads" in str(caught.value)


def modules_after_each(*steps: str) -> list[set[str]]:
    """The modules that a fresh process has loaded after each of some steps."""
    code = "\n".join(f"{step}\nimport sys; print('loaded:', *sys.modules)" for step in steps)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return [set(line.split()[1:]) for line in done.stdout.splitlines() if line.startswith("loaded: ")]


def within(modules: set[str], packages: tuple[str, ...]) -> set[str]:
    return {name for name in modules if any(name == package or name.startswith(f"{package}.") for package in packages)}


class TestAFreshProcess:
    """One process takes the three steps one after the other: what a step has loaded, the steps after it have loaded too."""

    @pytest.fixture(scope="class")
    @classmethod
    def steps(cls, stored: tuple[ScanClassifier, Path], phantom: Path) -> list[set[str]]:
        predict = f"load({str(stored[1])!r}).predict({str(phantom)!r}))) == 6"
        return modules_after_each(
            f"from ich_lstm.inference.predictor import Predictor\nassert len(list(Predictor.{predict}",
            f"import ich_lstm\nassert len(list(ich_lstm.ScanClassifier.{predict}",
            "ich_lstm.ScanDataModule",
        )

    def test_the_predictor_needs_no_training_and_no_lightning(self, steps: list[set[str]]) -> None:
        loaded = steps[0]
        assert within(loaded, (*TRAINING, "matplotlib", "pytorch_lightning", "torchmetrics", "scipy.stats")) == set()
        assert {"torch", "timm"} <= loaded

    def test_the_classifier_loads_data_and_augmentation_only_to_train(self, steps: list[set[str]]) -> None:
        # Lightning itself imports torchmetrics, and that matplotlib.
        loaded = steps[1]
        assert within(loaded, tuple(name for name in TRAINING if name != "ich_lstm.training")) == set()
        assert "ich_lstm.training.classifier" in loaded

    def test_the_test_can_fail(self, steps: list[set[str]]) -> None:
        assert within(steps[2], TRAINING) >= {"albumentations", "ich_lstm.data.datamodule"}
