"""8-bit arrays as DICOM: what is exact, what is put back, and that the library reads the result as a head without a complaint."""

from pathlib import Path

import numpy as np
import pandas as pd
import phe_sich
import pydicom
import pytest

from ich_lstm.reading import index_source
from ich_lstm.reading.index.read_scan import read_scan


@pytest.fixture(scope="module")
def converted(bleeding_set: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return phe_sich.convert(bleeding_set, tmp_path_factory.mktemp("converted"))


class TestHu:
    def test_the_window_is_exact(self) -> None:
        gray = np.full((1, 9, 9), 127, np.uint8)
        gray[0, 4] = np.arange(100, 109)
        hu = phe_sich.to_hu(gray)
        assert hu.dtype == np.int16
        np.testing.assert_array_equal(hu[0, 4], np.rint(-20 + np.arange(100, 109) * 120 / 255))

    def test_air_reaches_the_border_and_sinuses_do_not(self) -> None:
        gray = np.full((1, 20, 20), 100, np.uint8)
        gray[0, :3] = 0  # air
        gray[0, 10:12, 10:12] = 0  # a sinus
        hu = phe_sich.to_hu(gray)[0]
        assert (hu[:3] == phe_sich.AIR_HU).all()
        assert (hu[10:12, 10:12] == phe_sich.LOWEST_HU).all()
        assert (hu == phe_sich.AIR_HU).sum() == 60

    def test_no_air_where_nothing_touches_the_border(self) -> None:
        gray = np.full((1, 8, 8), 100, np.uint8)
        gray[0, 3:5, 3:5] = 0
        assert phe_sich.to_hu(gray).min() == phe_sich.LOWEST_HU

    def test_large_pieces_are_bone_and_specks_are_not(self) -> None:
        gray = np.full((1, 30, 30), 100, np.uint8)
        gray[0, 2:6, 2:22] = 255
        gray[0, 20:24, 20:24] = 255
        hu = phe_sich.to_hu(gray)[0]
        assert (hu[2:6, 2:22] == phe_sich.BONE_HU).all()
        assert (hu[20:24, 20:24] == phe_sich.HIGHEST_HU).all()


class TestSeries:
    def test_read_as_a_whole_head_without_a_complaint(self, converted: tuple[Path, Path], bleeding_set: Path) -> None:
        dicom, _ = converted
        for path in sorted(bleeding_set.glob("*.npz")):
            scan = read_scan(dicom / path.stem)
            assert {flag.code for flag in scan.flags} <= {"constant_slice"}  # air above the head
            assert not scan.repairs
            np.testing.assert_array_equal(scan.hu, phe_sich.to_hu(np.load(path)["gray"]))

    def test_identifiers_are_hashes_and_the_sets_own_number(self, converted: tuple[Path, Path]) -> None:
        dicom, _ = converted
        headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in sorted(dicom.glob("*/*.dcm"))]
        assert {str(header.PatientID) for header in headers} == {path.name for path in dicom.iterdir()}
        uids = [header.SOPInstanceUID for header in headers]
        assert len(set(uids)) == len(uids)
        assert all(uid.is_valid for uid in uids)
        assert len({header.SeriesInstanceUID for header in headers}) == len(list(dicom.iterdir()))

    def test_a_long_scan_has_half_the_distance(self, tmp_path: Path) -> None:
        phe_sich.write_series(np.full((41, 8, 8), 100, np.uint8), np.arange(41), "0007", tmp_path / "0007")
        positions = [pydicom.dcmread(path).ImagePositionPatient[2] for path in sorted((tmp_path / "0007").iterdir())]
        np.testing.assert_allclose(np.diff(positions), phe_sich.SLICE_MM / 2)

    def test_done_once(self, converted: tuple[Path, Path], bleeding_set: Path) -> None:
        dicom, _ = converted
        before = {path: path.stat().st_mtime_ns for path in dicom.glob("*/*.dcm")}
        assert phe_sich.convert(bleeding_set, dicom.parent)[0] == dicom
        assert {path: path.stat().st_mtime_ns for path in dicom.glob("*/*.dcm")} == before


class TestLabels:
    def test_every_slice_has_its_row(self, converted: tuple[Path, Path], bleeding_set: Path) -> None:
        dicom, table = converted
        rows = pd.read_csv(table, dtype=str, keep_default_na=False)
        assert list(rows) == ["sop_uid", phe_sich.LABEL]
        given = pd.read_csv(bleeding_set / "labels.csv", dtype=str, keep_default_na=False)
        assert rows[phe_sich.LABEL].tolist() == given[phe_sich.LABEL].tolist()
        assert "" in set(rows[phe_sich.LABEL])
        images = {header.sop_uid for header in index_source(dicom).headers}
        assert set(rows["sop_uid"]) == images

    def test_a_row_too_few(self, bleeding_set: Path, tmp_path: Path) -> None:
        source = tmp_path / "set"
        source.mkdir()
        path = min(bleeding_set.glob("*.npz"))
        (source / path.name).symlink_to(path)
        given = pd.read_csv(bleeding_set / "labels.csv", dtype=str)
        given[given["patient_id"] == path.stem].iloc[1:].to_csv(source / "labels.csv", index=False)
        with pytest.raises(ValueError, match="23 rows"):
            phe_sich.convert(source, tmp_path / "out")

    def test_a_gap_between_slices(self, tmp_path: Path) -> None:
        (tmp_path / "labels.csv").write_text("patient_id,slice,intraparenchymal\n0001,4,0\n0001,6,1\n")
        np.savez(tmp_path / "0001.npz", gray=np.zeros((2, 8, 8), np.uint8), slice=[4, 6])
        with pytest.raises(ValueError, match="consecutive"):
            phe_sich.convert(tmp_path, tmp_path / "out")

    def test_no_patient(self, bleeding_set: Path, tmp_path: Path) -> None:
        (tmp_path / "labels.csv").write_bytes((bleeding_set / "labels.csv").read_bytes())
        with pytest.raises(FileNotFoundError, match=r"no \.npz"):
            phe_sich.convert(tmp_path, tmp_path / "out")


def test_real_heads_are_read_as_whole_heads(real_data: Path, tmp_path: Path) -> None:
    files = sorted((real_data / "phe_sich").glob("*.npz"))
    if not files:
        pytest.skip("the real heads are not beside this checkout")
    for path in files[::24]:
        content = np.load(path)
        phe_sich.write_series(content["gray"], content["slice"], path.stem, tmp_path / path.stem)
        scan = read_scan(tmp_path / path.stem)
        # The lowest and highest slices of some patients are black in the set itself.
        assert {flag.code for flag in scan.flags} <= {"constant_slice"}, path.name
