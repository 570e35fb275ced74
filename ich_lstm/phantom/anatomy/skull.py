"""Everything outside the brain: skull, skull base with its air, orbits, face, scalp."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ich_lstm.phantom.anatomy.head import Head, ridge_y
from ich_lstm.phantom.anatomy.shapes import Array, Point, cover, ellipsoid, paint, tube
from ich_lstm.phantom.anatomy.sutures import gap
from ich_lstm.phantom.anatomy.tissues import (
    AIR_HU,
    BONE,
    DIPLOE_HU,
    FAT_HU,
    MUSCLE_HU,
    PETROUS_HU,
    SKIN_HU,
    SPONGY_HU,
    SWELLING_HU,
    TABLE_HU,
    THIN_BONE_HU,
)
from ich_lstm.phantom.lesions.injuries import SWOLLEN_MM, Injury
from ich_lstm.phantom.scanner.slab import Slab

FACE_TOP_MM = 2.0
"""Height above which there are only vault and scalp."""


class Grain(NamedTuple):
    """Three textures of unit variance, float32 ``(s, h, w)``: coarse (centimetres), middle, and fine (millimetres)."""

    coarse: Array
    middle: Array
    fine: Array


def draw_outside(head: Head, slab: Slab, inner: Array, vault: Array, grain: Grain, injuries: Sequence[Injury]) -> Array:
    """Draw everything except the brain into a slab.

    Args:
        head: The head to draw.
        slab: Sample points of the slice.
        inner: Signed distance to the inner surface of the skull; positive where this function draws.
        vault: Signed distance to the inner surface of the cranial vault alone.
        grain: Textures of bone, muscle and air cells.
        injuries: Injuries of skull and scalp.

    Returns:
        HU, float32 ``(s, h, w)``.
    """
    x, y, z = slab.points
    soft = slab.pixel_mm
    thick = np.float32(head.skull_mm) * (1 + np.float32(0.1) * grain.coarse + np.float32(0.18) * np.exp(-np.square(x / 18)))
    skin = vault - thick - np.float32(head.scalp_mm)
    swellings = [swelling for injury in injuries if (swelling := injury.swelling_mm(slab)) is not None]
    for swelling in swellings:
        skin -= swelling
    low = z.min() < FACE_TOP_MM
    if low:
        skin = np.minimum(skin, _face_outline(slab))
    hu = np.full_like(x, AIR_HU)
    paint(hu, SKIN_HU, cover(skin, soft))
    under = cover(skin + np.float32(1.8), soft)
    paint(hu, FAT_HU, under)
    paint(hu, MUSCLE_HU, under * _muscle(slab, vault - thick, grain))
    for swelling in swellings:
        # The swelling lies under the galea, so the fat stays next to the skin.
        bruise = np.maximum(vault - thick - swelling - np.float32(0.3 * head.scalp_mm), np.float32(SWOLLEN_MM) - swelling)
        paint(hu, SWELLING_HU, under * cover(bruise, 1.5))
    if low:
        _paint_face(slab, hu, grain)
    # The skull base is thinner than the vault.
    wall = np.where(vault > 0, thick, np.where(y < -24, np.float32(1.3), np.float32(2.6))) if low else thick
    share = np.clip(inner / wall, 0, 1)
    spongy = np.clip(np.float32(1.5) - np.abs(share - np.float32(0.5)) * 5, 0, 1)
    bone = np.float32(TABLE_HU) - spongy * (np.float32(TABLE_HU - DIPLOE_HU) + np.float32(130) * grain.middle)
    _open(slab, bone, vault, grain, injuries)
    paint(hu, np.minimum(bone, BONE.high), cover(inner - wall, soft))
    if low:
        _paint_base(head, slab, hu, grain)
    return hu


def _open(slab: Slab, bone: Array, vault: Array, grain: Grain, injuries: Sequence[Injury]) -> None:
    """Remove sutures, fractures and surgical openings from the bone, in place."""
    if slab.z.max() > -6:
        paint(bone, SWELLING_HU, cover(gap(*slab.points, grain.fine), slab.pixel_mm) * np.float32(0.7))
    for injury in injuries:
        opening = injury.opening(slab)
        if opening is not None:
            paint(bone, SWELLING_HU, opening * (vault > -4))


def _face_outline(slab: Slab) -> Array:
    x, y, z = slab.points
    face = ellipsoid(x, y, z, (0, -34, -44), (66, 70, 52))
    nose = ellipsoid(x, y, z, (0, -102, -46), (10, 17, 20))
    ears = ellipsoid(np.abs(x), y, z, (80, 12, -26), (4.5, 13, 22))
    return np.minimum(np.minimum(face, nose), ears)


def _muscle(slab: Slab, beyond_skull: Array, grain: Grain) -> Array:
    """Weight of muscle under the skin: the temporal muscles, and most of the tissue below the skull base."""
    x, y, z = slab.points
    reach = np.float32(7) - np.abs(y + 18) * np.float32(0.16) - np.maximum(z - 5, 0) * np.float32(0.2)
    temporal = cover(beyond_skull - reach, 1.5) * cover(_temporal_edge(x, y) + 2 * grain.middle, 3.0)
    neck = cover(z + np.float32(28), 6.0) * cover(np.float32(0.15) - np.abs(grain.middle), 0.2)
    return np.maximum(temporal, neck)


def _temporal_edge(x: Array, y: Array) -> Array:
    """Signed distance to the medial edge of the temporal muscle, which fills the fossa beside the outer wall of the orbit."""
    return np.float32(20) - np.minimum(y + 36, 0) * np.float32(0.75) - np.abs(x)


def _paint_base(head: Head, slab: Slab, hu: Array, grain: Grain) -> None:
    """Paint the petrous bones with mastoid cells and ear, the sphenoid with its sinus, the clivus, and the frontal sinus."""
    x, y, z = slab.points
    soft = slab.pixel_mm
    side = np.abs(x)
    across = np.abs(y - ridge_y(x)) * np.float32(0.9)
    petrous = np.maximum(across - np.float32(5.5) - np.maximum(-24 - z, 0) * np.float32(0.3), z + np.float32(22))
    petrous = np.maximum(np.maximum(petrous, -50 - z), np.maximum(side - 70, 9 - side))
    below = cover(petrous, soft)
    paint(hu, np.clip(np.float32(PETROUS_HU) + np.float32(330) * grain.fine, BONE.low, BONE.high), below)
    cells = below * cover(np.float32(40) - side, 4.0) * cover(np.float32(0.6 - head.air_cells) - grain.fine, 0.8)
    paint(hu, -820.0, cells)
    _fill(slab, hu, (75, 12, -36), (49, 14, -34), (3.5, 3.0), AIR_HU)
    _fill(slab, hu, (44, 13, -33), (42, 11, -31), (4.5, 3.0), AIR_HU)
    middle_bone = np.maximum(np.maximum(side - 15, np.abs(y + 12) - 19), np.maximum(z + 23, -48 - z))
    clivus = np.maximum(np.maximum(side - 13, np.abs(y + 3 + np.float32(0.35) * (z + 20)) - 5), np.maximum(z + 20, -62 - z))
    paint(hu, np.float32(SPONGY_HU) + np.float32(90) * grain.middle, cover(np.minimum(middle_bone, clivus), soft))
    for sign in (-1.0, 1.0):
        _fill(slab, hu, (sign * 6.5, -24, -31), (sign * 6.5, -19, -35), (6.0, 6.5), AIR_HU)
        _shell(slab, hu, (sign * 9 + 2, -88, -4), (10 * head.air_cells + 3, 4.5, 11 * head.air_cells + 3), 2.0)


def _paint_face(slab: Slab, hu: Array, grain: Grain) -> None:
    """Paint the orbits with their contents, the nose and its sinuses, zygoma and jaw."""
    if box := slab.near((0, -58, -44), 46):
        # Ethmoid cells: air between thin walls, and the septum.
        x, y, z = slab.cut(box).points
        side = np.abs(x)
        nose = np.maximum(side - 11 - np.maximum(-44 - z, 0) * np.float32(0.2), np.abs(y + 58) - 27)
        weight = cover(np.maximum(nose, np.abs(z + 43) - 24), slab.pixel_mm)
        paint(hu[box], 350.0, weight)
        weight *= cover(np.float32(0.5) - np.abs(grain.fine[box]), 0.3) * cover(np.float32(0.9) - side, 1.0)
        paint(hu[box], AIR_HU, weight)
    for sign in (-1.0, 1.0):
        _shell(slab, hu, (sign * 27, -64, -64), (15, 17, 13), 1.6)
        for start, end, radii, value in (
            ((58, -66, -44), (68, -38, -46), (3.2, 2.4), 1000.0),
            ((68, -38, -46), (68, 0, -44), (2.4, 3.0), 1000.0),
            ((45, -78, -50), (57, -68, -44), (6.0, 4.0), 800.0),
            ((48, 0, -50), (54, 0, -52), (5.5, 5.5), 900.0),
        ):
            _fill(slab, hu, (sign * start[0], *start[1:]), (sign * end[0], *end[1:]), radii, value)
        _paint_orbit(slab, hu, sign)


def _paint_orbit(slab: Slab, hu: Array, sign: float) -> None:
    """Paint one orbit: a cone of fat in thin bone, the globe with its lens, optic nerve and muscles."""
    box = slab.near((sign * 24, -66, -32), 36)
    if box is None:
        return
    part = slab.cut(box)
    here = hu[box]
    x, y, z = part.x * np.float32(sign), part.y, part.z
    soft = slab.pixel_mm
    cone = tube(x, y, z, (31, -80, -31), (11, -36, -28), (18.5, 4.0))
    wall = cover(cone - np.float32(1.7), soft) * cover(np.float32(-82) - y + np.float32(0.25) * (x - 20), 2.0)
    paint(here, THIN_BONE_HU, wall)
    paint(here, FAT_HU, cover(np.maximum(cone, -96 - y), soft))
    for start, end, radii in (
        ((31, -70, -33), (12, -36, -28), (2.0, 2.0)),
        ((19, -74, -33), (10, -40, -28), (1.7, 1.4)),
        ((44, -72, -33), (15, -38, -28), (1.7, 1.4)),
        ((32, -70, -20), (13, -38, -24), (1.8, 1.4)),
        ((30, -70, -45), (13, -38, -31), (1.8, 1.4)),
    ):
        paint(here, 42.0, cover(tube(x, y, z, start, end, radii), soft))
    globe = ellipsoid(x, y, z, (32, -83, -33), (12.3, 12.3, 12.3))
    paint(here, 45.0, cover(globe, soft))
    paint(here, 12.0, cover(globe + np.float32(1.5), soft))
    paint(here, 85.0, cover(ellipsoid(x, y, z, (32, -91.5, -33), (4.6, 2.2, 4.6)), soft))


def _fill(slab: Slab, hu: Array, start: Point, end: Point, radii: tuple[float, float], value: float) -> None:
    """Paint a tube with one value."""
    middle = ((start[0] + end[0]) / 2, (start[1] + end[1]) / 2, (start[2] + end[2]) / 2)
    reach = 0.5 * float(np.hypot(np.hypot(start[0] - end[0], start[1] - end[1]), start[2] - end[2])) + max(radii) + 2
    if box := slab.near(middle, reach):
        paint(hu[box], value, cover(tube(*slab.cut(box).points, start, end, radii), slab.pixel_mm))


def _shell(slab: Slab, hu: Array, center: Point, radii: Point, wall_mm: float) -> None:
    """Paint an air-filled cavity with a bony wall."""
    if box := slab.near(center, max(radii) + wall_mm + 2):
        shape = ellipsoid(*slab.cut(box).points, center, radii)
        paint(hu[box], THIN_BONE_HU, cover(shape - np.float32(wall_mm), slab.pixel_mm))
        paint(hu[box], AIR_HU, cover(shape, slab.pixel_mm))
