"""The comparison on real bleeding, with synthetic heads and tiny trainings: every arm runs, nothing is done twice."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import real_bleeding as script

from ich_lstm import LSTM, Encoder, Preprocessing, ScanClassifier
from ich_lstm.evaluation.evidence import read_run

TINY = ["--weights", "random", "--backbone", "test_byobnet", "--size", "32", "--threads", "1", "--quick"]


def run(data: Path, out: Path, *further: str) -> None:
    """The command, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(script, "REPLICATES", 100)
        patch.setattr(sys, "argv", ["real_bleeding.py", "--data", str(data), "--out", str(out), *TINY, *further])
        script.main()


@pytest.fixture(scope="module")
def phantom_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with a network and a preprocessing of its own."""
    folder = tmp_path_factory.mktemp("phantom_model") / "model"
    model = ScanClassifier(Encoder(backbone="test_resnet", pretrained=False), head=LSTM(hidden_size=8, num_layers=1))
    model.preprocessing = Preprocessing(size=40, crop="none")
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def out(bleeding_set: Path, phantom_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All arms on one fold, and the null models on all."""
    folder = tmp_path_factory.mktemp("bleeding")
    run(bleeding_set, folder, "--phantom-model", str(phantom_model))
    return folder


@pytest.fixture(scope="module")
def rows(out: Path) -> dict[str, dict[str, Any]]:
    return {row["arm"]: row for row in json.loads((out / script.RESULTS).read_text())["arms"]}


def test_every_arm_has_its_row(rows: dict[str, dict[str, Any]], out: Path) -> None:
    networks = {"2d", "ten-slices", "frozen", "staged-pca", "whole-scan", "no-joint", "residual", "from-scratch", "from-phantom"}
    assert set(rows) == {"position", "position-in-bins", "logistic"} | networks
    for name, row in rows.items():
        assert row["folds"] == [0]
        assert 0 < row["log_loss"][0] < np.inf
        assert (row["differences"] is None) == (name == script.REFERENCE)
    table = (out / script.TABLE).read_text()
    assert all(f"| {name} " in table for name in rows)


def test_arms_are_judged_on_the_same_slices_of_held_out_patients(rows: dict[str, dict[str, Any]], out: Path) -> None:
    assert len({(row["patients"], row["slices"]) for row in rows.values()}) == 1
    patients = {name: set(read_run(out / "runs" / name / "fold-0").scans["patient_id"]) for name in rows}
    assert len({frozenset(each) for each in patients.values()}) == 1
    about = json.loads((out / "runs" / "2d" / "fold-0" / script.RUN).read_text())
    assert about["patients"]["test"] == len(patients["2d"])
    assert sum(about["patients"].values()) == 9
    assert about["patients"]["validation"] >= 1


def test_a_share_for_each_bin_knows_nothing_within_bins(rows: dict[str, dict[str, Any]]) -> None:
    assert rows["position-in-bins"]["auroc_within_bins_and_folds"] == 0.5
    assert rows["position-in-bins"]["auroc"][0] > 0.5


def test_the_encoder_of_frozen_is_that_of_2d(out: Path) -> None:
    models = [ScanClassifier.load(out / "runs" / name / "fold-0" / "model").model for name in ("2d", "frozen", "whole-scan")]
    of_2d, of_frozen, of_ours = (model.encoder.state_dict() for model in models)
    assert all(of_2d[name].equal(of_frozen[name]) for name in of_2d)
    assert not all(of_2d[name].equal(of_ours[name]) for name in of_2d)


def test_only_one_label_is_trained(out: Path) -> None:
    slices = pd.read_csv(out / "runs" / "whole-scan" / "fold-0" / "predictions" / "slices.csv")
    known = slices[[column for column in slices if column.startswith("label_")]].notna().any()
    assert set(known.index[known]) == {"label_intraparenchymal", "label_any"}
    assert set(slices["label_any"].dropna()) == {1.0}


def test_nothing_is_done_twice_and_other_settings_are_refused(bleeding_set: Path, out: Path, capsys) -> None:
    def written() -> dict[Path, int]:
        return {path: path.stat().st_mtime_ns for path in sorted((out / "runs").rglob("*")) if path.is_file()}

    before = written()
    run(bleeding_set, out, "--arms", "2d", "frozen")
    assert written() == before
    run(bleeding_set, out, "--only-table")
    assert "whole-scan" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="was made with"):
        run(bleeding_set, out, "--arms", "2d", "--head-rate", "0.5")


def test_what_identifies_patients_is_private(out: Path) -> None:
    readable = [path for path in out.rglob("*") if path.is_file() and "private" not in path.relative_to(out).parts]
    assert readable
    for path in readable:
        assert path.suffix != ".dcm"
        if path.suffix in (".csv", ".json", ".md"):
            assert "2.25." not in path.read_text(), path


def test_other_slices_are_not_compared(out: Path, bleeding_set: Path) -> None:
    mine = script.Judged(np.array([0.0, 1]), np.array([0.1, 0.9]), np.array(["a", "b"]), np.array([1, 2]), np.array([0, 0]))
    with pytest.raises(ValueError, match="differ in their bins"):
        script._differences(mine, mine._replace(bins=np.array([1, 3])))


def test_unknown_arms_and_folds(bleeding_set: Path, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit):
        run(bleeding_set, tmp_path, "--arms", "3d")
    assert "3d; there are position" in capsys.readouterr().err
