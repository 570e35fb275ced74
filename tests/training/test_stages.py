"""Training in stages, and going on with a model that is there."""

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from fabricated import make_classifier
from pytorch_lightning import Callback, LightningModule, Trainer

from ich_lstm import ScanClassifier, ScanDataModule
from ich_lstm.errors import CheckpointError, ConfigError
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.training.checkpoints.callbacks import PathlessCheckpoint
from ich_lstm.training.checkpoints.exact_resume import monitored_in
from ich_lstm.training.classifier import MONITOR
from ich_lstm.training.moving_average import MovingAverage
from ich_lstm.training.stages import Stage, fit_stages

State = dict[str, torch.Tensor]


class Notes(Callback):
    """The weights before and after each stage, and the modes in it."""

    def __init__(self) -> None:
        self.before: list[State] = []
        self.after: list[State] = []
        self.training: list[tuple[bool, bool]] = []
        self.batches: list[int] = []
        self.rates: list[set[float]] = []

    def on_fit_start(self, trainer: Trainer, module: LightningModule) -> None:
        self.before.append(copy.deepcopy(module.model.state_dict()))
        self.batches.append(0)

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_index: int) -> None:
        self.batches[-1] += 1
        if batch_index == 0 and trainer.current_epoch == 0:
            self.training.append((module.model.encoder.training, module.model.pooling.training))
            self.rates.append({group["initial_lr"] for group in trainer.optimizers[0].param_groups})

    def on_fit_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.after.append(copy.deepcopy(module.model.state_dict()))


@pytest.fixture
def train(data: Callable[..., ScanDataModule], tmp_path: Path) -> Callable[..., tuple[ScanClassifier, Notes]]:
    """Train a small classifier in stages."""

    def _train(stages: list[Stage], classifier: ScanClassifier | None = None, **settings: Any) -> tuple[ScanClassifier, Notes]:
        notes, number = Notes(), iter(range(100))
        if classifier is None:
            classifier = make_classifier(**settings)
            classifier.preprocessing = None

        def trainer_of(stage: Stage, is_last: bool) -> Trainer:
            best = PathlessCheckpoint(dirpath=tmp_path / str(next(number)), filename="best", monitor="val/monitor")
            return Trainer(
                max_epochs=stage.max_epochs,
                accelerator="cpu",
                logger=False,
                enable_progress_bar=False,
                enable_model_summary=False,
                num_sanity_val_steps=0,
                callbacks=[notes, best],
                **stage.trainer,
            )

        fit_stages(classifier, data(), stages, trainer_of, best_of=lambda trainer: trainer.checkpoint_callback.best_model_path)
        return classifier, notes

    return _train


def moved(before: State, after: State) -> set[str]:
    """Parts of the network whose weights or statistics differ; of the encoder, its layers."""
    names = [name for name, value in after.items() if not torch.equal(value, before[name])]
    return {name.split(".")[2] if name.startswith("encoder.network") else name.split(".")[0] for name in names}


HEAD = {"sequence", "sequence_classifier", "gate", "pooling"}
LAYERS = {"conv1", "bn1", "layer1", "layer2", "layer3", "layer4"}


class TestStages:
    def test_each_trains_what_it_says_with_its_own_settings(self, train) -> None:
        stages = [
            Stage(name="2d", train="encoder", max_epochs=1, batches={"slices": 8, "slices_per_sample": 1, "sample": "every"}),
            Stage(name="head", train="head", max_epochs=1, changes={"optimizer": {"lr": 0.02, "schedule": "constant"}}),
            Stage(
                name="last",
                train="encoder-through-head",
                encoder_groups=1,
                max_epochs=1,
                changes={"optimizer": {"encoder_lr": 0.03}},
            ),
            Stage(name="all", max_epochs=1, changes={"encoder": {"batch_norm": "frozen", "slices_per_chunk": 5}}),
        ]
        _, notes = train(stages, optimizer={"lr": 0.01, "encoder_lr": 0.005})
        changes = [moved(before, after) for before, after in zip(notes.before, notes.after, strict=True)]
        assert changes[0] >= LAYERS | {"encoder_classifier"}
        assert not changes[0] & HEAD
        assert changes[1] == HEAD
        assert changes[2] == {"layer4", "encoder_classifier"}
        assert changes[3] >= HEAD | {"conv1", "layer4"}
        assert notes.training == [(True, True), (False, True), (True, True), (True, True)]
        assert notes.batches == [6, 2, 2, 2]
        assert notes.rates == [{0.01, 0.005}, {0.02}, {0.01, 0.03}, {0.01, 0.005}]
        statistics = [name for name in notes.after[3] if "running" in name]
        assert all(torch.equal(notes.after[3][name], notes.before[3][name]) for name in statistics)

    def test_each_begins_with_the_best_of_the_one_before(self, train, tmp_path: Path) -> None:
        _, notes = train([Stage(name="a", max_epochs=3, changes={"optimizer": {"lr": 0.3}}), Stage(name="b", max_epochs=1)])
        best = torch.load(tmp_path / "0/best.ckpt", weights_only=True)["state_dict"]
        assert moved({name.removeprefix("model."): value for name, value in best.items()}, notes.before[1]) == set()
        assert moved(notes.before[0], notes.before[1])

    def test_one_that_must_improve_and_does_not_leaves_the_weights_before_it(self, train, tmp_path: Path, caplog) -> None:
        spoils = Stage(name="b", max_epochs=1, must_improve=True, changes={"optimizer": {"lr": 3.0, "encoder_lr": 3.0}})
        _, notes = train([Stage(name="a", max_epochs=2), spoils, Stage(name="c", max_epochs=1)])
        assert moved(notes.before[1], notes.after[1]) > HEAD
        assert (tmp_path / "0/best.ckpt").read_bytes() == (tmp_path / "1/best.ckpt").read_bytes()
        assert moved(notes.before[1], notes.before[2]) == set()
        (said,) = [record.getMessage() for record in caplog.records if "stage b" in record.getMessage()]
        assert "whose weights are kept" in said

    def test_one_that_must_improve_and_does_is_taken(self, train, tmp_path: Path, caplog) -> None:
        still = Stage(name="a", max_epochs=1, changes={"optimizer": {"lr": 1e-9, "encoder_lr": 1e-9}})
        learns = Stage(name="b", max_epochs=4, must_improve=True, changes={"encoder": {"batch_norm": "frozen"}})
        train([still, learns])
        assert (tmp_path / "0/best.ckpt").read_bytes() != (tmp_path / "1/best.ckpt").read_bytes()
        losses = [monitored_in(tmp_path / f"{number}/best.ckpt")[MONITOR] for number in range(2)]
        assert losses[1] < losses[0]
        assert "weights are kept" not in caplog.text

    @pytest.mark.parametrize(
        "trained", [("encoder", "all"), ("all", "encoder"), ("all",)], ids=["after an encoder", "an encoder", "first"]
    )
    def test_losses_of_other_logits_are_not_compared(self, train, trained: tuple[Any, ...]) -> None:
        stages = [Stage(name=f"s{n}", max_epochs=1, train=each) for n, each in enumerate(trained)]
        stages[-1] = replace(stages[-1], must_improve=True)
        with pytest.raises(ConfigError) as caught:
            train(stages)
        assert caught.value.code == "not_comparable"
        assert stages[-1].name in str(caught.value)

    def test_a_reduction_is_fitted_once(self, train) -> None:
        stages = [
            Stage(name="warm-up", train="encoder", max_epochs=1),
            Stage(name="head", train="head", max_epochs=1),
            Stage(name="more", max_epochs=1),
        ]
        settings = {"reduction": {"kind": "pca", "features": 5}, "head": {"encoder_residual": False}}
        classifier, notes = train(stages, **settings)
        components = [state["reducer.components"] for state in (*notes.before[1:], *notes.after[1:])]
        assert all(torch.equal(component, components[0]) for component in components)
        assert components[0].abs().max() > 0
        assert float(classifier.model.reducer.explained) > 0.2

    def test_random_slices_come_with_their_neighbours(self, train) -> None:
        stage = Stage(name="2d", train="encoder", max_epochs=1, batches={"slices_per_sample": 2, "sample": "every"})
        train([stage], encoder={"adjacent_slices": 1})

    def test_neighbours_of_mixed_slices_are_none(self, train) -> None:
        stage = Stage(
            name="2d", train="encoder", max_epochs=1, batches={"slices_per_sample": 2, "sample": "every", "cutmix": 1.0}
        )
        with pytest.raises(ConfigError) as caught:
            train([stage], encoder={"adjacent_slices": 1})
        assert caught.value.code == "no_neighbours"

    def test_no_stage(self, train) -> None:
        with pytest.raises(ConfigError):
            train([])

    def test_a_stage_without_an_epoch_says_so(self, train) -> None:
        with pytest.warns(UserWarning, match="monitored key"), pytest.raises(CheckpointError) as caught:
            train([Stage(name="a", max_epochs=1, trainer={"limit_val_batches": 0})])
        assert caught.value.code == "no_epoch"
        assert "stage a" in str(caught.value)


class TestMovingAverage:
    def test_what_is_saved_is_the_average(self, train, tmp_path: Path) -> None:
        train([Stage(name="a", max_epochs=2)], ema=0.5)
        saved = torch.load(tmp_path / "0/best.ckpt", weights_only=True)
        average, current = saved["state_dict"], saved["current_model_state"]
        assert any(not torch.equal(average[name], current[name]) for name in average)
        loaded = ScanClassifier.load(tmp_path / "0/best.ckpt").model.state_dict()
        assert all(torch.equal(loaded[name.removeprefix("model.")], average[name]) for name in average)

    def test_follows_the_formula(self) -> None:
        classifier = make_classifier()
        average = MovingAverage(0.9)
        average.setup(Trainer(logger=False, accelerator="cpu", enable_checkpointing=False), classifier, "fit")
        name, parameter = next(iter(classifier.named_parameters()))
        start = parameter.detach().clone()
        average._average_model.update_parameters(classifier)  # the first update copies
        for step in (1.0, 2.0):
            with torch.no_grad():
                parameter.copy_(start + step)
            average._average_model.update_parameters(classifier)
        expected = start + 0.9 * 0.1 * 1.0 + 0.1 * 2.0
        torch.testing.assert_close(dict(average._average_model.module.named_parameters())[name], expected)

    def test_copies_no_trainer(self) -> None:
        classifier = make_classifier()
        trainer = Trainer(logger=False, accelerator="cpu", enable_checkpointing=False)
        classifier.trainer = trainer
        average = MovingAverage(0.9)
        average.setup(trainer, classifier, "fit")
        assert average._average_model.module._trainer is None
        assert classifier.trainer is trainer


class TestGoingOn:
    def test_a_loaded_model_is_trained_in_training_mode(self, train, tmp_path: Path) -> None:
        make_classifier().save_pretrained(tmp_path / "model")
        loaded = ScanClassifier.load(tmp_path / "model")
        assert not loaded.training
        _, notes = train([Stage(name="a", max_epochs=1)], loaded)
        assert notes.training == [(True, True)]
        assert "bn1" in moved(notes.before[0], notes.after[0])

    def test_other_preprocessing_stops(self, train) -> None:
        classifier = make_classifier()
        classifier.preprocessing = Preprocessing(size=64)
        with pytest.raises(ConfigError) as caught:
            train([Stage(name="a", max_epochs=1)], classifier)
        assert caught.value.code == "other_preprocessing"

    def test_what_it_was_trained_on_is_stored_with_it(self, train, tmp_path: Path) -> None:
        classifier, _ = train([Stage(name="a", max_epochs=1)])
        classifier.save_pretrained(tmp_path / "model")
        described = ScanClassifier.load(tmp_path / "model").training_data
        assert described == classifier.training_data
        assert (described["patients"], described["slices"], described["synthetic"]) == (4, 48, True)
