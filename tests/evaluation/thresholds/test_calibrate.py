"""Operating points and recalibration: chosen on validation, applied elsewhere."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from chosen import make_calibration, make_cases

from ich_lstm.errors import ConfigError, TableError
from ich_lstm.evaluation.aggregate import cases_at
from ich_lstm.evaluation.evidence import Evidence, columns_of
from ich_lstm.evaluation.figures import compute_figures
from ich_lstm.evaluation.protocols import all_figures
from ich_lstm.evaluation.thresholds.calibrate import calibrate_evidence, check_unseen, operating_thresholds
from ich_lstm.labels import ANY, LABELS
from ich_lstm.statistics import FigureSettings, calibration_line


def with_label(evidence: Evidence, level: str, label: str, value: float) -> Evidence:
    """The same cases with one label alike in all of them."""
    return replace(evidence, **{f"{level}s": getattr(evidence, f"{level}s").assign(**{f"label_{label}": value})})


class TestOperatingPoints:
    def test_reach_what_was_wished_on_validation(self) -> None:
        evidence = make_cases()
        calibration = make_calibration("sensitivity=0.95", "specificity=0.8", "youden", evidence=evidence)
        sensitive, specific, youden = calibration.points
        for level in ("slice", "scan"):
            cases = cases_at(evidence, level)
            for k, label in enumerate(LABELS):
                found = sensitive.thresholds[level][label]
                y, called = cases.labels[:, k] == 1, cases.probabilities[:, k] >= found.value
                assert found.sensitivity.value == called[y].mean() >= 0.95
                assert found.specificity.value == (~called[~y]).mean()
                assert (found.positives, found.negatives) == (y.sum(), (~y).sum())
                assert specific.thresholds[level][label].specificity.value >= 0.8
                sums = [sum(p.thresholds[level][label][i].value for i in (1, 2)) for p in (youden, sensitive, specific)]
                assert sums[0] == max(sums)

    def test_intervals_hold_the_figures_and_are_over_patients(self) -> None:
        for found in make_calibration("youden").points[0].thresholds["slice"].values():
            for estimate in (found.sensitivity, found.specificity):
                assert estimate.low < estimate.value < estimate.high
                assert "patient" in estimate.method

    def test_alarms_are_scans(self) -> None:
        evidence = make_cases()
        points = make_calibration("alarms=20", evidence=evidence).points[0]
        called = cases_at(evidence, "scan").probabilities >= points.values("scan")
        assert (100 * called.mean(axis=0) <= 20).all()
        rings = (
            pd.DataFrame(cases_at(evidence, "slice").probabilities >= points.values("slice")).groupby(evidence.scan_index).any()
        )
        assert rings.mean().between(0.19, 0.20).all()

    def test_one_class_is_told_and_the_others_are_chosen(self) -> None:
        evidence = with_label(make_cases(), "scan", "epidural", 0.0)
        calibration = make_calibration(evidence=evidence)
        found = calibration.points[0].thresholds["scan"]
        assert found["epidural"].value is None
        assert found["epidural"].note == found["epidural"].sensitivity.note
        assert "0 positive" in found["epidural"].note
        assert all(found[label].value is not None for label in LABELS if label != "epidural")
        assert "0 positive" in calibration.corrections["scan"]["epidural"].note
        assert calibration.points[0].thresholds["slice"]["epidural"].value is not None

    def test_unknown_labels_are_left_out(self) -> None:
        evidence = make_cases()
        scans = evidence.scans.copy()
        scans.loc[::2, "label_any"] = np.nan
        some = make_calibration(evidence=replace(evidence, scans=scans)).points[0].thresholds["scan"]["any"]
        rows = scans.loc[1::2]
        assert some.positives + some.negatives == len(rows)
        assert some.sensitivity.value == (rows["any"] >= some.value)[rows["label_any"] == 1].mean() >= 0.9


class TestRecalibration:
    @pytest.mark.parametrize("slope", [0.5, 2.0])
    def test_platt_recovers_a_distortion(self, slope: float) -> None:
        calibration = make_calibration(evidence=make_cases(4000, slope=slope, intercept=0.8))
        for corrections in calibration.corrections.values():
            for correction in corrections.values():
                assert correction.recalibration.slope == pytest.approx(1 / slope, rel=0.15)
                assert correction.recalibration.intercept == pytest.approx(-0.8 / slope, abs=0.2)

    def test_temperature_recovers_a_distortion(self) -> None:
        calibration = make_calibration(evidence=make_cases(4000, slope=2.5), method="temperature")
        for corrections in calibration.corrections.values():
            assert [c.recalibration.temperature for c in corrections.values()] == pytest.approx([2.5] * 6, rel=0.15)
            assert all(c.recalibration.intercept == 0 for c in corrections.values())

    def test_other_patients_are_calibrated_by_it(self) -> None:
        distortion = {"slope": 2.0, "intercept": 1.0}
        calibration = make_calibration(evidence=make_cases(4000, **distortion))
        before = make_cases(4000, seed=1, name="t", part="test", **distortion)
        after = calibrate_evidence(before, calibration)
        for level in ("slice", "scan"):
            for k in range(len(LABELS)):
                lines = [
                    calibration_line(cases_at(e, level).labels[:, k], cases_at(e, level).probabilities[:, k])
                    for e in (before, after)
                ]
                assert abs(lines[0].slope.value - 0.5) < 0.1
                assert abs(lines[1].slope.value - 1) < 0.2
                assert abs(lines[1].in_the_large.value) < 0.2
        assert any("calibrated" in note for note in after.source["notes"])
        assert columns_of(before.scans, "").tolist() != columns_of(after.scans, "").tolist()

    def test_scans_are_calibrated_by_their_own_output(self) -> None:
        evidence = make_cases()
        other = replace(evidence, slices=evidence.slices.assign(any=1 - evidence.slices["any"]))
        assert make_calibration(evidence=other).corrections["scan"] == make_calibration(evidence=evidence).corrections["scan"]

    def test_a_label_that_is_upside_down_is_told_and_stays(self) -> None:
        evidence = make_cases()
        evidence = replace(evidence, scans=evidence.scans.assign(subdural=1 - evidence.scans["subdural"]))
        calibration = make_calibration(evidence=evidence)
        assert calibration.corrections["scan"]["subdural"].recalibration is None
        assert calibration.corrections["scan"]["subdural"].note
        test = make_cases(50, name="t", part="test")
        after = calibrate_evidence(test, calibration)
        assert after.scans["subdural"].tolist() == test.scans["subdural"].tolist()
        assert any("subdural" in note for note in after.source["notes"])
        assert np.isnan(
            calibration.correct(*(columns_of(f, "") for f in (test.slices, test.scans)), test.scan_index)[1][:, 4]
        ).all()

    def test_the_share_at_which_probabilities_are_right(self) -> None:
        evidence = make_cases()
        validation = float(evidence.scans["label_any"].mean())
        assert (make_calibration(training_share=0.41).share, make_calibration().share_of) == (validation, "validation")
        temperature = make_calibration(method="temperature", training_share=0.41)
        assert (temperature.share, temperature.share_of) == (0.41, "training")
        assert make_calibration(method="temperature").share == validation


class TestRefused:
    def code(self, action, *arguments) -> str:
        with pytest.raises((ConfigError, TableError)) as caught:
            action(*arguments)
        assert caught.value.todo
        return caught.value.code

    def test_choosing_on_what_is_reported(self) -> None:
        for evidence in (
            make_cases(part="test"),
            replace(make_cases(part="test"), is_test=False),
            replace(make_cases(), is_test=True),
        ):
            with pytest.raises(ConfigError) as caught:
                make_calibration(evidence=evidence)
            assert caught.value.code == "chosen_on_test"

    @pytest.mark.parametrize(
        "apply", [check_unseen, lambda c, e: operating_thresholds(e, c), lambda c, e: calibrate_evidence(e, c)]
    )
    def test_judging_on_what_was_chosen_on(self, apply) -> None:
        evidence = make_cases()
        calibration = make_calibration(evidence=evidence)
        assert self.code(apply, calibration, evidence) == "chosen_on_these_cases"
        # Called a test part, one scan of it among others, or another scan of the same patient: still the same people.
        assert self.code(apply, calibration, replace(evidence, is_test=True)) == "chosen_on_these_cases"
        other = make_cases(50, name="t", part="test")
        for column in ("scan_id", "patient_id"):
            scans = other.scans.copy()
            scans.loc[3, column] = evidence.scans[column][7]
            slices = other.slices.replace({"scan_id": {other.scans["scan_id"][3]: scans["scan_id"][3]}})
            assert self.code(apply, calibration, replace(other, scans=scans, slices=slices)) == "chosen_on_these_cases"
        apply(calibration, other)

    def test_another_model(self) -> None:
        test = make_cases(50, name="t", part="test")
        test = replace(test, source={**test.source, "model": {"name": "m", "hash": "ba9876543210"}})
        assert self.code(check_unseen, make_calibration(), test) == "calibration_of_another_model"
        assert self.code(check_unseen, make_calibration(), replace(test, source={**test.source, "model": {}})) == (
            "calibration_of_another_model"
        )

    def test_a_model_that_is_not_there(self) -> None:
        evidence = make_cases(50)
        with pytest.raises(ConfigError) as caught:
            make_calibration(evidence=replace(evidence, source={**evidence.source, "model": {}}))
        assert caught.value.code == "unknown_model"

    def test_one_rule_twice(self) -> None:
        with pytest.raises(ConfigError) as caught:
            make_calibration("sensitivity=0.9", "sensitivity=0.90")
        assert caught.value.code == "repeated_rule"

    def test_nothing_to_choose_on(self) -> None:
        evidence = make_cases(50)
        for level in ("slice", "scan"):
            for label in LABELS:
                evidence = with_label(evidence, level, label, np.nan)
        with pytest.raises(TableError) as caught:
            make_calibration(evidence=evidence)
        assert caught.value.code == "nothing_to_choose"

    def test_probabilities_that_are_none(self) -> None:
        evidence = make_cases(50)
        evidence.scans.loc[4, "any"] = np.nan
        with pytest.raises(TableError) as caught:
            make_calibration(evidence=evidence)
        assert caught.value.code == "bad_probability"


class TestFigures:
    def test_are_those_at_the_thresholds(self) -> None:
        calibration = make_calibration("youden", "sensitivity=0.9").choose("sensitivity=0.9")
        test = make_cases(100, name="t", part="test")
        thresholds, notes = operating_thresholds(test, calibration)
        figures = compute_figures(test, all_figures(), thresholds=thresholds, settings=FigureSettings(replicates=100))
        value = calibration.points[1].thresholds["scan"][ANY].value
        (row,) = figures.table.query("level == 'scan' and label == 'any' and metric == 'sensitivity'").head(1).to_dict("records")
        assert row["threshold"] == value
        assert row["value"] == (test.scans["any"] >= value)[test.scans["label_any"] == 1].mean()
        assert "sensitivity=0.9" in notes[0]

    def test_a_label_without_a_threshold_is_told(self) -> None:
        calibration = make_calibration(evidence=with_label(make_cases(), "scan", "epidural", 0.0))
        thresholds, notes = operating_thresholds(make_cases(50, name="t", part="test"), calibration)
        assert thresholds["scan"][0] == 0.5
        assert sum("epidural" in note for note in notes) == 1
