"""What is remembered of a study."""

import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from ich_lstm.archive.folder.study_record import JoinedTable, StudyRecord, StudyRecords, TableRows, states_of
from ich_lstm.reading import FileRef


@pytest.fixture
def files(tmp_path: Path) -> list[FileRef]:
    paths = [tmp_path / name for name in ("a.dcm", "b.dcm")]
    for path in paths:
        path.write_bytes(b"slice")
    return [FileRef(path) for path in paths]


@pytest.fixture
def record(tmp_path: Path) -> StudyRecord:
    (tmp_path / "page.html").write_text("page")
    return StudyRecord(
        name="study 1",
        identity={"accession_number": "ü", "study_uid": "1.2", "patient_id": ""},
        status="ok",
        tables={"scans.csv": TableRows(["a", "b"], [["x", 0.1 + 0.2], [None, 1]])},
        ledger=[["a.dcm", "1", "2", "used", "", ""]],
        files=["page.html"],
        key_slices=[3, 1],
        seconds=1.5,
    )


def test_is_read_as_it_was_written(tmp_path: Path, files: list[FileRef], record: StudyRecord):
    records = StudyRecords(tmp_path / "records")
    assert records.read("one", files, tmp_path) is None
    records.write("one", files, record)
    assert StudyRecords(tmp_path / "records").read("one", files, tmp_path) == record
    assert record.ledger_rows[0].action == "used"


def test_a_file_that_has_changed_or_vanished_makes_it_void(tmp_path: Path, files: list[FileRef], record: StudyRecord):
    records = StudyRecords(tmp_path / "records")
    records.write("one", files, record)
    files[1].path.write_bytes(b"slice and more")
    assert records.read("one", files, tmp_path) is None
    records.write("one", files, record)
    files[0].path.unlink()
    assert records.read("one", files, tmp_path) is None


def test_a_file_more_makes_it_void(tmp_path: Path, files: list[FileRef], record: StudyRecord):
    records = StudyRecords(tmp_path / "records")
    records.write("one", files[:1], record)
    assert records.read("one", files, tmp_path) is None


def test_a_page_that_is_gone_makes_it_void(tmp_path: Path, files: list[FileRef], record: StudyRecord):
    records = StudyRecords(tmp_path / "records")
    records.write("one", files, record)
    (tmp_path / "page.html").unlink()
    assert records.read("one", files, tmp_path) is None


@pytest.mark.parametrize("change", ["half", "other fields"])
def test_what_cannot_be_read_counts_as_nothing(tmp_path: Path, files: list[FileRef], record: StudyRecord, change: str):
    records = StudyRecords(tmp_path / "records")
    records.write("one", files, record)
    path = tmp_path / "records/one.json"
    text = path.read_text()
    path.write_text(text[: len(text) // 2] if change == "half" else json.dumps(json.loads(text) | {"colour": 1}))
    assert records.read("one", files, tmp_path) is None


def test_members_of_an_archive_have_its_state(tmp_path: Path):
    archive = tmp_path / "export.zip"
    archive.write_bytes(b"1")
    members = [FileRef(archive, "a"), FileRef(archive, "b")]
    before = states_of(members)
    assert before == states_of(members[::-1])
    archive.write_bytes(b"12")
    assert states_of(members) != before


def test_tables_are_joined_under_one_header():
    frames = [pd.DataFrame({"a": [1e-5], "b": ["x,y"]}), pd.DataFrame({"a": [np.nan, 0.1 + 0.2], "b": ["", '"']})]
    file = io.StringIO()
    table = JoinedTable(file)
    assert not table.has_rows
    for frame in frames:
        table.add(TableRows.of(frame))
    assert table.has_rows
    assert file.getvalue() == pd.concat(frames).to_csv(index=False, lineterminator="\n")
    pd.testing.assert_frame_equal(TableRows.of(frames[0]).frame(), frames[0])
