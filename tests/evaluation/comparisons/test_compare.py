"""Comparisons: against the statistics they are made of, and against models whose difference is known."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from ich_lstm.errors import IchLstmError
from ich_lstm.evaluation.comparisons.compare import compare_encoder, compare_models, compare_position
from ich_lstm.evaluation.comparisons.position_baseline import PositionModel, predict_from_position
from ich_lstm.evaluation.evidence import Evidence, columns_of
from ich_lstm.labels import LABELS
from ich_lstm.statistics import FigureSettings, compare_auroc, mcnemar

FEW = FigureSettings(replicates=100)


def row(table: pd.DataFrame, label: str, metric: str, method: str = "") -> pd.Series:
    rows = table[(table["label"] == label) & (table["metric"] == metric) & table["method"].str.contains(method, regex=False)]
    return rows.iloc[0]


@pytest.fixture(scope="module")
def evidence(make_evidence: Callable[..., Evidence]) -> Evidence:
    return make_evidence()


@pytest.fixture(scope="module")
def worse(make_evidence: Callable[..., Evidence]) -> Evidence:
    return make_evidence(noise=3.0, noise_seed=1)


class TestModels:
    def test_slices_of_patients_are_clustered(self, evidence: Evidence, worse: Evidence) -> None:
        table = compare_models(evidence, worse, level="slice", settings=FEW)
        y, patients = columns_of(evidence.slices, "label_")[:, 5], evidence.slices["patient_id"].to_numpy()
        p = [columns_of(each.slices, "")[:, 5] for each in (evidence, worse)]
        expected = compare_auroc(y, *p, patients)
        got = row(table, "any", "auroc", "Obuchowski")
        assert got["p_value"] == pytest.approx(expected.p_value)
        assert (got["first"], got["low"]) == pytest.approx((expected.first.value, expected.difference.low))
        positive = y == 1
        expected = mcnemar(p[0][positive] >= 0.5, p[1][positive] >= 0.5, patients[positive])
        assert row(table, "any", "sensitivity", "Durkalski")["p_value"] == pytest.approx(expected.p_value)
        assert not table["method"].isin(["DeLong", "McNemar, exact"]).any()

    def test_one_case_per_patient_is_exact(self, evidence: Evidence, worse: Evidence) -> None:
        table = compare_models(evidence, worse, level="patient", names=("a", "b"), settings=FEW)
        assert {"DeLong", "McNemar, exact"} <= set(table["method"])
        assert set(table["model"]) == {"a"}
        assert not table["method"].str.contains("Obuchowski|Durkalski").any()

    def test_the_better_model_is_found(self, evidence: Evidence, worse: Evidence) -> None:
        table = compare_models(evidence, worse, level="slice", settings=FEW)
        for method in ("bootstrap", "Obuchowski"):
            got = row(table, "any", "auroc", method)
            assert got["low"] > 0
            assert got["p_value"] < 0.01
        turned = compare_models(worse, evidence, level="slice", settings=FEW)
        both = [part["difference"].to_numpy() for part in (table, turned)]
        np.testing.assert_allclose(both[0], -both[1])

    def test_operating_points_are_each_models_own(self, evidence: Evidence) -> None:
        table = compare_models(evidence, evidence, level="scan", thresholds=(0.0, 1.0), settings=FEW)
        for method in ("", "McNemar"):
            got = row(table, "any", "sensitivity", method)
            assert (got["first"], got["second"]) == (1, 0)

    @pytest.mark.parametrize(
        ("change", "code"),
        [
            ({"patients": 35}, "different_cases"),
            ({"seed": 5}, "different_labels"),
            ({"lonely": False}, "different_patients"),
        ],
    )
    def test_other_cases_stop(self, evidence: Evidence, make_evidence: Callable[..., Evidence], change: dict, code: str) -> None:
        with pytest.raises(IchLstmError) as caught:
            compare_models(evidence, make_evidence(**change), level="scan", settings=FEW)
        assert caught.value.code == code


class TestEncoder:
    def test_slices(self, make_evidence: Callable[..., Evidence]) -> None:
        evidence = make_evidence(encoder=True)
        got = row(compare_encoder(evidence, level="slice", settings=FEW), "any", "auroc")
        assert (got["model"], got["other"]) == ("sequence", "encoder")
        assert got["difference"] > 0

    def test_scans_are_made_alike(self, make_evidence: Callable[..., Evidence]) -> None:
        evidence = make_evidence(encoder=True)
        own = compare_encoder(evidence, level="scan", settings=FEW)
        pd.testing.assert_frame_equal(own, compare_encoder(evidence, level="scan", aggregation="max", settings=FEW))
        assert set(own["aggregation"]) == {"maximum over slices"}

    def test_without_encoder(self, evidence: Evidence) -> None:
        with pytest.raises(IchLstmError, match="no_encoder"):
            compare_encoder(evidence, level="slice", settings=FEW)


class TestPosition:
    def test_shares_of_stretches(self) -> None:
        labels = np.array([[1.0, 0], [1, 0], [0, np.nan], [0, 0]])
        model = PositionModel.fit(np.array([0.1, 0.2, 0.7, 0.9]), labels, bins=2)
        # The whole: (2 + 1/2) / 5 and (0 + 1/2) / 4; each half is moved towards it by one slice.
        np.testing.assert_allclose(model.shares, [[2.5 / 3, 0.125 / 3], [0.5 / 3, 0.125 / 2]])
        np.testing.assert_array_equal(model.predict(np.array([0.0, 0.49, 1.0])), model.shares[[0, 0, 1]])

    def test_position_is_learned_where_it_tells(self, make_evidence: Callable[..., Evidence]) -> None:
        evidence = make_evidence(middle_only=True)
        table = compare_position(evidence, settings=FEW)
        null = row(table, "any", "auroc")
        assert null["second"] > 0.6
        assert "cross-fitted" in null["other"]
        assert not table["metric"].isin(["sensitivity", "specificity", "accuracy", "ppv"]).any()

    def test_position_that_tells_nothing_is_no_better_than_chance(self, evidence: Evidence) -> None:
        assert row(compare_position(evidence, settings=FEW), "any", "auroc")["second"] == pytest.approx(0.5, abs=0.08)

    def test_other_patients_serve_where_they_are_given(self, make_evidence: Callable[..., Evidence]) -> None:
        evidence, others = make_evidence(middle_only=True), make_evidence(middle_only=True, seed=9, name="q")
        null = predict_from_position(evidence, others)
        assert "36 other patients" in null.fitted_on
        assert null.probabilities.shape == (len(evidence.slices), len(LABELS))

    def test_nobody_is_judged_by_himself(self, evidence: Evidence) -> None:
        with pytest.raises(IchLstmError, match="same_patients"):
            predict_from_position(evidence, evidence)

    def test_own_labels_play_no_part(self, make_evidence: Callable[..., Evidence]) -> None:
        evidence = make_evidence()
        before = predict_from_position(evidence).probabilities
        own = (evidence.slices["patient_id"] == evidence.slices["patient_id"].iloc[0]).to_numpy()
        turned = evidence.slices.copy()
        turned.loc[own, "label_any"] = 1 - turned.loc[own, "label_any"]
        after = predict_from_position(Evidence(turned, evidence.scans, evidence.source, evidence.is_test)).probabilities
        np.testing.assert_array_equal(before[own], after[own])
        assert (before != after).any()

    def test_one_patient_is_too_few(self, make_evidence: Callable[..., Evidence]) -> None:
        with pytest.raises(IchLstmError, match="few_patients"):
            predict_from_position(make_evidence(patients=1))
