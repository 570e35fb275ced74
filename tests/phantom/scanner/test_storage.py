import numpy as np
import pytest

from ich_lstm.phantom.scanner.storage import Storage


def test_the_repair_undoes_the_wrapped_kind_for_every_value(repair):
    storage = Storage("wrapped", 0, False)
    hu = np.arange(storage.floor_hu, 3072, dtype=np.int16)
    stored = storage.encode(hu)
    assert stored.min() >= 0
    assert stored.max() < 4096
    assert np.array_equal(repair(stored), hu)


def test_the_wrapped_kind_stores_what_the_recipes_list():
    hu = np.array([-1000, -1, 0, 40, 70, 3071], np.int16)
    assert Storage("wrapped", 0, False).encode(hu).tolist() == [3096, 4095, 0, 40, 70, 3071]


@pytest.mark.parametrize(
    "storage", [Storage("unsigned", -1024, False), Storage("signed", -1024, False), Storage("signed", 0, True)]
)
def test_plain_kinds_come_back_by_the_rescale_intercept(storage):
    hu = np.arange(storage.floor_hu, 3072, dtype=np.int16)
    stored = storage.encode(hu)
    assert np.array_equal(stored.astype(np.int32) + storage.intercept, hu)
    assert stored.max() < 2**storage.bits_stored


def test_padding_lies_below_every_hu_in_signed_files_only():
    hu = np.full((2, 2), -1024, np.int16)
    padding = np.array([[True, False], [False, False]])
    stored = Storage("signed", 0, False).encode(hu, padding)
    assert stored[0, 0] < -1024
    assert stored[1, 1] == -1024
    assert (Storage("unsigned", -1024, False).encode(hu, padding) == 0).all()
