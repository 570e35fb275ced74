"""ich-evaluate beside its figures: comparisons, strata, readers, from the command line to the files."""

from pathlib import Path

import pandas as pd
import pytest
from prediction_files import label_text, make_tables, write_predictions, write_run

from ich_lstm import LABELS
from ich_lstm.cli import evaluate
from ich_lstm.privacy import ProjectKey

FEW = "--replicates=100"


def run(*arguments: object) -> int:
    return evaluate.main([str(argument) for argument in (*arguments, FEW)])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"))


def test_all_comparisons(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tables = make_tables()
    tables["scans"][list(LABELS)] = 0.5
    other = write_run(tmp_path / "chance", tables)
    assert run(runs, "--out", tmp_path / "out", "--level", "scan", "--compare", other, "encoder", "position") == 0
    table = pd.read_csv(tmp_path / "out" / "comparisons.csv")
    assert {name.split(",")[0] for name in table["other"]} == {"chance", "encoder", "position alone"}
    chance = table.query("other == 'chance' and label == 'any' and metric == 'auroc'")
    assert chance["second"].unique().tolist() == [0.5]
    assert set(table.query("other == 'chance'")["level"]) == {"scan"}
    printed = capsys.readouterr().out
    assert f"{chance['difference'].iloc[0]:+.3f}" in printed
    assert f"{chance['difference'].iloc[0]:+.3f}" in (tmp_path / "out" / "comparisons.md").read_text()


def test_position_is_fitted_on_the_validation_part(tmp_path: Path) -> None:
    tables, more = make_tables(), make_tables(seed=1)
    for name, table in more.items():
        for column in {"scan_id", "patient_id"} & set(table.columns):
            table[column] = "v" + table[column]
        tables[name] = pd.concat([tables[name], table.assign(split="validation")])
    folder = write_run(tmp_path / "run", tables)
    assert run(folder, "--out", tmp_path / "out", "--level", "slice", "--compare", "position") == 0
    (name,) = pd.read_csv(tmp_path / "out" / "comparisons.csv")["other"].unique()
    assert "12 other patients (validation)" in name


def test_other_cases_stop(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    other = write_run(tmp_path / "other", make_tables(11))
    assert run(runs, "--out", tmp_path / "out", "--compare", other) == 1
    assert "different_cases" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["--compare", "--strata", "--readers"])
def test_files_that_are_missing_stop_at_once(runs: Path, tmp_path: Path, option: str, capsys: pytest.CaptureFixture) -> None:
    assert run(runs, "--out", tmp_path / "out", option, tmp_path / "nowhere") == 2
    assert "nowhere" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_encoder_is_not_calibrated(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert run(runs, "--out", tmp_path / "out", "--calibrated", "--compare", "encoder") == 2
    assert "encoder" in capsys.readouterr().err


def test_strata(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    scans = pd.read_csv(runs / "predictions" / "scans.csv", dtype={"scan_id": str})
    facts = pd.DataFrame({"scan_id": scans["scan_id"], "scanner": ["A", "B"] * (len(scans) // 2)})
    facts.to_csv(tmp_path / "facts.csv", index=False)
    assert run(runs, "--out", tmp_path / "out", "--strata", tmp_path / "facts.csv") == 0
    table = pd.read_csv(tmp_path / "out" / "strata.csv")
    assert set(table["level"]) == {"slice", "scan"}
    assert set(table.query("grouping == 'scanner'")["scans"]) == {len(scans) // 2}
    assert table["small"].all()
    assert "small" in capsys.readouterr().out


def test_readers_by_the_names_of_studies(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    tables = make_tables()
    folder = write_predictions(tmp_path / "predictions", ProjectKey.open(None), tables)
    (tmp_path / "labels.csv").write_text(label_text(tables, "series_uid"))
    marks = pd.read_csv(tmp_path / "labels.csv", dtype={"series_uid": str})
    wrong = marks.assign(any=1 - marks["any"])
    pd.concat([marks.assign(reader="Ann"), marks.assign(reader="Bob"), wrong.assign(reader="Eve")]).to_csv(
        tmp_path / "readers.csv", index=False
    )
    arguments = (folder, "--labels", tmp_path / "labels.csv", "--readers", tmp_path / "readers.csv")
    assert run(*arguments, "--out", tmp_path / "out") == 0
    table = pd.read_csv(tmp_path / "out" / "readers.csv").query("label == 'any' and metric == 'accuracy'")
    by_truth = table.set_index(["truth", "rater"])
    assert by_truth.loc[[("labels", "Ann"), ("labels", "Eve"), ("Ann and Bob agree", "Eve")], "value"].tolist() == [1, 0, 0]
    assert by_truth.loc[("Ann and Bob agree", "model"), "cases"] == len(marks)
    kappas = pd.read_csv(tmp_path / "out" / "kappas.csv").query("label == 'any'").set_index("raters")["value"]
    assert kappas["Ann, Bob"] == 1
    assert kappas["Ann, Eve"] < 0
    assert "kappa" in capsys.readouterr().out
    written = "".join(path.read_text() for path in (tmp_path / "out").rglob("*") if path.is_file())
    assert not any(patient in written for patient in tables["scans"]["patient_id"])


def test_readers_of_a_run_may_have_read_more(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    scans = pd.read_csv(runs / "predictions" / "scans.csv", dtype={"scan_id": str})
    marks = pd.DataFrame({"scan_id": [*scans["scan_id"], "elsewhere"], "reader": "Ann", "any": [*scans["label_any"], 1]})
    marks.to_csv(tmp_path / "readers.csv", index=False)
    arguments = (runs, "--level", "scan", "--readers", tmp_path / "readers.csv")
    assert run(*arguments, "--out", tmp_path / "stopped") == 1
    assert "--unmatched labels" in capsys.readouterr().err
    assert run(*arguments, "--unmatched", "labels", "--out", tmp_path / "out") == 0
    assert "1 rows of marks excluded" in (tmp_path / "out" / "readers.md").read_text()
    assert run(runs, "--unmatched", "labels", "--out", tmp_path / "alone") == 2
