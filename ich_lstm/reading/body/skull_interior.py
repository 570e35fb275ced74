"""The region that bone encloses in a section: the inside of a skull, or the marrow of a long bone."""

from collections.abc import Iterator

import cv2
import numpy as np

BONE_HU = 200

GAP_MM = 6.0
"""Openings of the skull up to twice this are closed: sutures, burr holes, the foramina of its base."""


def enclosed_regions(bone: np.ndarray, row_mm: float, column_mm: float) -> Iterator[np.ndarray]:
    """The regions of one section that bone encloses, the largest first.

    Gaps of the bone up to 12 mm are closed. What only the edge of the picture closes is not enclosed.

    Args:
        bone: bool ``(h, w)``.
        row_mm: Row spacing.
        column_mm: Column spacing.

    Yields:
        bool ``(h, w)``, without the bone itself.
    """
    reach = max(1, round(GAP_MM / row_mm)), max(1, round(GAP_MM / column_mm))
    frame = max(reach) + 1
    # A frame of air: closing must not close a skull against the picture's edge.
    padded = cv2.copyMakeBorder(bone.astype(np.uint8), frame, frame, frame, frame, cv2.BORDER_CONSTANT, value=0)
    closed = cv2.morphologyEx(padded, cv2.MORPH_CLOSE, ellipse(*reach))
    count, regions, stats, _ = cv2.connectedComponentsWithStats(1 - closed, connectivity=4)
    outside, regions = regions[0, 0], regions[frame:-frame, frame:-frame]
    for region in np.argsort(-stats[1:count, cv2.CC_STAT_AREA], kind="stable") + 1:
        if region != outside:
            yield regions == region


def ellipse(rows: int, columns: int) -> np.ndarray:
    """A structuring element that reaches so far, and at least one pixel, to each side."""
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * max(1, columns) + 1, 2 * max(1, rows) + 1))
