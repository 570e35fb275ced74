"""The sample points whose mean is one slice of a scan."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ich_lstm.phantom.anatomy.shapes import Array, Point

Box = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class Slab:
    """Sample points of one slice in head coordinates: a few planes across its thickness.

    Args:
        x: Coordinates to the left in nominal mm, float32 ``(s, h, w)``.
        y: Coordinates to the back in nominal mm, float32 ``(s, h, w)``.
        z: Coordinates upwards in nominal mm, float32 ``(s, h, w)``.
        pixel_mm: Distance of neighbouring samples in a plane, which is also the softness of edges.
    """

    x: Array
    y: Array
    z: Array
    pixel_mm: float

    @property
    def points(self) -> tuple[Array, Array, Array]:
        """The coordinates x, y and z as a tuple."""
        return self.x, self.y, self.z

    def offsets(self, point: Point) -> tuple[Array, Array, Array]:
        """x, y and z of every sample relative to a point."""
        x, y, z = (values - np.float32(start) for values, start in zip(self.points, point, strict=True))
        return x, y, z

    def cut(self, box: Box) -> "Slab":
        """The part of the slab inside a box, without copying."""
        return Slab(self.x[box], self.y[box], self.z[box], self.pixel_mm)

    def near(self, center: Point, reach: float) -> Box | None:
        """A box that contains all samples within ``reach`` mm of a point; None if there are no such samples."""
        _, rows, columns = self.x.shape
        corner, across, down, normal, thickness = self._frame
        offset = np.asarray(center, np.float64) - corner
        if abs(offset @ normal) > reach + thickness / 2 + self.pixel_mm:
            return None
        # The margin is needed because rotation and scaling leave the in-plane axes only nearly perpendicular.
        place_row = offset @ down / (down @ down) * (rows - 1)
        place_column = offset @ across / (across @ across) * (columns - 1)
        half = 1.12 * reach / self.pixel_mm + 3
        first_row, last_row = max(int(place_row - half), 0), min(int(place_row + half) + 1, rows)
        first_column, last_column = max(int(place_column - half), 0), min(int(place_column + half) + 1, columns)
        if first_row >= last_row or first_column >= last_column:
            return None
        return slice(None), slice(first_row, last_row), slice(first_column, last_column)

    @cached_property
    def _frame(self) -> tuple[Array, Array, Array, Array, float]:
        """The middle plane's first corner, its edges along a row and along a column, its unit normal, and the thickness in mm."""
        middle = len(self.x) // 2
        corner = np.array([v[middle, 0, 0] for v in self.points], np.float64)
        across = np.array([v[middle, 0, -1] for v in self.points], np.float64) - corner
        down = np.array([v[middle, -1, 0] for v in self.points], np.float64) - corner
        deep = np.array([v[-1, 0, 0] - v[0, 0, 0] for v in self.points], np.float64)
        normal = np.cross(across, down)
        normal /= np.linalg.norm(normal)
        return corner, across, down, normal, float(abs(deep @ normal))


def bounding_box(wanted: Array) -> Box | None:
    """The bounding box of all True values in ``(s, h, w)``, extended by one sample; None if there are none.

    The extra sample ensures that a slab cut to the box has two samples per axis, which `Slab.near` needs.
    """
    rows, columns = np.flatnonzero(wanted.any(axis=(0, 2))), np.flatnonzero(wanted.any(axis=(0, 1)))
    if not len(rows):
        return None
    first_row, first_column = max(int(rows[0]) - 1, 0), max(int(columns[0]) - 1, 0)
    return slice(None), slice(first_row, int(rows[-1]) + 2), slice(first_column, int(columns[-1]) + 2)
