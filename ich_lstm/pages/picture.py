"""Small pictures of slices for pages and notebooks."""

import base64
from collections.abc import Sequence

import cv2
import numpy as np

from ich_lstm.explanation import Explanation
from ich_lstm.pages.style import HEAT_COLORS
from ich_lstm.window import BRAIN

AIR = -1000
"""A slice without any HU above this shows nothing."""

HEAT_STRENGTH = 0.55
"""Largest opacity of a heat map over a picture."""

SQUARE = (1.0, 1.0)
"""Stands in for a pixel spacing that is unknown."""


def is_blank(hu: np.ndarray) -> bool:
    """Whether a slice holds nothing but air."""
    return bool(hu.max() <= AIR)


def encode_slice(hu: np.ndarray, size: tuple[int, int]) -> str:
    """One slice in the brain window as base64 of a grey PNG of ``(height, width)`` pixels."""
    return _encode(_grey(hu, size))


def encode_heated_slice(
    hu: np.ndarray, size: tuple[int, int], explanation: Explanation, number: int, labels: Sequence[str]
) -> str:
    """Encode a slice as a small picture with the heat maps of some labels over it, in colour.

    Args:
        hu: Hounsfield units, int16 ``(h, w)``.
        size: Height and width of the picture.
        explanation: Heat maps and contributions of the scan.
        number: Index of the slice, from 0.
        labels: Labels whose heat maps are drawn.
    """
    picture = np.repeat(_grey(hu, size)[..., None].astype(np.float32), 3, axis=2)
    heat = np.stack([explanation.share_on_slice(number, label, hu.shape) for label in labels])  # (labels, h, w)
    heat = np.stack([cv2.resize(one, size[::-1], interpolation=cv2.INTER_LINEAR) for one in heat])
    strongest = heat.argmax(axis=0)
    colors = np.array([[int(HEAT_COLORS[label][i : i + 2], 16) for i in (5, 3, 1)] for label in labels], np.float32)  # BGR
    part = HEAT_STRENGTH * heat.max(axis=0)[..., None]
    return _encode(np.rint(picture * (1 - part) + colors[strongest] * part).astype(np.uint8))


def shown_size(shape: Sequence[int], spacing_mm: Sequence[float], side: int) -> tuple[int, int]:
    """Height and width in pixels of a picture with the aspect ratio of the pixel spacing.

    Args:
        shape: Numbers of rows and columns.
        spacing_mm: Row and column spacing; if it is unknown (0), pixels are taken as square.
        side: Largest length of the longer side.
    """
    row_mm, column_mm = spacing_mm if min(spacing_mm) > 0 else (1.0, 1.0)
    finest = min(row_mm, column_mm)
    height, width = shape[0] * row_mm / finest, shape[1] * column_mm / finest
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _grey(hu: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """uint8 ``(height, width)``."""
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
