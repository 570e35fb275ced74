"""Which slices make a sample, and what is known of them."""

import numpy as np
import pytest

from ich_lstm.data.loading.slice_sampling import SampleRequest, SliceSampling, scan_labels_of_sample
from ich_lstm.errors import ConfigError
from ich_lstm.labels import LABELS

NAN = np.nan


def places(
    sampling: SliceSampling, length: int = 35, epoch: int = 0, draw: int = 0, seed: int = 0, name: str = "1.2"
) -> list[int]:
    chosen = sampling.choose(length, SampleRequest(0, epoch, draw), seed=seed, identifier=name)
    return list(range(length)) if chosen is None else chosen.tolist()


class TestChoose:
    def test_adjacent_slices(self) -> None:
        for epoch in range(50):
            chosen = places(SliceSampling(10), epoch=epoch)
            assert chosen == list(range(chosen[0], chosen[0] + 10))
            assert 0 <= chosen[0] <= 25

    def test_the_centre_is_clamped_to_the_ends(self) -> None:
        """So the ends come more often than any other place: a centre anywhere near them gives them."""
        firsts = [places(SliceSampling(10), epoch=epoch)[0] for epoch in range(1400)]
        counts = np.bincount(firsts, minlength=26) / len(firsts)
        assert counts[0] == pytest.approx(6 / 35, abs=0.04)
        assert counts[25] == pytest.approx(5 / 35, abs=0.04)
        assert counts[1:25] == pytest.approx(1 / 35, abs=0.02)

    def test_random_slices(self) -> None:
        seen = set()
        for epoch in range(100):
            chosen = places(SliceSampling(4, "random"), epoch=epoch)
            assert len(set(chosen)) == 4
            assert chosen == sorted(chosen)
            seen.update(chosen)
        assert seen == set(range(35))

    def test_every_slice_once_in_a_turn(self) -> None:
        sampling = SliceSampling(8, "every")
        for turn in (0, 1):
            groups = [places(sampling, draw=5 * turn + group) for group in range(5)]
            assert sorted(place for group in groups for place in group) == list(range(35))
        assert [len(group) for group in groups] == [8, 8, 8, 8, 3]
        assert places(sampling, draw=0) != places(sampling, draw=5)

    @pytest.mark.parametrize("choice", ["adjacent", "random", "every"])
    @pytest.mark.parametrize("length", [1, 9, 10])
    def test_a_short_scan_gives_all_it_has(self, length: int, choice) -> None:
        assert places(SliceSampling(10, choice), length) == list(range(length))
        assert SliceSampling(10, choice).sizes_of([length]).tolist() == [length]

    def test_whole_scans(self) -> None:
        assert places(SliceSampling()) == list(range(35))

    @pytest.mark.parametrize("choice", ["adjacent", "random"])
    def test_draws_depend_on_every_argument(self, choice) -> None:
        sampling = SliceSampling(2, choice)
        assert places(sampling, 500) == places(sampling, 500)
        drawn = [places(sampling, 500, *numbers) for numbers in ((0, 0, 0), (1, 0, 0), (0, 1, 0), (0, 0, 1))]
        drawn.append(places(sampling, 500, name="1.3"))
        assert len({tuple(chosen) for chosen in drawn}) == 5

    def test_below_one(self) -> None:
        with pytest.raises(ConfigError):
            SliceSampling(0)


@pytest.mark.parametrize("sampling", [SliceSampling(), SliceSampling(8), SliceSampling(8, "random"), SliceSampling(8, "every")])
def test_sizes_are_those_of_the_samples(sampling: SliceSampling) -> None:
    lengths = [35, 3, 8, 16, 17]
    sizes = [
        len(places(sampling, length, draw=draw))
        for length, count in zip(lengths, sampling.samples_of(lengths), strict=True)
        for draw in range(count)
    ]
    assert sampling.sizes_of(lengths).tolist() == sizes


class TestScanLabelsOfPart:
    @pytest.mark.parametrize(
        ("slices", "scan", "expected"),
        [
            ([0, 1, 0], 1, 1),
            ([NAN, 1, 0], 1, 1),
            ([0, 0, 0], 1, 0),  # the hemorrhage lies outside the part
            ([NAN, NAN, NAN], 1, NAN),  # it may lie outside
            ([0, NAN, 0], 1, NAN),
            ([NAN, NAN, NAN], 0, 0),  # it lies nowhere
            ([0, 0, 0], NAN, 0),
            ([NAN, 0, 0], NAN, NAN),
        ],
    )
    def test_a_part_shows_what_its_slices_show(self, slices: list[float], scan: float, expected: float) -> None:
        of_slices = np.repeat(np.array(slices, np.float32)[:, None], len(LABELS), axis=1)
        labels = scan_labels_of_sample(of_slices, np.full(len(LABELS), scan, np.float32))
        np.testing.assert_array_equal(labels, np.full(len(LABELS), expected))

    def test_labels_stay_apart(self) -> None:
        slices = np.zeros((2, len(LABELS)), np.float32)
        slices[1, 3] = 1
        labels = scan_labels_of_sample(slices, np.ones(len(LABELS), np.float32))
        assert labels.dtype == np.float32
        np.testing.assert_array_equal(labels, [0, 0, 0, 1, 0, 0])
