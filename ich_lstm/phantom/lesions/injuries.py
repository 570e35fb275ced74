"""Injuries of skull and scalp: fractures, swelling, and craniotomies."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from ich_lstm.phantom.anatomy.head import Head, surface_normal, surface_point
from ich_lstm.phantom.anatomy.shapes import Array, Point, cover, to_point
from ich_lstm.phantom.draws import Rng
from ich_lstm.phantom.lesions.extraaxial import Lens
from ich_lstm.phantom.lesions.lesion import Lesion
from ich_lstm.phantom.scanner.slab import Slab

FRACTURE_MM = 0.9
"""Half the width of a fracture line."""

FLAP_GAP_MM, BURR_HOLE_MM = 1.4, 6.0
"""Half the width of the saw cut around a bone flap, and the radius of the burr holes."""

SWOLLEN_MM = 1.5
"""Swelling below this cannot be distinguished from variation of the scalp's thickness."""


class Injury:
    """A change of skull or scalp; a kind of injury overrides what it changes."""

    name: ClassVar[str]

    def swelling_mm(self, slab: Slab) -> Array | None:
        """How much thicker the scalp is in each sample; None if it is swollen nowhere in this slab."""
        return None

    def opening(self, slab: Slab) -> Array | None:
        """Weight of the missing bone in each sample; None if no bone is missing in this slab."""
        return None


@dataclass(frozen=True)
class Fracture(Injury):
    """A linear fracture of the vault.

    Args:
        point: Middle of the fracture, on the inner table.
        across: Direction along the surface, perpendicular to the fracture.
        half_length: Half the length in mm.
    """

    name: ClassVar[str] = "fracture"
    point: Point
    across: Point
    half_length: float

    def opening(self, slab: Slab) -> Array | None:
        box = slab.near(self.point, self.half_length)
        if box is None:
            return None
        x, y, z = slab.offsets(self.point)
        # A fracture line is not quite straight.
        away = x * np.float32(self.across[0]) + y * np.float32(self.across[1]) + z * np.float32(self.across[2])
        away += np.float32(1.5) * np.sin(z * np.float32(0.23)) * np.float32(1 - abs(self.across[2]))
        crack = np.maximum(np.abs(away) - np.float32(FRACTURE_MM), np.sqrt(x * x + y * y + z * z) - np.float32(self.half_length))
        return cover(crack, slab.pixel_mm)


@dataclass(frozen=True)
class ScalpSwelling(Injury):
    """A subgaleal hematoma, ``height`` mm thick in the middle and thinning out over ``reach`` mm."""

    name: ClassVar[str] = "scalp_swelling"
    point: Point
    height: float
    reach: float

    def swelling_mm(self, slab: Slab) -> Array | None:
        if slab.near(self.point, 3 * self.reach) is None:
            return None
        x, y, z = slab.offsets(self.point)
        return np.float32(self.height) * np.exp((x * x + y * y + z * z) * np.float32(-0.5 / self.reach**2))


@dataclass(frozen=True)
class Craniotomy(Injury):
    """A bone flap between burr holes that was put back, or left out.

    Args:
        point: Middle of the flap, on the inner table.
        normal: Outward normal of the skull at the middle of the flap.
        radius: Radius of the flap in mm.
        holes: Positions of the burr holes.
        missing: Whether the flap was left out (craniectomy).
    """

    name: ClassVar[str] = "craniotomy"
    point: Point
    normal: Point
    radius: float
    holes: tuple[Point, ...]
    missing: bool

    def opening(self, slab: Slab) -> Array | None:
        if slab.near(self.point, self.radius + 12) is None:
            return None
        x, y, z = slab.offsets(self.point)
        outwards = x * np.float32(self.normal[0]) + y * np.float32(self.normal[1]) + z * np.float32(self.normal[2])
        chord = np.sqrt(x * x + y * y + z * z) - np.float32(self.radius)
        open_ = chord if self.missing else np.abs(chord) - np.float32(FLAP_GAP_MM)
        for hole in self.holes:
            hx, hy, hz = slab.offsets(hole)
            # Burr holes run along the flap's normal.
            along = hx * np.float32(self.normal[0]) + hy * np.float32(self.normal[1]) + hz * np.float32(self.normal[2])
            squared = hx * hx + hy * hy + hz * hz - along * along
            open_ = np.minimum(open_, np.sqrt(np.maximum(squared, 0)) - np.float32(BURR_HOLE_MM))
        return cover(open_, slab.pixel_mm) * (outwards > -np.float32(0.8 * self.radius))


def draw_injuries(rng: Rng, head: Head, lesions: tuple[Lesion, ...], difficulty: float) -> tuple[Injury, ...]:
    """Draw a patient's injuries: a fracture with most epidural hemorrhages, and injuries without hemorrhage."""
    injuries: list[Injury] = []
    for lesion in lesions:
        if isinstance(lesion, Lens):
            injuries += _blow(rng, head, np.array(lesion.ball), fracture=bool(rng.random() < 0.85))
    if not injuries and rng.random() < 0.25 * difficulty:
        direction = np.array([rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 1), rng.uniform(-1, 1), rng.uniform(0.1, 0.7)])
        injuries += _blow(rng, head, direction, fracture=bool(rng.random() < 0.3))
    if rng.random() < 0.2 * difficulty:
        injuries.append(_draw_craniotomy(rng, head))
    return tuple(injuries)


def _blow(rng: Rng, head: Head, direction: Array, fracture: bool) -> list[Injury]:
    """The injuries of bone and scalp that a blow from one direction causes."""
    surface = surface_point(head, direction)
    normal = surface_normal(head, surface)
    outer = surface + normal * (head.skull_mm + head.scalp_mm)
    found: list[Injury] = [ScalpSwelling(to_point(outer), float(rng.uniform(3.5, 7)), float(rng.uniform(16, 26)))]
    if fracture:
        # The fracture runs mostly upwards, so that axial slices cross it.
        across = np.cross(normal, np.array([0.0, rng.normal(0, 0.25), 1.0]))
        found.append(Fracture(to_point(surface), to_point(across / np.linalg.norm(across)), float(rng.uniform(22, 40))))
    return found


def _draw_craniotomy(rng: Rng, head: Head) -> Craniotomy:
    side = float(rng.choice([-1.0, 1.0]))
    surface = surface_point(head, np.array([side, rng.uniform(-0.6, 0.3), rng.uniform(0.3, 0.7)]))
    normal = surface_normal(head, surface)
    radius = float(rng.uniform(22, 34))
    first = np.cross(normal, [0.0, 0.0, 1.0])
    first /= np.linalg.norm(first)
    second = np.cross(normal, first)
    start = rng.uniform(0, 2 * np.pi)
    holes = []
    for angle in start + np.arange(3) * 2 * np.pi / 3:
        on_ring = surface + radius * (np.cos(angle) * first + np.sin(angle) * second)
        holes.append(to_point(surface_point(head, on_ring)))
    return Craniotomy(to_point(surface), to_point(normal), radius, tuple(holes), missing=bool(rng.random() < 0.2))
