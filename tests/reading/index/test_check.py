"""Checking a source without keeping anything: the account of its files, in words and as a table."""

import stat
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dicom_files import make_series, make_slice

from ich_lstm.cli.prepare import main
from ich_lstm.reading import Index, Ledger
from ich_lstm.reading.index.check import check_source


def make_export(folder: Path) -> int:
    """A study to read, one with contrast only, one with a spoilt slice, and strays; returns the number of files."""
    make_series(folder / "a", StudyInstanceUID="1.1", SeriesInstanceUID="1.1.1")
    make_series(folder / "a" / "bone", StudyInstanceUID="1.1", SeriesInstanceUID="1.1.2", ConvolutionKernel="BONE")
    make_series(folder / "b", StudyInstanceUID="1.2", SeriesInstanceUID="1.2.1", SeriesDescription="CTA")
    spoilt = make_series(folder / "c", StudyInstanceUID="1.3", SeriesInstanceUID="1.3.1")[2]
    spoilt.write_bytes(spoilt.read_bytes()[:-100])
    make_series(
        folder / "d", StudyInstanceUID="1.4", SeriesInstanceUID="1.4.1", BodyPartExamined="CHEST", SeriesDescription="5mm"
    )
    make_slice(folder / "mr.dcm", Modality="MR")
    (folder / "note.txt").write_text("hello")
    return 42


class TestCheckSource:
    def test_pixels_are_read_too(self, tmp_path: Path) -> None:
        count = make_export(tmp_path)
        ledger = check_source(tmp_path).ledger
        assert len(ledger) == count
        assert ledger.counts() == {"used": 8, "skipped": 18, "refused": 16}
        assert "16 refused in 2 series (8 contrast given, 8 truncated pixel data)." in ledger.summary()

    def test_options_allow_more(self, tmp_path: Path) -> None:
        make_export(tmp_path)
        ledger = check_source(tmp_path, allow_contrast=True, allow_other_part=True).ledger
        assert ledger.counts() == {"used": 24, "skipped": 10, "refused": 8}

    def test_several_processes_give_the_same(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_export(tmp_path)
        one = check_source(tmp_path, workers=1)
        monkeypatch.setattr("ich_lstm.reading.index.check.SCANS_FOR_WORKERS", 1)
        two = check_source(tmp_path, workers=2)
        assert one.ledger.to_frame().equals(two.ledger.to_frame())

    def test_nifti_files_are_read_too(self, tmp_path: Path) -> None:
        pytest.importorskip("nibabel")
        from nifti_files import head_volume, make_nifti

        make_nifti(tmp_path / "good.nii.gz")
        make_nifti(tmp_path / "mask.nii", head_volume() > 100)
        (tmp_path / "text.nii").write_text("no NIfTI")
        (tmp_path / "note.txt").write_text("hello")
        ledger = check_source(tmp_path).ledger
        codes = dict(zip(ledger.to_frame()["path"].map(lambda path: Path(path).name), ledger.to_frame()["code"], strict=True))
        assert codes == {"good.nii.gz": "", "mask.nii": "not_hu", "text.nii": "not_nifti", "note.txt": "not_dicom"}


class TestCommand:
    def test_a_folder_of_nifti_alone(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        pytest.importorskip("nibabel")
        from nifti_files import make_nifti

        make_nifti(tmp_path / "1.nii")
        assert main([str(tmp_path), "--check"]) == 0
        assert capsys.readouterr().out == "1 file: 1 used in 1 scan.\n"

    def test_what_was_refused_makes_the_code_3(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        count = make_export(tmp_path / "in")
        assert main([str(tmp_path / "in"), "--check", "--out", str(tmp_path / "out")]) == 3
        out = capsys.readouterr().out
        assert out.startswith(f"{count} files: 8 used in 1 scan")
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"private"}
        private = tmp_path / "out" / "private"
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        table = pd.read_csv(private / "ledger.csv")
        assert list(table.columns) == ["path", "sop_uid", "series_uid", "action", "code", "detail"]
        assert len(table) == count
        assert Index.read(private / "index").ledger.counts() == {"used": 8, "skipped": 18, "refused": 16}

    def test_without_a_folder_nothing_is_kept(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        make_series(tmp_path / "in")
        (tmp_path / "in" / "note.txt").write_text("hello")
        assert main([str(tmp_path / "in"), "--check"]) == 0
        assert capsys.readouterr().out == "9 files: 8 used in 1 scan, 1 skipped (not DICOM).\n"
        assert [path.name for path in tmp_path.iterdir()] == ["in"]

    def test_no_ct_at_all_is_a_failure(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        (tmp_path / "note.txt").write_text("hello")
        assert main([str(tmp_path), "--check"]) == 1
        assert capsys.readouterr().out == "1 file: 0 used, 1 skipped (not DICOM).\n"

    def test_out_is_needed_to_prepare(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert main([str(tmp_path)]) == 2
        assert "--out" in capsys.readouterr().err


class TestSummary:
    def test_one_sentence(self, tmp_path: Path) -> None:
        for i in range(3):
            own = {"StudyInstanceUID": f"1.{i}", "SeriesInstanceUID": f"1.{i}.1"}
            make_series(tmp_path / str(i), **own)
        change = {"hu": np.zeros((16, 16))}
        make_series(tmp_path / "m", StudyInstanceUID="2", SeriesInstanceUID="2.1", change=lambda i: change if i > 5 else {})
        for i in range(2):
            (tmp_path / f"{i}.txt").write_text("hello")
        make_slice(
            tmp_path / "l.dcm", SeriesInstanceUID="1.0.2", StudyInstanceUID="1.0", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]
        )
        assert check_source(tmp_path).ledger.summary() == (
            "35 files: 24 used in 3 scans, 3 skipped (2 not DICOM, 1 localizer), 8 refused in 1 series (mixed matrix sizes)."
        )

    def test_holds_no_path_and_no_identity(self, tmp_path: Path) -> None:
        make_export(tmp_path / "Muller^Anna")
        summary = check_source(tmp_path).ledger.summary()
        assert not {word for word in ("SECRET", "Secret", "Muller", "1.1.1", str(tmp_path)) if word in summary}

    def test_of_nothing(self) -> None:
        assert Ledger().summary() == "0 files: 0 used."
