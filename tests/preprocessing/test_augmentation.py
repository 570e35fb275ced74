"""Geometric augmentation of HU."""

import pickle

import numpy as np
import pytest

from ich_lstm.errors import ConfigError
from ich_lstm.preprocessing.augmentation import Geometry, sample_seed


def discs(slices: int = 6, size: int = 48, hu: int = 40) -> np.ndarray:
    """The same head, off centre, in every slice."""
    rows, columns = np.mgrid[:size, :size]
    image = np.where(np.hypot(rows - 20, (columns - 26) * 1.4) < 14, hu, -1000).astype(np.int16)
    image[14:18, 28:32] = 900
    return np.repeat(image[None], slices, axis=0)


class TestSampleSeed:
    def test_pure_and_the_same_on_every_machine(self) -> None:
        assert sample_seed(0, 0, "1.2.3") == sample_seed(0, 0, "1.2.3")
        assert 0 <= sample_seed(0, 0, "1.2.3") < 2**32

    def test_every_argument_counts(self) -> None:
        seeds = [sample_seed(seed, epoch, uid) for seed in range(5) for epoch in range(5) for uid in ("1.2", "1.20", "1.2.0")]
        assert len(set(seeds)) == len(seeds)
        assert sample_seed(1, 11, "x") != sample_seed(11, 1, "x")
        assert len({sample_seed(0, 0, "x"), sample_seed(0, 0, "x", draw=1), sample_seed(0, 0, "x", purpose="slices")}) == 3


class TestGeometry:
    def test_one_draw_for_all_slices(self) -> None:
        for seed in range(20):
            out = Geometry()(discs(), seed)
            assert (out == out[0]).all()

    def test_same_seed_same_result(self) -> None:
        geometry = Geometry()
        first = geometry(discs(), 7)
        others = [geometry(discs(), seed) for seed in range(6)]
        np.testing.assert_array_equal(geometry(discs(), 7), first)
        np.testing.assert_array_equal(Geometry()(discs(), 7), first)
        assert len({out.tobytes() for out in others}) == 6

    def test_the_global_generators_neither_matter_nor_move(self) -> None:
        np.random.seed(1)  # noqa: NPY002  (the legacy generator is what must stay untouched)
        before = np.random.get_state()[1].tolist()  # noqa: NPY002
        first = Geometry()(discs(), 3)
        assert np.random.get_state()[1].tolist() == before  # noqa: NPY002
        np.random.seed(2)  # noqa: NPY002
        np.testing.assert_array_equal(Geometry()(discs(), 3), first)

    def test_what_comes_from_outside_is_air(self) -> None:
        geometry = Geometry(shift=0.4, scale=0.3, rotate=45)
        for seed in range(10):
            out = geometry(discs(hu=40) + 1000, seed)  # nothing below 0 HU in it
            assert out.dtype == np.int16
            assert out.min() == -1024
        full = np.full((2, 32, 32), 500, np.int16)
        moved = Geometry(flip=0, shift=0.4, scale=0, rotate=0)(full, 1)
        assert set(np.unique(moved)) <= set(range(-1024, 501))
        assert (moved == -1024).sum() > 32
        assert (moved == 0).sum() == 0

    def test_interpolation_makes_no_new_hu(self) -> None:
        for seed in range(10):
            out = Geometry()(discs(), seed)
            assert out.min() >= -1024
            assert out.max() <= 900

    @pytest.mark.parametrize("slices", [1, 3, 4, 511, 513, 600])
    def test_any_number_of_slices(self, slices: int) -> None:
        hu = discs(slices, size=16)
        hu += np.arange(slices, dtype=np.int16)[:, None, None] % 100
        out = Geometry()(hu, 4)
        assert out.shape == hu.shape
        assert out.dtype == np.int16
        alone = Geometry()(hu[-1:], 4)
        np.testing.assert_array_equal(out[-1:], alone)

    def test_a_flip_is_exact(self) -> None:
        flipped = Geometry(flip=1, shift=0, scale=0, rotate=0)(discs(), 0)
        np.testing.assert_array_equal(flipped, discs()[:, :, ::-1])
        kept = Geometry(flip=0, shift=0, scale=0, rotate=0)(discs(), 0)
        np.testing.assert_array_equal(kept, discs())

    def test_the_input_stays_as_it_was(self) -> None:
        hu = discs()
        hu.flags.writeable = False
        Geometry()(hu, 5)
        np.testing.assert_array_equal(hu, discs())

    def test_travels_to_workers(self) -> None:
        geometry = Geometry(rotate=5)
        geometry(discs(), 0)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(geometry))(discs(), 9), geometry(discs(), 9))

    @pytest.mark.parametrize(
        "changes",
        [
            *({"flip": 1.1}, {"flip": -0.1}, {"scale": 1.0}, {"shift": -0.1}, {"rotate": -1}, {"flip_vertical": 2}),
            *({"crop": 0}, {"crop": 1.1}, {"move": -1}, {"grid_distortion": 1}, {"optical_distortion": -0.1}),
        ],
    )
    def test_out_of_range(self, changes: dict) -> None:
        with pytest.raises(ConfigError):
            Geometry(**changes)


def test_using_the_settings_does_not_change_them() -> None:
    """The default of the data module is one object for all; a configuration is written from it."""
    geometry = Geometry()
    before = dict(vars(geometry))
    geometry(np.zeros((2, 32, 32), np.int16), 1)
    assert vars(geometry) == before


ALONE = {"flip": 0, "move": 0}
"""Nothing of the default augmentation."""


class TestEachKind:
    """On a head of bone everywhere: whatever is not bone came from outside, and must be air."""

    @pytest.mark.parametrize(
        "settings",
        [
            {"flip_vertical": 1},
            {"crop": 0.5},
            {"grid_distortion": 0.6},
            {"optical_distortion": 0.6},
            {"move": 1, "shift": 0.2, "rotate": 40},
            {"move": 1, "rotate": 30, "grid_distortion": 0.2, "optical_distortion": 0.2, "crop": 0.8, "one_of": True},
        ],
        ids=["vertical flip", "crop", "grid", "optical", "move", "one of all"],
    )
    @pytest.mark.parametrize("per_slice", [False, True])
    def test_hu_stay_int16_hu_and_outside_is_air(self, settings: dict, per_slice: bool) -> None:
        geometry = Geometry(**(ALONE | settings), per_slice=per_slice)
        bone = np.full((6, 48, 48), 700, np.int16)
        bone[:, 10:20, 30:40] = 3071
        different = False
        for seed in range(12):
            out = geometry(bone, seed)
            assert (out.dtype, out.shape) == (np.dtype(np.int16), bone.shape)
            assert out.min() >= -1024
            assert out.max() <= 3071
            assert (out == 3071).any(axis=(1, 2)).all()
            # Between bone and air lies only their edge; water around the head would be many pixels of 0 HU.
            assert (np.abs(out) < 30).mean() < 0.01
            assert (out == out[0]).all() or per_slice
            different |= not (out == bone).all()
            np.testing.assert_array_equal(geometry(bone, seed), out)
        assert different

    def test_flips_are_exact(self) -> None:
        np.testing.assert_array_equal(Geometry(**ALONE, flip_vertical=1)(discs(), 0), discs()[:, ::-1])

    def test_a_crop_keeps_the_side_and_enlarges(self) -> None:
        areas = [int((Geometry(**ALONE, crop=0.3)(discs(), seed) > 0).sum()) for seed in range(20)]
        assert np.median(areas) > 1.3 * (discs() > 0).sum()

    def test_one_of_leaves_some_as_they_were(self) -> None:
        geometry = Geometry(flip=0, grid_distortion=0.3, optical_distortion=0.3, one_of=True)
        unchanged = sum((geometry(discs(), seed) == discs()).all() for seed in range(80))
        assert 8 <= unchanged <= 35  # one in four

    def test_move_has_a_probability(self) -> None:
        unchanged = sum((Geometry(flip=0, move=0.5)(discs(), seed) == discs()).all() for seed in range(80))
        assert 25 <= unchanged <= 55

    def test_hu_are_interpolated_to_the_nearest(self) -> None:
        """A ramp that is shifted stays the ramp, to a HU: OpenCV's warp of int16 would be some HU off."""
        ramp = np.repeat(np.arange(-1000, 1400, 50, dtype=np.int16)[None, :, None], 48, axis=2)
        out = Geometry(flip=0, shift=0.1, scale=0, rotate=0)(ramp, 1)[0, 10:38, 24]
        assert np.ptp(out - ramp[0, 10:38, 24]) <= 1


class TestPerSlice:
    def test_a_draw_for_each_slice(self) -> None:
        out = Geometry(per_slice=True)(discs(40), 3)
        assert len({image.tobytes() for image in out}) == 40

    def test_same_seed_same_result(self) -> None:
        geometry = Geometry(per_slice=True)
        np.testing.assert_array_equal(geometry(discs(), 3), geometry(discs(), 3))
        assert (geometry(discs(), 3) != geometry(discs(), 4)).any()
        np.testing.assert_array_equal(geometry(discs(3), 3), geometry(discs(6), 3)[:3])
