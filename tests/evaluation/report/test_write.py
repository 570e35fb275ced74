"""The report of a run: what the page shows is what the files say."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from prediction_files import make_tables, write_run
from report_files import PRIVATE_WORDS, ShownFigures, shown_number, write_study
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import (
    average_precision_score,
    brier_score_loss,
    confusion_matrix,
    f1_score,
    log_loss,
    roc_auc_score,
    roc_curve,
)

from ich_lstm import LABELS
from ich_lstm.evaluation.comparisons.compare import compare_encoder
from ich_lstm.evaluation.comparisons.readers import ReaderMarks, evaluate_readers
from ich_lstm.evaluation.comparisons.strata import evaluate_strata, find_strata
from ich_lstm.evaluation.evidence import read_run
from ich_lstm.evaluation.figures import compute_figures
from ich_lstm.evaluation.protocols import all_figures, find_protocol
from ich_lstm.evaluation.report.contents import Supplements
from ich_lstm.evaluation.report.write import Report, build_report, write_report
from ich_lstm.evaluation.run_facts import read_study
from ich_lstm.pages.report.report_page import duration
from ich_lstm.statistics import FigureSettings

FEW = FigureSettings(replicates=100)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def folder(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the study's report, with all that can be in it."""
    out = tmp_path_factory.mktemp("report")
    evidence = read_run(study)
    figures = compute_figures(evidence, all_figures(), settings=FEW)
    marks = ReaderMarks(("Ann", "Bob"), np.stack([evidence.scans[[f"label_{label}" for label in LABELS]].to_numpy(float)] * 2))
    supplements = Supplements(
        compare_encoder(evidence, level="slice", settings=FEW),
        evaluate_strata(evidence, find_strata(evidence), settings=FEW),
        evaluate_readers(marks, evidence, settings=FEW),
    )
    write_report(out, build_report(evidence, figures, read_study(study), supplements))
    return out


@pytest.fixture(scope="module")
def shown(folder: Path) -> dict[tuple[str, str, str], list[str]]:
    return ShownFigures((folder / "report.html").read_text(encoding="utf-8")).texts


def recomputed(y: np.ndarray, p: np.ndarray) -> dict[str, float]:
    """By scikit-learn alone."""
    called = p >= 0.5
    (tn, fp), (fn, tp) = confusion_matrix(y, called)
    odds = (np.log(p) - np.log1p(-p))[:, None]
    line = LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000).fit(odds, y)
    place = np.minimum((10 * p).astype(int), 9)
    gaps = [abs(p[place == i].mean() - y[place == i].mean()) * (place == i).mean() for i in np.unique(place)]
    return {
        "auroc": roc_auc_score(y, p),
        "average_precision": average_precision_score(y, p),
        "sensitivity": tp / (tp + fn),
        "specificity": tn / (tn + fp),
        "ppv": tp / (tp + fp),
        "npv": tn / (tn + fn),
        "accuracy": (tp + tn) / len(y),
        "f1": f1_score(y, called),
        "brier": brier_score_loss(y, p),
        "log_loss": log_loss(y, p),
        "ece": sum(gaps),
        "calibration_slope": line.coef_.item(),
        "calibration_intercept": line.intercept_.item(),
        "true_positive": tp,
        "false_positive": fp,
        "false_negative": fn,
        "true_negative": tn,
    }


@pytest.mark.parametrize("level", ["slice", "scan"])
def test_the_page_shows_what_scikit_learn_computes_from_the_predictions(study: Path, shown: dict, level: str) -> None:
    frame = pd.read_csv(study / "predictions" / f"{level}s.csv")
    for label in LABELS:
        for metric, value in recomputed(frame[f"label_{label}"].to_numpy(), frame[label].to_numpy()).items():
            number = shown_number(shown[f"{level}-sequence", label, metric][0])
            assert number == pytest.approx(value, abs=6e-4 if metric.startswith("calibration") else 5.1e-4), (label, metric)
    losses = [log_loss(frame[f"label_{label}"], frame[label]) for label in LABELS]
    weighted = shown_number(shown[f"{level}-sequence", "all", "weighted_log_loss"][0])
    assert weighted == pytest.approx(np.average(losses, weights=[1, 1, 1, 1, 1, 2]), abs=5.1e-5)


def test_patients_are_shown_by_the_highest_of_their_scans(study: Path, shown: dict) -> None:
    patients = pd.read_csv(study / "predictions" / "scans.csv").groupby("patient_id").max(numeric_only=True)
    for label in LABELS:
        expected = roc_auc_score(patients[f"label_{label}"], patients[label])
        assert shown_number(shown["patient-sequence", label, "auroc"][0]) == pytest.approx(expected, abs=5.1e-4)


def test_every_figure_has_its_interval_or_says_that_there_is_none(folder: Path, shown: dict) -> None:
    views = {f"{view['level']}-{view['output']}": view for view in json.loads((folder / "report.json").read_text())["views"]}
    rows = {(name, row["label"], row["metric"]): row for name, view in views.items() for row in view["figures"]}
    for key, row in rows.items():
        if row["label"] == "all" or row["value"] is None:
            continue
        digits = 4 if row["metric"].endswith("log_loss") else 3
        low, high = (None if row[end] is None else f"{row[end]:.{digits}f}".replace("-", "\u2212") for end in ("low", "high"))
        interval = shown[key][1].replace("\u22120.000", "0.000")
        assert interval == ("no interval" if low is None else f"{low} to {high}".replace("\u22120.000", "0.000"))
        assert row["cases"] > 0


def test_proportions_show_their_cases(study: Path, shown: dict) -> None:
    scans = pd.read_csv(study / "predictions" / "scans.csv")
    positive = scans[scans["label_any"] == 1]
    assert shown["scan-sequence", "any", "sensitivity"][2] == f"{(positive['any'] >= 0.5).sum()}/{len(positive)}"


@pytest.mark.parametrize("label", ["subdural", "any"])
def test_the_roc_curve_is_that_of_scikit_learn(study: Path, folder: Path, label: str) -> None:
    frame = pd.read_csv(study / "predictions" / "slices.csv")
    x, y, _ = roc_curve(frame[f"label_{label}"], frame[label], drop_intermediate=False)
    views = json.loads((folder / "report.json").read_text())["views"]
    curve = next(view for view in views if view["level"] == "slice")["curves"][label]["roc"]
    at = np.array(curve["x"])
    supplements = ~np.isin(np.round(at, 9), np.round(x, 9))  # where the curve jumps, either end is right
    np.testing.assert_allclose(np.array(curve["value"])[supplements], np.interp(at[supplements], x, y), atol=1e-6)
    assert (np.array(curve["low"]) <= np.array(curve["high"])).all()


def test_nothing_that_may_be_shared_holds_a_path_or_a_raw_id(folder: Path, study: Path) -> None:
    assert any(PRIVATE_WORDS[1] in path.read_text() for path in (study / "private").rglob("*.csv"))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) > 10
    for path in files:
        text = path.read_text(encoding="utf-8")
        for word in (*PRIVATE_WORDS, str(study), str(folder), str(Path.home()) + "/"):
            assert word not in text, (path.name, word)


def test_the_page_asks_the_network_for_nothing(folder: Path) -> None:
    page = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "Research use only, not for diagnosis." in page
    assert "Research use only, not for diagnosis." in (folder / "MODEL_CARD.md").read_text()


def test_a_held_out_loss_says_that_it_is_not_the_private_one(folder: Path) -> None:
    for name in ("report.html", "MODEL_CARD.md"):
        assert "0.0574 on held-out patients" in (folder / name).read_text(encoding="utf-8")


class TestUndefinedFigures:
    @pytest.fixture
    def report(self, tmp_path: Path) -> Report:
        tables = make_tables(20)
        for table in tables.values():
            table["label_epidural"] = 0
            table["label_subdural"] = np.nan
        evidence = read_run(write_run(tmp_path / "run", tables))
        return build_report(evidence, compute_figures(evidence, all_figures(), settings=FEW))

    def test_show_their_reason(self, report: Report) -> None:
        page = report.to_html()
        texts = ShownFigures(page).texts
        assert texts["scan-sequence", "epidural", "auroc"] == ["undefined"]
        assert texts["scan-sequence", "subdural", "brier"] == ["undefined"]
        assert f"0 positive and {report.summary['counts']['scans']} negative cases, but AUROC needs both" in page
        assert "0 positive and 0 negative cases" in page
        assert not re.search(r"\bnan\b", page, re.IGNORECASE)

    def test_have_an_empty_panel_that_says_why(self, report: Report) -> None:
        assert report.to_html().count("No curve: 0 positive and") == 2 * 3 * 3  # labels, kinds of curves, levels

    def test_have_no_nan_in_the_json(self, report: Report, tmp_path: Path) -> None:
        write_report(tmp_path / "out", report)
        assert json.loads((tmp_path / "out" / "report.json").read_text(), parse_constant=pytest.fail)


def test_sections_are_there_only_if_there_is_something_in_them(study: Path, folder: Path) -> None:
    evidence = read_run(study)
    bare = build_report(evidence, compute_figures(evidence, find_protocol("cq500-nguyen"), settings=FEW)).to_html()
    full = (folder / "report.html").read_text(encoding="utf-8")
    for section in ("comparisons", "readers", "strata"):
        assert f'id="{section}"' in full
        assert f'id="{section}"' not in bare
    assert ("scan-sequence", "any", "sensitivity") not in ShownFigures(bare).texts


def test_pictures_stand_beside_the_errors_they_are_of(study: Path) -> None:
    evidence = read_run(study)
    figures = compute_figures(evidence, all_figures(levels=("scan",)), settings=FEW)
    errors = build_report(evidence, figures).tables["worst_errors"]
    worst = errors.query("rank == 1")["case"].iloc[-1]
    page = build_report(evidence, figures, pictures={worst: b"\x89PNG", "other": b"none"}).to_html()
    assert page.count("data:image/png;base64,iVBORw==") == (errors.query("rank <= 3")["case"] == worst).sum()


class TestTraining:
    """What a run has recorded of its training stands on the page of ich-train and of ich-evaluate alike."""

    def page(self, study: Path) -> str:
        evidence = read_run(study)
        figures = compute_figures(evidence, all_figures(levels=("scan",)), settings=FEW)
        return build_report(evidence, figures, read_study(study)).to_html()

    def test_recipe_duration_and_fits_are_shown(self, folder: Path) -> None:
        page = (folder / "report.html").read_text(encoding="utf-8")
        text = re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", page))
        assert "Recipe demo" in text
        assert "Duration 10 min 0 s" in text
        assert "Setting joint encoder trained all head train epochs 6 of at most 8 steps 1,200" in text
        assert "No patient is in more than one subset" in text

    def test_studies_in_place_of_patients_may_be_in_several_subsets(self, tmp_path: Path) -> None:
        study = write_study(tmp_path)
        results = json.loads((study / "results.json").read_text())
        (study / "results.json").write_text(json.dumps(results | {"patients_are_studies": True}))
        page = self.page(study)
        assert "No patient is in more than one subset" not in page
        assert "a patient with several studies may be in several subsets" in page

    def test_the_history_is_inside_and_a_name_is_escaped(self, tmp_path: Path) -> None:
        study = write_study(tmp_path)
        results = json.loads((study / "results.json").read_text())
        (study / "results.json").write_text(json.dumps(results | {"recipe": "<script>alert(1)</script>"}))
        (study / "history.png").write_bytes(b"\x89PNG1")
        page = self.page(study)
        assert page.count("data:image/png;base64,iVBORzE=") == 1
        assert "<script>alert" not in page

    def test_without_a_record_nothing_is_said(self, study: Path) -> None:
        evidence = read_run(study)
        bare = build_report(evidence, compute_figures(evidence, all_figures(levels=("scan",)), settings=FEW)).to_html()
        assert 'id="training"' not in bare
        assert "more than one subset" not in bare


@pytest.mark.parametrize(("seconds", "text"), [(3.4, "3 s"), (59.7, "1 min 0 s"), (312.4, "5 min 12 s"), (8000, "2 h 13 min")])
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_same_predictions_give_the_same_bytes(study: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        evidence = read_run(study)
        figures = compute_figures(evidence, all_figures(levels=("scan",)), settings=FEW)
        write_report(tmp_path / name, build_report(evidence, figures, read_study(study)))
    files = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file()]
    assert all((tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes() for file in files)
