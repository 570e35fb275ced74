"""One folder of predictions, filled night after night."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pandas as pd
import pytest
from dicom_files import make_series

from ich_lstm.archive.folder.folder import claim_predictions
from ich_lstm.cli import evaluate, predict
from ich_lstm.labels import LABELS


def run(model: Path, out: Path, *arguments: Path | str) -> int:
    return predict.main([*map(str, arguments), "--checkpoint", str(model), "--out", str(out)])


def write_study(folder: Path, number: int, **own: object) -> Path:
    """A study of its own patient."""
    uid = f"1.2.3.{number}"
    names = {"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1", "PatientID": f"PAT{number}"}
    make_series(folder / f"{number:03d}", **({**names, "start": (-96, -96, number - 20)} | own))
    return folder / f"{number:03d}"


@pytest.fixture
def first(tmp_path: Path) -> Path:
    for number in range(3):
        write_study(tmp_path / "night 1", number)
    return tmp_path / "night 1"


@pytest.fixture
def second(tmp_path: Path) -> Path:
    for number in (3, 4):
        write_study(tmp_path / "night 2", number)
    return tmp_path / "night 2"


def studies(out: Path, name: str = "scans.csv") -> pd.DataFrame:
    return pd.read_csv(out / name, dtype=str, keep_default_na=False)


def pages(out: Path) -> set[str]:
    return {path.stem for path in (out / "private/pages").glob("*.html")}


class TestTwoNights:
    def test_two_studies_are_added_to_one_worklist(self, first: Path, second: Path, model_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert run(model_folder, out, first) == 0
        before = studies(out)
        assert run(model_folder, out, second) == 0
        after = studies(out)
        pd.testing.assert_frame_equal(after.iloc[:3], before)
        assert len(after) == len(studies(out, "worklist.csv")) == 5
        assert set(studies(out, "slices.csv")["scan_id"]) == set(after["scan_id"]) == pages(out)
        assert len(studies(out, "private/series.csv")) == 5
        assert json.loads((out / "manifest.json").read_text())["counts"]["studies"] == 5
        index = (out / "private/index.html").read_text()
        assert all(scan_id in index for scan_id in after["scan_id"])

    def test_the_tables_are_those_of_one_command_for_both(
        self, first: Path, second: Path, model_folder: Path, tmp_path: Path
    ) -> None:
        for path in (first, second):
            run(model_folder, tmp_path / "apart", path)
        run(model_folder, tmp_path / "together", first, second)
        for name in ("scans.csv", "slices.csv", "private/key.csv", "private/series.csv", "private/ledger.csv"):
            assert (tmp_path / "apart" / name).read_text() == (tmp_path / "together" / name).read_text(), name
        apart, together = (studies(tmp_path / name, "worklist.csv").drop(columns="seconds") for name in ("apart", "together"))
        pd.testing.assert_frame_equal(apart, together)
        one, other = (json.loads((tmp_path / name / "manifest.json").read_text()) for name in ("apart", "together"))
        assert one["counts"] == other["counts"]

    def test_the_ledger_and_the_manifest_count_the_files_of_both(
        self, first: Path, second: Path, model_folder: Path, tmp_path: Path
    ) -> None:
        (second / "notes.txt").write_text("no DICOM")
        for path in (first, second, first):
            run(model_folder, tmp_path / "out", path)
        ledger = studies(tmp_path / "out", "private/ledger.csv")
        files = [str(path) for folder in (first, second) for path in folder.rglob("*") if path.is_file()]
        assert sorted(ledger["path"]) == sorted(files)
        counts = json.loads((tmp_path / "out/manifest.json").read_text())["counts"]["files"]
        assert counts == {"used": len(files) - 1, "skipped": 1, "refused": 0}

    def test_all_are_judged(self, first: Path, second: Path, model_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        for path in (first, second):
            run(model_folder, out, path)
        labels = pd.DataFrame({"study_uid": [f"1.2.3.{number}" for number in range(5)]})
        labels = labels.join(pd.DataFrame(0, labels.index, list(LABELS)))
        labels.loc[[0, 3], ["epidural", "any"]] = 1
        labels.to_csv(tmp_path / "labels.csv", index=False)
        arguments = [str(out), "--labels", str(tmp_path / "labels.csv"), "--out", str(tmp_path / "figures")]
        assert evaluate.main([*arguments, "--replicates", "100"]) == 0
        figures = pd.read_csv(tmp_path / "figures/figures.csv")
        assert figures.query("level == 'scan'")["cases"].max() == 5


class TestOtherPeopleUnderTheSameUids:
    """Anonymizers repeat UIDs from night to night: nothing of an earlier night is written over by somebody else's scan."""

    UIDS: ClassVar = {"StudyInstanceUID": "1.2.9", "SeriesInstanceUID": "1.2.9.1"}

    def people(self, tmp_path: Path, *patients: dict[str, str]) -> list[Path]:
        folders = [tmp_path / f"night-{number}" for number in range(len(patients))]
        for folder, patient in zip(folders, patients, strict=True):
            make_series(folder, **self.UIDS, **patient)
        return folders

    @pytest.mark.parametrize(
        "patients",
        [
            ({"PatientID": "A"}, {"PatientID": "B"}),
            ({"PatientID": ""}, {"PatientID": ""}),  # nobody knows whether it is one person: another folder stands alone
            ({"PatientID": "A", "AccessionNumber": "1"}, {"PatientID": "A", "AccessionNumber": "2"}),
            ({"PatientID": "A", "PatientBirthDate": "19500101"}, {"PatientID": "A", "PatientBirthDate": "19600101"}),
        ],
        ids=["patients", "nobody", "examinations", "birth dates"],
    )
    def test_both_have_a_row_a_page_and_an_id_of_their_own(
        self, patients: tuple[dict[str, str], ...], model_folder: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        for folder in self.people(tmp_path, *patients):
            assert run(model_folder, out, folder) == 0
        rows = studies(out)
        assert len(rows) == rows["scan_id"].nunique() == 2
        assert pages(out) == set(rows["scan_id"])
        key = studies(out, "private/key.csv").drop_duplicates("scan_id")
        assert key["patient_id"].fillna("").tolist() == [patient["PatientID"] for patient in patients]
        assert not studies(out, "slices.csv").duplicated(["scan_id", "slice"]).any()

    def test_read_again_each_replaces_its_own_row(self, model_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        folders = self.people(tmp_path, {"PatientID": "A"}, {"PatientID": "B"})
        for folder in (*folders, *folders):
            assert run(model_folder, out, folder) == 0
        assert len(studies(out)) == 2


class TestReadAgain:
    def test_a_study_with_more_files_replaces_its_row_and_its_page(
        self, first: Path, second: Path, model_folder: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        run(model_folder, out, first)
        before = studies(out)
        write_study(second, 1, count=30, SeriesInstanceUID="1.2.3.1.9")
        assert run(model_folder, out, second) == 0
        after = studies(out)
        assert len(after) == 5
        assert list(after["scan_id"].iloc[[0, 2]]) == list(before["scan_id"].iloc[[0, 2]])
        assert after["scan_id"][1] != before["scan_id"][1]
        assert pages(out) == set(after["scan_id"])  # the replaced one has no page
        assert (studies(out, "slices.csv")["scan_id"] == after["scan_id"][1]).sum() == 30
        assert before["scan_id"][1] not in (out / "private/index.html").read_text()

    def test_a_later_copy_elsewhere_takes_the_place_of_the_first(self, first: Path, model_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        run(model_folder, out, first)
        shutil.copytree(first / "001", tmp_path / "copy")
        assert run(model_folder, out, tmp_path / "copy") == 0
        assert len(studies(out)) == 3
        ledger = studies(out, "private/ledger.csv").set_index("path")
        old = ledger.loc[[path for path in ledger.index if path.startswith(str(first / "001"))]]
        new = ledger.loc[[path for path in ledger.index if path.startswith(str(tmp_path / "copy"))]]
        assert set(old["code"]) == {"superseded"}
        assert set(new["action"]) == {"used"}

    def test_a_study_that_failed_is_replaced_by_its_result(self, first: Path, model_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        victim = sorted((first / "001").iterdir())[3]
        whole = victim.read_bytes()
        victim.write_bytes(whole[:-500])
        assert run(model_folder, out, first) == 3
        assert list(studies(out)["status"]) == ["ok", "truncated_pixels", "ok"]
        victim.write_bytes(whole)
        assert run(model_folder, out, first) == 0
        assert list(studies(out)["status"]) == ["ok"] * 3
        assert set(studies(out, "private/ledger.csv")["action"]) == {"used"}

    def test_a_study_that_is_broken_now_loses_its_probabilities(self, first: Path, model_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        run(model_folder, out, first)
        former = studies(out)["scan_id"][1]
        victim = sorted((first / "001").iterdir())[3]
        victim.write_bytes(victim.read_bytes()[:-500])
        assert run(model_folder, out, first) == 3
        assert list(studies(out)["status"]) == ["ok", "truncated_pixels", "ok"]
        assert former not in pages(out) | set(studies(out, "slices.csv")["scan_id"])

    def test_a_path_that_could_not_be_read_has_no_row_when_it_can(self, first: Path, model_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        assert run(model_folder, out, first, tmp_path / "late") == 3
        assert list(studies(out)["status"]) == ["ok", "ok", "ok", "missing_path"]
        write_study(tmp_path / "late", 7)
        assert run(model_folder, out, tmp_path / "late") == 0
        assert list(studies(out)["status"]) == ["ok"] * 4

    def test_a_damaged_archive_has_no_row_in_the_ledger_once_it_came_whole(
        self, first: Path, second: Path, model_folder: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        archive = Path(shutil.make_archive(str(first / "more"), "zip", second))
        whole = archive.read_bytes()
        archive.write_bytes(whole[: len(whole) // 2])
        assert run(model_folder, out, first) == 3  # a study may be in it
        archive.write_bytes(whole)
        assert run(model_folder, out, first) == 0
        assert set(studies(out, "private/ledger.csv")["action"]) == {"used"}
        assert len(studies(out)) == 5

    def test_studies_whose_files_are_gone_keep_their_rows(
        self, first: Path, second: Path, model_folder: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "out"
        run(model_folder, out, first)
        shutil.rmtree(first)
        assert run(model_folder, out, second) == 0
        assert list(studies(out)["status"]) == ["ok"] * 5


class TestCopiesInOneCommand:
    def test_the_same_files_below_two_paths_are_a_result(self, first: Path, model_folder: Path, tmp_path: Path) -> None:
        assert run(model_folder, tmp_path / "out", first, first / "001") == 0
        assert list(studies(tmp_path / "out")["status"]) == ["ok", "ok", "ok", "repeated_study"]
        assert run(model_folder, tmp_path / "out", first / "001") == 0
        assert list(studies(tmp_path / "out")["status"]) == ["ok"] * 3

    def test_other_files_of_a_study_are_refused_with_a_reason(self, first: Path, model_folder: Path, tmp_path: Path) -> None:
        write_study(tmp_path / "other", 1, count=30, SeriesInstanceUID="1.2.3.1.9")
        assert run(model_folder, tmp_path / "out", first, tmp_path / "other") == 3
        assert list(studies(tmp_path / "out")["status"]) == ["ok", "ok", "ok", "other_copy"]
        ledger = studies(tmp_path / "out", "private/ledger.csv")
        assert (ledger["code"] == "other_copy").sum() == 30


class TestOneAtATime:
    def test_a_second_command_is_refused(
        self, first: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with claim_predictions(tmp_path / "out"):
            assert run(model_folder, tmp_path / "out", first) == 2
        error = capsys.readouterr().err
        assert "folder_in_use" in error
        assert str(os.getpid()) in error
        assert not (tmp_path / "out").exists()  # nothing was begun

    def test_a_killed_process_holds_nothing(self, first: Path, model_folder: Path, tmp_path: Path) -> None:
        code = (
            "import pathlib, sys, time; from ich_lstm.archive.folder.folder import claim_predictions\n"
            "with claim_predictions(pathlib.Path(sys.argv[1])): print('claimed', flush=True); time.sleep(300)"
        )
        process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "claimed\n"
        process.kill()
        process.wait()
        process.stdout.close()
        assert (tmp_path / "out/private/lock").exists()
        assert run(model_folder, tmp_path / "out", first) == 0


def test_what_an_earlier_command_did_not_finish_is_said(
    first: Path,
    second: Path,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from ich_lstm.archive.run import ArchiveRun

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(ArchiveRun, "finish", stop)
        assert run(model_folder, tmp_path / "out", first) == 130
    assert run(model_folder, tmp_path / "out", second) == 0
    assert f"{first}: begun by an earlier command and not finished" in capsys.readouterr().out
    assert run(model_folder, tmp_path / "out", first) == 0
    assert "not finished" not in capsys.readouterr().out
    assert len(studies(tmp_path / "out")) == 5


class TestExitCode:
    """3 only where a study has no result."""

    @pytest.mark.parametrize(
        "own",
        [{"ContrastBolusAgent": "OMNIPAQUE 350"}, {"SeriesDescription": "HEAD WITH CONTRAST"}, {"SeriesDescription": "CTA 1.0"}],
        ids=str,
    )
    def test_a_refused_series_beside_the_one_that_is_read(self, own: dict[str, str], model_folder: Path, tmp_path: Path) -> None:
        for number in range(2):
            write_study(tmp_path / "in", number)
            uid = f"1.2.3.{number}"
            ids = {"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.2", "PatientID": f"PAT{number}"}
            make_series(tmp_path / f"in/{number:03d}/other", **ids, **own)
        code = run(model_folder, tmp_path / "out", tmp_path / "in")
        assert list(studies(tmp_path / "out")["status"]) == ["ok"] * 2
        assert json.loads((tmp_path / "out/manifest.json").read_text())["counts"]["files"]["refused"] == 16
        assert code == 0

    def test_a_refused_study_beside_others(self, first: Path, model_folder: Path, tmp_path: Path) -> None:
        write_study(first, 9, ContrastBolusAgent="OMNIPAQUE 350")
        assert run(model_folder, tmp_path / "out", first) == 3

    def test_a_refused_archive_in_which_a_study_may_be(self, first: Path, model_folder: Path, tmp_path: Path) -> None:
        (first / "damaged.zip").write_bytes(b"PK\x03\x04" + bytes(200))
        assert run(model_folder, tmp_path / "out", first) == 3

    def test_files_that_are_no_images_do_not_count(self, first: Path, model_folder: Path, tmp_path: Path) -> None:
        (first / "readme.txt").write_text("text")
        (first / "empty").touch()
        assert run(model_folder, tmp_path / "out", first) == 0
