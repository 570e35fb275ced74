"""A Trainer of one's own: what Lightning's users do with any LightningModule works with this one, or is refused in words."""

import math
from datetime import timedelta
from pathlib import Path

import pytest
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import EarlyStopping, LearningRateFinder, ModelCheckpoint
from pytorch_lightning.tuner import Tuner

from ich_lstm import ScanClassifier, ScanDataModule
from ich_lstm.data.loading.batches import Batches
from ich_lstm.data.split.split_file import Split
from ich_lstm.errors import ConfigError
from ich_lstm.labels import ANY, LABELS
from ich_lstm.models.encoder import Encoder
from ich_lstm.models.heads import LSTM
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.settings import merged
from ich_lstm.training.classifier import ClassifierSettings

SMALL = ClassifierSettings(encoder=Encoder(backbone="test_byobnet", pretrained=False), head=LSTM(hidden_size=4))


@pytest.fixture
def data(prepared, phantom: Path) -> ScanDataModule:
    return data_of(prepared, phantom)


def data_of(prepared, phantom: Path, **settings) -> ScanDataModule:
    split = Split(fractions=(0.34, 0.33, 0.33))
    chosen = {"num_workers": 0, "batches": Batches(slices=24), "seed": 7, "split": split} | settings
    return ScanDataModule(str(prepared.folder), str(phantom / "stage_2_train.csv"), **chosen)


def small(**settings) -> ScanClassifier:
    torch.manual_seed(0)
    return ScanClassifier.from_settings(merged(SMALL, settings))


def trainer(folder: Path, **settings) -> Trainer:
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "logger": False,
        "accelerator": "cpu",
        "max_epochs": 1,
    }
    return Trainer(default_root_dir=folder, **(quiet | settings))


class TestTest:
    def test_the_held_out_scans_are_measured_as_the_validation_scans_are(self, data: ScanDataModule, tmp_path: Path) -> None:
        model = small()
        (found,) = trainer(tmp_path).test(model, datamodule=data, verbose=False)
        assert {"test/loss", "test/scan_loss", "test/encoder_loss"} <= set(found)
        assert {f"test/{level}auroc_{label}" for level in ("", "scan_", "encoder_") for label in LABELS} <= set(found)
        # The same scans as validation scans give the same figures.
        (as_validation,) = trainer(tmp_path).validate(model, dataloaders=data.evaluation_loader("test"), verbose=False)
        for name, value in found.items():
            assert as_validation[name.replace("test/", "val/")] == pytest.approx(value, nan_ok=True)

    def test_nothing_of_the_validation_is_left_in_the_test(self, data: ScanDataModule, tmp_path: Path) -> None:
        model = small()
        done = trainer(tmp_path)
        (alone,) = done.test(model, datamodule=data, verbose=False)
        done.validate(model, datamodule=data, verbose=False)
        (after,) = done.test(model, datamodule=data, verbose=False)
        assert after == pytest.approx(alone, nan_ok=True)

    def test_a_model_without_a_head_is_tested_too(self, data: ScanDataModule, tmp_path: Path) -> None:
        (found,) = trainer(tmp_path).test(small(head={"class_path": "NoHead"}), datamodule=data, verbose=False)
        assert math.isfinite(found["test/loss"])
        assert "test/encoder_loss" not in found

    @pytest.mark.parametrize("act", ["validate", "test", "predict"])
    def test_scans_prepared_in_another_way_are_refused(
        self, prepared, phantom: Path, data: ScanDataModule, tmp_path: Path, act: str
    ) -> None:

        model = small()
        model.preprocessing = Preprocessing(size=48)
        with pytest.raises(ConfigError) as error:
            getattr(trainer(tmp_path), act)(model, datamodule=data)
        assert error.value.code == "other_preprocessing"


class TestPredict:
    @pytest.mark.parametrize("slices_per_batch", [1, 24, 1000])
    def test_every_held_out_scan_once_with_coherent_probabilities(
        self, prepared, phantom: Path, tmp_path: Path, slices_per_batch: int
    ) -> None:
        data = data_of(prepared, phantom, batches=Batches(slices=slices_per_batch))
        batches = trainer(tmp_path).predict(small(), datamodule=data)
        found = [scan for batch in batches for scan in batch]
        held_out = {scan.scan_id: len(scan.slice_ids) for scan in data.scans["test"]}
        assert {scan.scan_id: len(scan.slices) for scan in found} == held_out
        assert len(found) == len(held_out)
        for scan in found:
            assert (scan.slices.shape[1:], scan.scan.shape, scan.scan.dtype) == ((6,), (6,), torch.float64)
            assert (scan.scan >= scan.slices.amax(dim=0)).all()
            assert (scan.slices.amax(dim=1) == scan.slices[:, LABELS.index(ANY)]).all()

    def test_the_batches_make_no_difference(self, prepared, phantom: Path, tmp_path: Path) -> None:
        model = small()
        one, many = (
            {
                scan.scan_id: scan.scan
                for batch in trainer(tmp_path).predict(
                    model, datamodule=data_of(prepared, phantom, batches=Batches(slices=slices))
                )
                for scan in batch
            }
            for slices in (1, 1000)
        )
        for scan_id, probabilities in one.items():
            torch.testing.assert_close(probabilities, many[scan_id], atol=1e-6, rtol=0)

    def test_what_is_shown_at_test_time_counts(self, data: ScanDataModule, tmp_path: Path) -> None:
        model = small()
        (plain, *_) = trainer(tmp_path).predict(model, datamodule=data)
        flipping = small(test_time="flip")
        flipping.load_state_dict(model.state_dict())
        (flipped, *_) = trainer(tmp_path).predict(flipping, datamodule=data)
        assert not torch.equal(plain[0].slices, flipped[0].slices)


class TestTuner:
    def search(self, model: ScanClassifier, data: ScanDataModule, folder: Path, **options):
        searching = trainer(folder, max_epochs=-1, limit_val_batches=0)
        # The few scans are few batches of an epoch, fewer than Lightning's bars would be drawn for.
        return Tuner(searching).lr_find(model, datamodule=data, num_training=16, early_stop_threshold=None, **options)

    def test_the_rate_found_is_the_next_fit_s(self, data: ScanDataModule, tmp_path: Path) -> None:
        model = small(optimizer={"schedule": "constant", "warmup": 0.0})
        found = self.search(model, data, tmp_path).suggestion()
        assert model.learning_rate == found != 1e-3
        done = trainer(tmp_path)
        done.fit(model, data)
        assert {group["lr"] for group in done.optimizers[0].param_groups} == {found, 1e-4}
        assert model.fits[0].settings["optimizer"]["lr"] == found

    def test_the_encoder_s_rate_can_be_searched_too(self, data: ScanDataModule, tmp_path: Path) -> None:
        model = small()
        found = self.search(model, data, tmp_path, attr_name="encoder_learning_rate").suggestion()
        assert (model.encoder_learning_rate, model.learning_rate) == (found, 1e-3)
        assert model.settings.optimizer.encoder_lr == found

    # Without moving averages, and with a fit before it, the next test searches in every run.
    @pytest.mark.parametrize("ema", [pytest.param(None, marks=pytest.mark.slow), 0.9])
    def test_a_search_is_no_fit(self, data: ScanDataModule, tmp_path: Path, ema: float | None) -> None:
        model = small(ema=ema)
        before = model.weights_hash()
        self.search(model, data, tmp_path)
        assert model.fits == ()
        assert model.weights_hash() == before
        done = trainer(tmp_path, max_epochs=2)
        done.fit(model, data)
        (record,) = model.fits
        assert (record.epochs, record.steps) == (2, done.global_step)

    def test_a_search_between_two_fits_leaves_the_first_s_record(self, data: ScanDataModule, tmp_path: Path) -> None:
        model = small()
        trainer(tmp_path).fit(model, data)
        first = model.fits
        self.search(model, data, tmp_path)
        assert model.fits == first
        trainer(tmp_path).fit(model, data)
        assert model.fits[0] == first[0]
        assert [record.epochs for record in model.fits] == [1, 1]

    @pytest.mark.parametrize("earlier", [pytest.param(0, marks=pytest.mark.slow), 1])
    def test_a_search_as_a_callback_of_the_fit_is_not_counted(self, data: ScanDataModule, tmp_path: Path, earlier: int) -> None:
        model = small()
        for _ in range(earlier):
            trainer(tmp_path).fit(model, data)
        before = model.fits
        finder = LearningRateFinder(num_training_steps=16, early_stop_threshold=None)
        done = trainer(tmp_path, max_epochs=20, limit_val_batches=0, callbacks=[finder])
        done.fit(model, data)
        *others, record = model.fits
        assert tuple(others) == before
        assert len(before) == earlier
        assert (record.epochs, record.steps) == (20, done.global_step)

    @pytest.mark.parametrize("mode", ["power", "binsearch"])
    def test_the_batch_size_finder_is_refused_with_what_does_it(self, data: ScanDataModule, tmp_path: Path, mode: str) -> None:
        with pytest.raises(ConfigError, match=r"--plan") as error:
            Tuner(trainer(tmp_path)).scale_batch_size(small(), datamodule=data, mode=mode)
        assert error.value.code == "no_batch_size"

    def test_a_wrong_rate_is_refused_when_it_is_set(self) -> None:
        model = small()
        with pytest.raises(ConfigError):
            model.learning_rate = -1.0
        assert model.learning_rate == 1e-3


class TestUnknownNumberOfSteps:
    @pytest.mark.parametrize("limit", [{"max_epochs": -1}, {"max_epochs": None}], ids=["-1", "null"])
    @pytest.mark.parametrize("schedule", ["cosine", "constant"])
    def test_the_rates_rise_and_then_stay(self, data: ScanDataModule, tmp_path: Path, limit: dict, schedule: str) -> None:
        from pytorch_lightning import Callback

        rates = []

        class Watch(Callback):
            def on_train_batch_start(self, trainer, module, batch, index) -> None:
                rates.append(max(group["lr"] for group in trainer.optimizers[0].param_groups))
                trainer.should_stop = len(rates) == 6

        data = data_of_one_scan_batches(data)
        model = small(optimizer={"schedule": schedule, "warmup": 0.5})
        trainer(tmp_path, max_time=timedelta(minutes=5), limit_val_batches=0, callbacks=[Watch()], **limit).fit(model, data)
        assert rates == pytest.approx([5e-4, *[1e-3] * 5])  # two batches an epoch: half of it is one step
        assert model.fits[0].settings["optimizer"]["schedule"] == "constant"

    def test_a_number_of_steps_is_heeded_without_a_number_of_epochs(self, data: ScanDataModule, tmp_path: Path) -> None:
        model = small(optimizer={"warmup": 0.0})
        done = trainer(tmp_path, max_epochs=-1, max_steps=4, limit_val_batches=0)
        done.fit(model, data)
        assert model.fits[0].settings["optimizer"]["schedule"] == "cosine"
        assert done.optimizers[0].param_groups[0]["lr"] == pytest.approx(0.0)

    def test_time_ends_the_fit(self, data: ScanDataModule, tmp_path: Path) -> None:
        model = small()
        trainer(tmp_path, max_epochs=-1, max_time=timedelta(seconds=2), limit_val_batches=0).fit(model, data)
        assert model.fits[0].steps > 0


def data_of_one_scan_batches(data: ScanDataModule) -> ScanDataModule:
    data.batches = Batches(slices=1)
    return data


class TestOverfitting:
    @pytest.mark.parametrize("share", [1, 2, 0.5])
    def test_the_same_batches_come_in_every_epoch(self, prepared, phantom: Path, tmp_path: Path, share: float) -> None:
        from pytorch_lightning import Callback

        seen: list[list[str]] = []
        losses: list[float] = []

        class Watch(Callback):
            def on_train_epoch_start(self, trainer, module) -> None:
                seen.append([])

            def on_train_batch_end(self, trainer, module, outputs, batch, index) -> None:
                seen[-1] += batch.scan_ids
                losses.append(float(outputs["loss"]))

        data = data_of(prepared, phantom, batches=Batches(slices=1), augment=None)
        model = small(optimizer={"lr": 1e-2, "warmup": 0.0})
        trainer(tmp_path, max_epochs=8, overfit_batches=share, callbacks=[Watch()]).fit(model, data)
        assert len(seen) == 8
        assert len({tuple(epoch) for epoch in seen}) == 1
        assert len(seen[0]) == (2 if share == 2 else 1)
        assert losses[-1] < losses[0]


@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "64-true"])
def test_other_precisions_give_finite_losses_and_metrics_in_float64(data: ScanDataModule, tmp_path: Path, precision: str) -> None:
    model = small()
    done = trainer(tmp_path, precision=precision)
    done.fit(model, data)
    assert math.isfinite(done.callback_metrics["train/loss"])
    assert math.isfinite(done.callback_metrics["val/loss"])
    (scan, *_), *_ = trainer(tmp_path, precision=precision).predict(model, datamodule=data)
    assert scan.slices.dtype == torch.float64
    assert model.fits[0].precision == precision


@pytest.mark.parametrize(
    "settings",
    [
        {"head": {"class_path": "NoHead"}},
        {"encoder": {"classifier": False}, "head": {"encoder_residual": False}},
        {"head": {"positions": "relative"}},
        {"windows": {"quantize": True}},
        {"pooling": {"instances": True}},
        {"encoder": {"slices_per_chunk": 8}},
        {"ema": 0.9},
    ],
    ids=str,
)
def test_half_weights_train_every_kind_of_network(data: ScanDataModule, tmp_path: Path, settings: dict) -> None:
    done = trainer(tmp_path, precision="bf16-true")
    done.fit(small(**settings), data)
    assert math.isfinite(done.callback_metrics["train/loss"])
    assert math.isfinite(done.callback_metrics["val/loss"])


def test_half_weights_train_the_encoder_alone(data: ScanDataModule, tmp_path: Path) -> None:
    model = small()
    model.choose_trained("encoder")
    done = trainer(tmp_path, precision="bf16-true")
    done.fit(model, data)
    assert math.isfinite(done.callback_metrics["train/loss"])


def test_half_weights_are_close_to_full_ones(data: ScanDataModule, tmp_path: Path) -> None:
    (full, *_), *_ = trainer(tmp_path).predict(small(), datamodule=data)
    (half, *_), *_ = trainer(tmp_path, precision="bf16-true").predict(small(), datamodule=data)
    assert not torch.equal(half.slices, full.slices)
    torch.testing.assert_close(half.slices, full.slices, atol=0.02, rtol=0)


def test_a_model_trained_in_half_precision_is_saved_and_loaded(data: ScanDataModule, tmp_path: Path) -> None:
    model = small()
    trainer(tmp_path, precision="bf16-true").fit(model, data)
    model.save_pretrained(tmp_path / "model")
    loaded = ScanClassifier.load(tmp_path / "model")
    assert next(loaded.model.parameters()).dtype == torch.float32
    batches = trainer(tmp_path).predict(loaded, datamodule=data)
    assert all(torch.isfinite(scan.slices).all() for batch in batches for scan in batch)


@pytest.mark.parametrize(("precision", "warns"), [("bf16-true", True), ("bf16-mixed", False), ("32-true", False)])
def test_positions_that_would_be_rounded_are_told(
    data: ScanDataModule, tmp_path: Path, caplog: pytest.LogCaptureFixture, precision: str, warns: bool
) -> None:
    trainer(tmp_path, precision=precision).predict(small(head={"positions": "mm"}), datamodule=data)
    assert ("positions in mm are rounded" in caplog.text) == warns


class TestBeforeSetup:
    @pytest.mark.parametrize(
        "use",
        [
            lambda data: data.train_dataloader(),
            lambda data: data.val_dataloader(),
            lambda data: data.test_dataloader(),
            lambda data: data.predict_dataloader(),
            lambda data: data.evaluation_loader("validation"),
            lambda data: data.sample_loader("train", 10),
            lambda data: data.slice_mm,
            lambda data: data.describe_training(),
        ],
    )
    def test_it_says_that_setup_comes_first(self, data: ScanDataModule, use) -> None:
        with pytest.raises(ConfigError, match=r"setup\(\)") as error:
            use(data)
        assert error.value.code == "not_set_up"

    def test_what_it_says_helps(self, data: ScanDataModule) -> None:
        data.prepare_data()
        data.setup()
        assert len(list(data.val_dataloader())) > 0


class TestMetricNames:
    def test_val_loss_is_the_monitored_value(self, data: ScanDataModule, tmp_path: Path) -> None:
        best = ModelCheckpoint(dirpath=tmp_path, monitor="val_loss", filename="best-{val_loss:.3f}")
        done = trainer(
            tmp_path, max_epochs=2, enable_checkpointing=True, callbacks=[best, EarlyStopping(monitor="val_loss", patience=5)]
        )
        done.fit(small(), data)
        assert done.callback_metrics["val_loss"] == done.callback_metrics["val/monitor"]
        assert Path(best.best_model_path).name == f"best-val_loss={float(best.best_model_score):.3f}.ckpt"

    def test_the_alias_is_no_second_curve_of_the_loggers(self, data: ScanDataModule, tmp_path: Path) -> None:
        done = trainer(tmp_path)
        done.fit(small(), data)
        assert "val/monitor" in done.logged_metrics
        assert "val_loss" not in done.logged_metrics

    def test_the_docstring_names_what_is_logged(self, data: ScanDataModule, tmp_path: Path) -> None:
        done = trainer(tmp_path)
        done.fit(small(), data)
        for name in done.callback_metrics:
            for label in LABELS:
                name = name.replace(f"_{label}", "_<label>")
            assert f"``{name}``" in ScanClassifier.__doc__
