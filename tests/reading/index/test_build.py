"""A tree to a table and a ledger, and back from disk."""

import os
import pickle
from collections import Counter
from pathlib import Path

import pytest
from dicom_files import make_series, make_slice

from ich_lstm.errors import IchLstmError, SourceError, StudyError
from ich_lstm.reading import Index, Ledger, LedgerRow, choose_series, index_source, load_scan, read_scan
from ich_lstm.reading.index import build as index_module


def make_tree(folder: Path) -> int:
    """Two studies with three series, and some strays; returns the number of files."""
    make_series(folder / "a", 6)
    make_series(folder / "a" / "thin", 6, SeriesInstanceUID="1.2.3.100.2", ConvolutionKernel="BONE")
    make_series(folder / "b", 5, StudyInstanceUID="1.2.3.200", SeriesInstanceUID="1.2.3.200.1")
    (folder / "readme.txt").write_text("hello")
    make_slice(folder / "mr.dcm", Modality="MR")
    return 19


class TestIndexSource:
    def test_studies_and_series(self, tmp_path: Path) -> None:
        count = make_tree(tmp_path)
        index = index_source(tmp_path)
        assert [(study.study_uid, [len(series) for series in study.series]) for study in index.studies()] == [
            ("1.2.3.100", [6, 6]),
            ("1.2.3.200", [5]),
        ]
        assert len(index.headers) == 17
        assert index.ledger.counts() == {"used": 17, "skipped": 2, "refused": 0}
        assert len(index.ledger) == count

    def test_headers_say_what_the_file_says(self, tmp_path: Path) -> None:
        path = make_slice(
            tmp_path / "a.dcm",
            SOPInstanceUID="1.2.3",
            ImagePositionPatient=["1.5", "-2", "3"],
            ConvolutionKernel="H31s",
            KVP="120",
            PatientAge="064Y",
            PixelRepresentation=1,
            intercept=0,
            PixelPaddingValue=-2000,
            GantryDetectorTilt="-12.5",
            AcquisitionTime="101112.5",
        )
        (header,) = index_source(tmp_path).headers
        assert header.source.path == path
        assert (header.sop_uid, header.rows, header.columns, header.kernel, header.kvp) == ("1.2.3", 32, 32, "H31s", 120.0)
        assert (header.position, header.padding, header.tilt, header.slope) == ((1.5, -2.0, 3.0), -2000, -12.5, 1.0)
        assert (header.age_years, header.acquisition_time, header.modality) == (64.0, "101112.5", "CT")
        assert header.image_type == ("ORIGINAL", "PRIMARY", "AXIAL")

    def test_several_processes_give_the_same(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_tree(tmp_path)
        monkeypatch.setattr(index_module, "CHUNK_FILES", 3)
        one, two = index_source(tmp_path, workers=1), index_source(tmp_path, workers=2)
        assert list(one.headers) == list(two.headers)
        assert one.ledger.to_frame().equals(two.ledger.to_frame())

    def test_progress_sums_to_the_number_of_files(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        count = make_tree(tmp_path)
        monkeypatch.setattr(index_module, "CHUNK_FILES", 4)
        seen: list[int] = []
        index_source(tmp_path, progress=seen.append)
        assert len(seen) == 5
        assert sum(seen) == count

    def test_without_ct_it_says_what_is_there(self, tmp_path: Path) -> None:
        for i in range(3):
            (tmp_path / f"{i}.txt").write_text("hello")
        for i in range(9):
            make_slice(tmp_path / f"{i}.dcm", Modality="MR")
        with pytest.raises(SourceError) as error:
            index_source(tmp_path)
        assert error.value.code == "no_ct"
        assert "12 files: 9 MR, 3 text" in str(error.value)

    def test_rsna_identifiers_are_read_without_a_warning(self, tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
        make_series(tmp_path, SeriesInstanceUID="ID_f00", StudyInstanceUID="ID_ba5", InstanceNumber=None, SliceThickness=None)
        assert read_scan(tmp_path).series_uid == "ID_f00"
        assert not recwarn


class TestOnDisk:
    def test_what_was_written_is_read(self, tmp_path: Path) -> None:
        make_tree(tmp_path / "in")
        index = index_source(tmp_path / "in")
        choose_series(index.studies()[0], ledger=index.ledger)
        index.write(tmp_path / "private")
        again = Index.read(tmp_path / "private")
        assert list(again.headers) == list(index.headers)
        assert again.ledger.to_frame().equals(index.ledger.to_frame())
        assert again.ledger.summary() == index.ledger.summary()
        assert len(load_scan(again.studies()[1].series[0])) == 5

    def test_reasons_of_files_that_are_not_in_the_table_are_written_too(self, tmp_path: Path) -> None:
        make_tree(tmp_path / "in")
        index = index_source(tmp_path / "in")
        index.ledger.update([LedgerRow("elsewhere.dcm", "1.2", "", "refused", "unreadable", "for a test")])
        index.write(tmp_path / "private")
        again = Index.read(tmp_path / "private")
        assert again.ledger.to_frame().equals(index.ledger.to_frame())
        assert again.ledger.counts() == {"used": 17, "skipped": 2, "refused": 1}
        assert len(again.headers) == 17

    def test_names_that_are_no_text_survive(self, tmp_path: Path) -> None:
        make_series(tmp_path / os.fsdecode(b"\xff"), 5)
        (tmp_path / os.fsdecode(b"\xfe.txt")).write_text("hello")
        index = index_source(tmp_path)
        index.write(tmp_path / "private")
        again = Index.read(tmp_path / "private")
        assert list(again.headers) == list(index.headers)
        assert len(load_scan(again.studies()[0].series[0], ledger=again.ledger)) == 5
        assert again.ledger.counts() == {"used": 5, "skipped": 1, "refused": 0}

    @pytest.mark.parametrize("damage", ["missing", "empty", "text"])
    def test_no_index(self, damage: str, tmp_path: Path) -> None:
        if damage != "missing":
            (tmp_path / "files.parquet").write_text("" if damage == "empty" else "not a table")
        with pytest.raises(SourceError) as error:
            Index.read(tmp_path)
        assert error.value.code == "no_index"


class TestLedger:
    def test_every_file_has_one_row_after_a_run(self, tmp_path: Path) -> None:
        count = make_tree(tmp_path)
        index = index_source(tmp_path)
        for study in index.studies():
            load_scan(choose_series(study, ledger=index.ledger).series, ledger=index.ledger)
        frame = index.ledger.to_frame()
        assert list(frame.columns) == ["path", "sop_uid", "series_uid", "action", "code", "detail"]
        assert len(frame) == count
        assert Counter(frame.action) == {"used": 11, "skipped": 8}
        assert index.ledger.summary() == "19 files: 11 used in 2 scans, 8 skipped (6 bone kernel, 1 not DICOM, 1 not CT)."

    def test_refusals_are_counted_by_series(self, tmp_path: Path) -> None:
        make_series(tmp_path, ContrastBolusAgent="OMNIPAQUE")
        index = index_source(tmp_path)
        with pytest.raises(StudyError):
            choose_series(index.studies()[0], ledger=index.ledger)
        assert index.ledger.summary() == "8 files: 0 used, 8 refused in 1 series (contrast given)."

    def test_rows_of_a_worker_join_the_whole(self, tmp_path: Path) -> None:
        paths = make_series(tmp_path, 6)
        (tmp_path / "copy.dcm").write_bytes(paths[0].read_bytes())
        index = index_source(tmp_path)
        series = pickle.loads(pickle.dumps(index.studies()[0].series[0]))
        ledger = Ledger()
        load_scan(series, ledger=ledger)
        index.ledger.update(pickle.loads(pickle.dumps(ledger.rows())))
        assert index.ledger.counts() == {"used": 6, "skipped": 1, "refused": 0}

    def test_a_later_fate_replaces_an_earlier(self, tmp_path: Path) -> None:
        make_series(tmp_path, 5)
        index = index_source(tmp_path)
        index.ledger.mark(index.headers, "few_slices", "for a test")
        index.ledger.mark_used(index.headers)
        assert index.ledger.counts() == {"used": 5, "skipped": 0, "refused": 0}
        assert "5 used in 1 scan" in index.ledger.summary()


def test_headers_behave_like_a_list(tmp_path: Path) -> None:
    make_series(tmp_path, 5)
    headers = index_source(tmp_path).headers
    assert headers[-1] == list(headers)[-1]
    assert list(headers[1:3]) == list(headers)[1:3]
    with pytest.raises(IndexError):
        headers[5]


class TestReadScan:
    def test_several_studies_are_listed(self, tmp_path: Path) -> None:
        make_tree(tmp_path)
        with pytest.raises(StudyError) as error:
            read_scan(tmp_path)
        assert error.value.code == "many_studies"
        assert "1.2.3.200" in str(error.value)
        assert read_scan(tmp_path, "1.2.3.200.1").study_uid == "1.2.3.200"

    def test_errors_hold_no_name_and_no_patient_id(self, tmp_path: Path) -> None:
        make_series(tmp_path, 3)
        with pytest.raises(IchLstmError) as error:
            read_scan(tmp_path)
        assert "SECRET" not in str(error.value)
        assert "Secret" not in str(error.value)
