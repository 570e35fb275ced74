"""Stored values to HU, against a straightforward reference in float64."""

import numpy as np
import pytest

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
