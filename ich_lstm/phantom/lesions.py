"""The forms that blood takes inside the skull, each where its anatomy puts it."""

from dataclasses import dataclass
from typing import ClassVar, NamedTuple, Protocol

import numpy as np

from ich_lstm.phantom.brain import Brain
from ich_lstm.phantom.shapes import Array, Point, cover, ellipsoid, paint
from ich_lstm.phantom.slab import Slab


class Place(NamedTuple):
    """What a lesion finds in one slab; arrays float32 ``(s, h, w)``.

    Args:
        slab: Head coordinates.
        brain_slab: Coordinates of the brain, which a mass may have displaced.
        brain: The intracranial layer.
        inside: Weight of the inside of the skull.
        depth: Distance from the vault, positive inwards.
        fossa: Weight of the posterior fossa.
        texture: Smooth variation, unit variance.
    """

    slab: Slab
    brain_slab: Slab
    brain: Brain
    inside: Array
    depth: Array
    fossa: Array
    texture: Array


class Push(NamedTuple):
    """A mass effect: the brain around ``center`` moves by ``shift``, less and less beyond ``reach`` mm."""

    center: Point
    shift: Point
    reach: float


class Lesion(Protocol):
    """Blood of one type."""

    kind: ClassVar[str]

    @property
    def hu(self) -> float:
        """Attenuation of the blood."""

    @property
    def push(self) -> Push | None:
        """Its mass effect."""

    def weight(self, place: Place) -> Array | None:
        """Share of blood in each sample; None if this slab has none."""


@dataclass(frozen=True)
class Lens:
    """Epidural: a biconvex lens between inner table and dura, cut from a ball that the inner table crosses."""

    kind: ClassVar[str] = "epidural"
    hu: float
    ball: Point
    radius: float
    push: Push | None

    def weight(self, place: Place) -> Array | None:
        x, y, z = place.slab.points
        if z.min() > self.ball[2] + self.radius or z.max() < self.ball[2] - self.radius:
            return None
        ball = ellipsoid(x, y, z, self.ball, (self.radius, self.radius, self.radius))
        return cover(ball, place.slab.pixel_mm) * (1 - place.fossa)


@dataclass(frozen=True)
class Crescent:
    """Subdural over the convexity: a sickle along the inner table of one side that never crosses the midline."""

    kind: ClassVar[str] = "subdural"
    hu: float
    direction: Point
    thickness: float
    opening: float
    push: Push | None

    def weight(self, place: Place) -> Array | None:
        x, y, z = place.slab.points
        radius = np.sqrt(x * x + y * y + z * z + np.float32(1))
        towards = [np.float32(part) for part in self.direction]
        cosine = (x * towards[0] + y * towards[1] + z * towards[2]) / radius
        share = (1 - cosine) * np.float32(1 / (1 - np.cos(self.opening)))
        if share.min() >= 1:
            return None
        reach = np.float32(self.thickness) * np.sqrt(np.clip(1 - share, 0, 1))
        reach *= 1 + np.float32(0.05) * place.texture
        weight = cover(place.depth - reach, place.slab.pixel_mm)
        weight *= share < 1
        weight *= cover(np.float32(2.5) - np.float32(np.sign(self.direction[0])) * place.brain_slab.x, 1.5)
        weight *= 1 - place.fossa
        return weight


@dataclass(frozen=True)
class FalxLayer:
    """Subdural along the falx: a bright band on one side of it."""

    kind: ClassVar[str] = "subdural"
    hu: float
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
        # The free edge of the falx bounds the band below.
        edge = ellipsoid(x, y, z, (0, -4, 0), (60, 50, 36))
        return cover(np.maximum(band, -edge), place.slab.pixel_mm) * (1 - place.fossa)


@dataclass(frozen=True)
class Clot:
    """Intraparenchymal: an irregular ellipsoid in the brain with a dark rim of oedema."""

    kind: ClassVar[str] = "intraparenchymal"
    hu: float
    center: Point
    radii: Point
    rim: float
    rough: float
    push: Push | None

    OEDEMA_HU: ClassVar[float] = 18.0

    def weight(self, place: Place) -> Array | None:
        if self._misses(place.slab.z):
            return None
        return cover(self._distance(place), max(place.slab.pixel_mm, 1.0)) * self._brain_only(place)

    def paint_oedema(self, place: Place) -> None:
        """Darken the brain around the clot, before the clot itself is painted."""
        if not self._misses(place.slab.z):
            weight = cover(self._distance(place) - np.float32(self.rim), 3.0)
            weight *= self._brain_only(place) * place.inside * np.float32(0.8)
            paint(place.brain.hu, np.minimum(place.brain.hu, np.float32(self.OEDEMA_HU)), weight)

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
    """Intraventricular: a level at the back of the occipital horns, or a cast of one side or of all.

    Args:
        hu: Attenuation.
        level: Blood lies behind this y; far forward makes a cast.
        side: -1 right, 1 left, 0 both; the third and fourth ventricle belong to both.
    """

    kind: ClassVar[str] = "intraventricular"
    hu: float
    level: float
    side: float
    push: Push | None = None

    def weight(self, place: Place) -> Array | None:
        if place.brain.ventricles.min() > 0:
            return None
        weight = cover(place.brain.ventricles + np.float32(0.2), place.slab.pixel_mm)
        weight *= cover(np.float32(self.level) - place.slab.y + np.float32(1.5) * place.texture, 2.5)
        if self.side:
            # The fourth ventricle, below, fills from either side.
            of_side = cover(np.float32(-self.side) * place.brain_slab.x, 2.0)
            weight *= np.where(place.slab.z < -22, np.float32(1), of_side)
        return weight


@dataclass(frozen=True)
class SulcalBlood:
    """Subarachnoid: blood instead of CSF in sulci, fissures and cisterns around a centre."""

    kind: ClassVar[str] = "subarachnoid"
    hu: float
    center: Point
    reach: float
    swelling: float
    push: Push | None = None

    def weight(self, place: Place) -> Array | None:
        x, y, z = place.brain_slab.points
        near = ellipsoid(x, y, z, self.center, (self.reach, self.reach, 0.85 * self.reach))
        near += np.float32(0.08 * self.reach) * place.texture
        around = cover(near, 0.35 * self.reach)
        if not around.any():
            return None
        space = np.minimum(place.brain.sulci, place.brain.cisterns) - np.float32(self.swelling)
        weight = cover(space, place.slab.pixel_mm) * around
        weight *= cover(np.float32(0.4) - np.abs(place.brain.falx), 0.8)
        weight *= 1 - cover(place.brain.ventricles, 1.0)
        return weight


def displace(slab: Slab, pushes: tuple[Push, ...]) -> tuple[Slab, Array | None]:
    """The brain's coordinates under the mass effects, and how much its sulci are effaced (None: no effect here)."""
    if not pushes:
        return slab, None
    x, y, z = slab.points
    moved = [x, y, z]
    effaced = np.zeros_like(x)
    for push in pushes:
        squared = np.square(x - np.float32(push.center[0])) + np.square(y - np.float32(push.center[1]))
        squared += np.square(z - np.float32(push.center[2]))
        force = np.exp(squared * np.float32(-0.5 / push.reach**2))
        for axis, shift in enumerate(push.shift):
            moved[axis] = moved[axis] - force * np.float32(shift)
        strength = float(np.linalg.norm(push.shift))
        np.maximum(effaced, force * np.float32(min(1.0, strength / 5)), out=effaced)
    return Slab(moved[0], moved[1], moved[2], slab.pixel_mm), effaced
