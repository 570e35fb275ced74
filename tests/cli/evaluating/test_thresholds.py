"""Operating points through ich-evaluate and ich-predict."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from chosen import make_cases

from ich_lstm.cli import evaluate, predict
from ich_lstm.labels import LABELS


@pytest.fixture(scope="module")
def run(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder: an untrained model, with predictions of validation and held-out patients that are no worse for it."""
    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(model_folder, folder / "model")
    parts = {"validation": make_cases(200, coherent=True), "test": make_cases(100, 1, name="t", coherent=True)}
    (folder / "predictions").mkdir()
    for name in ("slices", "scans"):
        rows = pd.concat([getattr(cases, name).assign(split=part) for part, cases in parts.items()])
        rows.assign(slice_id="0", position_mm=0.0).to_csv(folder / "predictions" / f"{name}.csv", index=False)
    return folder


def judge(run: Path, out: Path, *options: str) -> int:
    return evaluate.main([str(run), "--out", str(out), "--replicates", "100", *options])


@pytest.fixture(scope="module")
def calibrated(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run, after ich-evaluate has chosen on its validation patients and judged the held-out ones."""
    out = tmp_path_factory.mktemp("out")
    assert judge(run, out / "figures", "--level", "scan", "--calibrate", "sensitivity=0.9", "youden") == 0
    assert "operating point sensitivity=0.9" in (out / "figures" / "figures.md").read_text()
    return run


class TestEvaluate:
    def test_writes_what_was_chosen_beside_the_model(self, calibrated: Path) -> None:
        about = json.loads((calibrated / "model" / "calibration.json").read_text())
        assert [point["rule"] for point in about["operating_points"]] == ["sensitivity=0.9", "youden"]
        assert about["weights"] == json.loads((calibrated / "model" / "model.json").read_text())["hash"]
        scans = make_cases(200, coherent=True).scans
        found = about["operating_points"][0]["scan"]["any"]
        assert (scans["any"] >= found["value"])[scans["label_any"] == 1].mean() == found["sensitivity"]["value"] >= 0.9

    def test_judges_held_out_patients_at_it(self, calibrated: Path, tmp_path: Path) -> None:
        assert judge(calibrated, tmp_path, "--level", "scan", "--operating-point", "youden") == 0
        about = json.loads((calibrated / "model" / "calibration.json").read_text())
        expected = [about["operating_points"][1]["scan"][label]["value"] for label in LABELS]
        assert pd.read_csv(tmp_path / "figures.csv").query("metric == 'sensitivity'").drop_duplicates("label")[
            "threshold"
        ].tolist() == pytest.approx(expected)

    def test_judges_calibrated_probabilities(self, calibrated: Path, tmp_path: Path) -> None:
        values = {}
        for name, options in (("raw", []), ("calibrated", ["--calibrated"]), ("moved", ["--calibrated", "--prevalence", "0.08"])):
            assert judge(calibrated, tmp_path / name, "--level", "scan", *options) == 0
            table = pd.read_csv(tmp_path / name / "figures.csv").query("label == 'any'").set_index("metric")["value"]
            values[name] = table[~table.index.duplicated()]
        assert values["raw"]["auroc"] == pytest.approx(values["calibrated"]["auroc"])
        assert values["raw"]["brier"] != values["calibrated"]["brier"]
        assert values["moved"]["calibration_in_the_large"] > values["calibrated"]["calibration_in_the_large"] + 1
        assert "probabilities are calibrated" in (tmp_path / "calibrated" / "figures.md").read_text()

    @pytest.mark.parametrize(
        ("options", "code"),
        [
            (["--part", "validation", "--operating-point"], "chosen_on_these_cases"),
            (["--part", "validation", "--calibrated"], "chosen_on_these_cases"),
            (["--operating-point", "alarms=3"], "unknown_operating_point"),
            (["--operating-point", "--calibrated"], "wrong_usage"),
            (["--prevalence", "0.1"], "wrong_usage"),
            (["--operating-point", "--threshold", "0.3"], "wrong_usage"),
            (["--operating-point", "--aggregation", "max"], "other_output"),
            (["--calibrated", "--protocol", "cq500-nguyen"], "other_output"),
            (["--calibrated", "--prevalence", "estimate"], "wrong_usage"),
            (["--calibrate", "youden", "--part", "validation"], "wrong_usage"),
            (["--calibrate", "sensitivity=95"], "unknown_rule"),
            (["--calibrate"], "wrong_usage"),
        ],
    )
    def test_refuses(
        self, calibrated: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: str
    ) -> None:
        assert judge(calibrated, tmp_path, *options) == 2
        assert f"[{code}]" in capsys.readouterr().err
        assert not list(tmp_path.iterdir())

    def test_a_model_without_one(self, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("calibration.json"))
        assert judge(tmp_path / "run", tmp_path / "out", "--operating-point") == 2
        assert "[not_calibrated]" in capsys.readouterr().err


class TestPredict:
    def run(self, phantom: Path, model: Path, out: Path, *options: str) -> int:
        return predict.main([str(phantom), "--checkpoint", str(model), "--out", str(out), *options])

    def test_applies_it(self, calibrated: Path, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert self.run(phantom, calibrated, tmp_path / "out", "--operating-point", "youden", "--prevalence", "0.08") == 0
        about = json.loads((tmp_path / "out" / "manifest.json").read_text())["calibration"]
        assert (about["operating_point"]["rule"], about["prevalence"]) == ("youden", 0.08)
        for level in ("slice", "scan"):
            table = pd.read_csv(tmp_path / "out" / f"{level}s.csv")
            thresholds = about["operating_point"]["thresholds"][level]
            for label in LABELS:
                assert table[f"called_{label}"].tolist() == (table[label] >= thresholds[label]).astype(int).tolist()
            assert (table["calibrated_any"] < table["any"]).all()
        printed = capsys.readouterr().out
        assert "operating point youden" in printed
        assert "8 % positive scans" in printed
        page = next((tmp_path / "out" / "private" / "pages").iterdir()).read_text()
        assert "operating point youden" in page

    def test_a_refused_study_has_the_same_columns(self, calibrated: Path, phantom: Path, tmp_path: Path) -> None:
        assert (
            predict.main(
                [str(tmp_path / "nothing"), str(phantom), "--checkpoint", str(calibrated), "--out", str(tmp_path / "out")]
            )
            == 3
        )
        scans = pd.read_csv(tmp_path / "out" / "scans.csv")
        assert scans["status"].tolist()[:2] == ["missing_path", "ok"]
        assert scans.loc[0, [column for column in scans if column.startswith("cal")]].isna().all()
        assert scans.loc[1, [column for column in scans if column.startswith("cal")]].notna().all()

    def test_estimates_a_share_with_a_warning(
        self, calibrated: Path, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert self.run(phantom, calibrated, tmp_path / "known") == 0
        assert self.run(phantom, calibrated, tmp_path / "out", "--prevalence", "estimate") == 0
        assert "warning" in capsys.readouterr().out
        about = json.loads((tmp_path / "out" / "manifest.json").read_text())["calibration"]["prevalence"]
        # Of a few scans the likelihood may be highest at 0 or 100 %: then there is no share, and the note says so.
        assert ("likelihood" if about["value"] is None else "assumes") in about["note"]
        known, moved = (pd.read_csv(tmp_path / name / "scans.csv") for name in ("known", "out"))
        assert known[list(LABELS)].equals(moved[list(LABELS)])

    @pytest.mark.parametrize(
        ("options", "code"),
        [
            (["--operating-point", "alarms=1"], "unknown_operating_point"),
            (["--prevalence", "1.5"], "prevalence_out_of_range"),
            (["--prevalence", "low"], "wrong_usage"),
        ],
    )
    def test_refuses(
        self, calibrated: Path, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], code: str
    ) -> None:
        assert self.run(phantom, calibrated, tmp_path / "out", *options) == 2
        assert f"[{code}]" in capsys.readouterr().err
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("options", [["--operating-point", "youden"], ["--prevalence", "0.1"], ["--prevalence", "estimate"]])
    def test_a_model_without_one(
        self, model_folder: Path, phantom: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str]
    ) -> None:
        assert self.run(phantom, model_folder, tmp_path / "out", *options) == 2
        assert "[not_calibrated]" in capsys.readouterr().err
