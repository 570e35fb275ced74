"""Directions and positions of slices in the patient (DICOM PS3.3 C.7.6.2): x left, y posterior, z superior."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)

UNIT_TOLERANCE = 0.02
"""Direction cosines are written with few digits; a larger deviation from unit length or from a right angle is an error."""

MAX_POSITION_MM = 1e5

MAX_TILT_DEGREES = 40.0
"""Largest angle between slice normal and body axis. Gantries tilt up to 30; reformats to the orbitomeatal line 10 to 25."""


SAME_POSITION_MM = 0.01
"""Slices closer than this have the same position; the thinnest CT slices are 0.2 mm apart."""


class Display(NamedTuple):
    """The steps that convert stored slices to the radiological display convention.

    In this convention the patient's right is at the left of the image, and the nose at the top.

    Args:
        normal: Unit vector along the slice normal; it points superior in axial slices.
        transpose: Whether rows and columns are exchanged, which is the first step.
        flip_rows: Whether the image is then turned upside down.
        flip_columns: Whether the image is then mirrored left to right.
    """

    normal: np.ndarray
    transpose: bool
    flip_rows: bool
    flip_columns: bool

    def apply(self, image: np.ndarray) -> np.ndarray:
        """Convert one image ``(h, w)``; the result is a view, not a copy."""
        if self.transpose:
            image = image.T
        if self.flip_rows:
            image = image[::-1]
        if self.flip_columns:
            image = image[:, ::-1]
        return image

    def __str__(self) -> str:
        parts = ["rows and columns exchanged"] * self.transpose
        parts += ["turned upside down"] * self.flip_rows + ["mirrored left to right"] * self.flip_columns
        return ", ".join(parts)


def is_orientation(orientation: Sequence[float]) -> bool:
    """Whether six numbers are two perpendicular unit vectors."""
    if len(orientation) != 6 or not all(map(math.isfinite, orientation)):
        return False
    row, column = np.array(orientation[:3]), np.array(orientation[3:])
    lengths = np.linalg.norm([row, column], axis=1)
    return bool((abs(lengths - 1) < UNIT_TOLERANCE).all() and abs(row @ column) < UNIT_TOLERANCE)


def is_position(position: Sequence[float]) -> bool:
    """Whether three numbers can be a position in a patient: each lies within 100 m."""
    return len(position) == 3 and all(abs(value) <= MAX_POSITION_MM for value in position)


def display_of(orientation: Sequence[float]) -> Display:
    """Determine the display convention for slices of an orientation.

    Args:
        orientation: Six direction cosines that pass :func:`is_orientation`.

    Example:
        >>> str(display_of((-1, 0, 0, 0, 1, 0)))
        'mirrored left to right'
    """
    row, column = np.array(orientation[:3], float), np.array(orientation[3:], float)
    transpose = abs(row[0]) < abs(column[0])
    if transpose:
        row, column = column, row
    flip_columns, flip_rows = bool(row[0] < 0), bool(column[1] < 0)
    row, column = (-row if flip_columns else row), (-column if flip_rows else column)
    normal = np.cross(row, column)
    return Display(normal / np.linalg.norm(normal), bool(transpose), flip_rows, flip_columns)


def tilt_degrees(normal: np.ndarray) -> float:
    """Angle between a slice normal and the body axis, in degrees."""
    return math.degrees(math.acos(min(1.0, abs(float(normal[2])))))


def positions_along(normal: np.ndarray, positions: Sequence[Sequence[float]]) -> np.ndarray:
    """Project positions in the patient onto the slice normal, in mm ``(n,)``."""
    return np.asarray(positions, float) @ normal


def origins_in_plane(
    display: Display, orientation: Sequence[float] | None, positions: Sequence[Sequence[float] | None]
) -> np.ndarray | None:
    """In-plane origin of each slice in mm, across and down the displayed image, ``(n, 2)``; None if unknown.

    After a flip the origin is another corner, which is the same for all slices: only differences have a meaning.
    """
    known = [position for position in positions if position is not None]
    if orientation is None or len(known) < len(positions):
        return None
    across, down = np.array(orientation[:3], float), np.array(orientation[3:], float)
    if display.transpose:
        across, down = down, across
    axes = np.stack([-across if display.flip_columns else across, -down if display.flip_rows else down], axis=1)
    return np.asarray(known, float) @ axes
