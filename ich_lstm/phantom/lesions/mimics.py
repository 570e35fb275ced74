"""Findings in the brain that are not hemorrhage: old infarcts, and calcifications as bright as blood or brighter."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from ich_lstm.phantom.anatomy.head import Head, surface_point
from ich_lstm.phantom.anatomy.shapes import Array, Point, cover, ellipsoid, paint, to_point
from ich_lstm.phantom.anatomy.tissues import CALCIFICATION, INFARCT
from ich_lstm.phantom.draws import Rng
from ich_lstm.phantom.lesions.lesion import Place

LACUNE_SITES: tuple[Point, ...] = ((23.0, -4.0, 4.0), (13.0, 10.0, 6.0), (20.0, 8.0, 14.0), (20.0, 40.0, -38.0))


class Mimic(Protocol):
    """A finding in the brain that is not hemorrhage."""

    name: ClassVar[str]

    def draw(self, place: Place) -> None:
        """Paint the finding into the brain."""


@dataclass(frozen=True)
class Infarct:
    """An old infarct: an irregular fluid-filled defect at the surface, or a lacune in the deep grey matter."""

    name: ClassVar[str] = "infarct"
    hu: float
    center: Point
    radii: Point
    rough: float

    def draw(self, place: Place) -> None:
        reach = 1.5 * max(self.radii) + 4
        box = place.brain_slab.near(self.center, reach)
        if box is None:
            return
        distance = ellipsoid(*place.brain_slab.cut(box).points, self.center, self.radii)
        distance += np.float32(self.rough * min(self.radii)) * place.texture[box]
        weight = cover(distance, 3.0) * cover(np.float32(0.5) - np.abs(place.brain.falx[box]), 1.0)
        paint(place.brain.hu[box], self.hu, weight * np.float32(0.95))


@dataclass(frozen=True)
class Calcification:
    """Calcification of both globi pallidi, or a plaque on the falx."""

    name: ClassVar[str] = "calcification"
    hu: float
    spots: tuple[tuple[Point, Point], ...]

    def draw(self, place: Place) -> None:
        for center, radii in self.spots:
            if box := place.brain_slab.near(center, max(radii) + 4):
                distance = ellipsoid(*place.brain_slab.cut(box).points, center, radii) + np.float32(0.7) * place.texture[box]
                paint(place.brain.hu[box], self.hu, cover(distance, 1.5))


def draw_mimics(rng: Rng, head: Head, difficulty: float) -> tuple[Mimic, ...]:
    """Draw a patient's old infarcts and calcifications, which are more likely in an older brain."""
    mimics: list[Mimic] = []
    age = 0.3 + 0.7 * head.atrophy
    if rng.random() < 0.45 * difficulty * age:
        mimics.append(_draw_infarct(rng, head))
    if rng.random() < 0.5 * difficulty * age:
        x, y, z = LACUNE_SITES[rng.integers(len(LACUNE_SITES))]
        side = float(rng.choice([-1.0, 1.0]))
        size = float(rng.uniform(2.5, 5))
        mimics.append(Infarct(_draw_hu(rng), (side * x, y, z), (size, 1.4 * size, size), 0.2))
    if rng.random() < 0.4 * difficulty * age:
        hu = float(rng.uniform(CALCIFICATION.low + 10, 200))
        radii = (2.6, float(rng.uniform(3, 6)), 3.5)
        mimics.append(Calcification(hu, tuple(((sign * 19.0, -2.0, 2.0), radii) for sign in (-1.0, 1.0))))
    if rng.random() < 0.4 * difficulty * age:
        center = (0.0, float(rng.uniform(-62, -45)), float(rng.uniform(20, 50)))
        plaque = (center, (1.3, float(rng.uniform(3, 9)), float(rng.uniform(3, 6))))
        mimics.append(Calcification(float(rng.uniform(200, CALCIFICATION.high - 20)), (plaque,)))
    return tuple(mimics)


def _draw_hu(rng: Rng) -> float:
    return float(rng.uniform(*INFARCT))


def _draw_infarct(rng: Rng, head: Head) -> Infarct:
    """A territory of the middle or posterior cerebral artery, as a wedge with its base at the surface."""
    side = float(rng.choice([-1.0, 1.0]))
    posterior = rng.random() < 0.3
    direction = (
        np.array([0.45 * side, 0.9, 0.05]) if posterior else np.array([side, rng.uniform(-0.4, 0.5), rng.uniform(0.0, 0.5)])
    )
    center = surface_point(head, direction) * 0.9
    radii: Array = rng.uniform(12, 21) * np.array([1.0, 1.3, 1.0]) * rng.uniform(0.85, 1.15, 3)
    return Infarct(_draw_hu(rng), to_point(center), to_point(radii), float(rng.uniform(0.15, 0.3)))
