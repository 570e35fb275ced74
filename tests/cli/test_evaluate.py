"""ich-evaluate from its command line to its folder."""

import json
from pathlib import Path

import pandas as pd
import pytest
from prediction_files import label_text, make_tables, write_predictions, write_run
from sklearn.metrics import roc_auc_score

from ich_lstm.cli import evaluate, predict
from ich_lstm.privacy import ProjectKey

FEW = "--replicates=100"


def run(*arguments: object) -> int:
    return evaluate.main([str(argument) for argument in (*arguments, FEW)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run with predictions of its held-out patients."""
    return write_run(tmp_path_factory.mktemp("run"))


def test_a_run_becomes_figures(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(runs, "--out", tmp_path / "out", "--at-prevalence", 0.05) == 0
    figures = {"figures.csv", "figures.md", "figures.json"}
    report = {"report.html", "report.json", "MODEL_CARD.md", "claim.csv", "claim.md", "tables"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == figures | report
    table = pd.read_csv(tmp_path / "out" / "figures.csv")
    slices = pd.read_csv(runs / "predictions" / "slices.csv")
    row = table.query("level == 'slice' and label == 'any' and metric == 'auroc'").iloc[0]
    assert row["value"] == pytest.approx(roc_auc_score(slices["label_any"], slices["any"]), abs=1e-12)
    assert row["low"] < row["value"] < row["high"]
    printed = capsys.readouterr().out
    assert f"{row['value']:.3f} ({row['low']:.3f} to {row['high']:.3f})" in printed
    assert "own scan output" in printed
    assert table["prevalence"].dropna().unique().tolist() == [0.05]


def test_the_aggregation_is_always_named(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(runs, "--out", tmp_path / "out", "--level", "patient", "scan", "--aggregation", "top-3") == 0
    for text in (capsys.readouterr().out, *((tmp_path / "out" / name).read_text() for name in ("figures.csv", "figures.md"))):
        assert "mean of the 3 highest slices" in text
    assert set(pd.read_csv(tmp_path / "out" / "figures.csv")["level"]) == {"patient", "scan"}


@pytest.mark.parametrize(
    "protocol", ["rsna", "burduja-table3", *(pytest.param(p, marks=pytest.mark.slow) for p in ("cq500-nguyen", "burduja-table5"))]
)
def test_protocols_by_name(runs: Path, tmp_path: Path, protocol: str, capsys: pytest.CaptureFixture) -> None:
    assert run(runs, "--out", tmp_path / "out", "--protocol", protocol) == 0
    about = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert about["protocol"]["name"] == protocol
    assert about["protocol"]["source"] in capsys.readouterr().out


def test_the_same_seed_gives_the_same_bytes(runs: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert run(runs, "--out", tmp_path / name, "--level", "scan") == 0
    assert (tmp_path / "a" / "figures.json").read_bytes() == (tmp_path / "b" / "figures.json").read_bytes()


class TestPredictionsBesideLabels:
    @pytest.fixture
    def predictions(self, tmp_path: Path) -> Path:
        key = ProjectKey.open(tmp_path / "project.key")
        (tmp_path / "labels.csv").write_text(label_text(make_tables()))
        return write_predictions(tmp_path / "predictions", key)

    def test_give_the_figures_of_a_run_with_the_same_numbers(self, predictions: Path, runs: Path, tmp_path: Path) -> None:
        options = ("--level", "slice", "scan")
        labels = ("--labels", tmp_path / "labels.csv", "--project-key", tmp_path / "project.key")
        assert run(predictions, "--out", tmp_path / "joined", *labels, *options) == 0
        assert run(runs, "--out", tmp_path / "run", *options) == 0
        joined, own = (pd.read_csv(tmp_path / name / "figures.csv") for name in ("joined", "run"))
        pd.testing.assert_series_equal(joined["value"], own["value"], rtol=1e-12)

    def test_say_what_was_not_judged(self, predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        labels = ("--labels", tmp_path / "labels.csv", "--project-key", tmp_path / "project.key")
        assert run(predictions, "--out", tmp_path / "out", *labels, "--level", "scan") == 0
        assert "scans refused, truncated pixels 1" in capsys.readouterr().out

    def test_need_their_labels(self, predictions: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
        assert run(predictions, "--out", tmp_path / "out") == 1
        assert "--labels" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()


def test_a_model_on_a_data_set(prepared, phantom: Path, model_folder: Path, tmp_path: Path) -> None:
    data = ("--data.root", prepared.folder, "--labels", phantom / "stage_2_train.csv", "--device", "cpu", "--data.num_workers", 0)
    assert run("--checkpoint", model_folder, *data, "--out", tmp_path / "out", "--protocol", "burduja-table3") == 0
    about = json.loads((tmp_path / "out" / "figures.json").read_text())
    assert about["source"]["kind"] == "checkpoint"
    assert about["source"]["counts"]["patients"] == 6
    assert {record["output"] for record in about["figures"]} == {"encoder", "sequence"}


def test_what_ich_predict_makes_is_joined_to_the_table_that_trains(phantom: Path, model_folder: Path, tmp_path: Path) -> None:
    key = ("--project-key", tmp_path / "project.key")
    paths = [phantom / "stage_2_train", "--checkpoint", model_folder, "--out", tmp_path / "predictions", "--device", "cpu", *key]
    assert predict.main([str(part) for part in paths]) == 0
    labels = phantom / "stage_2_train.csv"
    assert run(tmp_path / "predictions", "--labels", labels, *key, "--out", tmp_path / "out", "--level", "slice") == 0
    counts = json.loads((tmp_path / "out" / "figures.json").read_text())["source"]["counts"]
    table = pd.read_csv(labels)
    assert counts["slices"] == len(table) / 6
    assert counts["patients"] == 6
    figures = pd.read_csv(tmp_path / "out" / "figures.csv").query("metric == 'auroc' and label == 'any'")
    assert figures["positives"].item() == table[table["ID"].str.endswith("_any")]["Label"].sum()


class TestWrongUsage:
    @pytest.mark.parametrize(
        "arguments",
        [
            ["RUN"],
            ["--out", "OUT"],
            ["RUN", "--out", "OUT", "--checkpoint", "model"],
            ["--checkpoint", "model", "--out", "OUT"],
            ["RUN", "--out", "OUT", "--protocol", "rsnaa"],
            ["RUN", "--out", "OUT", "--protocol", "rsna", "--level", "scan"],
            ["RUN", "--out", "OUT", "--aggregation", "median"],
            ["RUN", "--out", "OUT", "--threshold", "1.5"],
            ["RUN", "--out", "OUT", "--at-prevalence", "5"],
            ["RUN", "--out", "OUT", "--replicates", "many"],
            ["RUN", "--out", "OUT", "--levels", "scan"],
            ["RUN", "--out", "RUN"],
            ["RUN", "--out", "OUT", "--data.root", "dicom"],
            ["RUN", "--out", "OUT", "--labels", "labels.csv", "--part", "test"],
            ["RUN", "--out", "OUT", "--key", "key.csv"],
            ["RUN", "--out", "OUT", "--truth", "R1"],
        ],
    )
    def test_is_told_apart_from_failure(self, runs: Path, tmp_path: Path, arguments: list[str]) -> None:
        places = {"RUN": str(runs), "OUT": str(tmp_path / "out")}
        assert evaluate.main([places.get(argument, argument) for argument in arguments]) == 2
        assert not (tmp_path / "out").exists()

    def test_a_threshold_is_not_chosen_on_the_cases_that_are_judged(
        self, runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture
    ) -> None:
        assert run(runs, "--out", tmp_path / "out", "--threshold", "youden") == 2
        assert "threshold_from_test" in capsys.readouterr().err


def test_a_missing_run_fails_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(tmp_path / "nothing", "--out", tmp_path / "out") == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_bad_probabilities_fail_and_leave_nothing(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tables = make_tables()
    tables["scans"].loc[4, "any"] = 3.5
    assert run(write_run(tmp_path / "run", tables), "--out", tmp_path / "out") == 1
    assert "scans.csv, line 6" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
