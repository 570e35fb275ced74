"""PHE-SICH-CT-IDS as DICOM: real head CT with intracerebral hemorrhage (Ma et al. 2023, arXiv 2308.10521), out of 8-bit arrays.

The set is published for non-commercial use: nothing of it, and no weights trained on it, belongs into the project.

The folder has a file ``PPPP.npz`` for each patient, with ``gray`` uint8 ``(n, h, w)`` (the lowest slice first, nose up) and
``slice``, the consecutive numbers of the slices ``(n,)``; and ``labels.csv`` with the columns ``patient_id``, ``slice`` and
``intraparenchymal`` (1, 0, or empty: unknown).

What is exact: HU from -20 to 100, because the 8 bits hold a window of level 40 and width 120.

What is invented, because the set does not have it:

- Air: 0 that is connected to the border of the image becomes -1000 HU. Without air around it the library would not recognize a
  head, nor crop to it. All other 0 (fat, sinuses) stay at -20 HU; fat below a broken line of skin becomes air.
- Bone: connected pieces of 255 that are large enough become 800 HU, for the same reason. Specks stay at 100 HU.
- Geometry: `FIELD_MM` and `SLICE_MM`, which are usual for a head; patients with more than `MOST_THICK` slices would be more
  than 200 mm high and get half the distance.
- Identifiers: UIDs are hashes of patient and slice. The Patient ID is the set's own number.

So windows should lie within -20 to 100 HU, where they show only what is exact. Everything but "intraparenchymal" is unknown.
Labels derive from boxes and masks of the edema around the bleeding: the first and last slices of a bleeding may be called
negative.
"""

import hashlib
import os
import shutil
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from ich_lstm.files.atomic_write import write_text

GREYS, LOWEST_HU, HIGHEST_HU = 255, -20, 100
AIR_HU, BONE_HU = -1000, 800

BONE_PIXELS = 40
"""Fewest pixels of a piece of bone, 32 mm². Smaller pieces may be calcifications."""

FIELD_MM, SLICE_MM = 230.4, 5.0
"""Width of the image, which gives pixels of 0.9 mm, and distance of slices."""

MOST_THICK = 40

LABELS_FILE = "labels.csv"
LABEL = "intraparenchymal"


def to_hu(gray: np.ndarray) -> np.ndarray:
    """HU of a scan, with air and bone put back.

    Args:
        gray: Gray levels, uint8 ``(n, h, w)``.

    Returns:
        HU, int16 ``(n, h, w)``, rounded to 1.
    """
    hu = np.rint(LOWEST_HU + gray * ((HIGHEST_HU - LOWEST_HU) / GREYS)).astype(np.int16)
    for image, values in zip(hu, gray, strict=True):
        image[_outside(values == 0)] = AIR_HU
        image[_large_pieces(values == GREYS)] = BONE_HU
    return hu


def _outside(empty: np.ndarray) -> np.ndarray:
    """The empty pixels that are connected to the border of the image, bool ``(h, w)``."""
    # A frame of empty pixels makes one region of all that touches the border.
    _, regions = cv2.connectedComponents(np.pad(empty, 1, constant_values=True).astype(np.uint8), connectivity=4)
    return regions[1:-1, 1:-1] == regions[0, 0]


def _large_pieces(bone: np.ndarray) -> np.ndarray:
    """The pieces of bone that are large enough, bool ``(h, w)``."""
    _, pieces, statistics, _ = cv2.connectedComponentsWithStats(bone.astype(np.uint8), connectivity=8)
    return bone & (statistics[:, cv2.CC_STAT_AREA] >= BONE_PIXELS)[pieces]


def uid_of(*place: object) -> str:
    """A UID (PS3.5 B.2) that is a hash of a place in the set.

    Example:
        >>> uid_of("0001", "slice", 3) == uid_of("0001", "slice", 3) != uid_of("0001", "slice", 4)
        True
    """
    digest = hashlib.sha256("/".join(map(str, ("phe_sich", *place))).encode()).digest()
    return f"2.25.{int.from_bytes(digest[:15], 'big')}"


def write_series(gray: np.ndarray, numbers: np.ndarray, patient: str, folder: Path) -> None:
    """Write a scan as a CT series.

    Args:
        gray: Gray levels, uint8 ``(n, h, w)``, inferior to superior, nose up.
        numbers: The set's numbers of the slices, ``(n,)``.
        patient: The set's number of the patient, which becomes the Patient ID.
        folder: Folder for the files, which appears as a whole.
    """
    unfinished = folder.with_name(f"{folder.name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    unfinished.mkdir(parents=True)
    step = SLICE_MM if len(gray) <= MOST_THICK else SLICE_MM / 2
    for number, image in zip(numbers.tolist(), to_hu(gray), strict=True):
        _slice(image, patient, number, step).save_as(unfinished / f"{number:03d}.dcm", enforce_file_format=True)
    os.replace(unfinished, folder)


def _slice(hu: np.ndarray, patient: str, number: int, step: float) -> Dataset:
    """A slice of HU, int16 ``(h, w)``, as a CT image (PS3.3 A.3)."""
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, uid_of(patient, "slice", number)
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid_of(patient, "study"), uid_of(patient, "series")
    dataset.FrameOfReferenceUID = uid_of(patient, "frame")
    dataset.PatientID = dataset.PatientName = patient
    dataset.Modality, dataset.BodyPartExamined, dataset.PatientPosition = "CT", "HEAD", "HFS"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.StudyDescription, dataset.SeriesDescription = "CT HEAD", "HEAD PLAIN"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, number + 1
    pixel = round(FIELD_MM / hu.shape[1], 6)
    half = round(pixel * (hu.shape[1] - 1) / 2, 6)
    dataset.ImagePositionPatient = [-half, -half, number * step]
    dataset.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    dataset.PixelSpacing, dataset.SliceThickness = [pixel, pixel], step
    dataset.Rows, dataset.Columns = hu.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "HU"
    dataset.WindowCenter, dataset.WindowWidth = 40, 120
    dataset.add_new("PixelData", "OW", hu.astype("<i2").tobytes())
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = CTImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def convert(source: Path, out: Path) -> tuple[Path, Path]:
    """Write all patients as DICOM, with a table of labels as of a hospital's own; series that exist are not written again.

    Args:
        source: The folder of the set.
        out: Folder for the results.

    Returns:
        The folder of the series, and the table: ``sop_uid`` and ``intraparenchymal``.

    Raises:
        FileNotFoundError: If there is no label table, or no patient.
        ValueError: If an array is not of 8-bit images, or its slices are not those of the table.
    """
    labels = pd.read_csv(source / LABELS_FILE, dtype={"patient_id": str, LABEL: "Int8"})
    files = sorted(source.glob("*.npz"))
    if not files:
        raise FileNotFoundError(f"{source}: no .npz, expected one for each patient")
    dicom = out / "dicom"
    for path in files:
        if (dicom / path.stem).is_dir():
            continue
        with np.load(path, allow_pickle=False) as content:
            gray, numbers = content["gray"], content["slice"]
        named = labels.loc[labels["patient_id"] == path.stem, "slice"].to_numpy()
        if gray.dtype != np.uint8 or gray.ndim != 3 or len(numbers) != len(gray) or (np.diff(numbers) != 1).any():
            got = f"{gray.dtype} {gray.shape}, slices {numbers.tolist()}"
            raise ValueError(f"{path.name}: got {got}, expected uint8 (n, h, w), and n consecutive numbers")
        if not np.array_equal(np.sort(named), numbers):
            raise ValueError(f"{path.name}: got {len(named)} rows in {LABELS_FILE}, expected one for each of {len(gray)} slices")
        write_series(gray, numbers, path.stem, dicom / path.stem)
    here = labels[labels["patient_id"].isin([path.stem for path in files])]
    uids = [uid_of(patient, "slice", number) for patient, number in zip(here["patient_id"], here["slice"], strict=True)]
    table = out / LABELS_FILE
    write_text(table, here.assign(sop_uid=uids)[["sop_uid", LABEL]].to_csv(index=False))
    return dicom, table
