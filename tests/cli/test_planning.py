"""ich-train --plan, and auto in its configuration."""

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ich_lstm.cli import fit, planning, train
from ich_lstm.learning.planner import MemoryPlan, Trial

SMALL = [
    *("--phantom.patients=8", "--phantom.slices=8", "--phantom.size=64", "--phantom.prevalence=0.6", "--data.size=32"),
    *("--model.backbone=resnet10t", "--model.global_pool=null", "--model.hidden_size=8", "--trainer.max_epochs=1"),
]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the planner was asked for; it finds 24 slices in chunks of 5."""
    given: dict[str, Any] = {}

    def plan(settings: dict[str, Any], **options: Any) -> MemoryPlan:
        given.update(options, settings=settings)
        options["tell"](Trial(24, 5, options["size"]), 300 * 2**20)
        return MemoryPlan(5, 24, 300 * 2**20, 400 * 2**20)

    monkeypatch.setattr(planning, "plan_memory", plan)
    monkeypatch.setattr(sys, "argv", ["ich-train"])
    return given


def test_plan_only_says_what_fits(asked: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--config", "demo", "--plan", "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().out
    assert "24 slices in chunks of 5: 300 MiB" in said
    assert "--data.slices_per_batch 24 --model.slices_per_chunk 5" in said
    assert list(tmp_path.iterdir()) == []
    assert asked["size"] == 128
    assert asked["slices_per_batch"] is None  # of the recipe; a plan seeks it too
    assert asked["settings"]["backbone"] == "test_byobnet"


def test_auto_becomes_numbers(asked: dict[str, Any], tmp_path: Path) -> None:
    auto = ["--model.slices_per_chunk=auto", "--data.slices_per_batch=24"]
    assert train.main(["--config", "demo", "--out", str(tmp_path / "run"), *SMALL, *auto]) == 0
    assert asked["slices_per_batch"] == 24
    config = yaml.safe_load((tmp_path / "run/config.yaml").read_text())
    assert (config["model"]["slices_per_chunk"], config["data"]["slices_per_batch"]) == (5, 24)
    assert sys.argv == ["ich-train", "--model.slices_per_chunk=5"]  # for the processes that Lightning starts


def test_one_of_several_processes_is_refused(
    asked: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(fit, "_rank", lambda: 1)
    options = ["--config", "demo", "--out", str(tmp_path / "run"), "--data.slices_per_batch=auto"]
    assert train.main(options) == 2
    assert "[auto_unresolved]" in capsys.readouterr().err
    assert asked == {}
    assert not (tmp_path / "run").exists()
