"""An archive of many studies, some of them broken in different ways, and a command that is killed on the way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dicom_files import make_series

from ich_lstm.cli import predict
from ich_lstm.labels import LABELS

STUDIES = int(os.environ.get("ICH_LSTM_STUDIES", "24"))
"""`.ci/run full` takes 200."""

BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "no rescale": ({"change": lambda i: {"RescaleSlope": None} if i == 3 else {}}, "rescale_missing"),
    "slope of 0": ({"change": lambda i: {"RescaleSlope": "0"} if i == 3 else {}}, "bad_rescale"),
    "unknown syntax": ({"change": lambda i: {"syntax": "1.2.3.4.5.6"} if i == 3 else {}}, "unknown_transfer_syntax"),
    "truncated pixels": ({"change": lambda i: {"stored": b"\0" * 900} if i == 3 else {}}, "truncated_pixels"),
    "no position": ({"change": lambda i: {"ImagePositionPatient": ["nan", "0", "0"]} if i == 3 else {}}, "bad_position"),
    "one position": ({"places": [0.0] * 8}, "equal_positions"),
    "mixed matrix": ({"change": lambda i: {"hu": np.zeros((16, 16))} if i == 3 else {}}, "mixed_matrix"),
    "mixed spacing": ({"change": lambda i: {"PixelSpacing": [1.0, 1.0]} if i == 3 else {}}, "mixed_spacing"),
    "no spacing": ({"PixelSpacing": None}, "no_spacing"),
    "three slices": ({"count": 3}, "few_slices"),
    "localizer": ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
    "contrast": ({"ContrastBolusAgent": "OMNIPAQUE 350"}, "contrast"),
    "chest": ({"SeriesDescription": "CHEST 5MM", "BodyPartExamined": "CHEST"}, "not_head"),
    "coronal": ({"orientation": (1, 0, 0, 0, 0, -1)}, "not_axial"),
    "no matrix": ({"Rows": 0}, "bad_matrix"),
}


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Studies, every one of another patient; the broken ones among the sound ones."""
    folder = tmp_path_factory.mktemp("archive")
    random = np.random.default_rng(0)
    broken = dict(zip(random.permutation(STUDIES)[: len(BROKEN)].tolist(), BROKEN.values(), strict=True))
    for number in range(STUDIES):
        uid = f"1.2.3.{number}"
        own: dict[str, Any] = {"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1", "PatientID": f"PAT{number}"}
        own |= {"AccessionNumber": f"ACC{number}", "start": (-96, -96, number - 20)} | broken.get(number, ({}, ""))[0]
        make_series(folder / f"{number:03d}", **own)
    return folder


def arguments(archive: Path, model: Path, out: Path, *options: str) -> list[str]:
    # A process of its own would take the fastest engine of the machine, and these results are compared to the last bit.
    exact = ["--engine", "torch", "--precision", "float32"]
    return [str(archive), "--checkpoint", str(model), "--out", str(out), *exact, *options]


@pytest.fixture(scope="module")
def predicted(archive: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("predicted") / "out"
    assert predict.main(arguments(archive, model_folder, out)) == 3
    return out


def tables(out: Path) -> dict[str, str]:
    """All tables; of the worklist all but the seconds."""
    found = {name: (out / name).read_text() for name in ("scans.csv", "slices.csv", "private/key.csv", "private/series.csv")}
    found["private/ledger.csv"] = (out / "private/ledger.csv").read_text()
    found["worklist.csv"] = pd.read_csv(out / "worklist.csv", dtype=str).drop(columns="seconds").to_csv()
    return found


class TestWorklist:
    def test_has_a_row_for_every_study(self, predicted: Path):
        worklist = pd.read_csv(predicted / "worklist.csv", dtype={"study_id": str})
        assert len(worklist) == STUDIES
        assert worklist["study_id"].is_unique
        assert worklist["rank"].tolist() == list(range(1, STUDIES + 1))

    def test_each_broken_study_says_why(self, predicted: Path):
        found = pd.read_csv(predicted / "worklist.csv")["status"].value_counts().to_dict()
        assert found.pop("ok") == STUDIES - len(BROKEN)
        assert sum(found.values()) == len(BROKEN)
        assert {code for _, code in BROKEN.values() if code} <= set(found)

    def test_is_sorted_by_urgency(self, predicted: Path):
        worklist = pd.read_csv(predicted / "worklist.csv")
        group = np.where(worklist["status"] != "ok", 1, np.where(worklist["any"] >= 0.5, 0, 2))
        assert (np.diff(group) >= 0).all()
        for _, rows in worklist[worklist["status"] == "ok"].groupby(group[worklist["status"] == "ok"]):
            assert (np.diff(rows["any"]) <= 0).all()

    def test_what_was_refused_has_no_probability(self, predicted: Path):
        worklist = pd.read_csv(predicted / "worklist.csv")
        refused = worklist[worklist["status"] != "ok"]
        assert refused[[*LABELS, "flag", "key_slices"]].isna().all(axis=None)

    def test_names_no_study(self, predicted: Path):
        assert "ACC" not in (predicted / "worklist.csv").read_text()
        assert not (predicted / "private/worklist.csv").exists()

    def test_names_them_where_it_is_asked_to(self, archive: Path, model_folder: Path, tmp_path: Path):
        out = tmp_path / "out"
        assert predict.main(arguments(archive / "000", model_folder, out, "--identify")) in (0, 1)
        assert not (out / "worklist.csv").exists()
        row = pd.read_csv(out / "private/worklist.csv", dtype=str).iloc[0]
        assert (row["accession_number"], row["study_uid"], row["patient_id"]) == ("ACC0", "1.2.3.0", "PAT0")


class TestStopped:
    def test_killed_and_started_again_it_ends_the_same(self, archive: Path, model_folder: Path, predicted: Path, tmp_path: Path):
        out = tmp_path / "out"
        command = [sys.executable, "-m", "ich_lstm.cli.predict", *arguments(archive, model_folder, out)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while len(list((out / "private/studies").glob("*.json"))) < STUDIES // 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = {path: path.stat().st_mtime_ns for path in (out / "private/pages").iterdir()}
        assert not (out / "manifest.json").exists()
        assert predict.main(arguments(archive, model_folder, out)) == 3
        assert tables(out) == tables(predicted)
        done = {row["scan_id"] for row in pd.read_csv(out / "scans.csv").query("status == 'ok'").to_dict("records")}
        assert {path.stem for path in (out / "private/pages").iterdir()} == done
        again = [path for path, changed in before.items() if path.stat().st_mtime_ns != changed]
        assert len(again) <= 1  # of the study in which it was killed
        assert not list(out.rglob("*.unfinished"))

    def test_what_is_done_is_not_done_again(
        self, archive: Path, model_folder: Path, predicted: Path, monkeypatch: pytest.MonkeyPatch
    ):
        from ich_lstm.inference.predictor import Predictor

        def refuse(*_: object) -> None:
            raise AssertionError("predicted again")

        before = tables(predicted)
        monkeypatch.setattr(Predictor, "encode", refuse)
        assert predict.main(arguments(archive, model_folder, predicted)) == 3
        assert tables(predicted) == before

    def test_another_model_or_option_is_refused(
        self, archive: Path, model_folder: Path, predicted: Path, capsys: pytest.CaptureFixture[str]
    ):
        assert predict.main(arguments(archive, model_folder, predicted, "--heat-maps", "none")) == 2
        assert "other_predictions" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_give_what_one_gives(archive: Path, model_folder: Path, predicted: Path, tmp_path: Path):
    out = tmp_path / "out"
    options = arguments(archive, model_folder, out, "--devices", "2", "--device", "cpu")
    command = [sys.executable, "-m", "ich_lstm.cli.predict", *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 3, done.stderr
    for name in ("private/key.csv", "private/series.csv", "private/ledger.csv"):
        assert (predicted / name).read_text() == (out / name).read_text(), name
    for name in ("scans.csv", "slices.csv"):  # Lightning's processes have one thread each, and sum up in another order
        pd.testing.assert_frame_equal(pd.read_csv(predicted / name), pd.read_csv(out / name), rtol=1e-4)
    assert len(pd.read_csv(out / "worklist.csv")) == STUDIES
