"""What a model records of its own training."""

from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer

from ich_lstm import ScanClassifier, ScanDataModule
from ich_lstm.data.loading.batches import Batches
from ich_lstm.evaluation.report.descriptions import describe_initialization, training_rows
from ich_lstm.evaluation.run_facts import StudyFacts
from ich_lstm.models.encoder import Encoder
from ich_lstm.models.heads import LSTM
from ich_lstm.settings import merged
from ich_lstm.training.classifier import ClassifierSettings
from ich_lstm.training.stages import Stage, fit_stages

SMALL = ClassifierSettings(encoder=Encoder(backbone="test_byobnet", pretrained=False), head=LSTM(hidden_size=4))


@pytest.fixture
def data(prepared, phantom: Path) -> ScanDataModule:
    return ScanDataModule(
        str(prepared.folder), str(phantom / "stage_2_train.csv"), num_workers=0, batches=Batches(slices=24), seed=7
    )


def small(**settings) -> ScanClassifier:
    return ScanClassifier.from_settings(merged(SMALL, settings))


def trainer(folder: Path, epochs: int = 1, **settings) -> Trainer:
    quiet = {"enable_progress_bar": False, "enable_model_summary": False, "logger": False, "accelerator": "cpu"}
    return Trainer(default_root_dir=folder, max_epochs=epochs, **quiet, **settings)


def fit(model: ScanClassifier, data: ScanDataModule, folder: Path, epochs: int = 1, **settings) -> Trainer:
    done = trainer(folder, epochs, **settings)
    done.fit(model, data)
    return done


def facts_of(model: ScanClassifier) -> StudyFacts:
    return StudyFacts(model=model._saved().about)


def test_a_fit_records_what_it_was(data: ScanDataModule, tmp_path: Path) -> None:
    model = small(optimizer={"lr": 2e-3, "kind": "adam"})
    done = fit(model, data, tmp_path, epochs=2, enable_checkpointing=False, gradient_clip_val=1.0)
    (record,) = model.fits
    assert (record.epochs, record.max_epochs, record.steps) == (2, 2, done.global_step)
    assert (record.settings["optimizer"]["lr"], record.settings["optimizer"]["kind"]) == (2e-3, "adam")
    assert (record.batches["slices"], record.seed, record.gradient_clip) == (24, 7, 1.0)
    assert (record.encoder, record.head, record.processes) == ("all", "train", 1)


def test_a_checkpoint_holds_the_steps_of_its_own_weights(data: ScanDataModule, tmp_path: Path) -> None:
    done = fit(small(), data, tmp_path, epochs=3, limit_val_batches=1)
    best = ScanClassifier.load(Path(done.checkpoint_callback.best_model_path))
    content = torch.load(done.checkpoint_callback.best_model_path, weights_only=True)
    assert best.fits[0].steps == content["global_step"]
    assert best.fits[0].epochs == content["epoch"] + 1


def test_two_fits_are_two_records_and_survive_saving(data: ScanDataModule, tmp_path: Path) -> None:
    model = small()
    fit(model, data, tmp_path, enable_checkpointing=False)
    model.change_training({"optimizer": {"lr": 5e-4}})
    fit(model, data, tmp_path, enable_checkpointing=False)
    model.save_pretrained(tmp_path / "model")
    loaded = ScanClassifier.load(tmp_path / "model")
    assert [record.settings["optimizer"]["lr"] for record in loaded.fits] == [1e-3, 5e-4]
    assert loaded.starting_weights == {"encoder": {"source": "random"}}


@pytest.mark.filterwarnings("ignore:The dirpath has changed")  # the second Trainer works in another folder, on purpose
def test_a_resumed_fit_goes_on_with_its_record(data: ScanDataModule, tmp_path: Path) -> None:
    first = fit(small(), data, tmp_path)
    model = small()
    trainer(tmp_path / "resumed", 2).fit(model, data, ckpt_path=first.checkpoint_callback.best_model_path, weights_only=True)
    assert len(model.fits) == 1
    assert model.fits[0].epochs == 2


def test_stages_are_recorded_by_name_with_their_own_rates(data: ScanDataModule, tmp_path: Path) -> None:
    stages = [
        Stage(name="warm-up", max_epochs=1, train="encoder", changes={"optimizer": {"encoder_lr": 3e-4}}),
        Stage(name="head", max_epochs=2, train="head"),
    ]
    model = small()
    best_path = fit_stages(
        model,
        data,
        stages,
        lambda stage, is_last: trainer(tmp_path / stage.name, stage.max_epochs),
        best_of=lambda done: done.checkpoint_callback.best_model_path,
    )
    best = ScanClassifier.load(best_path)
    assert [(record.stage, record.encoder, record.head) for record in best.fits] == [
        ("warm-up", "all", "skip"),
        ("head", "none", "train"),
    ]
    assert [record.settings["optimizer"]["encoder_lr"] for record in best.fits] == [3e-4, 1e-4]


class TestStartingWeights:
    """Where the weights began, in the words of the model card."""

    def test_random(self) -> None:
        assert describe_initialization(facts_of(small())) == "All weights were initialized at random."

    def test_a_file_of_timm_s_weights(self, tmp_path: Path) -> None:
        import timm

        torch.save(timm.create_model("test_byobnet", pretrained=False).state_dict(), tmp_path / "weights.pth")
        text = describe_initialization(facts_of(small(encoder={"pretrained_file": tmp_path / "weights.pth"})))
        assert "test_byobnet" in text
        assert "weights.pth" in text
        assert str(tmp_path) not in text

    def test_timm_s_own(self) -> None:
        model = small()
        model.starting_weights = {"encoder": {"source": "timm", "name": "resnet18.a1_in1k", "hf_hub_id": "timm/resnet18.a1_in1k"}}
        assert "resnet18.a1_in1k" in describe_initialization(facts_of(model))

    def test_a_trained_model_with_its_own_record(self, data: ScanDataModule, tmp_path: Path) -> None:
        start = small()
        fit(start, data, tmp_path, enable_checkpointing=False)
        model = small()
        model.load_weights_from(start)
        fit(model, data, tmp_path, enable_checkpointing=False)
        text = describe_initialization(facts_of(model))
        assert start.weights_hash() in text
        assert text.endswith("All weights were initialized at random.")
        assert [name for name, _ in training_rows(facts_of(model))] == ["earlier, fit 1", "fit 1"]

    def test_a_model_that_does_not_know(self) -> None:
        assert describe_initialization(StudyFacts(model={"settings": {"encoder": {"pretrained": False}}})) == ""
