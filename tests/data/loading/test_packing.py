"""Filling batches to a budget of slices."""

from itertools import chain

import numpy as np
import pytest

from ich_lstm.data.loading.packing import pack, spread_to

RANDOM = np.random.default_rng(3)


@pytest.mark.parametrize(
    "lengths",
    [RANDOM.integers(20, 61, 500), RANDOM.integers(1, 400, 500), np.full(50, 10), np.array([200]), np.array([], int)],
    ids=["scans", "anything", "alike", "one", "none"],
)
class TestPack:
    @pytest.mark.parametrize(("budget", "most"), [(256, 1000), (100, 3), (60, 1), (5, 1000)])
    def test_everything_once_and_within_the_budget(self, lengths: np.ndarray, budget: int, most: int) -> None:
        batches = pack(lengths, budget, most)
        assert sorted(place for batch in batches for place in batch) == list(range(len(lengths)))
        assert all(batches)
        assert all(len(batch) == 1 or lengths[batch].sum() <= budget for batch in batches)
        assert all(len(batch) <= most for batch in batches)

    def test_not_more_batches_than_first_fit(self, lengths: np.ndarray) -> None:
        room: list[int] = []
        for length in -np.sort(-lengths):
            place = next((i for i, left in enumerate(room) if left >= length), len(room))
            room[place : place + 1] = [(room[place] if place < len(room) else 256) - length]
        assert len(pack(lengths, 256, 1000)) <= 1.02 * len(room) + 1


def test_what_is_next_in_line_goes_first() -> None:
    """Only the end of a batch is chosen."""
    lengths = RANDOM.integers(20, 61, 500)
    (first, *_) = pack(lengths, 512, 1000)
    assert first[:8] == list(range(8))


def test_batches_are_full() -> None:
    lengths = RANDOM.integers(20, 61, 3000)
    assert len(pack(lengths, 256, 1000)) <= 1.002 * lengths.sum() / 256 + 1


class TestSpreadTo:
    LENGTHS = RANDOM.integers(20, 61, 400).tolist()

    @pytest.mark.parametrize(("missing", "group"), [(0, 1), (1, 1), (3, 8), (7, 8), (2, 3)])
    def test_the_same_items_in_more_batches(self, missing: int, group: int) -> None:
        batches = pack(self.LENGTHS, 256, 1000)
        batches = batches[: len(batches) - (len(batches) + missing) % group or None]
        more = spread_to(batches, self.LENGTHS, len(batches) + missing, group)
        assert len(more) == len(batches) + missing
        assert sorted(chain.from_iterable(more)) == sorted(chain.from_iterable(batches))
        sizes = sorted(sum(self.LENGTHS[place] for place in batch) for batch in more)
        assert sizes[-1] <= 256
        assert sizes[0] > 256 / 3
        groups = np.array(sizes).reshape(-1, group)
        assert np.ptp(groups, axis=1).max() < 40

    def test_single_items_stay(self) -> None:
        assert sorted(spread_to([[0], [1, 2]], [5, 5, 5], 9, 3)) == [[0], [1], [2]]
        assert spread_to([], [], 2, 1) == []
