"""One acquisition, many reconstructions."""

import numpy as np
import pytest
from scipy import ndimage

from ich_lstm.errors import ConfigError
from ich_lstm.phantom import PhantomSettings, Reconstruction, make_head, make_localizer
from ich_lstm.phantom.patient import draw_patient

QUIET = PhantomSettings(seed=5, size=96, prevalence=1.0, noise=0.0, difficulty=0.0)
LOUD = PhantomSettings(seed=5, size=96, prevalence=0.0, difficulty=0.0)
THICK, THIN = Reconstruction(thickness_mm=5.0), Reconstruction(thickness_mm=1.25)


@pytest.fixture(scope="module")
def thick():
    return make_head(QUIET, 2, reconstruction=THICK)


@pytest.fixture(scope="module")
def thin():
    return make_head(QUIET, 2, reconstruction=THIN)


def test_thin_slices_lie_where_the_thick_ones_do(thick, thin):
    assert thin.spacing_mm[0] == 1.25
    assert thin.acquisition.height_mm == pytest.approx(thick.acquisition.height_mm, abs=5)
    assert thin.positions_mm[:4].mean() == pytest.approx(thick.positions_mm[0], abs=1e-3)


def test_a_thick_slice_is_the_mean_of_the_thin_ones(thick, thin):
    count = min(len(thick.hu), len(thin.hu) // 4)
    mean = thin.hu[: 4 * count].reshape(count, 4, 96, 96).mean(axis=1)
    brain = ndimage.binary_erosion(thick.brain[:count], np.ones((1, 5, 5)))
    assert np.abs(mean - thick.hu[:count])[brain].mean() < 2.5
    # And it is that one, not its neighbour.
    assert np.abs(mean[1:] - thick.hu[: count - 1])[brain[1:]].mean() > 5


def test_the_same_lesion_in_all(thick, thin):
    assert [lesion.blood for lesion in thick.lesions] == [lesion.blood for lesion in thin.lesions]
    volumes = [scan.masks.sum(axis=(1, 2, 3)) * np.prod(scan.spacing_mm) / 1000 for scan in (thick, thin)]
    assert volumes[0].max() > 1
    assert volumes[0] == pytest.approx(volumes[1], rel=0.25, abs=0.6)
    assert thick.patient_id == thin.patient_id
    assert thick.study_uid == thin.study_uid
    assert thick.series_uid != thin.series_uid
    assert not set(thick.sop_uids) & set(thin.sop_uids)


def test_noise_grows_with_the_root_of_the_thickness():
    noise = []
    for reconstruction in (Reconstruction(thickness_mm=8.0), Reconstruction(thickness_mm=2.0)):
        quiet, loud = (make_head(settings, 0, reconstruction=reconstruction) for settings in (_without_noise(LOUD), LOUD))
        difference = loud.hu.astype(float) - quiet.hu
        noise.append(difference[loud.brain].std())
    assert noise[1] / noise[0] == pytest.approx(2, rel=0.1)


def test_the_bone_kernel_is_sharper_and_noisier():
    pair = {}
    for kernel in ("soft", "bone"):
        reconstruction = Reconstruction(thickness_mm=10.0, kernel=kernel)
        quiet, loud = (make_head(settings, 0, reconstruction=reconstruction) for settings in (_without_noise(LOUD), LOUD))
        steepest = np.abs(np.diff(quiet.hu.astype(float), axis=2)).max(axis=(1, 2))
        pair[kernel] = (np.median(steepest), (loud.hu.astype(float) - quiet.hu)[loud.brain].std())
    assert pair["bone"][0] > 1.15 * pair["soft"][0]
    assert pair["bone"][1] > 3 * pair["soft"][1]


def test_contrast_agent_brightens_vessels_and_hides_no_label(head_points):
    plain, enhanced = (make_head(QUIET, 2, reconstruction=Reconstruction(contrast=contrast)) for contrast in (False, True))
    points = head_points(plain, draw_patient(QUIET, 2))
    # The straight sinus, on its way back along the tentorium.
    sinus = (np.abs(points[0]) < 3) & (np.abs(points[1] - 50) < 12) & (np.abs(points[2]) < 3)
    assert plain.hu[sinus].max() < 75
    assert enhanced.hu[sinus].max() > 110
    tissue = (np.abs(points[0]) > 15) & (points[2] > 30) & ndimage.binary_erosion(plain.brain, np.ones((1, 9, 9)))
    assert 0 < np.median(enhanced.hu[tissue] - plain.hu[tissue]) < 8


def test_the_same_reconstruction_gives_the_same_bytes_and_another_other_noise():
    first, again = (make_head(LOUD, 1, reconstruction=Reconstruction(thickness_mm=10.0)) for _ in range(2))
    other = make_head(LOUD, 1, reconstruction=Reconstruction(thickness_mm=10.0, kernel="bone"))
    assert np.array_equal(first.hu, again.hu)
    assert np.array_equal(first.brain, other.brain)
    assert not np.array_equal(first.hu, other.hu)


def test_codes_differ():
    thicknesses = (None, 0.5, 0.63, 1.25, 5.0, 20.0)
    every = [
        Reconstruction(thickness_mm=thickness, kernel=kernel, contrast=contrast).code
        for thickness in thicknesses
        for kernel in ("soft", "bone")
        for contrast in (False, True)
    ]
    assert len(set(every)) == len(every)
    assert max(every) < 2**13
    assert Reconstruction().code == 0


@pytest.mark.parametrize("bad", [{"thickness_mm": 0.1}, {"thickness_mm": "5"}, {"kernel": "sharp"}])
def test_a_value_out_of_range_is_refused_and_named(bad):
    with pytest.raises(ConfigError) as caught:
        Reconstruction(**bad)
    assert next(iter(bad)) in caught.value.where


class TestLocalizer:
    def test_it_shows_this_patient_from_the_side(self):
        scout, again, other = make_localizer(QUIET, 0), make_localizer(QUIET, 0), make_localizer(QUIET, 1)
        assert scout.shape == (96, 96)
        assert scout.dtype == np.int16
        assert np.array_equal(scout, again)
        assert not np.array_equal(scout, other)

    def test_bone_is_brighter_at_the_rim_and_there_is_air_around(self):
        scout = make_localizer(QUIET, 0).astype(float)
        assert (scout[:3] == -1000).all()
        across = scout[30]
        head = np.flatnonzero(across > -900)
        rim = across[[head[0] + 3, head[0] + 4, head[-1] - 4, head[-1] - 3]].max()
        assert rim > across[head].mean()
        assert len(head) > 40


def _without_noise(settings: PhantomSettings) -> PhantomSettings:
    return PhantomSettings(seed=settings.seed, size=settings.size, prevalence=0.0, noise=0.0, difficulty=0.0)
