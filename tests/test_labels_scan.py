"""The two lowest floors: the order of labels, and what a Scan promises."""

import numpy as np
import pytest
from fabricated import make_scan

from ich_lstm import HEMORRHAGE_TYPES, LABELS
from ich_lstm.labels import LABEL_WEIGHTS
from ich_lstm.scan import Note


def test_labels_stand_in_rsna_s_order_and_any_counts_twice() -> None:
    assert LABELS == ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")
    assert LABELS[:5] == HEMORRHAGE_TYPES
    assert dict(zip(LABELS, LABEL_WEIGHTS, strict=True)) == dict.fromkeys(HEMORRHAGE_TYPES, 1.0) | {"any": 2.0}


class TestScan:
    def test_arrays_cannot_be_written(self) -> None:
        scan = make_scan()
        with pytest.raises(ValueError, match="read-only"):
            scan.hu[0, 0, 0] = 0
        with pytest.raises(ValueError, match="read-only"):
            scan.positions_mm[0] = 0
        with pytest.raises(AttributeError):
            scan.patient_id = "other"  # type: ignore[misc]

    def test_length_is_the_number_of_slices(self) -> None:
        assert len(make_scan(np.zeros((7, 8, 8), np.int16))) == 7

    def test_equal_positions_and_one_slice_are_allowed(self) -> None:
        assert len(make_scan(positions_mm=np.zeros(4))) == 4
        assert len(make_scan(np.zeros((1, 8, 8), np.int16))) == 1

    def test_repr_is_short(self) -> None:
        assert len(repr(make_scan())) < 500

    @pytest.mark.parametrize(
        "changes",
        [
            {"hu": np.zeros((4, 8, 8), np.float32)},
            {"hu": np.zeros((8, 8), np.int16)},
            {"hu": np.zeros((0, 8, 8), np.int16)},
            {"hu": np.full((4, 8, 8), -1025, np.int16)},
            {"hu": np.full((4, 8, 8), 3072, np.int16)},
            {"positions_mm": np.array([0.0, 5.0, 4.0, 15.0])},
            {"positions_mm": np.array([0.0, 5.0, 10.0])},
            {"positions_mm": np.array([0.0, 5.0, np.nan, 15.0])},
            {"positions_mm": np.zeros((4, 2))},
            {"sop_uids": ("1", "2", "3")},
        ],
        ids=lambda changes: "-".join(changes),
    )
    def test_refuses_what_breaks_its_promise(self, changes: dict) -> None:
        with pytest.raises(ValueError, match="Scan"):
            make_scan(**changes)

    def test_range_ends_belong_to_it(self) -> None:
        hu = np.zeros((2, 4, 4), np.int16)
        hu[0], hu[1] = -1024, 3071
        assert make_scan(hu).hu.max() == 3071


def test_note_reads_as_code_and_detail() -> None:
    assert str(Note("tilt", "18.5 degrees")) == "tilt: 18.5 degrees"
    assert str(Note("tilt", "")) == "tilt"
