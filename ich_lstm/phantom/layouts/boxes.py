"""Bounding boxes of the hemorrhages, in the format of BHX for the images of CQ500."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from ich_lstm.labels import HEMORRHAGE_TYPES
from ich_lstm.phantom.scan import PhantomScan

SMALLEST_MM2 = 20.0
"""Smallest area that gets a box, unless the type has no larger region in the slice."""


class Box(NamedTuple):
    """One box in one image, in pixels; the first pixel's corner is (0, 0).

    Args:
        image: Index of the slice in its series, from 0.
        kind: Hemorrhage type, one of `HEMORRHAGE_TYPES`.
        x: Column of the left edge.
        y: Row of the upper edge.
        width: Number of columns.
        height: Number of rows.
    """

    image: int
    kind: str
    x: int
    y: int
    width: int
    height: int


def find_boxes(scan: PhantomScan) -> Iterator[Box]:
    """Yield a box around every connected region of each type, in the slices where the type is visible."""
    smallest = SMALLEST_MM2 / scan.acquisition.pixel_mm**2
    for index, kind in np.argwhere(scan.slice_labels[:, : len(HEMORRHAGE_TYPES)]):
        mask = scan.masks[kind, index].astype(np.uint8)
        # The first row is the background.
        parts = cv2.connectedComponentsWithStats(mask, connectivity=8)[2][1:]
        if len(parts):
            least = min(smallest, parts[:, cv2.CC_STAT_AREA].max())
            for x, y, width, height, area in parts.tolist():
                if area >= least:
                    yield Box(int(index), HEMORRHAGE_TYPES[kind], x, y, width, height)


def box_lines(rows: Sequence[tuple[str, str, str, Box, str]]) -> list[str]:
    """The lines of one of BHX's tables, header first.

    Args:
        rows: Study, series and SOP Instance UID, the box, and its label, such as ``Subdural`` or ``Chronic``.
    """
    lines = ["id,SOPInstanceUID,SeriesInstanceUID,StudyInstanceUID,data,labelName"]
    for number, (study_uid, series_uid, sop_uid, box, label) in enumerate(rows, 1):
        data = {"x": float(box.x), "y": float(box.y), "width": float(box.width), "height": float(box.height)}
        lines.append(f'A_{number:06d},{sop_uid},{series_uid},{study_uid},"{data}",{label}')
    return lines
