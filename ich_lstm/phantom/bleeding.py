"""Which blood a patient has: the common histories, and the size, place and density of each lesion."""

from collections.abc import Callable

import numpy as np

from ich_lstm.phantom.anatomy import Head, surface_normal, surface_point
from ich_lstm.phantom.lesions import Clot, Crescent, FalxLayer, Lens, Lesion, Push, SulcalBlood, VentricleBlood
from ich_lstm.phantom.shapes import Point

FAINT_SHARE = 0.08
"""Share of the lesions that are subacute: little brighter than grey matter."""

DEEP_SITES: tuple[tuple[float, float, float, float, float], ...] = (
    # |x|, y, z, smallest and largest radius
    (27.0, 0.0, 2.0, 11.0, 23.0),  # putamen
    (13.0, 11.0, 5.0, 9.0, 15.0),  # thalamus
    (22.0, 44.0, -36.0, 10.0, 17.0),  # cerebellum
    (4.0, 1.0, -29.0, 7.0, 10.0),  # pons
)
CONTUSION_SITES: tuple[Point, ...] = ((18.0, -62.0, -2.0), (22.0, -55.0, 4.0), (46.0, -16.0, -22.0), (50.0, -5.0, -18.0))

Rng = np.random.Generator


def draw_lesions(rng: Rng, head: Head, prevalence: float) -> tuple[Lesion, ...]:
    """Draw the hemorrhages of one patient; empty for about ``1 - prevalence`` of all.

    The lesions come in the order in which they are painted: from the depth outwards.
    """
    if rng.random() >= prevalence:
        return ()
    histories: tuple[Callable[[Rng, Head], list[Lesion]], ...] = (_hypertensive, _aneurysm, _trauma, _old_fall)
    history = histories[rng.choice(len(histories), p=(0.38, 0.2, 0.31, 0.11))]
    return tuple(history(rng, head))


def _hypertensive(rng: Rng, head: Head) -> list[Lesion]:
    """A bleed into the brain, deep or lobar, which may break into the ventricles or reach the surface."""
    clot = _deep_clot(rng) if rng.random() < 0.65 else _lobar_clot(rng, head)
    lesions: list[Lesion] = [clot]
    if rng.random() < 0.6:
        lesions.append(_ventricle_blood(rng))
    if rng.random() < 0.2:
        lesions.append(_convexity_blood(rng, head))
    return lesions


def _aneurysm(rng: Rng, head: Head) -> list[Lesion]:
    """Blood in the basal cisterns, often in the ventricles too, now and then in the brain."""
    lesions: list[Lesion] = []
    if rng.random() < 0.2:
        lesions.append(_contusion(rng))
    if rng.random() < 0.6:
        lesions.append(_ventricle_blood(rng))
    center = (float(rng.normal(0, 12)), -12.0, -12.0)
    lesions.append(SulcalBlood(_density(rng), center, reach=float(rng.uniform(42, 64)), swelling=float(rng.uniform(0.6, 1.2))))
    return lesions


def _trauma(rng: Rng, head: Head) -> list[Lesion]:
    """Blood over the brain of one side, subarachnoid blood and contusions: at least one of them."""
    lesions: list[Lesion] = []
    side = _side(rng)
    if rng.random() < 0.4:
        lesions += [_contusion(rng) for _ in range(int(rng.integers(1, 4)))]
    if rng.random() < 0.15:
        lesions.append(_ventricle_blood(rng))
    if rng.random() < 0.45:
        lesions.append(_convexity_blood(rng, head))
    extra_axial = rng.random()
    if extra_axial < 0.38:
        lesions.append(_epidural(rng, head, side))
    elif extra_axial < 0.85 or not lesions:
        lesions.append(_subdural(rng, side))
    if rng.random() < 0.15:
        lesions.append(_falx_layer(rng))
    return lesions


def _old_fall(rng: Rng, head: Head) -> list[Lesion]:
    """A subdural alone, on one side or, seldom, on both."""
    side = _side(rng)
    lesions: list[Lesion] = [_subdural(rng, side)]
    if rng.random() < 0.2:
        lesions.append(_subdural(rng, -side))
    if rng.random() < 0.25:
        lesions.append(_falx_layer(rng))
    return lesions


def _density(rng: Rng) -> float:
    """HU of the blood: mostly acute, some subacute."""
    return float(rng.uniform(48, 54) if rng.random() < FAINT_SHARE else rng.uniform(58, 76))


def _side(rng: Rng) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _deep_clot(rng: Rng) -> Clot:
    x, y, z, low, high = DEEP_SITES[rng.choice(len(DEEP_SITES), p=(0.48, 0.27, 0.16, 0.09))]
    side = _side(rng)
    center = (side * x, y + float(rng.normal(0, 2.5)), z + float(rng.normal(0, 2.5)))
    return _clot(rng, center, float(rng.uniform(low, high)), side)


def _lobar_clot(rng: Rng, head: Head) -> Clot:
    side = _side(rng)
    direction = np.array([side * rng.uniform(0.35, 1), rng.uniform(-0.9, 0.9), rng.uniform(0.05, 0.8)])
    size = float(rng.uniform(10, 23))
    surface = surface_point(head, direction)
    center = surface * (1 - (size + rng.uniform(3, 12)) / np.linalg.norm(surface))
    return _clot(rng, _point(center), size, side)


def _contusion(rng: Rng) -> Clot:
    x, y, z = CONTUSION_SITES[rng.integers(len(CONTUSION_SITES))]
    side = _side(rng)
    jitter = rng.normal(0, 3, 3)
    center = (side * x + float(jitter[0]), y + float(jitter[1]), z + float(jitter[2]))
    return _clot(rng, center, float(rng.uniform(7, 13)), side)


def _clot(rng: Rng, center: Point, size: float, side: float) -> Clot:
    radii = size * rng.uniform(0.8, 1.2, 3)
    push = Push(center, (-side * 0.25 * size, 0.0, 0.0), reach=1.6 * size + 12) if size > 9 else None
    rim = float(rng.uniform(3, 5) + 0.12 * size)
    return Clot(_density(rng) - 2, center, _point(radii), rim, rough=float(rng.uniform(0.08, 0.2)), push=push)


def _ventricle_blood(rng: Rng) -> VentricleBlood:
    density = _density(rng) - 3
    if rng.random() < 0.5:
        return VentricleBlood(density, level=float(rng.uniform(28, 47)), side=0.0)
    return VentricleBlood(density, level=float(rng.uniform(-60, 10)), side=float(rng.integers(-1, 2)))


def _convexity_blood(rng: Rng, head: Head) -> SulcalBlood:
    direction = np.array([_side(rng) * rng.uniform(0.3, 1), rng.uniform(-0.8, 0.8), rng.uniform(-0.1, 0.9)])
    center = surface_point(head, direction) * 0.93
    return SulcalBlood(_density(rng), _point(center), reach=float(rng.uniform(27, 44)), swelling=float(rng.uniform(0.7, 1.3)))


def _epidural(rng: Rng, head: Head, side: float) -> Lens:
    direction = np.array([side, rng.uniform(-0.7, 0.7), rng.uniform(-0.1, 0.6)])
    surface = surface_point(head, direction)
    normal = surface_normal(head, surface)
    half_width = float(rng.uniform(23, 36))
    # The inner table bulges over the chord by its sagitta; the ball bulges as far below it as thickness is left.
    sagitta = 72 - float(np.sqrt(72**2 - half_width**2))
    thickness = sagitta + float(rng.uniform(6, 16))
    inward = thickness - sagitta
    radius = (half_width**2 + inward**2) / (2 * inward)
    ball = surface + normal * (radius - thickness)
    push = Push(_point(surface), _point(-0.45 * thickness * normal), reach=42.0)
    return Lens(_density(rng), _point(ball), radius, push)


def _subdural(rng: Rng, side: float) -> Crescent:
    direction = np.array([side, rng.uniform(-0.5, 0.5), rng.uniform(0.05, 0.6)])
    direction /= np.linalg.norm(direction)
    thickness = float(rng.uniform(7, 17))
    push = Push(_point(direction * 62), (-side * 0.65 * thickness, 0.0, 0.0), reach=52.0)
    opening = float(np.deg2rad(rng.uniform(48, 78)))
    return Crescent(_density(rng), _point(direction), thickness, opening, push=push)


def _falx_layer(rng: Rng) -> FalxLayer:
    center = (0.0, float(rng.choice([-50.0, 45.0])), float(rng.uniform(28, 45)))
    return FalxLayer(_density(rng), _side(rng), float(rng.uniform(4.5, 8)), center, length=float(rng.uniform(30, 45)))


def _point(values: np.ndarray) -> Point:
    return float(values[0]), float(values[1]), float(values[2])
