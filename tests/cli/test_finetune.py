"""ich-train --config finetune: going on with a model that is there."""

import itertools
import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from fabricated import make_classifier

from ich_lstm import ScanClassifier
from ich_lstm.cli import phantom as phantom_command
from ich_lstm.cli import train
from ich_lstm.settings import differences

SMALL = ["--data.num_workers=0", "--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--trainer.precision=32-true"]
SMALL += ["--data.split.fractions=[0.5,0.25,0.25]"]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model that knows how scans are prepared for it."""
    folder = tmp_path_factory.mktemp("start") / "model"
    make_classifier(pooling={"kind": "noisy-or"}).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def scan_table(phantom: Path, heads, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A private table: slice labels for the first half of the scans, scan labels for the others."""
    table = pd.read_csv(phantom / "stage_2_train.csv")
    table["sop_uid"], table["label"] = table["ID"].str.rsplit("_", n=1).str[0], table["ID"].str.rsplit("_", n=1).str[1]
    wide = table.pivot(index="sop_uid", columns="label", values="Label").reset_index()
    rows = []
    for number, head in enumerate(heads):
        mine = wide[wide["sop_uid"].isin(head.sop_uids)]
        if number < len(heads) // 2:
            rows.append(mine)
        else:
            rows.append(mine.drop(columns="sop_uid").max().to_frame().T.assign(series_uid=head.series_uid))
    path = tmp_path_factory.mktemp("table") / "labels.csv"
    pd.concat(rows).to_csv(path, index=False)
    return path


def finetune(start: Path, root: Path, labels: Path, out: Path, *further: str) -> int:
    options = ["--checkpoint", str(start), "--data.root", str(root), "--data.labels", str(labels), "--out", str(out)]
    return train.main(["--config", "finetune", *options, *SMALL, *further])


class TestFinetune:
    @pytest.fixture(scope="class")
    @classmethod
    def run(cls, start: Path, phantom: Path, scan_table: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
        out = tmp_path_factory.mktemp("finetuned") / "run"
        assert finetune(start, phantom, scan_table, out) == 0
        return out

    def test_network_and_preprocessing_are_the_checkpoint_s(self, run: Path, start: Path) -> None:
        before, after = ScanClassifier.load(start), ScanClassifier.load(run)
        changed = {each.name.partition(".")[0] for each in differences(before.settings, after.settings)}
        assert changed <= {"loss", "optimizer"}
        assert after.preprocessing == before.preprocessing
        assert after.weights_hash() != before.weights_hash()

    def test_layers_are_unfrozen_stage_by_stage(self, run: Path, start: Path) -> None:
        states = [ScanClassifier.load(start).model.state_dict()]
        for folder in (run / "stages/1-head", run / "stages/2-last-layers", run):
            states.append(ScanClassifier.load(folder / "checkpoints/best.ckpt").model.state_dict())
        moved = [
            {name.split(".")[2] for name in new if name.startswith("encoder.network") and not torch.equal(new[name], old[name])}
            for old, new in itertools.pairwise(states)
        ]
        assert moved[0] == set()
        assert moved[1] == {"layer3", "layer4"}
        assert moved[2] >= {"conv1", "layer1", "layer4"}
        assert not any("running" in name and not torch.equal(states[0][name], states[-1][name]) for name in states[0])

    def test_knows_what_it_was_trained_on(self, run: Path) -> None:
        described = json.loads((run / "model/model.json").read_text())["training_data"]
        assert described["scans"] == 3
        assert 0 < described["known_slice_labels"] < 1

    def test_another_network_is_refused(
        self, start: Path, phantom: Path, scan_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        for key in ("--model.head.hidden_size=16", "--model.encoder.backbone=resnet18", "--data.preprocessing.size=64"):
            assert finetune(start, phantom, scan_table, tmp_path / "run", key) == 2
            error = capsys.readouterr().err
            assert "[other_network]" in error
            assert key.split("=")[0].removeprefix("--") in error
        assert not (tmp_path / "run").exists()

    def test_no_such_checkpoint(
        self, phantom: Path, scan_table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert finetune(tmp_path / "none", phantom, scan_table, tmp_path / "run") == 1
        assert "[missing_checkpoint]" in capsys.readouterr().err


@pytest.mark.usefixtures("one_core")
def test_cq500_by_three_readers(start: Path, tmp_path: Path) -> None:
    """Scan labels alone, by majority, of a phantom in CQ500's layout."""
    root = tmp_path / "cq500"
    assert (
        phantom_command.main(["--layout", "cq500", "--patients", "6", "--slices", "8", "--size", "64", "--out", str(root)]) == 0
    )
    assert finetune(start, root, root / "reads.csv", tmp_path / "run") == 0
    results = json.loads((tmp_path / "run/results.json").read_text())
    assert sum(part["scans"] for part in results["counts"].values()) == 6
    assert results["scans"]["sequence"]["weighted_log_loss"] > 0
