"""Heads in the layout of the RSNA 2019 data set, with its DICOM attributes and its irregularities."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pydicom
from pydicom.dataset import Dataset

from ich_lstm.files.atomic_write import atomic_write, write_bytes
from ich_lstm.labels import LABELS
from ich_lstm.phantom.checks import OPTION
from ich_lstm.phantom.draws import chance
from ich_lstm.phantom.identifiers import file_uid
from ich_lstm.phantom.layouts.layout import Layout, write_lines
from ich_lstm.phantom.layouts.masks import write_masks
from ich_lstm.phantom.scan import PhantomScan, make_head
from ich_lstm.phantom.scanner.dicom import add_pixels, decimal, file_meta
from ich_lstm.phantom.settings import MIN_SIZE, PhantomSettings

SUBMISSION_FILE = "stage_2_sample_submission.csv"
SUBMISSION_PROBABILITY = "0.5"

REPEATED_IMAGES = 4
"""Number of images that are repeated in RSNA's label table, which makes 24 rows."""

TRUNCATED_IMAGE = "ID_6431af929"
"""The file of RSNA whose pixel data is truncated; it has labels."""

TRUNCATED_PATIENT = 0
TRUNCATED_SHARE = 0.3
"""Share of the pixel data that the truncated file holds."""

OTHER_MATRIX_PATIENT = 1
OTHER_MATRIX_SHARE = 0.75
"""Image size of the patient with another matrix, as a share of the others' image size."""

SINGLE_WINDOW = ("40", "80")
TWO_WINDOWS = (["00040", "00600"], ["00080", "02800"])

Row = tuple[str, tuple[int, ...]]
"""Identifier and labels of a slice."""


@dataclass(frozen=True, kw_only=True)
class RsnaLayout(Layout[list[Row]]):
    """``stage_2_train/ID_<9 hex>.dcm`` and ``stage_2_train.csv``, and a test set with its sample submission.

    ``settings.patients`` is the size of the training set; patients of the test set have the numbers after that. As in RSNA's
    data set, the test set has no labels.

    Args:
        image_folder: Folder of the training images; the name of the test images' folder follows from it.
        test_patients: Number of patients in the test set; 0 writes neither test images nor sample submission.
        repeated_rows: Whether four images are repeated in the label table, which adds 24 rows.
        truncated_file: Whether the file in the middle of patient 0 is called ``ID_6431af929`` and is truncated.
        other_matrix: Whether the images of patient 1 differ in size from all others.
    """

    name: ClassVar[str] = "rsna"
    labels: ClassVar[str] = "stage_2_train.csv"
    contents: ClassVar[tuple[str, ...]] = ("stage_2_*/*.dcm", "stage_2_*.csv")

    image_folder: Literal["stage_2_train", "stage_2_train_images"] = "stage_2_train"
    test_patients: int = 0
    repeated_rows: bool = False
    truncated_file: bool = False
    other_matrix: bool = False

    def check(self, settings: PhantomSettings) -> None:
        """Refuse options that are out of range."""
        OPTION.choice("image_folder", self.image_folder, ("stage_2_train", "stage_2_train_images"))
        OPTION.whole("test_patients", self.test_patients)

    def patients(self, settings: PhantomSettings) -> int:
        """Number of patients in training and test set together."""
        return settings.patients + self.test_patients

    def write_patient(self, settings: PhantomSettings, patient: int, folder: Path) -> list[Row]:
        """Write one scan as flat files and return the identifiers and labels of its slices."""
        if self.other_matrix and patient == OTHER_MATRIX_PATIENT:
            settings = replace(settings, size=max(MIN_SIZE, int(settings.size * OTHER_MATRIX_SHARE)))
        scan = make_head(settings, patient)
        truncated = self.truncated_file and patient == TRUNCATED_PATIENT
        if truncated:
            names = list(scan.sop_uids)
            names[len(names) // 2] = TRUNCATED_IMAGE
            scan = replace(scan, sop_uids=tuple(names))
        training = patient < settings.patients
        images = folder / (self.image_folder if training else self.image_folder.replace("train", "test"))
        images.mkdir(exist_ok=True)
        _write_images(scan, [file_uid(settings.seed, patient, i) for i in range(len(scan.sop_uids))], images)
        if truncated:
            _cut(images / f"{TRUNCATED_IMAGE}.dcm")
        if settings.masks:
            write_masks(scan, scan.series_uid, folder)
        return [(uid, tuple(map(int, labels))) for uid, labels in zip(scan.sop_uids, scan.slice_labels, strict=True)]

    def write_tables(self, settings: PhantomSettings, folder: Path, records: Sequence[list[Row]]) -> None:
        """Write the label table in the order of the file names, and the sample submission in random order."""
        rows = sorted(row for record in records[: settings.patients] for row in record)
        if self.repeated_rows:
            rows += sorted(rows, key=lambda row: chance(settings.seed, "repeated", row[0]))[:REPEATED_IMAGES]
        lines = (f"{uid}_{name},{label}" for uid, labels in rows for name, label in zip(LABELS, labels, strict=True))
        write_lines(folder / self.labels, ["ID,Label", *lines])
        if self.test_patients:
            uids = [uid for record in records[settings.patients :] for uid, _ in record]
            uids.sort(key=lambda uid: chance(settings.seed, "submission", uid))
            write_lines(folder / SUBMISSION_FILE, ["ID,Label", *_sample_rows(uids)])


def _sample_rows(uids: Iterable[str]) -> Iterable[str]:
    return (f"{uid}_{name},{SUBMISSION_PROBABILITY}" for uid in uids for name in LABELS)


def _write_images(scan: PhantomScan, file_uids: Sequence[str], images: Path) -> None:
    stored = scan.storage.encode(scan.hu, scan.acquisition.outside_circle() if scan.acquisition.padded else None)
    for i, uid in enumerate(scan.sop_uids):
        # RSNA's identifiers are not valid UIDs; pydicom would warn about every file.
        with pydicom.config.disable_value_validation():
            dataset = _slice_dataset(scan, i, stored[i])
            dataset.file_meta = file_meta(file_uids[i])
            # Enforcing the file format would copy the data set's UID into the file-meta group; in RSNA's files the two differ.
            dataset.preamble = b"\0" * 128
            with atomic_write(images / f"{uid}.dcm", durable=False) as unfinished:
                dataset.save_as(unfinished, enforce_file_format=False)


def _cut(path: Path) -> None:
    """Truncate a file within its pixel data, which is its last element."""
    with pydicom.config.disable_value_validation():
        pixels = len(pydicom.dcmread(path).PixelData)
    whole = path.read_bytes()
    write_bytes(path, whole[: len(whole) - pixels + int(pixels * TRUNCATED_SHARE)], durable=False)


def _slice_dataset(scan: PhantomScan, index: int, stored: np.ndarray) -> Dataset:
    """The data set of one slice, with the attributes of RSNA's files and no others."""
    storage, acquisition = scan.storage, scan.acquisition
    dataset = Dataset()
    dataset.SOPInstanceUID = scan.sop_uids[index]
    dataset.Modality = "CT"
    dataset.PatientID = scan.patient_id
    dataset.StudyInstanceUID = scan.study_uid
    dataset.SeriesInstanceUID = scan.series_uid
    dataset.StudyID = ""
    dataset.ImagePositionPatient = [decimal(v) for v in acquisition.image_position(index)]
    directions = (*acquisition.row_direction, *acquisition.column_direction)
    dataset.ImageOrientationPatient = [decimal(v) for v in directions]
    dataset.PixelSpacing = [decimal(acquisition.pixel_mm)] * 2
    dataset.WindowCenter, dataset.WindowWidth = TWO_WINDOWS if storage.two_windows else SINGLE_WINDOW
    add_pixels(dataset, storage, stored)
    return dataset
