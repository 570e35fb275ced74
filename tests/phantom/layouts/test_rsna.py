import csv
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest

from ich_lstm.errors import ConfigError
from ich_lstm.labels import LABELS
from ich_lstm.phantom import PhantomSettings, RsnaLayout, make_head, write_phantom
from ich_lstm.reading import choose_series, index_source, load_scan

SETTINGS = PhantomSettings(patients=6, slices=8, size=48, seed=11, prevalence=0.8)

RSNA_FIELDS = {
    "SOPInstanceUID", "Modality", "PatientID", "StudyInstanceUID", "SeriesInstanceUID", "StudyID",
    "ImagePositionPatient", "ImageOrientationPatient", "SamplesPerPixel", "PhotometricInterpretation", "Rows", "Columns",
    "PixelSpacing", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "WindowCenter", "WindowWidth",
    "RescaleIntercept", "RescaleSlope", "PixelData",
}  # fmt: skip

BAD_FILE = "ID_6431af929"


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


@pytest.fixture(scope="module")
def odd(tmp_path_factory) -> Path:
    """With a test set, and every oddity of the original."""
    layout = RsnaLayout(
        image_folder="stage_2_train_images", test_patients=2, repeated_rows=True, truncated_file=True, other_matrix=True
    )
    settings = replace(SETTINGS, patients=3, size=80)
    return write_phantom(settings, tmp_path_factory.mktemp("odd") / "rsna", layout=layout, workers=1)


def read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        header, *rows = list(csv.reader(file))
    assert header == ["ID", "Label"]
    return rows


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


class TestTestSet:
    def test_the_sample_submission_names_the_test_files_in_an_order_of_its_own(self, odd):
        rows = read_rows(odd / "stage_2_sample_submission.csv")
        names = [name for name, _ in rows[::6]]
        images = [name.rsplit("_", 1)[0] for name in names]
        assert [name for name, _ in rows] == [f"{image}_{label}" for image in images for label in LABELS]
        assert {value for _, value in rows} == {"0.5"}
        files = [path.stem for path in (odd / "stage_2_test_images").iterdir()]
        assert sorted(images) == sorted(files)
        assert images != sorted(images)

    def test_test_patients_are_others_and_have_no_labels(self, odd):
        def names(table: str) -> set[str]:
            return {name for name, _ in read_rows(odd / table)}

        assert not names("stage_2_train.csv") & names("stage_2_sample_submission.csv")
        patients = {
            place: {study.patient_id for study in index_source(odd / f"stage_2_{place}_images").studies()}
            for place in ("train", "test")
        }
        assert len(patients["train"]) == 3
        assert len(patients["test"]) == 2
        assert not patients["train"] & patients["test"]

    def test_without_test_patients_there_is_none(self, folder):
        assert {path.name for path in folder.iterdir()} == {"stage_2_train", "stage_2_train.csv", "phantom.json"}


class TestOddities:
    def test_four_images_stand_twice(self, odd):
        rows = read_rows(odd / "stage_2_train.csv")
        assert len(rows) == 6 * 24 + 24
        assert len({name for name, _ in rows}) == 6 * 24
        assert len({tuple(row) for row in rows}) == 6 * 24

    def test_the_bad_file_has_labels_and_too_few_pixels(self, odd):
        assert f"{BAD_FILE}_any" in {name for name, _ in read_rows(odd / "stage_2_train.csv")}
        index = index_source(odd / "stage_2_train_images")
        short = [study for study in index.studies() if BAD_FILE in {header.sop_uid for header in study.series[0].headers}]
        scan = load_scan(choose_series(short[0]).series, training=True)
        assert len(scan.hu) == 7
        assert BAD_FILE not in scan.sop_uids

    def test_one_patient_has_another_matrix(self, odd):
        studies = index_source(odd / "stage_2_train_images").studies()
        assert sorted({header.rows for header in study.series[0].headers}.pop() for study in studies) == [60, 80, 80]

    @pytest.mark.parametrize("options", [{"image_folder": "train"}, {"test_patients": -1}])
    def test_options_out_of_range_are_refused(self, options, tmp_path):
        with pytest.raises(ConfigError, match="phantom_option_out_of_range"):
            write_phantom(SETTINGS, tmp_path / "new", layout=RsnaLayout(**options), workers=1)
        assert not (tmp_path / "new").exists()


def test_the_reader_gives_back_the_heads(folder):
    studies = index_source(folder).studies()
    heads = {head.patient_id: head for head in (make_head(SETTINGS, patient) for patient in range(SETTINGS.patients))}
    assert {study.patient_id for study in studies} == set(heads)
    for study in studies:
        scan, head = load_scan(choose_series(study).series), heads[study.patient_id]
        assert scan.sop_uids == head.sop_uids
        assert np.array_equal(scan.hu, head.hu)
