"""Writes synthetic slices as DICOM, with the attributes that a scanner writes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from ich_lstm.phantom.anatomy.shapes import Array
from ich_lstm.phantom.scan import PhantomScan
from ich_lstm.phantom.scanner.acquisition import Acquisition
from ich_lstm.phantom.scanner.storage import PADDING_STORED, Storage

IMPLEMENTATION_UID = UID("2.25.302043790172249692526321623266752743501")

SCANNER_STORAGE = Storage("signed", -1024, two_windows=False)
"""16 bits with a padding value, as most scanners write."""

KERNEL_NAMES = {"soft": "STANDARD", "bone": "BONEPLUS"}
"""Convolution Kernel (0018,1210), in the terms of one vendor."""

CONTRAST_AGENT = "IOHEXOL 300"

SAGITTAL = ("0", "1", "0", "0", "0", "-1")
"""Orientation of the lateral scout: rows run to the back, columns to the feet."""


@dataclass(frozen=True, kw_only=True)
class Examination:
    """What all files of one study share.

    Args:
        patient_id: Patient ID (0010,0020), which is also the Patient's Name.
        study_uid: Study Instance UID (0020,000D).
        frame_uid: Frame of Reference UID (0020,0052): one acquisition's coordinates.
        date: Study Date (0008,0020), YYYYMMDD.
        time: Study Time (0008,0030), HHMMSS.
        accession_number: Accession Number (0008,0050).
        age: Patient's Age (0010,1010), such as 064Y.
        sex: Patient's Sex (0010,0040), F or M.
    """

    patient_id: str
    study_uid: str
    frame_uid: str
    date: str
    time: str
    accession_number: str
    age: str
    sex: str


@dataclass(frozen=True, kw_only=True)
class SeriesFacts:
    """What all files of one series share.

    Args:
        uid: Series Instance UID (0020,000E).
        number: Series Number (0020,0011).
        description: Series Description (0008,103E).
    """

    uid: str
    number: int
    description: str


def series_files(scan: PhantomScan, examination: Examination, series: SeriesFacts, sop_uids: Sequence[str]) -> Iterator[bytes]:
    """Yield the slices of a scan as DICOM files with full headers, inferior to superior."""
    acquisition = scan.acquisition
    stored = SCANNER_STORAGE.encode(scan.hu, acquisition.outside_circle() if acquisition.padded else None)
    for i, sop_uid in enumerate(sop_uids):
        dataset = _general(examination, series, sop_uid, i + 1, ("ORIGINAL", "PRIMARY", "AXIAL"))
        if scan.reconstruction.contrast:
            dataset.ContrastBolusAgent = CONTRAST_AGENT
        dataset.SliceThickness = decimal(acquisition.spacing_mm)
        dataset.GantryDetectorTilt = decimal(acquisition.tilt_degrees)
        dataset.ConvolutionKernel = KERNEL_NAMES[scan.reconstruction.kernel]
        _add_plane(dataset, acquisition, i)
        if acquisition.padded:
            dataset.add_new("PixelPaddingValue", "SS", PADDING_STORED)
        dataset.WindowCenter, dataset.WindowWidth = "40", "80"
        add_pixels(dataset, SCANNER_STORAGE, stored[i])
        dataset.RescaleType = "HU"
        yield file_bytes(dataset)


def localizer_file(picture: Array, pixel_mm: float, examination: Examination, series: SeriesFacts, sop_uid: str) -> bytes:
    """A lateral scout view, int16 ``(h, w)`` HU, as a DICOM file."""
    dataset = _general(examination, series, sop_uid, 1, ("ORIGINAL", "PRIMARY", "LOCALIZER"))
    half = (len(picture) - 1) / 2 * pixel_mm
    dataset.ImagePositionPatient = [decimal(v) for v in (0.0, -half, half)]
    dataset.ImageOrientationPatient = list(SAGITTAL)
    dataset.PixelSpacing = [decimal(pixel_mm)] * 2
    dataset.WindowCenter, dataset.WindowWidth = "50", "400"
    add_pixels(dataset, SCANNER_STORAGE, SCANNER_STORAGE.encode(np.maximum(picture, SCANNER_STORAGE.floor_hu)))
    dataset.RescaleType = "HU"
    return file_bytes(dataset)


def _general(examination: Examination, series: SeriesFacts, sop_uid: str, instance: int, image_type: tuple[str, ...]) -> Dataset:
    """The modules patient, study, series, frame of reference, equipment and general image (PS3.3 A.3)."""
    dataset = common(examination, series, "CT", CTImageStorage, sop_uid)
    dataset.ImageType = list(image_type)
    dataset.AcquisitionDate = dataset.ContentDate = examination.date
    dataset.AcquisitionTime = dataset.ContentTime = examination.time
    dataset.BodyPartExamined = "HEAD"
    dataset.KVP = "120"
    dataset.PatientPosition = "HFS"
    dataset.AcquisitionNumber = "1"
    dataset.InstanceNumber = str(instance)
    dataset.FrameOfReferenceUID = examination.frame_uid
    dataset.PositionReferenceIndicator = ""
    return dataset


def common(examination: Examination, series: SeriesFacts, modality: str, sop_class: UID, sop_uid: str) -> Dataset:
    """The attributes that every object of a study has, image or not."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.SOPClassUID = sop_class
    dataset.SOPInstanceUID = sop_uid
    dataset.StudyDate = dataset.SeriesDate = examination.date
    dataset.StudyTime = dataset.SeriesTime = examination.time
    dataset.AccessionNumber = examination.accession_number
    dataset.Modality = modality
    dataset.Manufacturer = "ICH_LSTM"
    dataset.ManufacturerModelName = "PHANTOM"
    dataset.StudyDescription = "CT HEAD"
    dataset.SeriesDescription = series.description
    dataset.PatientName = dataset.PatientID = examination.patient_id
    dataset.PatientBirthDate = ""
    dataset.PatientSex = examination.sex
    dataset.PatientAge = examination.age
    dataset.ReferringPhysicianName = ""
    dataset.StudyInstanceUID = examination.study_uid
    dataset.SeriesInstanceUID = series.uid
    dataset.StudyID = examination.accession_number[-8:]
    dataset.SeriesNumber = str(series.number)
    return dataset


def _add_plane(dataset: Dataset, acquisition: Acquisition, index: int) -> None:
    position = acquisition.image_position(index)
    dataset.ImagePositionPatient = [decimal(v) for v in position]
    dataset.ImageOrientationPatient = [decimal(v) for v in (*acquisition.row_direction, *acquisition.column_direction)]
    dataset.SliceLocation = decimal(float(position[2]))
    dataset.PixelSpacing = [decimal(acquisition.pixel_mm)] * 2


def add_pixels(dataset: Dataset, storage: Storage, stored: np.ndarray) -> None:
    """Add stored values ``(h, w)`` and the attributes that describe them."""
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.BitsAllocated = 16
    dataset.BitsStored = storage.bits_stored
    dataset.HighBit = storage.bits_stored - 1
    dataset.PixelRepresentation = int(storage.signed)
    dataset.RescaleIntercept = str(storage.intercept)
    dataset.RescaleSlope = "1"
    dataset.add_new("PixelData", "OW", stored.astype(stored.dtype.newbyteorder("<")).tobytes())


def file_meta(sop_uid: str, sop_class: UID = CTImageStorage) -> FileMetaDataset:
    """The file-meta group (PS3.10 7.1)."""
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0  # pydicom puts the true length here when it writes
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = sop_class
    meta.MediaStorageSOPInstanceUID = UID(sop_uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationVersionName = "ICH_LSTM"
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    return meta


def file_bytes(dataset: Dataset) -> bytes:
    """A data set as a DICOM file."""
    dataset.file_meta = file_meta(dataset.SOPInstanceUID, dataset.SOPClassUID)
    buffer = BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def decimal(value: float) -> str:
    """A decimal string (VR DS) of at most 16 characters."""
    return f"{value + 0.0:.6f}"
