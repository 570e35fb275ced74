"""Dealing samples to processes in batches of a slice budget."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from torch.utils.data import DistributedSampler

from ich_lstm.data.loading.sampler import SliceBudgetSampler
from ich_lstm.data.loading.slice_sampling import SliceSampling
from ich_lstm.errors import ConfigError

LENGTHS = np.random.default_rng(5).integers(20, 46, 83).tolist()


def deal(
    lengths: Sequence[int], world: int = 1, epoch: int = 0, *, shuffle: bool = True, budget: int = 100, **changes: Any
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
        for budget in (45, 100, 10_000):
            steps = {
                len(batches) for epoch in range(3) for batches in deal(LENGTHS, world, epoch, shuffle=shuffle, budget=budget)
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

    @pytest.mark.parametrize("shuffle", [True, False])
    @pytest.mark.parametrize("alone", [{"scans_per_batch": 1, "budget": 100}, {"budget": 10}])
    def test_where_each_scan_travels_alone_none_comes_twice(self, alone: dict, shuffle: bool) -> None:
        lengths = LENGTHS * 10
        for epoch in range(3):
            (batches,) = deal(lengths, 1, epoch, shuffle=shuffle, **alone)
            assert sorted(scans_of([batches])) == list(range(len(lengths)))
            assert len(batches) == len(lengths)

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

    def test_the_order_of_the_list_does_not_matter(self) -> None:
        names = [f"1.2.{i}" for i in range(len(LENGTHS))]
        turned = np.random.default_rng(1).permutation(len(LENGTHS)).tolist()
        for shuffle in (True, False):
            here = deal(LENGTHS, 2, 3, shuffle=shuffle, identifiers=names)
            there = deal([LENGTHS[i] for i in turned], 2, 3, shuffle=shuffle, identifiers=[names[i] for i in turned])
            assert [[[turned[scan] for scan in batch] for batch in batches] for batches in there] == here

    def test_nor_with_balance_where_two_scans_share_an_identifier(self) -> None:
        names = ["0", *map(str, range(len(LENGTHS) - 1))]
        lengths = [30, 31, *LENGTHS[2:]]
        weights = np.linspace(0.1, 3, len(LENGTHS))
        turned = [1, 0, *range(2, len(LENGTHS))]
        for epoch in range(20):
            here = deal(lengths, 1, epoch, identifiers=names, weights=weights)
            there = deal([lengths[i] for i in turned], 1, epoch, identifiers=names, weights=weights[turned])
            assert [[[turned[scan] for scan in batch] for batch in batches] for batches in there] == here

    def test_company_is_random(self) -> None:
        """Over the epochs a scan travels with nearly all others."""
        met: set[int] = set()
        for epoch in range(60):
            (company,) = [batch for batch in deal(LENGTHS, epoch=epoch, budget=256)[0] if 0 in batch]
            met.update(company)
        assert len(met) > 0.9 * len(LENGTHS)

    def test_no_scans_no_batches(self) -> None:
        assert deal([], shuffle=False) == [[]]
        assert deal([]) == [[]]

    def test_lightning_leaves_it_alone(self) -> None:
        assert isinstance(SliceBudgetSampler([3], slices_per_batch=4, shuffle=True), DistributedSampler)


class TestWaste:
    """Of lengths as in RSNA's set: about 35 slices, mostly 20 to 60."""

    LENGTHS = np.clip(np.random.default_rng(1).normal(35, 6, 3000).round(), 20, 60).astype(int).tolist()

    @pytest.mark.parametrize("world", [1, 8])
    @pytest.mark.parametrize("budget", [256, 512])
    def test_at_most_two_percent(self, budget: int, world: int) -> None:
        sampler = SliceBudgetSampler(self.LENGTHS, slices_per_batch=budget, shuffle=True, world_size=world)
        assert 1 - sum(self.LENGTHS) / (len(sampler) * world * budget) < 0.02

    def test_ranks_wait_little(self) -> None:
        ranks = deal(self.LENGTHS, 8, budget=256)
        sizes = np.array([[sum(self.LENGTHS[scan] for scan in batch) for batch in batches] for batches in ranks])
        assert sizes.mean() > 0.995 * sizes.max(axis=0).mean()


class TestParts:
    def test_slices_are_counted_as_they_travel(self) -> None:
        for batches in deal([35, 40, 7, 30, 33] * 20, budget=60, sampling=SliceSampling(10)):
            assert all(sum(min(10, [35, 40, 7, 30, 33][scan % 5]) for scan in batch) <= 60 for batch in batches)
            assert max(map(len, batches)) >= 6

    def test_one_scan_and_five_parts(self) -> None:
        assert {len(batch) for batch in deal(LENGTHS, scans_per_batch=1)[0]} == {1}
        assert Counter(len(batch) for batch in deal(LENGTHS[:80], scans_per_batch=5, sampling=SliceSampling(10))[0]) == {5: 16}

    def test_every_slice_once(self) -> None:
        sampling = SliceSampling(8, "every")
        sampler = SliceBudgetSampler(LENGTHS, slices_per_batch=32, shuffle=True, sampling=sampling)
        sampler.set_epoch(2)
        seen: Counter = Counter()
        for batch in sampler:
            for request in batch:
                places = sampling.choose(LENGTHS[request.scan], request, seed=0, identifier="x")
                assert places is not None
                seen.update((request.scan, int(place)) for place in places)
        assert seen == Counter((scan, place) for scan, length in enumerate(LENGTHS) for place in range(length))


class TestWeights:
    WEIGHTS = np.linspace(0.1, 3, len(LENGTHS))

    def test_scans_come_as_often_as_they_should(self) -> None:
        drawn: Counter = Counter()
        for epoch in range(40):
            ranks = deal(LENGTHS, epoch=epoch, weights=self.WEIGHTS)
            drawn.update(scans_of(ranks))
            assert len(scans_of(ranks)) > 0.93 * len(LENGTHS)
        expected = self.WEIGHTS / self.WEIGHTS.mean() * 40
        assert max(abs(drawn[scan] - expected[scan]) for scan in range(len(LENGTHS))) < 4 * np.sqrt(40 / 4)

    def test_each_time_with_other_draws(self) -> None:
        sampler = SliceBudgetSampler(LENGTHS, slices_per_batch=100, shuffle=True, weights=self.WEIGHTS)
        requests = [request for batch in sampler for request in batch]
        assert len(set(requests)) == len(requests)
        assert max(request.draw for request in requests) >= 1

    def test_steps_are_equal_for_all_epochs(self) -> None:
        assert len({len(deal(LENGTHS, 3, epoch, weights=self.WEIGHTS)[0]) for epoch in range(6)}) == 1


@pytest.mark.parametrize("changes", [{}, {"weights": np.linspace(0.1, 3, len(LENGTHS))}, {"sampling": SliceSampling(8, "every")}])
def test_any_number_of_processes_gives_the_same_samples(changes: dict[str, Any]) -> None:
    for epoch in (0, 3):
        samples = []
        for world in (1, 2):
            samplers = [
                SliceBudgetSampler(LENGTHS, slices_per_batch=100, shuffle=True, rank=rank, world_size=world, **changes)
                for rank in range(world)
            ]
            for sampler in samplers:
                sampler.set_epoch(epoch)
            samples.append(Counter(request for sampler in samplers for batch in sampler for request in batch))
        assert samples[0] == samples[1]


class TestState:
    def of(self, seed: int = 1, **changes: Any) -> SliceBudgetSampler:
        return SliceBudgetSampler(LENGTHS, **({"slices_per_batch": 100, "shuffle": True, "seed": seed} | changes))

    def test_the_rest_of_an_epoch(self) -> None:
        first, second = self.of(), self.of()
        first.set_epoch(4)
        whole = list(first)
        first.consumed = 5
        second.load_state_dict(first.state_dict())
        assert list(second) == whole[5:]
        assert second.state_dict()["batches"] == 5
        assert list(second) == whole

    def test_another_epoch_starts_at_its_beginning(self) -> None:
        first, second = self.of(), self.of()
        second.load_state_dict(first.state_dict() | {"epoch": 4, "batches": 5})
        second.set_epoch(5)
        first.set_epoch(5)
        assert list(second) == list(first)

    @pytest.mark.parametrize(
        "changes", [{"seed": 2}, {"slices_per_batch": 120}, {"world_size": 2}, {"sampling": SliceSampling(9)}]
    )
    def test_inside_an_epoch_of_other_batches_stops(self, changes: dict[str, Any]) -> None:
        state = self.of().state_dict() | {"epoch": 4}
        with pytest.raises(ConfigError) as caught:
            self.of(**changes).load_state_dict(state | {"batches": 5})
        assert caught.value.code == "other_batches"
        self.of(**changes).load_state_dict(state | {"batches": 0})
        self.of(**changes).load_state_dict(state | {"batches": len(self.of())})
