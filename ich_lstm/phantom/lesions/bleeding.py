"""Draws the hemorrhages of a patient from common clinical histories: type, size, position and density of each lesion."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ich_lstm.phantom.anatomy.head import Head, surface_normal, surface_point
from ich_lstm.phantom.anatomy.shapes import Point, to_point
from ich_lstm.phantom.anatomy.sutures import bone_at
from ich_lstm.phantom.anatomy.tissues import BLOOD
from ich_lstm.phantom.draws import Rng
from ich_lstm.phantom.lesions.blood import Blood, draw_clot, draw_fresh, draw_hu, draw_subdural
from ich_lstm.phantom.lesions.extraaxial import Crescent, FalxLayer, Lens, TentoriumLayer
from ich_lstm.phantom.lesions.intraaxial import Clot, SulcalBlood, VentricleBlood
from ich_lstm.phantom.lesions.lesion import Lesion, Push

DEEP_SITES: tuple[tuple[float, float, float, float, float], ...] = (
    # |x|, y, z, smallest and largest radius
    (27.0, 0.0, 2.0, 11.0, 23.0),  # putamen
    (13.0, 11.0, 5.0, 9.0, 15.0),  # thalamus
    (22.0, 44.0, -36.0, 10.0, 17.0),  # cerebellum
    (4.0, 1.0, -29.0, 7.0, 10.0),  # pons
)
CONTUSION_SITES: tuple[tuple[Point, ...], ...] = (
    ((18.0, -62.0, -2.0), (22.0, -55.0, 4.0)),  # under the frontal lobe
    ((46.0, -16.0, -22.0), (50.0, -5.0, -18.0)),  # temporal pole
)

EPIDURAL_SITES: tuple[tuple[float, tuple[Point, Point]], ...] = (
    # share, and the limits of the direction: to the side, to the back, up
    (0.72, ((1.0, -0.3, -0.05), (1.0, 0.4, 0.55))),  # temporal and parietal
    (0.18, ((0.5, -1.0, 0.15), (0.8, -0.75, 0.5))),  # frontal
    (0.10, ((0.45, 0.9, 0.0), (0.7, 0.9, 0.12))),  # occipital
)


def draw_lesions(rng: Rng, head: Head, prevalence: float, difficulty: float) -> tuple[Lesion, ...]:
    """Draw the hemorrhages of one patient; a share of about ``1 - prevalence`` of all patients has none.

    Args:
        rng: Source of randomness.
        head: Head of the patient.
        prevalence: Share of patients with a hemorrhage.
        difficulty: Frequency of blood that is not acute, 0 to 1.

    Returns:
        The lesions in the order in which they are painted: from the centre outwards.
    """
    if rng.random() >= prevalence:
        return ()
    histories: tuple[Callable[[Rng, Head, float], list[Lesion]], ...] = (_hypertensive, _aneurysm, _trauma, _old_fall)
    history = histories[rng.choice(len(histories), p=(0.38, 0.2, 0.31, 0.11))]
    return tuple(history(rng, head, difficulty))


def _hypertensive(rng: Rng, head: Head, difficulty: float) -> list[Lesion]:
    """An intraparenchymal hemorrhage, deep or lobar, which may extend into the ventricles or to the surface."""
    clot = _deep_clot(rng, difficulty) if rng.random() < 0.65 else _lobar_clot(rng, head, difficulty)
    lesions: list[Lesion] = [clot]
    if rng.random() < 0.6:
        lesions.append(_ventricle_blood(rng, difficulty))
    if rng.random() < 0.2:
        lesions.append(_convexity_blood(rng, head, difficulty))
    return lesions


def _aneurysm(rng: Rng, head: Head, difficulty: float) -> list[Lesion]:
    """Blood in the basal cisterns, often also in the ventricles, and sometimes in the brain."""
    lesions: list[Lesion] = []
    if rng.random() < 0.2:
        lesions += _contusions(rng, 1, difficulty)
    if rng.random() < 0.6:
        lesions.append(_ventricle_blood(rng, difficulty))
    center = (float(rng.normal(0, 12)), -12.0, -12.0)
    blood = _diluted(rng, difficulty)
    lesions.append(SulcalBlood(blood, center, reach=float(rng.uniform(42, 64)), swelling=float(rng.uniform(0.9, 1.5))))
    return lesions


def _trauma(rng: Rng, head: Head, difficulty: float) -> list[Lesion]:
    """At least one of an extra-axial hemorrhage, subarachnoid blood, and contusions."""
    lesions: list[Lesion] = []
    side = _side(rng)
    if rng.random() < 0.4:
        lesions += _contusions(rng, int(rng.integers(1, 4)), difficulty)
    if rng.random() < 0.15:
        lesions.append(_ventricle_blood(rng, difficulty))
    if rng.random() < 0.45:
        lesions.append(_convexity_blood(rng, head, difficulty))
    extra_axial = rng.random()
    if extra_axial < 0.38:
        lesions.append(_epidural(rng, head, side, difficulty))
    elif extra_axial < 0.85 or not lesions:
        lesions.append(_subdural(rng, side, difficulty))
    if rng.random() < 0.15:
        lesions.append(_falx_layer(rng) if rng.random() < 0.6 else _tentorium_layer(rng))
    return lesions


def _old_fall(rng: Rng, head: Head, difficulty: float) -> list[Lesion]:
    """A subdural hemorrhage, on one side or, rarely, on both."""
    side = _side(rng)
    lesions: list[Lesion] = [_subdural(rng, side, difficulty)]
    if rng.random() < 0.2:
        lesions.append(_subdural(rng, -side, difficulty))
    if rng.random() < 0.25:
        lesions.append(_falx_layer(rng) if rng.random() < 0.6 else _tentorium_layer(rng))
    return lesions


def _diluted(rng: Rng, difficulty: float) -> Blood:
    """Blood mixed with CSF; the higher the difficulty, the more CSF."""
    low, high = BLOOD["diluted"]
    return Blood("diluted", float(rng.uniform(low + 3 + (1 - difficulty) * 12, high - 1)))


def _side(rng: Rng) -> float:
    return 1.0 if rng.random() < 0.5 else -1.0


def _deep_clot(rng: Rng, difficulty: float) -> Clot:
    x, y, z, low, high = DEEP_SITES[rng.choice(len(DEEP_SITES), p=(0.48, 0.27, 0.16, 0.09))]
    side = _side(rng)
    center = (side * x, y + float(rng.normal(0, 2.5)), z + float(rng.normal(0, 2.5)))
    return _clot(rng, center, float(rng.uniform(low, high)), side, difficulty)


def _lobar_clot(rng: Rng, head: Head, difficulty: float) -> Clot:
    side = _side(rng)
    direction = np.array([side * rng.uniform(0.35, 1), rng.uniform(-0.9, 0.9), rng.uniform(0.05, 0.8)])
    size = float(rng.uniform(10, 23))
    surface = surface_point(head, direction)
    center = surface * (1 - (size + rng.uniform(3, 12)) / np.linalg.norm(surface))
    return _clot(rng, to_point(center), size, side, difficulty)


def _contusions(rng: Rng, count: int, difficulty: float) -> list[Lesion]:
    """Contusions of one side, all acute: under a frontal lobe or in a temporal pole, where the brain slid over rough bone."""
    side, sites = _side(rng), CONTUSION_SITES[int(rng.integers(len(CONTUSION_SITES)))]
    clots: list[Lesion] = []
    for _ in range(count):
        x, y, z = sites[int(rng.integers(len(sites)))]
        jitter = rng.normal(0, 4, 3)
        center = (side * x + float(jitter[0]), y + float(jitter[1]), z + float(jitter[2]))
        clot = _clot(rng, center, float(rng.uniform(5, 12)), side, difficulty)
        # The salt-and-pepper pattern: small confluent clots with bruised brain between them.
        clots.append(replace(clot, rough=float(rng.uniform(0.3, 0.55)), blood=Blood("acute", draw_hu(rng, "acute"))))
    return clots


def _clot(rng: Rng, center: Point, size: float, side: float, difficulty: float) -> Clot:
    radii = size * rng.uniform(0.8, 1.2, 3)
    push = Push(center, (-side * 0.25 * size, 0.0, 0.0), reach=1.6 * size + 12) if size > 9 else None
    rim = float(rng.uniform(2.5, 6) + 0.22 * size)
    return Clot(draw_clot(rng, difficulty, center[1]), center, to_point(radii), rim, float(rng.uniform(0.5, 1.7) / size), push)


def _ventricle_blood(rng: Rng, difficulty: float) -> VentricleBlood:
    blood = draw_fresh(rng, difficulty, 10.0)
    if rng.random() < 0.5:
        return VentricleBlood(blood, level=float(rng.uniform(30, 50)), side=0.0)
    return VentricleBlood(blood, level=float(rng.uniform(-60, 10)), side=float(rng.integers(-1, 2)))


def _convexity_blood(rng: Rng, head: Head, difficulty: float) -> SulcalBlood:
    direction = np.array([_side(rng) * rng.uniform(0.3, 1), rng.uniform(-0.8, 0.8), rng.uniform(-0.1, 0.9)])
    center = to_point(surface_point(head, direction) * 0.93)
    reach, swelling = float(rng.uniform(27, 44)), float(rng.uniform(0.9, 1.5))
    return SulcalBlood(_diluted(rng, difficulty), center, reach, swelling)


def _epidural(rng: Rng, head: Head, side: float, difficulty: float) -> Lens:
    shares = [share for share, _ in EPIDURAL_SITES]
    low, high = EPIDURAL_SITES[rng.choice(len(EPIDURAL_SITES), p=shares)][1]
    direction = rng.uniform(low, high) * (side, 1.0, 1.0)
    surface = surface_point(head, direction)
    normal = surface_normal(head, surface)
    half_width = float(rng.uniform(23, 36))
    # The inner table bulges over the chord by its sagitta; the ball bulges below the chord by the rest of the thickness.
    sagitta = 72 - float(np.sqrt(72**2 - half_width**2))
    thickness = sagitta + float(rng.uniform(6, 16))
    inward = thickness - sagitta
    radius = (half_width**2 + inward**2) / (2 * inward)
    ball = surface + normal * (radius - thickness)
    push = Push(to_point(surface), to_point(-0.45 * thickness * normal), reach=42.0)
    return Lens(draw_fresh(rng, difficulty, float(surface[1])), to_point(ball), radius, bone_at(*to_point(surface)), push)


def _subdural(rng: Rng, side: float, difficulty: float) -> Crescent:
    direction = np.array([side, rng.uniform(-0.5, 0.5), rng.uniform(0.05, 0.6)])
    direction /= np.linalg.norm(direction)
    thickness = float(rng.uniform(7, 17))
    push = Push(to_point(direction * 62), (-side * 0.65 * thickness, 0.0, 0.0), reach=52.0)
    opening = float(np.deg2rad(rng.uniform(48, 78)))
    blood = draw_subdural(rng, difficulty, float(direction[1] * 62))
    return Crescent(blood, to_point(direction), thickness, opening, push=push)


def _falx_layer(rng: Rng) -> FalxLayer:
    center = (0.0, float(rng.choice([-50.0, 45.0])), float(rng.uniform(28, 45)))
    blood = Blood("acute", draw_hu(rng, "acute"))
    return FalxLayer(blood, _side(rng), float(rng.uniform(4.5, 8)), center, length=float(rng.uniform(30, 45)))


def _tentorium_layer(rng: Rng) -> TentoriumLayer:
    return TentoriumLayer(Blood("acute", draw_hu(rng, "acute")), _side(rng), float(rng.uniform(3, 6)))
