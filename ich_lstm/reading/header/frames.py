"""Enhanced multi-frame CT (PS3.3 A.38): the values that differ between the frames of one file. Works on data sets alone."""

from collections.abc import Mapping
from typing import Any

from pydicom.dataset import Dataset

from ich_lstm.reading.header.fields import convert_values, integer_text
from ich_lstm.reading.terms.contrast import agent_of_sequence

MAX_FRAMES = 8192
"""Ten times the slices of a head at 0.2 mm; a file that declares more is damaged, and would cost memory."""

FRAME_MARK = "#"
"""Separates the SOP Instance UID of a file from the number of a frame: ``1.2.3#5``."""

_NUMBER_OF_FRAMES = 0x00280008
_SHARED, _PER_FRAME = 0x52009229, 0x52009230
_FRAME_TYPE, _IMAGE_TYPE = 0x00089007, 0x00080008
_FRAME_ACQUISITION, _ACQUISITION = 0x00209156, 0x00200012

MACROS = (
    0x00209113,  # Plane Position
    0x00209116,  # Plane Orientation
    0x00289110,  # Pixel Measures: spacing, thickness
    0x00289145,  # Pixel Value Transformation: rescale
    0x00189329,  # CT Image Frame Type
    0x00189325,  # CT X-Ray Details: kVp
    0x00189314,  # CT Reconstruction: kernel
    0x00189304,  # CT Acquisition Details: tilt
    0x00209111,  # Frame Content
)
"""Functional group macros (PS3.3 C.7.6.16) whose attributes are used."""


def count_frames(elements: Mapping[int, Any]) -> int:
    """Number of Frames (0028,0008); 1 if missing or malformed."""
    element = elements.get(_NUMBER_OF_FRAMES)
    value = None if element is None else element.value
    number = integer_text(value, True) if isinstance(value, bytes) else value
    return number if isinstance(number, int) and number > 0 else 1


def is_enhanced(elements: Mapping[int, Any]) -> bool:
    """Whether a data set stores its geometry in functional groups."""
    return _PER_FRAME in elements or _SHARED in elements


def frame_values(data_set: Dataset, little: bool) -> list[dict[str, Any]]:
    """The fields of each frame, as :func:`~ich_lstm.reading.header.fields.convert_values` returns them for a classic slice.

    Args:
        data_set: The complete data set without its pixels.
        little: Whether numbers are little endian.

    Raises:
        ValueError: If the number of functional groups differs from the number of frames.
    """
    own: dict[Any, Any] = dict(data_set.items())
    count = count_frames(own)
    shared = _sequence_items(data_set, _SHARED)
    per_frame = _sequence_items(data_set, _PER_FRAME)
    if count > MAX_FRAMES:
        raise ValueError(f"{count} frames")
    if len(per_frame) != count:
        raise ValueError(f"{count} frames with {len(per_frame)} functional groups (5200,9230)")
    common = _merge_macros(shared[0]) if shared else {}
    agent = agent_of_sequence(data_set)
    frames = []
    for i, item in enumerate(per_frame):
        values = convert_values({**own, **common, **_merge_macros(item)}, little)
        if agent:
            values["contrast_agent"] = agent
        if count > 1:
            values["sop_uid"] = f"{values.get('sop_uid', '')}{FRAME_MARK}{i + 1}"
        values["instance_number"] = i + 1
        frames.append(values)
    return frames


def _merge_macros(group: Dataset) -> dict[int, Any]:
    """The attributes of all macros of a functional group, merged; no attribute occurs in two macros."""
    found: dict[int, Any] = {}
    for macro in MACROS:
        for item in _sequence_items(group, macro)[:1]:
            found.update(dict(item.items()))
    for frames, classic in ((_FRAME_TYPE, _IMAGE_TYPE), (_FRAME_ACQUISITION, _ACQUISITION)):
        if frames in found:
            found[classic] = _as_text(found[frames])
    return found


def _as_text(element: Any) -> Any:
    """Convert the binary Frame Acquisition Number to text, as in Acquisition Number."""
    if element.VR != "US" or not isinstance(element.value, bytes):
        return element
    return element._replace(value=str(int.from_bytes(element.value[:2], "little")).encode())


def _sequence_items(data_set: Dataset, tag: int) -> list[Dataset]:
    if tag not in data_set:
        return []
    element = data_set[tag]
    return list(element.value) if element.VR == "SQ" else []
