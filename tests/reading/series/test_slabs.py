"""Thin series become slabs: row 60 of the catalogue, and 60b, thick slices."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import make_series, slice_hu

from ich_lstm.reading import Series, index_source, load_scan, read_scan
from ich_lstm.reading.series.slabs import SLAB_MM, mean_slabs, slices_per_slab
from ich_lstm.scan import Scan


def only_series(folder: Path) -> Series:
    (study,) = index_source(folder).studies()
    (series,) = study.series
    return series


def thin_scan(positions: np.ndarray, hu: np.ndarray | None = None, step: float = 1.0) -> Scan:
    count = len(positions)
    volume = np.zeros((count, 4, 4), np.int16) if hu is None else hu
    return Scan(
        hu=volume,
        positions_mm=positions,
        spacing_mm=(step, 1.0, 1.0),
        sop_uids=tuple(f"1.{i}" for i in range(count)),
        series_uid="1",
    )


class TestSeries:
    @pytest.mark.parametrize(
        ("step", "count", "slabs"), [(0.5, 80, 8), (0.625, 64, 8), (1.0, 40, 8), (1.25, 32, 8), (2.5, 16, 8)]
    )
    def test_60_thin_slices_become_slabs_of_5_mm(self, step: float, count: int, slabs: int, tmp_path: Path) -> None:
        make_series(tmp_path, count, step=step, SliceThickness=step)
        scan = read_scan(tmp_path)
        assert len(scan) == slabs
        np.testing.assert_allclose(np.diff(scan.positions_mm), 5, atol=1e-6)
        assert scan.spacing_mm[0] == pytest.approx(5)
        assert [note.code for note in scan.repairs] == ["slabs"]
        uids = [uid for slab in scan.slabs for uid in slab.ids]
        assert uids == [f"1.2.3.100.1.{i + 1}" for i in range(count)]
        assert scan.file_sop_uids == tuple(uids)
        np.testing.assert_allclose(scan.positions_mm, [np.mean(slab.positions_mm) for slab in scan.slabs])
        assert all(uid in slab.ids for uid, slab in zip(scan.sop_uids, scan.slabs, strict=True))

    def test_60_a_slab_is_the_mean_of_its_slices(self, tmp_path: Path) -> None:
        make_series(tmp_path, 20, step=1.0, SliceThickness=1)
        thin = load_scan(only_series(tmp_path), slab_mm=None)
        thick = load_scan(only_series(tmp_path))
        assert len(thin) == 20
        assert not thin.slabs
        for i in range(4):
            np.testing.assert_array_equal(thick.hu[i], np.rint(thin.hu[5 * i : 5 * i + 5].mean(axis=0)))

    def test_60_less_noise(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(60)
        air = np.full((8, 32), -1000.0)
        make_series(tmp_path, 40, step=0.5, SliceThickness=0.5, change=lambda i: {"hu": np.r_[air, rng.normal(40, 20, (24, 32))]})
        assert read_scan(tmp_path).hu[:, 8:].std() == pytest.approx(20 / np.sqrt(10), rel=0.1)

    @pytest.mark.parametrize("thickness", [3.0, 5.0])
    def test_60_thick_slices_are_left_alone(self, thickness: float, tmp_path: Path) -> None:
        make_series(tmp_path, step=thickness, SliceThickness=thickness)
        assert not read_scan(tmp_path).slabs

    def test_60_overlapping_thick_slices_are_left_alone(self, tmp_path: Path) -> None:
        make_series(tmp_path, 16, step=2.5, SliceThickness=5)
        assert len(read_scan(tmp_path)) == 16

    def test_60_the_ledger_counts_every_slice_as_used(self, tmp_path: Path) -> None:
        make_series(tmp_path, 40, step=1.0, SliceThickness=1)
        index = index_source(tmp_path)
        load_scan(index.studies()[0].series[0], ledger=index.ledger)
        assert index.ledger.counts() == {"used": 40, "skipped": 0, "refused": 0}

    def test_60_a_tilted_stack_is_not_smeared(self, tmp_path: Path) -> None:
        """The table moves along z, the slices are tilted: each begins a little beside the one below, in its own plane."""
        angle = np.radians(25)
        orientation = (1, 0, 0, 0, float(np.cos(angle)), float(-np.sin(angle)))

        def bar(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
            """A soft bar in air, along the slice normal."""
            return -1000 + 1000 * np.exp(-(((y * np.cos(angle) - z * np.sin(angle)) / 3) ** 2)) + 0 * x

        def own(i: int) -> dict[str, Any]:
            corner = (-32.0, -32.0, float(i))
            hu = slice_hu(corner, orientation, size=64, spacing=1, anatomy=bar)
            return {"ImagePositionPatient": list(corner), "hu": hu, "ImageOrientationPatient": list(orientation)}

        make_series(tmp_path, 20, SliceThickness=1, PixelSpacing=[1, 1], change=own)
        thin, thick = (load_scan(only_series(tmp_path), slab_mm=mm, allow_other_part=True) for mm in (None, SLAB_MM))
        middle = thin.hu[thin.sop_uids.index(thick.sop_uids[2])].astype(float)
        smeared = mean_slabs(thin, thickness_mm=1).hu[2]
        assert len(thick) == 4
        error, error_of_smeared = (abs(image - middle)[8:-8].max() for image in (thick.hu[2], smeared))
        assert error < 0.5 * error_of_smeared

    @pytest.mark.parametrize("step", [9.0, 10.0, 12.0])
    def test_60b_thick_slices_are_used_and_flagged(self, step: float, tmp_path: Path) -> None:
        make_series(tmp_path, 14, step=step, SliceThickness=step)
        scan = read_scan(tmp_path)
        assert len(scan) == 14
        assert {flag.code for flag in scan.flags} == {"thick_slices", "incomplete"}  # a cylinder has neither base nor vertex


class TestGroups:
    @pytest.mark.parametrize("count", range(4, 30))
    def test_every_slice_is_in_one_slab(self, count: int) -> None:
        slabs = mean_slabs(thin_scan(np.arange(count, dtype=float))).slabs
        assert [uid for slab in slabs for uid in slab.ids] == [f"1.{i}" for i in range(count)]
        assert all(3 <= len(slab.ids) <= 7 for slab in slabs) or count < 5

    def test_a_slab_does_not_reach_across_a_gap(self) -> None:
        positions = np.r_[np.arange(7), np.arange(12, 20)].astype(float)
        slabs = mean_slabs(thin_scan(positions)).slabs
        assert [len(slab.ids) for slab in slabs] == [7, 5, 3]
        assert all(np.ptp(slab.positions_mm) <= 6 for slab in slabs)

    def test_uneven_positions(self) -> None:
        rng = np.random.default_rng(6)
        positions = np.sort(np.arange(50) + rng.uniform(-0.2, 0.2, 50))
        slabs = mean_slabs(thin_scan(positions))
        assert len(slabs) == 10
        assert (np.diff(slabs.positions_mm) > 4).all()

    @pytest.mark.parametrize(("step", "thickness", "count"), [(0.5, None, 10), (1, 1, 5), (2, 2, 2), (2.6, None, 1), (1, 5, 1)])
    def test_count(self, step: float, thickness: float | None, count: int) -> None:
        assert slices_per_slab(step, thickness) == count


def test_60_predictions_are_given_back_to_the_slices(tmp_path: Path, project_key) -> None:  # type: ignore[no-untyped-def]
    from fabricated import make_classifier

    make_series(tmp_path, 40, step=1.0, SliceThickness=1)
    (prediction,) = make_classifier().predict(tmp_path, project_key=project_key)
    table = prediction.to_frame()
    assert len(prediction) == 8
    assert list(table.slice) == list(range(1, 41))
    assert list(table.slice_id) == [project_key.hash_id(f"1.2.3.100.1.{i + 1}") for i in range(40)]
    np.testing.assert_allclose(table.position_mm, np.arange(40) - 20)
    np.testing.assert_array_equal(table["any"].to_numpy().reshape(8, 5), np.repeat(prediction.slice_probabilities[:, 5:], 5, 1))
    assert "slabs" in {note.code for note in prediction.repairs}


class TestGridOfASlab:
    """Row 60: a slab of a tilted stack lies on the grid of the slice whose identifier it carries."""

    @pytest.mark.parametrize("count", [2, 4, 5, 8])
    @pytest.mark.parametrize("direction", [(1.0, 0.0), (-1.0, 0.0), (0.0, 1.0), (0.0, -1.0), (0.6, -0.8)])
    @pytest.mark.parametrize("start", [0.0, -33.67, 0.1])
    @pytest.mark.parametrize("noise", [0.0, 1e-9, -1e-9])
    def test_60_is_that_of_the_slice_it_is_named_after(
        self, count: int, direction: tuple[float, float], start: float, noise: float
    ) -> None:
        step = 5.0 / count
        positions = start + step * np.arange(3 * count) + noise * np.arange(3 * count) % 1e-8
        origins = 1.0 * np.arange(3 * count)[:, None] * np.array(direction)
        rows, columns = np.mgrid[:48, :48]
        # A bar along the normal: it has one place in the patient, and another in the picture of every slice.
        hu = [
            -1000 + 1000 * np.exp(-(((columns - 24 + x) ** 2 + (rows - 24 + y) ** 2) / 18))
            for x, y in origins - origins.mean(axis=0)
        ]
        thin = thin_scan(positions, np.rint(hu).astype(np.int16), step)
        slabs = mean_slabs(thin, origins_mm=origins)
        assert len(slabs) == 3
        for image, uid, slab in zip(slabs.hu, slabs.sop_uids, slabs.slabs, strict=True):
            own = thin.hu[thin.sop_uids.index(uid)]
            np.testing.assert_allclose(centre(image), centre(own), atol=0.05)
            distances = abs(np.array(slab.positions_mm) - np.mean(slab.positions_mm))
            assert distances[slab.ids.index(uid)] <= distances.min() + 1e-6
            assert slab.ids.index(uid) == (count - 1) // 2  # of two that are equally near, the lower one

    @pytest.mark.parametrize("reverse", [False, True], ids=["head-first", "feet-first"])
    @pytest.mark.parametrize("tilt", [-20.0, 20.0])
    @pytest.mark.parametrize("step", [1.25, 2.5])
    def test_60_in_a_series(self, reverse: bool, tilt: float, step: float, tmp_path: Path) -> None:
        angle = np.radians(tilt)
        across = -1.0 if reverse else 1.0
        orientation = (across, 0, 0, 0, float(np.cos(angle)), float(-np.sin(angle)))

        def bar(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
            along = y * np.cos(angle) - z * np.sin(angle)
            return -1000 + 1000 * np.clip(9 - np.hypot(along, x), 0, 1)

        def own(i: int) -> dict[str, Any]:
            corner = (-32.0 * across, -32.0, step * (i - 8) / float(np.cos(angle)))
            hu = slice_hu(corner, orientation, size=64, spacing=1, anatomy=bar)
            position = "FFS" if reverse else "HFS"
            return {
                "ImagePositionPatient": [f"{value:.5f}" for value in corner],
                "ImageOrientationPatient": [f"{value:.8f}" for value in orientation],
                "PatientPosition": position,
                "hu": hu,
            }

        make_series(tmp_path, 16, SliceThickness=step, PixelSpacing=[1, 1], change=own)
        thin, slabs = load_scan(only_series(tmp_path), slab_mm=None), load_scan(only_series(tmp_path))
        assert len(slabs) == 16 * step / 5
        for image, uid in zip(slabs.hu, slabs.sop_uids, strict=True):
            np.testing.assert_allclose(centre(image), centre(thin.hu[thin.sop_uids.index(uid)]), atol=0.1)


def centre(image: np.ndarray) -> np.ndarray:
    """Row and column of the centre of what is denser than air, in pixels."""
    weights = np.clip(image.astype(float) + 990, 0, None)
    return np.array([(axis * weights).sum() for axis in np.mgrid[: image.shape[0], : image.shape[1]]]) / weights.sum()
