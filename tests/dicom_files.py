"""Fabricate true DICOM on disk in one line."""

import warnings
from collections.abc import Callable, Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag
from pydicom.uid import UID, CTImageStorage, ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

AXIAL = (1, 0, 0, 0, 1, 0)
SIZE = 32
SPACING_MM = 6.0

# A volume in the patient (x to the left, y to the back, z to the head, in mm) -> HU
Anatomy = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]


def head(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """A skull around brain; a bright block on the patient's left, a dark one in front; HU grow to the head."""
    radius = np.sqrt((x / 70) ** 2 + (y / 85) ** 2)
    hu = np.full(np.broadcast(x, y, z).shape, -1000.0)
    hu[radius < 1] = 900
    inside = radius < 0.88
    hu[inside] = np.broadcast_to(30 + z / 10, hu.shape)[inside]
    hu[inside & (x > 20) & (x < 45) & (abs(y) < 15)] = 80
    hu[inside & (y < -30) & (y > -55) & (abs(x) < 15)] = 5
    return hu


def slice_hu(
    position: Sequence[float],
    orientation: Sequence[float] = AXIAL,
    size: int = SIZE,
    spacing: float = SPACING_MM,
    anatomy: Anatomy = head,
) -> np.ndarray:
    """What a scanner would record: the anatomy at the pixels of one slice, HU ``(size, size)``."""
    row, column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    steps = np.arange(size) * spacing
    points = np.asarray(position, float) + steps[None, :, None] * row + steps[:, None, None] * column
    return anatomy(points[..., 0], points[..., 1], points[..., 2])


def make_slice(
    path: Path,
    hu: np.ndarray | None = None,
    *,
    stored: np.ndarray | bytes | None = None,
    slope: float = 1.0,
    intercept: float = -1024.0,
    syntax: str = ExplicitVRLittleEndian,
    preamble: bool = True,
    **elements: Any,
) -> Path:
    """Write one CT slice.

    Args:
        path: The file; its folder is made.
        hu: Pixel values; by default a cut through :func:`head`.
        stored: What is written as Pixel Data instead, whatever the other arguments say.
        slope: Rescale Slope.
        intercept: Rescale Intercept.
        syntax: Transfer syntax; the pixels are written as they are.
        preamble: Begin with 128 bytes, DICM and the File Meta Information.
        **elements: DICOM elements by keyword; None leaves one out.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    arguments = {"hu": hu, "stored": stored, "slope": slope, "intercept": intercept, "syntax": syntax, "preamble": preamble}
    # Without a UID of its own each slice gets another one.
    key = _key(arguments | elements) if elements.get("SOPInstanceUID") else None
    content = _CONTENTS.get(key) if key is not None else None
    if content is None:
        content = _encode_slice(**arguments, elements=elements)
        if key is not None and len(_CONTENTS) < MOST_CONTENTS:
            _CONTENTS[key] = content
    path.write_bytes(content)
    return path


MOST_CONTENTS = 5000
"""As many encoded slices are kept, of some 3 kB each."""

_CONTENTS: dict[tuple[Any, ...], bytes] = {}
"""Encoded slices by their arguments: most tests write the same sound series around the slice that they are about."""


def _key(arguments: dict[str, Any]) -> tuple[Any, ...] | None:
    """Arguments as something to look them up by, types and order included; None where one is no plain value."""
    parts: list[Any] = []
    for name, value in arguments.items():
        if isinstance(value, np.ndarray):
            parts.append((name, value.dtype.str, value.shape, value.tobytes()))
        elif all(
            isinstance(one, str | int | float | bytes | None) for one in (value if isinstance(value, list | tuple) else [value])
        ):
            parts.append((name, repr(value)))
        else:
            return None
    return tuple(parts)


def _encode_slice(
    *,
    hu: np.ndarray | None,
    stored: np.ndarray | bytes | None,
    slope: float,
    intercept: float,
    syntax: str,
    preamble: bool,
    elements: dict[str, Any],
) -> bytes:
    """The file that :func:`make_slice` writes."""
    position = elements.get("ImagePositionPatient") or (-96, -96, 0)
    orientation = elements.get("ImageOrientationPatient") or AXIAL
    if hu is None:
        hu = slice_hu(_numbers(position, (-96, -96, 0)), _numbers(orientation, AXIAL))
    values: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": generate_uid(),
        "StudyInstanceUID": "1.2.3.100",
        "SeriesInstanceUID": "1.2.3.100.1",
        "PatientID": "SECRET-ID",
        "PatientName": "Secret^Name",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "ImagePositionPatient": list(position),
        "ImageOrientationPatient": list(orientation),
        "PixelSpacing": [SPACING_MM, SPACING_MM],
        "SliceThickness": 5,
        "SeriesDescription": "HEAD PLAIN",
        "SeriesNumber": 2,
        "PatientPosition": "HFS",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": hu.shape[0],
        "Columns": hu.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "RescaleSlope": slope,
        "RescaleIntercept": intercept,
    } | elements
    if stored is None:
        signed = values["PixelRepresentation"] == 1
        stored = np.rint((np.rint(hu) - intercept) / slope).astype(np.int16 if signed else np.uint16)
    pixels = stored if isinstance(stored, bytes) else stored.tobytes()
    uid = UID(syntax)
    values.setdefault("PixelData", encapsulate([pixels]) if uid.is_transfer_syntax and uid.is_compressed else pixels)
    file = BytesIO()
    with warnings.catch_warnings(), _without_validation():
        warnings.simplefilter("ignore")
        data_set = Dataset()
        for keyword, value in values.items():
            if value is not None:
                _set(data_set, keyword, value)
        if values["PixelData"] is not None:
            data_set["PixelData"].VR = "OW"
            data_set["PixelData"].is_undefined_length = uid.is_transfer_syntax and uid.is_encapsulated
        data_set.file_meta = FileMetaDataset()
        data_set.file_meta.TransferSyntaxUID = uid
        data_set.file_meta.MediaStorageSOPClassUID = values["SOPClassUID"] or CTImageStorage
        data_set.file_meta.MediaStorageSOPInstanceUID = values["SOPInstanceUID"] or generate_uid()
        implicit, little = syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian
        if not preamble:
            del data_set.file_meta
        standard = preamble and uid.is_transfer_syntax and not uid.is_private
        encoding = {} if standard else {"implicit_vr": implicit, "little_endian": little}
        data_set.save_as(file, enforce_file_format=preamble, **encoding)
    return file.getvalue()


def make_series(
    folder: Path,
    count: int = 8,
    *,
    step: float = 5.0,
    start: Sequence[float] = (-96, -96, -20),
    orientation: Sequence[float] = AXIAL,
    places: Iterable[float] | None = None,
    change: Callable[[int], dict[str, Any]] | None = None,
    **elements: Any,
) -> list[Path]:
    """Write a series into a folder.

    Args:
        folder: Where to; files are ``0.dcm`` and so on.
        count: Number of slices.
        step: Distance along the normal in mm.
        start: Position of the first.
        orientation: Direction cosines of all.
        places: Distances from the first along the normal, instead of ``count`` and ``step``.
        change: Elements (or arguments of :func:`make_slice`) of the i-th slice that differ.
        **elements: Elements of all slices, or arguments of :func:`make_slice`.
    """
    normal = np.cross(orientation[:3], orientation[3:])
    paths = []
    series_uid = elements.get("SeriesInstanceUID", "1.2.3.100.1")
    for i, place in enumerate(np.arange(count) * step if places is None else places):
        position = [f"{value:.6f}"[:16] for value in np.asarray(start, float) + place * normal]
        own: dict[str, Any] = {
            "ImagePositionPatient": position,
            "ImageOrientationPatient": [f"{value:.8f}" for value in orientation],
            "InstanceNumber": i + 1,
            "SOPInstanceUID": f"{series_uid}.{i + 1}",
        }
        paths.append(make_slice(folder / f"{i}.dcm", **(own | elements | (change(i) if change else {}))))
    return paths


def _numbers(values: Sequence[Any], otherwise: Sequence[float]) -> Sequence[float]:
    """The geometry of the picture, where the header's own is spoilt on purpose."""
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return otherwise
    return numbers if len(numbers) == len(otherwise) and np.isfinite(numbers).all() else otherwise


def _set(data_set: Dataset, keyword: str, value: Any) -> None:
    """Set an element; numbers that are given as text are written as they stand, whatever they say."""
    tag = Tag(keyword)
    value = list(value) if isinstance(value, tuple) else value
    texts = [value] if isinstance(value, str) else value
    if dictionary_VR(tag) in ("DS", "IS") and isinstance(texts, list) and all(isinstance(text, str) for text in texts):
        raw = "\\".join(texts).encode()
        raw += b" " * (len(raw) % 2)
        data_set[tag] = RawDataElement(tag, dictionary_VR(tag), len(raw), raw, 0, False, True)
    else:
        setattr(data_set, keyword, value)


class _without_validation:
    """Let pydicom write what no scanner should have written."""

    def __enter__(self) -> None:
        settings = pydicom.config.settings
        self._modes = settings.writing_validation_mode, settings.reading_validation_mode
        settings.writing_validation_mode = settings.reading_validation_mode = pydicom.config.IGNORE

    def __exit__(self, *args: object) -> None:
        settings = pydicom.config.settings
        settings.writing_validation_mode, settings.reading_validation_mode = self._modes
