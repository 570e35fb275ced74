"""Heat maps packed for a page, with the notes on how to read them."""

import base64
import zlib
from typing import NamedTuple

import cv2
import numpy as np

from ich_lstm.explanation import Explanation
from ich_lstm.labels import LABELS

BONE_HU, BODY_HU = 300, -300
"""Above these, tissue is taken for bone, and for anything but air."""

LEAST_BONE = 0.01
"""Share of a slice's pixels: with less bone there is no skull to lie in, as above the vertex."""

LOOKED_AT = 128
"""Longest side in pixels at which the skull is looked for: finer than any map's cells."""

CONTOUR = 0.5
"""Share of a label's largest value in the scan that its contour encloses."""


class Peak(NamedTuple):
    """Where a label's map is highest in a slice.

    Args:
        x: Columns from the slice's left edge, in pixels: the middle of the map's highest cell.
        y: Rows from its top.
        share: Of the label's largest value in the scan.
        is_outside: Whether it lies outside the skull, or the head where there is no skull.
    """

    x: float
    y: float
    share: float
    is_outside: bool


def encode_heat(explanation: Explanation) -> str:
    """Base64 of zlib of the explained labels' maps, uint8 ``(n, labels, r, c)``; 255 is a label's largest value in the scan."""
    maps = [explanation.maps[:, LABELS.index(label)] for label in explanation.labels]
    stored = [np.rint(one * (255 / largest if (largest := float(one.max())) else 0)).astype(np.uint8) for one in maps]
    return base64.b64encode(zlib.compress(np.stack(stored, axis=1).tobytes(), 6)).decode("ascii")


def find_peaks(explanation: Explanation, hu: np.ndarray) -> dict[str, list[Peak]]:
    """The peak of each explained label in each slice.

    Args:
        explanation: Of the scan.
        hu: int16 ``(n, h, w)``.
    """
    top, left, height, width = explanation.box
    rows, columns = explanation.maps.shape[2:]
    masks = [head_mask(slice_hu) for slice_hu in hu]
    peaks: dict[str, list[Peak]] = {}
    for label in explanation.labels:
        maps = explanation.maps[:, LABELS.index(label)]
        largest = float(maps.max()) or 1.0
        peaks[label] = []
        for heat, mask in zip(maps, masks, strict=True):
            row, column = np.unravel_index(int(heat.argmax()), heat.shape)
            x, y = left + (column + 0.5) * width / columns, top + (row + 0.5) * height / rows
            inside = _is_set(mask, y / hu.shape[1], x / hu.shape[2])
            peaks[label].append(Peak(float(x), float(y), float(heat.max()) / largest, not inside))
    return peaks


def head_mask(hu: np.ndarray) -> np.ndarray:
    """What lies within the skull, bone included: the convex hull of the bone in the slice's largest piece of tissue.

    A hull, so that eye sockets and bone flaps that were taken out do not open it. Where there is too little bone, the outline
    of that piece.

    Args:
        hu: int16 ``(h, w)``.

    Returns:
        bool ``(rows, columns)``, the same slice in fewer pixels.
    """
    step = -(-max(hu.shape) // LOOKED_AT)
    small = hu[::step, ::step]
    tissue = _largest_piece(small > BODY_HU)  # without the table
    bone = tissue & (small > BONE_HU)
    mask = np.zeros(small.shape, np.uint8)
    if bone.sum() >= LEAST_BONE * bone.size:
        points = np.argwhere(bone)[:, ::-1].astype(np.int32)  # x, y
        cv2.fillConvexPoly(mask, cv2.convexHull(points), 1)
    else:
        outlines, _ = cv2.findContours(tissue.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(mask, outlines, -1, 1, cv2.FILLED)
    return mask.astype(bool)


def _largest_piece(mask: np.ndarray) -> np.ndarray:
    count, pieces, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count == 1:
        return np.zeros(mask.shape, bool)
    return pieces == 1 + int(facts[1:, cv2.CC_STAT_AREA].argmax())


def _is_set(mask: np.ndarray, down: float, across: float) -> bool:
    """A mask's value at a place in parts of its height and width; none beyond its edges."""
    if not (0 <= down < 1 and 0 <= across < 1):
        return False
    return bool(mask[int(down * mask.shape[0]), int(across * mask.shape[1])])
