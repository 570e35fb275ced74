"""Intraparenchymal, intraventricular and subarachnoid blood."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ich_lstm.phantom.anatomy.shapes import Array, Point, cover, ellipsoid, paint
from ich_lstm.phantom.anatomy.tissues import OEDEMA_HU
from ich_lstm.phantom.lesions.blood import Blood
from ich_lstm.phantom.lesions.lesion import Place, Push


@dataclass(frozen=True)
class Clot:
    """Intraparenchymal hemorrhage: an irregular ellipsoid in the brain with a dark rim of oedema.

    Args:
        blood: Density and pattern of the blood.
        center: Centre of the ellipsoid.
        radii: Radii of the ellipsoid.
        rim: Width of the oedema in mm.
        rough: Irregularity of the outline, as a share of the smallest radius.
        push: Mass effect, or None.
    """

    kind: ClassVar[str] = "intraparenchymal"
    betrayed_hu: ClassVar[float] = 0.0
    blood: Blood
    center: Point
    radii: Point
    rim: float
    rough: float
    push: Push | None

    @property
    def side(self) -> float:
        return float(np.sign(self.center[0])) if abs(self.center[0]) > 2 else 0.0

    def weight(self, place: Place) -> Array | None:
        if self._misses(place.slab.z):
            return None
        return cover(self._distance(place), max(place.slab.pixel_mm, 1.0)) * self._brain_only(place)

    def paint_oedema(self, place: Place) -> None:
        """Darken the brain around the clot, before the clot itself is painted."""
        if not self._misses(place.slab.z):
            # Oedema spreads along the white matter, between the gyri, and spares the cortex.
            outside = self._distance(place) - np.float32(self.rim) * (1 + np.float32(0.35) * place.texture)
            weight = cover(outside, 3.0) * self._brain_only(place) * place.inside
            weight *= np.float32(0.85) * cover(np.float32(1) - place.brain.sulci, 3.0)
            paint(place.brain.hu, np.minimum(place.brain.hu, np.float32(OEDEMA_HU)), weight)

    def _misses(self, z: Array) -> bool:
        reach = max(self.radii) * 1.5 + self.rim + 3
        return bool(z.min() > self.center[2] + reach or z.max() < self.center[2] - reach)

    def _distance(self, place: Place) -> Array:
        distance = ellipsoid(*place.slab.points, self.center, self.radii)
        return distance + np.float32(self.rough * min(self.radii)) * place.texture

    def _brain_only(self, place: Place) -> Array:
        weight = cover(np.float32(1.5) - place.depth, 1.5) * (1 - cover(place.brain.ventricles, 1.0))
        return weight * cover(np.float32(1) - np.abs(place.brain.falx), 1.0)


@dataclass(frozen=True)
class VentricleBlood:
    """Intraventricular hemorrhage: a fluid level in the occipital horns, or a cast of one side or of all ventricles.

    Args:
        blood: Density and pattern of the blood.
        level: Position y behind which the blood settles in a supine patient; a position far in front gives a cast.
        side: Side of the blood: -1 right, 1 left, 0 both; the third and fourth ventricles belong to both sides.
        push: Mass effect, or None.
    """

    kind: ClassVar[str] = "intraventricular"
    betrayed_hu: ClassVar[float] = 0.0
    blood: Blood
    level: float
    side: float
    push: Push | None = None

    def weight(self, place: Place) -> Array | None:
        if place.brain.ventricles.min() > 0:
            return None
        weight = cover(place.brain.ventricles + np.float32(0.2), place.slab.pixel_mm)
        weight *= cover(np.float32(self.level) - place.slab.y + np.float32(0.5) * place.texture, 1.5)
        if self.side:
            # The fourth ventricle, below, fills from both sides.
            of_side = cover(np.float32(-self.side) * place.brain_slab.x, 2.0)
            weight *= np.where(place.slab.z < -22, np.float32(1), of_side)
        return weight


@dataclass(frozen=True)
class SulcalBlood:
    """Subarachnoid hemorrhage: blood mixed with the CSF of sulci, fissures and cisterns around a centre.

    Args:
        blood: Density and pattern of the blood.
        center: Position where the blood is densest.
        reach: Distance in mm over which the blood spreads.
        swelling: Widening of the CSF spaces by the blood in mm.
        push: Mass effect, or None.
    """

    kind: ClassVar[str] = "subarachnoid"
    betrayed_hu: ClassVar[float] = 0.0
    blood: Blood
    center: Point
    reach: float
    swelling: float
    push: Push | None = None

    @property
    def side(self) -> float:
        return float(np.sign(self.center[0])) if abs(self.center[0]) > 15 else 0.0

    def weight(self, place: Place) -> Array | None:
        x, y, z = place.brain_slab.points
        near = ellipsoid(x, y, z, self.center, (self.reach, self.reach, 0.85 * self.reach))
        near += np.float32(0.08 * self.reach) * place.texture
        around = cover(near, 0.35 * self.reach)
        if not around.any():
            return None
        space = np.minimum(place.brain.sulci, place.brain.cisterns) - np.float32(self.swelling)
        weight = cover(space, place.slab.pixel_mm) * around
        # Between the hemispheres the falx stays dark between two bright lines; the cisterns below have no falx.
        weight *= np.maximum(cover(np.float32(0.4) - np.abs(place.brain.falx), 0.8), (z < 6) & (y > -40) & (y < 24))
        weight *= 1 - cover(place.brain.ventricles, 1.0)
        return weight
