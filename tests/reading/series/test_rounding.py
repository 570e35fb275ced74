"""Positions that an export has rounded: different slices at one position are no repeats."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dicom_files import AXIAL, make_series, slice_hu

from ich_lstm.reading import index_source, load_scan
from ich_lstm.scan import Scan

COUNT = 64
START_MM = -20.0

Rounding = Callable[[float], float]
TO_MM: dict[str, Rounding] = {"round": lambda z: float(np.rint(z)), "cut": lambda z: float(np.floor(z))}


def write(
    folder: Path,
    step: float,
    rounding: Rounding = TO_MM["round"],
    *,
    count: int = COUNT,
    orientation: tuple[float, ...] = AXIAL,
    change: Callable[[int], dict[str, Any]] | None = None,
    **own: Any,
) -> None:
    """A series whose slices show the head at their true places, while their headers have rounded ones."""
    normal = np.cross(orientation[:3], orientation[3:])

    def rounded(i: int) -> dict[str, Any]:
        true = np.array([-96, -96, START_MM]) + i * step * normal
        noise = np.random.default_rng(i).normal(0, 3, (32, 32))
        given = {
            "ImagePositionPatient": [rounding(float(value)) for value in true],
            "hu": slice_hu(true, orientation) + noise,
            "SliceThickness": step,
        }
        return given | own | (change(i) if change else {})

    make_series(folder, count, orientation=orientation, change=rounded)


def read(folder: Path, slab_mm: float | None = None) -> tuple[Scan, dict[str, int]]:
    index = index_source(folder)
    (study,) = index.studies()
    (series,) = study.series
    scan = load_scan(series, ledger=index.ledger, slab_mm=slab_mm)
    return scan, index.ledger.counts()


def codes(scan: Scan) -> tuple[set[str], set[str]]:
    return {note.code for note in scan.repairs}, {note.code for note in scan.flags} - {"no_skull", "few_slices", "incomplete"}


def assert_all_there(scan: Scan, step: float, count: int = COUNT, first: float = START_MM, error: float = 0.6) -> None:
    assert scan.sop_uids == tuple(f"1.2.3.100.1.{i + 1}" for i in range(count))
    np.testing.assert_allclose(np.diff(scan.positions_mm), step, atol=0.02)
    np.testing.assert_allclose(scan.positions_mm, first + step * np.arange(count), atol=error)


class TestRounded:
    @pytest.mark.parametrize("how", TO_MM)
    @pytest.mark.parametrize("step", [0.5, 0.625, 0.75, 1.25, 1.5, 2.25])
    def test_to_whole_mm_by_instance_number(self, step: float, how: str, tmp_path: Path) -> None:
        write(tmp_path, step, TO_MM[how])
        scan, counts = read(tmp_path)
        assert_all_there(scan, step)
        assert codes(scan) == ({"rounded_positions"}, set())
        assert counts == {"used": COUNT, "skipped": 0, "refused": 0}

    @pytest.mark.parametrize("step", [0.625, 0.45, 0.33])
    def test_to_tenths_of_a_mm(self, step: float, tmp_path: Path) -> None:
        write(tmp_path, step, lambda z: round(z, 1))
        scan, _ = read(tmp_path)
        assert_all_there(scan, step, error=0.06)
        assert codes(scan) == ({"rounded_positions"}, set())

    def test_instance_numbers_from_the_head_down(self, tmp_path: Path) -> None:
        write(tmp_path, 0.75, change=lambda i: {"InstanceNumber": 1000 - i})
        assert_all_there(read(tmp_path)[0], 0.75)

    @pytest.mark.parametrize("sign", [1, -1])
    def test_slice_location_is_believed_where_it_is_finer(self, sign: int, tmp_path: Path) -> None:
        # Not even: only the locations know.
        true = [0.75 * i + (3.0 if i >= 40 else 0.0) for i in range(COUNT)]

        def change(i: int) -> dict[str, Any]:
            z = START_MM + true[i]
            return {
                "ImagePositionPatient": [-96, -96, float(np.rint(z))],
                "SliceLocation": sign * (z + 100),
                "InstanceNumber": None,
            }

        write(tmp_path, 0.75, change=change)
        scan, counts = read(tmp_path)
        np.testing.assert_allclose(np.diff(scan.positions_mm), np.diff(true), atol=1e-6)
        assert counts["used"] == COUNT
        assert codes(scan)[0] == {"rounded_positions"}

    def test_slice_location_rounded_too_is_no_help(self, tmp_path: Path) -> None:
        write(tmp_path, 0.75, change=lambda i: {"SliceLocation": float(np.rint(START_MM + 0.75 * i))})
        assert_all_there(read(tmp_path)[0], 0.75)

    @pytest.mark.parametrize("step", [0.5, 0.75])
    def test_without_any_order_all_are_kept_and_flagged(self, step: float, tmp_path: Path) -> None:
        write(tmp_path, step, InstanceNumber=None)
        scan, counts = read(tmp_path)
        assert counts == {"used": COUNT, "skipped": 0, "refused": 0}
        np.testing.assert_allclose(np.diff(scan.positions_mm), step, atol=0.02)
        assert codes(scan) == ({"rounded_positions"}, {"rounded_positions"})

    def test_without_any_order_but_one_slice_a_position_nothing_is_in_doubt(self, tmp_path: Path) -> None:
        write(tmp_path, 1.25, InstanceNumber=None)
        scan, _ = read(tmp_path)
        assert_all_there(scan, 1.25)
        assert codes(scan) == ({"rounded_positions"}, set())

    def test_a_tilted_gantry(self, tmp_path: Path) -> None:
        cosine, sine = np.cos(np.radians(15)), np.sin(np.radians(15))
        write(tmp_path, 0.75, orientation=(1, 0, 0, 0, float(cosine), float(sine)))
        scan, counts = read(tmp_path)
        assert counts["used"] == COUNT
        np.testing.assert_allclose(np.diff(scan.positions_mm), 0.75, atol=0.02)

    def test_a_missing_slice_stays_a_gap(self, tmp_path: Path) -> None:
        write(tmp_path, 0.75)
        (tmp_path / "30.dcm").unlink()
        scan, _ = read(tmp_path)
        assert len(scan) == COUNT - 1
        assert "gap" in codes(scan)[1]

    def test_so_many_at_one_position_are_no_time_series(self, tmp_path: Path) -> None:
        write(tmp_path, 0.2)
        assert_all_there(read(tmp_path)[0], 0.2)

    def test_slabs_are_those_of_exact_positions(self, tmp_path: Path) -> None:
        write(tmp_path / "rounded", 0.75)
        write(tmp_path / "exact", 0.75, float)
        rounded, exact = (read(tmp_path / name, 5.0)[0] for name in ("rounded", "exact"))
        np.testing.assert_array_equal(rounded.hu, exact.hu)


class TestRepeats:
    @pytest.mark.parametrize("number", [13, 99], ids=["same-number", "another-number"])
    def test_a_slice_that_came_twice_is_read_once(self, number: int, tmp_path: Path) -> None:
        write(tmp_path / "a", 0.75)
        own = {"SOPInstanceUID": "1.2.9", "InstanceNumber": number}
        write(tmp_path / "b", 0.75, change=lambda i: own | {"SeriesInstanceUID": "1.2.3.100.1"})
        for path in (tmp_path / "b").iterdir():
            if path.name != "12.dcm":
                path.unlink()
        scan, counts = read(tmp_path)
        assert len(scan) == COUNT
        np.testing.assert_allclose(np.diff(scan.positions_mm), 0.75, atol=0.02)
        assert counts == {"used": COUNT, "skipped": 1, "refused": 0}
        assert codes(scan)[0] == {"rounded_positions", "repeated_position"}

    @pytest.mark.parametrize("own", [{"AcquisitionNumber": 2}, {}], ids=["another-acquisition", "nothing-tells"])
    def test_a_scan_of_whole_mm_taken_twice(self, own: dict[str, Any], tmp_path: Path) -> None:
        first = {} if not own else {"AcquisitionNumber": 1}
        write(tmp_path / "a", 1.0, **first)
        again = own | {"hu": slice_hu(np.array([-96, -96, 20]), AXIAL) + np.random.default_rng(0).normal(0, 3, (32, 32))}
        write(tmp_path / "b", 1.0, change=lambda i: again | {"SOPInstanceUID": f"1.9.{i}", "InstanceNumber": 100 + i})
        scan, counts = read(tmp_path)
        assert len(scan) == COUNT
        assert counts == {"used": COUNT, "skipped": COUNT, "refused": 0}
        assert codes(scan)[0] == {"repeated_position"}
        assert scan.sop_uids[5] == "1.9.5"  # the later


class TestNotRounded:
    @pytest.mark.parametrize(
        "places",
        [
            [0, 5, 10, 15, 20, 30, 40, 50],
            [0, 4, 8, 12, 16, 23, 30, 37],
            [0, 5, 10, 15, 25, 30, 35, 40],
        ],
    )
    def test_uneven_steps_of_whole_mm_stay(self, places: list[float], tmp_path: Path) -> None:
        make_series(tmp_path, places=places)
        scan, _ = read(tmp_path)
        np.testing.assert_allclose(scan.positions_mm, np.array(places) + START_MM)
        assert "rounded_positions" not in codes(scan)[0]
        assert "uneven_spacing" in codes(scan)[1]
