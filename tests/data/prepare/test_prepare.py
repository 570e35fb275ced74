"""From a tree of files to a prepared folder."""

import json
import os
import shutil
import stat
import subprocess
import sys
import threading
import time
import zipfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from body_parts import FIELD, START, neck, skull
from dicom_files import make_series, make_slice, slice_hu
from enhanced_files import make_enhanced
from fabricated import make_scan
from labelled_scans import label_scans
from nifti_files import head_volume, make_nifti

from ich_lstm.data.labels.table import read_label_table
from ich_lstm.data.prepare import prepare as prepare_module
from ich_lstm.data.prepare.prepare import prepare
from ich_lstm.data.prepared.folder import PreparedFolder
from ich_lstm.data.prepared.scan_cache import read_cached
from ich_lstm.data.tables.labelled import LabelTable
from ich_lstm.errors import ConfigError, SourceError, TableError
from ich_lstm.preprocessing.crop_and_resize import Preprocessing, preprocess_scan
from ich_lstm.privacy import ProjectKey

SMALL = Preprocessing(size=16)


@pytest.fixture
def make(project_key, tmp_path: Path):
    """Prepare a tree; by default in this process, at 16 pixels, into the folder ``out``."""

    def _make(root: Path, labels: str | LabelTable | None = None, out: str = "out", **changes) -> PreparedFolder:
        table = labels
        if isinstance(labels, str):
            (tmp_path / "labels.csv").write_text(labels)
            table = read_label_table(tmp_path / "labels.csv")
        settings = {"preprocessing": SMALL, "key": project_key, "labels": table, "workers": 1}
        return prepare(root, tmp_path / out, **(settings | changes))

    return _make


def names_of(folder: PreparedFolder) -> set[str]:
    """What labels may reference whatever else they reference, although there is no scan of it."""
    excluded = folder.images.excluded
    return set(excluded["name"][excluded["study_uid"] == ""])


def times_of(folder: PreparedFolder) -> dict[str, int]:
    """When each cached scan was written."""
    return {file.name: file.stat().st_mtime_ns for file in sorted((folder.folder / "cache").iterdir())}


def bytes_of(folder: PreparedFolder) -> dict[str, bytes]:
    """The content of each file of the cache."""
    return {file.name: file.read_bytes() for file in (folder.folder / "cache").iterdir()}


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
        other = {"StudyInstanceUID": "1.2.3.200", "SeriesInstanceUID": "1.2.3.200.1", "AccessionNumber": "A9"}
        make_series(tmp_path / "dicom" / "other", 5, **other)
        chosen = {
            None: ["1.2.3.100.1", "1.2.3.200.1"],
            "study_uid,any\n1.2.3.100,1\n": ["1.2.3.100.1"],
            "series_uid,any\n1.2.3.100.2,1\n": ["1.2.3.100.2"],
            "sop_uid,any\n1.2.3.100.2.3,1\n": ["1.2.3.100.2"],
            "folder,any\nother,1\n": ["1.2.3.200.1"],
            "file,any\nbone/0.dcm,1\n": ["1.2.3.100.2"],
            "accession_number,any\nA9,1\n": ["1.2.3.200.1"],
        }
        for i, (labels, series) in enumerate(chosen.items()):
            folder = make(tmp_path / "dicom", labels, out=f"out{i}")
            assert [scan.series_uid for scan in folder.scans] == series
            assert sum(folder.manifest["files"].values()) == 17

    def test_frames_are_named_by_their_number_in_the_file(self, tmp_path: Path, make) -> None:
        make_enhanced(tmp_path / "dicom/a.dcm", order=(2, 0, 1, 3, 4, 5))
        for labels in (None, "file,slice,any\na.dcm,3,1\n", "file,any\na.dcm,1\n"):
            (scan,) = make(tmp_path / "dicom", labels).scans
            assert scan.slices["file"].tolist() == [f"a.dcm#{number}" for number in (2, 3, 1, 4, 5, 6)]

    def test_labels_name_any_folder_above(self, tmp_path: Path, make) -> None:
        make_series(tmp_path / "dicom/qct 1/CQ500CT1 CQ500CT1/Unknown Study/CT Plain", 6)
        (tmp_path / "dicom/qct 2").mkdir()
        files = make_series(tmp_path / "zipped", 6, StudyInstanceUID="2", SeriesInstanceUID="2.1")
        with zipfile.ZipFile(tmp_path / "dicom/qct 2/CQ500-CT-2.zip", "w") as archive:
            for file in files:
                archive.write(file, f"CQ500CT2 CQ500CT2/Unknown Study/CT Plain/{file.name}")
        for name, series in (("CQ500CT1 CQ500CT1", "1.2.3.100.1"), ("CQ500CT2 CQ500CT2", "2.1"), ("CQ500-CT-2.zip", "2.1")):
            (tmp_path / "labels.csv").write_text(f"folder,any\n{name},1\n")
            table = read_label_table(tmp_path / "labels.csv")
            folder = make(tmp_path / "dicom", replace(table, rows=table.rows.assign(kind="folder_name")))
            assert [scan.series_uid for scan in folder.scans] == [series]

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


class TestTables:
    def test_the_study_of_each_slice(self, tmp_path: Path, make) -> None:
        make_series(tmp_path / "dicom", 6, AccessionNumber="A 7", StudyDate="20240229", SliceThickness=4)
        folder = make(tmp_path / "dicom")
        assert set(folder.key["accession_number"]) == {"A 7"}
        assert set(folder.key["study_date"]) == {"2024-02-29"}
        make_series(tmp_path / "rsna", 6, SliceThickness=None)
        bare = make(tmp_path / "rsna", out="bare")
        assert set(bare.key["accession_number"]) == set(bare.key["study_date"]) == {""}
        assert bare.facts["thickness_mm"].isna().all()

    def test_hashes_of_hu_find_the_same_pixels_under_other_uids(self, tmp_path: Path, make) -> None:
        empty, image = np.full((32, 32), -1000), slice_hu((-96, -96, -20))
        make_series(tmp_path / "dicom/a", 7, change=lambda i: {"hu": empty if i == 6 else image + i})
        other = {"StudyInstanceUID": "7", "SeriesInstanceUID": "7.1", "intercept": -1000.0, "PatientID": "other"}
        first = image + np.eye(32)
        make_series(tmp_path / "dicom/b", 7, change=lambda i: {"hu": (first, image + i, empty)[(i > 0) + (i == 6)]}, **other)
        hashes = [scan.slices["hu_hash"].tolist() for scan in make(tmp_path / "dicom").scans]
        assert hashes[0][1:] == hashes[1][1:]
        assert hashes[0][0] != hashes[1][0]
        assert hashes[0][6] == ""
        assert len(set(hashes[0])) == 7
        assert {len(digest) for digest in hashes[0][:6]} == {32}

    def test_facts(self, tmp_path: Path, make) -> None:
        make_series(tmp_path / "dicom", 9, SliceThickness=4, orientation=(1, 0, 0, 0, 0.96, 0.28))
        make_series(tmp_path / "dicom/thin", 5, SeriesInstanceUID="1.2.3.100.2", SeriesDescription="PLAIN", SliceThickness=4)
        folder = make(tmp_path / "dicom")
        (facts,) = folder.facts.to_dict("records")
        (scan,) = folder.scans
        assert (facts["scan_id"], facts["cache"]) == (scan.scan_id, scan.cache_path.name)
        assert (facts["patient_id"], facts["study_uid"], facts["series_uid"]) == ("SECRET-ID", "1.2.3.100", "1.2.3.100.1")
        assert (facts["series_in_study"], facts["slices"], facts["rows"], facts["columns"]) == (2, 9, 32, 32)
        assert (facts["slice_mm"], facts["thickness_mm"], facts["pixel_mm"]) == pytest.approx((5, 4, 6))
        assert facts["tilt_degrees"] == pytest.approx(np.degrees(np.arcsin(0.28)))
        assert facts["hu_p1"] == -1000
        assert -1000 <= facts["hu_p50"] <= facts["hu_p99"] == 900
        assert {"tilt", "few_slices"} <= set(facts["flags"].split())
        pd.testing.assert_frame_equal(make(tmp_path / "dicom").facts, folder.facts)

    def test_names_that_labels_may_use_in_vain(self, tmp_path: Path, make) -> None:
        cut = make_series(tmp_path / "dicom/cut", 6)[2]
        cut.write_bytes(cut.read_bytes()[:-900])
        make_series(tmp_path / "dicom/mixed", 6, StudyInstanceUID="2", SeriesInstanceUID="2.1", PixelSpacing=None)
        make_series(tmp_path / "dicom/bone", 6, SeriesInstanceUID="1.2.3.100.2", ConvolutionKernel="H70h")
        (tmp_path / "dicom/empty.dcm").touch()
        excluded = names_of(make(tmp_path / "dicom"))
        assert {"1.2.3.100.1.3", "cut/2.dcm", "2.1", "2.1.4", "mixed/3.dcm", "empty.dcm"} <= excluded
        assert not {"1.2.3.100.1.2", "1.2.3.100.2", "1.2.3.100.2.1", "bone/0.dcm"} & excluded

    def test_names_of_studies_without_a_usable_series(self, tmp_path: Path, make) -> None:
        root = tmp_path / "dicom"
        make_series(root / "good", 6, AccessionNumber="A1")
        bone = {"StudyInstanceUID": "2", "SeriesInstanceUID": "2.1", "ConvolutionKernel": "H70h", "AccessionNumber": "A2"}
        make_series(root / "qct1/CQ500CT2 CQ500CT2/Unknown Study/CT BONE", 6, **bone)
        mixed = {"StudyInstanceUID": "3", "SeriesInstanceUID": "3.1", "PixelSpacing": None, "AccessionNumber": "A3"}
        make_series(root / "mixed/a", 6, **mixed)
        make_series(root / "other/a", 6, StudyInstanceUID="4", SeriesInstanceUID="4.1", AccessionNumber="A4")
        (root / "other/cut.dcm").touch()
        (root / "lost").mkdir()
        (root / "lost/cut.dcm").touch()
        labels = "accession_number,any\nA1,1\nA2,1\nA3,1\n"
        folder = make(root, labels)
        names = {"2", "A2", "qct1", "CQ500CT2 CQ500CT2", "qct1/CQ500CT2 CQ500CT2/Unknown Study", "3", "A3", "mixed/a", "lost"}
        assert names <= names_of(folder)
        assert not {"", "1.2.3.100", "A1", "good", "4", "A4", "other"} & names_of(folder)
        assert len(label_scans(folder, read_label_table(tmp_path / "labels.csv"))) == 1

    def test_what_is_returned_is_what_is_read_back(self, tmp_path: Path, make) -> None:
        cut = make_series(tmp_path / "dicom/cut", 6, AccessionNumber="A1")[2]
        cut.write_bytes(cut.read_bytes()[:-900])
        mixed = {"StudyInstanceUID": "2", "SeriesInstanceUID": "2.1", "PixelSpacing": None, "AccessionNumber": "A2"}
        make_series(tmp_path / "dicom/mixed", 6, **mixed)
        make_series(tmp_path / "dicom/other", 6, StudyInstanceUID="3", SeriesInstanceUID="3.1")
        made = make(tmp_path / "dicom", "accession_number,any\nA1,1\nA2,1\n")
        read = PreparedFolder.open(made.folder)
        assert (made.preprocessing, made.manifest) == (read.preprocessing, read.manifest)
        assert set(made.unprepared["action"]) == {"refused", "skipped"}
        for one, other in (
            (made.key, read.key),
            (made.facts, read.facts),
            (made.images.excluded, read.images.excluded),
            (made.unprepared, read.unprepared),
        ):
            assert len(one)
            pd.testing.assert_frame_equal(one.reset_index(drop=True), other.reset_index(drop=True), check_dtype=False)

    def test_names_of_series_that_were_not_chosen(self, tmp_path: Path, make) -> None:
        make_series(tmp_path / "dicom/thick", 6, SeriesDescription="PLAIN 5MM")
        make_series(tmp_path / "dicom/thin", 6, SeriesInstanceUID="1.2.3.100.2", SeriesDescription="THIN STND")
        enhanced = {"SeriesInstanceUID": "1.2.3.100.3", "SeriesDescription": "THIN STND", "SeriesNumber": 9}
        make_enhanced(tmp_path / "dicom/thin/a.dcm", StudyInstanceUID="1.2.3.100", **enhanced)
        excluded = make(tmp_path / "dicom").images.excluded
        not_chosen = excluded[excluded["study_uid"] != ""].set_index("name")["study_uid"]
        assert {"1.2.3.100.2.1", "1.2.3.100.2.6", "thin/0.dcm", "thin/a.dcm"} <= set(not_chosen.index)
        assert set(not_chosen) == {"1.2.3.100"}
        assert not {"1.2.3.100.1.1", "thick/0.dcm"} & set(not_chosen.index)

    def test_the_root_may_lie_in_a_folder_of_synthetic_heads(self, phantom: Path, prepared: PreparedFolder, make) -> None:
        assert prepared.manifest["synthetic"]
        assert make(phantom / "stage_2_train").manifest["synthetic"]

    def test_files_in_scans_are_counted_as_the_scans_are(self, tmp_path: Path, make) -> None:
        for kernel in ("H30s", "H70h"):
            change = {"H30s": lambda i: {}, "H70h": lambda i: {"SOPInstanceUID": f"9.{i}"}}[kernel]
            make_series(tmp_path / "dicom" / kernel, 6, ConvolutionKernel=kernel, change=change)
        folder = make(tmp_path / "dicom", "file,any\nH30s/0.dcm,1\nH70h/0.dcm,1\n")
        assert folder.manifest["scans"] == 2
        assert folder.manifest["summary"] == "12 files: 12 used in 2 scans."


class TestNifti:
    def test_slices_below_the_head_may_be_named_in_vain(self, tmp_path: Path, make) -> None:
        shapes = [neck] * 30 + [skull] * 20
        volume = np.stack([slice_hu((*START, 5.0 * i), anatomy=shape, **FIELD) for i, shape in enumerate(shapes)])
        affine = np.diag([-4.0, -4.0, 5.0, 1.0])
        affine[:2, 3] = 256
        make_nifti(tmp_path / "in/1.nii", volume, affine=affine)
        folder = make(tmp_path / "in")
        names = {f"1.nii#{number}" for number in range(1, 51)}
        assert len(folder.key) < 50
        assert set(folder.key["file"]) | names_of(folder) >= names
        assert not set(folder.key["file"]) & names_of(folder)

    def test_slices_are_named_by_their_number_in_the_file(self, tmp_path: Path, make) -> None:
        make_nifti(tmp_path / "in/ct_scans/049.nii")
        make_nifti(tmp_path / "in/ct_scans/050.nii.gz", flips=(False, False, True), order=(2, 0, 1))
        folder = make(tmp_path / "in", preprocessing=Preprocessing(size=32, crop="none"))
        upright, reversed_ = folder.scans
        assert upright.slices["file"].tolist() == [f"ct_scans/049.nii#{i}" for i in range(1, 9)]
        assert reversed_.slices["file"].tolist() == [f"ct_scans/050.nii.gz#{i}" for i in range(8, 0, -1)]
        assert {scan.patient_id for scan in folder.scans} == {""}
        for scan in folder.scans:
            np.testing.assert_array_equal(read_cached(scan.cache_path).hu, head_volume())
        assert content_of(make(tmp_path / "in", preprocessing=folder.preprocessing)) == content_of(folder)
        assert folder.manifest["files"] == {"used": 2, "skipped": 0, "refused": 0}

    @pytest.mark.parametrize("labels", ["file,slice,any\nct/1.nii,3,1\n", "file,any\nct/1.nii,1\n", "folder,any\nct,1\n"])
    def test_labels_choose_files(self, tmp_path: Path, make, labels: str) -> None:
        make_nifti(tmp_path / "in/ct/1.nii")
        make_nifti(tmp_path / "in/masks/1.nii", head_volume() > 100)
        make_series(tmp_path / "in/dicom", 6)
        folder = make(tmp_path / "in", labels)
        assert {name.rpartition("#")[0] for name in folder.key["file"]} == {"ct/1.nii"}
        assert folder.manifest["files"] == {"used": 1, "skipped": 7, "refused": 0}

    def test_every_file_has_one_fate(self, tmp_path: Path, make) -> None:
        root = tmp_path / "in"
        make_nifti(root / "good.nii.gz")
        holes = head_volume().astype(float)
        holes[2, 3, 4] = np.nan
        make_nifti(root / "holes.nii", holes, dtype=np.float32)
        make_nifti(root / "mask.nii", head_volume() > 100)
        (root / "text.nii").write_text("no NIfTI")
        with zipfile.ZipFile(root / "a.zip", "w") as archive:
            archive.write(root / "good.nii.gz", "b.nii.gz")
        (root / "note.txt").write_text("hello")
        folder = make(root)
        ledger = pd.read_csv(folder.folder / "private" / "ledger.csv", keep_default_na=False)
        assert {path.removeprefix(f"{root}/"): code for path, code in zip(ledger["path"], ledger["code"], strict=True)} == {
            "good.nii.gz": "",
            "holes.nii": "not_finite",
            "mask.nii": "not_hu",
            "text.nii": "not_nifti",
            "a.zip!b.nii.gz": "nifti_in_archive",
            "note.txt": "not_dicom",
        }
        assert folder.manifest["files"] == {"used": 1, "skipped": 1, "refused": 4}
        assert {"holes.nii", "holes.nii#1", "holes.nii#8", "text.nii", "a.zip/b.nii.gz"} <= names_of(folder)

    def test_without_any_ct(self, tmp_path: Path, make) -> None:
        (tmp_path / "in").mkdir()
        (tmp_path / "in/note.txt").write_text("hello")
        with pytest.raises(SourceError) as caught:
            make(tmp_path / "in")
        assert caught.value.code == "no_ct"


class TestChoices:
    @pytest.fixture
    def studies(self, tmp_path: Path) -> Path:
        """Two studies of three series each."""
        for number in (1, 2):
            names = {"thick": "PLAIN 5MM", "thin": "THIN STND", "scout": "LOCALIZER"}
            for i, (folder, description) in enumerate(names.items()):
                uids = {"StudyInstanceUID": f"{number}", "SeriesInstanceUID": f"{number}.{i}", "AccessionNumber": f"A{number}"}
                make_series(tmp_path / f"dicom/study {number}/{folder}", 6, SeriesDescription=description, SeriesNumber=i, **uids)
        return tmp_path / "dicom"

    @pytest.mark.parametrize(
        ("study", "series"), [("1", "1.1"), ("A1", "1.1"), ("study 1", "thin stnd"), ("1", "THIN STND"), ("A1", " Thin Stnd ")]
    )
    def test_a_wish_is_granted(self, studies: Path, make, study: str, series: str) -> None:
        folder = make(studies, choices={study: series})
        assert [scan.series_uid for scan in folder.scans] == ["1.1", "2.0"]
        table = pd.read_csv(folder.folder / "private/series.csv", dtype=str).set_index("study_uid")
        assert table["series_uid"].tolist() == ["1.1", "2.0"]
        assert table["folder"].tolist() == ["study 1/thin", "study 2/thick"]
        assert table["description"].tolist() == ["THIN STND", "PLAIN 5MM"]
        assert "selected by the table of choices" in table["reason"]["1"]
        assert "1.0" in table["others"]["1"]
        assert "localizer" in table["others"]["2"]

    def test_it_outranks_what_the_labels_name(self, studies: Path, make) -> None:
        labels = "series_uid,any\n1.0,1\n1.1,1\n2.0,1\n"
        assert [scan.series_uid for scan in make(studies, labels).scans] == ["1.0", "1.1", "2.0"]
        assert [scan.series_uid for scan in make(studies, labels, choices={"1": "1.1"}).scans] == ["1.1", "2.0"]

    @pytest.mark.parametrize(
        ("study", "series"), [("3", "1.1"), ("1", "2.1"), ("1", "THICK"), ("thin", "THIN STND"), ("1", "LOCALIZER"), ("1", "1.")]
    )
    def test_what_fits_nothing_stops(self, studies: Path, make, tmp_path: Path, study: str, series: str) -> None:
        with pytest.raises(TableError) as caught:
            make(studies, choices={"2": "2.1", study: series})
        assert caught.value.code == "choice_without_series"
        assert repr(study) in caught.value.got
        assert not PreparedFolder.is_one(tmp_path / "out")

    def test_of_several_series_whose_slices_are_labelled_the_best_if_the_study_is_labelled_too(self, studies: Path, make) -> None:
        slices = "sop_uid,study_uid,any\n1.1.3,,1\n1.2.3,,1\n1.0.3,,1\n2.1.3,,1\n"
        assert [scan.series_uid for scan in make(studies, slices).scans] == ["1.0", "1.1", "1.2", "2.1"]
        both = make(studies, f"{slices},1,1\n,2,1\n")
        assert [scan.series_uid for scan in both.scans] == ["1.0", "2.1"]
        assert [scan.series_uid for scan in make(studies, f"{slices},1,1\n,2,1\n", choices={"1": "1.1"}).scans] == ["1.1", "2.1"]

    def test_two_that_differ_on_one_study_stop(self, studies: Path, make) -> None:
        assert len(make(studies, choices={"1": "1.1", "A1": "1.1"}).scans) == 2
        with pytest.raises(TableError) as caught:
            make(studies, choices={"1": "1.1", "A1": "1.0"})
        assert "(2 choices)" in caught.value.got

    def test_the_first_ten_are_named(self, studies: Path, make) -> None:
        with pytest.raises(TableError) as caught:
            make(studies, choices={f"study {number:02d}": "x" for number in range(3, 20)})
        assert "'study 12'" in caught.value.got
        assert "'study 13'" not in caught.value.got
        assert "7 more (17 choices)" in caught.value.got


class TestDamage:
    def test_a_flipped_byte_in_each_of_twenty_files_is_noticed_and_mended(
        self, tmp_path: Path, make, caplog: pytest.LogCaptureFixture
    ) -> None:
        for i in range(22):
            make_series(tmp_path / f"dicom/{i}", 5, StudyInstanceUID=f"{i}", SeriesInstanceUID=f"{i}.1", PatientID=f"p{i}")
        folder = make(tmp_path / "dicom")
        content, times = content_of(folder), times_of(folder)
        random = np.random.default_rng(7)
        files = sorted((folder.folder / "cache").iterdir())
        hit = [files[i] for i in random.permutation(len(files))[:20]]
        for file in hit:
            damaged = bytearray(file.read_bytes())
            damaged[random.integers(len(damaged))] ^= 1 << random.integers(8)
            file.write_bytes(damaged)
        again = make(tmp_path / "dicom")
        assert "20 cached scans were damaged" in caplog.text
        assert sum(file.name in caplog.text for file in hit) == 10
        assert content_of(again) == content
        pd.testing.assert_frame_equal(again.key, folder.key)
        after = times_of(again)
        assert {name for name in times if after[name] == times[name]} == {file.name for file in files} - {
            file.name for file in hit
        }
        caplog.clear()
        make(tmp_path / "dicom")
        assert not caplog.records


class TestPlaceOfTheResult:
    def test_in_the_source_it_does_not_count_as_source(self, tmp_path: Path, make, project_key) -> None:
        make_series(tmp_path / "dicom/a", 6)
        out = tmp_path / "dicom" / "prepared"
        first = prepare(tmp_path / "dicom", out, preprocessing=SMALL, key=project_key, workers=1)
        again = prepare(tmp_path / "dicom", out, preprocessing=SMALL, key=project_key, workers=1)
        assert first.manifest == again.manifest
        assert first.manifest["files"] == {"used": 6, "skipped": 0, "refused": 0}

    def test_the_source_itself_is_refused(self, tmp_path: Path, project_key) -> None:
        make_series(tmp_path / "dicom", 6)
        (tmp_path / "link").symlink_to(tmp_path / "dicom")
        with pytest.raises(ConfigError) as caught:
            prepare(tmp_path / "dicom", tmp_path / "link", preprocessing=SMALL, key=project_key)
        assert caught.value.code == "out_is_source"
        assert len(list((tmp_path / "dicom").iterdir())) == 6


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

    def test_a_record_cut_short_does_no_harm(self, phantom: Path, make, tmp_path: Path) -> None:
        first = make(phantom)
        record = sorted((tmp_path / "out" / "private" / "prepared").iterdir())[1]
        record.write_bytes(record.read_bytes()[:-40])
        pd.testing.assert_frame_equal(make(phantom).key, first.key)
        times = times_of(first)
        make(phantom)
        assert times_of(first) == times

    def test_two_at_once_wait_for_each_other(self, phantom: Path, make, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        inside, told = threading.Event(), []

        def tell(what: str, count: int, total: int | None) -> None:
            inside.set()
            told.append(len(told))
            while len(told) == 1 and not caplog.records:
                time.sleep(0.01)

        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(make, phantom, progress=tell)
            inside.wait()
            second = make(phantom)
            assert content_of(first.result()) == content_of(second)
        assert "waiting" in caplog.text


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

    def test_an_executor(self, phantom: Path, make) -> None:
        with ThreadPoolExecutor(2) as pool:
            threads = make(phantom, executor=pool, workers=2)
            threads.scans[1].cache_path.write_bytes(b"damage")
            threads = make(phantom, executor=pool, workers=2)
        alone = make(phantom, out="alone")
        pd.testing.assert_frame_equal(threads.key, alone.key)
        assert content_of(threads) == content_of(alone)

    def test_number_of_processes(self, phantom: Path, make, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(prepare_module, "JOBS_WORTH_A_PROCESS", 1)
        one, two = make(phantom, out="one"), make(phantom, out="two", workers=2)
        pd.testing.assert_frame_equal(one.key, two.key)
        assert content_of(one) == content_of(two)
        assert one.manifest == two.manifest


PREPARE = """
import sys
from ich_lstm.cli.prepare import main
if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
"""
KILLS = int(os.environ.get("ICH_LSTM_KILLS", "3"))
"""How often a preparation is killed; `.ci/run full` asks for ten."""


@pytest.mark.parametrize(("size", "is_one"), [(16, True), (24, False)])
def test_killed_among_its_tables_no_size_is_mistaken(
    size: int, is_one: bool, make, phantom: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(phantom, preprocessing=Preprocessing(size=16))

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare_module, "_write_tables", killed)
    with pytest.raises(KeyboardInterrupt):
        make(phantom, preprocessing=Preprocessing(size=size))
    assert PreparedFolder.is_one(made.folder) == is_one


class TestKill:
    def test_after_kills_at_random_moments_the_cache_is_the_same_and_nothing_is_made_twice(self, tmp_path: Path, make) -> None:
        for i in range(40):
            make_series(tmp_path / f"dicom/{i}", 6, StudyInstanceUID=f"{i}", SeriesInstanceUID=f"{i}.1", PatientID=f"p{i}")
        settings = {"preprocessing": Preprocessing(size=256), "key": ProjectKey.open(tmp_path / "key")}
        whole = make(tmp_path / "dicom", out="whole", **settings)
        (tmp_path / "prepare.py").write_text(PREPARE)
        command = [sys.executable, str(tmp_path / "prepare.py"), str(tmp_path / "dicom"), "--out", str(tmp_path / "out")]
        command += ["--size", "256", "--project-key", str(tmp_path / "key")]
        cache = tmp_path / "out" / "cache"
        random = np.random.default_rng(11)
        before: dict[str, int] = {}
        for _ in range(KILLS):
            # A share of what is left, so that the last kill meets work too.
            enough = len(before) + random.integers(1, max(2, (40 - len(before)) // 3))
            with subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True) as run:
                while run.poll() is None and len(list(cache.glob("*"))) < enough:
                    time.sleep(0.005)
                run.kill()
            wait_for_end(run.pid)
            now = {file.name: file.stat().st_mtime_ns for file in cache.glob("[!.]*")}
            assert before.items() <= now.items()
            before = now
        assert 0 < len(before) < 40
        again = make(tmp_path / "dicom", **settings)
        assert before.items() <= times_of(again).items()
        assert bytes_of(again) == bytes_of(whole)
        pd.testing.assert_frame_equal(again.key, whole.key)
        files = [sorted(str(file.relative_to(one.folder)) for file in one.folder.rglob("*")) for one in (again, whole)]
        assert files[0] == files[1]  # nothing half-written is left


def wait_for_end(group: int) -> None:
    """Wait until no process of a group is left: those whose parent was killed have to end by themselves."""
    for _ in range(1000):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    raise AssertionError("processes outlive the one that started them")
