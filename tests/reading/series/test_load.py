"""Slices to a scan: order, geometry, and independence of names and order of files."""

from pathlib import Path

import numpy as np
import pytest
from dicom_files import AXIAL, make_series, slice_hu

from ich_lstm.errors import SeriesError
from ich_lstm.reading import Series, index_source, load_scan, read_scan
from ich_lstm.reading.series.ordering import gap_steps


def tilted(degrees: float) -> tuple[float, ...]:
    """Axial, with the gantry tilted about the left-right axis."""
    angle = np.radians(degrees)
    return (1, 0, 0, 0, float(np.cos(angle)), float(-np.sin(angle)))


def only_series(folder: Path) -> Series:
    (study,) = index_source(folder).studies()
    (series,) = study.series
    return series


class TestOrder:
    @pytest.mark.parametrize("seed", range(5))
    def test_shuffled_files_give_the_same_scan(self, seed: int, tmp_path: Path) -> None:
        rng = np.random.default_rng(seed)
        orientation = tilted(float(rng.uniform(-30, 30)))
        paths = make_series(tmp_path / "a", 9, orientation=orientation)
        names = rng.permutation(9)
        for path, name in zip(paths, names, strict=True):
            folder = tmp_path / "b" / str(name % 3)
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"I{name}").write_bytes(path.read_bytes())
        first, second = read_scan(tmp_path / "a"), read_scan(tmp_path / "b")
        np.testing.assert_array_equal(first.hu, second.hu)
        np.testing.assert_array_equal(first.positions_mm, second.positions_mm)
        assert first.sop_uids == second.sop_uids
        assert (first.repairs, first.flags) == (second.repairs, second.flags)

    def test_headers_in_any_order(self, tmp_path: Path) -> None:
        make_series(tmp_path)
        series = only_series(tmp_path)
        backwards = Series(series.series_uid, list(series.headers)[::-1])
        np.testing.assert_array_equal(load_scan(series).hu, load_scan(backwards).hu)

    def test_written_from_head_to_foot(self, tmp_path: Path) -> None:
        make_series(tmp_path, start=(-96, -96, 15), step=-5.0)
        scan = read_scan(tmp_path)
        np.testing.assert_allclose(scan.positions_mm, np.arange(-20, 20, 5))
        assert scan.sop_uids[0].endswith(".8")


class TestGeometry:
    @pytest.mark.parametrize("degrees", [-30, -18.5, 0, 18.5, 30])
    def test_tilt_and_positions_along_the_normal(self, degrees: float, tmp_path: Path) -> None:
        make_series(tmp_path, 9, orientation=tilted(degrees))
        scan = read_scan(tmp_path)
        assert scan.tilt_degrees == pytest.approx(abs(degrees), abs=1e-3)
        np.testing.assert_allclose(np.diff(scan.positions_mm), 5, atol=1e-3)
        assert ("tilt" in {flag.code for flag in scan.flags}) == bool(degrees)

    def test_gantry_tilt_with_steps_of_the_table(self, tmp_path: Path) -> None:
        """A tilted gantry moves along z: the distance of the slices is shorter than the table's step."""
        orientation = tilted(20)
        make_series(
            tmp_path,
            9,
            change=lambda i: {"ImagePositionPatient": [-96, -96, 5 * i], "ImageOrientationPatient": list(orientation)},
        )
        np.testing.assert_allclose(np.diff(read_scan(tmp_path).positions_mm), 5 * np.cos(np.radians(20)), atol=1e-6)

    def test_every_orientation_within_reach_shows_the_same_anatomy(self, tmp_path: Path) -> None:
        """Rows and columns in any of the 8 orders, at any tilt: the same picture, the same positions."""
        rng = np.random.default_rng(8)
        for case in range(16):
            tilt = tilted(float(rng.uniform(-35, 35)))
            row, column = np.array(tilt[:3]), np.array(tilt[3:])
            normal = np.cross(row, column)
            corner = np.array([-96.0, -96.0, -10.0])
            expected = np.stack([np.rint(slice_hu(corner + 5 * i * normal, tilt)) for i in range(5)])
            # The same planes, recorded with other directions from another corner.
            if case % 2:
                corner, row = corner + 31 * 6.0 * row, -row
            if case // 2 % 2:
                corner, column = corner + 31 * 6.0 * column, -column
            if case // 4 % 2:
                row, column = column, row
            orientation = (*row, *column)
            step = 5.0 * float(np.sign(np.cross(row, column) @ normal))
            folder = tmp_path / str(case)
            make_series(folder, 5, orientation=orientation, start=tuple(corner), step=step)
            scan = read_scan(folder)
            assert (scan.hu == expected).mean() > 0.99  # positions are rounded in the file
            np.testing.assert_allclose(np.diff(scan.positions_mm), 5, atol=1e-3)

    def test_spacing_follows_an_exchange_of_rows_and_columns(self, tmp_path: Path) -> None:
        make_series(tmp_path, orientation=(0, 1, 0, 1, 0, 0), step=-5.0, hu=np.zeros((16, 32)), PixelSpacing=[6.0, 3.0])
        scan = read_scan(tmp_path)
        assert scan.hu.shape == (8, 32, 32)
        assert scan.spacing_mm == pytest.approx((5.0, 3.0, 3.0))


class TestGaps:
    @pytest.mark.parametrize(
        ("steps", "gaps"),
        [
            ([5, 5, 5, 5], []),
            ([5, 10, 5, 5, 5], [1]),
            ([10, 5, 5, 5], [0]),
            ([5, 5, 5, 10], [3]),
            ([5, 5, 10, 10, 5, 5], [2, 3]),
            ([5, 5, 5, 10, 10, 10], []),
            ([4] * 13 + [1.08] + [7] * 13, []),
        ],
    )
    def test_gaps_are_told_from_lasting_changes(self, steps: list[float], gaps: list[int]) -> None:
        assert gap_steps(np.array(steps, float)) == gaps


def test_nothing_of_the_patient_in_notes_and_no_path(tmp_path: Path) -> None:
    make_series(
        tmp_path, orientation=tilted(20), places=[0, 5, 15, 20, 25, 30], PatientAge="004Y", KVP="30", ConvolutionKernel="H70s"
    )
    scan = load_scan(only_series(tmp_path))
    text = " ".join(map(str, scan.repairs + scan.flags))
    assert "SECRET" not in text
    assert str(tmp_path) not in text
    assert scan.patient_id == "SECRET-ID"


def test_axial_needs_no_repair(tmp_path: Path) -> None:
    make_series(tmp_path, 14)
    scan = read_scan(tmp_path)
    assert (scan.repairs, scan.tilt_degrees) == ((), 0.0)
    assert {flag.code for flag in scan.flags} == {"incomplete"}  # 70 mm of a head
    assert scan.spacing_mm == (5.0, 6.0, 6.0)
    assert scan.description == "HEAD PLAIN"
    np.testing.assert_array_equal(scan.hu[3], np.rint(slice_hu((-96, -96, -5), AXIAL)))


def test_when_nothing_can_be_read_even_training_gets_no_scan(tmp_path: Path) -> None:
    for path in make_series(tmp_path):
        path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(SeriesError) as error:
        load_scan(only_series(tmp_path), training=True)
    assert error.value.code == "no_usable_slice"
