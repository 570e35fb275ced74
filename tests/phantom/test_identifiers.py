import re

from ich_lstm.phantom.identifiers import SLICES_PER_PATIENT, file_uid, patient_identifier, slice_identifier
from ich_lstm.phantom.settings import MAX_PATIENTS, MAX_SLICES


def test_slices_have_nine_digits_and_never_share_an_identifier():
    found = [slice_identifier(1, patient, index) for patient in range(1500) for index in range(40)]
    assert all(re.fullmatch(r"ID_[0-9a-f]{9}", uid) for uid in found)
    assert len(set(found)) == len(found)


def test_identifiers_depend_on_the_seed_and_do_not_count_up():
    assert slice_identifier(1, 0, 0) != slice_identifier(2, 0, 0)
    numbers = [int(patient_identifier(1, patient)[3:], 16) for patient in range(20)]
    assert numbers != sorted(numbers)


def test_the_blocks_of_all_patients_fit_into_nine_digits():
    assert MAX_SLICES <= SLICES_PER_PATIENT
    assert MAX_PATIENTS * SLICES_PER_PATIENT <= 16**9


def test_the_uid_of_the_file_is_a_valid_one():
    assert re.fullmatch(r"2\.25\.[1-9][0-9]*", file_uid(1, 0, 0))
    assert len(file_uid(1, 0, 0)) <= 64
