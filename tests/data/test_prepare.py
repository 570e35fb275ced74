"""From a tree of files to a prepared folder."""

import json
import shutil
import stat
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dicom_files import make_series, make_slice
from fabricated import make_scan

from ich_lstm.data import prepare as prepare_module
from ich_lstm.data.cache import read_cached
from ich_lstm.data.prepare import prepare
from ich_lstm.data.prepared import PreparedFolder
from ich_lstm.data.table import read_label_table
from ich_lstm.errors import SourceError
from ich_lstm.pixels.preprocess import Preprocessing, preprocess_scan

SMALL = Preprocessing(size=16)


@pytest.fixture
def make(project_key, tmp_path: Path):
    """Prepare a tree; by default in this process, at 16 pixels, into the folder ``out``."""

    def _make(root: Path, labels: str | None = None, out: str = "out", **changes) -> PreparedFolder:
        table = None
        if labels is not None:
            (tmp_path / "labels.csv").write_text(labels)
            table = read_label_table(tmp_path / "labels.csv")
        settings = {"preprocessing": SMALL, "key": project_key, "labels": table, "workers": 1}
        return prepare(root, tmp_path / out, **(settings | changes))

    return _make


def content_of(folder: PreparedFolder) -> dict[str, bytes]:
    """The pixels of each scan."""
    return {scan.scan_id: read_cached(scan.cache_path).hu.tobytes() for scan in folder.scans}


class TestPrepare:
    def test_pixels_are_those_of_the_phantom(self, phantom: Path, heads, make, project_key) -> None:
        settings = Preprocessing(size=64, crop="none")
        scans = {scan.scan_id: scan for scan in make(phantom, preprocessing=settings).scans}
        assert len(scans) == len(heads)
        for head in heads:
            cached = read_cached(scans[project_key.hash_id(head.series_uid)].cache_path)
            truth = make_scan(np.clip(head.hu, -1024, 3071), spacing_mm=head.spacing_mm)
            np.testing.assert_array_equal(cached.hu, preprocess_scan(truth, settings))

    def test_the_key_lists_every_slice_in_anatomical_order(self, prepared: PreparedFolder, heads, project_key) -> None:
        for head in heads:
            rows = prepared.key[prepared.key["series_uid"] == head.series_uid]
            assert tuple(rows["sop_uid"]) == head.sop_uids
            assert rows["slice"].tolist() == list(range(1, 13))
            assert set(rows["patient_id"]) == {head.patient_id}
            assert set(rows["study_uid"]) == {head.study_uid}
            assert rows["file"].tolist() == [f"stage_2_train/{uid}.dcm" for uid in head.sop_uids]
            assert rows["slice_id"].tolist() == [project_key.hash_id(uid) for uid in head.sop_uids]

    def test_opened_again_it_is_the_same(self, prepared: PreparedFolder) -> None:
        assert PreparedFolder.is_one(prepared.folder)
        again = PreparedFolder.open(prepared.folder)
        pd.testing.assert_frame_equal(again.key, prepared.key)
        assert again.preprocessing == Preprocessing(size=32)
        assert content_of(again) == content_of(prepared)

    def test_identities_lie_in_private_alone(self, prepared: PreparedFolder, heads, phantom: Path) -> None:
        private = prepared.folder / "private"
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
        secrets = {uid for head in heads for uid in (*head.sop_uids, head.series_uid, head.study_uid, head.patient_id)}
        secrets |= {str(phantom), str(prepared.folder)}
        for file in prepared.folder.rglob("*"):
            if file.is_file() and private not in file.parents:
                content = file.read_bytes()
                assert not [secret for secret in secrets if secret.encode() in content], file.name
        listed = json.loads((prepared.folder / "manifest.json").read_text())["private"]
        assert sorted(listed) == sorted(f"private/{file.name}" for file in private.iterdir())

    def test_labels_choose_the_series(self, tmp_path: Path, make) -> None:
        make_series(tmp_path / "dicom", 6)
        make_series(tmp_path / "dicom" / "bone", 6, SeriesInstanceUID="1.2.3.100.2", ConvolutionKernel="H70h")
        make_series(tmp_path / "dicom" / "other", 5, StudyInstanceUID="1.2.3.200", SeriesInstanceUID="1.2.3.200.1")
        chosen = {
            None: ["1.2.3.100.1", "1.2.3.200.1"],
            "study_uid,any\n1.2.3.100,1\n": ["1.2.3.100.1"],
            "series_uid,any\n1.2.3.100.2,1\n": ["1.2.3.100.2"],
            "sop_uid,any\n1.2.3.100.2.3,1\n": ["1.2.3.100.2"],
            "folder,any\nother,1\n": ["1.2.3.200.1"],
            "file,any\nbone/0.dcm,1\n": ["1.2.3.100.2"],
        }
        for i, (labels, series) in enumerate(chosen.items()):
            folder = make(tmp_path / "dicom", labels, out=f"out{i}")
            assert [scan.series_uid for scan in folder.scans] == series
            assert sum(folder.manifest["files"].values()) == 17

    def test_two_kernels_under_one_uid_are_two_scans(self, tmp_path: Path, make) -> None:
        for kernel in ("H30s", "H70h"):
            make_series(
                tmp_path / "dicom" / kernel,
                6,
                ConvolutionKernel=kernel,
                change=lambda i, kernel=kernel: {"SOPInstanceUID": f"1.2.3.{kernel == 'H30s':d}.{i}"},
            )
        for scan in make(tmp_path / "dicom", "series_uid,any\n1.2.3.100.1,1\n").scans:
            assert len(scan.slices) == len(read_cached(scan.cache_path).hu)


class TestLedger:
    def test_every_file_has_one_fate(self, tmp_path: Path, make) -> None:
        root = tmp_path / "dicom"
        make_series(root / "good", 6)
        make_series(root / "mixed", 6, StudyInstanceUID="2", SeriesInstanceUID="2.1", PixelSpacing=None)
        make_slice(root / "mr.dcm", Modality="MR")
        broken = make_series(root / "cut", 6, StudyInstanceUID="3", SeriesInstanceUID="3.1")[2]
        broken.write_bytes(broken.read_bytes()[:-900])
        (root / "readme.txt").write_text("hello")
        (root / "empty.dcm").touch()
        folder = make(root)
        ledger = pd.read_csv(folder.folder / "private" / "ledger.csv", keep_default_na=False)
        assert len(ledger) == len(set(ledger["path"])) == sum(file.is_file() for file in root.rglob("*"))
        assert folder.manifest["files"] == {
            action: int((ledger["action"] == action).sum()) for action in ("used", "skipped", "refused")
        }
        assert Counter(ledger["action"]) == {"used": 11, "skipped": 3, "refused": 7}
        assert (ledger["code"][ledger["action"] != "used"] != "").all()
        assert (folder.manifest["scans"], folder.manifest["slices"]) == (2, 11)
        # The slice that cannot be read is left out, and those that remain keep their own names.
        rows = folder.key[folder.key["series_uid"] == "3.1"]
        assert rows["sop_uid"].tolist() == ["3.1.1", "3.1.2", "3.1.4", "3.1.5", "3.1.6"]
        (scan,) = [scan for scan in folder.scans if scan.series_uid == "3.1"]
        assert read_cached(scan.cache_path).flags

    def test_names_that_are_no_utf_8(self, tmp_path: Path, make) -> None:
        root = tmp_path / "dicom"
        files = make_series(root, 6)
        try:
            files[0].rename(root / "a\udcff.dcm")
            (root / "b\udcff.txt").write_text("hello")
        except (OSError, UnicodeError):
            pytest.skip("this file system takes no such names")
        folder = make(root)
        assert len(folder.key) == 6
        assert sum(PreparedFolder.open(folder.folder).manifest["files"].values()) == 7

    def test_nothing_to_use(self, tmp_path: Path, make) -> None:
        make_series(tmp_path / "dicom", 6, PixelSpacing=None)
        with pytest.raises(SourceError) as caught:
            make(tmp_path / "dicom")
        assert caught.value.code == "no_scan"
        assert len(pd.read_csv(tmp_path / "out" / "private" / "ledger.csv")) == 6
        assert not PreparedFolder.is_one(tmp_path / "out")

    @pytest.mark.parametrize("damage", ["manifest.json", "private/key.parquet"])
    def test_a_damaged_folder_says_so(self, prepared: PreparedFolder, tmp_path: Path, damage: str) -> None:
        shutil.copytree(prepared.folder, tmp_path / "copy")
        (tmp_path / "copy" / damage).write_text("{")
        with pytest.raises(SourceError):
            PreparedFolder.open(tmp_path / "copy")


class TestResume:
    def test_after_a_stop_nothing_is_done_twice_and_the_result_is_the_same(self, phantom: Path, make, tmp_path: Path) -> None:
        class Stop(Exception):
            pass

        done = 0

        def stop_after_three(what: str, count: int, total: int | None) -> None:
            nonlocal done
            done += count if what == "preparing scans" else 0
            if done == 3:
                raise Stop

        with pytest.raises(Stop):
            make(phantom, progress=stop_after_three)
        assert not PreparedFolder.is_one(tmp_path / "out")
        before = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out" / "cache").iterdir()}
        assert len(before) == 3
        resumed = make(phantom)
        after = {file.name: file.stat().st_mtime_ns for file in (tmp_path / "out" / "cache").iterdir()}
        assert before.items() <= after.items()
        whole = make(phantom, out="whole")
        pd.testing.assert_frame_equal(resumed.key, whole.key)
        assert content_of(resumed) == content_of(whole)
        assert resumed.manifest == whole.manifest

    def test_a_lost_file_is_made_again_in_its_place(self, phantom: Path, make) -> None:
        first = make(phantom)
        first.scans[2].cache_path.unlink()
        again = make(phantom)
        pd.testing.assert_frame_equal(again.key, first.key)
        assert content_of(again) == content_of(first)

    def test_a_journal_cut_by_a_kill_does_no_harm(self, phantom: Path, make, tmp_path: Path) -> None:
        first = make(phantom)
        journal = tmp_path / "out" / "private" / "prepared.jsonl"
        journal.write_bytes(journal.read_bytes()[:-40])
        for _ in range(2):
            pd.testing.assert_frame_equal(make(phantom).key, first.key)
        times = [file.stat().st_mtime_ns for file in sorted((tmp_path / "out" / "cache").iterdir())]
        make(phantom)
        assert [file.stat().st_mtime_ns for file in sorted((tmp_path / "out" / "cache").iterdir())] == times


class TestWhatDoesNotMatter:
    def test_names_of_files(self, phantom: Path, prepared: PreparedFolder, make, tmp_path: Path) -> None:
        files = sorted((phantom / "stage_2_train").iterdir())
        (tmp_path / "shuffled").mkdir()
        for i, n in enumerate(np.random.default_rng(0).permutation(len(files))):
            shutil.copy(files[n], tmp_path / "shuffled" / f"{i:03d}")
        shuffled = make(tmp_path / "shuffled", preprocessing=Preprocessing(size=32))
        assert content_of(shuffled) == content_of(prepared)
        columns = [column for column in prepared.key if column != "file"]
        pd.testing.assert_frame_equal(shuffled.key[columns], prepared.key[columns])

    def test_number_of_processes(self, phantom: Path, make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(prepare_module, "JOBS_WORTH_A_PROCESS", 1)
        one, two = make(phantom, out="one"), make(phantom, out="two", workers=2)
        pd.testing.assert_frame_equal(one.key, two.key)
        assert content_of(one) == content_of(two)
        assert one.manifest == two.manifest
