"""Everything inside the skull of a head without hemorrhage: cortex, nuclei, ventricles, cisterns, falx, tentorium."""

from typing import NamedTuple

import numpy as np

from ich_lstm.phantom.anatomy.head import Head, behind_tentorium, ridge_y, tentorium_height
from ich_lstm.phantom.anatomy.shapes import Array, Point, cover, ellipsoid, paint, tube
from ich_lstm.phantom.anatomy.tissues import NUCLEUS_HU, STEM_HU
from ich_lstm.phantom.anatomy.vessels import Enhancement, paint_arteries, paint_plexus, sinuses
from ich_lstm.phantom.scanner.slab import Slab

FAR = np.float32(50.0)
"""A distance in mm that is larger than any softness: nothing is painted there."""

CORTEX_MM = 3.0

FOLIA_MM, WITH_FOLIA = 6.0, 0.35
"""Distance between the cerebellar fissures, and the atrophy from which they are visible."""

# Tubes that make up the left lateral ventricle: start, end, and the radii at both.
LATERAL_VENTRICLE: tuple[tuple[Point, Point, tuple[float, float]], ...] = (
    ((8.0, -31.0, 3.0), (7.5, -12.0, 13.0), (3.6, 5.2)),
    ((7.5, -12.0, 13.0), (12.0, 18.0, 20.0), (5.2, 5.2)),
    ((12.0, 18.0, 20.0), (23.0, 32.0, 7.0), (5.2, 6.8)),
    ((23.0, 32.0, 7.0), (22.0, 60.0, 2.0), (6.4, 2.0)),
    ((24.0, 30.0, 4.0), (31.0, 8.0, -14.0), (3.6, 2.2)),
    ((31.0, 8.0, -14.0), (29.0, -8.0, -20.0), (2.2, 2.4)),
)


class Brain(NamedTuple):
    """The intracranial layer of one slab; distances in mm, negative inside; all float32 ``(s, h, w)``.

    Args:
        hu: Hounsfield units.
        sulci: Distance to the CSF in the sulci and over the convexity.
        cisterns: Distance to the basal cisterns and the great fissures.
        ventricles: Distance to the ventricles.
        falx: Signed distance to the falx, positive on the left.
    """

    hu: Array
    sulci: Array
    cisterns: Array
    ventricles: Array
    falx: Array


def draw_brain(head: Head, slab: Slab, depth: Array, texture: Array, effaced: Array | None, vessels: Enhancement) -> Brain:
    """Draw the brain into a slab.

    Args:
        head: The head to which the brain belongs.
        slab: Sample points, in coordinates before any mass effect.
        depth: Distance from the inner surface of the skull in mm, positive inwards.
        texture: Smooth variation of unit variance.
        effaced: Degree of sulcal effacement, 0 to 1; None if there is no mass effect.
        vessels: Attenuation of arteries, veins and choroid plexus.
    """
    x, y, z = slab.points
    soft = slab.pixel_mm
    fossa = behind_tentorium(x, y, z, 1.0) if z.min() < 10 else np.zeros_like(x)
    sulci = _sulci(head, slab, depth, texture, fossa, effaced)
    stem = _brainstem(slab)
    fissures, falx = _fissures(head, slab, texture)
    cisterns = np.minimum(fissures, _cisterns(head, slab, stem, texture))
    ventricles = _ventricles(head, slab)

    hu = texture * np.float32(0.8) + np.float32(head.white_hu)
    # The cortex along the fissures is folded too, so its grey band varies in width.
    outer = np.minimum(sulci, fissures + np.float32(1) + np.float32(1.2) * texture)
    cortex = cover(outer - np.float32(CORTEX_MM), 2.2)
    paint(hu, head.grey_hu, np.maximum(cortex, np.float32(0.75) * fossa))
    _paint_nuclei(head, slab, hu)
    if stem is not None:
        for sign in (-1.0, 1.0):  # the white matter of the cerebellum
            if box := slab.near((sign * 17, 32, -36), 16):
                core = ellipsoid(*slab.cut(box).points, (sign * 17, 32, -36), (13, 9, 9))
                paint(hu[box], head.white_hu + 2, cover(core + np.float32(1.5) * texture[box], 4.0))
        paint(hu, STEM_HU, cover(stem, 3.0))
    # White matter is slightly darker around the ventricles, and more so with age.
    paint(hu, head.white_hu - 5 * head.atrophy, cover(ventricles - np.float32(3), 4.0) * np.float32(0.5 * head.atrophy))
    csf = np.minimum(np.minimum(sulci, cisterns), ventricles)
    if vessels.brain:
        hu += np.float32(vessels.brain)
    paint(hu, head.csf_hu, cover(csf, soft))
    if z.min() < 42:
        paint_arteries(slab, hu, vessels.artery)
        paint_plexus(slab, hu, vessels.plexus)
    _paint_dura(slab, hu, falx, stem, depth, vessels)
    _paint_calcium(head, slab, hu, texture)
    return Brain(hu, sulci, cisterns, ventricles, falx)


def _sulci(head: Head, slab: Slab, depth: Array, texture: Array, fossa: Array, effaced: Array | None) -> Array:
    """Distance to the CSF between skull and cortex and in the sulci."""
    x, y, z = slab.points
    pull = np.sqrt(np.float32(70) / np.sqrt(x * x + y * y + z * z + np.float32(25)))
    fold = np.abs(head.folds.at(x * pull, y * pull, z * pull))
    fold *= np.float32(head.folds.mm_per_unit)
    fold /= pull
    half_width = np.float32(0.3 + 0.95 * head.atrophy) + np.float32(0.35) * texture
    rim: Array | np.float32 = np.float32(0.3 + 1.3 * head.atrophy)
    if effaced is not None:
        half_width -= effaced * np.float32(1.3)
        rim = rim * (1 - effaced)
    half_width -= np.square(depth * np.float32(1 / 11.0))
    half_width -= np.float32(0.8) * fossa
    sulci = np.minimum(fold - half_width, depth - rim)
    if head.atrophy > WITH_FOLIA and z.min() < 0:
        np.minimum(sulci, _folia(head, slab, depth, texture, fossa), out=sulci)
    return sulci


def _folia(head: Head, slab: Slab, depth: Array, texture: Array, fossa: Array) -> Array:
    """Distance to the fissures between the cerebellar folia: arcs around the brainstem, visible with atrophy."""
    x, y, z = slab.points
    radius = np.sqrt(np.square(x * np.float32(0.8)) + np.square(y - 8) + np.square(z + 18))
    within = np.abs((radius + np.float32(1.2) * texture) * np.float32(1 / FOLIA_MM) % 1 - np.float32(0.5)) * np.float32(FOLIA_MM)
    within -= np.float32(1.1 * (head.atrophy - WITH_FOLIA)) - np.square(depth * np.float32(1 / 14))
    return np.where((fossa > 0.5) & (radius > 26), within, FAR)


def _brainstem(slab: Slab) -> Array | None:
    """Distance to midbrain, pons and medulla; None for a slab far above them."""
    if slab.z.min() > 8:
        return None
    x, y, z = slab.points
    midbrain = ellipsoid(x, y, z, (0, 7, -10), (14, 10, 14))
    peduncle = ellipsoid(np.abs(x), y, z, (8.5, -2, -10), (7, 8, 12))
    pons = tube(x * np.float32(0.85), y, z, (0, 2, -24), (0, 4, -36), (13.5, 12.5))
    medulla = tube(x, y, z, (0, 6, -40), (0, 18, -66), (9.5, 7.5))
    return np.minimum(np.minimum(midbrain, peduncle), np.minimum(pons, medulla))


def _fissures(head: Head, slab: Slab, texture: Array) -> tuple[Array, Array]:
    """Distance to the interhemispheric and Sylvian fissures; signed distance to the falx."""
    x, y, z = slab.points
    falx = x
    # The corpus callosum and the structures below it interrupt the fissure.
    callosum = ellipsoid(x, y, z, (0, -2, 8), (60, 38, 25))
    middle = np.maximum(np.abs(falx) - np.float32(0.7 + 1.2 * head.atrophy) + np.float32(0.4) * texture, -callosum)
    middle = np.maximum(middle, tentorium_height(x, y) - z - np.float32(60) * (y < 0))
    side = np.abs(x)
    width = 0.5 + 1.3 * head.atrophy
    if z.min() < 16 and z.max() > -26:
        tilted = z + np.float32(0.25) * (y + 10)
        flat = np.float32(0.45) * np.maximum(np.abs(tilted + 4) - 9, 0)
        outer = tube(side, y, flat, (46, -19, 0), (68, -23, 0), (width, width + 1.5))
        inner = tube(side, y, flat, (46, -19, 0), (37, -10, 0), (width, 0.8 * width))
        insula = tube(side, y, flat, (37, -10, 0), (40, 14, 0), (0.8 * width, 0.4 * width))
        sylvian = np.minimum(np.minimum(outer, inner), insula)
        middle = np.minimum(middle, sylvian + np.float32(0.7) * texture)
    return middle, falx


def _cisterns(head: Head, slab: Slab, stem: Array | None, texture: Array) -> Array:
    """Distance to the basal cisterns."""
    x, y, z = slab.points
    if stem is None:
        return np.full_like(x, FAR)
    # The cistern is narrow at the sides, where the temporal lobe touches the brainstem, and wider behind and in front of it.
    half_width = np.float32(0.9 * head.atrophy - 0.4) + np.square(y - 4) * np.float32(1 / 160) + np.float32(0.3) * texture
    half_width = np.minimum(half_width, np.float32(2.2))
    around = np.abs(stem - half_width) - half_width
    around = np.maximum(around, z + np.float32(5))
    # The cerebellar peduncles fill the space behind the pons.
    around = np.where((z < -20) & (y > 2), FAR, around)
    suprasellar = ellipsoid(x, y, z, (0, -13, -17), (14, 9, 6.5))
    arms = tube(np.abs(x), y, z, (6, -15, -15), (32, -17, -9), (2.2, 1.6))
    plate = ellipsoid(x, y, z, (0, 20, -3), (11, 4.5, 6))
    magna = ellipsoid(x, y, z, (0, 46, -55), (13, 9, 9))
    result = np.minimum(around, np.minimum(suprasellar, arms))
    return np.minimum(result, np.minimum(plate, magna))


def _ventricles(head: Head, slab: Slab) -> Array:
    """Distance to the lateral, third and fourth ventricles."""
    distance = np.full(slab.x.shape, FAR, np.float32)
    box = slab.near((0, 14, 4), 58)
    if box is None:
        return distance
    x, y, z = slab.cut(box).points
    here = distance[box]
    # The two ventricles differ in size: radii grow on the larger side.
    swell = np.float32(head.ventricle) * (1 + np.float32(head.ventricle_skew) * np.sign(x))
    side = np.abs(x)
    for start, end, radii in LATERAL_VENTRICLE:
        if z.min() > max(start[2], end[2]) + 12 or z.max() < min(start[2], end[2]) - 12:
            continue
        np.minimum(here, tube(side, y, z, start, end, radii, swell), out=here)
    # The septum separates the two ventricles.
    np.maximum(here, np.float32(0.7) - side, out=here)
    third = ellipsoid(x, y, z, (0, -2, -1), (0.9 + 1.8 * head.ventricle, 12, 9))
    fourth = ellipsoid(x, y, z, (0, 21, -34), (6.5 * head.ventricle + 2, 4.5, 9))
    np.minimum(here, np.minimum(third, fourth), out=here)
    return distance


def _paint_nuclei(head: Head, slab: Slab, hu: Array) -> None:
    """Thalamus, lentiform nucleus and head of the caudate: deep grey matter."""
    box = slab.near((0, 0, 4), 40)
    if box is None:
        return
    x, y, z = slab.cut(box).points
    side = np.abs(x)
    grow = 0.8 + 0.25 * head.ventricle
    shapes = (
        ellipsoid(side, y, z, (10.5 * grow, 10, 4), (8, 13, 9)),
        ellipsoid(side + np.float32(0.28) * y, y, z, (24, -1, 1), (6.5, 15, 10)),
        ellipsoid(side, y, z, (13.5 * grow, -20, 7), (5, 8, 10)),
    )
    for shape in shapes:
        paint(hu[box], NUCLEUS_HU, cover(shape, 3.0))


def _paint_dura(slab: Slab, hu: Array, falx: Array, stem: Array | None, depth: Array, vessels: Enhancement) -> None:
    """Falx, tentorium and venous sinuses: thin bright structures that are not hemorrhage."""
    x, y, z = slab.points
    free_edge = ellipsoid(x, y, z, (0, -4, 0), (60, 50, 36))
    sheet = np.maximum(np.abs(falx) - np.float32(0.55), -free_edge)
    sheet = np.maximum(sheet, tentorium_height(x, y) - z - np.float32(60) * (y < 0))
    if stem is not None:
        tent: Array = np.abs(z - tentorium_height(x, y))
        tent *= np.float32(0.92)
        tent -= np.float32(0.7)
        tent = np.maximum(tent, np.float32(5) - stem)
        sheet = np.minimum(sheet, np.maximum(tent, ridge_y(x) - y))
    paint(hu, vessels.dura, cover(sheet, slab.pixel_mm))
    paint(hu, vessels.vein, cover(sinuses(slab, falx, depth), slab.pixel_mm))


def _paint_calcium(head: Head, slab: Slab, hu: Array, texture: Array) -> None:
    """Calcified pineal and choroid plexus: as bright as blood or brighter, but not hemorrhage."""
    pineal, left, right = head.calcified
    spots = (
        ((0.0, 19.0, 3.0), pineal, (2.3, 2.8, 2.6)),
        ((22.0, 31.0, 8.0), left, (2.1, 3.8, 2.8)),
        ((-22.0, 31.0, 8.0), right, (2.1, 3.8, 2.8)),
    )
    for center, factor, radii in spots:
        if factor and (box := slab.near(center, 8)):
            x, y, z = slab.cut(box).points
            size = (radii[0] * factor, radii[1] * factor, radii[2] * factor)
            paint(hu[box], head.calcium_hu, cover(ellipsoid(x, y, z, center, size) + np.float32(0.6) * texture[box], 1.8))
