"""Recognizes images that are stored in a series but are not slices of it: captures, screenshots, dose reports."""

from collections import Counter
from collections.abc import Sequence

from ich_lstm.reading.header.geometry import is_orientation, is_position
from ich_lstm.reading.header.header import SliceHeader

MAX_SHARE = 0.25
"""With a larger share of odd images, the series is a mixture, and is judged as a whole."""

CT_CLASSES = frozenset(
    "1.2.840.10008.5.1.4.1.1.2" + end
    for end in ("", ".1", ".2")  # CT, Enhanced CT, Legacy Converted Enhanced CT Image Storage
)


def find_strays(headers: Sequence[SliceHeader]) -> dict[int, tuple[str, str]]:
    """Find images that share the UID of a series but do not belong among its slices.

    Args:
        headers: Headers of one series, without its scouts.

    Returns:
        Code and reason by index into ``headers``; empty if there are no such images, or too many of them.
    """
    strays = {}
    matrices = Counter((header.rows, header.columns) for header in headers)
    matrix = matrices.most_common(1)[0][0] if matrices else None
    has_ct_class = any(header.sop_class_uid in CT_CLASSES for header in headers)
    has_deep_pixels = any((header.bits_allocated or 0) > 8 for header in headers)
    for number, header in enumerate(headers):
        is_placed = _is_placed(header)
        if header.photometric not in ("", "MONOCHROME1", "MONOCHROME2") or (header.samples_per_pixel or 1) > 1:
            strays[number] = "color", "a color image among the slices of the series"
        elif has_ct_class and header.sop_class_uid and header.sop_class_uid not in CT_CLASSES:
            strays[number] = "secondary_capture", "an image of another SOP class among the slices of the series"
        elif has_deep_pixels and not is_placed and header.bits_allocated is not None and header.bits_allocated <= 8:
            strays[number] = "secondary_capture", "an 8-bit image without a position among the slices of the series"
        elif (header.rows, header.columns) != matrix and not is_placed:
            size = f"{header.rows} x {header.columns}"
            strays[number] = "secondary_capture", f"an image of {size} without a position among the slices of the series"
    return strays if len(strays) <= MAX_SHARE * len(headers) else {}


def _is_placed(header: SliceHeader) -> bool:
    return (
        header.position is not None
        and is_position(header.position)
        and header.orientation is not None
        and is_orientation(header.orientation)
    )
