"""Profiles of scans, and what counts as drift."""

import json

import numpy as np
import pandas as pd
import pytest

from ich_lstm.data.profile import SCORES, compare_profiles, profile_scans


def facts(seed: int, scans: int = 200, **changes) -> pd.DataFrame:
    random = np.random.default_rng(seed)
    columns = {
        "slices": random.integers(28, 40, scans),
        "slice_mm": np.full(scans, 5.0),
        "thickness_mm": np.where(random.random(scans) < 0.1, np.nan, 5.0),
        "brain_spread_hu": random.normal(12, 2, scans),
        "kernel": random.choice(["H30", "H31", ""], scans, p=[0.6, 0.3, 0.1]),
        "manufacturer": np.full(scans, "SIEMENS"),
    }
    return pd.DataFrame(columns | {name: np.full(scans, value) for name, value in changes.items()})


def moved(before: pd.DataFrame, now: pd.DataFrame, scores=(None, None)) -> set[str]:
    drift = compare_profiles(profile_scans(before, scores[0]), profile_scans(now, scores[1]))
    return {each.figure for each in drift if each.moved}


@pytest.mark.parametrize("seed", range(10))
def test_scans_of_one_kind_have_not_moved(seed: int) -> None:
    scores = [np.random.default_rng(100 + seed + n).beta(0.3, 2, size) for n, size in ((0, 200), (50, 60))]
    assert moved(facts(seed), facts(50 + seed, scans=60), scores) == set()


@pytest.mark.parametrize(
    ("changes", "figure"),
    [
        ({"slice_mm": 2.5}, "distance between slices, mm"),
        ({"brain_spread_hu": 20.0}, "spread of HU between 0 and 80"),
        ({"kernel": "H60"}, "convolution kernel"),
        ({"manufacturer": "GE MEDICAL SYSTEMS"}, "maker of the scanner"),
    ],
)
def test_what_has_moved_is_named(changes: dict, figure: str) -> None:
    assert moved(facts(1), facts(2, scans=40, **changes)) == {figure}


def test_probabilities_that_have_moved() -> None:
    random = np.random.default_rng(0)
    assert moved(facts(1), facts(2), (random.beta(0.3, 2, 200), random.beta(2, 2, 200))) == {SCORES}


def test_columns_of_an_older_version_may_be_missing() -> None:
    old = facts(1).drop(columns=["brain_spread_hu", "kernel", "manufacturer"])
    assert moved(old, facts(2, brain_spread_hu=40.0)) == set()


def test_it_is_plain_and_finite() -> None:
    profile = profile_scans(facts(1))
    assert json.loads(json.dumps(profile, allow_nan=False)) == profile
    assert profile["numbers"]["slice thickness, mm"]["scans"] < profile["scans"] == 200


def test_words_that_are_not_known_are_not_repeated() -> None:
    """A header may hold a name anywhere, and profiles are shared."""
    texts = ["H30s", "FC26", "SOFT", "Zq19614eb2", "Doe^John", "J40f\\2", ""]
    makers = ["SIEMENS", "GE MEDICAL SYSTEMS", "Doe^John", "", "Canon Inc.", "Zq19614eb2", "Philips Healthcare"]
    words = profile_scans(pd.DataFrame({"kernel": texts, "manufacturer": makers}))["words"]
    assert words["convolution kernel"] == {"other": 2, "H30s": 1, "J40f": 1, "SOFT": 1, "FC26": 1, "not stated": 1}
    assert words["maker of the scanner"] == {"other": 2, "Canon": 1, "GE": 1, "Philips": 1, "Siemens": 1, "not stated": 1}
