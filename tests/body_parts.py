"""Series of heads and of other parts of the body, as simple shapes on a field of 512 mm."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from dicom_files import make_series, slice_hu

Shape = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
FIELD = {"size": 128, "spacing": 4.0}
START = (-256.0, -256.0)


def ellipse(x: np.ndarray, y: np.ndarray, a: float, b: float, at: tuple[float, float] = (0.0, 0.0)) -> np.ndarray:
    return ((x - at[0]) / a) ** 2 + ((y - at[1]) / b) ** 2 < 1


def skull(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    hu = np.where(ellipse(x, y, 76, 95), 30.0, -1000.0)
    hu[ellipse(x, y, 72, 91) & ~ellipse(x, y, 64, 83)] = 900
    hu[ellipse(x, y, 64, 83)] = 32
    return hu


def craniectomy(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    hu = skull(x, y, z)
    hu[(x > 30) & (y < 40) & (hu > 200)] = 30
    return hu


def operated(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    hu = skull(x, y, z)
    hu[ellipse(x, y, 50, 45, (0, -20)) & ellipse(x, y, 64, 83)] = -990
    return hu


def neck(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    hu = np.where(ellipse(x, y, 62, 58), 40.0, -1000.0)
    hu[ellipse(x, y, 20, 16, (0, 14))] = 400
    hu[ellipse(x, y, 9, 8, (0, -20))] = -950
    return hu


def chest(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    hu = np.where(ellipse(x, y, 170, 115), 40.0, -1000.0)
    for side in (-80, 80):
        hu[ellipse(x, y, 60, 80, (side, 0))] = -850
    hu[ellipse(x, y, 22, 20, (0, 70))] = 400
    angle = np.arctan2(y, x)
    hu[ellipse(x, y, 165, 110) & ~ellipse(x, y, 155, 100) & (np.cos(8 * angle) > 0.6)] = 500
    return hu


def abdomen(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    hu = np.where(ellipse(x, y, 175, 120), 50.0, -1000.0)
    hu[ellipse(x, y, 24, 22, (0, 70))] = 350
    return hu


def knee(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    hu = np.where(ellipse(x, y, 65, 65), 40.0, -1000.0)
    hu[ellipse(x, y, 30, 25)] = 450
    return hu


def water(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return np.where(ellipse(x, y, 100, 100), 0.0, -1000.0)


# ------------------------------------------------------------------------------- parts that change from slice to slice
def tube(
    hu: np.ndarray, x: np.ndarray, y: np.ndarray, a: float, b: float, at: tuple[float, float], marrow: float, cortex: float = 4.0
) -> None:
    """A bone across the slice: cortex of 4 mm around marrow, which is fat in old people and spongy bone near the joints."""
    hu[ellipse(x, y, a, b, at)] = 1000
    hu[ellipse(x, y, a - cortex, b - cortex, at)] = marrow


def limb(x: np.ndarray, y: np.ndarray, a: float, b: float, at: tuple[float, float] = (0.0, 0.0), fat: float = 6.0) -> np.ndarray:
    """Skin and fat around muscle, in air."""
    hu = np.where(ellipse(x, y, a, b, at), -100.0, -1000.0)
    hu[ellipse(x, y, a - fat, b - fat, at)] = 50
    return hu


def one_leg(x: np.ndarray, y: np.ndarray, z: np.ndarray, at: float = 0.0, marrow: float = 40.0) -> np.ndarray:
    """From the sole (0 mm) over ankle (80), calf, knee (450) and thigh to the hip (850)."""
    height = float(np.mean(z))
    if height < 60:
        hu = limb(x, y, 44, 120, (at, -60), 4)
        tube(hu, x, y, 25, 42, (at, 12), marrow)
        for k in (-20, 0, 20):
            tube(hu, x, y, 9, 60, (at + k, -100), marrow, 3)
    elif height < 110:
        hu = limb(x, y, 36, 44, (at, 0), 3)
        tube(hu, x, y, 28, 34, (at, 0), marrow)
    elif height < 400:
        hu = limb(x, y, 40 + (height - 110) / 12, 45 + (height - 110) / 12, (at, 0))
        tube(hu, x, y, 16, 16, (at - 8, -14), -60, 5)
        tube(hu, x, y, 8, 8, (at + 20, 4), -60, 3)
    elif height < 500:
        hu = limb(x, y, 62, 65, (at, 0))
        tube(hu, x, y, 40, 30, (at, 0), marrow, 3)
        tube(hu, x, y, 20, 10, (at, -46), marrow, 3)
    else:
        hu = limb(x, y, 70 + (height - 500) / 30, 75 + (height - 500) / 30, (at, 0), 12)
        tube(hu, x, y, 16, 16, (at, -5), -60, 6)
    return hu


def legs(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Both legs beside each other on the table."""
    return on_table(np.maximum(one_leg(x, y, z, -95), one_leg(x, y, z, 95)), x, y)


def on_table(hu: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """With the table below: a thin shell of carbon around foam."""
    board = (abs(x) < 210) & (y > 150) & (y < 190)
    hu = np.where(board & (hu < -500), -930.0, hu)
    hu[board & ((y < 154) | (y > 186))] = 60
    return hu


def empty_table(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    return on_table(np.full(np.broadcast(x, y).shape, -1000.0), x, y)


def pelvis(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Iliac wings, sacrum, and lower down hips, pubis and coccyx; a child's by dividing x and y."""
    hu = limb(x, y, 175, 115, fat=20)
    low = float(np.mean(z)) % 200 < 80
    for side in (-1, 1):
        if low:
            tube(hu, x, y, 30, 30, (side * 90, 10), 120, 3)
            tube(hu, x, y, 45, 9, (side * 45, -55), 100, 3)
        else:
            wing = ellipse(x, y, 130, 75, (0, 5)) & ~ellipse(x, y, 116, 62, (0, 5)) & (side * x > 30) & (y > -55)
            hu[wing] = 700
    tube(hu, x, y, 14 if low else 45, 10 if low else 25, (0, 78), 120, 3)
    hu[ellipse(x, y, 35, 28, (0, 0))] = 8  # the bladder
    return on_table(hu, x, y)


def belly(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Liver, kidneys, gut with gas, a vertebra; no arms beside it."""
    hu = limb(x, y, 170, 120, fat=22)
    hu[ellipse(x, y, 70, 60, (-70, -20))] = 60
    hu[ellipse(x, y, 25, 18, (60, -60))] = -900
    tube(hu, x, y, 24, 20, (0, 62), 150, 3)
    hu[ellipse(x, y, 9, 8, (0, 90))] = 30
    hu[ellipse(x, y, 10, 10, (0, 105))] = 500
    return on_table(hu, x, y)


def thorax(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """Lungs, heart, oblique ribs, sternum and spine, and arms beside it."""
    hu = limb(x, y, 165, 112, fat=14)
    for side in (-80, 80):
        hu[ellipse(x, y, 58, 78, (side, -5))] = -850
    hu[ellipse(x, y, 45, 40, (25, -30))] = 40
    phase = 6 * np.arctan2(y, x) + np.mean(z) / 8
    hu[ellipse(x, y, 152, 100) & ~ellipse(x, y, 143, 91) & (np.cos(phase) > 0.2)] = 600
    tube(hu, x, y, 22, 18, (0, 70), 150, 3)
    hu[ellipse(x, y, 20, 6, (0, -97))] = 400
    for side in (-205, 205):
        hu = np.maximum(hu, limb(x, y, 35, 38, (side, 20)))
        tube(hu, x, y, 12, 12, (side, 20), -40)
    return on_table(hu, x, y)


def shoulders(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    hu = limb(x, y, 215, 80, fat=10)
    for side in (-1, 1):
        tube(hu, x, y, 26, 26, (side * 165, 0), 90, 3)
        tube(hu, x, y, 70, 7, (side * 80, -45), 150, 3)
    tube(hu, x, y, 20, 16, (0, 25), 150, 3)
    hu[ellipse(x, y, 9, 8, (0, -20))] = -980
    return on_table(hu, x, y)


def whole_head(x: np.ndarray, y: np.ndarray, z: np.ndarray, scale: float = 1.0) -> np.ndarray:
    """A closed skull, 160 mm high: base at 0 with the face below the brain, vertex at 160; smaller by ``scale``."""
    x, y = x / scale, y / scale
    height = float(np.mean(z)) / scale
    up = np.sqrt(max(0.0, 1 - (max(0.0, height - 50) / 105) ** 2))
    if up < 0.1 or height < 0:
        return np.full(np.broadcast(x, y).shape, -1000.0)
    a, b = 76 * up, 95 * up
    hu = limb(x, y, a, b, fat=3)
    hu[ellipse(x, y, a - 5, b - 5)] = 1000
    hu[ellipse(x, y, a - 11, b - 11)] = 33
    if height < 35:  # the face and the open base, and the fossa behind
        hu[ellipse(x, y, a, b) & (y < 10)] = 45
        hu[ellipse(x, y, 20, 22, (0, -45))] = -900
        hu[(abs(abs(x) - 34) < 4) & (abs(y + 50) < 25)] = 600
        hu[ellipse(x, y, a - 5, 12, (0, 4))] = 800
    return hu


def infant(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """A preterm infant's head: 8 x 10 cm outside, and an open fontanelle in front."""
    hu = whole_head(x, y, z, 0.55)
    hu[(abs(x) < 9) & (y < 0) & (hu > 200) & (np.mean(z) > 40)] = 30
    return hu


def dog(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """A large dog's skull of 30 cm² under muscle, and its snout."""
    hu = limb(x, y, 62, 62, fat=3)
    tube(hu, x, y, 34, 36, (0, 0), 33, 4)
    return hu if np.mean(z) < 90 else limb(x, y, 30, 34)


def trunk_of(part: Shape, scale: float) -> Shape:
    """A child's: the same, smaller."""
    return lambda x, y, z: part(x / scale, y / scale, z)


def body(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """From the pelvis (0 mm) to the vertex (960 mm)."""
    height = float(np.mean(z))
    for top, part in ((200, pelvis), (430, belly), (680, thorax), (730, shoulders)):
        if height < top:
            return part(x, y, z)
    return on_table(neck(x, y, z) if height < 800 else whole_head(x, y, z - 800), x, y)


def noisy(shape: Shape, sigma: float = 12.0) -> Shape:
    """With the noise of a scan of the body."""

    def draw(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        hu = shape(x, y, z)
        return hu + np.random.default_rng(int(np.mean(z) * 10) % 2**32).normal(0, sigma, hu.shape)

    return draw


def make(
    folder: Path,
    shape_at: Callable[[float], Shape],
    count: int = 24,
    *,
    step: float = 5.0,
    pixel_mm: float = 4.0,
    start_mm: float = 0.0,
    **elements: Any,
) -> Path:
    """A series of shapes by height, on a field of 128 pixels: 512 mm, if they have 4 mm."""
    corner = -64 * pixel_mm

    def own(i: int) -> dict[str, Any]:
        place = (corner, corner, start_mm + step * i)
        hu = slice_hu(place, anatomy=shape_at(place[2]), size=128, spacing=pixel_mm)
        return {"ImagePositionPatient": list(place), "hu": np.clip(hu, -1024, 3071)}

    make_series(folder, count, PixelSpacing=[pixel_mm, pixel_mm], change=own, **elements)
    return folder


OTHERS: dict[str, tuple[Shape, dict[str, float]]] = {
    "legs": (legs, {"count": 48, "step": 20}),
    "feet": (legs, {"count": 12}),
    "ankle": (one_leg, {"count": 16, "pixel_mm": 1.5, "start_mm": 40}),
    "thin-ankle": (one_leg, {"count": 40, "step": 1, "pixel_mm": 1.5, "start_mm": 55}),
    "large-foot": (trunk_of(one_leg, 1.1), {"count": 14, "pixel_mm": 2}),
    "fatty-leg": (lambda x, y, z: one_leg(x, y, z, 0, -80), {"count": 45, "step": 20, "pixel_mm": 2}),
    "knee": (one_leg, {"count": 20, "pixel_mm": 1.5, "start_mm": 400}),
    "arm": (trunk_of(one_leg, 0.6), {"count": 40, "pixel_mm": 2, "start_mm": 120}),
    "wrist": (trunk_of(one_leg, 0.7), {"count": 14, "pixel_mm": 1, "start_mm": 60}),
    "pelvis": (pelvis, {"count": 40}),
    "childs-pelvis": (trunk_of(pelvis, 0.45), {"count": 30, "pixel_mm": 2}),
    "adolescents-pelvis": (trunk_of(pelvis, 0.75), {"count": 30}),
    "abdomen": (belly, {"count": 30}),
    "chest": (thorax, {"count": 30}),
    "infants-chest": (trunk_of(thorax, 0.3), {"count": 30, "pixel_mm": 2}),
    "chest-and-abdomen": (lambda x, y, z: (thorax if np.mean(z) > 150 else belly)(x, y, z), {"count": 60}),
    "shoulders": (shoulders, {"count": 20}),
    "zoomed-spine": (lambda x, y, z: belly(x, y + 60, z), {"count": 30, "pixel_mm": 1.4}),
    "dog": (dog, {"count": 28, "pixel_mm": 2}),
    "empty-table": (empty_table, {"count": 20}),
}
"""Parts of the body that are no head: the shape, and how :func:`make` draws its series."""

HEADS: dict[str, tuple[Shape, dict[str, float]]] = {
    "adult": (whole_head, {"count": 34, "pixel_mm": 2}),
    "on-the-table": (lambda x, y, z: on_table(whole_head(x, y, z), x, y), {"count": 34}),
    "thick-slices": (whole_head, {"count": 17, "step": 10, "pixel_mm": 2}),
    "thin-slices": (whole_head, {"count": 160, "step": 1, "pixel_mm": 2}),
    "preterm-infant": (infant, {"count": 20, "pixel_mm": 2}),
    "preterm-infant-thin": (infant, {"count": 95, "step": 1, "pixel_mm": 1}),
}
"""Whole heads of several sizes and slice thicknesses."""
