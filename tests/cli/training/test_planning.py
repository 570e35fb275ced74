"""ich-train --plan, and auto in its configuration."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from ich_lstm.cli import train
from ich_lstm.cli.training import fit, planning
from ich_lstm.training.classifier import ClassifierSettings
from ich_lstm.training.memory_planner import MemoryPlan, Trial

SMALL = [
    *(
        "--phantom.patients=8",
        "--phantom.slices=8",
        "--phantom.size=64",
        "--phantom.prevalence=0.6",
        "--data.preprocessing.size=32",
    ),
    *(
        "--model.encoder.backbone=test_resnet",
        "--model.encoder.global_pool=null",
        "--model.head.hidden_size=8",
        "--trainer.max_epochs=1",
    ),
]

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the planner was asked for; it finds 24 slices in chunks of 5."""
    given: dict[str, Any] = {}

    def plan(settings: ClassifierSettings, **options: Any) -> MemoryPlan:
        given.update(options, settings=settings)
        options["progress"](Trial(24, 5, options["size"]), 300 * 2**20)
        return MemoryPlan(5, 24, 300 * 2**20, 400 * 2**20)

    monkeypatch.setattr(planning, "plan_memory", plan)
    return given


def test_plan_only_says_what_fits(asked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--config", "demo", "--plan", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "24 slices in chunks of 5: 300 MiB" in said
    assert "--data.batches.slices 24 --model.encoder.slices_per_chunk 5" in said
    assert list(tmp_path.iterdir()) == []
    assert asked["size"] == 128
    assert asked["slices_per_batch"] is None  # of the recipe; a plan seeks it too
    assert asked["settings"].encoder.backbone == "test_byobnet"


def test_auto_becomes_numbers(asked: dict[str, Any], tmp_path: Path) -> None:
    auto = ["--model.encoder.slices_per_chunk=auto", "--data.batches.slices=24"]
    assert train.main(["--config", "demo", "--out", str(tmp_path / "run"), *SMALL, *auto]) == 0
    assert asked["slices_per_batch"] == 24
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert (config["model"]["encoder"]["slices_per_chunk"], config["data"]["batches"]["slices"]) == (5, 24)


def test_one_of_several_processes_is_refused(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fit, "rank", lambda: 1)
    options = ["--config", "demo", "--out", str(tmp_path / "run"), "--data.batches.slices=auto"]
    assert train.main(options) == 2
    assert "[auto_unresolved]" in capsys.readouterr().err
    assert asked == {}
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("further", [["--plan"], ["--model.encoder.slices_per_chunk=auto"], []])
def test_a_missing_root_stops_before_anything_is_tried(
    asked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], further: list[str]
) -> None:
    options = ["--data.root", str(tmp_path / "nothing"), "--out", str(tmp_path / "run"), "--model.encoder.pretrained=false"]
    assert train.main(["--config", "rsna", *options, *further]) == 1
    assert "SourceError[missing_path]" in capsys.readouterr().err
    assert not asked


def test_the_time_limit_is_an_option(asked: dict[str, Any]) -> None:
    assert train.main(["--config", "demo", "--plan", "--plan_minutes=0.5"]) == 0
    assert asked["seconds"] == 30


class TestWithoutInternet:
    """Pretrained weights that cannot be had stop a training before its data are read, in one message."""

    @pytest.fixture(autouse=True)
    def offline(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        from huggingface_hub import constants

        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # where nobody listens
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))

    @pytest.mark.parametrize("backbone", ["resnet10t", "resnext101_32x8d.fb_wsl_ig1b_ft_in1k", "tf_efficientnet_b0"])
    def test_says_it_once_and_reads_nothing(
        self, backbone: str, phantom: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from ich_lstm.data.datamodule import ScanDataModule

        def refuse(*_: object) -> None:
            raise AssertionError("the data are read")

        monkeypatch.setattr(ScanDataModule, "prepare_data", refuse)
        options = ["--data.root", str(phantom), "--out", str(tmp_path / "run"), f"--model.encoder.backbone={backbone}"]
        assert train.main(["--config", "rsna-fast", *options, "--model.encoder.pretrained=true"]) == 2
        said = capfd.readouterr()
        assert said.err.count("\n") == 1
        assert "ConfigError[no_pretrained_weights]" in said.err
        assert "pretrained_file" in said.err
        assert not (tmp_path / "run").exists()

    def test_a_file_that_is_not_there(self, phantom: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        options = [
            "--data.root",
            str(phantom),
            "--out",
            str(tmp_path / "run"),
            f"--model.encoder.pretrained_file={tmp_path / 'none'}",
        ]
        assert train.main(["--config", "rsna-fast", *options]) == 2
        assert "no_pretrained_weights" in capfd.readouterr().err

    def test_what_lies_in_the_cache_is_enough(self, tmp_path: Path) -> None:
        from ich_lstm.models.encoder import Encoder, check_pretrained

        revision = "0" * 40
        folder = tmp_path / "cache/models--timm--resnet10t.c3_in1k"
        (folder / "refs").mkdir(parents=True)
        (folder / "refs/main").write_text(revision)
        (folder / "snapshots" / revision).mkdir(parents=True)
        (folder / "snapshots" / revision / "model.safetensors").write_bytes(b"weights")
        check_pretrained(Encoder(backbone="resnet10t"))
