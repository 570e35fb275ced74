"""What lies inside the skull, and a head without its face."""

import cv2
import numpy as np
import pytest

from ich_lstm.phantom import PhantomSettings, make_head
from ich_lstm.preprocessing.inside_skull import cranial_cavity, head_mask, without_face
from ich_lstm.scan import HU_MIN

SPACING = (5.0, 1.0, 1.0)


def ring(*, outer: int = 70, inner: int = 62, inside: int = 35, gap: int = 0, size: int = 200) -> np.ndarray:
    """A slice of skin, skull and brain around the middle; ``gap`` rows of the skull are open on the left."""
    y, x = np.mgrid[:size, :size] - size / 2
    r = np.hypot(y, x)
    image = np.full((size, size), -1000, np.int16)
    image[r < outer + 8] = 40  # skin
    image[r < outer] = 1000
    image[r < inner] = inside
    if gap:
        image[(abs(y) < gap / 2) & (x < 0) & (r >= inner) & (r < outer)] = 40
    return image


def head(size: int = 64) -> np.ndarray:
    """A skull of 800 HU with brain in it and air around: radius 20, around the middle."""
    y, x = np.mgrid[:size, :size] + 0.5
    radius = np.hypot(y - size / 2, x - size / 2)
    return np.select([radius < 17, radius < 20], [35, 800], -1000).astype(np.int16)


def area(radius: float) -> float:
    return np.pi * radius**2


def test_the_inside_of_a_ring():
    cavity = cranial_cavity(ring()[None], SPACING)[0]
    assert cavity.sum() == pytest.approx(area(62), rel=0.03)


@pytest.mark.parametrize(("gap", "is_found"), [(0, True), (8, True), (30, False)])
def test_a_small_opening_is_closed_and_a_large_one_is_not(gap: int, is_found: bool):
    assert cranial_cavity(ring(gap=gap)[None], SPACING).any() == is_found


@pytest.mark.parametrize("inside", [-100, -900])
def test_a_cavity_of_fat_or_air_is_none(inside: int):
    assert not cranial_cavity(ring(inside=inside)[None], SPACING).any()


def test_a_small_cavity_is_none():
    assert not cranial_cavity(ring(outer=20, inner=14)[None], SPACING).any()


def test_pixels_that_are_not_square():
    whole = cranial_cavity(ring()[None], SPACING)[0]
    half = cranial_cavity(ring()[None, ::2], (5.0, 2.0, 1.0))[0]
    assert half.sum() == pytest.approx(whole.sum() / 2, rel=0.05)


def test_goes_on_only_as_long_as_the_cavities_meet():
    beside = np.roll(ring(outer=40, inner=34), 70, axis=1)
    cavity = cranial_cavity(np.stack([beside, ring(), ring(gap=30), ring()]), SPACING)
    assert cavity.any(axis=(1, 2)).tolist() == [False, True, False, False]


def test_nothing_of_the_skin_is_shown():
    hu = np.stack([ring(), ring(outer=60, inner=52)])
    cut, (rows, columns), shown = without_face(hu, SPACING)
    assert shown.all()
    whole = np.full_like(hu, HU_MIN)
    whole[:, rows, columns] = cut
    y, x = np.mgrid[:200, :200] - 100.0
    for image, original, outer in zip(whole, hu, (70, 60), strict=True):
        is_skin = np.hypot(y, x) >= outer
        assert (image[is_skin] == HU_MIN).all()
        brain = np.hypot(y, x) < outer - 10
        np.testing.assert_array_equal(image[brain], original[brain])


def test_without_a_cavity_nothing_is_shown():
    cut, _, shown = without_face(np.stack([ring(gap=40)] * 3), SPACING)
    assert cut.shape == (3, 1, 1)
    assert (cut == HU_MIN).all()
    assert not shown.any()


def test_of_a_head_with_a_face_no_skin_is_shown_and_the_brain_is():
    head = make_head(PhantomSettings(patients=1, slices=16, size=128, seed=4), 0)
    cut, (rows, columns), shown = without_face(head.hu, head.spacing_mm)
    assert shown.sum() >= 10
    whole = np.full_like(head.hu, HU_MIN)
    whole[:, rows, columns] = cut
    for image, original in zip(whole, head.hu, strict=True):
        _, regions = cv2.connectedComponents((original < -300).astype(np.uint8))
        skin = (cv2.dilate((regions == regions[0, 0]).astype(np.uint8), np.ones((5, 5), np.uint8)) > 0) & (original > -300)
        assert skin.any()
        assert (image[skin] == HU_MIN).all()
    middle = whole[10, 54:74, 54:74]
    np.testing.assert_array_equal(middle, head.hu[10, 54:74, 54:74])


class TestHeadMask:
    def test_is_the_skull_and_what_it_holds(self):
        hu = head()
        mask = head_mask(hu)
        assert (mask & (hu > -1000)).sum() == (hu > -1000).sum()
        assert (mask & (hu == -1000)).mean() < 0.01

    def test_a_bone_flap_that_was_taken_out_does_not_open_it(self):
        hu = head()
        hu[28:36, :20][hu[28:36, :20] > 300] = 35
        assert head_mask(hu)[32, 16]

    def test_without_bone_it_is_the_tissue(self):
        hu = np.full((64, 64), -1000, np.int16)
        hu[20:40, 10:30] = 20
        hu[50:53, 50:60] = 20
        np.testing.assert_array_equal(head_mask(hu), np.pad(np.ones((20, 20), bool), ((20, 24), (10, 34))))

    def test_air_alone_has_none(self):
        assert not head_mask(np.full((64, 64), -1024, np.int16)).any()

    def test_holds_the_brain_of_a_head_but_neither_table_nor_air(self):
        scan = make_head(PhantomSettings(patients=1, size=128, slices=16), 0)
        for hu, brain in zip(scan.hu, scan.brain, strict=True):
            mask = head_mask(hu)
            assert mask.shape == hu.shape
            if brain.mean() > 0.1:
                assert mask[brain].mean() > 0.99
                assert mask.mean() < 0.55
