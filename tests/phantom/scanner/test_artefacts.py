import numpy as np

from ich_lstm.phantom import PhantomSettings, make_head
from ich_lstm.phantom.draws import stream
from ich_lstm.phantom.scanner.artefacts import Metal, Motion, draw_artefacts, harden, move, streak


def disc(size: int = 96) -> np.ndarray:
    """A round head of brain in a ring of bone, 1 mm per pixel."""
    index = np.arange(size) - size / 2
    radius = np.hypot(index[:, None], index[None, :])
    return np.where(radius < 34, 35, np.where(radius < 40, 1200, -1000)).astype(np.float32)


def test_the_beam_hardens_between_dense_bones_and_nowhere_else():
    picture = disc()
    picture[44:52, 18:34] = picture[44:52, 62:78] = 1500
    before = picture.copy()
    harden(picture, 1.0, 15.0, np.random.default_rng(0))
    darker = before - picture
    assert darker[45:51, 44:52].mean() > 8
    assert np.abs(darker[70:76, 44:52]).max() < 1


def test_motion_doubles_the_contour():
    picture = disc()
    moved = move(picture, Motion(0, 1, degrees=0.0, shift_mm=(6.0, 0.0), share=0.5), 1.0)
    assert picture[48, 91] == -1000
    assert moved[48, 91] > -800


def test_metal_is_the_brightest_and_throws_streaks_in_its_own_slices_only():
    metal = Metal(place=(0.0, 0.0), height=20.0, radius=2.5, streak_hu=80.0, rays=(0.3, 1.0, 1.9, 2.6))
    near, far = disc(), disc()
    streak(near, metal, (48.0, 48.0), height=20.0, slice_mm=5.0, pixel_mm=1.0)
    streak(far, metal, (48.0, 48.0), height=60.0, slice_mm=5.0, pixel_mm=1.0)
    assert near[48, 48] == 3071
    ring = near[40:56, 40:56][disc()[40:56, 40:56] == 35]
    assert ring.min() < 10
    assert np.sort(ring)[-30] > 50
    assert np.array_equal(far, disc())


def test_without_difficulty_nothing_is_spoiled_and_with_it_some_scans_are():
    def drawn(difficulty: float) -> list:
        names = ("hardening", "motion", "metal")
        return [draw_artefacts(tuple(stream(1, n, name) for name in names), 150.0, difficulty) for n in range(100)]

    assert all(spoiled.hardening_hu == 0 and not spoiled.motion and not spoiled.metal for spoiled in drawn(0.0))
    assert 15 < sum(spoiled.motion is not None for spoiled in drawn(1.0)) < 50
    assert 2 < sum(spoiled.metal is not None for spoiled in drawn(1.0)) < 25


def test_a_head_off_the_centre_is_whole_and_off_the_centre():
    settings = PhantomSettings(seed=3, size=64, slices=8, difficulty=1.0, prevalence=0.0)
    scans = [scan for number in range(12) if "off_centre" in (scan := make_head(settings, number)).findings]
    assert scans
    for scan in scans:
        columns = np.flatnonzero(scan.brain.any(axis=(0, 1)))
        assert abs(columns.mean() - 31.5) * scan.spacing_mm[1] > 10
        assert columns[0] > 0
        assert columns[-1] < 63
