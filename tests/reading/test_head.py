"""Whether it is a head, and where it ends: row 62 of the catalogue. The shapes are rough, and in mm."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from body_parts import FIELD, START, Shape, abdomen, chest, craniectomy, ellipse, knee, make, neck, operated, skull, water
from dicom_files import slice_hu

from ich_lstm.errors import IchLstmError
from ich_lstm.phantom import PhantomSettings, make_head
from ich_lstm.reading import choose_series, index_source, load_scan, read_scan
from ich_lstm.reading.head import count_neck_slices, judge, look_at_section


def looks_of(shape: Shape, count: int = 20) -> list[Any]:
    hu = np.rint(slice_hu((*START, 0), anatomy=shape, **FIELD)).astype(np.int16)  # type: ignore[arg-type]
    return [look_at_section(hu, FIELD["spacing"])] * count


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
        looks = [look_at_section(image, head.spacing_mm[1]) for image in head.hu]
        assert judge(looks, head.spacing_mm[0]) == "head"
        assert count_neck_slices(looks, np.asarray(head.positions_mm)) == 0

    @pytest.mark.parametrize("value", [-1024, 0, 40, 500, 3071])
    def test_pictures_without_content_are_unclear(self, value: int) -> None:
        looks = [look_at_section(np.full((64, 64), value, np.int16), 4.0)] * 10
        assert judge(looks, 5.0) == "unclear"
        assert count_neck_slices(looks, np.arange(10) * 5.0) == 0


class TestSeries:
    @pytest.mark.parametrize("shape", [neck, chest, abdomen, knee])
    def test_62_another_part_is_refused(self, shape: Shape, tmp_path: Path) -> None:
        index = index_source(make(tmp_path, lambda z: shape))
        series = choose_series(index.studies()[0]).series
        with pytest.raises(IchLstmError) as refusal:
            load_scan(series, ledger=index.ledger)
        assert refusal.value.code == "no_head"
        assert index.ledger.counts() == {"used": 0, "skipped": 0, "refused": 24}
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

        assert [flag.code for flag in read_scan(make(tmp_path, lambda z: clip if z == 50 else skull)).flags] == ["metal"]


def test_62_a_skull_around_plastic_is_flagged(tmp_path: Path) -> None:
    def plastic(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        hu = skull(x, y, z)
        hu[ellipse(x, y, 64, 83)] = -70
        return hu

    scans = [
        read_scan(make(tmp_path / name, lambda z, shape=shape: shape)) for name, shape in (("head", skull), ("doll", plastic))
    ]
    assert [[flag.code for flag in scan.flags if flag.code == "no_brain"] for scan in scans] == [[], ["no_brain"]]
