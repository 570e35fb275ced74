"""Blood between skull and brain: epidural, and subdural over the convexity, the falx and the tentorium."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ich_lstm.phantom.anatomy.head import ridge_y, tentorium_height
from ich_lstm.phantom.anatomy.shapes import Array, Point, cover, ellipsoid
from ich_lstm.phantom.anatomy.sutures import Bone, beyond
from ich_lstm.phantom.lesions.blood import Blood
from ich_lstm.phantom.lesions.lesion import Place, Push

BETRAYED_HU = 10.0
"""Contrast counted for an isodense extra-axial collection: displaced cortex and sulci that end before the skull reveal it."""

SUTURE_ROUNDING_MM = 4.0


@dataclass(frozen=True)
class Lens:
    """Epidural hemorrhage: a biconvex lens between inner table and dura, the part of a ball that lies inside the inner table.

    Args:
        blood: Density and pattern of the blood.
        ball: Centre of the ball in mm.
        radius: Radius of the ball in mm.
        bone: The bone at whose sutures the lens ends, because the dura is attached there.
        push: Mass effect, or None.
    """

    kind: ClassVar[str] = "epidural"
    betrayed_hu: ClassVar[float] = BETRAYED_HU
    blood: Blood
    ball: Point
    radius: float
    bone: Bone
    push: Push | None

    @property
    def side(self) -> float:
        return self.bone[1]

    def weight(self, place: Place) -> Array | None:
        x, y, z = place.slab.points
        if z.min() > self.ball[2] + self.radius or z.max() < self.ball[2] - self.radius:
            return None
        ball = ellipsoid(x, y, z, self.ball, (self.radius, self.radius, self.radius))
        edge = beyond(self.bone, x, y, z)
        # A rounded maximum of the two: the dura is peeled off obliquely.
        lens = np.float32(0.5) * (ball + edge + np.sqrt(np.square(ball - edge) + np.float32(SUTURE_ROUNDING_MM**2)))
        return cover(lens, place.slab.pixel_mm) * (1 - place.fossa)


@dataclass(frozen=True)
class Crescent:
    """Subdural hemorrhage over the convexity: a crescent along the inner table of one side; it crosses sutures, not the midline.

    Args:
        blood: Density and pattern of the blood.
        direction: Unit vector from the centre of the head to the middle of the lesion.
        thickness: Thickness in the middle of the lesion in mm.
        opening: Half the opening angle in radians.
        push: Mass effect, or None.
    """

    kind: ClassVar[str] = "subdural"
    betrayed_hu: ClassVar[float] = BETRAYED_HU
    blood: Blood
    direction: Point
    thickness: float
    opening: float
    push: Push | None

    @property
    def side(self) -> float:
        return float(np.sign(self.direction[0]))

    def weight(self, place: Place) -> Array | None:
        x, y, z = place.slab.points
        radius = np.sqrt(x * x + y * y + z * z + np.float32(1))
        towards = [np.float32(part) for part in self.direction]
        cosine = (x * towards[0] + y * towards[1] + z * towards[2]) / radius
        share = (1 - cosine) * np.float32(1 / (1 - np.cos(self.opening)))
        if share.min() >= 1:
            return None
        reach = np.float32(self.thickness) * np.sqrt(np.clip(1 - share, 0, 1))
        reach *= 1 + np.float32(0.06) * place.texture
        weight = cover(place.depth - reach, place.slab.pixel_mm)
        weight *= share < 1
        # The falx and the sagittal sinus separate the subdural spaces of the two sides.
        weight *= cover(np.float32(2.0) - np.float32(self.side) * place.brain.falx, 1.5)
        weight *= 1 - place.fossa
        return weight


@dataclass(frozen=True)
class FalxLayer:
    """Subdural hemorrhage along the falx: a band on one side of it."""

    kind: ClassVar[str] = "subdural"
    betrayed_hu: ClassVar[float] = 0.0
    blood: Blood
    side: float
    thickness: float
    center: Point
    length: float
    push: Push | None = None

    def weight(self, place: Place) -> Array | None:
        x, y, z = place.brain_slab.points
        span = ellipsoid(x, y, z, self.center, (60, self.length, 0.7 * self.length))
        if span.min() > 0:
            return None
        reach = np.float32(self.thickness) * np.sqrt(np.clip(-span / np.float32(0.5 * self.length), 0, 1))
        across = place.brain.falx * np.float32(self.side)
        band = np.maximum(across - reach, np.float32(0.3) - across)
        # The band ends below at the free edge of the falx.
        edge = ellipsoid(x, y, z, (0, -4, 0), (60, 50, 36))
        return cover(np.maximum(band, -edge), place.slab.pixel_mm) * (1 - place.fossa)


@dataclass(frozen=True)
class TentoriumLayer:
    """Subdural hemorrhage on the tentorium: a sheet with a sharp medial edge that thins out laterally."""

    kind: ClassVar[str] = "subdural"
    betrayed_hu: ClassVar[float] = 0.0
    blood: Blood
    side: float
    thickness: float
    push: Push | None = None

    def weight(self, place: Place) -> Array | None:
        x, y, z = place.brain_slab.points
        if z.min() > 14 or z.max() < -40:
            return None
        aside = np.float32(self.side) * x
        above = (z - tentorium_height(x, y)) * np.float32(0.92)
        thin = np.float32(self.thickness) * np.clip((58 - aside) * np.float32(1 / 40), 0, 1)
        sheet = np.maximum(above - thin, np.float32(-0.5) - above)
        # The sheet reaches from the free edge beside the midbrain back to the skull and forward to the petrous ridge.
        edge = np.maximum(np.float32(13) - np.maximum(y - 26, 0) * np.float32(0.6), np.float32(1.5)) - aside
        sheet = np.maximum(sheet, np.maximum(edge, ridge_y(x, 2.0) - y))
        return cover(sheet, place.slab.pixel_mm)
