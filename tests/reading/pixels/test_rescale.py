"""Stored values to HU, against a straightforward reference in float64."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from catalogue.case import sound_hu
from dicom_files import make_series, slice_hu

from ich_lstm.reading import read_scan
from ich_lstm.reading.pixels.rescale import RescaleError, Storage, to_hu


class TestWrap:
    """Row 27: RSNA's 12 bits hold -1024 to 3071 exactly."""

    @pytest.mark.parametrize("intercept", [0.0, -1.0])
    def test_27_the_wrap_lies_at_3072(self, intercept: float) -> None:
        stored = np.array([[3072, 3096, 4095, 0, 40, 70, 3071]], np.uint16)
        hu, repairs = to_hu(stored, Storage(intercept=intercept, bits_stored=12))
        assert hu.tolist() == [[-1024, -1000, -1, 0, 40, 70, 3071]]
        assert [note.code for note in repairs] == ["wrap_12bit"]

    def test_27_every_value_comes_back(self) -> None:
        truth = np.arange(-1024, 3072, dtype=np.int16).reshape(64, 64)
        hu, _ = to_hu((truth & 0x0FFF).view(np.uint16), Storage(intercept=0, bits_stored=12))
        np.testing.assert_array_equal(hu, truth)

    @pytest.mark.parametrize("lowest", [-1024, -1001, -1000])
    def test_27_air_below_1000_does_not_become_metal(self, lowest: int, tmp_path: Path) -> None:
        def own(i: int) -> dict[str, Any]:
            hu = np.where((found := sound_hu(i)) == -1000, lowest, found)
            return {"stored": (hu.astype(int) % 4096).astype(np.uint16)}

        make_series(tmp_path, 14, change=own, RescaleIntercept=0, BitsStored=12, HighBit=11)
        scan = read_scan(tmp_path)
        assert scan.hu.min() == lowest
        assert scan.hu.max() == 900
        assert [note.code for note in scan.repairs] == ["wrap_12bit"]
        assert {flag.code for flag in scan.flags} == {"incomplete"}  # 70 mm of a head

    def test_27_where_nothing_wrapped_no_repair_is_claimed(self) -> None:
        stored = np.array([[24, 1064, 2000]], np.uint16)
        assert to_hu(stored, Storage(intercept=0, bits_stored=12))[1] == ()


@pytest.mark.parametrize("seed", range(20))
def test_equals_the_reference(seed: int) -> None:
    rng = np.random.default_rng(seed)
    signed = bool(seed % 2)
    slope = float(rng.choice([1.0, 1.0, 2.0, 0.5, 0.1, 1.7]))
    intercept = float(rng.choice([-1024, -1000, -8192, -1024.5, -32768, -200]))
    dtype = np.int16 if signed else np.uint16
    stored = rng.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, (64, 64)).astype(dtype)
    expected = np.clip(np.rint(stored.astype(np.float64) * slope + intercept), -1024, 3071)
    hu, _ = to_hu(stored.copy(), Storage(slope, intercept, 16, signed))
    assert hu.dtype == np.int16
    # float32 keeps 7 digits: a value that lies half-way between two HU may be rounded to the other one
    tolerance = 0 if slope == int(slope) and intercept == int(intercept) else 1
    assert abs(hu - expected).max() <= tolerance


def test_read_only_input_is_left_alone() -> None:
    stored = np.array([[0, 1064]], np.uint16)
    stored.flags.writeable = False
    assert to_hu(stored, Storage(intercept=-1024))[0].tolist() == [[-1024, 40]]
    assert stored.tolist() == [[0, 1064]]


def test_padding_that_may_be_tissue_is_left_alone() -> None:
    stored = np.array([[0, 40, -1000]], np.int16)
    hu, repairs = to_hu(stored, Storage(signed=True, padding=0))
    assert hu.tolist() == [[0, 40, -1000]]
    assert repairs == ()


def test_padding_range_and_padding_above() -> None:
    hu, _ = to_hu(np.array([[10, 20, 30, 1064]], np.uint16), Storage(intercept=-1024, padding=10, padding_limit=20))
    assert hu.tolist() == [[-1024, -1024, -994, 40]]
    hu, _ = to_hu(np.array([[65535, 1064]], np.uint16), Storage(intercept=-1024, padding=65535))
    assert hu.tolist() == [[-1024, 40]]


def test_extended_12_bit_signed_values_stay() -> None:
    stored = np.array([[-1000, 40, 3000]], np.int16)
    assert to_hu(stored, Storage(bits_stored=12, signed=True))[0].tolist() == [[-1000, 40, 3000]]


@pytest.mark.parametrize("slope", [0, -1, np.nan, np.inf, 1e9])
def test_impossible_slope(slope: float) -> None:
    with pytest.raises(RescaleError) as error:
        to_hu(np.zeros((2, 2), np.uint16), Storage(slope=slope))
    assert error.value.code == "bad_rescale"


class TestUnusedBits:
    """PS3.5 8.1.1: what stands above Bits Stored is no part of the value."""

    def test_old_overlay_in_unsigned_values(self) -> None:
        stored = np.array([[0, 1064, 1064 | 0x8000, 4095 | 0x1000]], np.uint16)
        hu, repairs = to_hu(stored, Storage(1.0, -1024.0, bits_stored=12))
        assert hu.tolist() == [[-1024, 40, 40, 3071]]
        assert [note.code for note in repairs] == ["unused_bits"]

    def test_negative_padding_in_unsigned_values_is_air(self) -> None:
        stored = np.array([[63536, 1064, 0, 2000]], np.uint16)
        for padding in (63536, None):
            hu, repairs = to_hu(stored.copy(), Storage(1.0, -1024.0, bits_stored=12, padding=padding))
            assert hu.tolist() == [[-1024, 40, -1024, 976]]
            assert "unused_bits" not in {note.code for note in repairs}

    def test_junk_above_signed_values(self) -> None:
        stored = np.array([[-1000, 40, 40 | 0x4000, -1000 & 0x0FFF]], np.int16)
        hu, repairs = to_hu(stored, Storage(1.0, 0.0, bits_stored=12, signed=True))
        assert hu.tolist() == [[-1000, 40, 40, -1000]]
        assert [note.code for note in repairs] == ["unused_bits"]

    @pytest.mark.parametrize(("intercept", "values"), [(0.0, [-1000, 40, 2500, 3000]), (-1024.0, [0, 1064, 2500, 4000])])
    def test_bits_stored_that_is_too_small_changes_nothing(self, intercept: float, values: list[int]) -> None:
        hu, repairs = to_hu(np.array([values], np.int16), Storage(1.0, intercept, bits_stored=12, signed=True))
        assert hu.tolist() == [[value + int(intercept) for value in values]]
        assert repairs == ()


def test_22_rescale_is_judged_for_the_series_as_a_whole(tmp_path: Path) -> None:
    """A slice of air and bone alone would not tell; the others do."""
    hu = [np.rint(slice_hu((-96, -96, -20 + 5 * i))) for i in range(8)]
    hu[7] = np.where(hu[7] == 900, 900, -1000)
    make_series(
        tmp_path,
        intercept=0,
        PixelRepresentation=1,
        RescaleSlope=None,
        RescaleIntercept=None,
        change=lambda i: {"hu": hu[i]},
    )
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.hu, np.stack(hu))
    assert [note.code for note in scan.repairs] == ["rescale_missing"]


PADDINGS = (-3024, -8192, -32768)


class TestPaddingOutsideTheBits:
    """Row 29: padding is what the 16 bits say, before they are masked or their sign is extended."""

    @staticmethod
    def picture(signed: bool, intercept: int, padding: int) -> tuple[np.ndarray, np.ndarray]:
        """Stored values with two corners of padding, and the HU that are right."""
        truth = np.rint(slice_hu((-96, -96, 0))).astype(int)
        stored = truth - intercept
        for corner in (np.s_[:4, :4], np.s_[-4:, -4:]):
            stored[corner], truth[corner] = padding, -1024
        return (stored & 0xFFFF).astype(np.uint16).view(np.int16 if signed else np.uint16), truth

    @pytest.mark.parametrize("padding", PADDINGS)
    @pytest.mark.parametrize("declared", [True, False])
    @pytest.mark.parametrize(
        ("bits", "signed", "intercept"),
        [
            (12, True, 0),
            (12, True, -1024),
            (13, True, 0),
            (12, False, -1024),
            (13, False, -1024),
            (16, False, -1024),
            (16, True, 0),
        ],
    )
    def test_29_becomes_air(self, padding: int, declared: bool, bits: int, signed: bool, intercept: int) -> None:
        stored, truth = self.picture(signed, intercept, padding)
        named = padding if declared else None
        hu, repairs = to_hu(stored, Storage(1.0, intercept, bits, signed, named))
        np.testing.assert_array_equal(hu, truth)
        assert [note.code for note in repairs] == ["padding" if declared else "below_air"]

    @pytest.mark.parametrize("named", [-2000, 63536])
    @pytest.mark.parametrize(
        ("bits", "signed", "intercept"), [(12, True, 0), (16, True, 0), (12, False, -1024), (16, False, -1024)]
    )
    def test_29_of_the_other_signedness(self, named: int, bits: int, signed: bool, intercept: int) -> None:
        stored, truth = self.picture(signed, intercept, -2000)
        hu, repairs = to_hu(stored, Storage(1.0, intercept, bits, signed, named))
        np.testing.assert_array_equal(hu, truth)
        assert [note.code for note in repairs] == ["padding"]

    @pytest.mark.parametrize("limits", [(-2000, -1500), (-1500, -2000), (63536, 64036), (64036, 63536)])
    @pytest.mark.parametrize(("bits", "signed", "intercept"), [(12, True, 0), (12, False, -1024), (16, False, -1024)])
    def test_29_a_range(self, limits: tuple[int, int], bits: int, signed: bool, intercept: int) -> None:
        stored, truth = self.picture(signed, intercept, -2000)
        stored[0, 0] = np.array(-1700).astype(np.int16).view(stored.dtype)
        hu, _ = to_hu(stored, Storage(1.0, intercept, bits, signed, *limits))
        np.testing.assert_array_equal(hu, truth)

    def test_29_a_range_across_zero_of_unsigned_values(self) -> None:
        stored, truth = self.picture(False, -1024, -2000)
        truth[truth == -1000] = -1024
        hu, _ = to_hu(stored, Storage(1.0, -1024, 16, False, 63536, 24))
        np.testing.assert_array_equal(hu, truth)

    @pytest.mark.parametrize("padding", PADDINGS)
    @pytest.mark.parametrize(("signed", "intercept"), [(True, 0), (False, -1024)])
    def test_29_of_which_a_codec_left_12_bits(self, padding: int, signed: bool, intercept: int) -> None:
        truth = np.rint(slice_hu((-96, -96, 0))).astype(int)
        masked = (padding & 0xFFF) - (4096 if signed and padding & 0x800 else 0)
        stored = truth - intercept
        stored[10, 10] = masked  # of tissue, and to be left alone
        truth[10, 10] = np.clip(masked + intercept, -1024, 3071)
        corners = np.zeros(truth.shape, bool)
        for rows in (np.s_[:3], np.s_[-3:]):
            for columns in (np.s_[:3], np.s_[-3:]):
                corners[rows, columns] = True
        stored[corners], truth[corners] = masked, -1024
        hu, repairs = to_hu(stored.astype(np.int16 if signed else np.uint16), Storage(1.0, intercept, 12, signed, padding))
        np.testing.assert_array_equal(hu, truth)
        assert [note.code for note in repairs] == ["padding"]

    @pytest.mark.parametrize("value", PADDINGS)
    def test_29_in_wrapped_12_bits(self, value: int) -> None:
        truth = np.rint(slice_hu((-96, -96, 0))).astype(np.int16)
        stored = (truth & 0x0FFF).view(np.uint16)
        stored[:4, :4], truth[:4, :4] = value & 0xFFFF, -1024
        for padding in (None, value):
            hu, repairs = to_hu(stored.copy(), Storage(intercept=0, bits_stored=12, padding=padding))
            np.testing.assert_array_equal(hu, truth)
            assert "wrap_12bit" in {note.code for note in repairs}

    def test_29_unsigned_values_that_are_signed(self) -> None:
        stored, truth = self.picture(False, 0, -2000)
        for padding in (63536, -2000, None):
            hu, repairs = to_hu(stored.copy(), Storage(1.0, 0.0, 16, False, padding))
            np.testing.assert_array_equal(hu, truth)
            assert {note.code for note in repairs} == {"unsigned_flag", "below_air" if padding is None else "padding"}

    def test_29_metal_beyond_16_bits_is_no_padding(self) -> None:
        stored = (np.rint(slice_hu((-96, -96, 0))) + 1024).astype(np.uint16)
        stored[14:18, 14:18] = 40000
        assert (to_hu(stored, Storage(1.0, -1024.0))[0][14:18, 14:18] == 3071).all()

    @pytest.mark.parametrize("declared", [True, False])
    @pytest.mark.parametrize("padding", PADDINGS)
    def test_29_in_a_series(self, padding: int, declared: bool, tmp_path: Path) -> None:
        def own(i: int) -> dict[str, Any]:
            hu = sound_hu(i)
            hu[:3, :3] = padding
            return {"hu": hu}

        elements = {"PixelPaddingValue": padding} if declared else {}
        make_series(tmp_path, intercept=0, PixelRepresentation=1, BitsStored=12, HighBit=11, change=own, **elements)
        expected = np.stack([sound_hu(i) for i in range(8)])
        expected[:, :3, :3] = -1024
        np.testing.assert_array_equal(read_scan(tmp_path).hu, expected)
