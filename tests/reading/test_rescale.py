"""Stored values to HU, against a straightforward reference in float64."""

from pathlib import Path

import numpy as np
import pytest
from dicom_files import make_series, slice_hu

from ich_lstm.reading import read_scan
from ich_lstm.reading.rescale import RescaleError, Storage, to_hu


def test_rsna_repair_of_the_recipe() -> None:
    stored = np.array([[3096, 4095, 0, 40, 70, 3095]], np.uint16)
    hu, repairs = to_hu(stored, Storage(intercept=0, bits_stored=12))
    assert hu.tolist() == [[-1000, -1, 0, 40, 70, 3071]]
    assert [note.code for note in repairs] == ["wrap_12bit"]


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
