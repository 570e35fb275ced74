import numpy as np
import pytest

from ich_lstm.phantom import PhantomScan, PhantomSettings, make_head

SMALL = PhantomSettings(seed=3, size=48, slices=8)


@pytest.fixture(scope="module")
def scans() -> list[PhantomScan]:
    return [make_head(SMALL, patient) for patient in range(16)]


def test_slices_are_equally_spaced_along_the_normal(scans):
    for scan in scans:
        steps = np.diff(scan.positions_mm)
        assert steps == pytest.approx(scan.spacing_mm[0], abs=1e-6)


def test_only_z_moves_and_the_tilt_is_the_angle_between_normal_and_table(scans):
    for scan in scans:
        positions = np.array([scan.acquisition.image_position(i) for i in range(8)])
        assert np.ptp(positions[:, :2], axis=0) == pytest.approx(0)
        cosine = scan.acquisition.normal @ [0, 0, 1]
        assert np.rad2deg(np.arccos(np.clip(cosine, -1, 1))) == pytest.approx(scan.tilt_degrees, abs=1e-6)


def test_some_scans_are_tilted_and_none_by_more_than_25_degrees(scans):
    tilts = [scan.tilt_degrees for scan in scans]
    assert 0 in tilts
    assert 4 <= max(tilts) <= 25


def test_a_tilted_scan_samples_the_tilted_head():
    # The vertex lies where the geometry says: the highest bone, as a point in space, is above the head's centre.
    tilted = next(
        scan
        for patient in range(40)
        if (scan := make_head(PhantomSettings(seed=3, size=96, slices=24, noise=0.0, prevalence=0.0), patient)).tilt_degrees > 14
    )
    acquisition = tilted.acquisition
    n, row, column = np.nonzero(tilted.brain)
    corners = np.array([acquisition.image_position(i) for i in range(len(tilted.hu))])[n]
    places = corners + acquisition.pixel_mm * (
        column[:, None] * acquisition.row_direction + row[:, None] * acquisition.column_direction
    )
    places = (places - acquisition.head_center) @ acquisition.head_axes.T
    top = places[places[:, 2] > places[:, 2].max() - 4]
    assert np.abs(np.median(top[:, 0])) < 8
    assert np.abs(np.median(top[:, 1])) < 12


def test_the_number_of_slices_follows_the_head_when_not_given():
    counts = {len(make_head(PhantomSettings(seed=3, size=48), patient).hu) for patient in range(8)}
    assert len(counts) > 1
    assert min(counts) >= 20
    assert max(counts) <= 45


def test_noise_is_between_3_and_5_hu_at_full_size_and_scales():
    quiet, usual, loud = (
        make_head(PhantomSettings(seed=3, size=256, slices=8, prevalence=0.0, noise=noise), 0) for noise in (0.0, 1.0, 2.0)
    )
    brain = quiet.brain[4]
    usual_hu = (usual.hu[4].astype(float) - quiet.hu[4])[brain].std()
    assert 2.8 < usual_hu < 5.3
    assert (loud.hu[4].astype(float) - quiet.hu[4])[brain].std() == pytest.approx(2 * usual_hu, rel=0.05)
