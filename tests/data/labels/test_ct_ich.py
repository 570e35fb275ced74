"""CT-ICH's table."""

from collections.abc import Callable
from pathlib import Path

import pytest

from ich_lstm import LABELS
from ich_lstm.data.labels.table import read_label_table
from ich_lstm.errors import TableError

HEADER = (
    "PatientNumber,SliceNumber,Intraventricular,Intraparenchymal,Subarachnoid,Epidural,Subdural,No_Hemorrhage,Fracture_Yes_No\n"
)


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write the table, with a byte-order mark or without."""

    def _write(rows: str, encoding: str = "utf-8") -> Path:
        (tmp_path / "hemorrhage_diagnosis_raw_ct.csv").write_bytes((HEADER + rows).encode(encoding))
        return tmp_path / "hemorrhage_diagnosis_raw_ct.csv"

    return _write


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_rows_become_slices_of_files(write: Callable, encoding: str) -> None:
    table = read_label_table(write("49,1,0,0,0,0,0,1,0\n49,2,1,0,0,0,1,0,1\n130,12,0,0,0,1,0,0,1\n", encoding))
    assert table.rows["name"].tolist() == ["ct_scans/049.nii#1", "ct_scans/049.nii#2", "ct_scans/130.nii#12"]
    assert set(table.rows["kind"]) == {"file"}
    assert table.rows["patient_id"].tolist() == ["49", "49", "130"]
    assert LABELS == ("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any")
    assert table.rows[list(LABELS)].to_numpy().tolist() == [[0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 1, 1], [1, 0, 0, 0, 0, 1]]


def test_a_type_and_no_hemorrhage_stop_or_are_repaired(write: Callable) -> None:
    path = write("49,1,0,0,0,0,0,1,0\n49,2,1,0,0,0,0,1,0\n")
    with pytest.raises(TableError) as caught:
        read_label_table(path)
    assert caught.value.code == "any_contradicts_types"
    assert "line 3" in caught.value.where
    table = read_label_table(path, repair_any=True)
    assert table.rows["any"].tolist() == [0, 1]
    assert "line 3" in table.flags[0]


@pytest.mark.parametrize("place", ["49,0", "49,-1", "49,1.5", ",1", "49,", "x,1", "0,1"])
def test_slices_are_numbered_from_1(write: Callable, place: str) -> None:
    with pytest.raises(TableError) as caught:
        read_label_table(write(f"49,7,0,0,0,0,0,1,0\n{place},0,0,0,0,0,1,0\n"))
    assert caught.value.code == "bad_slice_number"
    assert "line 3" in caught.value.where


@pytest.mark.parametrize(
    ("rows", "code"),
    [("49,1,0,0,0,0,2,0,0\n", "bad_label"), ("49,1,0,0,0,0,0,1,0\n49,01,0,0,0,0,1,0,0\n", "contradicting_rows"), ("", "no_rows")],
)
def test_refused(write: Callable, rows: str, code: str) -> None:
    with pytest.raises(TableError) as caught:
        read_label_table(write(rows))
    assert caught.value.code == code
