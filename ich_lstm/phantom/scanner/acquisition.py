"""Geometry and image quality of an acquisition: position of the slices, sampling, blur and noise."""

from dataclasses import dataclass, replace

import numpy as np

from ich_lstm.phantom.anatomy.head import HALF_LENGTH_MM, HEIGHT_MM, LOWEST_MM, Head
from ich_lstm.phantom.anatomy.shapes import Array, cover
from ich_lstm.phantom.anatomy.tissues import AIR_HU
from ich_lstm.phantom.scanner.reconstruction import RESPONSES, Reconstruction, Response
from ich_lstm.phantom.scanner.slab import Slab
from ich_lstm.phantom.settings import PhantomSettings

PLANE_MM = 1.7
"""Approximate distance of the planes whose mean is a slice, which gives partial volume: three planes at 5 mm."""

MAX_TILT_DEGREES = 25.0
HOLDER_HU = 120.0


@dataclass(frozen=True, eq=False)
class Acquisition:
    """Geometry and quality of one scan in mm and degrees, in DICOM's patient coordinates (left, posterior, superior).

    Args:
        slices: Number of slices.
        size: Number of rows, and of columns.
        pixel_mm: Row and column spacing.
        spacing_mm: Distance of the slices along their normal, which is also their thickness.
        tilt_degrees: Gantry tilt: the angle between slice normal and table.
        origin: Centre of the first pixel of the lowest slice, ``(3,)``.
        head_center: Position of the origin of the head coordinates, ``(3,)``.
        head_axes: Rotation of the head, ``(3, 3)`` with one row per head axis.
        noise_hu: Standard deviation of the noise.
        blur_px: Standard deviation of the in-plane point spread.
        holder: Whether the head holder is visible.
        padded: Whether pixels outside the reconstruction circle hold a padding value.
        response: Response of the reconstruction kernel.
    """

    slices: int
    size: int
    pixel_mm: float
    spacing_mm: float
    tilt_degrees: float
    origin: Array
    head_center: Array
    head_axes: Array
    noise_hu: float
    blur_px: float
    holder: bool
    padded: bool
    response: Response

    @property
    def cos_tilt(self) -> float:
        """Cosine of the gantry tilt."""
        return float(np.cos(np.deg2rad(self.tilt_degrees)))

    @property
    def row_direction(self) -> Array:
        """Direction in which the column index grows."""
        return np.array([1.0, 0.0, 0.0])

    @property
    def column_direction(self) -> Array:
        """Direction in which the row index grows."""
        tilt = np.deg2rad(self.tilt_degrees)
        return np.array([0.0, np.cos(tilt), -np.sin(tilt)])

    @property
    def normal(self) -> Array:
        """Slice normal, pointing upwards."""
        return np.cross(self.row_direction, self.column_direction)

    def image_position(self, index: int) -> Array:
        """Centre of the first pixel of a slice; the table moves, so only z changes from slice to slice."""
        step = self.spacing_mm / self.cos_tilt
        return self.origin + np.array([0.0, 0.0, index * step])

    @property
    def planes(self) -> int:
        """Number of planes whose mean is a slice."""
        return max(round(self.spacing_mm / PLANE_MM), 1)

    @property
    def head_pixel(self) -> tuple[float, float]:
        """Row and column of the head's origin in the image."""
        column, row = (self.head_center - self.origin)[:2] / self.pixel_mm
        return float(row / self.cos_tilt), float(column)

    @property
    def off_centre_mm(self) -> float:
        """Distance of the head's origin from the middle of the image, along the row."""
        return float(abs(self.head_pixel[1] - (self.size - 1) / 2) * self.pixel_mm)

    @property
    def height_mm(self) -> float:
        """Extent of all slices along their normal."""
        return self.slices * self.spacing_mm

    def reconstruct(self, reconstruction: Reconstruction) -> "Acquisition":
        """The acquisition with another thickness and kernel; the lower edge stays, the height changes by less than a slice."""
        response = RESPONSES[reconstruction.kernel]
        noise, spacing, slices = self.noise_hu * response.noise, self.spacing_mm, self.slices
        if reconstruction.thickness_mm is not None:
            spacing = float(reconstruction.thickness_mm)
            slices = max(round(self.height_mm / spacing), 1)
            noise *= np.sqrt(self.spacing_mm / spacing)
        # Only z changes, so the centre of the first slice moves along the table.
        origin = self.origin + np.array([0.0, 0.0, (spacing - self.spacing_mm) / 2 / self.cos_tilt])
        return replace(
            self, slices=slices, spacing_mm=spacing, origin=np.round(origin, 4), noise_hu=float(noise), response=response
        )

    def head_box(self, head: Head) -> tuple[slice, slice]:
        """Rows and columns in which the head can lie, the same for every slice."""
        reach = np.array([[-94.0, 94.0], [-128.0, 106.0]]) * np.array(head.scale[:2])[:, None]
        columns = (reach[0] + self.head_center[0] - self.origin[0]) / self.pixel_mm
        rows = (reach[1] + self.head_center[1] - self.origin[1]) / (self.pixel_mm * self.cos_tilt)
        limits = np.clip(np.array([rows, columns]), 0, self.size).astype(int)
        return slice(int(limits[0, 0]), int(limits[0, 1])), slice(int(limits[1, 0]), int(limits[1, 1]))

    def slab(self, index: int, head: Head, box: tuple[slice, slice]) -> Slab:
        """The sample points of a slice in head coordinates."""
        to_head = self.head_axes / np.array(head.scale)[:, None]
        rows = np.arange(box[0].start, box[0].stop)
        columns = np.arange(box[1].start, box[1].stop)
        planes = (np.arange(self.planes) + 0.5) / self.planes - 0.5
        corner = to_head @ (self.image_position(index) - self.head_center)
        down = np.outer(to_head @ self.column_direction, rows * self.pixel_mm)
        right = np.outer(to_head @ self.row_direction, columns * self.pixel_mm)
        deep = np.outer(to_head @ self.normal, planes * self.spacing_mm) + corner[:, None]
        points = deep[:, :, None, None] + down[:, None, :, None] + right[:, None, None, :]
        x, y, z = points.astype(np.float32)
        return Slab(x, y, z, float(self.pixel_mm / np.mean(head.scale)))

    def background(self) -> Array:
        """The image without a head: air, and the head holder."""
        hu = np.full((self.size, self.size), AIR_HU, np.float32)
        if self.holder:
            index = np.arange(self.size) * self.pixel_mm
            x = (index + self.origin[0] - self.head_center[0])[None, :].astype(np.float32)
            y = (index * self.cos_tilt + self.origin[1] - self.head_center[1])[:, None].astype(np.float32)
            shell = np.abs(np.sqrt(np.square(x / 104) + np.square((y + 2) / 107)) - 1) * 104 - np.float32(1.3)
            weight = cover(shell, self.pixel_mm) * cover(np.float32(8) - y, 2.0)
            hu += weight * np.float32(HOLDER_HU - AIR_HU)
        return hu

    def outside_circle(self) -> Array:
        """Pixels outside the reconstruction circle, bool ``(h, w)``."""
        center = (self.size - 1) / 2
        index = np.square(np.arange(self.size) - center)
        return index[:, None] + index[None, :] > (self.size / 2) ** 2


def draw_acquisition(rng: np.random.Generator, aside: np.random.Generator, settings: PhantomSettings, head: Head) -> Acquisition:
    """Draw a scan's geometry and quality so that it covers the head from skull base to vertex.

    Args:
        rng: Source of randomness for everything except the position of the head in the field of view.
        aside: Source of randomness for whether, and how far, the head lies off the centre of a wide field of view.
        settings: Settings of the data set.
        head: The head that is scanned.
    """
    tilt = float(np.round(rng.uniform(4, MAX_TILT_DEGREES), 1)) if rng.random() < 0.45 else 0.0
    # A tilted gantry follows the orbitomeatal line, so the head of a tilted scan is itself less tilted.
    pitch, yaw, roll = np.deg2rad(rng.normal((0.25 * tilt, 0, 0), (4.0, 3.0, 4.0)))
    axes = _rotation(0, pitch) @ _rotation(1, yaw) @ _rotation(2, roll)
    bottom = (LOWEST_MM + rng.uniform(0, 14)) * head.scale[2]
    top = (HEIGHT_MM + head.skull_mm + head.scalp_mm + rng.uniform(-4, 8)) * head.scale[2]
    wanted = float(rng.choice([4.0, 4.5, 5.0, 5.0, 5.0, 5.5, 6.0]))
    slices = settings.slices or int(np.clip(round((top - bottom) / wanted), 20, 45))
    spacing = float(np.round((top - bottom) / slices, 3))
    length = 2 * (HALF_LENGTH_MM + head.skull_mm + head.scalp_mm) * head.scale[1]
    field_of_view = max(float(rng.uniform(212, 245)), 1.06 * length / np.cos(np.deg2rad(tilt)))
    shift = np.zeros(3)
    wide, towards = aside.uniform(1.15, 1.45), aside.uniform(-1, 1, 2)
    if aside.random() < 0.5 * settings.difficulty:
        free = field_of_view * (wide - 1) / 2 + 8
        shift[:2] = towards * (free, 0.6 * free)
        field_of_view *= wide
    pixel = float(np.round(field_of_view / settings.size, 6))
    head_center = rng.normal(0, 2.5, 3) + np.array([0.0, rng.uniform(-20, 5), rng.uniform(-200, 200)])
    image_center = head_center + shift + np.array([rng.normal(0, 2), rng.normal(-2, 2), 0.0])
    image_center[2] += bottom + spacing / 2
    half = (settings.size - 1) / 2 * pixel
    tilt_rad = np.deg2rad(tilt)
    origin = image_center - half * np.array([1.0, np.cos(tilt_rad), -np.sin(tilt_rad)])
    return Acquisition(
        slices=slices,
        size=settings.size,
        pixel_mm=pixel,
        spacing_mm=spacing,
        tilt_degrees=tilt,
        origin=np.round(origin, 4),
        head_center=head_center,
        head_axes=axes,
        noise_hu=float(rng.uniform(3, 4.5) * settings.noise * np.sqrt(settings.size / 256)),
        blur_px=float(rng.uniform(0.55, 0.8) * max(settings.size / 256, 0.6)),
        holder=bool(rng.random() < 0.7),
        padded=bool(rng.random() < 0.4),
        response=RESPONSES["soft"],
    )


def _rotation(axis: int, angle: float) -> Array:
    """A rotation about one of the coordinate axes."""
    first, second = (i for i in range(3) if i != axis)
    matrix = np.eye(3)
    matrix[[first, second], [first, second]] = np.cos(angle)
    matrix[first, second], matrix[second, first] = -np.sin(angle), np.sin(angle)
    return matrix
