import re

import pytest

from ich_lstm.labels import LABELS
from ich_lstm.pages.report.train_report import duration, train_report_page


def scores(loss, auroc):
    return {"weighted_log_loss": loss, "auroc": dict.fromkeys(LABELS, auroc), "log_loss": dict.fromkeys(LABELS, loss)}


@pytest.fixture
def results():
    return {
        "slices": {"sequence": scores(0.08, 0.97), "encoder": scores(0.11, 0.94)},
        "scans": {"sequence": scores(0.2, 0.9)},
        "seconds": 312.4,
        "counts": {"train": {"patients": 70, "scans": 71, "slices": 2100}, "test": {"patients": 15, "scans": 16, "slices": 451}},
    }


def shown(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_shows_both_models_and_marks_the_better(results):
    html = train_report_page(results, {}, recipe="demo")
    assert html.count('<span class="best">0.970</span>') == len(LABELS)
    assert html.count('<span class="best">0.0800</span>') == len(LABELS)
    assert '<span class="best">0.940</span>' not in html
    text = shown(html)
    for wanted in ("demo", "Sequence model", "Encoder alone (2D)", "5 min 12 s", "2100", "451", "not for diagnosis"):
        assert wanted in text


def test_one_patient_is_no_plural(results):
    results["counts"]["test"]["patients"] = 1
    text = shown(train_report_page(results, {}, recipe="demo"))
    assert "Test 1 patient " in text
    assert "Train 70 patients " in text


def test_what_cannot_be_computed_is_a_dash(results):
    results["slices"]["encoder"]["auroc"]["epidural"] = None
    html = train_report_page(results, {}, recipe="demo")
    assert re.search(r"Epidural 0\.970 – 0\.0800 0\.1100", shown(html))
    assert html.count('<span class="best">0.970</span>') == len(LABELS) - 1


class TestWhatTheLabelsTell:
    def test_a_level_without_a_defined_auc_is_left_out(self, results):
        results["slices"] = {"sequence": scores(0.01, None)}
        text = shown(train_report_page(results | {"curves_of": "scans"}, {"roc": b"png"}, recipe="demo"))
        assert "Every slice" not in text
        assert "Whole scans of held-out patients" in text
        assert "ROC curves of the scans of held-out patients" in text

    def test_a_run_that_holds_nobody_out_does_not_say_so(self, results):
        text = shown(train_report_page(results | {"part": "validation"}, {"roc": b"png"}, recipe="demo"))
        assert "held-out" not in text
        assert "Every slice of validation patients" in text

    def test_studies_in_place_of_patients_may_be_in_several_splits(self, results):
        text = shown(train_report_page(results | {"patients_are_studies": True}, {}, recipe="demo"))
        assert "No patient is in more than one split" not in text


def test_a_tie_has_no_winner(results):
    results["slices"]["encoder"] = scores(0.08, 0.9701)
    assert 'class="best"' not in train_report_page(results, {}, recipe="demo")


def test_pictures_are_inside_and_texts_are_escaped(results):
    bad = "<script>alert(1)</script>"
    html = train_report_page(results, {"roc": b"\x89PNG1", bad: b"\x89PNG2"}, recipe=bad)
    assert html.count("data:image/png;base64,") == 2
    assert "<script" not in html
    assert all(source.startswith("data:") for source in re.findall(r'(?:src|href)="([^"]*)"', html))


def test_little_is_enough():
    assert "demo" in train_report_page({"slices": {"sequence": {"weighted_log_loss": None}}}, {}, recipe="demo")


@pytest.mark.parametrize(("seconds", "text"), [(3.4, "3 s"), (59.7, "1 min 0 s"), (312.4, "5 min 12 s"), (8000, "2 h 13 min")])
def test_duration(seconds, text):
    assert duration(seconds) == text
