"""ich-predict from its command line to its folder."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from dicom_files import make_series, make_slice

from ich_lstm.cli import predict
from ich_lstm.labels import LABELS


def run(paths: list[Path], model: Path, out: Path, *options: str) -> int:
    return predict.main([*map(str, paths), "--checkpoint", str(model), "--out", str(out), *options])


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, phantom: Path) -> Path:
    """Three synthetic studies; in one of them a file has lost its end."""
    from ich_lstm.reading import index_source

    folder = tmp_path_factory.mktemp("canary-archive")
    studies = index_source(phantom).studies()[:3]
    for number, study in enumerate(studies):
        (folder / f"study-{number}").mkdir()
        for header in study.series[0].headers:
            shutil.copy(header.source.path, folder / f"study-{number}")
    victim = sorted((folder / "study-1").iterdir())[3]
    victim.write_bytes(victim.read_bytes()[:-500])
    return folder


@pytest.fixture(scope="module")
def predicted(archive: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of predictions of `archive`."""
    out = tmp_path_factory.mktemp("predictions") / "out"
    assert run([archive], model_folder, out) == 3
    return out


class TestArchiveWithABrokenStudy:
    def test_every_study_has_a_row(self, predicted: Path) -> None:
        scans = pd.read_csv(predicted / "scans.csv")
        assert len(scans) == 3
        assert (scans["status"] == "ok").sum() == 2

    def test_a_refused_study_has_no_probability(self, predicted: Path) -> None:
        scans = pd.read_csv(predicted / "scans.csv")
        refused = scans[scans["status"] != "ok"]
        assert refused["status"].tolist() == ["truncated_pixels"]
        assert refused[list(LABELS)].isna().all(axis=None)

    def test_slices_are_those_of_the_scans_in_order(self, predicted: Path) -> None:
        slices = pd.read_csv(predicted / "slices.csv")
        scans = pd.read_csv(predicted / "scans.csv").query("status == 'ok'")
        assert list(slices["scan_id"].unique()) == list(scans["scan_id"])
        for _, rows in slices.groupby("scan_id"):
            assert rows["slice"].tolist() == list(range(1, len(rows) + 1))
            assert (np.diff(rows["position_mm"]) > 0).all()

    def test_the_ledger_accounts_for_every_file(self, predicted: Path, archive: Path) -> None:
        ledger = pd.read_csv(predicted / "private/ledger.csv")
        counts = json.loads((predicted / "manifest.json").read_text())["counts"]
        assert len(ledger) == len([path for path in archive.rglob("*") if path.is_file()]) == sum(counts["files"].values())
        assert ledger["action"].value_counts().to_dict() == {key: n for key, n in counts["files"].items() if n}

    def test_the_key_joins_predictions_to_files(self, predicted: Path) -> None:
        slices, key = pd.read_csv(predicted / "slices.csv"), pd.read_csv(predicted / "private/key.csv")
        joined = slices.merge(key, on=["scan_id", "slice", "slice_id"], validate="one_to_one")
        assert len(joined) == len(slices)
        assert joined["sop_uid"].is_unique

    def test_private_files_are_those_that_the_manifest_names(self, predicted: Path) -> None:
        named = json.loads((predicted / "manifest.json").read_text())["private"]
        found = [path.relative_to(predicted).as_posix() for path in (predicted / "private").rglob("*") if path.is_file()]
        assert sorted(found) == named

    def test_shareable_files_know_no_identity(self, predicted: Path) -> None:
        for path in predicted.iterdir():
            if path.is_file():
                assert not re.search(rb"ID_[0-9a-f]{8}|canary", path.read_bytes()), path

    def test_each_page_shows_every_slice(self, predicted: Path) -> None:
        slices = pd.read_csv(predicted / "slices.csv")
        for scan_id, rows in slices.groupby("scan_id"):
            page = (predicted / f"private/pages/{scan_id}.html").read_text()
            assert page.count("data:image/") >= len(rows)


class TestExitCodes:
    def test_all_done(self, archive: Path, model_folder: Path, tmp_path: Path) -> None:
        assert run([archive / "study-0"], model_folder, tmp_path / "out") == 0

    def test_all_failed(self, archive: Path, model_folder: Path, tmp_path: Path) -> None:
        assert run([archive / "study-1"], model_folder, tmp_path / "out") == 1

    def test_a_missing_path_beside_a_good_one(self, archive: Path, model_folder: Path, tmp_path: Path) -> None:
        assert run([archive / "study-0", tmp_path / "nothing"], model_folder, tmp_path / "out") == 3
        assert pd.read_csv(tmp_path / "out/scans.csv")["status"].tolist() == ["ok", "missing_path"]

    def test_one_study_below_two_paths_is_predicted_once(self, archive: Path, model_folder: Path, tmp_path: Path) -> None:
        folder = archive / "study-0"
        assert run([folder, archive.parent / archive.name / "study-0"], model_folder, tmp_path / "out") == 0
        assert pd.read_csv(tmp_path / "out/scans.csv")["status"].tolist() == ["ok", "repeated_study"]
        assert not pd.read_csv(tmp_path / "out/slices.csv").duplicated(["scan_id", "slice"]).any()

    @pytest.mark.parametrize("arguments", [[], ["x"], ["x", "--checkpoint", "y", "--oout", "z"]])
    def test_wrong_usage(self, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
        assert predict.main(arguments) == 2
        assert len(capsys.readouterr().err.strip().splitlines()) == 1

    def test_no_model(self, archive: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        assert run([archive], tmp_path, tmp_path / "out") == 1
        assert "CheckpointError[not_a_model]" in capsys.readouterr().err

    def test_a_full_folder_is_not_written_into(self, archive: Path, model_folder: Path, tmp_path: Path) -> None:
        (tmp_path / "mine.txt").write_text("mine")
        assert run([archive / "study-0"], model_folder, tmp_path) == 2
        assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


class TestVocabulary:
    def test_a_hospital_s_words_choose_the_series(self, model_folder: Path, tmp_path: Path) -> None:
        make_series(tmp_path / "in/a", SeriesDescription="Protokoll 7b")
        make_series(tmp_path / "in/b", SeriesDescription="Kopf", SeriesInstanceUID="1.2.3.100.2", SeriesNumber=9)
        table = tmp_path / "words.csv"
        table.write_text("kind,language,word\ncontrast,de,PROTOKOLL 7B\n")
        assert run([tmp_path / "in"], model_folder, tmp_path / "plain") == 0
        assert run([tmp_path / "in"], model_folder, tmp_path / "words", "--vocabulary", str(table)) == 0  # the study has a result
        assert run([tmp_path / "in"], model_folder, tmp_path / "again") == 0
        read = {
            out: pd.read_csv(tmp_path / out / "private/key.csv")["series_uid"].unique().tolist()
            for out in ("plain", "words", "again")
        }
        assert read == {"plain": ["1.2.3.100.1"], "words": ["1.2.3.100.2"], "again": ["1.2.3.100.1"]}
        digests = [json.loads((tmp_path / out / "manifest.json").read_text())["options"]["vocabulary"] for out in read]
        assert digests[0] == digests[2] == ""
        assert len(digests[1]) == 64

    def test_a_malformed_table_names_the_line(
        self, archive: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        table = tmp_path / "words.csv"
        table.write_text("kind,language,word\ncontrast,de,X1\nkontrast,de,X2\n")
        assert run([archive], model_folder, tmp_path / "out", "--vocabulary", str(table)) == 1
        said = "".join(capsys.readouterr())
        assert "words.csv, line 3" in said.replace("\n", "")
        assert not (tmp_path / "out").exists()


def test_two_series_of_a_study_are_told_apart(model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The thick one is read; the other can be named."""
    make_series(
        tmp_path / "in/thin",
        count=60,
        step=2.5,
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.3.1",
        SeriesDescription="thin",
        SliceThickness=2.5,
    )
    make_series(
        tmp_path / "in/thick",
        count=30,
        step=5.0,
        StudyInstanceUID="1.2.3",
        SeriesInstanceUID="1.2.3.2",
        SeriesDescription="thick",
    )
    assert run([tmp_path / "in"], model_folder, tmp_path / "one") == 0
    assert run([tmp_path / "in"], model_folder, tmp_path / "two", "--series", "1.2.3.1") == 0
    chosen = [pd.read_csv(tmp_path / name / "private/series.csv").query("read")["description"].item() for name in ("one", "two")]
    assert chosen == ["thick", "thin"]


@pytest.fixture(scope="module")
def real(real_data: Path, model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of predictions of the real scans."""
    out = tmp_path_factory.mktemp("real") / "out"
    assert run([real_data / "ge_head_tilt", real_data / "philips_exam.zip"], model_folder, out) == 0
    return out


class TestRealScans:
    def test_tilted_scan_in_anatomical_order(self, real: Path) -> None:
        scans, slices = pd.read_csv(real / "scans.csv"), pd.read_csv(real / "slices.csv")
        tilted = slices[slices["scan_id"] == scans["scan_id"][0]]
        assert len(tilted) == 28
        assert tilted["position_mm"].iloc[[0, -1]].round(2).tolist() == [-33.67, 110.42]
        assert set(scans["flags"][0].split(";")) == {"tilt", "uneven_spacing"}

    def test_export_chooses_the_thick_brain_series_and_says_why(self, real: Path) -> None:
        series = pd.read_csv(real / "private/series.csv").iloc[1:]
        assert series.query("read")["description"].tolist() == ["STD BRAIN 5MM"]
        assert series.query("read")["images"].tolist() == [28]
        assert len(series) == 5
        assert series.query("not read")[["code", "reason"]].notna().all(axis=None)

    def test_every_member_of_the_export_is_accounted_for(self, real: Path, real_data: Path) -> None:
        import zipfile

        members = [info for info in zipfile.ZipFile(real_data / "philips_exam.zip").infolist() if not info.is_dir()]
        ledger = pd.read_csv(real / "private/ledger.csv")
        assert ledger["path"].str.contains("philips_exam.zip!").sum() == len(members)


def test_a_model_of_synthetic_heads_warns(phantom: Path, archive: Path, tmp_path: Path) -> None:
    """Somebody will try the demo's model on a patient."""
    from ich_lstm.cli import train

    data = [
        "--data.root",
        str(phantom),
        "--data.preprocessing.size=32",
        "--data.num_workers=0",
        "--data.cache_dir",
        str(tmp_path / "cache"),
    ]
    model = ["--model.encoder.backbone=test_resnet", "--model.encoder.pretrained=false", "--model.head.hidden_size=8"]
    trainer = ["--trainer.max_epochs=1", "--trainer.accelerator=cpu", "--out", str(tmp_path / "run")]
    assert train.main([*data, *model, *trainer]) == 0
    assert run([archive / "study-0"], tmp_path / "run", tmp_path / "out") == 0
    assert "synthetic_model" in pd.read_csv(tmp_path / "out/scans.csv")["flags"][0]


class TestNifti:
    @pytest.fixture
    def file(self, heads: list, tmp_path: Path) -> Path:
        nibabel = pytest.importorskip("nibabel")
        row, column = heads[0].spacing_mm[1:]
        # Ours is (slice, down, across) with the patient's right at the left; NIfTI's axes run right, anterior, superior.
        volume = heads[0].hu.transpose(2, 1, 0)
        nibabel.save(nibabel.Nifti1Image(volume, np.diag([-column, -row, heads[0].spacing_mm[0], 1.0])), tmp_path / "head.nii.gz")
        return tmp_path / "head.nii.gz"

    def test_is_predicted(self, file: Path, model_folder: Path, tmp_path: Path) -> None:
        assert run([file], model_folder, tmp_path / "out", "--allow-other-body-part") == 0
        slices, key = pd.read_csv(tmp_path / "out/slices.csv"), pd.read_csv(tmp_path / "out/private/key.csv")
        assert len(slices) == 12
        joined = slices.merge(key, on=["scan_id", "slice", "slice_id"], validate="one_to_one")
        assert joined["file"].tolist() == [f"head.nii.gz#{number}" for number in range(1, 13)]

    def test_a_damaged_one_has_a_row(self, file: Path, model_folder: Path, tmp_path: Path) -> None:
        file.write_bytes(file.read_bytes()[:2000])
        assert run([file], model_folder, tmp_path / "out") == 1
        assert pd.read_csv(tmp_path / "out/scans.csv")["status"].item() != "ok"
        assert pd.read_csv(tmp_path / "out/private/ledger.csv")["action"].tolist() == ["refused"]


def ledger_of(out: Path, root: Path) -> dict[str, tuple[str, str]]:
    """What became of each file, by its path below a folder."""
    frame = pd.read_csv(out / "private/ledger.csv", keep_default_na=False)
    assert frame["path"].is_unique
    counts = json.loads((out / "manifest.json").read_text())["counts"]["files"]
    assert sum(counts.values()) == len(frame)
    names = [path.removeprefix(f"{root}/") for path in frame["path"]]
    return dict(zip(names, zip(frame["action"], frame["code"], strict=True), strict=True))


class TestFolderOfNifti:
    """A prediction counts the NIfTI files of a folder as ich-prepare --check does."""

    @pytest.fixture
    def folder(self, heads: list, tmp_path: Path) -> Path:
        nibabel = pytest.importorskip("nibabel")
        row, column = heads[0].spacing_mm[1:]
        (tmp_path / "in" / "a").mkdir(parents=True)
        for name, head in (("a/1.nii.gz", heads[0]), ("2.nii", heads[1])):
            image = nibabel.Nifti1Image(head.hu.transpose(2, 1, 0), np.diag([-column, -row, head.spacing_mm[0], 1.0]))
            nibabel.save(image, tmp_path / "in" / name)
        return tmp_path / "in"

    def checked(self, folder: Path, tmp_path: Path) -> dict[str, str]:
        from ich_lstm.cli import prepare

        prepare.main([str(folder), "--check", "--out", str(tmp_path / "checked")])
        frame = pd.read_csv(tmp_path / "checked/private/ledger.csv", keep_default_na=False)
        return {path.removeprefix(f"{folder}/"): code for path, code in zip(frame["path"], frame["code"], strict=True)}

    def test_one_alone(self, folder: Path, model_folder: Path, tmp_path: Path) -> None:
        (folder / "2.nii").unlink()
        assert run([folder], model_folder, tmp_path / "out") == 0
        assert pd.read_csv(tmp_path / "out/scans.csv")["status"].tolist() == ["ok"]
        assert ledger_of(tmp_path / "out", folder) == {"a/1.nii.gz": ("used", "")}
        key = pd.read_csv(tmp_path / "out/private/key.csv")
        assert key["file"].tolist() == [f"a/1.nii.gz#{number}" for number in range(1, 13)]
        assert self.checked(folder, tmp_path) == {"a/1.nii.gz": ""}

    def test_beside_dicom_and_what_is_none(self, folder: Path, model_folder: Path, tmp_path: Path) -> None:
        make_series(folder / "dicom")
        (folder / "broken.nii").write_text("no NIfTI")
        (folder / "note.txt").write_text("hello")
        assert run([folder], model_folder, tmp_path / "out") == 3
        assert pd.read_csv(tmp_path / "out/scans.csv")["status"].tolist() == ["ok", "ok", "ok", "not_nifti"]
        ledger = ledger_of(tmp_path / "out", folder)
        assert len(ledger) == 12
        assert {name: ledger[name] for name in ("2.nii", "broken.nii", "note.txt")} == {
            "2.nii": ("used", ""),
            "broken.nii": ("refused", "not_nifti"),
            "note.txt": ("skipped", "not_dicom"),
        }
        assert self.checked(folder, tmp_path) == {name: code for name, (_, code) in ledger.items()}

    @pytest.mark.parametrize("with_dicom", [False, True])
    def test_in_an_archive_each_has_a_row_with_the_reason(
        self, with_dicom: bool, folder: Path, model_folder: Path, tmp_path: Path
    ) -> None:
        if with_dicom:
            make_series(folder / "dicom")
        archive = Path(shutil.make_archive(str(tmp_path / "all"), "zip", folder))
        assert run([archive], model_folder, tmp_path / "out") == (3 if with_dicom else 1)
        status = pd.read_csv(tmp_path / "out/scans.csv")["status"].tolist()
        assert status == ["ok"] * with_dicom + ["nifti_in_archive"] * 2
        ledger = ledger_of(tmp_path / "out", tmp_path)
        assert ledger["all.zip!2.nii"] == ("refused", "nifti_in_archive")
        assert len(ledger) == 2 + 8 * with_dicom

    def test_a_file_that_two_paths_hold_is_predicted_once(self, folder: Path, model_folder: Path, tmp_path: Path) -> None:
        assert run([folder / "2.nii", folder], model_folder, tmp_path / "out") == 0
        assert pd.read_csv(tmp_path / "out/scans.csv")["status"].tolist() == ["ok", "repeated_study", "ok"]

    def test_the_shortest_way_in(self, folder: Path) -> None:
        from ich_lstm.errors import StudyError
        from ich_lstm.reading import read_scan

        assert len(read_scan(folder / "a")) == 12
        with pytest.raises(StudyError, match=r"2 studies \(2\.nii, 1\.nii\.gz\)"):
            read_scan(folder)


class TestPathsThatFail:
    """The files of a path without any study are accounted for as all others."""

    def test_a_file_of_no_study_is_named_where_no_study_failed(
        self, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        make_series(tmp_path / "export" / "head")
        (tmp_path / "export" / "bad.zip").write_bytes(b"PK\x03\x04" + bytes(40))
        assert run([tmp_path / "export"], model_folder, tmp_path / "out") == 3
        said = capsys.readouterr().out
        assert "1 study predicted, 0 failed" in said
        assert (
            f"Refused: 1 file that belongs to no study, so that a study may be missing. Reasons: {tmp_path}/out/private" in said
        )

    def test_beside_one_that_is_read(self, model_folder: Path, tmp_path: Path) -> None:
        make_series(tmp_path / "head")
        (tmp_path / "notes").mkdir()
        (tmp_path / "notes" / "a.txt").write_text("hello")
        (tmp_path / "notes" / "b.txt").write_text("hello")
        (tmp_path / "bad.zip").write_bytes(b"PK\x03\x04" + bytes(40))
        make_slice(tmp_path / "mr.dcm", Modality="MR")
        (tmp_path / "empty").mkdir()
        names = ("head", "notes", "bad.zip", "mr.dcm", "empty", "missing")
        assert run([tmp_path / name for name in names], model_folder, tmp_path / "out") == 3
        status = pd.read_csv(tmp_path / "out/scans.csv")["status"].tolist()
        assert status == ["ok", "no_ct", "bad_archive", "no_ct", "empty_folder", "missing_path"]
        ledger = ledger_of(tmp_path / "out", tmp_path)
        assert {name: row for name, row in ledger.items() if row[0] != "used"} == {
            "notes/a.txt": ("skipped", "not_dicom"),
            "notes/b.txt": ("skipped", "not_dicom"),
            "bad.zip": ("refused", "bad_archive"),
            "mr.dcm": ("skipped", "not_ct"),
        }
        assert len(ledger) == 12

    def test_all_of_them(self, model_folder: Path, tmp_path: Path) -> None:
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "a.txt").write_text("hello")
        assert run([tmp_path / "one", tmp_path / "two"], model_folder, tmp_path / "out") == 1
        assert len(ledger_of(tmp_path / "out", tmp_path)) == 2


def test_thin_slices_are_averaged_for_a_model_of_thick_ones_only(model_folder: Path, tmp_path: Path) -> None:
    from ich_lstm import ScanClassifier

    make_series(tmp_path / "thin", count=80, step=1.25, SliceThickness=1.25)
    for slice_mm, expected in ((None, 20), (5.0, 20), (1.0, 80)):
        classifier = ScanClassifier.load(model_folder)
        classifier.slice_mm = slice_mm
        (prediction,) = classifier.predict(tmp_path / "thin")
        assert len(prediction) == expected
        assert len(prediction.to_frame()) == 80


class TestSubmission:
    @staticmethod
    def write_sample(path: Path, uids: list[str]) -> list[str]:
        """A sample submission that asks for these images, in an order of its own; the identifiers as they stand in it."""
        names = np.random.default_rng(0).permutation([f"{uid}_{label}" for uid in uids for label in LABELS]).tolist()
        path.write_text("\n".join(["ID,Label", *(f"{name},0.5" for name in names)]) + "\n")
        return names

    @staticmethod
    def answers(out: Path) -> dict[str, float]:
        table = pd.read_csv(out / "private/submission.csv", dtype=str)
        assert list(table.columns) == ["ID", "Label"]
        return dict(zip(table["ID"], map(float, table["Label"]), strict=True))

    def test_answers_the_sample_in_its_order(self, phantom: Path, heads: list, model_folder: Path, tmp_path: Path) -> None:
        names = self.write_sample(tmp_path / "sample.csv", [uid for head in heads for uid in head.sop_uids])
        assert run([phantom], model_folder, tmp_path / "out", "--submission", str(tmp_path / "sample.csv")) == 0
        got = self.answers(tmp_path / "out")
        assert list(got) == names
        assert "private/submission.csv" in json.loads((tmp_path / "out/manifest.json").read_text())["private"]
        slices, key = (pd.read_csv(tmp_path / "out" / name, dtype=str) for name in ("slices.csv", "private/key.csv"))
        for row in slices.merge(key, on=["scan_id", "slice"]).to_dict("records"):
            assert [got[f"{row['sop_uid']}_{label}"] for label in LABELS] == [float(row[label]) for label in LABELS]

    def test_slices_of_a_slab_get_its_probability(self, model_folder: Path, tmp_path: Path) -> None:
        make_series(tmp_path / "in", count=80, step=1.25, SliceThickness=1.25)
        assert run([tmp_path / "in"], model_folder, tmp_path / "first") == 0
        uids = pd.read_csv(tmp_path / "first/private/key.csv", dtype=str)["sop_uid"].tolist()
        self.write_sample(tmp_path / "sample.csv", uids)
        assert run([tmp_path / "in"], model_folder, tmp_path / "out", "--submission", str(tmp_path / "sample.csv")) == 0
        got = self.answers(tmp_path / "out")
        assert len(got) == 80 * len(LABELS)
        assert len({got[f"{uid}_any"] for uid in uids}) <= 20

    def test_none_where_an_image_was_refused(
        self, archive: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.write_sample(tmp_path / "sample.csv", [path.stem for path in archive.rglob("*.dcm")])
        assert run([archive], model_folder, tmp_path / "out", "--submission", str(tmp_path / "sample.csv")) == 1
        error = capsys.readouterr().err
        assert "TableError[no_probability]" in error
        assert "12 images" in error
        assert not (tmp_path / "out/private/submission.csv").exists()
        assert json.loads((tmp_path / "out/manifest.json").read_text())["counts"]["predicted"] == 2

    def test_none_where_everything_was_refused(self, archive: Path, model_folder: Path, tmp_path: Path) -> None:
        self.write_sample(tmp_path / "sample.csv", ["ID_a"])
        assert run([archive / "study-1"], model_folder, tmp_path / "out", "--submission", str(tmp_path / "sample.csv")) == 1
        assert not (tmp_path / "out/private/submission.csv").exists()

    def test_a_bad_sample_stops_before_anything_is_read(self, archive: Path, model_folder: Path, tmp_path: Path) -> None:
        (tmp_path / "sample.csv").write_text("ID,Label\nID_a_any,0.5\n")
        assert run([archive], model_folder, tmp_path / "out", "--submission", str(tmp_path / "sample.csv")) == 1
        assert not (tmp_path / "out").exists()


def test_the_manifest_says_which_engine_ran(
    archive: Path, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def engine() -> dict:
        (only,) = json.loads((tmp_path / "out/manifest.json").read_text())["engines"]
        return only

    study = archive / "study-0"
    assert run([study], model_folder, tmp_path / "out", "--precision", "bfloat16", "--engine", "torch") == 0
    first = engine()
    assert (first["name"], first["precision"]) == ("torch", "bfloat16")
    assert 0 < first["largest_difference"] <= 0.005
    assert run([study], model_folder, tmp_path / "out", "--precision", "bfloat16", "--engine", "torch") == 0  # nothing to encode
    assert engine() == first
    assert run([study], model_folder, tmp_path / "out") == 2  # float32 here
    assert "other_predictions" in capsys.readouterr().err
    assert run([study], model_folder, tmp_path / "exact", "--precision", "float32") == 0
    both = [pd.read_csv(tmp_path / name / "slices.csv")[list(LABELS)] for name in ("out", "exact")]
    assert 0 < (both[0] - both[1]).abs().max(axis=None) <= 0.005
