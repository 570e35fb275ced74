"""Values that are called HU and are none: row 22b of the catalogue, on synthetic heads and, where they are there, real ones."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from dicom_files import make_series
from shared_files import DATA

from ich_lstm.errors import IchLstmError
from ich_lstm.phantom import PhantomSettings, make_head
from ich_lstm.reading import choose_series, index_source, load_scan, read_nifti, read_scan
from ich_lstm.reading.pixels.plausibility import find_fault
from ich_lstm.scan import HU_MAX, HU_MIN

Change = Callable[[np.ndarray], np.ndarray]


@cache
def phantom(patient: int, difficulty: float = 0.0, size: int = 64) -> np.ndarray:
    """HU ``(n, h, w)``; n is 20 to 45."""
    return make_head(PhantomSettings(patients=60, size=size, seed=81, difficulty=difficulty), patient).hu


@pytest.fixture(scope="module", params=[18, pytest.param(60, marks=pytest.mark.slow)], ids="{}-heads".format)
def heads(request: pytest.FixtureRequest) -> list[np.ndarray]:
    """Six of each size and difficulty; among the slow tests twenty."""
    return [phantom(patient, difficulty=patient % 3 / 2, size=64 if patient % 2 else 96) for patient in range(request.param)]


@pytest.fixture(scope="module")
def real_heads() -> list[np.ndarray]:
    if not (DATA / "ge_head_tilt").is_dir() or not (DATA / "philips_exam.zip").is_file():
        pytest.skip("the real files are not in ../shared/data")
    return [read_scan(DATA / "ge_head_tilt").hu, read_scan(DATA / "philips_exam.zip").hu]


def displayed(low: float, high: float, intercept: float = 0.0) -> Change:
    return lambda hu: np.clip((hu - low) / (high - low), 0, 1) * 255 + intercept


def outside_of_circle(value: float) -> Change:
    def change(hu: np.ndarray) -> np.ndarray:
        rows, columns = np.ogrid[: hu.shape[1], : hu.shape[2]]
        middle, radius = (np.array(hu.shape[1:]) - 1) / 2, min(hu.shape[1:]) / 2
        outside = (rows - middle[0]) ** 2 + (columns - middle[1]) ** 2 > radius**2
        return np.where(outside, value, hu)

    return change


def cropped_to_the_brain(hu: np.ndarray) -> np.ndarray:
    rows, columns = np.nonzero((hu > -300).mean(axis=0) > 0.5)
    half = int(0.35 * min(np.ptp(rows), np.ptp(columns)))
    y, x = round(rows.mean()), round(columns.mean())
    return hu[:, y - half : y + half, x - half : x + half]


def extended_12_bits(hu: np.ndarray) -> np.ndarray:
    stored = hu + 1024.0
    return np.where(stored >= 2048, stored - 4096, stored)


SOUND: dict[str, Change] = {
    "as-it-is": lambda hu: hu,
    "circle-of-air": outside_of_circle(-1024),
    "circle-of-zeros": outside_of_circle(0),
    "fills-the-picture": cropped_to_the_brain,
    "air-cut-at-minus-1000": lambda hu: np.maximum(hu, -1000),
    "upper-half": lambda hu: hu[len(hu) // 2 :],
    "lower-third": lambda hu: hu[: max(4, len(hu) // 3)],
    "an-intercept-of-minus-1000": lambda hu: hu + 24,
}
FALSE: dict[str, Change] = {
    "intercept-0": lambda hu: hu + 1024.0,
    "intercept-0-air-cut": lambda hu: np.maximum(hu, -1000) + 1000.0,
    "intercept-0-sign-extended": extended_12_bits,
    "intercept-twice": lambda hu: hu - 1024.0,
    "intercept-twice-air-cut": lambda hu: np.maximum(hu, -1000) - 1024.0,
    "display-values": displayed(0, 80),
    "display-values-of-bone": displayed(-1000, 1000),
    "display-values-intercept-1024": displayed(0, 80, -1024),
    "display-values-of-bone-intercept-1024": displayed(-1000, 1000, -1024),
    "window-of-hu": lambda hu: np.clip(hu, 0, 80),
    "slope-2": lambda hu: hu * 2.0,
    "slope-2-intercept-1024": lambda hu: (hu + 1024.0) * 2 - 1024,
    "slope-half": lambda hu: hu / 2,
    "slope-half-intercept-1024": lambda hu: (hu + 1024.0) / 2 - 1024,
    "inverted": lambda hu: -hu.astype(float),
    "inverted-stored": lambda hu: 4095 - (hu + 1024.0) - 1024,
    "8-bit-steps": lambda hu: np.rint(hu / 16.0) * 16,
}


def clipped(hu: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(hu), HU_MIN, HU_MAX).astype(np.int16)


class TestRule:
    @pytest.mark.parametrize("change", SOUND.values(), ids=SOUND)
    def test_22b_no_sound_head_is_refused(self, change: Change, heads: list[np.ndarray]) -> None:
        assert [find_fault(clipped(change(hu))) for hu in heads] == [""] * len(heads)

    @pytest.mark.parametrize("change", SOUND.values(), ids=SOUND)
    def test_22b_no_real_head_is_refused(self, change: Change, real_heads: list[np.ndarray]) -> None:
        assert [find_fault(clipped(change(hu))) for hu in real_heads] == ["", ""]

    @pytest.mark.parametrize("clip", [clipped, np.asarray], ids=["clipped", "not-clipped"])
    @pytest.mark.parametrize("change", FALSE.values(), ids=FALSE)
    def test_22b_every_false_scale_is_seen(self, change: Change, clip: Change, heads: list[np.ndarray]) -> None:
        assert all(find_fault(clip(change(hu))) for hu in heads)

    @pytest.mark.parametrize("change", FALSE.values(), ids=FALSE)
    def test_22b_every_false_scale_of_a_real_head_is_seen(self, change: Change, real_heads: list[np.ndarray]) -> None:
        assert all(find_fault(clipped(change(hu))) for hu in real_heads)

    def test_22b_air_around_the_head_may_all_be_set_to_the_floor(self, heads: list[np.ndarray]) -> None:
        assert [find_fault(np.where(hu < -900, -1024, hu)) for hu in heads] == [""] * len(heads)

    def test_22b_a_head_may_have_lost_its_face(self, heads: list[np.ndarray]) -> None:
        for hu in heads[:10]:
            faceless = hu.copy()
            faceless[: len(hu) // 2, : hu.shape[1] // 3] = 0
            assert find_fault(faceless) == ""

    def test_22b_metal_bone_of_an_infant_and_air_after_surgery(self, heads: list[np.ndarray]) -> None:
        for hu in heads[:10]:
            middle = (len(hu) // 2, *(side // 2 for side in hu.shape[1:]))
            for value in (3071, -1000):
                changed = hu.copy()
                changed[middle[0] - 4 : middle[0] + 4, middle[1] - 8 : middle[1] + 8, middle[2] - 8 : middle[2] + 8] = value
                assert find_fault(changed) == ""
            assert find_fault(np.where(hu > 200, 200 + (hu - 200) // 4, hu)) == ""

    def test_22b_some_slices_of_another_scale_are_seen(self, heads: list[np.ndarray]) -> None:
        for hu in heads[:10]:
            changed = hu.copy()
            changed[::3] += 1024
            assert "slices" in find_fault(clipped(changed))

    @pytest.mark.parametrize("value", [1e300, -1e300, 2.0**40])
    def test_22b_numbers_beyond_all_bounds_are_counted(self, value: float) -> None:
        hu = phantom(0).astype(float)
        hu[:, 0, 0] = value
        assert find_fault(hu) == ""
        assert find_fault(np.where(hu > 0, abs(value), hu))

    def test_22b_pictures_without_content_are_not_judged(self) -> None:
        for value in (-1024, 0, 3071):
            assert find_fault(np.full((8, 32, 32), value, np.int16)) == ""

    def test_22b_what_was_found_is_said(self) -> None:
        fault = find_fault(np.maximum(phantom(0), -1000) + 1024)
        assert "the edge of the image at 24" in fault
        assert abs(int(fault.rsplit(" ", 1)[1]) - 1064) < 40


# How the values of a file come to be false: stored values of HU, and the header
STORED: dict[str, tuple[Change, float, float]] = {
    "intercept-0": (lambda hu: hu + 1024, 1.0, 0.0),
    "intercept-twice": (lambda hu: np.maximum(hu, -1024), 1.0, -1024.0),
    "display": (displayed(0, 80), 1.0, 0.0),
    "display-intercept": (displayed(0, 80), 1.0, -1024.0),
    "slope-2": (lambda hu: hu + 1024, 2.0, -1024.0),
    "slope-half": (lambda hu: hu + 1024, 0.5, -1024.0),
}


def write_false(folder: Path, name: str, bits: int, signed: bool) -> None:
    change, slope, intercept = STORED[name]
    hu = phantom(1, size=64)[:24]
    stored = np.rint(change(hu))
    if stored.min() < 0 and not signed:  # what a writer does that knows no sign
        stored, intercept = stored + 1024, intercept - 1024
    if bits == 12:
        stored = np.clip(stored, -2048 if stored.min() < 0 else 0, 4095 if stored.min() >= 0 else 2047)
    values = stored.astype(np.int16 if signed else np.uint16)
    make_series(
        folder,
        len(values),
        change=lambda i: {"hu": hu[i], "stored": values[i]},
        RescaleSlope=slope,
        RescaleIntercept=intercept,
        BitsStored=bits,
        HighBit=bits - 1,
        PixelRepresentation=int(signed),
        PixelSpacing=[3.5, 3.5],
    )


class TestDicom:
    @pytest.mark.parametrize("allow_other_part", [False, True])
    @pytest.mark.parametrize("signed", [False, True], ids=["unsigned", "signed"])
    @pytest.mark.parametrize("bits", [12, 16])
    @pytest.mark.parametrize("name", STORED)
    def test_22b_a_false_rescale_is_refused(
        self, name: str, bits: int, signed: bool, allow_other_part: bool, tmp_path: Path
    ) -> None:
        write_false(tmp_path, name, bits, signed)
        index = index_source(tmp_path)
        series = choose_series(index.studies()[0], allow_other_part=allow_other_part).series
        for training in (False, True):
            with pytest.raises(IchLstmError) as refusal:
                load_scan(series, ledger=index.ledger, training=training, allow_other_part=allow_other_part)
            assert refusal.value.code == "not_hu"
        assert index.ledger.counts() == {"used": 0, "skipped": 0, "refused": 24}
        assert set(index.ledger.to_frame().code) == {"not_hu"}
        assert "-1000" in refusal.value.expected

    def test_22b_the_head_with_its_true_rescale_is_read(self, tmp_path: Path) -> None:
        hu = phantom(1, size=64)
        make_series(tmp_path, len(hu), change=lambda i: {"hu": hu[i]}, PixelSpacing=[3.5, 3.5])
        np.testing.assert_array_equal(read_scan(tmp_path).hu, hu)


NIFTI: dict[str, Change] = {
    **FALSE,
    "magnitude-of-mr": lambda hu: np.where(hu < -300, abs(np.random.default_rng(1).normal(0, 8, hu.shape)), hu / 2 + 900),
    "normalized": lambda hu: displayed(-1000, 1000)(hu) / 255,
    "z-scores": lambda hu: (hu - hu.mean()) / hu.std(),
    "label-mask": lambda hu: hu > 60,
    "cerebral-blood-flow": lambda hu: np.where(abs(hu) < 100, abs(hu) * 1.5, 0),
    "phase": lambda hu: np.where(
        hu < -300, np.random.default_rng(2).uniform(-4096, 4094, hu.shape), np.random.default_rng(3).normal(0, 300, hu.shape)
    ),
    "phase-degrees": lambda hu: np.random.default_rng(4).uniform(-180, 180, hu.shape),
}


class TestNifti:
    @pytest.mark.parametrize("dtype", [np.float32, np.int16])
    @pytest.mark.parametrize("name", NIFTI)
    def test_22b_what_is_no_hu_is_refused(self, name: str, dtype: type, tmp_path: Path) -> None:
        pytest.importorskip("nibabel", reason="the extra nifti is not installed")
        from nifti_files import make_nifti

        values = NIFTI[name](phantom(2))
        path = make_nifti(tmp_path / "a.nii", values if dtype is np.float32 else np.rint(values), dtype=dtype)
        for allow_other_part in (False, True):
            with pytest.raises(IchLstmError) as refusal:
                read_nifti(path, allow_other_part=allow_other_part)
            assert refusal.value.code == "not_hu"

    @pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float64])
    def test_22b_windowed_values_of_any_kind_of_number(self, dtype: type, tmp_path: Path) -> None:
        pytest.importorskip("nibabel", reason="the extra nifti is not installed")
        from nifti_files import make_nifti

        with pytest.raises(IchLstmError) as refusal:
            read_nifti(make_nifti(tmp_path / "a.nii", np.rint(displayed(0, 80)(phantom(2))), dtype=dtype))
        assert refusal.value.code == "not_hu"
