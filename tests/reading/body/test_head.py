"""Whether it is a head, and where it ends: row 62 of the catalogue. The shapes are rough, and in mm."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from body_parts import (
    FIELD,
    HEADS,
    OTHERS,
    START,
    Shape,
    abdomen,
    body,
    chest,
    craniectomy,
    ellipse,
    knee,
    make,
    neck,
    noisy,
    operated,
    skull,
    water,
    whole_head,
)
from dicom_files import slice_hu

from ich_lstm.errors import IchLstmError
from ich_lstm.phantom import PhantomSettings, make_head
from ich_lstm.reading import choose_series, index_source, load_scan, read_nifti, read_scan
from ich_lstm.reading.body.head import count_neck_slices, find_skull, is_defaced, judge, measure_section, missing_parts
from ich_lstm.scan import Scan


def looks_of(shape: Shape, count: int = 20) -> list[Any]:
    hu = np.rint(slice_hu((*START, 0), anatomy=shape, **FIELD)).astype(np.int16)  # type: ignore[arg-type]
    return [measure_section(hu, FIELD["spacing"])] * count


class TestJudge:
    @pytest.mark.parametrize("shape", [skull, craniectomy, operated])
    def test_62_heads(self, shape: Shape) -> None:
        assert judge(looks_of(shape), 5.0) == "head"

    @pytest.mark.parametrize("shape", [neck, chest, abdomen, knee])
    def test_62_other_parts(self, shape: Shape) -> None:
        assert judge(looks_of(shape), 5.0) == "other"

    def test_62_a_phantom_of_water_is_unclear(self) -> None:
        assert judge(looks_of(water), 5.0) == "unclear"

    def test_few_slices_of_a_skull_under_much_neck_are_a_head(self) -> None:
        assert judge(looks_of(neck, 60) + looks_of(skull, 5), 5.0) == "head"

    @pytest.mark.parametrize("patient", range(12))
    def test_phantom_heads_are_heads_and_have_no_neck(self, patient: int) -> None:
        head = make_head(PhantomSettings(patients=12, size=96, seed=62), patient)
        sections = [measure_section(image, head.spacing_mm[1]) for image in head.hu]
        assert judge(sections, head.spacing_mm[0]) == "head"
        assert count_neck_slices(sections, np.asarray(head.positions_mm)) == 0

    @pytest.mark.parametrize("value", [-1024, 0, 40, 500, 3071])
    def test_pictures_without_content_are_unclear(self, value: int) -> None:
        sections = [measure_section(np.full((64, 64), value, np.int16), 4.0)] * 10
        assert judge(sections, 5.0) == "unclear"
        assert count_neck_slices(sections, np.arange(10) * 5.0) == 0


class TestSeries:
    @pytest.mark.parametrize("shape", [neck, chest, abdomen, knee])
    def test_62_another_part_is_refused(self, shape: Shape, tmp_path: Path) -> None:
        index = index_source(make(tmp_path, lambda z: shape))
        series = choose_series(index.studies()[0]).series
        with pytest.raises(IchLstmError) as refusal:
            load_scan(series, ledger=index.ledger)
        assert refusal.value.code == "not_head"
        assert index.ledger.counts() == {"used": 0, "skipped": 24, "refused": 0}
        assert "no_skull" in {flag.code for flag in load_scan(series, allow_other_part=True).flags}

    def test_62_slices_of_the_neck_are_left_out_and_said(self, tmp_path: Path) -> None:
        index = index_source(make(tmp_path, lambda z: skull if z >= 150 else neck, count=50))
        scan = load_scan(choose_series(index.studies()[0]).series, ledger=index.ledger)
        assert scan.positions_mm[0] == pytest.approx(110)
        assert [note.code for note in scan.repairs] == ["neck"]
        assert "22 slices" in scan.repairs[0].detail
        assert index.ledger.counts() == {"used": 28, "skipped": 22, "refused": 0}
        assert set(index.ledger.to_frame().code) == {"", "neck"}

    def test_62_a_head_with_a_little_neck_is_left_whole(self, tmp_path: Path) -> None:
        scan = read_scan(make(tmp_path, lambda z: skull if z >= 35 else neck))
        assert len(scan) == 24
        assert scan.repairs == ()

    def test_62_a_phantom_is_flagged(self, tmp_path: Path) -> None:
        assert [flag.code for flag in read_scan(make(tmp_path, lambda z: water)).flags] == ["no_skull"]

    def test_62_metal_is_flagged(self, tmp_path: Path) -> None:
        def clip(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
            hu = skull(x, y, z)
            hu[ellipse(x, y, 8, 8, (20, 20))] = 3071
            return hu

        assert [flag.code for flag in read_scan(make(tmp_path, lambda z: clip if z == 50 else skull)).flags][:1] == ["metal"]


def test_62_a_skull_around_plastic_is_flagged(tmp_path: Path) -> None:
    def plastic(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        hu = skull(x, y, z)
        hu[ellipse(x, y, 64, 83)] = -70
        return hu

    scans = [
        read_scan(make(tmp_path / name, lambda z, shape=shape: shape)) for name, shape in (("head", skull), ("doll", plastic))
    ]
    assert [[flag.code for flag in scan.flags if flag.code == "no_brain"] for scan in scans] == [[], ["no_brain"]]


class TestOtherParts:
    @pytest.mark.parametrize("name", OTHERS)
    def test_e37_get_no_scan_and_every_file_has_its_reason(self, name: str, tmp_path: Path) -> None:
        shape, options = OTHERS[name]
        index = index_source(make(tmp_path, lambda z: noisy(shape), **options))
        with pytest.raises(IchLstmError) as refusal:
            load_scan(choose_series(index.studies()[0]).series, ledger=index.ledger)
        assert refusal.value.code == "not_head"
        assert index.ledger.counts() == {"used": 0, "skipped": options["count"], "refused": 0}
        assert set(index.ledger.to_frame().code) == {"not_head"}
        assert "bone encloses" in index.ledger.to_frame().detail[0]

    @pytest.mark.parametrize("name", ["legs", "chest-and-abdomen", "childs-pelvis"])
    def test_e37_as_nifti_too(self, name: str, tmp_path: Path) -> None:
        nibabel = pytest.importorskip("nibabel")
        shape, options = OTHERS[name]
        scan = self.as_scan(shape, tmp_path / "dicom", **options)
        affine = np.diag([-scan.spacing_mm[2], -scan.spacing_mm[1], scan.spacing_mm[0], 1.0])
        nibabel.save(nibabel.Nifti1Image(np.transpose(scan.hu, (2, 1, 0)), affine), tmp_path / "a.nii.gz")
        with pytest.raises(IchLstmError) as refusal:
            read_nifti(tmp_path / "a.nii.gz")
        assert refusal.value.code == "not_head"
        assert "no_skull" in {flag.code for flag in read_nifti(tmp_path / "a.nii.gz", allow_other_part=True).flags}

    @staticmethod
    def as_scan(shape: Shape, folder: Path, **options: float) -> Scan:
        series = choose_series(index_source(make(folder, lambda z: noisy(shape), **options)).studies()[0]).series  # type: ignore[arg-type]
        return load_scan(series, allow_other_part=True)

    @pytest.mark.parametrize("step", [5, 10])
    def test_e37_of_a_whole_body_the_head_is_read_and_the_rest_said(self, step: int, tmp_path: Path) -> None:
        index = index_source(make(tmp_path, lambda z: noisy(body), count=965 // step, step=step))
        scan = load_scan(choose_series(index.studies()[0]).series, ledger=index.ledger)
        assert scan.positions_mm[0] == 760  # 40 mm below the base of the skull
        assert [note.code for note in scan.repairs] == ["neck"]
        assert "neck or the trunk" in scan.repairs[0].detail
        assert index.ledger.counts() == {"used": len(scan), "skipped": 760 // step, "refused": 0}
        assert "incomplete" not in {flag.code for flag in scan.flags}

    def test_e37_a_whole_body_without_the_head_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(IchLstmError) as refusal:
            read_scan(make(tmp_path, lambda z: noisy(body), count=80, step=10))
        assert refusal.value.code == "not_head"


class TestHeads:
    @pytest.mark.parametrize("name", HEADS)
    def test_e37_are_read_whole_and_are_not_called_incomplete(self, name: str, tmp_path: Path) -> None:
        shape, options = HEADS[name]
        scan = read_scan(make(tmp_path, lambda z: noisy(shape), **options))
        assert len(scan.file_sop_uids) == options["count"]
        assert {flag.code for flag in scan.flags} <= {"few_slices", "thick_slices"}

    @pytest.mark.parametrize("patients", [range(3), pytest.param(range(3, 8), marks=pytest.mark.slow)], ids=str)
    @pytest.mark.parametrize("size", [96, 160])
    @pytest.mark.parametrize("difficulty", [0.0, 1.0])
    def test_e37_hard_phantoms_are_heads_and_whole(self, size: int, difficulty: float, patients: range) -> None:
        for patient in patients:
            head = make_head(PhantomSettings(size=size, seed=37, difficulty=difficulty), patient)
            sections = [measure_section(image, head.spacing_mm[1]) for image in head.hu]
            found = find_skull(sections, head.spacing_mm[0])
            assert found is not None, patient
            assert found.volume_ml > 1000, patient
            assert missing_parts(sections, np.asarray(head.positions_mm)) == [], patient

    def test_e37_real_heads_are_heads_and_whole(self, real_data: Path) -> None:
        files = sorted((real_data / "phe_sich").glob("*.npz"))
        if not files:
            pytest.skip("the real heads are not beside this checkout")
        for path in files[::4]:
            gray = np.load(path)["gray"]
            hu = np.rint(-20 + gray * (120 / 255)).astype(np.int16)
            hu[gray == 255], hu[gray == 0] = 1000, -1000
            step = 2.5 if len(hu) > 40 else 5.0  # the data set does not say; a head of 69 slices is not 345 mm high
            sections = [measure_section(image, 0.9) for image in hu]
            assert judge(sections, step) == "head", path.name
            assert missing_parts(sections, np.arange(len(hu)) * step) == [], path.name


class TestIncomplete:
    @pytest.mark.parametrize(
        ("start", "count", "found"),
        [
            (75, 18, "the base is missing"),
            (0, 18, "the vertex is missing"),
            (60, 8, "covers 40 mm of a head of at least 100 mm"),
            (40, 11, "covers 55 mm of a head of at least 100 mm"),
        ],
        ids=["upper-half", "lower-half", "middle", "55-mm"],
    )
    def test_c9_a_part_of_a_head_is_read_and_flagged(self, start: float, count: int, found: str, tmp_path: Path) -> None:
        scan = read_scan(make(tmp_path, lambda z: noisy(whole_head), count=count, pixel_mm=2, start_mm=start))
        assert len(scan) == count
        (text,) = (flag.detail for flag in scan.flags if flag.code == "incomplete")
        assert found in text
        assert "no_skull" not in {flag.code for flag in scan.flags}

    def test_c9_a_neck_that_ends_within_the_skull_is_no_whole_head(self, tmp_path: Path) -> None:
        scan = read_scan(make(tmp_path, lambda z: noisy(body), count=40, start_mm=690))
        (text,) = (flag.detail for flag in scan.flags if flag.code == "incomplete")
        assert "the vertex is missing" in text

    @pytest.mark.parametrize("patient", range(6))
    def test_c9_half_a_phantom(self, patient: int) -> None:
        head = make_head(PhantomSettings(size=96, seed=9), patient)
        middle = len(head.hu) // 2
        for part, lost in ((slice(middle, None), "base"), (slice(0, middle), "vertex")):
            sections = [measure_section(image, head.spacing_mm[1]) for image in head.hu[part]]
            (covers, missing) = missing_parts(sections, np.asarray(head.positions_mm)[part])
            assert covers.startswith("covers")
            assert lost in missing


class TestDefaced:
    @staticmethod
    def deface(shape: Shape, fill: float) -> Shape:
        """What a defacing program leaves: all in front of a plane, air included, is one value."""

        def draw(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
            hu = shape(x, y, z)
            hu[y < -20 - np.mean(z) * 0.9] = fill
            return hu

        return draw

    @pytest.mark.parametrize("fill", [0, -1024, -1000])
    @pytest.mark.parametrize("step", [2.5, 5])
    def test_12_a_head_without_its_face_is_read_whole(self, fill: int, step: float, tmp_path: Path) -> None:
        folder = make(tmp_path, lambda z: self.deface(noisy(whole_head), fill), count=int(170 / step), step=step, pixel_mm=2)
        scan = read_scan(folder)
        assert len(scan.file_sop_uids) == int(170 / step)
        assert {flag.code for flag in scan.flags} == ({"defaced"} if fill == 0 else set())

    def test_12_with_a_neck_below_it_is_cropped_where_it_was(self, tmp_path: Path) -> None:
        def long(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
            return body(x, y, z + 690)

        whole, removed = (
            read_scan(make(tmp_path / name, lambda z, shape=shape: shape, count=54))
            for name, shape in (
                ("whole", noisy(long)),
                ("removed", lambda x, y, z: np.where(y < -20 - (z - 110) * 0.9, 0.0, noisy(long)(x, y, z))),
            )
        )
        assert removed.positions_mm[0] == pytest.approx(whole.positions_mm[0], abs=15)
        assert "defaced" in {flag.code for flag in removed.flags}
        assert "defaced" not in {flag.code for flag in whole.flags}

    @pytest.mark.parametrize("difficulty", [0.0, 1.0])
    def test_12_no_phantom_is_called_defaced_and_all_are_if_they_are(self, difficulty: float) -> None:
        for patient in range(4):
            head = make_head(PhantomSettings(size=128, seed=12, difficulty=difficulty), patient)
            removed = head.hu.copy()
            for i, image in enumerate(removed[: len(removed) // 2]):
                image[: int(50 - 50 * i / len(removed))] = 0
            for hu, expected in ((head.hu, False), (removed, True)):
                sections = [measure_section(image, head.spacing_mm[1]) for image in hu]
                assert judge(sections, head.spacing_mm[0]) == "head"
                assert is_defaced(sections) is expected
                assert count_neck_slices(sections, np.asarray(head.positions_mm)) == 0

    @pytest.mark.parametrize("fill", [0, -1024])
    def test_12_a_real_head(self, fill: int, real_data: Path) -> None:
        scan = read_scan(real_data / "ge_head_tilt")
        hu = scan.hu.copy()
        hu[:10, :170] = fill
        sections = [measure_section(image, scan.spacing_mm[1]) for image in hu]
        assert judge(sections, scan.spacing_mm[0]) == "head"
        assert count_neck_slices(sections, scan.positions_mm) == 0
        assert is_defaced(sections) is (fill == 0)
