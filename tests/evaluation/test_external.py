"""A model on a data set that it was not trained on."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from fabricated import make_classifier

from ich_lstm import ScanClassifier, ScanDataModule
from ich_lstm.data.split.split_file import SplitFile
from ich_lstm.errors import ConfigError
from ich_lstm.evaluation.evidence import columns_of
from ich_lstm.evaluation.external import patients_of_run, predict_evidence
from ich_lstm.privacy import ProjectKey


@pytest.fixture(scope="module")
def data(prepared, phantom: Path) -> ScanDataModule:
    """Six prepared patients with their labels."""
    module = ScanDataModule(str(prepared.folder), str(phantom / "stage_2_train.csv"), num_workers=0)
    module.setup()
    return module


@pytest.fixture(scope="module")
def classifier() -> ScanClassifier:
    return make_classifier().eval()


def test_every_labelled_scan_is_judged(
    data: ScanDataModule, classifier: ScanClassifier, project_key: ProjectKey, phantom: Path
) -> None:
    done = []
    evidence = predict_evidence(classifier, data, key=project_key, progress=lambda scans, total: done.append((scans, total)))
    assert len(evidence.scans) == evidence.source["counts"]["patients"] == 6
    assert sum(scans for scans, _ in done) == 6
    assert evidence.has_encoder
    assert evidence.is_test
    table = pd.read_csv(phantom / "stage_2_train.csv")
    assert columns_of(evidence.slices, "label_").sum() == table["Label"].sum()
    assert np.isfinite(columns_of(evidence.scans, "")).all()


def test_patients_who_were_trained_on_stop(data: ScanDataModule, classifier: ScanClassifier, project_key: ProjectKey) -> None:
    patient = data.scans["test"][0].patient_id if data.scans["test"] else data.scans["train"][0].patient_id
    with pytest.raises(ConfigError, match="1 of 6 patients") as caught:
        predict_evidence(classifier, data, key=project_key, trained_on={patient, "somebody else"})
    assert caught.value.code == "trained_on"


def test_data_prepared_in_another_way_stop(data: ScanDataModule, project_key: ProjectKey) -> None:
    other = make_classifier(size=64)
    with pytest.raises(ConfigError) as caught:
        predict_evidence(other, data, key=project_key)
    assert caught.value.code == "other_preprocessing"


class TestPatientsOfRun:
    def test_are_those_of_training_and_validation(self, tmp_path: Path) -> None:
        SplitFile({"a": "train", "b": "validation", "c": "test"}, fractions=(0.4, 0.3, 0.3)).write(
            tmp_path / "private" / "split.json"
        )
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "checkpoints" / "best.ckpt").touch()
        for checkpoint in (tmp_path, tmp_path / "model", tmp_path / "checkpoints" / "best.ckpt"):
            assert patients_of_run(checkpoint) == {"a", "b"}

    def test_are_unknown_for_a_model_alone(self, tmp_path: Path) -> None:
        assert patients_of_run(tmp_path) == set()
