"""Differences of two models by one bootstrap for both."""

import numpy as np
import pytest

from ich_lstm.statistics import compare_auroc, compare_labels, compare_stratified_auroc, evaluate_labels, stratified_auroc

ONE = {"names": ("any",), "weights": (1.0,), "replicates": 300}


def test_differences_of_the_figures_of_each(make_study) -> None:
    study = make_study(patients=40, labels=6, unknown=0.1)
    other = study.probabilities**1.5
    settings = {"replicates": 100, "prevalences": (0.1,)}
    table = compare_labels(study.labels, study.probabilities, other, study.patients, thresholds=(0.5, 0.4), **settings)
    keys = ["label", "metric", "prevalence"]
    for column, p, threshold in (("first", study.probabilities, 0.5), ("second", other, 0.4)):
        alone = evaluate_labels(study.labels, p, study.patients, thresholds=threshold, **settings)
        both = table.merge(alone, on=keys, validate="one_to_one")
        assert len(both) == len(table)
        np.testing.assert_array_equal(both[column], both["value"])
    np.testing.assert_array_equal(table["difference"], table["first"] - table["second"])
    assert not table["metric"].str.startswith("calibration").any()


def test_auroc_agrees_with_obuchowski(make_study) -> None:
    study = make_study(patients=150)
    noisy = np.clip(study.probabilities + np.random.default_rng(0).normal(0, 0.1, study.probabilities.shape), 0, 1)
    row = compare_labels(study.labels, study.probabilities, noisy, study.patients, **ONE).set_index("metric").loc["auroc"]
    expected = compare_auroc(study.labels[:, 0], study.probabilities[:, 0], noisy[:, 0], study.patients)
    assert row["difference"] == pytest.approx(expected.difference.value)
    width = expected.difference.high - expected.difference.low
    assert row["high"] - row["low"] == pytest.approx(width, rel=0.2)
    assert row["p_value"] == pytest.approx(expected.p_value, abs=0.05)


def test_auroc_within_strata(make_study) -> None:
    study = make_study(patients=60)
    y, p = study.labels[:, 0], study.probabilities[:, 0]
    worse = np.clip(p + np.random.default_rng(0).normal(0, 0.3, len(p)), 0, 1)
    bins = np.arange(len(y)) % 3
    row = compare_stratified_auroc(y, p, worse, bins, study.patients, replicates=300)
    assert row["first"] == stratified_auroc(y, p, bins).value
    assert row["difference"] == row["first"] - stratified_auroc(y, worse, bins).value
    assert 0 < row["low"] < row["difference"] < row["high"]
    # One stratum: the difference of the plain areas, by the same draws.
    whole = compare_stratified_auroc(y, p, worse, np.zeros(len(y)), study.patients, replicates=300)
    plain = compare_labels(y[:, None], p[:, None], worse[:, None], study.patients, stratified=False, **ONE)
    plain = plain.set_index("metric").loc["auroc"]
    assert [whole[name] for name in ("difference", "low", "high")] == pytest.approx(list(plain[["difference", "low", "high"]]))


def test_pairing_makes_intervals_narrow(make_study) -> None:
    study = make_study(patients=60)
    table = compare_labels(study.labels, study.probabilities, study.probabilities**1.05, study.patients, **ONE)
    paired = table.set_index("metric").loc["log_loss"]
    alone = evaluate_labels(*study, **ONE).set_index("metric").loc["log_loss"]
    assert paired["high"] - paired["low"] < 0.3 * (alone["high"] - alone["low"])


def test_the_same_model_twice_and_one_class(make_study) -> None:
    study = make_study(patients=10)
    table = compare_labels(np.zeros_like(study.labels), study.probabilities, study.probabilities, study.patients, **ONE)
    assert table["p_value"].isna().all()
    assert (table["note"] != "").all()
    assert set(table["difference"].dropna()) == {0.0}
