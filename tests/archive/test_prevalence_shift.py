"""Predictions moved to a site's share of positive scans, which is estimated without labels."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from chosen import make_calibration, make_cases
from scipy import special

from ich_lstm.archive.prevalence_shift import COLUMNS, describe_calibration, estimate_share, move_to_share
from ich_lstm.errors import ConfigError
from ich_lstm.inference.calibration import ModelCalibration
from ich_lstm.labels import ANY, LABELS
from ich_lstm.statistics.estimate import undefined

TRAINED = 0.41


@pytest.fixture(scope="module")
def calibration() -> ModelCalibration:
    """For scans of which 41 % are positive."""
    return replace(make_calibration(evidence=make_cases(100)), share=TRAINED)


def make_tables(share: float, scans: int = 4000) -> tuple[pd.DataFrame, pd.DataFrame, np.ndarray]:
    """Predictions of a site with calibrated probabilities, one study in a hundred refused; and the truth about "any"."""
    random = np.random.default_rng(0)
    positive = random.random(scans) < share
    p = special.expit(special.logit(TRAINED) + 2 * random.normal(np.where(positive, 1.0, -1.0)))
    table = pd.DataFrame({"scan_id": [f"{i:016d}" for i in range(scans)], "patient_id": [f"{i // 2:04d}" for i in range(scans)]})
    table.loc[::7, "patient_id"] = ""
    table = table.assign(**dict.fromkeys(LABELS, 0.123456789012345678), **dict.fromkeys(COLUMNS, p), flags="tilt", status="ok")
    table = table.assign(calibrated_epidural=np.nan)  # a label that could not be calibrated
    slices = table[["scan_id", *LABELS, *COLUMNS]].loc[table.index.repeat(2)].assign(slice_id="0001")
    refused = np.arange(scans) % 100 == 50
    table.loc[refused, [*LABELS, *COLUMNS]] = np.nan
    table.loc[refused, "status"] = "truncated_pixels"
    return slices[~slices["scan_id"].isin(table["scan_id"][refused])], table, positive


@pytest.mark.parametrize("share", [0.05, 0.10, 0.6])
def test_the_share_is_found_and_moved_to(calibration: ModelCalibration, share: float) -> None:
    slices, scans, positive = make_tables(share)
    estimate = estimate_share(scans, calibration, replicates=200)
    assert estimate.low < share < estimate.high
    assert abs(estimate.value - positive.mean()) < 0.015
    assert "assumes" in estimate.note
    predicted = (scans["status"] == "ok").to_numpy()
    before = slices, scans[predicted]
    after = move_to_share(*before, estimate, calibration)
    for old, new in zip(before, after, strict=True):
        pd.testing.assert_frame_equal(old.drop(columns=COLUMNS), new.drop(columns=COLUMNS))
        assert new["calibrated_epidural"].isna().all()
    moved = after[1][f"calibrated_{ANY}"]
    assert abs(moved.mean() - positive[predicted].mean()) < 0.01
    assert after[0].drop_duplicates("scan_id")["calibrated_any"].tolist() == moved.tolist()


def test_a_study_alone_is_moved_as_among_all(calibration: ModelCalibration) -> None:
    slices, scans, _ = make_tables(0.1, scans=40)
    estimate, scans = estimate_share(scans, calibration, replicates=100), scans[scans["status"] == "ok"]
    whole = move_to_share(slices, scans, estimate, calibration)
    name = scans["scan_id"].iloc[3]
    alone = move_to_share(slices[slices["scan_id"] == name], scans[scans["scan_id"] == name], estimate, calibration)
    for one, all_of_them in zip(alone, whole, strict=True):
        pd.testing.assert_frame_equal(one, all_of_them[all_of_them["scan_id"] == name])


def test_nothing_was_predicted(calibration: ModelCalibration) -> None:
    _, scans, _ = make_tables(0.1, scans=20)
    estimate = estimate_share(scans.assign(status="truncated_pixels"), calibration)
    assert estimate.value is None
    assert estimate.note


def test_probabilities_that_say_nothing(calibration: ModelCalibration) -> None:
    slices, scans, _ = make_tables(0.1, scans=20)
    estimate = estimate_share(scans.assign(calibrated_any=0.5), calibration)
    assert estimate.value is None
    assert move_to_share(slices, scans, estimate, calibration)[0] is slices


@pytest.mark.parametrize("low", [0.02, 0.9])
def test_a_share_of_nobody_or_everybody_moves_nothing(calibration: ModelCalibration, low: float) -> None:
    slices, scans, _ = make_tables(0.1, scans=20)
    estimate = estimate_share(scans.assign(calibrated_any=[low + i / 1000 for i in range(len(scans))]), calibration)
    assert estimate.value is None
    assert "likelihood" in estimate.note
    after = move_to_share(slices, scans, estimate, calibration)
    assert after[0] is slices
    assert after[1] is scans


def test_refused(calibration: ModelCalibration) -> None:
    slices, scans, _ = make_tables(0.1, scans=20)
    stated = calibration.choose(prevalence=0.1)
    unknown = replace(calibration, share=None)
    for other, code in ((None, "not_calibrated"), (stated, "two_prevalences"), (unknown, "not_calibrated")):
        for call in (
            lambda other=other: estimate_share(scans, other),
            lambda other=other: move_to_share(slices, scans, undefined("unknown"), other),
        ):
            with pytest.raises(ConfigError) as caught:
                call()
            assert caught.value.code == code


def test_a_manifest_tells_what_was_applied(calibration: ModelCalibration) -> None:
    assert describe_calibration(None) is None
    about = describe_calibration(calibration.choose(prevalence=0.08))
    assert about["operating_point"]["rule"] == "sensitivity=0.9"
    assert about["operating_point"]["thresholds"]["scan"][ANY] == calibration.points[0].thresholds["scan"][ANY].value
    assert (about["share"], about["prevalence"], about["chosen_on"]) == (TRAINED, 0.08, "validation")
