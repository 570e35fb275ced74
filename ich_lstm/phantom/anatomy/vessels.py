"""Arteries at the base of the brain, venous sinuses and choroid plexus, with and without a contrast agent."""

from typing import NamedTuple

import numpy as np

from ich_lstm.phantom.anatomy.head import tentorium_height
from ich_lstm.phantom.anatomy.shapes import Array, Point, cover, ellipsoid, paint, tube
from ich_lstm.phantom.anatomy.tissues import PLEXUS_HU, VESSEL_HU
from ich_lstm.phantom.scanner.slab import Slab

ARTERIES: tuple[tuple[Point, Point, tuple[float, float]], ...] = (
    ((0.0, -12.0, -40.0), (0.0, -11.0, -19.0), (1.6, 1.8)),  # basilar
    ((0.5, -10.5, -18.5), (13.0, -1.0, -15.0), (1.2, 1.1)),  # posterior cerebral
    ((13.0, -1.0, -15.0), (17.0, 15.0, -9.0), (1.1, 0.9)),
    ((8.0, -17.0, -26.0), (7.5, -15.0, -16.0), (2.2, 1.9)),  # internal carotid
    ((7.5, -15.0, -16.0), (31.0, -17.0, -10.0), (1.6, 1.3)),  # middle cerebral
    ((31.0, -17.0, -10.0), (39.0, -8.0, 0.0), (1.2, 1.0)),
    ((39.0, -8.0, 0.0), (41.0, 12.0, 8.0), (1.0, 0.8)),
    ((7.5, -15.0, -16.0), (1.5, -23.0, -13.0), (1.2, 1.1)),  # anterior cerebral
    ((1.5, -23.0, -13.0), (1.6, -40.0, 8.0), (1.1, 1.0)),
    ((1.6, -40.0, 8.0), (1.6, -24.0, 31.0), (1.0, 0.8)),
)
"""Start, end, and the radii at both, of the arteries on the left; the basilar artery lies in the midline."""


class Enhancement(NamedTuple):
    """Attenuation of the vessels, with or without a contrast agent, in HU.

    Args:
        artery: Attenuation of the arteries.
        vein: Attenuation of the venous sinuses.
        plexus: Attenuation of the choroid plexus.
        dura: Attenuation of falx and tentorium.
        brain: Increase of the brain's attenuation by its enhanced small vessels.
    """

    artery: float
    vein: float
    plexus: float
    dura: float
    brain: float


def enhancement(sinus_hu: float, dura_hu: float, contrast: bool) -> Enhancement:
    """Attenuation of the vessels of a patient whose sinuses and dura have these HU without contrast agent."""
    if contrast:
        return Enhancement(230.0, 195.0, 160.0, 90.0, 3.0)
    return Enhancement(VESSEL_HU, sinus_hu, PLEXUS_HU, dura_hu, 0.0)


def paint_arteries(slab: Slab, hu: Array, hu_artery: float) -> None:
    """Paint the circle of Willis and its branches."""
    for sign in (-1.0, 1.0):
        for start, end, radii in ARTERIES:
            middle = (sign * (start[0] + end[0]) / 2, (start[1] + end[1]) / 2, (start[2] + end[2]) / 2)
            half = 0.5 * float(np.linalg.norm(np.subtract(end, start)))
            if box := slab.near(middle, half + 3):
                x, y, z = slab.cut(box).points
                paint(hu[box], hu_artery, cover(tube(x * np.float32(sign), y, z, start, end, radii), slab.pixel_mm))


def paint_plexus(slab: Slab, hu: Array, hu_plexus: float) -> None:
    """Paint the choroid plexus in the atria of the lateral ventricles."""
    for sign in (-1.0, 1.0):
        center = (sign * 21.0, 30.0, 8.0)
        if box := slab.near(center, 9):
            paint(hu[box], hu_plexus, cover(ellipsoid(*slab.cut(box).points, center, (2.2, 5.5, 3.5)), 1.5))


def sinuses(slab: Slab, falx: Array, depth: Array) -> Array:
    """Distance to the superior sagittal, straight and transverse sinuses and the torcular."""
    x, y, z = slab.points
    # In the coronal plane the superior sagittal sinus is a triangle on the inner table; it widens towards the back.
    size = np.float32(3.6) + np.clip(y, -60, 70) * np.float32(0.018)
    sinus = np.maximum(np.abs(falx) + np.float32(0.8) * depth - size, np.float32(-10) - z)
    if z.min() > 20:
        return sinus
    sinus = np.minimum(sinus, tube(x, y, z, (0.0, 27.0, 4.0), (0.0, 76.0, -4.5), (1.9, 2.6)))
    wall = np.maximum(
        np.abs(z - tentorium_height(x, y) + 1) * np.float32(0.8) + depth * np.float32(0.7) - np.float32(4.2), 18 - y
    )
    return np.minimum(sinus, wall)
