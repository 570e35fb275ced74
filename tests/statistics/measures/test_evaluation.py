"""All figures in one table: equal to scikit-learn's, intervals as of a plain bootstrap, and nothing silent."""

import numpy as np
import pandas as pd
import pytest
from sklearn import metrics

from ich_lstm import statistics
from ich_lstm.errors import ConfigError, TableError
from ich_lstm.statistics import evaluate_labels
from ich_lstm.statistics.bootstrap import METHOD, PatientBootstrap
from ich_lstm.statistics.cases import Cases
from ich_lstm.statistics.measures.evaluation import ALL_LABELS
from ich_lstm.statistics.measures.figures import KINDS, LabelFigures

ONE = {"names": ("any",), "weights": (1.0,), "replicates": 100}


def figures_of(table: pd.DataFrame, label: str = "any") -> pd.DataFrame:
    return table[(table["label"] == label) & table["prevalence"].isna()].drop_duplicates("metric").set_index("metric")


def test_values_equal_those_of_the_single_functions(make_study) -> None:
    study = make_study(labels=6, unknown=0.1, ties=50)
    table = evaluate_labels(*study, thresholds=[0.2, 0.3, 0.4, 0.5, 0.6, 0.7], bins=7, replicates=100)
    y, p = study.labels[:, 2], study.probabilities[:, 2]
    got = figures_of(table, "intraventricular")
    line = statistics.calibration_line(y, p)
    expected = {
        "log_loss": statistics.log_loss(y, p),
        "auroc": statistics.auroc(y, p),
        "average_precision": statistics.average_precision(y, p),
        "calibration_slope": line.slope,
        "calibration_intercept": line.intercept,
        "calibration_in_the_large": line.in_the_large,
        "brier": statistics.brier_score(y, p),
        "ece": statistics.expected_calibration_error(y, p, bins=7),
    }
    assert got["value"][list(expected)].tolist() == pytest.approx([figure.value for figure in expected.values()], abs=1e-12)
    known = ~np.isnan(y)
    assert got.loc["sensitivity", "value"] == pytest.approx(metrics.recall_score(y[known], p[known] >= 0.4))
    assert got.loc["ppv", "value"] == pytest.approx(metrics.precision_score(y[known], p[known] >= 0.4))
    assert got.loc["f1", "threshold"] == 0.4
    assert (got["unknown"] == (~known).sum()).all()
    assert (got["cases"] == known.sum()).all()
    whole = table[table["label"] == ALL_LABELS].iloc[0]
    assert whole["value"] == pytest.approx(statistics.weighted_log_loss(study.labels, study.probabilities).value, abs=1e-12)
    assert set(figures_of(table).index) == set(KINDS)


def test_every_value_has_an_interval_around_it(make_study) -> None:
    table = evaluate_labels(*make_study(labels=6, patients=100), prevalences=(0.05, 0.3), replicates=200)
    assert len(table) == 1 + 6 * (len(KINDS) + 4)
    assert table["low"].notna().all()
    assert ((table["low"] < table["value"]) & (table["value"] < table["high"])).all()
    assert (table["method"] == METHOD).all()


def test_replicates_equal_a_plain_bootstrap(make_study) -> None:
    """Every draw, recomputed by gathering the drawn patients' slices."""
    study = make_study(patients=25, ties=20)
    y, p = study.labels[:, 0] == 1, study.probabilities[:, 0]
    inside = np.clip(p, 0.01, 0.99)
    settings = {"threshold": 0.4, "prevalences": (), "bins": 10}
    figures = LabelFigures(Cases(y, inside, 0), study.patients, 25, **settings)
    counts = PatientBootstrap(25).counts(0, 30)
    got = figures.weigh(counts)
    for r in range(30):
        rows = np.repeat(np.arange(len(y)), counts[study.patients, r].astype(int))
        alone = LabelFigures(Cases(y[rows], inside[rows], 0), np.zeros(len(rows), dtype=int), 1, **settings)
        np.testing.assert_allclose(got[:, r], alone.values(), rtol=1e-6, atol=1e-9)


def test_calibration_on_the_grid_is_near_the_exact_one(make_study) -> None:
    study = make_study(patients=400, slices=20)  # 8,000 distinct probabilities
    cases = Cases(study.labels[:, 0] == 1, study.probabilities[:, 0], 0)
    figures = LabelFigures(cases, study.patients, 400, threshold=0.5, prevalences=(), bins=10)
    rows = [list(KINDS).index(name) for name in KINDS if name.startswith("calibration")]
    np.testing.assert_allclose(figures.weigh(np.ones((400, 1)))[rows, 0], figures.values()[rows], atol=2e-4)


class TestInvariance:
    def test_order_of_cases_and_names_of_patients(self, make_study) -> None:
        study = make_study(patients=30)
        order = np.random.default_rng(0).permutation(len(study.patients))
        names = np.array([f"patient {i:03d}" for i in range(30)])
        one = evaluate_labels(*study, **ONE)
        other = evaluate_labels(*(part[order] for part in study[:2]), names[study.patients][order], **ONE)
        pd.testing.assert_frame_equal(one, other)

    def test_threads(self, make_study) -> None:
        study = make_study(patients=30)
        pd.testing.assert_frame_equal(evaluate_labels(*study, workers=1, **ONE), evaluate_labels(*study, workers=3, **ONE))

    def test_slices_repeated_within_their_patients_say_nothing_new(self, make_study) -> None:
        study = make_study(patients=40)
        once = figures_of(evaluate_labels(*study, **ONE))
        thrice = figures_of(evaluate_labels(*(np.repeat(part, 3, axis=0) for part in study), **ONE))
        np.testing.assert_allclose(once[["low", "high"]], thrice[["low", "high"]], rtol=1e-6, atol=1e-9)

    def test_clustered_intervals_are_wider_than_those_that_ignore_patients(self, make_study) -> None:
        study = make_study(patients=60, slices=20)
        width = {}
        for name, patients in (("patients", study.patients), ("slices", np.arange(len(study.patients)))):
            row = figures_of(evaluate_labels(study.labels, study.probabilities, patients, **ONE)).loc["specificity"]
            width[name] = row["high"] - row["low"]
        assert width["patients"] > 1.3 * width["slices"]


class TestIndependentCases:
    def test_exact_intervals_beside_the_bootstrap(self, make_study) -> None:
        study = make_study(patients=200, slices=1)
        table = evaluate_labels(*study, **ONE)
        rows = table[table["metric"] == "sensitivity"].set_index("method")
        table = statistics.confusion(study.labels[:, 0], study.probabilities[:, 0], 0.5)
        hits, positives = int(table.true_positive), int(table.true_positive + table.false_negative)
        assert list(rows.index) == [METHOD, "Wilson", "Clopper-Pearson"]
        for method, interval in (("Wilson", statistics.wilson), ("Clopper-Pearson", statistics.clopper_pearson)):
            assert tuple(rows.loc[method, ["low", "high"]]) == interval(hits, positives)

    def test_not_where_a_patient_has_two(self, make_study) -> None:
        assert set(evaluate_labels(*make_study(slices=2), **ONE)["method"]) == {METHOD}


class TestUndefined:
    @pytest.mark.parametrize("label", [0.0, 1.0, np.nan])
    def test_one_class_and_empty_label(self, make_study, label: float) -> None:
        study = make_study(patients=20)
        table = evaluate_labels(np.full_like(study.labels, label), study.probabilities, study.patients, **ONE)
        missing = table["value"].isna()
        assert (table["note"][missing] != "").all()
        assert (table["note"][table["low"].isna()] != "").all()
        assert missing[table["metric"].isin(["auroc", "calibration_slope", "calibration_in_the_large"])].all()
        assert missing.all() == np.isnan(label)

    @pytest.mark.parametrize("label", [0.0, 1.0])
    def test_one_case(self, label: float) -> None:
        table = evaluate_labels(np.array([[label]]), np.array([[0.7]]), ["a"], **ONE)
        alone = table[(table["method"] == "") & table["value"].notna()]
        assert alone["note"].str.contains("fewer than 2 patients").all()
        assert (table["note"][table["value"].isna()] != "").all()

    def test_no_case(self) -> None:
        table = evaluate_labels(np.empty((0, 1)), np.empty((0, 1)), [], **ONE)
        assert table["value"].isna().all()
        assert (table["note"] != "").all()

    def test_perfect_sensitivity_still_has_a_lower_limit(self, make_study) -> None:
        study = make_study(patients=40)
        row = figures_of(evaluate_labels(study.labels, study.labels * 0.8 + 0.1, study.patients, **ONE)).loc["sensitivity"]
        assert row["value"] == 1
        assert 0.85 < row["low"] < 0.95

    def test_auroc_is_defined_in_every_stratified_resample(self) -> None:
        """Two positive patients of 30: drawn freely, one resample in eight has neither."""
        y = np.zeros((60, 1))
        y[[0, 2]] = 1
        p = np.random.default_rng(0).random((60, 1))
        patients = np.repeat(np.arange(30), 2)
        notes = [
            figures_of(evaluate_labels(y, p, patients, **ONE, stratified=stratified)).loc["auroc", "note"]
            for stratified in (True, False)
        ]
        assert "resamples excluded" not in notes[0]
        assert "resamples excluded" in notes[1]


class TestBadInput:
    @pytest.mark.parametrize("patient", ["", None, np.nan])
    def test_patient_unknown(self, patient) -> None:
        with pytest.raises(TableError, match="patient_unknown") as caught:
            evaluate_labels(np.zeros((3, 1)), np.full((3, 1), 0.1), ["a", patient, "b"], **ONE)
        assert "1 rows: 1," in str(caught.value)

    def test_first_ten_bad_rows_and_their_number(self) -> None:
        with pytest.raises(TableError, match=r"25 rows: 0, 1, .*9 and 15 more"):
            evaluate_labels(np.zeros((25, 1)), np.full((25, 1), np.nan), range(25), **ONE)

    @pytest.mark.parametrize(
        ("settings", "code"),
        [
            ({"thresholds": 1.2}, "threshold_out_of_range"),
            ({"thresholds": [0.1, 0.2]}, "threshold_out_of_range"),
            ({"prevalences": (0.0,)}, "prevalence_out_of_range"),
            ({"bins": 0}, "bins_out_of_range"),
            ({"names": ("a", "b")}, "shapes_differ"),
        ],
    )
    def test_settings(self, settings: dict, code: str) -> None:
        with pytest.raises(ConfigError, match=code):
            evaluate_labels(np.zeros((3, 1)), np.full((3, 1), 0.1), range(3), **{**ONE, **settings})

    def test_as_many_patients_as_cases(self) -> None:
        with pytest.raises(ConfigError, match="shapes_differ"):
            evaluate_labels(np.zeros((3, 1)), np.full((3, 1), 0.1), range(4), **ONE)
