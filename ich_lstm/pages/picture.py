"""Small pictures of slices for pages and notebooks."""

import base64
from collections.abc import Sequence

import cv2
import numpy as np

from ich_lstm.explanation import Explanation
from ich_lstm.pages.style import HEAT_COLORS
from ich_lstm.window import BRAIN

AIR = -1000
"""A slice without any HU above this value is blank."""

HEAT_STRENGTH = 0.55
"""Maximum opacity of a heat map over a picture."""

SQUARE = (1.0, 1.0)
"""The pixel spacing that is used if it is unknown."""


def is_blank(hu: np.ndarray) -> bool:
    """Whether a slice contains only air."""
    return bool(hu.max() <= AIR)


def encode_slice(hu: np.ndarray, size: tuple[int, int]) -> str:
    """Encode a slice in the brain window as base64 of a grey PNG of ``(height, width)`` pixels."""
    return _encode(_grey(hu, size))


def encode_heated_slice(
    hu: np.ndarray, size: tuple[int, int], explanation: Explanation, number: int, labels: Sequence[str]
) -> str:
    """Encode a slice as a small picture with the heat maps of some labels in colour.

    Args:
        hu: Hounsfield units, int16 ``(h, w)``.
        size: Height and width of the picture in pixels.
        explanation: The heat maps of the scan.
        number: Index of the slice, from 0.
        labels: Labels whose heat maps are drawn.
    """
    picture = np.repeat(_grey(hu, size)[..., None].astype(np.float32), 3, axis=2)
    heat = np.stack([explanation.share_on_slice(number, label, hu.shape) for label in labels])  # (labels, h, w)
    heat = np.stack([cv2.resize(one, size[::-1], interpolation=cv2.INTER_LINEAR) for one in heat])
    strongest = heat.argmax(axis=0)
    colors = np.array([[int(HEAT_COLORS[label][i : i + 2], 16) for i in (5, 3, 1)] for label in labels], np.float32)  # BGR
    opacity = HEAT_STRENGTH * heat.max(axis=0)[..., None]
    return _encode(np.rint(picture * (1 - opacity) + colors[strongest] * opacity).astype(np.uint8))


def shown_size(shape: Sequence[int], spacing_mm: Sequence[float], side: int) -> tuple[int, int]:
    """Compute the height and width in pixels of a picture with the aspect ratio of the pixel spacing.

    Args:
        shape: Numbers of rows and columns.
        spacing_mm: Row and column spacing in mm; if it is unknown (0), pixels are assumed to be square.
        side: Maximum length of the longer side in pixels.
    """
    row_mm, column_mm = spacing_mm if min(spacing_mm) > 0 else (1.0, 1.0)
    finest = min(row_mm, column_mm)
    height, width = shape[0] * row_mm / finest, shape[1] * column_mm / finest
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _grey(hu: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Convert HU to grey values in the brain window, uint8 ``(height, width)``."""
    grey = (hu.astype(np.float32) - (BRAIN.level - BRAIN.width / 2)) * (255 / BRAIN.width)
    picture = np.rint(np.clip(grey, 0, 255)).astype(np.uint8)
    height, width = size
    if picture.shape == size:
        return picture
    shrinks = height <= picture.shape[0] and width <= picture.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(picture, (width, height), interpolation=method).astype(np.uint8, copy=False)


def _encode(picture: np.ndarray) -> str:
    _, coded = cv2.imencode(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, 6])
    return base64.b64encode(coded.tobytes()).decode("ascii")
