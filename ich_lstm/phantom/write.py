"""A set of synthetic heads on disk, in the layout and with the DICOM fields of the RSNA 2019 training set."""

import json
import multiprocessing
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, CTImageStorage, ExplicitVRLittleEndian

from ich_lstm.errors import ConfigError
from ich_lstm.labels import LABELS
from ich_lstm.phantom.identifiers import file_uid
from ich_lstm.phantom.scan import PhantomScan, make_head
from ich_lstm.phantom.settings import PhantomSettings

IMAGE_FOLDER, LABEL_FILE, MARKER_FILE = "stage_2_train", "stage_2_train.csv", "phantom.json"

PHANTOM_VERSION = 1
"""Grows whenever the same settings give other bytes."""

SINGLE_WINDOW = ("40", "80")
TWO_WINDOWS = (["00040", "00600"], ["00080", "02800"])

IMPLEMENTATION_UID = UID("2.25.302043790172249692526321623266752743501")

Row = tuple[str, tuple[int, ...]]
"""A slice's identifier and its labels."""


def write_phantom(
    settings: PhantomSettings,
    folder: Path,
    *,
    workers: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write synthetic scans as ``stage_2_train/ID_<9 hex>.dcm`` and ``stage_2_train.csv``.

    The bytes depend on the settings alone, not on the number of workers. A folder that already holds this very set is
    left as it is.

    Args:
        settings: The set.
        folder: Where to write; made if missing, otherwise empty, or the same set whole or begun.
        workers: Processes; None takes one per core, 1 works in this process.
        progress: Called with the number of patients done since the last call.

    Returns:
        The folder.

    Raises:
        ConfigError: If the folder holds anything else, or ``workers`` is below 1.
    """
    folder = Path(folder)
    if workers is not None and workers < 1:
        raise ConfigError(
            "phantom_workers", where="workers", got=str(workers), expected="1 or more", todo="Choose another number."
        )
    marker: dict[str, object] = {"phantom_version": PHANTOM_VERSION, "settings": asdict(settings)}
    if _holds_same(folder, marker):
        if progress:
            progress(settings.patients)
        return folder
    images = folder / IMAGE_FOLDER
    images.mkdir(parents=True, exist_ok=True)
    _write_marker(folder, {**marker, "slices": None})
    rows: list[Row] = []
    for done in _each_patient(settings, images, workers):
        rows += done
        if progress:
            progress(1)
    _write_labels(folder / LABEL_FILE, rows)
    _write_marker(folder, {**marker, "slices": len(rows)})
    return folder


def _holds_same(folder: Path, marker: dict[str, object]) -> bool:
    """Whether the folder holds the same set, complete; raises if it holds anything but a part of it."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return False
    try:
        found = json.loads((folder / MARKER_FILE).read_text())
        slices = found.pop("slices")
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise _foreign(folder, "other files") from error
    if found != marker:
        raise _foreign(folder, "a phantom with other settings")
    # A set that was begun, or from which something was taken since, is written again.
    return slices is not None and (folder / LABEL_FILE).exists() and slices == len(list((folder / IMAGE_FOLDER).glob("*.dcm")))


def _foreign(folder: Path, got: str) -> ConfigError:
    return ConfigError(
        "phantom_folder_not_empty",
        where=str(folder),
        got=got,
        expected="an empty folder",
        todo="Name a new folder, or remove this one.",
    )


def _each_patient(settings: PhantomSettings, images: Path, workers: int | None) -> Iterable[list[Row]]:
    """Write every patient, and yield each one's rows as it is done."""
    workers = min(workers or os.cpu_count() or 1, settings.patients)
    if workers == 1:
        for patient in range(settings.patients):
            yield _write_patient(settings, patient, images)
        return
    # Spawned, not forked: a caller may hold threads and locks (torch, OpenMP) that do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, mp_context=context, initializer=_one_thread) as pool:
        jobs = [pool.submit(_write_patient, settings, patient, images) for patient in range(settings.patients)]
        try:
            for job in as_completed(jobs):
                yield job.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _one_thread() -> None:
    """Keep a worker to its own core."""
    import cv2

    cv2.setNumThreads(1)


def _write_patient(settings: PhantomSettings, patient: int, images: Path) -> list[Row]:
    scan = make_head(settings, patient)
    stored = scan.storage.encode(scan.hu, scan.acquisition.outside_circle() if scan.acquisition.padded else None)
    for i, uid in enumerate(scan.sop_uids):
        # RSNA's identifiers are no valid UIDs, of which pydicom would warn for every file.
        with pydicom.config.disable_value_validation():
            dataset = _slice_dataset(scan, i, stored[i])
            dataset.file_meta = _file_meta(file_uid(settings.seed, patient, i))
            # Enforcing the file format would copy the data set's UID into the file-meta group; RSNA's two differ.
            dataset.preamble = b"\0" * 128
            dataset.save_as(images / f"{uid}.dcm", enforce_file_format=False)
    return [(uid, tuple(map(int, labels))) for uid, labels in zip(scan.sop_uids, scan.slice_labels, strict=True)]


def _slice_dataset(scan: PhantomScan, index: int, stored: np.ndarray) -> Dataset:
    """One slice with RSNA's fields, and no others."""
    storage, acquisition = scan.storage, scan.acquisition
    dataset = Dataset()
    dataset.SOPInstanceUID = scan.sop_uids[index]
    dataset.Modality = "CT"
    dataset.PatientID = scan.patient_id
    dataset.StudyInstanceUID = scan.study_uid
    dataset.SeriesInstanceUID = scan.series_uid
    dataset.StudyID = ""
    dataset.ImagePositionPatient = [_decimal(v) for v in acquisition.image_position(index)]
    directions = (*acquisition.row_direction, *acquisition.column_direction)
    dataset.ImageOrientationPatient = [_decimal(v) for v in directions]
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = stored.shape
    dataset.PixelSpacing = [_decimal(acquisition.pixel_mm)] * 2
    dataset.BitsAllocated = 16
    dataset.BitsStored = storage.bits_stored
    dataset.HighBit = storage.bits_stored - 1
    dataset.PixelRepresentation = int(storage.signed)
    dataset.WindowCenter, dataset.WindowWidth = TWO_WINDOWS if storage.two_windows else SINGLE_WINDOW
    dataset.RescaleIntercept = str(storage.intercept)
    dataset.RescaleSlope = "1"
    dataset.add_new("PixelData", "OW", stored.astype(stored.dtype.newbyteorder("<")).tobytes())
    return dataset


def _file_meta(uid: str) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.FileMetaInformationGroupLength = 0  # pydicom puts the true length here when it writes
    meta.FileMetaInformationVersion = b"\0\1"
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = UID(uid)
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationVersionName = "ICH_LSTM"
    meta.ImplementationClassUID = IMPLEMENTATION_UID
    return meta


def _decimal(value: float) -> str:
    """A decimal string (VR DS) of at most 16 characters."""
    return f"{value + 0.0:.6f}"


def _write_labels(path: Path, rows: list[Row]) -> None:
    """Write the label table in RSNA's order of labels; sorted, so that no order of work shows."""
    lines = ["ID,Label"]
    for uid, labels in sorted(rows):
        lines += [f"{uid}_{name},{label}" for name, label in zip(LABELS, labels, strict=True)]
    path.write_text("\n".join(lines) + "\n", encoding="ascii", newline="\n")


def _write_marker(folder: Path, marker: dict[str, object]) -> None:
    # Renamed into place, so that a kill leaves no half marker.
    aside = folder / f"{MARKER_FILE}.part"
    aside.write_text(json.dumps(marker, indent=2, sort_keys=True) + "\n", encoding="ascii")
    aside.replace(folder / MARKER_FILE)
