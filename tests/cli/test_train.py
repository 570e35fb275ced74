"""ich-train from its command line to its run folder."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from ich_lstm.cli import train
from ich_lstm.data.prepared.folder import settle_preprocessing
from ich_lstm.labels import LABELS

SMALL = [
    "--phantom.patients=8",
    "--phantom.slices=8",
    "--phantom.size=64",
    "--phantom.prevalence=0.6",
    "--data.preprocessing.size=32",
    "--data.batches.slices=24",
    "--model.encoder.backbone=test_resnet",
    "--model.encoder.global_pool=null",
    "--model.head.hidden_size=8",
    "--trainer.max_epochs=1",
]

pytestmark = pytest.mark.usefixtures("one_core")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small demo run, with as many processes as the machine has cores."""
    out = tmp_path_factory.mktemp("canary-folder") / "run"
    assert train.main(["--config", "demo", "--out", str(out), *SMALL]) == 0
    return out


class TestTheConfigurationOfARun:
    """config.yaml is what ran: from it the same weights come again."""

    def test_a_run_s_own_configuration_gives_the_same_weights(self, run: Path, tmp_path: Path) -> None:
        again = tmp_path / "again"
        assert train.main(["--config", str(run / "private/config.yaml"), "--out", str(again)]) == 0
        hashes = [json.loads((folder / "model/model.json").read_text())["hash"] for folder in (run, again)]
        assert hashes[0] == hashes[1]

    def test_it_tells_the_size_of_a_prepared_folder(self, prepared, phantom: Path, tmp_path: Path) -> None:
        options = [
            *SMALL[6:],
            "--data.num_workers=0",
            "--model.encoder.pretrained=false",
            "--trainer.accelerator=cpu",
        ]
        root = ["--data.root", str(prepared.folder), "--data.labels", str(phantom / "stage_2_train.csv")]
        assert train.main([*root, *options, "--out", str(tmp_path / "run")]) == 0
        for config in ("config.yaml", "private/config.yaml"):
            data = yaml.safe_load((tmp_path / "run" / config).read_text())["data"]
            assert data["preprocessing"] == {"size": 32, "crop": "head", "clip": None}

    @pytest.mark.parametrize(
        "asked", ["--data.preprocessing.size=48", "--data.preprocessing.crop=none", "--data.preprocessing.clip=[-100, 200]"]
    )
    def test_another_preprocessing_than_the_prepared_folder_s_stops(
        self, asked: str, prepared, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        root = ["--data.root", str(prepared.folder), "--data.labels", str(phantom / "stage_2_train.csv")]
        assert train.main([*root, asked, "--model.encoder.pretrained=false", "--out", str(tmp_path / "run")]) == 2
        error = capsys.readouterr().err
        assert "[other_preprocessing]" in error
        assert asked.split("=")[0].removeprefix("--") in error
        assert not (tmp_path / "run").exists()


class TestRunFolder:
    def test_holds_what_the_design_says(self, run: Path) -> None:
        names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
        assert {
            "config.yaml",
            "metrics.csv",
            "history.png",
            "report.html",
            "report.json",
            "MODEL_CARD.md",
            "results.json",
            "checkpoints/best.ckpt",
            "checkpoints/last.ckpt",
            "model/model.json",
            "model/model.safetensors",
            "predictions/slices.csv",
            "predictions/scans.csv",
            "audit.html",
            "audit.json",
            "private/audit_rows.csv",
            "private/config.yaml",
            "private/split.json",
        } <= names

    def test_results_have_both_models_and_levels(self, run: Path) -> None:
        results = json.loads((run / "results.json").read_text())
        assert results["part"] == "test"
        assert set(results["slices"]) == {"sequence", "encoder"}
        for figures in (*results["slices"].values(), results["scans"]["sequence"]):
            assert figures["weighted_log_loss"] > 0
            assert list(figures["auroc"]) == list(LABELS)
        assert sum(part["patients"] for part in results["counts"].values()) == 8

    def test_results_are_those_of_the_predictions(self, run: Path) -> None:
        frame = pd.read_csv(run / "predictions/slices.csv").query("split == 'test'")
        p = frame[list(LABELS)].to_numpy()
        y = frame[[f"label_{label}" for label in LABELS]].to_numpy()
        weights = np.array([1, 1, 1, 1, 1, 2]) / 7
        losses = -(y * np.log(p) + (1 - y) * np.log(1 - p))
        results = json.loads((run / "results.json").read_text())
        assert results["slices"]["sequence"]["weighted_log_loss"] == pytest.approx((losses @ weights).mean(), abs=1e-12)

    def test_predictions_have_every_slice_of_the_two_parts_once(self, run: Path) -> None:
        frame = pd.read_csv(run / "predictions/slices.csv")
        counts = json.loads((run / "results.json").read_text())["counts"]
        assert len(frame) == counts["validation"]["slices"] + counts["test"]["slices"]
        assert not frame.duplicated(["scan_id", "slice"]).any()
        assert (frame.groupby("scan_id")["position_mm"].diff().dropna() > 0).all()

    def test_nothing_shareable_knows_the_machine(self, run: Path) -> None:
        """No path outside ``private/``; the phantom is data, made by the command itself."""
        words = [b"canary-folder", str(Path.home()).encode()]
        host = os.uname().nodename.encode()
        words += [host] if len(host) > 5 else []  # a short one stands in any compressed picture by chance
        for path in run.rglob("*"):
            if path.is_file() and not {"private", "phantom"} & set(path.relative_to(run).parts):
                assert [word for word in words if word in path.read_bytes()] == [], path

    def test_nothing_shareable_knows_a_patient(self, run: Path) -> None:
        identifiers = re.compile(rb"ID_[0-9a-f]{9}")
        for path in run.rglob("*"):
            if path.is_file() and not {"private", "phantom"} & set(path.relative_to(run).parts):
                assert not identifiers.search(path.read_bytes()), path

    def test_private_is_private(self, run: Path) -> None:
        assert (run / "private").stat().st_mode & 0o777 == 0o700

    def test_best_and_last_are_what_they_are_called_and_a_user_s_callback_brings_no_path(self, tmp_path: Path) -> None:
        callback = f"{{class_path: pytorch_lightning.callbacks.ModelCheckpoint, init_args: {{dirpath: {tmp_path}/mine}}}}"
        options = ["--stages=null", "--trainer.max_epochs=3", f"--trainer.callbacks=[{callback}]"]
        assert train.main(["--config", "demo", "--out", str(tmp_path / "run"), *SMALL, *options]) == 0
        losses = pd.read_csv(tmp_path / "run/metrics.csv").dropna(subset="val/monitor").set_index("epoch")["val/monitor"]
        best, last = (torch.load(tmp_path / f"run/checkpoints/{name}.ckpt", weights_only=True) for name in ("best", "last"))
        assert last["epoch"] == 2
        assert best["epoch"] == losses.idxmin()
        assert any((tmp_path / "mine").iterdir())
        for path in (tmp_path / "run").rglob("*"):
            if path.is_file() and not {"private", "phantom"} & set(path.relative_to(tmp_path).parts):
                assert str(tmp_path).encode() not in path.read_bytes(), path

    def test_configuration_runs_again(self, run: Path) -> None:
        config = yaml.safe_load((run / "config.yaml").read_text())
        assert config["model"]["encoder"]["backbone"] == "test_resnet"
        assert config["out"] == "run"


class TestReproducible:
    def test_two_runs_with_one_seed_are_equal(self, run: Path, tmp_path: Path) -> None:
        assert train.main(["--config", "demo", "--out", str(tmp_path / "again"), *SMALL]) == 0
        for name in ("predictions/slices.csv", "predictions/scans.csv"):
            assert (run / name).read_text() == (tmp_path / "again" / name).read_text()

    def test_another_seed_is_another_run(self, run: Path, tmp_path: Path) -> None:
        assert train.main(["--config", "demo", "--out", str(tmp_path / "other"), *SMALL, "--seed_everything=7"]) == 0
        one, other = (json.loads((folder / "results.json").read_text()) for folder in (run, tmp_path / "other"))
        assert one["slices"] != other["slices"]


PROBE = """
import torch
from pytorch_lightning import Callback

class SaveEachRank(Callback):
    def on_fit_end(self, trainer, pl_module):
        torch.save(pl_module.model.state_dict(), f"rank-{trainer.global_rank}-of-{trainer.world_size}.pt")
"""


@pytest.mark.slow  # test_recipes.py trains on two processes in every run, with stages; here are none
def test_two_processes_hold_the_same_weights(tmp_path: Path) -> None:
    (tmp_path / "probe.py").write_text(PROBE)
    arguments = [
        *("--config", "demo", *SMALL, "--stages=null", "--trainer.devices=2", "--trainer.strategy=ddp"),
        *("--trainer.callbacks=probe.SaveEachRank", "--out=run"),
    ]
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    environment |= {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": ""}
    command = [sys.executable, "-m", "ich_lstm.cli.train", *arguments]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank-{rank}-of-2.pt", weights_only=True) for rank in range(2))
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    assert (tmp_path / "run/results.json").is_file()


class TestWrongInput:
    def fails(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, str]:
        code = train.main(arguments)
        error = capsys.readouterr().err
        assert "Traceback" not in error
        assert len(error.strip().splitlines()) == 1
        return code, error

    def test_unknown_key_names_the_nearest(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        code, error = self.fails(["--model.lerning_rate=1", "--out", str(tmp_path / "run")], capsys)
        assert code == 2
        assert "Did you mean model.optimizer.lr?" in error

    def test_unknown_key_in_a_file_names_the_nearest(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "mine.yaml").write_text("data:\n  slices_per_bach: 3\n")
        code, error = self.fails(["--config", str(tmp_path / "mine.yaml"), "--out", str(tmp_path / "run")], capsys)
        assert code == 2
        assert "Did you mean data.batches.slices?" in error

    def test_abbreviated_key(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """``--data.slices`` might mean several keys, now or later."""
        code, _ = self.fails(["--config", "demo", *SMALL, "--data.slices=7", "--out", str(tmp_path / "run")], capsys)
        assert code == 2

    def test_unknown_recipe(self, capsys: pytest.CaptureFixture[str]) -> None:
        code, error = self.fails(["--config", "dmeo"], capsys)
        assert code == 2
        assert "demo" in error

    def test_unknown_backbone(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arguments = ["--config", "demo", *SMALL, "--model.encoder.backbone=resnext50_32x4", "--out", str(tmp_path / "run")]
        code, error = self.fails(arguments, capsys)
        assert code == 2
        assert "resnext50_32x4d" in error

    @pytest.mark.parametrize(
        ("make", "reason"),
        [
            (lambda folder: None, "missing_path"),
            (lambda folder: folder.mkdir(), "empty_folder"),
            (lambda folder: (folder.mkdir(), (folder / "a.txt").write_text("text")), "no_ct"),
        ],
        ids=["missing", "empty", "no CT"],
    )
    def test_data(self, make, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        make(tmp_path / "data")
        (tmp_path / "labels.csv").write_text("series_uid,any,patient_id\n1,1,a\n")
        options = [
            "--data.root",
            str(tmp_path / "data"),
            "--data.labels",
            str(tmp_path / "labels.csv"),
            "--model.encoder.pretrained=false",
        ]
        code, error = self.fails([*options, "--out", str(tmp_path / "run")], capsys)
        assert code == 1
        assert f"[{reason}]" in error
        assert not (tmp_path / "run").exists()

    def test_labels_that_name_no_image(self, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "labels.csv").write_text("series_uid,any,patient_id\n1.2.3,1,a\n")
        options = ["--data.root", str(phantom), "--data.labels", str(tmp_path / "labels.csv"), "--model.encoder.pretrained=false"]
        code, error = self.fails([*options, "--out", str(tmp_path / "run")], capsys)
        assert code == 1
        assert "[labels_without_image]" in error
        assert "line 2" in error

    def test_a_full_folder_is_not_written_into(self, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
        code, error = self.fails(["--config", "demo", "--out", str(run)], capsys)
        assert code == 2
        assert "[out_not_empty]" in error


MISSING = object()


def value_of(config: dict[str, Any], key: str) -> Any:
    """The value of a key with dots in a printed configuration; of a head's settings, that of the chosen head."""
    value: Any = config
    for name in key.split("."):
        value = value.get(name, value.get("init_args", {}).get(name, MISSING)) if isinstance(value, dict) else MISSING
    return value


class TestHelp:
    def test_keys_exist(self, capsys: pytest.CaptureFixture[str]) -> None:
        """Every key in the short help is one of the real parser, with the default that it states."""
        with pytest.raises(SystemExit):
            train.main(["--data.preprocessing.crop=head", "--print_config"])
        config = yaml.safe_load(capsys.readouterr().out)
        named = set(re.findall(r"--((?:data|model|trainer)\.[\w.]*\w)", train.HELP))
        assert len(named) >= 10
        for key in named:
            assert value_of(config, key) is not MISSING, key
        # The size is settled when the data are known: a prepared folder's, otherwise 256.
        assert settle_preprocessing(None).size == 256
        stated = {"data.batches.slices": 256, "data.split.fractions": [0.7, 0.15, 0.15], "model.encoder.pretrained": True}
        stated |= {"model.head.hidden_size": 512, "model.optimizer.lr": 0.001, "model.optimizer.encoder_lr": 0.0001}
        for key, value in stated.items():
            assert value_of(config, key) == value
        assert config["model"]["head"]["class_path"].endswith(".LSTM")

    def test_recipes_that_it_names_exist(self) -> None:
        for name in re.findall(r"--config ([a-z]\w+) ", train.HELP):
            assert train.resolve_recipes(["--config", name])[0] == name


class TestRealScans:
    def test_one_epoch_on_a_private_table(self, real_data: Path, tmp_path: Path) -> None:
        """Scan-level labels for two real scans, one of them in a zip; the values are for plumbing only."""
        (tmp_path / "labels.csv").write_text("folder,any,epidural\nge_head_tilt,1,\nphilips_exam.zip,0,\n")
        options = ["--data.root", str(real_data), "--data.labels", str(tmp_path / "labels.csv")]
        small = ["--data.preprocessing.size=32", "--data.num_workers=0", "--trainer.max_epochs=1", "--trainer.accelerator=cpu"]
        model = ["--model.encoder.backbone=test_resnet", "--model.encoder.pretrained=false", "--model.head.hidden_size=8"]
        assert train.main([*options, *small, *model, "--out", str(tmp_path / "run")]) == 0
        results = json.loads((tmp_path / "run/results.json").read_text())
        assert results["part"] == "validation"
        assert results["counts"]["train"] == {"patients": 1, "scans": 1, "slices": 28}
