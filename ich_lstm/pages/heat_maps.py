"""Encoding of heat maps for a page, and the location of their peaks."""

import base64
import zlib
from typing import NamedTuple

import numpy as np

from ich_lstm.explanation import Explanation
from ich_lstm.labels import LABELS
from ich_lstm.preprocessing.inside_skull import head_mask

CONTOUR = 0.5
"""Level of the contour, as a share of the label's largest value in the scan."""


class Peak(NamedTuple):
    """The peak of a label's heat map in a slice.

    Args:
        x: Column of the centre of the map's highest cell, in pixels from the left edge of the slice.
        y: Row of the centre of the map's highest cell, in pixels from the top edge of the slice.
        share: Value of the peak, as a share of the label's largest value in the scan.
        is_outside: Whether the peak lies outside the skull, or outside the head in a slice without a skull.
    """

    x: float
    y: float
    share: float
    is_outside: bool


def encode_heat(explanation: Explanation) -> str:
    """Encode the explained labels' maps as base64 of zlib of uint8 ``(n, labels, r, c)``; 255 is a label's scan maximum."""
    maps = [explanation.maps[:, LABELS.index(label)] for label in explanation.labels]
    stored = [np.rint(one * (255 / largest if (largest := float(one.max())) else 0)).astype(np.uint8) for one in maps]
    return base64.b64encode(zlib.compress(np.stack(stored, axis=1).tobytes(), 6)).decode("ascii")


def find_peaks(explanation: Explanation, hu: np.ndarray) -> dict[str, list[Peak]]:
    """Find the peak of each explained label in each slice.

    Args:
        explanation: Heat maps and contributions of the scan.
        hu: Hounsfield units of the scan, int16 ``(n, h, w)``.
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


def _is_set(mask: np.ndarray, down: float, across: float) -> bool:
    """Look up a mask at fractions of its height and width; False outside the mask."""
    if not (0 <= down < 1 and 0 <= across < 1):
        return False
    return bool(mask[int(down * mask.shape[0]), int(across * mask.shape[1])])
