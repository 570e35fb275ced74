"""ich-prepare from its command line to its folder."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from ich_lstm.cli import prepare, train
from ich_lstm.data.cache import read_cached
from ich_lstm.data.prepare import PreparedFolder


def test_prepares_and_accounts(phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main([str(phantom), "--out", str(tmp_path / "out"), "--size", "48"]) == 0
    folder = PreparedFolder.open(tmp_path / "out")
    assert len(folder.scans) == 6
    assert read_cached(folder.scans[0].cache_path).hu.shape == (12, 48, 48)
    assert "6 scans" in capsys.readouterr().out
    ledger = pd.read_csv(tmp_path / "out/private/ledger.csv")
    assert len(ledger) == sum(1 for path in phantom.rglob("*") if path.is_file())


def test_something_refused_is_exit_code_3(phantom: Path, tmp_path: Path) -> None:
    shutil.copytree(phantom, tmp_path / "in")
    bad = sorted((tmp_path / "in/stage_2_train").iterdir())[0]
    bad.write_bytes(bad.read_bytes()[:-100])
    assert prepare.main([str(tmp_path / "in"), "--out", str(tmp_path / "out")]) == 3


def test_a_prepared_folder_can_be_trained_on(phantom: Path, tmp_path: Path) -> None:
    labels = ["--labels", str(phantom / "stage_2_train.csv")]
    assert prepare.main([str(phantom), "--out", str(tmp_path / "prepared"), "--size", "32", *labels]) == 0
    data = [
        "--data.root",
        str(tmp_path / "prepared"),
        "--data.labels",
        str(phantom / "stage_2_train.csv"),
        "--data.num_workers=0",
    ]
    model = ["--model.backbone=resnet10t", "--model.pretrained=false", "--model.hidden_size=8", "--model.sequence=gru"]
    trainer = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
    assert train.main([*data, *model, *trainer, "--out", str(tmp_path / "run")]) == 0
    about = json.loads((tmp_path / "run/model/model.json").read_text())
    assert about["preprocessing"]["size"] == 32


@pytest.mark.parametrize("arguments", [[], ["somewhere"], ["somewhere", "--out", "there", "--size", "large"]])
def test_wrong_usage(arguments: list[str]) -> None:
    assert prepare.main(arguments) == 2


def test_missing_path(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare.main([str(tmp_path / "nothing"), "--out", str(tmp_path / "out")]) == 1
    assert "SourceError[missing_path]" in capsys.readouterr().err
