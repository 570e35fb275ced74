"""Finds the regions that bone encloses in a section: the inside of a skull, or the marrow of a long bone."""

from collections.abc import Iterator

import cv2
import numpy as np

BONE_HU = 200

GAP_MM = 6.0
"""Openings of up to twice this width are closed: sutures, burr holes, and the foramina of the skull base."""


def enclosed_regions(bone: np.ndarray, row_mm: float, column_mm: float) -> Iterator[np.ndarray]:
    """Find the regions of one section that bone encloses, the largest first.

    Gaps of up to 12 mm in the bone are closed. A region that only the edge of the image closes is not enclosed.

    Args:
        bone: Mask of bone, bool ``(h, w)``.
        row_mm: Distance between rows.
        column_mm: Distance between columns.

    Yields:
        Mask of one region without the bone itself, bool ``(h, w)``.
    """
    reach = max(1, round(GAP_MM / row_mm)), max(1, round(GAP_MM / column_mm))
    frame = max(reach) + 1
    # The frame of air prevents the closing from joining a skull to the edge of the image.
    padded = cv2.copyMakeBorder(bone.astype(np.uint8), frame, frame, frame, frame, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, ellipse(*reach))
    count, regions, stats, _ = cv2.connectedComponentsWithStats(1 - closed, connectivity=4)
    outside, regions = regions[0, 0], regions[frame:-frame, frame:-frame]
    for region in np.argsort(-stats[1:count, cv2.CC_STAT_AREA], kind="stable") + 1:
        if region != outside:
            yield regions == region


def ellipse(rows: int, columns: int) -> np.ndarray:
    """An elliptical structuring element that reaches the given distances, but at least one pixel, to each side."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * max(1, columns) + 1, 2 * max(1, rows) + 1))
