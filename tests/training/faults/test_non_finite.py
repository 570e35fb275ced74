"""Numbers that are not finite: such a step changes nothing, its scans are named, and such a model is never written."""

import copy
import json
import logging
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from fabricated import make_classifier
from fits import Fit
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor

from ich_lstm import ScanClassifier
from ich_lstm.errors import CheckpointError, TrainingError
from ich_lstm.models.execution.recompute import batch_norms
from ich_lstm.training.faults.non_finite import SKIPS_IN_A_ROW, all_finite, check_finite

FitMaker = Callable[..., Fit]


def poisoned_input(module: ScanClassifier) -> Any:
    return module.model.encoder.register_forward_pre_hook(lambda _, args: (args[0].float() * math.nan,))


def poisoned_features(module: ScanClassifier) -> Any:
    return module.model.encoder.register_forward_hook(lambda _, args, out: out * math.nan)


def infinite_logits(module: ScanClassifier) -> Any:
    return module.model.sequence_classifier.register_forward_hook(lambda _, args, out: out + math.inf)


def infinite_gradients(module: ScanClassifier) -> Any:
    def hook(_: Any, args: Any, out: Tensor) -> None:
        if out.requires_grad:
            out.register_hook(lambda gradient: gradient * math.inf)

    return module.model.encoder.register_forward_hook(hook)


def infinite_statistics(module: ScanClassifier) -> Any:
    """The batch normalizes itself to a finite loss, and leaves an infinite variance behind."""

    def hook(layer: Any, *_: Any) -> None:
        layer.running_var.data.fill_(math.inf)  # behind autograd's back, as the layer itself does it

    return batch_norms(module.model)[0].register_forward_hook(hook)


WAYS = [poisoned_input, poisoned_features, infinite_logits, infinite_gradients, infinite_statistics]


def state_of(trainer: Trainer, module: LightningModule) -> dict[str, Any]:
    averages = [callback for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]
    return copy.deepcopy(
        {
            "weights": module.model.state_dict(),
            "optimizer": trainer.optimizers[0].state_dict()["state"],
            "averages": [average._average_model.state_dict() for average in averages],
        }
    )


def same(first: Any, second: Any) -> bool:
    if isinstance(first, Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[key], second[key]) for key in first)
    if isinstance(first, list):
        return len(first) == len(second) and all(map(same, first, second))
    return first == second


class Poison(Callback):
    """Makes the numbers of some batches not finite, and keeps the state before every batch."""

    def __init__(self, way: Callable[[ScanClassifier], Any], batches: set[int]) -> None:
        self.way, self.batches = way, batches
        self.states: list[dict[str, Any]] = []
        self.scans: list[list[str]] = []
        self.rates: list[list[float]] = []
        self.hook: Any = None
        self.logged: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, module: LightningModule, batch: Any, batch_index: int) -> None:
        number = len(self.states)
        self.states.append(state_of(trainer, module))
        self.scans.append(batch.scan_ids)
        self.rates.append([group["lr"] for group in trainer.optimizers[0].param_groups])
        if number in self.batches:
            self.hook = self.way(module)

    def on_train_batch_end(self, trainer: Trainer, module: LightningModule, outputs: Any, batch: Any, batch_index: int) -> None:
        if self.hook is not None:
            self.hook.remove()
            self.hook = None

    def on_train_end(self, trainer: Trainer, module: LightningModule) -> None:
        self.states.append(state_of(trainer, module))
        self.logged.append(float(trainer.callback_metrics["train/skipped_steps"]))


def poisoned_fit(
    fit: FitMaker, folder: Path, way: Callable[[ScanClassifier], Any], batches: set[int], **settings: Any
) -> tuple[Fit, Poison]:
    poison = Poison(way, batches)
    trainer = {"callbacks": [poison], "enable_checkpointing": False, "max_epochs": 2} | settings.pop("trainer", {})
    return fit(folder, trainer=trainer, **settings), poison


class TestASkippedStep:
    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("at", [0, 1, 2])
    @pytest.mark.parametrize("way", WAYS)
    def test_changes_nothing_and_names_its_scans(
        self, fit: FitMaker, tmp_path: Path, caplog: pytest.LogCaptureFixture, way: Any, at: int
    ) -> None:
        with caplog.at_level(logging.WARNING, logger="ich_lstm"):
            done, poison = poisoned_fit(fit, tmp_path, way, {at}, ema=0.9)
        assert same(poison.states[at], poison.states[at + 1])
        for before, after in zip(poison.states[:at], poison.states[1 : at + 1], strict=True):
            assert not same(before["weights"], after["weights"])
            assert not same(before["averages"], after["averages"])
        assert not same(poison.states[at + 1]["weights"], poison.states[at + 2]["weights"])
        (told,) = [record.getMessage() for record in caplog.records if "skipped" in record.getMessage()]
        assert all(scan in told for scan in poison.scans[at])
        assert done.classifier.fits[-1].skipped_steps == 1
        assert bool(all_finite(done.classifier.state_dict().values()))
        assert all(math.isfinite(value) for value in done.monitored) if done.monitored else True

    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
    def test_in_every_precision(self, fit: FitMaker, tmp_path: Path, precision: str) -> None:
        _, poison = poisoned_fit(fit, tmp_path, poisoned_input, {1}, trainer={"precision": precision})
        assert same(poison.states[1], poison.states[2])
        assert not same(poison.states[2]["weights"], poison.states[3]["weights"])

    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("way", [poisoned_input, infinite_logits, infinite_gradients])
    @pytest.mark.parametrize("chunk", [None, 5])
    def test_its_whole_accumulation_window_is_dropped(self, fit: FitMaker, tmp_path: Path, way: Any, chunk: int | None) -> None:
        # Four patients of 12 slices in batches of 12: two windows an epoch. The first batch of the second window is poisoned.
        settings = {"trainer": {"accumulate_grad_batches": 2}, "encoder": {"slices_per_chunk": chunk}, "slices": 12, "ema": 0.9}
        done, poison = poisoned_fit(fit, tmp_path, way, {2}, **settings)
        assert len(poison.states) == 9
        assert not same(poison.states[0]["weights"], poison.states[2]["weights"])
        assert same(poison.states[2], poison.states[4])
        assert same(poison.states[4]["averages"], poison.states[5]["averages"])  # nor is it made up for later
        assert not same(poison.states[4]["weights"], poison.states[6]["weights"])
        assert done.classifier.fits[-1].skipped_steps == 1

    @pytest.mark.timeout(120)
    def test_is_left_out_of_the_epoch_s_loss_and_counted(self, fit: FitMaker, tmp_path: Path) -> None:
        _, poison = poisoned_fit(fit, tmp_path, poisoned_input, {2}, trainer={"max_epochs": 2})
        assert poison.logged == [1.0]


class TestTheScaler:
    """With 16-mixed, gradients overflow until the scale of the loss is found, and that is no fault."""

    @pytest.mark.timeout(120)
    @pytest.mark.parametrize(("scale", "skipped"), [(2.0**16, 0), (8.0, 0), (1.0, 1)])
    def test_skips_steps_itself_until_its_scale_is_one(self, fit: FitMaker, tmp_path: Path, scale: float, skipped: int) -> None:
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        precision = MixedPrecision("16-mixed", "cpu", scaler)
        done, poison = poisoned_fit(fit, tmp_path, infinite_gradients, {1}, trainer={"plugins": [precision]})
        assert same(poison.states[1]["optimizer"], poison.states[2]["optimizer"])
        # The forward pass was sound, so its statistics are lost only with a step that counts as a fault.
        changed = {
            name for name, weight in poison.states[1]["weights"].items() if not same(weight, poison.states[2]["weights"][name])
        }
        assert bool(changed) == (not skipped)
        assert all("running" in name or "num_batches" in name for name in changed)
        assert done.classifier.fits[-1].skipped_steps == skipped
        assert scaler.get_scale() == scale / 2


class TestGoingBack:
    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("ema", [None, 0.9])
    @pytest.mark.parametrize("way", [poisoned_input, infinite_logits, infinite_gradients])
    def test_to_the_start_with_half_the_rates(self, fit: FitMaker, tmp_path: Path, way: Any, ema: float | None) -> None:
        batches = set(range(1, 1 + SKIPS_IN_A_ROW))
        schedule = {"optimizer": {"lr": 1e-3, "encoder_lr": 1e-4, "schedule": "constant", "warmup": 0.0}}
        done, poison = poisoned_fit(fit, tmp_path, way, batches, ema=ema, trainer={"max_epochs": 4}, **schedule)
        first, back = poison.states[0], poison.states[1 + SKIPS_IN_A_ROW]
        assert same(first["weights"], back["weights"])
        assert same(first["averages"], back["averages"])
        assert back["optimizer"] == {}
        assert poison.rates[1 + SKIPS_IN_A_ROW] == pytest.approx([rate / 2 for rate in poison.rates[0]])
        assert poison.rates[-1] == poison.rates[1 + SKIPS_IN_A_ROW]
        assert done.classifier.fits[-1].returned
        assert not same(back["weights"], poison.states[-1]["weights"])

    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("epochs", [1, 2, 3])
    def test_to_the_newest_checkpoint(self, fit: FitMaker, tmp_path: Path, epochs: int) -> None:
        """The epochs before the fault are two steps each, and each wrote a checkpoint."""

        class Until(ModelCheckpoint):
            def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
                if trainer.current_epoch < epochs:
                    super().on_train_epoch_end(trainer, module)

        writer = Until(dirpath=tmp_path, filename="last", enable_version_counter=False, save_on_train_epoch_end=True)
        poison = Poison(poisoned_features, set(range(2 * epochs, 2 * epochs + SKIPS_IN_A_ROW)))
        trainer = {"callbacks": [poison, writer], "max_epochs": epochs + 4, "limit_val_batches": 0}
        fit(tmp_path, trainer=trainer, ema=0.9)
        kept = torch.load(writer.best_model_path, weights_only=True)
        assert kept["global_step"] == 2 * epochs
        back = poison.states[2 * epochs + SKIPS_IN_A_ROW]
        weights = {name.removeprefix("model."): tensor for name, tensor in kept["current_model_state"].items()}
        assert all(torch.equal(weights[name], tensor) for name, tensor in back["weights"].items())
        assert same(kept["optimizer_states"][0]["state"], back["optimizer"])

    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("way", [poisoned_input, infinite_logits, infinite_gradients])
    def test_only_once(self, fit: FitMaker, tmp_path: Path, way: Any) -> None:
        with pytest.raises(TrainingError) as error:
            poisoned_fit(fit, tmp_path, way, set(range(100)), trainer={"max_epochs": 20, "limit_val_batches": 0})
        assert error.value.code == "not_finite"
        assert f"step {2 * SKIPS_IN_A_ROW}" in str(error.value)
        for word in ("learning rates of", "optimizer.lr", "gradient_clip_val", "scans: "):
            assert word in str(error.value)

    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("way", [poisoned_input, infinite_logits, infinite_gradients])
    def test_a_resumed_fit_keeps_the_half_rates_and_stops_the_next_time(self, fit: FitMaker, tmp_path: Path, way: Any) -> None:
        schedule = {"optimizer": {"lr": 1e-3, "encoder_lr": 1e-4, "schedule": "constant", "warmup": 0.0}}
        writer = ModelCheckpoint(dirpath=tmp_path / "checkpoints", filename="last", enable_version_counter=False)
        trainer = {"max_epochs": 4, "callbacks": [Poison(way, set(range(1, 1 + SKIPS_IN_A_ROW))), writer]}
        fit(tmp_path, trainer=trainer, **schedule)
        again = Poison(way, set(range(100)))
        trainer = {"max_epochs": 20, "callbacks": [again], "enable_checkpointing": False, "limit_val_batches": 0}
        with pytest.raises(TrainingError) as error, pytest.warns(UserWarning, match="callbacks used to create"):
            fit(tmp_path, resume=True, trainer=trainer, **schedule)
        assert error.value.code == "not_finite"
        assert len(again.rates) == SKIPS_IN_A_ROW
        assert {rate for rates in again.rates for rate in rates} == {5e-4, 5e-5}

    @pytest.mark.timeout(120)
    def test_a_good_step_between_starts_the_count_again(self, fit: FitMaker, tmp_path: Path) -> None:
        batches = set(range(12)) - {SKIPS_IN_A_ROW - 1, 2 * SKIPS_IN_A_ROW - 1}
        done, _ = poisoned_fit(fit, tmp_path, poisoned_input, batches, trainer={"max_epochs": 7})
        assert done.classifier.fits[-1].skipped_steps == len(batches)
        assert not done.classifier.fits[-1].returned


class TestLearningRates:
    @pytest.mark.timeout(200)
    @pytest.mark.parametrize("ema", [None, 0.9])
    @pytest.mark.parametrize("rate", [1e6, 1e30, 9e36])
    def test_absurd_ones_end_with_an_error_and_no_such_model(
        self, fit: FitMaker, tmp_path: Path, rate: float, ema: float | None
    ) -> None:
        settings = {"optimizer": {"lr": rate, "encoder_lr": rate, "warmup": 0.0}, "ema": ema, "trainer": {"max_epochs": 12}}
        with pytest.raises(TrainingError, match=r"epoch \d+, step \d+: .* scans: ") as error:
            fit(tmp_path, **settings)
        assert error.value.code == "not_finite"
        for path in tmp_path.rglob("*.ckpt"):
            content = torch.load(path, weights_only=True)
            check_finite(content["state_dict"])
            check_finite(content.get("current_model_state", {}))


class TestValidation:
    @pytest.mark.timeout(120)
    @pytest.mark.parametrize("way", [poisoned_input, poisoned_features, infinite_logits])
    def test_no_checkpoint_without_numbers(self, fit: FitMaker, tmp_path: Path, way: Any) -> None:
        class Validation(Callback):
            def on_validation_start(self, trainer: Trainer, module: ScanClassifier) -> None:
                way(module)

        writer = ModelCheckpoint(dirpath=tmp_path, monitor="val/monitor")
        with pytest.raises(TrainingError) as error:
            fit(tmp_path, trainer={"callbacks": [Validation(), writer]})
        assert error.value.code == "not_finite"
        assert "validation" in str(error.value)
        assert list(tmp_path.rglob("*.ckpt")) == []


class TestSaving:
    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_model_without_numbers_is_not_saved(self, tmp_path: Path, value: float) -> None:
        for name, _ in list(make_classifier().model.named_parameters())[::7]:
            classifier = make_classifier()
            with torch.no_grad():
                weight = classifier.model.get_parameter(name)
                weight[(0,) * weight.ndim] = value
            with pytest.raises(CheckpointError) as error:
                classifier.save_pretrained(tmp_path / "model")
            assert error.value.code == "weights_not_finite"
            assert name in str(error.value)
            assert not (tmp_path / "model").exists()

    def test_nor_are_its_statistics(self, tmp_path: Path) -> None:
        classifier = make_classifier()
        batch_norms(classifier.model)[0].running_var.fill_(math.nan)
        with pytest.raises(CheckpointError):
            classifier.save_pretrained(tmp_path / "model")


TWO_PROCESSES = """
import json, sys
from pathlib import Path
import torch
sys.path[:0] = {paths!r}
from fits import *
from fabricated import make_classifier
from test_non_finite import Poison, {way}
from pytorch_lightning import Trainer, seed_everything
from ich_lstm import ScanDataModule
from ich_lstm.data.loading.batches import Batches
from ich_lstm.data.split.split_file import Split
from ich_lstm.errors import TrainingError


class OnSecond(Poison):
    def on_train_batch_start(self, trainer, module, batch, batch_index):
        poisoned, self.batches = self.batches, self.batches if trainer.global_rank == 1 else set()
        super().on_train_batch_start(trainer, module, batch, batch_index)
        self.batches = poisoned


if __name__ == "__main__":
    seed_everything(7, verbose=False)
    poison = OnSecond({way}, set({batches!r}))
    classifier = make_classifier(ema=0.9)
    classifier.preprocessing = None
    data = ScanDataModule({root!r}, {labels!r}, num_workers=0, batches=Batches(slices=12), split=Split(fractions=(4, 2, 0)))
    trainer = Trainer(max_epochs={epochs}, accelerator="cpu", devices=2, strategy="ddp", logger=False, callbacks=[poison],
                      enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0)
    error = ""
    try:
        trainer.fit(classifier, data)
    except TrainingError as caught:
        error = str(caught)
    rank = trainer.global_rank
    changed = [any(not torch.equal(a, b) for a, b in zip(x["weights"].values(), y["weights"].values()))
               for x, y in zip(poison.states, poison.states[1:])]
    Path(f"rank-{{rank}}.json").write_text(json.dumps({{
        "skipped": classifier.fits[-1].skipped_steps, "returned": classifier.fits[-1].returned, "error": error,
        "scans": poison.scans, "changed": changed,
        "weights": [float(weight.double().sum()) for weight in classifier.parameters()]}}))
"""


class TestTwoProcesses:
    def run(self, prepared: Any, phantom: Path, folder: Path, way: str, batches: list[int], epochs: int) -> list[dict[str, Any]]:
        tests = Path(__file__).parents[2]
        script = TWO_PROCESSES.format(
            paths=[str(tests), str(Path(__file__).parent)],
            way=way,
            batches=batches,
            epochs=epochs,
            root=str(prepared.folder),
            labels=str(phantom / "stage_2_train.csv"),
        )
        (folder / "script.py").write_text(script)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": ""}
        command = [sys.executable, "script.py"]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr[-3000:]
        return [json.loads((folder / f"rank-{rank}.json").read_text()) for rank in range(2)]

    @pytest.mark.timeout(220)
    @pytest.mark.parametrize(
        "way",
        ["poisoned_input", *(pytest.param(way, marks=pytest.mark.slow) for way in ("infinite_logits", "infinite_gradients"))],
    )
    def test_both_skip_the_step_of_which_one_has_no_numbers(self, prepared: Any, phantom: Path, tmp_path: Path, way: str) -> None:
        first, second = self.run(prepared, phantom, tmp_path, way, [1], 2)
        for rank in (first, second):
            assert rank["skipped"] == 1
            assert rank["changed"] == [True, False, True, True]
            assert rank["error"] == ""
        assert first["weights"] == second["weights"]
        assert first["scans"] != second["scans"]

    @pytest.mark.slow
    @pytest.mark.timeout(220)
    def test_both_go_back_and_both_stop(self, prepared: Any, phantom: Path, tmp_path: Path) -> None:
        first, second = self.run(prepared, phantom, tmp_path, "poisoned_input", list(range(100)), 8)
        for rank in (first, second):
            assert rank["skipped"] == 2 * SKIPS_IN_A_ROW
            assert rank["returned"]
            assert "TrainingError[not_finite]" in rank["error"]
            # The scans are those of the second process alone, and the first one names them too.
            assert all(scan in rank["error"] for scan in second["scans"][-1])
        assert first["error"] == second["error"]
