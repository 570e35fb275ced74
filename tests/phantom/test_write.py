import csv
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ich_lstm.errors import ConfigError
from ich_lstm.labels import LABELS
from ich_lstm.phantom import PhantomSettings, make_head, write_phantom

SETTINGS = PhantomSettings(patients=6, slices=8, size=48, seed=11, prevalence=0.8)

RSNA_FIELDS = {
    "SOPInstanceUID", "Modality", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "StudyID",
    "ImagePositionPatient", "ImageOrientationPatient", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns",
    "PixelSpacing", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "WindowCenter", "WindowWidth",
    "RescaleIntercept", "RescaleSlope", "PixelData",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_phantom(SETTINGS, tmp_path_factory.mktemp("one") / "rsna", workers=1)


@pytest.fixture(scope="module")
def datasets(folder) -> dict[str, pydicom.Dataset]:
    # RSNA's identifiers are no valid UIDs; pydicom would warn of each.
    with pydicom.config.disable_value_validation():
        found = {path.stem: pydicom.dcmread(path) for path in sorted((folder / "stage_2_train").iterdir())}
        for dataset in found.values():
            list(dataset)  # reads every element now
    return found


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestFiles:
    def test_the_fields_are_rsnas_and_no_others(self, datasets):
        assert len(datasets) == 48
        for dataset in datasets.values():
            assert {element.keyword for element in dataset} == RSNA_FIELDS
            assert dataset.StudyID == ""

    def test_files_are_named_by_their_identifier(self, datasets):
        for name, dataset in datasets.items():
            assert re.fullmatch(r"ID_[0-9a-f]{9}", name)
            assert str(dataset.SOPInstanceUID) == name
            assert str(dataset.file_meta.MediaStorageSOPInstanceUID) != name
            assert dataset.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian
            assert dataset.PatientID.startswith("ID_")

    def test_a_scan_is_one_patient_study_and_series(self, datasets):
        groups = {(d.PatientID, d.StudyInstanceUID, d.SeriesInstanceUID) for d in datasets.values()}
        assert len(groups) == SETTINGS.patients
        assert len({patient for patient, _, _ in groups}) == SETTINGS.patients

    def test_stored_values_come_back_as_the_hu_of_the_head(self, datasets, repair):
        kinds = set()
        for patient in range(SETTINGS.patients):
            head = make_head(SETTINGS, patient)
            kinds.add(head.storage.kind)
            for i, uid in enumerate(head.sop_uids):
                dataset = datasets[uid]
                stored = dataset.pixel_array.astype(np.int32)
                wrapped = dataset.BitsStored == 12 and dataset.PixelRepresentation == 0 and float(dataset.RescaleIntercept) > -100
                hu = repair(stored) if wrapped else stored + int(dataset.RescaleIntercept)
                assert wrapped == (head.storage.kind == "wrapped")
                assert np.array_equal(np.clip(hu, head.storage.floor_hu, 3071), head.hu[i])
        assert len(kinds) > 1

    def test_positions_give_back_the_order(self, datasets):
        head = make_head(SETTINGS, 0)
        mine = [datasets[uid] for uid in head.sop_uids]
        orientation = np.array(mine[0].ImageOrientationPatient, float)
        normal = np.cross(orientation[:3], orientation[3:])
        positions = [normal @ np.array(d.ImagePositionPatient, float) for d in mine]
        assert positions == pytest.approx(head.positions_mm, abs=1e-3)
        assert (np.diff(positions) > 0).all()
        assert float(mine[0].PixelSpacing[0]) == pytest.approx(head.spacing_mm[1])


class TestTable:
    def test_rows_are_six_per_image_in_the_order_of_the_labels(self, folder, datasets):
        with (folder / "stage_2_train.csv").open(newline="") as file:
            header, *rows = list(csv.reader(file))
        assert header == ["ID", "Label"]
        assert len(rows) == 6 * len(datasets)
        for i, (name, _) in enumerate(rows):
            image, kind = name.rsplit("_", 1)
            assert kind == LABELS[i % 6]
            assert image in datasets

    def test_labels_are_those_of_the_heads(self, folder):
        with (folder / "stage_2_train.csv").open(newline="") as file:
            table = {row["ID"]: int(row["Label"]) for row in csv.DictReader(file)}
        for patient in range(SETTINGS.patients):
            head = make_head(SETTINGS, patient)
            for uid, labels in zip(head.sop_uids, head.slice_labels, strict=True):
                assert [table[f"{uid}_{name}"] for name in LABELS] == labels.tolist()


class TestWriting:
    def test_the_number_of_workers_changes_no_byte(self, folder, tmp_path):
        done: list[int] = []
        other = write_phantom(SETTINGS, tmp_path / "two", workers=2, progress=done.append)
        assert bytes_of(other) == bytes_of(folder)
        assert sum(done) == SETTINGS.patients

    def test_the_same_set_is_left_alone(self, folder):
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        done: list[int] = []
        assert write_phantom(SETTINGS, folder, workers=1, progress=done.append) == folder
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
        assert sum(done) == SETTINGS.patients

    def test_a_set_from_which_a_file_was_lost_is_written_again(self, tmp_path):
        small = PhantomSettings(patients=1, slices=8, size=48)
        target = write_phantom(small, tmp_path / "set", workers=1)
        whole = bytes_of(target)
        next((target / "stage_2_train").iterdir()).unlink()
        assert bytes_of(write_phantom(small, target, workers=1)) == whole

    def test_a_folder_with_other_things_is_refused_and_not_touched(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("mine")
        with pytest.raises(ConfigError, match="phantom_folder_not_empty"):
            write_phantom(SETTINGS, tmp_path, workers=1)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_a_phantom_with_other_settings_is_refused(self, folder):
        other = PhantomSettings(patients=7, slices=8, size=48, seed=11, prevalence=0.8)
        with pytest.raises(ConfigError, match="other settings"):
            write_phantom(other, folder, workers=1)

    def test_no_workers_are_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="workers"):
            write_phantom(SETTINGS, tmp_path / "new", workers=0)
        assert not (tmp_path / "new").exists()
