"""The header values that the library uses, and their decoding from bytes (PS3.5, 6.2)."""

import math
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any

from ich_lstm.reading.header.age import age_in_years
from ich_lstm.reading.terms.charset import decode_text
from ich_lstm.reading.terms.contrast import contrast_evidence


def _text(value: bytes, little: bool) -> str:
    try:
        return value.decode().strip(" \0")
    except UnicodeDecodeError:
        return value.decode("latin-1").strip(" \0")


def _upper(value: bytes, little: bool) -> str:
    return _text(value, little).upper()


def _date(value: bytes, little: bool) -> str:
    """VR DA, or the older form with points (PS3.5, 6.2); empty if the value is not a date."""
    parts = re.fullmatch(r"(\d{4})(\.?)(\d{2})\2(\d{2})", _text(value, little))
    return f"{parts[1]}-{parts[3]}-{parts[4]}" if parts else ""


@lru_cache(maxsize=256)  # files of one study are usually read one after the other
def _name_digest(value: bytes, little: bool) -> str:
    """VR PN: a digest of the first component group with text, without the padding blanks and carets (PS3.5, 6.2.1)."""
    for group in _text(value, little).split("="):
        if parts := group.replace("^", " ").split():
            return blake2b(" ".join(parts).casefold().encode(), digest_size=8).hexdigest()
    return ""


@lru_cache(maxsize=256)  # files of one study are usually read one after the other
def _birth_digest(value: bytes, little: bool) -> str:
    """VR DA: a digest of the date, which serves to distinguish two patients; empty if the value is not a date."""
    date = _date(value, little)
    return blake2b(date.encode(), digest_size=8).hexdigest() if date else ""


def _split_values(value: bytes, little: bool) -> tuple[str, ...]:
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
    """VR IS: the number; None if it is malformed or out of range."""
    try:
        number = int(value.strip(b" \0"))
    except ValueError:
        return None
    return number if abs(number) < 1 << 31 else None  # the bounds of VR IS (PS3.5, 6.2)


def _unsigned(value: bytes, little: bool) -> int:
    return int.from_bytes(value[:2], "little" if little else "big")


def _is_yes(value: bytes, little: bool) -> bool:
    return value.strip(b" \0") in (b"01", b"YES")


# Values are converted here, from the raw bytes that pydicom extracts: pydicom's own conversion takes longer than parsing,
# and warns about every "ID_..." identifier of RSNA's files.
FIELDS: tuple[tuple[str, int, Callable[[bytes, bool], Any]], ...] = (
    ("sop_uid", 0x00080018, _text),
    ("series_uid", 0x0020000E, _text),
    ("study_uid", 0x0020000D, _text),
    ("patient_id", 0x00100020, _text),
    ("issuer", 0x00100021, _text),
    ("name_digest", 0x00100010, _name_digest),
    ("birth_digest", 0x00100030, _birth_digest),
    ("sex", 0x00100040, _upper),
    ("accession_number", 0x00080050, _text),
    ("study_date", 0x00080020, _date),
    ("modality", 0x00080060, _upper),
    ("image_type", 0x00080008, _split_values),
    ("sop_class_uid", 0x00080016, _text),
    ("rows", 0x00280010, _unsigned),
    ("columns", 0x00280011, _unsigned),
    ("position", 0x00200032, _floats),
    ("orientation", 0x00200037, _floats),
    ("pixel_spacing", 0x00280030, _floats),
    ("instance_number", 0x00200013, integer_text),
    ("acquisition_number", 0x00200012, integer_text),
    ("acquisition_time", 0x00080033, _text),
    ("acquisition_time", 0x00080032, _text),  # replaces Content Time if both are present
    ("frame_of_reference", 0x00200052, _text),
    ("slice_location", 0x00201041, _float),
    ("series_number", 0x00200011, integer_text),
    ("thickness", 0x00180050, _float),
    ("tilt", 0x00181120, _float),
    ("slope", 0x00281053, _float),
    ("intercept", 0x00281052, _float),
    ("rescale_type", 0x00281054, _upper),
    ("bits_allocated", 0x00280100, _unsigned),
    ("bits_stored", 0x00280101, _unsigned),
    ("pixel_representation", 0x00280103, _unsigned),
    ("photometric", 0x00280004, _upper),
    ("samples_per_pixel", 0x00280002, _unsigned),
    ("padding", 0x00280120, _unsigned),
    ("padding_limit", 0x00280121, _unsigned),
    ("patient_position", 0x00185100, _upper),
    ("kvp", 0x00180060, _float),
    ("lossy", 0x00282110, _is_yes),
    ("burned_in", 0x00280301, _is_yes),
)

TEXTS: tuple[tuple[str, int], ...] = (
    ("series_description", 0x0008103E),
    ("study_description", 0x00081030),
    ("body_part", 0x00180015),
    ("kernel", 0x00181210),
    ("manufacturer", 0x00080070),
    ("contrast_agent", 0x00180010),
)
"""Fields whose text determines the choice of series, and the maker; they are decoded by Specific Character Set (0008,0005)."""

_CHARACTER_SET = 0x00080005
_AGE, _BIRTH_DATE = 0x00101010, 0x00100030
_DATES = (0x00080020, 0x00080022, 0x00080023, 0x00080021)
"""Study, Acquisition, Content and Series Date: the first that is present is used."""


def _plain_text(elements: Mapping[int, Any], tag: int) -> str:
    """The text of an element in ASCII; other bytes become replacement characters."""
    element = elements.get(tag)
    if element is None or element.value is None:
        return ""
    value = element.value
    if isinstance(value, bytes):
        return value.decode("ascii", errors="replace").strip(" \0")
    return value if isinstance(value, str) else "\\".join(map(str, value))


def _decoded(elements: Mapping[int, Any]) -> dict[str, str]:
    values = {}
    for name, tag in TEXTS:
        element = elements.get(tag)
        if element is None or type(element.value) is not bytes:
            continue
        value = element.value
        if value.isascii() and b"\x1b" not in value:
            values[name] = value.decode("ascii").strip(" \0")
        else:
            values[name] = decode_text(value, _plain_text(elements, _CHARACTER_SET))
    if "body_part" in values:
        values["body_part"] = values["body_part"].upper()
    return values


def _age_of(elements: Mapping[int, Any]) -> float | None:
    """The age in years; the date of birth itself is part of an identity and is not kept."""
    years = age_in_years(_plain_text(elements, _AGE), "", "")
    if years is None and (birth := _plain_text(elements, _BIRTH_DATE)):
        return age_in_years("", birth, next(filter(None, (_plain_text(elements, tag) for tag in _DATES)), ""))
    return years


def convert_values(elements: Mapping[int, Any], little: bool) -> dict[str, Any]:
    """The fields of a :class:`~ich_lstm.reading.header.header.SliceHeader` that a data set contains.

    Args:
        elements: Raw elements by tag, as pydicom extracts them.
        little: Whether numbers are little endian.

    Returns:
        The values by name of the field; fields that the data set does not contain are missing.
    """
    values: dict[str, Any] = {}
    for name, tag, convert in FIELDS:
        element = elements.get(tag)
        if element is not None and type(element.value) is bytes:
            values[name] = convert(element.value, little)
    values.update(_decoded(elements))
    values["contrast_given"] = contrast_evidence(elements)
    values["age_years"] = _age_of(elements)
    if values.get("pixel_representation") == 1:
        for name in ("padding", "padding_limit"):
            if name in values and values[name] >= 0x8000:
                values[name] -= 0x10000
    return values
