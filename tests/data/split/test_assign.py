"""Patients into three subsets, and into folds."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import pandas as pd
import pytest

from ich_lstm.data.split.assign import SUBSETS, fold_patients, split_patients
from ich_lstm.errors import SplitError
from ich_lstm.labels import LABELS

SHARES = (0.7, 0.15, 0.15)

RSNA_PATIENTS = 18_938
RSNA_SLICES = {
    "epidural": 3_145,
    "intraparenchymal": 36_118,
    "intraventricular": 26_205,
    "subarachnoid": 35_675,
    "subdural": 47_166,
}
RSNA_POSITIVE = 107_933, 7_600
"""Positive slices of the RSNA 2019 set, and about as many positive patients; the labels' patients are taken in proportion."""


def patients(count: int, positive: float = 0.4, dates: bool = False) -> pd.DataFrame:
    """Patients of whom a share has subdural blood."""
    random = np.random.default_rng(count)
    frame = pd.DataFrame(False, columns=list(LABELS), index=[f"P{i:05d}" for i in range(count)])
    frame["subdural"] = frame["any"] = random.random(count) < positive
    days = pd.Timestamp("2015-01-01") + pd.to_timedelta(random.permutation(count), unit="D")
    return frame.assign(study_date=days.strftime("%Y-%m-%d") if dates else "")


def rsna_patients(seed: int = 0) -> pd.DataFrame:
    """As many patients as RSNA's, with each label in its proportion."""
    random = np.random.default_rng(seed)
    frame = patients(RSNA_PATIENTS, 0)
    slices, positive = RSNA_POSITIVE
    bleeding = random.permutation(RSNA_PATIENTS)[:positive]
    for label, count in RSNA_SLICES.items():
        chosen = random.choice(bleeding, count * positive // slices, replace=False)
        frame.iloc[chosen, frame.columns.get_loc(label)] = True
    return frame.assign(any=frame[list(RSNA_SLICES)].any(axis=1))


def spread(frame: pd.DataFrame, places: Mapping[str, object]) -> pd.Series:
    """Per label: largest minus smallest number of positive patients of a place, as a share of their mean."""
    counts = frame[list(LABELS)].groupby(pd.Series(places)).sum()
    return (counts.max() - counts.min()) / counts.mean()


class TestSplitPatients:
    @pytest.mark.parametrize("count", [2, 3, 5, 10, 100, 1003])
    def test_every_patient_is_in_one_part(self, count: int) -> None:
        subsets = split_patients(patients(count), SHARES)
        assert set(subsets) == set(patients(count).index)
        assert set(subsets.values()) <= set(SUBSETS)
        assert {"train", "validation"} <= set(subsets.values())

    @pytest.mark.parametrize("shares", [SHARES, (0.8, 0.2, 0), (1, 1, 1), (70, 15, 15)])
    def test_shares_are_kept_and_positive_patients_spread(self, shares: tuple[float, ...]) -> None:
        known = patients(400)
        subsets = split_patients(known, shares)
        sizes, positive = Counter(subsets.values()), Counter(subsets[name] for name in known.index[known["any"]])
        for subset, share in zip(SUBSETS, shares, strict=True):
            share /= sum(shares)
            assert abs(sizes[subset] - share * len(known)) <= 2
            assert abs(positive[subset] - share * known["any"].sum()) <= 2

    def test_every_label_comes_in_the_shares_wanted(self) -> None:
        known = rsna_patients()
        counts = known[list(LABELS)].groupby(pd.Series(split_patients(known, SHARES))).sum().loc[list(SUBSETS)]
        wanted = np.outer(SHARES, known[list(LABELS)].sum())
        assert (abs(counts.to_numpy() - wanted) <= 0.05 * wanted).all()

    def test_rare_labels_reach_every_part(self) -> None:
        known = patients(60)
        known.loc[known.index[:3], "epidural"] = True
        subsets = split_patients(known, (1, 1, 1))
        assert {subsets[name] for name in known.index[:3]} == set(SUBSETS)

    def test_order_does_not_matter(self) -> None:
        known = patients(50)
        assert split_patients(known[::-1], SHARES) == split_patients(known, SHARES)

    def test_a_seed_is_a_split(self) -> None:
        splits = [split_patients(patients(50), SHARES, seed=seed) for seed in (1, 1, 2)]
        assert splits[0] == splits[1] != splits[2]

    def test_names_do_not_sort_patients_into_parts(self) -> None:
        subsets = split_patients(patients(300, 0), (1, 1, 1))
        first = Counter(subsets[name] for name in sorted(subsets)[:100])
        assert min(first.values()) > 15

    @pytest.mark.parametrize("positive", [0, 1])
    def test_one_class_alone(self, positive: int) -> None:
        assert Counter(split_patients(patients(100, positive), SHARES).values()) == {"train": 70, "validation": 15, "test": 15}

    def test_two_patients_train_and_validate(self) -> None:
        for seed in range(20):
            subsets = split_patients(patients(2), SHARES, seed=seed)
            assert sorted(subsets.values()) == ["train", "validation"]

    @pytest.mark.parametrize("count", [0, 1])
    def test_fewer_are_refused(self, count: int) -> None:
        with pytest.raises(SplitError) as caught:
            split_patients(patients(count), SHARES)
        assert caught.value.code == "too_few_patients"

    @pytest.mark.parametrize("shares", [(0.7, 0.3), (0, 0.5, 0.5), (0.5, 0, 0.5), (0.9, 0.2, -0.1), ()])
    def test_shares_that_make_no_sense(self, shares: tuple[float, ...]) -> None:
        with pytest.raises(SplitError) as caught:
            split_patients(patients(10), shares)
        assert caught.value.code == "fractions_out_of_range"


class TestByDate:
    def test_the_earliest_train_and_the_latest_are_held_out(self) -> None:
        known = patients(100, dates=True)
        subsets = pd.Series(split_patients(known, SHARES, by="date"))
        assert Counter(subsets) == {"train": 70, "validation": 15, "test": 15}
        days = known["study_date"].groupby(subsets)
        assert days.max()["train"] < days.min()["validation"]
        assert days.max()["validation"] < days.min()["test"]

    def test_nobody_is_held_out_if_nobody_is_wanted(self) -> None:
        assert Counter(split_patients(patients(100, dates=True), (0.8, 0.2, 0), by="date").values()) == {
            "train": 80,
            "validation": 20,
        }

    def test_one_day_stays_together(self) -> None:
        known = patients(100, dates=True)
        known["study_date"] = known["study_date"].str[:-1] + "0"  # ten days as one
        subsets = pd.Series(split_patients(known, SHARES, by="date"))
        assert (subsets.groupby(known["study_date"]).nunique() == 1).all()

    def test_patients_without_a_date_are_counted(self) -> None:
        known = patients(20, dates=True)
        known.iloc[3:7, -1] = ""
        with pytest.raises(SplitError, match="4 of 20") as caught:
            split_patients(known, SHARES, by="date")
        assert caught.value.code == "no_study_date"

    def test_one_date_for_all_is_no_split(self) -> None:
        with pytest.raises(SplitError) as caught:
            split_patients(patients(20).assign(study_date="2020-02-02"), SHARES, by="date")
        assert caught.value.code == "too_few_dates"


class TestFoldPatients:
    @pytest.mark.parametrize("folds", [3, 5, 10])
    def test_folds_of_rsna_differ_by_at_most_a_tenth(self, folds: int) -> None:
        known = rsna_patients(folds)
        places = fold_patients(known, folds, seed=folds)
        assert spread(known, places).max() <= 0.1
        sizes = Counter(places.values())
        assert set(sizes) == set(range(folds))
        assert max(sizes.values()) - min(sizes.values()) <= 2

    @pytest.mark.parametrize(("count", "folds", "code"), [(10, 2, "folds_out_of_range"), (4, 5, "too_few_patients")])
    def test_too_few(self, count: int, folds: int, code: str) -> None:
        with pytest.raises(SplitError) as caught:
            fold_patients(patients(count), folds)
        assert caught.value.code == code
