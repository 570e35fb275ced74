import base64

import cv2
import numpy as np
import pytest

from ich_lstm.pages.picture import encode_heated_slice, encode_slice, is_blank, shown_size


def decode(code: str) -> np.ndarray:
    return cv2.imdecode(np.frombuffer(base64.b64decode(code), np.uint8), cv2.IMREAD_UNCHANGED)


def test_the_brain_window_and_black_and_white_beyond():
    hu = np.array([[-1024, 0, 40], [80, 3071, 20]], np.int16)
    assert decode(encode_slice(hu, hu.shape)).tolist() == [[0, 0, 128], [255, 255, 64]]


def test_shrinking_averages():
    hu = np.random.default_rng(0).integers(0, 81, (8, 8)).astype(np.int16)
    means = (hu * 255 / 80).reshape(4, 2, 4, 2).mean(axis=(1, 3))
    assert np.abs(decode(encode_slice(hu, (4, 4))) - means).max() <= 1


@pytest.mark.parametrize(
    ("shape", "spacing", "expected"),
    [
        ((512, 512), (0.5, 0.5), (512, 512)),
        ((768, 768), (0.3, 0.3), (512, 512)),
        ((600, 300), (0.5, 0.5), (512, 256)),
        ((64, 64), (1.0, 0.5), (128, 64)),
        ((64, 64), (0.0, 0.0), (64, 64)),
    ],
)
def test_size_is_true_to_the_pixel_spacing_and_bounded(shape, spacing, expected):
    assert shown_size(shape, spacing, 512) == expected


def test_heat_takes_the_colour_of_the_hottest_label(make_explanation):
    hu = np.zeros((32, 32), np.int16)
    picture = decode(encode_heated_slice(hu, (32, 32), make_explanation(), 4, ("subarachnoid", "subdural"))).astype(int)
    blue, green, red = picture[20, 20]  # in the hot cell: sky blue on black, 55 % of it where the map is 1
    part = 0.55 * make_explanation().share_on_slice(4, "subdural", (32, 32))[20, 20]
    np.testing.assert_allclose([red, green, blue], part * np.array([0x56, 0xB4, 0xE9]), atol=1)
    red, blue = picture[12, 12, 2], picture[12, 12, 0]  # that of subarachnoid: reddish purple
    assert red > blue > 0


@pytest.mark.parametrize(("hu", "blank"), [(-1024, True), (-1000, True), (-900, False), (30, False)])
def test_air_alone_is_blank(hu, blank):
    assert is_blank(np.full((4, 4), hu, np.int16)) is blank
