"""Predictions moved to a site's share of positive scans, which is estimated without labels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from chosen import make_calibration, make_cases
from scipy import special

from ich_lstm.archive.prevalence_shift import COLUMNS, describe_calibration, move_to_estimated_share
from ich_lstm.errors import ConfigError
from ich_lstm.inference.calibration import ModelCalibration
from ich_lstm.labels import ANY, LABELS

TRAINED = 0.41


@pytest.fixture(scope="module")
def calibration() -> ModelCalibration:
    """For scans of which 41 % are positive."""
    return replace(make_calibration(evidence=make_cases(100)), share=TRAINED)


def write_tables(folder: Path, share: float, scans: int = 4000) -> tuple[Path, Path, np.ndarray]:
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
    slices = slices[~slices["scan_id"].isin(table["scan_id"][refused])]
    paths = folder / "slices.csv", folder / "scans.csv"
    for path, frame in zip(paths, (slices, table), strict=True):
        frame.to_csv(path, index=False)
    return *paths, positive


@pytest.mark.parametrize("share", [0.05, 0.10, 0.6])
def test_the_share_is_found_and_moved_to(calibration: ModelCalibration, tmp_path: Path, share: float) -> None:
    slices, scans, positive = write_tables(tmp_path, share)
    before = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in (slices, scans)]
    estimate = move_to_estimated_share(slices, scans, calibration, replicates=200)
    after = [pd.read_csv(path, dtype=str, keep_default_na=False) for path in (slices, scans)]
    assert estimate.low < share < estimate.high
    assert abs(estimate.value - positive.mean()) < 0.015
    assert "assumes" in estimate.note
    for old, new in zip(before, after, strict=True):
        pd.testing.assert_frame_equal(old.drop(columns=COLUMNS), new.drop(columns=COLUMNS))
    predicted = (after[1]["status"] == "ok").to_numpy()
    moved = after[1][f"calibrated_{ANY}"][predicted].astype(float)
    assert abs(moved.mean() - positive[predicted].mean()) < 0.01
    assert (after[1][COLUMNS][~predicted] == "").all(axis=None)
    assert (after[0]["calibrated_epidural"] == "").all()
    of_slices = after[0].drop_duplicates("scan_id")["calibrated_any"].tolist()
    assert of_slices == after[1]["calibrated_any"][predicted].tolist()


def test_nothing_was_predicted(calibration: ModelCalibration, tmp_path: Path) -> None:
    slices, scans, _ = write_tables(tmp_path, 0.1, scans=20)
    table = pd.read_csv(scans, dtype=str)
    table.assign(status="truncated_pixels").to_csv(scans, index=False)
    slices.unlink()
    before = scans.read_bytes()
    estimate = move_to_estimated_share(slices, scans, calibration)
    assert estimate.value is None
    assert estimate.note
    assert scans.read_bytes() == before


def test_probabilities_that_say_nothing(calibration: ModelCalibration, tmp_path: Path) -> None:
    slices, scans, _ = write_tables(tmp_path, 0.1, scans=20)
    pd.read_csv(scans, dtype=str).assign(calibrated_any="0.5").to_csv(scans, index=False)
    before = slices.read_bytes()
    assert move_to_estimated_share(slices, scans, calibration).value is None
    assert slices.read_bytes() == before


@pytest.mark.parametrize("low", [0.02, 0.9])
def test_a_share_of_nobody_or_everybody_moves_nothing(calibration: ModelCalibration, tmp_path: Path, low: float) -> None:
    slices, scans, _ = write_tables(tmp_path, 0.1, scans=20)
    table = pd.read_csv(scans, dtype=str)
    table.assign(calibrated_any=[str(low + i / 1000) for i in range(len(table))]).to_csv(scans, index=False)
    before = slices.read_bytes(), scans.read_bytes()
    estimate = move_to_estimated_share(slices, scans, calibration)
    assert estimate.value is None
    assert "likelihood" in estimate.note
    assert (slices.read_bytes(), scans.read_bytes()) == before


def test_refused(calibration: ModelCalibration, tmp_path: Path) -> None:
    stated = calibration.choose(prevalence=0.1)
    unknown = replace(calibration, share=None)
    for other, code in ((None, "not_calibrated"), (stated, "two_prevalences"), (unknown, "not_calibrated")):
        with pytest.raises(ConfigError) as caught:
            move_to_estimated_share(tmp_path / "slices.csv", tmp_path / "scans.csv", other)
        assert caught.value.code == code


def test_a_manifest_tells_what_was_applied(calibration: ModelCalibration) -> None:
    assert describe_calibration(None) is None
    about = describe_calibration(calibration.choose(prevalence=0.08))
    assert about["operating_point"]["rule"] == "sensitivity=0.9"
    assert about["operating_point"]["thresholds"]["scan"][ANY] == calibration.points[0].thresholds["scan"][ANY].value
    assert (about["share"], about["prevalence"], about["chosen_on"]) == (TRAINED, 0.08, "validation")
