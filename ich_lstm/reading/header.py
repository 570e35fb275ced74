"""The header of one DICOM file: what anybody needs of it, and where its pixels lie."""

import math
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

from pydicom.filereader import read_dataset

from ich_lstm.errors import FileError
from ich_lstm.reading.container import DEFLATED, EXPLICIT_BIG, IMPLICIT_LITTLE, inflate, start_data_set
from ich_lstm.reading.sources import FileRef, unreadable

DEFER_BYTES = 1 << 16
"""Values above 64 KiB (thumbnails, private blobs) are passed over; none of them is asked for here."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceHeader:
    """What the library knows of one slice without its pixels. A field is None, or empty, where the file has none.

    Args:
        source: The file.
        sop_uid: SOP Instance UID (0008,0018).
        series_uid: Series Instance UID (0020,000E).
        study_uid: Study Instance UID (0020,000D).
        patient_id: Patient ID (0010,0020).
        modality: Modality (0008,0060).
        image_type: Image Type (0008,0008), upper case.
        sop_class_uid: SOP Class UID (0008,0016).
        transfer_syntax: Transfer Syntax UID (0002,0010).
        rows: Rows (0028,0010).
        columns: Columns (0028,0011).
        position: Image Position (Patient) (0020,0032) in mm, as many values as the file gives.
        orientation: Image Orientation (Patient) (0020,0037), as many values as the file gives.
        pixel_spacing: Pixel Spacing (0028,0030) in mm: between rows, between columns.
        instance_number: Instance Number (0020,0013).
        acquisition_number: Acquisition Number (0020,0012).
        acquisition_time: Acquisition Time (0008,0032) or Content Time (0008,0033), as text ``HHMMSS.f``.
        slice_location: Slice Location (0020,1041) in mm.
        series_number: Series Number (0020,0011).
        series_description: Series Description (0008,103E).
        study_description: Study Description (0008,1030).
        body_part: Body Part Examined (0018,0015), upper case.
        thickness: Slice Thickness (0018,0050) in mm.
        kernel: Convolution Kernel (0018,1210).
        contrast_agent: Contrast/Bolus Agent (0018,0010).
        tilt: Gantry/Detector Tilt (0018,1120) in degrees.
        slope: Rescale Slope (0028,1053).
        intercept: Rescale Intercept (0028,1052).
        bits_allocated: Bits Allocated (0028,0100).
        bits_stored: Bits Stored (0028,0101).
        pixel_representation: Pixel Representation (0028,0103): 0 unsigned, 1 signed.
        photometric: Photometric Interpretation (0028,0004).
        samples_per_pixel: Samples per Pixel (0028,0002).
        padding: Pixel Padding Value (0028,0120), a stored value.
        padding_limit: Pixel Padding Range Limit (0028,0121), a stored value.
        patient_position: Patient Position (0018,5100), for example ``HFS``.
        patient_age: Patient's Age (0010,1010), for example ``064Y``.
        kvp: KVP (0018,0060).
        lossy: Lossy Image Compression (0028,2110) is ``01``.
        burned_in: Burned In Annotation (0028,0301) is ``YES``.
        big_endian: Stored values are big endian.
        pixel_offset: Byte at which the pixel values begin (in a deflated file: after inflation, from the data set).
        pixel_length: Length of Pixel Data in bytes as the file claims it; 0xFFFFFFFF if encapsulated.
    """

    source: FileRef
    sop_uid: str = ""
    series_uid: str = ""
    study_uid: str = ""
    patient_id: str = ""
    modality: str = ""
    image_type: tuple[str, ...] = ()
    sop_class_uid: str = ""
    transfer_syntax: str = ""
    rows: int = 0
    columns: int = 0
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    pixel_spacing: tuple[float, ...] | None = None
    instance_number: int | None = None
    acquisition_number: int | None = None
    acquisition_time: str = ""
    slice_location: float | None = None
    series_number: int | None = None
    series_description: str = ""
    study_description: str = ""
    body_part: str = ""
    thickness: float | None = None
    kernel: str = ""
    contrast_agent: str = ""
    tilt: float | None = None
    slope: float | None = None
    intercept: float | None = None
    bits_allocated: int | None = None
    bits_stored: int | None = None
    pixel_representation: int | None = None
    photometric: str = ""
    samples_per_pixel: int | None = None
    padding: int | None = None
    padding_limit: int | None = None
    patient_position: str = ""
    patient_age: str = ""
    kvp: float | None = None
    lossy: bool = False
    burned_in: bool = False
    big_endian: bool = False
    pixel_offset: int = 0
    pixel_length: int = 0


def _text(value: bytes, little: bool) -> str:
    try:
        return value.decode().strip(" \0")
    except UnicodeDecodeError:
        return value.decode("latin-1").strip(" \0")


def _upper(value: bytes, little: bool) -> str:
    return _text(value, little).upper()


def _words(value: bytes, little: bool) -> tuple[str, ...]:
    return tuple(word.strip() for word in _text(value, little).upper().split("\\"))


def _floats(value: bytes, little: bool) -> tuple[float, ...]:
    try:
        return tuple([float(part) for part in value.strip(b" \0").split(b"\\")])
    except ValueError:
        return (math.nan,)


def _float(value: bytes, little: bool) -> float | None:
    values = _floats(value, little)
    return values[0] if len(values) == 1 else math.nan


def _integer_text(value: bytes, little: bool) -> int | None:
    try:
        number = int(value.strip(b" \0"))
    except ValueError:
        return None
    return number if abs(number) < 1 << 31 else None  # the bounds of VR IS (PS3.5, 6.2)


def _unsigned(value: bytes, little: bool) -> int:
    return int.from_bytes(value[:2], "little" if little else "big")


def _is_yes(value: bytes, little: bool) -> bool:
    return value.strip(b" \0") in (b"01", b"YES")


# Values are converted here, from the raw bytes that pydicom has cut out: its own conversion costs more than the
# parsing, and complains about every "ID_..." of RSNA's.
_FIELDS: tuple[tuple[str, int, Callable[[bytes, bool], Any]], ...] = (
    ("sop_uid", 0x00080018, _text),
    ("series_uid", 0x0020000E, _text),
    ("study_uid", 0x0020000D, _text),
    ("patient_id", 0x00100020, _text),
    ("modality", 0x00080060, _upper),
    ("image_type", 0x00080008, _words),
    ("sop_class_uid", 0x00080016, _text),
    ("rows", 0x00280010, _unsigned),
    ("columns", 0x00280011, _unsigned),
    ("position", 0x00200032, _floats),
    ("orientation", 0x00200037, _floats),
    ("pixel_spacing", 0x00280030, _floats),
    ("instance_number", 0x00200013, _integer_text),
    ("acquisition_number", 0x00200012, _integer_text),
    ("acquisition_time", 0x00080033, _text),
    ("acquisition_time", 0x00080032, _text),  # where both are there, this one stays
    ("slice_location", 0x00201041, _float),
    ("series_number", 0x00200011, _integer_text),
    ("series_description", 0x0008103E, _text),
    ("study_description", 0x00081030, _text),
    ("body_part", 0x00180015, _upper),
    ("thickness", 0x00180050, _float),
    ("kernel", 0x00181210, _text),
    ("contrast_agent", 0x00180010, _text),
    ("tilt", 0x00181120, _float),
    ("slope", 0x00281053, _float),
    ("intercept", 0x00281052, _float),
    ("bits_allocated", 0x00280100, _unsigned),
    ("bits_stored", 0x00280101, _unsigned),
    ("pixel_representation", 0x00280103, _unsigned),
    ("photometric", 0x00280004, _upper),
    ("samples_per_pixel", 0x00280002, _unsigned),
    ("padding", 0x00280120, _unsigned),
    ("padding_limit", 0x00280121, _unsigned),
    ("patient_position", 0x00185100, _upper),
    ("patient_age", 0x00101010, _upper),
    ("kvp", 0x00180060, _float),
    ("lossy", 0x00282110, _is_yes),
    ("burned_in", 0x00280301, _is_yes),
)
_FRAMES = 0x00280008
_PIXEL_DATA = 0x7FE00010
_FIRST_PIXEL_TAG = 0x7FE00008  # float pixel data; double is 0x7FE00009


class _PixelTag(NamedTuple):
    tag: int
    offset: int
    length: int


def read_header(ref: FileRef) -> SliceHeader:
    """Read one file up to its pixels.

    A file without preamble is read too, if it looks like DICOM.

    Raises:
        FileError: If the file is no single CT image; the code says why (``not_dicom``, ``dicomdir``, ``no_pixels``,
            ``not_ct``, ``multi_frame``, ``truncated_header``, ``unreadable`` and others).
    """
    with ref.open() as stream:
        try:
            # pydicom warns of harmless oddities of a file; they are ours to judge.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _parse(ref, stream)
        except FileError:
            raise
        except RecursionError as error:
            raise FileError("nested_too_deep", where=str(ref), got="sequences nested too deep to parse") from error
        except (zlib.error, zipfile.BadZipFile) as error:
            raise unreadable(ref, error) from error
        except Exception as error:  # pydicom lets many kinds escape from damaged files (struct, value, key, EOF ...)
            if isinstance(error, OSError) and error.errno is not None:  # the system's; pydicom's own have no number
                raise unreadable(ref, error) from error
            raise FileError(
                "truncated_header",
                where=str(ref),
                got=f"header cannot be parsed ({type(error).__name__})",
                expected="DICOM",
                todo="Export the file again.",
            ) from error


def _parse(ref: FileRef, stream: BinaryIO) -> SliceHeader:
    syntax = start_data_set(ref, stream)
    little = syntax != EXPLICIT_BIG
    if syntax == DEFLATED:
        stream = inflate(ref, stream)
    found: list[_PixelTag] = []

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if tag < _FIRST_PIXEL_TAG:
            return False
        if tag <= _PIXEL_DATA:
            found.append(_PixelTag(tag, stream.tell(), length))
        return True

    implicit = syntax == IMPLICIT_LITTLE
    elements: dict[int, Any] = dict(read_dataset(stream, implicit, little, stop_when=at_pixels, defer_size=DEFER_BYTES).items())
    values: dict[str, Any] = {}
    for name, tag, convert in _FIELDS:
        element = elements.get(tag)
        if element is not None and type(element.value) is bytes:
            values[name] = convert(element.value, little)
    _check_is_ct_image(ref, values, elements, found)
    if values.get("pixel_representation") == 1:
        for name in ("padding", "padding_limit"):
            if name in values and values[name] >= 0x8000:
                values[name] -= 0x10000
    return SliceHeader(
        source=ref,
        transfer_syntax=syntax,
        big_endian=not little,
        pixel_offset=found[0].offset,
        pixel_length=found[0].length,
        **values,
    )


def _check_is_ct_image(ref: FileRef, values: dict[str, Any], elements: dict[int, Any], found: list[_PixelTag]) -> None:
    where = str(ref)
    modality = values.get("modality", "")
    if not elements:
        raise FileError("truncated_header", where=where, got="no data elements", expected="DICOM", todo="Export the file again.")
    if modality not in ("CT", ""):
        raise FileError("not_ct", where=where, got=modality, expected="CT")
    if not found:
        if "rows" in values or not modality:
            raise FileError(
                "truncated_header",
                where=where,
                got="the file ends before its pixels",
                expected="Pixel Data (7FE0,0010)",
                todo="Export the file again.",
            )
        raise FileError("no_pixels", where=where, got="DICOM without image", expected="Pixel Data (7FE0,0010)")
    if not modality:
        raise FileError("not_ct", where=where, got="DICOM without modality", expected="CT")
    if "rows" not in values:
        raise FileError("no_pixels", where=where, got="no Rows (0028,0010)", expected="an image")
    if found[0].tag != _PIXEL_DATA:
        raise FileError("pixel_format", where=where, got="floating-point pixels", expected="16-bit integers")
    frames = elements.get(_FRAMES)
    if frames is not None and (_integer_text(frames.value or b"1", True) or 1) > 1:
        raise FileError(
            "multi_frame",
            where=where,
            got="several frames in one file",
            expected="one slice per file",
            todo="Export the study as classic CT images.",
        )
    if not values.get("series_uid"):
        raise FileError(
            "no_series_uid",
            where=where,
            got="no Series Instance UID (0020,000E)",
            expected="one for each slice",
            todo="Export the study again; slices without it cannot be put together safely.",
        )
