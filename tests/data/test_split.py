"""Patients into three parts."""

from collections import Counter

import numpy as np
import pytest

from ich_lstm.data.split import PARTS, split_patients
from ich_lstm.errors import SplitError

SHARES = (0.7, 0.15, 0.15)


def patients(count: int, positive: float = 0.4) -> dict[str, bool]:
    random = np.random.default_rng(count)
    return {f"P{i:05d}": bool(random.random() < positive) for i in range(count)}


class TestSplitPatients:
    @pytest.mark.parametrize("count", [2, 3, 5, 10, 100, 1003])
    def test_every_patient_is_in_one_part(self, count: int) -> None:
        parts = split_patients(patients(count), SHARES)
        assert set(parts) == set(patients(count))
        assert set(parts.values()) <= set(PARTS)
        assert {"train", "validation"} <= set(parts.values())

    @pytest.mark.parametrize("shares", [SHARES, (0.8, 0.2, 0), (1, 1, 1), (70, 15, 15)])
    def test_shares_are_kept_and_positive_patients_spread(self, shares: tuple[float, ...]) -> None:
        known = patients(400)
        parts = split_patients(known, shares)
        sizes, positive = Counter(parts.values()), Counter(parts[name] for name in known if known[name])
        for part, share in zip(PARTS, shares, strict=True):
            share /= sum(shares)
            assert abs(sizes[part] - share * len(known)) <= 2
            assert abs(positive[part] - share * sum(known.values())) <= 2

    def test_order_does_not_matter(self) -> None:
        known = patients(50)
        assert split_patients(dict(reversed(known.items())), SHARES) == split_patients(known, SHARES)

    def test_a_seed_is_a_split(self) -> None:
        known = patients(50)
        splits = [split_patients(known, SHARES, seed=seed) for seed in (1, 1, 2)]
        assert splits[0] == splits[1] != splits[2]

    def test_names_do_not_sort_patients_into_parts(self) -> None:
        parts = split_patients(dict.fromkeys(patients(300), False), (1, 1, 1))
        first = Counter(parts[name] for name in sorted(parts)[:100])
        assert min(first.values()) > 15

    @pytest.mark.parametrize("positive", [0, 1])
    def test_one_class_alone(self, positive: int) -> None:
        assert Counter(split_patients(patients(100, positive), SHARES).values()) == {"train": 70, "validation": 15, "test": 15}

    def test_two_patients_train_and_validate(self) -> None:
        for seed in range(20):
            parts = split_patients({"a": True, "b": False}, SHARES, seed=seed)
            assert sorted(parts.values()) == ["train", "validation"]

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
