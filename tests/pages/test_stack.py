import base64
import zlib

import numpy as np
import pytest

from ich_lstm.pages.stack import encode_hu, encode_stack


def unpack(text: str, shape: tuple[int, int]) -> np.ndarray:
    """The inverse, row by row with numpy's own cumulative arithmetic in Python integers."""
    low, high = np.split(np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).astype(int), 2)
    folded = (low + 256 * high).reshape(shape)
    difference = np.where(folded % 2 == 0, folded // 2, -(folded + 1) // 2)
    hu = np.zeros(shape, int)
    for (y, x), step in np.ndenumerate(difference):
        neighbours = [hu[y, x - 1]] * (x > 0) + [hu[y - 1, x]] * (y > 0)
        hu[y, x] = (sum(neighbours) // max(1, len(neighbours)) + step + 32768) % 65536 - 32768
    return hu


@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (13, 8)])
@pytest.mark.parametrize("limits", [(-1024, 3072), (-32768, 32768), (-3, 3)])
def test_every_value_comes_back(shape, limits):
    hu = np.random.default_rng(1).integers(*limits, shape).astype(np.int16)
    np.testing.assert_array_equal(unpack(encode_hu(hu), shape), hu)


def test_a_smooth_picture_is_small():
    y, x = np.mgrid[:256, :256]
    hu = (30 + 20 * np.sin(x / 40) + 10 * np.cos(y / 30)).astype(np.int16)
    assert len(encode_hu(hu)) < 0.15 * hu.nbytes


class TestStack:
    def test_slices_that_are_left_out(self):
        stack = encode_stack(np.zeros((3, 4, 4), np.int16), [1])
        assert [bool(text) for text in stack.texts] == [True, False, True]

    def test_what_fits_stays_as_it_is(self):
        hu = np.random.default_rng(0).integers(0, 80, (4, 32, 32)).astype(np.int16)
        full = encode_stack(hu)
        assert (full.shape, full.reduction) == ((32, 32), 1)
        exactly = sum(map(len, full.texts))
        assert encode_stack(hu, most_text=exactly) == full
        assert encode_stack(hu, most_text=exactly - 1).reduction == 2

    def test_halved_values_are_means(self):
        hu = np.random.default_rng(0).integers(0, 80, (4, 32, 24)).astype(np.int16)
        stack = encode_stack(hu, most_text=2000)
        assert (stack.shape, stack.reduction) == ((16, 12), 2)
        means = hu.reshape(4, 16, 2, 12, 2).mean(axis=(2, 4))
        stored = np.stack([unpack(text, stack.shape) for text in stack.texts])
        assert np.abs(stored - means).max() <= 0.5

    def test_again_until_it_fits(self):
        hu = np.random.default_rng(0).integers(0, 80, (4, 32, 32)).astype(np.int16)
        assert encode_stack(hu, most_text=600).shape == (8, 8)
        assert encode_stack(hu, most_text=0).shape == (1, 1)
