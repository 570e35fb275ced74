"""The values of the header that the library asks for, and how they are had from their bytes (PS3.5, 6.2)."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any


def _text(value: bytes, little: bool) -> str:
    try:
        return value.decode().strip(" \0")
    except UnicodeDecodeError:
        return value.decode("latin-1").strip(" \0")


def _upper(value: bytes, little: bool) -> str:
    return _text(value, little).upper()


def _date(value: bytes, little: bool) -> str:
    """VR DA, or the older form with points (PS3.5, 6.2); what is no date is left out."""
    parts = re.fullmatch(r"(\d{4})(\.?)(\d{2})\2(\d{2})", _text(value, little))
    return f"{parts[1]}-{parts[3]}-{parts[4]}" if parts else ""


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


def integer_text(value: bytes, little: bool) -> int | None:
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
FIELDS: tuple[tuple[str, int, Callable[[bytes, bool], Any]], ...] = (
    ("sop_uid", 0x00080018, _text),
    ("series_uid", 0x0020000E, _text),
    ("study_uid", 0x0020000D, _text),
    ("patient_id", 0x00100020, _text),
    ("accession_number", 0x00080050, _text),
    ("study_date", 0x00080020, _date),
    ("modality", 0x00080060, _upper),
    ("image_type", 0x00080008, _words),
    ("sop_class_uid", 0x00080016, _text),
    ("rows", 0x00280010, _unsigned),
    ("columns", 0x00280011, _unsigned),
    ("position", 0x00200032, _floats),
    ("orientation", 0x00200037, _floats),
    ("pixel_spacing", 0x00280030, _floats),
    ("instance_number", 0x00200013, integer_text),
    ("acquisition_number", 0x00200012, integer_text),
    ("acquisition_time", 0x00080033, _text),
    ("acquisition_time", 0x00080032, _text),  # where both are there, this one stays
    ("frame_of_reference", 0x00200052, _text),
    ("slice_location", 0x00201041, _float),
    ("series_number", 0x00200011, integer_text),
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


def convert_values(elements: Mapping[int, Any], little: bool) -> dict[str, Any]:
    """The fields of a :class:`~ich_lstm.reading.header.SliceHeader` that a data set has.

    Args:
        elements: Raw elements by tag, as pydicom cuts them out.
        little: Whether their numbers are little endian.
    """
    values: dict[str, Any] = {}
    for name, tag, convert in FIELDS:
        element = elements.get(tag)
        if element is not None and type(element.value) is bytes:
            values[name] = convert(element.value, little)
    if values.get("pixel_representation") == 1:
        for name in ("padding", "padding_limit"):
            if name in values and values[name] >= 0x8000:
                values[name] -= 0x10000
    return values
