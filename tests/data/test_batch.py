"""Packing scans into batches, and dealing batches to processes."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from fabricated import make_sample
from torch.utils.data import DistributedSampler

from ich_lstm import LABELS
from ich_lstm.data.batch import SliceBudgetSampler, pack_scans

LENGTHS = np.random.default_rng(5).integers(20, 46, 83).tolist()


def deal(
    lengths: Sequence[int], world: int = 1, epoch: int = 0, *, shuffle: bool = True, budget: int = 100, **changes: int
) -> list[list[list[int]]]:
    """What each rank gets in an epoch: for each rank its batches, for each batch its scans."""
    ranks = []
    for rank in range(world):
        sampler = SliceBudgetSampler(
            lengths, slices_per_batch=budget, shuffle=shuffle, rank=rank, world_size=world, **({"seed": 1} | changes)
        )
        sampler.set_epoch(epoch)
        requests = list(sampler)
        assert len(requests) == len(sampler)
        assert {request.epoch for batch in requests for request in batch} <= {epoch}
        ranks.append([[request.scan for request in batch] for batch in requests])
    return ranks


def scans_of(ranks: list[list[list[int]]]) -> list[int]:
    return [scan for batches in ranks for batch in batches for scan in batch]


class TestPackScans:
    def test_slices_stand_in_a_row(self) -> None:
        samples = [make_sample(3), make_sample(1), make_sample(5)]
        batch = pack_scans(samples)
        assert batch.lengths.tolist() == [3, 1, 5]
        assert batch.hu.shape == (9, 32, 32)
        assert (batch.hu.dtype, batch.lengths.dtype, batch.positions_mm.dtype) == (torch.int16, torch.int64, torch.float32)
        assert batch.scan_ids == [sample.scan_id for sample in samples]
        for i, sample in enumerate(samples):
            for packed, single in zip(batch[:4:2], sample[:2], strict=True):
                np.testing.assert_array_equal(packed.split([3, 1, 5])[i], single)
            np.testing.assert_array_equal(batch.slice_labels.split([3, 1, 5])[i], sample.slice_labels)
            np.testing.assert_array_equal(batch.scan_labels[i], sample.scan_labels)

    def test_nothing_packs_to_an_empty_batch(self) -> None:
        batch = pack_scans([])
        assert len(batch.hu) == len(batch.lengths) == len(batch.positions_mm) == len(batch.scan_ids) == 0
        assert batch.slice_labels.shape == batch.scan_labels.shape == (0, len(LABELS))
        full = pack_scans([make_sample(3)])
        assert [tensor.dtype for tensor in batch[:5]] == [tensor.dtype for tensor in full[:5]]


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("shuffle", [True, False])
class TestEveryRank:
    def test_each_scan_once_per_epoch(self, world: int, shuffle: bool) -> None:
        for epoch in range(5):
            assert sorted(scans_of(deal(LENGTHS, world, epoch, shuffle=shuffle))) == list(range(len(LENGTHS)))

    def test_the_budget_is_kept(self, world: int, shuffle: bool) -> None:
        for epoch in range(5):
            for batches in deal(LENGTHS, world, epoch, shuffle=shuffle):
                assert max(sum(LENGTHS[scan] for scan in batch) for batch in batches) <= 100

    def test_steps_are_equal_for_all_ranks_and_epochs(self, world: int, shuffle: bool) -> None:
        for budget in (45, 60, 100, 256, 10_000):
            steps = {
                len(batches) for epoch in range(6) for batches in deal(LENGTHS, world, epoch, shuffle=shuffle, budget=budget)
            }
            assert len(steps) == 1

    def test_batches_are_well_filled(self, world: int, shuffle: bool) -> None:
        steps = len(deal(LENGTHS, world, shuffle=shuffle)[0])
        assert steps * world <= 1.15 * sum(LENGTHS) / 100 + world

    def test_ranks_of_a_step_have_like_work(self, world: int, shuffle: bool) -> None:
        for step in zip(*deal(LENGTHS, world, shuffle=shuffle), strict=True):
            sizes = [sum(LENGTHS[scan] for scan in batch) for batch in step]
            assert not shuffle or min(sizes) > 0
            assert max(sizes) - min(sizes) <= 45 or not all(sizes)

    @pytest.mark.parametrize("count", [1, 2, 3, 5])
    def test_a_handful_of_scans(self, world: int, shuffle: bool, count: int) -> None:
        ranks = deal(LENGTHS[:count], world, shuffle=shuffle)
        assert len({len(batches) for batches in ranks}) == 1
        seen = Counter(scans_of(ranks))
        assert set(seen) == set(range(count))
        if shuffle:
            # A training step without a batch would leave the other processes waiting.
            assert all(batch for batches in ranks for batch in batches)
        if not shuffle or count >= world:
            assert max(seen.values()) == 1


class TestSliceBudgetSampler:
    def test_an_overlong_scan_travels_alone(self) -> None:
        for shuffle in (True, False):
            (batches,) = deal([30, 300, 20, 25], shuffle=shuffle)
            assert [1] in batches
            assert sorted(scans_of([batches])) == [0, 1, 2, 3]

    def test_at_most_so_many_scans(self) -> None:
        for world in (1, 3):
            ranks = deal(LENGTHS, world, budget=10_000, scans_per_batch=4)
            assert max(len(batch) for batches in ranks for batch in batches) <= 4
            assert sorted(scans_of(ranks)) == list(range(len(LENGTHS)))

    def test_another_epoch_another_order(self) -> None:
        epochs = [deal(LENGTHS, epoch=epoch) for epoch in range(4)]
        assert len({str(epoch) for epoch in epochs}) == 4
        companies = [{frozenset(batch) for batch in epoch[0]} for epoch in epochs]
        assert len(companies[0] & companies[1]) < len(companies[0]) / 2

    def test_same_seed_same_order(self) -> None:
        assert deal(LENGTHS, 2, 3) == deal(LENGTHS, 2, 3)
        assert deal(LENGTHS, 2, 3, seed=2) != deal(LENGTHS, 2, 3)

    def test_evaluation_is_always_the_same(self) -> None:
        assert deal(LENGTHS, 2, 0, shuffle=False) == deal(LENGTHS, 2, 7, shuffle=False, seed=9)

    def test_scans_of_one_length_meet_other_company_too(self) -> None:
        lengths = [30] * 20 + [32] * 20
        mixed = sum(len({lengths[scan] for scan in batch}) > 1 for batch in deal(lengths)[0])
        assert mixed > 2

    def test_no_scans_no_batches(self) -> None:
        assert deal([], shuffle=False) == [[]]

    def test_lightning_leaves_it_alone(self) -> None:
        assert isinstance(SliceBudgetSampler([3], slices_per_batch=4, shuffle=True), DistributedSampler)
