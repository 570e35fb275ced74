"""NIfTI files: orientation from the affine, and row 33 of the catalogue."""

import gzip
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from dicom_files import make_series
from nifti_files import STEP, head_volume, make_nifti

from ich_lstm.errors import FileError
from ich_lstm.reading import read_nifti, read_scan

nibabel = pytest.importorskip("nibabel", reason="the extra nifti is not installed")


def refusal_of(path: Path) -> str:
    with pytest.raises(FileError) as refusal:
        read_nifti(path)
    assert refusal.value.todo or refusal.value.expected
    return refusal.value.code


class TestOrientation:
    @pytest.mark.parametrize("order", list(permutations(range(3))))
    @pytest.mark.parametrize("flips", list(product([False, True], repeat=3)))
    def test_every_order_and_direction_gives_the_same_scan(
        self, order: tuple[int, ...], flips: tuple[bool, ...], tmp_path: Path
    ) -> None:
        scan = read_nifti(make_nifti(tmp_path / "a.nii", order=order, flips=flips))
        np.testing.assert_array_equal(scan.hu, head_volume())
        np.testing.assert_allclose(scan.positions_mm, -20 + 5 * np.arange(8))
        assert scan.spacing_mm == (5.0, STEP, STEP)
        assert scan.tilt_degrees == pytest.approx(0)

    def test_the_same_as_from_dicom(self, tmp_path: Path) -> None:
        make_series(tmp_path / "dicom")
        from_dicom, from_nifti = read_scan(tmp_path / "dicom"), read_scan(make_nifti(tmp_path / "a.nii.gz"))
        np.testing.assert_array_equal(from_dicom.hu, from_nifti.hu)
        np.testing.assert_allclose(from_dicom.positions_mm, from_nifti.positions_mm)
        assert from_dicom.flags == from_nifti.flags

    @pytest.mark.parametrize("degrees", [-20, 15])
    def test_tilt(self, degrees: float, tmp_path: Path) -> None:
        angle = np.radians(degrees)
        affine = np.diag([-STEP, -STEP, 5.0, 1.0])
        turn = np.array([[1, 0, 0], [0, np.cos(angle), -np.sin(angle)], [0, np.sin(angle), np.cos(angle)]])
        affine[:3, :3] = turn @ affine[:3, :3]
        scan = read_nifti(make_nifti(tmp_path / "a.nii", affine=affine))
        assert scan.tilt_degrees == pytest.approx(abs(degrees))
        assert scan.spacing_mm[0] == pytest.approx(5)
        assert "tilt" in {flag.code for flag in scan.flags}

    def test_without_orientation_the_sides_are_doubted(self, tmp_path: Path) -> None:
        scan = read_nifti(make_nifti(tmp_path / "a.nii", coded=False))
        assert {"no_orientation", "order_assumed"} <= {flag.code for flag in scan.flags}

    def test_slices_are_called_by_content_and_number(self, tmp_path: Path) -> None:
        first = read_nifti(make_nifti(tmp_path / "Secret Name.nii"))
        again = read_nifti(make_nifti(tmp_path / "other.nii.gz"))
        turned = read_nifti(make_nifti(tmp_path / "turned.nii", flips=(False, False, True)))
        assert first.sop_uids == again.sop_uids
        assert first.sop_uids[0] == f"{first.series_uid}.1"
        assert turned.sop_uids[0] == f"{turned.series_uid}.8"
        assert "Secret" not in repr(first)


class TestValues:
    @pytest.mark.parametrize("dtype", [np.int16, np.int32, np.float32, np.float64])
    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
    def test_kinds_of_numbers(self, dtype: type, name: str, tmp_path: Path) -> None:
        np.testing.assert_array_equal(read_nifti(make_nifti(tmp_path / name, dtype=dtype)).hu, head_volume())

    @pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf], ids=["33-nan", "33-inf", "33-minus-inf"])
    def test_33_values_that_are_no_numbers_are_refused(self, value: float, tmp_path: Path) -> None:
        hu = head_volume()
        hu[3, 5, 7] = value
        assert refusal_of(make_nifti(tmp_path / "a.nii", hu, dtype=np.float32)) == "not_finite"

    def test_overflow_is_clipped_and_the_circle_is_air(self, tmp_path: Path) -> None:
        hu = head_volume()
        hu[:, 0, 0], hu[:, 0, 1] = -3024, 30000
        scan = read_nifti(make_nifti(tmp_path / "a.nii", hu))
        assert (scan.hu[:, 0, 0] == -1024).all()
        assert (scan.hu[:, 0, 1] == 3071).all()
        assert "below_air" in {note.code for note in scan.repairs}

    @pytest.mark.parametrize("change", ["offset", "window", "mask"])
    def test_values_that_are_not_hu_are_refused(self, change: str, tmp_path: Path) -> None:
        hu = head_volume()
        hu = {"offset": hu + 1024, "window": np.clip(hu, 0, 80) / 80 * 255, "mask": hu > 0}[change]
        assert refusal_of(make_nifti(tmp_path / "a.nii", hu)) == "not_hu"

    def test_60_thin_slices_become_slabs(self, tmp_path: Path) -> None:
        affine = np.diag([-STEP, -STEP, 1.0, 1.0])
        scan = read_nifti(make_nifti(tmp_path / "a.nii", np.repeat(head_volume(), 5, axis=0), affine=affine))
        np.testing.assert_array_equal(scan.hu, head_volume())
        assert len(scan.file_sop_uids) == 40


class TestRefusals:
    def test_four_dimensions(self, tmp_path: Path) -> None:
        assert refusal_of(make_nifti(tmp_path / "a.nii", np.zeros((8, 8, 8, 5)))) == "four_dimensions"

    @pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
    @pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.99])
    def test_truncated(self, name: str, keep: float, tmp_path: Path) -> None:
        path = make_nifti(tmp_path / name)
        path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
        assert refusal_of(path) in ("truncated_pixels", "not_nifti")

    def test_damaged_gzip(self, tmp_path: Path) -> None:
        rng = np.random.default_rng(0)
        path = make_nifti(tmp_path / "a.nii.gz")
        sound = path.read_bytes()
        for _ in range(30):
            damaged = bytearray(sound)
            damaged[int(rng.integers(10, len(sound)))] ^= 1 << int(rng.integers(8))
            path.write_bytes(damaged)
            try:
                read_nifti(path)
            except FileError:
                continue

    def test_11_bomb(self, tmp_path: Path) -> None:
        path = make_nifti(tmp_path / "a.nii")
        data = bytearray(path.read_bytes()[:352])
        data[42:48] = np.array([20000, 20000, 2000], "<i2").tobytes()
        (tmp_path / "b.nii.gz").write_bytes(gzip.compress(bytes(data) + bytes(1 << 20)))
        assert refusal_of(tmp_path / "b.nii.gz") == "nifti_bomb"

    @pytest.mark.parametrize("data", [b"", b"text", bytes(4000)])
    def test_other_content(self, data: bytes, tmp_path: Path) -> None:
        (tmp_path / "a.nii").write_bytes(data)
        assert refusal_of(tmp_path / "a.nii") in ("not_nifti", "truncated_pixels")

    def test_wrong_magic(self, tmp_path: Path) -> None:
        path = make_nifti(tmp_path / "a.nii")
        data = bytearray(path.read_bytes())
        data[344:348] = b"abc\0"
        path.write_bytes(data)
        assert refusal_of(path) == "not_nifti"

    def test_few_slices(self, tmp_path: Path) -> None:
        assert refusal_of(make_nifti(tmp_path / "a.nii", head_volume(3))) == "few_slices"

    def test_spacing_of_zero(self, tmp_path: Path) -> None:
        assert refusal_of(make_nifti(tmp_path / "a.nii", affine=np.diag([1e-9, 1e-9, 5, 1]))) in ("no_spacing", "bad_orientation")

    def test_18_missing_nibabel_names_the_extra(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = make_nifti(tmp_path / "a.nii")
        monkeypatch.setattr("ich_lstm.reading.series.nifti.find_spec", lambda name: None)
        with pytest.raises(FileError) as refusal:
            read_nifti(path)
        assert refusal.value.code == "codec_missing"
        assert "ich_lstm[nifti]" in refusal.value.todo


def test_prediction(tmp_path: Path) -> None:
    from fabricated import make_classifier

    (prediction,) = make_classifier().predict(make_nifti(tmp_path / "a.nii.gz"))
    assert len(prediction.to_frame()) == 8
