"""Readers: simulated ones are recovered, and agreement is that of the shared vectors."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from metric_vectors import VECTORS
from sklearn.metrics import cohen_kappa_score

from ich_lstm.errors import IchLstmError
from ich_lstm.evaluation.comparisons.readers import (
    GIVEN,
    MODEL,
    ReaderFigures,
    ReaderMarks,
    agreed_truth,
    align_marks,
    evaluate_readers,
)
from ich_lstm.evaluation.evidence import LABEL_PREFIX, Evidence, columns_of
from ich_lstm.labels import LABELS
from ich_lstm.statistics import FigureSettings, evaluate_labels, mcnemar, predictive_values

FEW = FigureSettings(replicates=200)

SHARE = 0.4
READERS = {"Ann": (0.95, 0.88), "Bob": (0.85, 0.95), "Eve": (0.7, 0.98)}
"""Sensitivity and specificity."""


def with_labels(evidence: Evidence, labels: np.ndarray) -> Evidence:
    scans = evidence.scans.assign(**{LABEL_PREFIX + label: labels[:, k] for k, label in enumerate(LABELS)})
    return Evidence(evidence.slices, scans, evidence.source, evidence.is_test)


def table_of(marks: np.ndarray, readers: list[str], evidence: Evidence) -> pd.DataFrame:
    """As of `place_marks`, from ``(readers, b, k)``."""
    ids = evidence.scans["scan_id"]
    parts = [
        pd.DataFrame(marks[r], columns=list(LABELS)).assign(scan_id=ids, name=ids, reader=reader)
        for r, reader in enumerate(readers)
    ]
    return pd.concat(parts, ignore_index=True).assign(line=lambda frame: np.arange(len(frame)) + 2)


@pytest.fixture(scope="module")
def study(make_evidence: Callable[..., Evidence]) -> tuple[Evidence, ReaderMarks]:
    """600 scans that three readers have marked, each label by itself."""
    random = np.random.default_rng(4)
    evidence = make_evidence(patients=600, slices=6)
    truth = (random.random((600, len(LABELS))) < SHARE).astype(float)
    evidence = with_labels(evidence, truth)
    marks = [np.where(random.random(truth.shape) < np.where(truth == 1, *pair), truth, 1 - truth) for pair in READERS.values()]
    return evidence, align_marks(table_of(np.stack(marks), list(READERS), evidence), evidence)


@pytest.fixture(scope="module")
def figures(study: tuple[Evidence, ReaderMarks]) -> ReaderFigures:
    return evaluate_readers(study[1], study[0], settings=FEW)


class TestSimulated:
    def test_readers_are_recovered(self, figures: ReaderFigures) -> None:
        inside = []
        for reader, (sensitivity, specificity) in READERS.items():
            ppv, npv = predictive_values(sensitivity, specificity, SHARE)
            expected = {"sensitivity": sensitivity, "specificity": specificity, "ppv": float(ppv), "npv": float(npv)}
            rows = figures.table.query("truth == @GIVEN and rater == @reader").set_index(["label", "metric"])
            for metric, value in expected.items():
                own = rows.xs(metric, level="metric")
                assert own.loc["any", "low"] <= value <= own.loc["any", "high"], (reader, metric)
                inside += ((own["low"] <= value) & (value <= own["high"])).tolist()
        assert np.mean(inside) > 0.88

    def test_others_where_they_agree(self, figures: ReaderFigures, study: tuple[Evidence, ReaderMarks]) -> None:
        (s1, c1), (s2, c2), (s3, c3) = READERS.values()
        share, rest = SHARE, 1 - SHARE
        both = share * s2 * s3 + rest * (1 - c2) * (1 - c3)
        expected = (share * s1 * s2 * s3 + rest * (1 - c1) * (1 - c2) * (1 - c3)) / both
        rows = figures.table.query("truth == 'Bob and Eve agree' and label == 'any'").set_index(["rater", "metric"])
        own = rows.loc[("Ann", "sensitivity")]
        assert own["low"] <= expected <= own["high"]
        marks = study[1].marks[:, :, LABELS.index("any")]
        assert own["cases"] == (marks[1] == marks[2]).sum()
        # The model is judged on the same cases, and has an AUROC; other readers are not judged by themselves.
        assert rows.loc[(MODEL, "sensitivity"), "cases"] == own["cases"]
        assert set(rows.index.get_level_values("rater")) == {"Ann", MODEL}
        assert (MODEL, "auroc") in rows.index
        assert ("Ann", "auroc") not in rows.index

    def test_where_all_agree_the_model_is_judged_alone(self, figures: ReaderFigures) -> None:
        assert set(figures.table.query("truth == 'Ann, Bob and Eve agree'")["rater"]) == {MODEL}

    def test_the_model_is_that_of_the_figures(self, figures: ReaderFigures, study: tuple[Evidence, ReaderMarks]) -> None:
        scans = study[0].scans
        given = columns_of(scans, LABEL_PREFIX), columns_of(scans, ""), scans["patient_id"]
        expected = evaluate_labels(*given, replicates=FEW.replicates)
        got = figures.table.query("truth == @GIVEN and rater == @MODEL and label == 'any' and metric == 'auroc'").iloc[0]
        assert got["low"] == pytest.approx(expected.query("label == 'any' and metric == 'auroc'")["low"].item())

    def test_differences_are_mcnemars(self, figures: ReaderFigures, study: tuple[Evidence, ReaderMarks]) -> None:
        evidence, marks = study
        y, called = evidence.scans["label_any"] == 1, evidence.scans["any"] >= 0.5
        expected = mcnemar(called[y], marks.marks[2, y, 5])
        got = figures.differences.query(
            "truth == @GIVEN and reader == 'Eve' and label == 'any' and metric == 'sensitivity'"
        ).iloc[0]
        assert (got["p_value"], got["difference"]) == pytest.approx((expected.p_value, expected.difference.value))
        assert got["method"] == "McNemar, exact"

    def test_cohen_against_scikit_learn(self, figures: ReaderFigures, study: tuple[Evidence, ReaderMarks]) -> None:
        evidence, marks = study
        called = (evidence.scans["any"] >= 0.5).to_numpy()
        kappas = figures.kappas.query("kappa == 'Cohen' and label == 'any'").set_index("raters")["value"]
        assert kappas["Ann, Eve"] == pytest.approx(cohen_kappa_score(*marks.marks[[0, 2], :, 5]))
        assert kappas["Eve, model"] == pytest.approx(cohen_kappa_score(marks.marks[2, :, 5], called))
        assert len(kappas) == 6


def test_fleiss_is_that_of_the_shared_vectors(make_evidence: Callable[..., Evidence]) -> None:
    case = VECTORS["fleiss_kappa"]
    seen = np.array(case["counts"])[:, 1]
    evidence = make_evidence(patients=len(seen))
    marks = np.repeat((np.arange(3)[:, None] < seen)[:, :, None], len(LABELS), axis=2).astype(float)
    got = evaluate_readers(align_marks(table_of(marks, ["a", "b", "c"], evidence), evidence), evidence, settings=FEW).kappas
    np.testing.assert_allclose(got.query("kappa == 'Fleiss'")["value"], case["kappa"], atol=5e-8)


class TestUnmarked:
    def test_cells_left_empty_are_no_cases(self, make_evidence: Callable[..., Evidence]) -> None:
        evidence = make_evidence()
        truth = columns_of(evidence.scans, LABEL_PREFIX)
        marks = np.stack([truth, truth, 1 - truth])
        marks[0, :5] = np.nan
        aligned = align_marks(table_of(marks, ["a", "b", "c"], evidence), evidence)
        got = evaluate_readers(aligned, evidence, settings=FEW)
        rows = got.table.query("label == 'any' and metric == 'accuracy'").set_index(["truth", "rater"])
        assert rows.loc[(GIVEN, "a"), ["value", "cases"]].tolist() == [1, 31]
        assert rows.loc[(GIVEN, "b"), ["value", "cases"]].tolist() == [1, 36]
        assert rows.loc[("a and b agree", "c"), ["value", "cases"]].tolist() == [0, 31]
        # Nowhere do b and c agree: no case, and it is said.
        assert rows.loc[("b and c agree", "a"), "cases"] == 0
        assert rows.loc[("b and c agree", "a"), "note"]
        fleiss = got.kappas.query("kappa == 'Fleiss' and label == 'any'").iloc[0]
        assert fleiss["cases"] == 31
        assert "5 cases" in fleiss["note"]
        assert any("5 of 36" in note for note in got.notes)

    def test_agreement(self) -> None:
        marks = np.array([[1, 1, 0, np.nan], [1, 0, 0, 1]])[:, :, None]
        np.testing.assert_array_equal(agreed_truth(marks)[:, 0], [1, np.nan, 0, np.nan])

    def test_one_reader(self, make_evidence: Callable[..., Evidence]) -> None:
        evidence = make_evidence()
        truth = columns_of(evidence.scans, LABEL_PREFIX)[None]
        got = evaluate_readers(align_marks(table_of(truth, ["a"], evidence), evidence), evidence, settings=FEW)
        assert set(got.table["truth"]) == {GIVEN}
        assert set(got.kappas["kappa"]) == {"Cohen"}


class TestAlign:
    def test_scans_that_are_not_judged(self, make_evidence: Callable[..., Evidence]) -> None:
        evidence = make_evidence()
        marks = table_of(columns_of(evidence.scans, LABEL_PREFIX)[None], ["a"], evidence)
        marks.loc[:11, "scan_id"] = ""
        with pytest.raises(IchLstmError, match=r"marks_without_prediction.*11 and 2 more: marks of 12 scans"):
            align_marks(marks, evidence)
        aligned = align_marks(marks, evidence, allow_missing=True)
        assert np.isnan(aligned.marks).all(axis=2).sum() == 12
        assert any("12 rows" in note for note in aligned.notes)
        with pytest.raises(IchLstmError, match="marks_without_prediction"):
            align_marks(marks[:12], evidence, allow_missing=True)

    def test_no_reader_is_the_model(self, make_evidence: Callable[..., Evidence]) -> None:
        evidence = make_evidence()
        with pytest.raises(IchLstmError, match="bad_reader"):
            align_marks(table_of(columns_of(evidence.scans, LABEL_PREFIX)[None], [MODEL], evidence), evidence)
