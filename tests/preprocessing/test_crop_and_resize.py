"""Crop and resize of HU."""

import json

import cv2
import numpy as np
import pytest
from fabricated import make_scan

from ich_lstm.errors import ConfigError
from ich_lstm.preprocessing.crop_and_resize import Preprocessing, network_box, preprocess_scan


def ellipses(centres: list[tuple[float, float]], radii_mm: float, spacing: tuple[float, float], size: int = 96) -> np.ndarray:
    """Per slice a disc (in mm) of 40 HU in air around a centre in pixels, int16 ``(n, size, size)``."""
    rows, columns = np.mgrid[:size, :size]
    discs = [np.hypot((rows - top) * spacing[0], (columns - left) * spacing[1]) < radii_mm for top, left in centres]
    return np.where(discs, 40, -1000).astype(np.int16)


def bounds(image: np.ndarray) -> tuple[int, int, int, int]:
    """First and last row and column of tissue."""
    rows, columns = np.flatnonzero((image > -300).any(axis=1)), np.flatnonzero((image > -300).any(axis=0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


class TestPreprocessing:
    @pytest.mark.parametrize(
        "changes",
        [
            {"size": 15},
            {"size": 0},
            {"crop": "brain"},
            {"clip": (450, -250)},
            {"clip": (40, 40)},
            {"clip": (-2000, 450)},
            {"clip": (0, 4000)},
            {"clip": (1, 2, 3)},
        ],
    )
    def test_out_of_range(self, changes: dict) -> None:
        with pytest.raises(ConfigError):
            Preprocessing(**changes)

    def test_plain_values_build_it_again(self) -> None:
        for settings in (Preprocessing(size=64, crop="none"), Preprocessing(clip=(-250, 450))):
            assert Preprocessing(**settings.to_dict()) == settings
            assert Preprocessing(**json.loads(json.dumps(settings.to_dict()))) == settings

    def test_models_from_before_there_was_clipping(self) -> None:
        before = {"size": 64, "crop": "none"}
        assert Preprocessing(**before).clip is None

    def test_windows_within_the_clipped_hu(self) -> None:
        Preprocessing().check_windows([(600, 2800)])
        clipped = Preprocessing(clip=(0, 80))
        clipped.check_windows([(40, 80), (50, 10)])
        for window in ((40, 82), (39, 80), (41, 80)):
            with pytest.raises(ConfigError) as caught:
                clipped.check_windows([(40, 80), window])
            assert "[0, 80]" in caught.value.got
            assert f"level {window[0]}, width {window[1]}" in caught.value.got


class TestPreprocessScan:
    def test_clipping_changes_nothing_inside_a_window(self) -> None:
        hu = np.random.default_rng(0).integers(-1024, 3072, (3, 64, 64)).astype(np.int16)
        for size in (24, 64, 100):
            whole = preprocess_scan(make_scan(hu), Preprocessing(size=size))
            clipped = preprocess_scan(make_scan(hu), Preprocessing(size=size, clip=(-250, 450)))
            assert clipped.dtype == np.int16
            np.testing.assert_array_equal(clipped, np.clip(whole, -250, 450))

    def test_shape_and_type(self) -> None:
        for crop in ("head", "center", "none"):
            out = preprocess_scan(make_scan(), Preprocessing(size=48, crop=crop))
            assert out.shape == (4, 48, 48)
            assert out.dtype == np.int16

    @pytest.mark.parametrize("centre", [(48, 48), (30, 62), (70, 30)])
    def test_a_head_fills_the_image_wherever_it_lies(self, centre: tuple[int, int]) -> None:
        scan = make_scan(ellipses([centre] * 4, 24, (1, 1)))
        top, bottom, left, right = bounds(preprocess_scan(scan, Preprocessing(size=64))[0])
        assert top <= 5
        assert left <= 5
        assert bottom >= 58
        assert right >= 58

    @pytest.mark.parametrize("spacing", [(1.0, 1.0), (1.5, 0.75), (0.6, 1.2)])
    @pytest.mark.parametrize("crop", ["head", "center", "none"])
    def test_a_circle_stays_a_circle(self, spacing: tuple[float, float], crop: str) -> None:
        scan = make_scan(ellipses([(48, 48)] * 3, 25, spacing), spacing_mm=(5.0, *spacing))
        top, bottom, left, right = bounds(preprocess_scan(scan, Preprocessing(size=128, crop=crop))[1])
        assert abs((bottom - top) - (right - left)) <= 5  # of 115; a row of the input is 4 pixels wide

    def test_one_box_for_all_slices(self) -> None:
        # The head grows and moves from slice to slice; what is at one place in two slices must stay at one place.
        hu = ellipses([(40, 40), (48, 48), (56, 56), (48, 48)], 20, (1, 1))
        hu[:, 46:50, 46:50] = 900
        out = preprocess_scan(make_scan(hu), Preprocessing(size=64))
        places = {bounds(np.where(image > 500, image, -1000)) for image in out}
        assert len(places) == 1

    def test_a_thing_seen_in_few_slices_is_not_the_head(self) -> None:
        hu = ellipses([(48, 48)] * 20, 24, (1, 1))
        holder = hu.copy()
        holder[0, 85:95, 5:90] = 100
        settings = Preprocessing(size=64)
        np.testing.assert_array_equal(
            preprocess_scan(make_scan(holder), settings)[1:], preprocess_scan(make_scan(hu), settings)[1:]
        )

    def test_a_head_at_the_edge_is_filled_up_with_air(self) -> None:
        hu = np.full((4, 64, 64), -1000, np.int16)
        hu[:, 0:50, 20:44] = 40  # cut at the top
        out = preprocess_scan(make_scan(hu), Preprocessing(size=64))
        assert out.min() == -1024
        assert out[:, :, 0].max() <= -1000

    @pytest.mark.parametrize("crop", ["head", "none"])
    def test_nothing_but_air(self, crop: str) -> None:
        out = preprocess_scan(make_scan(np.full((3, 40, 40), -1000, np.int16)), Preprocessing(size=32, crop=crop))
        assert out.shape == (3, 32, 32)
        assert (out == -1000).all()

    def test_the_right_size_is_left_alone(self) -> None:
        hu = np.random.default_rng(0).integers(-1000, 2000, (3, 64, 64)).astype(np.int16)
        out = preprocess_scan(make_scan(hu), Preprocessing(size=64, crop="none"))
        np.testing.assert_array_equal(out, hu)

    def test_shrinking_averages(self) -> None:
        hu = np.random.default_rng(0).integers(-100, 100, (2, 64, 64)).astype(np.int16)
        out = preprocess_scan(make_scan(hu), Preprocessing(size=16, crop="none"))
        expected = hu.reshape(2, 16, 4, 16, 4).mean(axis=(2, 4))
        assert np.abs(out - expected).max() <= 0.5 + 1e-3  # rounded to whole HU

    def test_enlarging_makes_no_new_hu(self) -> None:
        hu = np.random.default_rng(0).choice(np.array([-1000, 0, 40, 1500], np.int16), (2, 24, 24))
        out = preprocess_scan(make_scan(hu), Preprocessing(size=64, crop="none"))
        assert out.min() >= -1000
        assert out.max() <= 1500

    def test_upside_down_gives_the_mirror(self) -> None:
        hu = ellipses([(44, 50)] * 4, 24, (1, 1))
        hu[:, 40:44, 40:60] = 700
        settings = Preprocessing(size=96, crop="none")
        mirrored = preprocess_scan(make_scan(hu[:, ::-1].copy()), settings)
        np.testing.assert_array_equal(mirrored[:, ::-1], preprocess_scan(make_scan(hu), settings))

    def test_slices_do_not_depend_on_their_order(self) -> None:
        hu = ellipses([(40, 44), (48, 48), (52, 50)], 20, (1, 1))
        settings = Preprocessing(size=48)
        np.testing.assert_array_equal(
            preprocess_scan(make_scan(hu[::-1].copy()), settings)[::-1], preprocess_scan(make_scan(hu), settings)
        )


class TestCenter:
    """The middle of the image at its own resolution."""

    @staticmethod
    def center(hu: np.ndarray, size: int, **changes) -> np.ndarray:
        return preprocess_scan(make_scan(hu, **changes), Preprocessing(size=size, crop="center"))

    @pytest.mark.parametrize("shape", [(64, 64), (80, 80), (65, 64), (71, 40), (20, 20), (33, 80), (63, 65)])
    def test_pixels_are_moved_and_not_changed(self, shape: tuple[int, int]) -> None:
        hu = np.random.default_rng(0).integers(-1000, 2000, (2, *shape)).astype(np.int16)
        out = self.center(hu, 64)
        cut = [slice(max(0, side - 64) // 2, max(0, side - 64) // 2 + min(side, 64)) for side in shape]
        put = [slice(max(0, 64 - side) // 2, max(0, 64 - side) // 2 + min(side, 64)) for side in shape]
        expected = np.full((2, 64, 64), -1024, np.int16)
        expected[:, put[0], put[1]] = hu[:, cut[0], cut[1]]
        np.testing.assert_array_equal(out, expected)

    def test_an_image_much_larger_is_brought_down_whole(self) -> None:
        hu = np.random.default_rng(0).integers(-100, 100, (2, 128, 96)).astype(np.int16)
        out = self.center(hu, 64)
        expected = np.full((2, 64, 64), -1024.0)
        expected[:, :, 8:56] = hu.reshape(2, 64, 2, 48, 2).mean(axis=(2, 4))
        assert np.abs(out - expected).max() <= 0.5 + 1e-3  # rounded to whole HU

    def test_where_much_larger_begins(self) -> None:
        edge = np.full((2, 81, 81), -1000, np.int16)
        edge[:, 0] = 500
        assert (self.center(edge[:, :80, :80], 64) == -1000).all()  # 640 of 512: cut away
        assert (self.center(edge, 64)[:, 0] > -1000).all()

    def test_oblong_pixels_become_square_ones_of_the_smaller_spacing(self) -> None:
        hu = np.random.default_rng(0).integers(-100, 100, (2, 32, 64)).astype(np.int16)
        out = self.center(hu, 64, spacing_mm=(5.0, 1.0, 0.5))
        expected = [cv2.resize(image, (64, 64), interpolation=cv2.INTER_LINEAR) for image in hu]
        np.testing.assert_array_equal(out, expected)


class TestNetworkBox:
    @pytest.mark.parametrize("crop", ["head", "center", "none"])
    @pytest.mark.parametrize("shape", [(150, 117), (41, 60)])
    def test_what_lies_in_the_output_lies_there_in_the_slice(self, crop: str, shape: tuple[int, int]) -> None:
        hu = np.full((2, *shape), -1000, np.int16)
        hu[:, 8:36, 12:44] = 40
        hu[:, 20:24, 30:34] = 1000
        scan = make_scan(hu, spacing_mm=(5.0, 0.8, 0.9))
        preprocessing = Preprocessing(size=96, crop=crop)
        box = network_box(scan, preprocessing)
        rows, columns = np.nonzero(preprocess_scan(scan, preprocessing)[0] > 520)
        assert box.top + (rows.mean() + 0.5) * box.height / 96 == pytest.approx(22, abs=0.6)
        assert box.left + (columns.mean() + 0.5) * box.width / 96 == pytest.approx(32, abs=0.6)
        assert all(side == round(side) for side in box)
