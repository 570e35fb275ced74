"""Soft-edged shapes and textures in millimetres, from which the head is composed.

A shape is an array of signed distances to its surface, negative inside. All arrays are float32.
"""

from functools import cached_property
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

Array = npt.NDArray[Any]
Point = tuple[float, float, float]


def to_point(values: Array) -> Point:
    """Three coordinates as plain numbers."""
    x, y, z = values.tolist()
    return x, y, z


def cover(distance: Array, softness: float) -> Array:
    """Share of a sample that a shape covers: 1 inside, 0 outside, with a ramp ``softness`` mm wide in between.

    Example:
        >>> cover(np.array([-2.0, 0.0, 2.0], np.float32), 1.0).tolist()
        [1.0, 0.5, 0.0]
    """
    weight = distance * np.float32(-1.0 / softness)
    weight += np.float32(0.5)
    return np.clip(weight, np.float32(0), np.float32(1), out=weight)


def paint(hu: Array, value: Array | float, weight: Array) -> None:
    """Blend ``value`` into ``hu`` in place: replace it where ``weight`` is 1, mix where the weight is between 0 and 1."""
    step = np.subtract(np.float32(value) if isinstance(value, float | int) else value, hu)
    step *= weight
    hu += step


def ellipsoid(x: Array, y: Array, z: Array, center: Point, radii: Point) -> Array:
    """Approximate signed distance to an ellipsoid, exact on its surface and scaled by its smallest radius."""
    q = np.square((x - np.float32(center[0])) * np.float32(1 / radii[0]))
    q += np.square((y - np.float32(center[1])) * np.float32(1 / radii[1]))
    q += np.square((z - np.float32(center[2])) * np.float32(1 / radii[2]))
    np.sqrt(q, out=q)
    q -= np.float32(1)
    q *= np.float32(min(radii))
    return q


def tube(x: Array, y: Array, z: Array, start: Point, end: Point, radii: tuple[float, float], swell: Array | float = 1.0) -> Array:
    """Signed distance to a straight tube with round ends.

    The radius changes from ``radii[0]`` at the start to ``radii[1]`` at the end, times ``swell``.
    """
    axis = [np.float32(b - a) for a, b in zip(start, end, strict=True)]
    px, py, pz = (v - np.float32(s) for v, s in zip((x, y, z), start, strict=True))
    along = px * axis[0]
    along += py * axis[1]
    along += pz * axis[2]
    along *= np.float32(1 / float(sum(float(a) ** 2 for a in axis)))
    np.clip(along, np.float32(0), np.float32(1), out=along)
    squared = np.square(px - along * axis[0])
    squared += np.square(py - along * axis[1])
    squared += np.square(pz - along * axis[2])
    np.sqrt(squared, out=squared)
    along *= np.float32(radii[1] - radii[0])
    along += np.float32(radii[0])
    along *= swell
    squared -= along
    return squared


class Texture:
    """A smooth random volume of unit variance over the slices of a scan, read plane by plane.

    Args:
        rng: Source of randomness.
        extent_mm: Size of the volume along the slice normal, the rows and the columns.
        grain_mm: Distance between random nodes, which is the size of a blob.
    """

    def __init__(self, rng: np.random.Generator, extent_mm: Point, grain_mm: float) -> None:
        nodes = [int(np.ceil(size / grain_mm)) + 3 for size in extent_mm]
        self._nodes = rng.standard_normal(nodes, dtype=np.float32)
        self._grain_mm = grain_mm
        self._extent_mm = extent_mm

    def planes(self, depths_mm: Array, shape: tuple[int, int]) -> Array:
        """The texture at ``s`` depths along the slice normal: float32 ``(s, h, w)``."""
        planes = np.empty((len(depths_mm), *shape), np.float32)
        for i, depth in enumerate(depths_mm):
            place = float(np.clip(depth / self._grain_mm, 0, len(self._nodes) - 1.001))
            low, part = int(place), np.float32(place % 1)
            mixed = self._nodes[low] * (1 - part) + self._nodes[low + 1] * part
            # Linear interpolation lowers the variance between nodes; this compensates for it.
            mixed *= np.float32(1.3) / np.sqrt(part**2 + (1 - part) ** 2)
            cv2.resize(mixed, (shape[1], shape[0]), dst=planes[i], interpolation=cv2.INTER_CUBIC)
        return planes


class Folds:
    """Band-limited noise in head coordinates whose zero surfaces are the sulci.

    It is sampled at points that are moved outwards along the radius, so that the sulci run inwards from the surface.

    Args:
        rng: Source of randomness; not shared, because the noise is made when it is first sampled.
        wavelength_mm: Wavelength of the noise, which is twice the distance between neighbouring sulci.
    """

    NODE_MM = 3.0
    REACH_MM = 105.0

    def __init__(self, rng: np.random.Generator, wavelength_mm: float) -> None:
        self._rng, self._wavelength_mm = rng, wavelength_mm
        self.mm_per_unit = wavelength_mm / (2 * np.pi) * 1.15  # distance over which the noise rises by one deviation

    @cached_property
    def _volume(self) -> Array:
        count = int(2 * self.REACH_MM / self.NODE_MM) + 1
        white = self._rng.standard_normal((count, count, count), dtype=np.float32)
        # A difference of Gaussians passes wavelengths around 2 pi 1.25 sigma.
        sigma = self._wavelength_mm / (2 * np.pi * 1.25 * self.NODE_MM)
        fine = ndimage.gaussian_filter(white, sigma, mode="wrap", truncate=2.5)
        fine -= ndimage.gaussian_filter(fine, 1.25 * sigma, mode="wrap", truncate=2.5)
        return fine / fine.std()

    def at(self, x: Array, y: Array, z: Array) -> Array:
        """The noise at points in mm; the three arrays have one shape, which is also that of the result."""
        scale = np.float32(1 / self.NODE_MM)
        offset = np.float32(self.REACH_MM / self.NODE_MM)
        places = np.stack([z, y, x])
        places *= scale
        places += offset
        return ndimage.map_coordinates(self._volume, places, output=np.float32, order=1, mode="nearest", prefilter=False)
