"""The recipes of the library: every stage runs, on two processes alike, and the networks are those of the papers."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
import yaml
from fabricated import make_classifier

from ich_lstm import ScanClassifier, ScanModel
from ich_lstm.cli import train
from ich_lstm.cli.train import CONFIGS
from ich_lstm.errors import ConfigError
from ich_lstm.evaluation.evidence import read_run
from ich_lstm.evaluation.figures import compute_figures
from ich_lstm.evaluation.protocols import all_figures
from ich_lstm.evaluation.report.contents import Supplements, gather_contents
from ich_lstm.evaluation.report.descriptions import training_rows
from ich_lstm.evaluation.report.model_card import model_card
from ich_lstm.evaluation.run_facts import read_study
from ich_lstm.settings import flattened, merged, staged
from ich_lstm.statistics import FigureSettings
from ich_lstm.training.classifier import ClassifierSettings
from ich_lstm.training.stages import Stage

SMALL = [
    "--data.preprocessing.size=32",
    "--data.num_workers=0",
    "--data.batches.slices=40",
    "--data.split.fractions=[0.5,0.25,0.25]",
]
SMALL += ["--model.encoder.backbone=test_resnet", "--model.encoder.pretrained=false", "--model.head.hidden_size=8"]
SMALL += ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.precision=32-true"]

STAGES = {
    "nguyen2020": ["joint"],
    "burduja2020": ["encoder", "encoder-slow", "sequence"],
    "ko2020": ["joint"],
    "rsna": ["warm-up", "head", "joint"],
}
FURTHER = {
    "burduja2020": ["--model.reduction.features=12"],
    "ko2020": ["--model.encoder.slices_per_chunk=16"],
    "rsna": ["--model.encoder.slices_per_chunk=16"],
}

PROBE = """
import torch
from pytorch_lightning import Callback

class SaveEachRank(Callback):
    stage = 0

    def on_fit_end(self, trainer, pl_module):
        self.stage += 1
        torch.save(pl_module.model.state_dict(), f"stage-{self.stage}-rank-{trainer.global_rank}-of-{trainer.world_size}.pt")
"""


def settings_of(name: str) -> dict[str, Any]:
    return yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())


def model_of(name: str, **changes: Any) -> ScanModel:
    """The network of a recipe, with random weights."""
    settings = merged(ClassifierSettings(), settings_of(name)["model"])
    return ScanModel(merged(merged(settings, {"encoder": {"pretrained": False}}), changes))


def count(*modules: torch.nn.Module) -> int:
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def lstm_weights(inputs: int, hidden: int, layers: int, directions: int) -> int:
    """Four gates with weights for the input and the state, and two biases, as torch has them."""
    sizes = [inputs, *[hidden * directions] * (layers - 1)]
    return sum(directions * 4 * hidden * (size + hidden + 2) for size in sizes)


@pytest.mark.parametrize("name", [name if name == "rsna" else pytest.param(name, marks=pytest.mark.slow) for name in STAGES])
def test_two_processes_hold_the_same_weights_after_every_stage(name: str, phantom: Path, tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    arguments = ["--config", name, "--data.root", str(phantom), *SMALL, *FURTHER.get(name, []), "--out=run"]
    arguments += ["--trainer.devices=2", "--trainer.strategy=ddp", "--trainer.callbacks=probe.SaveEachRank"]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": ""}
    command = [sys.executable, "-m", "ich_lstm.cli.train", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    stages = STAGES[name]
    before = None
    for number in range(1, len(stages) + 1):
        first, second = (torch.load(tmp_path / f"stage-{number}-rank-{rank}-of-2.pt", weights_only=True) for rank in range(2))
        assert first.keys() == second.keys()
        assert [key for key, value in first.items() if not torch.equal(value, second[key])] == [], stages[number - 1]
        assert before is None or any(not torch.equal(value, before[key]) for key, value in first.items())
        before = first
    assert not (tmp_path / f"stage-{len(stages) + 1}-rank-0-of-2.pt").exists()
    for number, stage in enumerate(stages[:-1], 1):
        folder = tmp_path / "run/stages" / f"{number}-{stage}"
        assert (folder / "checkpoints/best.ckpt").is_file()
        assert pd.read_csv(folder / "metrics.csv")["val/monitor"].notna().any()
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert results["slices"]["sequence"]["weighted_log_loss"] > 0
    assert ("encoder" in results["slices"]) == (name not in ("nguyen2020", "ko2020"))
    check_that_the_card_says_what_ran(tmp_path / "run", stages)


def check_that_the_card_says_what_ran(run: Path, stages: list[str]) -> None:
    """The model card's table of the training is the run's configuration, stage by stage."""
    evidence, facts = read_run(run), read_study(run)
    figures = compute_figures(evidence, all_figures(levels=("scan",)), settings=FigureSettings(replicates=100))
    card = model_card(gather_contents(evidence, figures, facts, Supplements()))
    assert "All weights were initialized at random." in card
    config = yaml.safe_load((run / "config.yaml").read_text())
    rows = training_rows(facts)
    assert [name for name, _ in rows] == stages
    model = {**config["model"], "head": config["model"]["head"]["init_args"]}
    usual = merged(ClassifierSettings(), model)
    given = config["stages"] or {}
    for name, cells in rows:
        changes = {key: value for key, value in given.get(name, {}).items() if key in staged(usual)}
        wanted = flattened(staged(merged(usual, changes)))
        assert len(wanted) >= 15
        assert {key: cells[key] for key in wanted} == {key: setting_in_words(value) for key, value in wanted.items()}, name
        assert cells["epochs"] == "1 of at most 1"
        assert cells["processes"] == "2"
        assert int(cells["steps"]) >= 1
        assert cells["precision"] == "32-true"
    for name in stages:
        assert f" {name} |" in card


def value_at(settings: dict[str, Any], key: str) -> Any:
    """The value of a key with dots; of a head's settings, that of the chosen head."""
    value: Any = settings
    for name in key.split("."):
        value = value["init_args"][name] if "init_args" in value else value[name]
    return value


def setting_in_words(value: Any) -> str:
    return (
        {None: "none", True: "yes", False: "no"}[value]
        if value is None or isinstance(value, bool)
        else f"{value:g}"
        if isinstance(value, float)
        else str(value)
    )


@pytest.fixture(scope="module")
def run(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of Burduja et al.'s recipe."""
    out = tmp_path_factory.mktemp("staged") / "run"
    options = ["--data.root", str(phantom), *SMALL, *FURTHER["burduja2020"], "--out", str(out)]
    assert train.main(["--config", "burduja2020", *options]) == 0
    return out


class TestStagesOfAFit:
    """What moves in which stage."""

    def weights(self, run: Path, stage: str) -> dict[str, torch.Tensor]:
        folder = run / "stages" / stage if stage else run
        return torch.load(folder / "checkpoints/best.ckpt", weights_only=True)["state_dict"]

    def test_the_head_rests_while_the_encoder_is_trained(self, run: Path) -> None:
        first, second = self.weights(run, "1-encoder"), self.weights(run, "2-encoder-slow")
        moved = {key.split(".")[1] for key, value in second.items() if not torch.equal(value, first[key])}
        assert moved == {"encoder", "encoder_classifier"}

    def test_the_encoder_rests_while_the_head_is_trained(self, run: Path) -> None:
        second, last = self.weights(run, "2-encoder-slow"), self.weights(run, "")
        moved = {key.split(".")[1] for key, value in last.items() if not torch.equal(value, second[key])}
        assert moved == {"reducer", "sequence", "sequence_classifier"}

    def test_the_reduction_is_fitted_once(self, run: Path) -> None:
        assert not self.weights(run, "2-encoder-slow")["model.reducer.is_fitted"]
        assert self.weights(run, "")["model.reducer.is_fitted"]
        assert self.weights(run, "")["model.reducer.components"].shape == (12, 96)

    def test_the_encoder_s_figures_stand_beside(self, run: Path) -> None:
        assert set(json.loads((run / "results.json").read_text())["slices"]) == {"sequence", "encoder"}

    def test_the_model_is_found_again(self, run: Path) -> None:
        classifier = ScanClassifier.load(run)
        assert classifier.model.reducer.is_fitted
        assert classifier.training_data["patients"] == 3


class TestNetworks:
    """Shapes and numbers of weights, from the papers' own numbers."""

    @pytest.mark.parametrize(("backbone", "weights"), [("resnet50", 23_508_032), ("legacy_seresnext50_32x4d", 25_510_896)])
    def test_nguyen2020(self, backbone: str, weights: int) -> None:
        model = model_of("nguyen2020", encoder={"backbone": backbone})
        assert count(model.encoder) == weights
        assert count(model.sequence) == lstm_weights(2048, 512, layers=2, directions=2)
        assert tuple(model.sequence_classifier.weight.shape) == (6, 1024)
        assert not model.sequence_classifier.bias.any()
        assert count(model) == weights + lstm_weights(2048, 512, 2, 2) + 6 * 1024 + 6

    def test_burduja2020(self) -> None:
        model = model_of("burduja2020")
        encoder = 86_742_336  # ResNeXt-101 32x8d: 88,791,336 less its classifier of 1000
        assert count(model.encoder) == encoder == 88_791_336 - (2048 * 1000 + 1000)
        assert tuple(model.encoder_classifier.weight.shape) == (6, 2048)
        assert tuple(model.reducer.components.shape) == (120, 2048)
        assert model.sequence.recurrence.input_size == 120 + 6
        assert (model.sequence.recurrence.num_layers, model.sequence.recurrence.dropout) == (3, 0.3)
        assert tuple(model.sequence_classifier.weight.shape) == (6, 512 + 6)
        head = lstm_weights(126, 256, layers=3, directions=2) + 6 * 518 + 6
        assert count(model) == encoder + 6 * 2048 + 6 + head

    def test_ko2020(self) -> None:
        model = model_of("ko2020")
        encoder = 22_855_952 - (2048 * 1000 + 1000)  # Xception less its classifier of 1000
        assert count(model.encoder) == encoder
        assert count(model) == encoder + lstm_weights(2048, 64, layers=1, directions=1) + 6 * 64 + 6
        assert model.sequence.recurrence.recurrent_dropout == 0.2

    @pytest.mark.parametrize(
        ("changes", "inputs", "outputs"),
        [
            ({"reduction": {"kind": "drop", "features": None}}, 6, 518),
            ({"reduction": {"kind": "deviation", "features": 192}, "head": {"encoder_probabilities": False}}, 192, 512),
            ({"reduction": {"kind": "largest-weights", "features": 192}, "head": {"encoder_probabilities": False}}, 192, 512),
            ({"reduction": {"kind": "smallest-weights", "features": 120}, "head": {"encoder_probabilities": False}}, 120, 512),
            ({"reduction": {"features": 192}, "head": {"encoder_probabilities": False}}, 192, 512),
            ({"head": {"encoder_probabilities": False}}, 120, 512),
            ({"reduction": {"kind": "none", "features": None}}, 256 + 6, 518),
        ],
        ids=str,
    )
    def test_rows_of_burduja_s_table(self, changes: dict, inputs: int, outputs: int) -> None:
        model = model_of("burduja2020", encoder={"backbone": "test_byobnet"}, **changes)  # 256 features
        assert model.sequence.recurrence.input_size == inputs
        assert model.sequence_classifier.in_features == outputs

    @pytest.mark.parametrize("name", [path.stem for path in sorted(CONFIGS.glob("*.yaml"))])
    def test_every_recipe_says_what_it_is(self, name: str) -> None:
        text = (CONFIGS / f"{name}.yaml").read_text()
        assert text.startswith(f"# {name}:")
        assert f"ich-train --config {name}" in text
        if name.endswith("2020"):
            assert "# Published:" in text
            assert "# Deviations:" in text

    def test_the_rows_named_in_the_preset_are_keys(self, capsys: pytest.CaptureFixture[str]) -> None:
        rows = [line for line in (CONFIGS / "burduja2020.yaml").read_text().splitlines() if "   --model." in line]
        assert len(rows) == 9
        for row in rows:
            words = row[row.index("--model.") :].split(" (")[0].split()
            with pytest.raises(SystemExit):
                train.main(["--config", "burduja2020", *words, "--print_config"])
            printed = yaml.safe_load(capsys.readouterr().out)["model"]
            for key, value in zip(words[::2], words[1::2], strict=True):
                assert str(value_at(printed, key.removeprefix("--model."))) == str(yaml.safe_load(value)), row


class TestStage:
    @pytest.mark.parametrize(
        ("changes", "code", "word"),
        [
            ({"max_epochs": 0}, "stage_out_of_range", "epoch"),
            ({"name": "a/b"}, "stage_out_of_range", "folder"),
            ({"encoder_groups": 0}, "stage_out_of_range", "at least 1"),
            ({"train": "everything"}, "unknown_trained", "encoder-through-head"),
            ({"changes": {"optimizer": {"lrr": 1}}}, "unknown_setting", "Did you mean lr?"),
            ({"changes": {"head": {"hidden_size": 1}}}, "unknown_setting", "No other setting may change between stages"),
            ({"batches": {"slice": 1}}, "unknown_setting", "slices"),
            ({"batches": {"size": 1}}, "unknown_setting", "one of"),
            ({"trainer": {"acumulate_grad_batches": 1}}, "unknown_setting", "accumulate_grad_batches"),
        ],
        ids=str,
    )
    def test_wrong_settings(self, changes: dict, code: str, word: str) -> None:
        with pytest.raises(ConfigError) as caught:
            Stage(**({"name": "a", "max_epochs": 1} | changes))
        assert caught.value.code == code
        assert word in str(caught.value)

    def test_no_logits_to_train_the_encoder_by(self) -> None:
        classifier = make_classifier(encoder={"classifier": False}, head={"encoder_residual": False})
        with pytest.raises(ConfigError) as caught:
            classifier.choose_trained("encoder")
        assert caught.value.code == "no_encoder_classifier"


class TestStagesFromTheCommandLine:
    """Keys of single stages are changed, and what would run is printed."""

    def printed(self, capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
        with pytest.raises(SystemExit):
            train.main([*arguments, "--print_config"])
        return yaml.safe_load(capsys.readouterr().out)["stages"]

    def test_stages_are_printed_in_their_order(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert list(self.printed(capsys, "--config", "burduja2020")) == STAGES["burduja2020"]

    @pytest.mark.parametrize(
        ("words", "place", "value"),
        [
            (["--stages.joint.max_epochs", "1"], ("joint", "max_epochs"), 1),
            (["--stages.warm-up.max_epochs=1"], ("warm-up", "max_epochs"), 1),
            (["--stages.joint.optimizer.lr", "1e-5"], ("joint", "optimizer", "lr"), 1e-5),
            (["--stages.warm-up.batches.slices=7"], ("warm-up", "batches", "slices"), 7),
            (["--stages.joint.trainer.accumulate_grad_batches=3"], ("joint", "trainer", "accumulate_grad_batches"), 3),
            (["--stages.joint.train=head"], ("joint", "train"), "head"),
        ],
        ids=str,
    )
    def test_one_key_is_changed_and_no_other(
        self, words: list[str], place: tuple[str, ...], value: Any, capsys: pytest.CaptureFixture[str]
    ) -> None:
        expected = self.printed(capsys, "--config", "rsna")
        changed = self.printed(capsys, "--config", "rsna", *words)
        within = expected
        for part in place[:-1]:
            within = within.setdefault(part, {})
        within[place[-1]] = value
        assert changed == expected

    @pytest.mark.parametrize(
        ("recipe", "words", "said"),
        [
            ("rsna", ["--stages.jiont.max_epochs=1"], "Did you mean joint?"),
            ("rsna", ["--stages.joint.max_epoch=1"], "max_epoch"),
            ("rsna", ["--stages.joint=1"], "no_stage|bad_configuration"),
            ("rsna", ["--stages=null", "--stages.joint.max_epochs=1"], "--trainer.max_epochs"),
        ],
    )
    def test_what_no_stage_has_is_refused(
        self, recipe: str, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert train.main(["--config", recipe, *words, "--out=never"]) == 2
        error = capsys.readouterr().err
        assert any(one in error for one in said.split("|")), error

    def test_a_changed_stage_runs(self, phantom: Path, tmp_path: Path) -> None:
        options = ["--data.root", str(phantom), *SMALL, *FURTHER["rsna"], "--out", str(tmp_path / "run")]
        options[options.index("--trainer.max_epochs=1")] = "--trainer.max_epochs=2"
        stages = ["--stages.warm-up.max_epochs=1", "--stages.head.max_epochs=1", "--stages.joint.max_epochs=2"]
        assert train.main(["--config", "rsna", *options, *stages]) == 0
        epochs = [
            pd.read_csv(folder / "metrics.csv")["epoch"].max() + 1
            for folder in (tmp_path / "run/stages/1-warm-up", tmp_path / "run")
        ]
        assert epochs == [1, 2]
        ran = yaml.safe_load((tmp_path / "run/config.yaml").read_text())["stages"]
        assert [stage["max_epochs"] for stage in ran.values()] == [1, 1, 2]
