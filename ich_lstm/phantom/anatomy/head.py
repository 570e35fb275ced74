"""One head: its size and shape, and the surfaces between brain, skull, scalp and air.

Head coordinates are nominal millimetres of an average head: x to the patient's left, y to the back, z up, the origin
between the two thalami. A patient's head is the nominal head, scaled and deformed by the values of `Head`.
"""

from dataclasses import dataclass, field

import cv2
import numpy as np

from ich_lstm.phantom.anatomy.shapes import Array, Folds, Point, cover, to_point
from ich_lstm.phantom.anatomy.tissues import CALCIFICATION, CSF, DURA, GREY_MATTER, VENOUS_SINUS, WHITE_MATTER

HALF_WIDTH_MM, HALF_LENGTH_MM, HEIGHT_MM = 67.0, 84.0, 79.0
"""Dimensions of the inner surface of an average vault: half its width, half its length, and from the origin to the vertex."""

FLOOR_TOP_MM = -8.0
"""Height above which there is no skull base."""

LOWEST_MM = -60.0
"""Height of the foramen magnum; scans start there or above."""

_MAP_MM = 100.0
"""Half the side length of the map of the skull base."""


@dataclass(frozen=True, eq=False)
class Head:
    """What makes one patient's head differ from the average one; lengths in nominal mm.

    Args:
        scale: Size relative to the average head, along x, y and z.
        egg: How much narrower the forehead is than the back of the head.
        square: How far the corners of the vault bulge.
        skew: Asymmetry of the vault: one side is flattened at the back.
        skull_mm: Thickness of the vault.
        scalp_mm: Thickness of the scalp.
        atrophy: Brain atrophy, from 0 (young, narrow CSF spaces) to 1 (old, wide CSF spaces).
        ventricle: Factor on the radii of the ventricles.
        ventricle_skew: How much larger the left lateral ventricle is than the right.
        white_hu: Attenuation of white matter.
        grey_hu: Attenuation of grey matter.
        csf_hu: Attenuation of CSF.
        dura_hu: Attenuation of falx and tentorium.
        sinus_hu: Attenuation of the venous sinuses.
        calcium_hu: Attenuation of calcifications.
        calcified: Size factors of the calcified pineal, left and right choroid plexus; 0 for no calcification.
        air_cells: Pneumatization of mastoid and frontal sinus, 0 to 1.
        floor: Map of the skull base over (y, x), 1 mm per node: its height, and the distance per height difference.
        folds: Noise whose zero surfaces are the sulci.
    """

    scale: Point
    egg: float
    square: float
    skew: float
    skull_mm: float
    scalp_mm: float
    atrophy: float
    ventricle: float
    ventricle_skew: float
    white_hu: float
    grey_hu: float
    csf_hu: float
    dura_hu: float
    sinus_hu: float
    calcium_hu: float
    calcified: Point
    air_cells: float
    floor: Array = field(repr=False)
    folds: Folds = field(repr=False)


def draw_head(rng: np.random.Generator) -> Head:
    """Draw a patient's head; the head keeps the generator, so it must not be used again."""
    size = rng.normal(1.0, 0.035)
    width, length, height = size * rng.normal(1.0, 0.025, 3)
    atrophy = float(rng.beta(1.3, 1.6))
    calcified = rng.uniform(0.6, 1.3, 3) * (rng.random(3) < (0.7, 0.45, 0.45))
    return Head(
        scale=(float(width), float(length), float(height)),
        egg=float(rng.uniform(0.06, 0.13)),
        square=float(rng.uniform(0.1, 0.35)),
        skew=float(rng.normal(0, 0.04)),
        skull_mm=float(rng.uniform(4.8, 7.6)),
        scalp_mm=float(rng.uniform(3.5, 7.0)),
        atrophy=atrophy,
        ventricle=float(0.75 + 0.55 * atrophy + rng.normal(0, 0.08)),
        ventricle_skew=float(rng.normal(0, 0.08)),
        white_hu=float(np.clip(rng.normal(27.0, 1.0), WHITE_MATTER.low + 3, WHITE_MATTER.high - 1)),
        grey_hu=float(np.clip(rng.normal(38.5, 1.0), GREY_MATTER.low + 1, GREY_MATTER.high - 3)),
        csf_hu=float(rng.uniform(CSF.low + 3, CSF.high - 6)),
        dura_hu=float(rng.uniform(DURA.low + 5, DURA.high - 3)),
        sinus_hu=float(rng.uniform(VENOUS_SINUS.low + 2, VENOUS_SINUS.high - 3)),
        calcium_hu=float(rng.uniform(CALCIFICATION.low + 80, CALCIFICATION.high - 60)),
        calcified=to_point(calcified),
        air_cells=float(rng.uniform(0.4, 1.0)),
        floor=_draw_floor(rng),
        folds=Folds(rng, wavelength_mm=float(rng.uniform(19.0, 24.0))),
    )


def ridge_y(x: Array | float, base: Array | float = 0.0) -> Array:
    """Position of the petrous ridge: y as a function of the distance from the midline."""
    return np.abs(x) * np.float32(0.48) - np.float32(4.0) + base


def _draw_floor(rng: np.random.Generator) -> Array:
    """The height of the skull base over the (y, x) plane: three fossae, the ridges between them, the sella."""
    nodes = np.arange(-_MAP_MM, _MAP_MM + 1, dtype=np.float32)
    y, x = np.meshgrid(nodes, nodes, indexing="ij")
    side = np.abs(x)
    lift = rng.normal(0, 1.2, 4)
    front = -21 + lift[0] + 12 * np.exp(-(((side - 30) / 15) ** 2) - ((y + 64) / 18) ** 2)
    middle = -36 + lift[1] + 14 * np.exp(-((side / 15) ** 4))
    back = -58 + lift[2] + 34 * ((x / 61) ** 2 + ((y - 34) / 55) ** 2) ** 2.4
    back = np.minimum(back, -23)  # above, the vault itself is the wall
    wing = -20 - 0.28 * side
    ridge = ridge_y(x)
    after_wing = 1 / (1 + np.exp(-np.clip((y - wing) / 1.6, -30, 30)))
    after_ridge = 1 / (1 + np.exp(-np.clip((y - ridge) / 1.8, -30, 30)))
    height = front * (1 - after_wing) + after_wing * (middle * (1 - after_ridge) + back * after_ridge)
    height = np.maximum(height, -11 + lift[0] - 0.06 * side - 2.6 * np.abs(y - wing))
    crest = -20 + lift[3] - 0.05 * np.abs(side - 25) - 1.9 * np.abs(y - ridge)
    height = np.maximum(height, np.where(side > 6, crest, -100))
    height = cv2.GaussianBlur(np.minimum(height, FLOOR_TOP_MM).astype(np.float32), (0, 0), 1.3)
    # On a slope a difference of heights exceeds the distance to the surface.
    slope_y, slope_x = np.gradient(height)
    return np.dstack([height, 1 / np.sqrt(1 + np.minimum(slope_x**2 + slope_y**2, 6))]).astype(np.float32)


def vault_distance(head: Head, x: Array, y: Array, z: Array) -> Array:
    """Distance to the inner table of the vault in mm, negative inside.

    Below the origin the vault goes on as a tapering cylinder; the skull base then closes it (`floor_distance`).
    """
    z_round = np.maximum(z, 0) + np.minimum(z + 12, 0) * np.float32(0.62)
    v = y * np.float32(1 / HALF_LENGTH_MM)
    u = x / (np.float32(HALF_WIDTH_MM) * (1 + np.float32(head.egg) * np.clip(v, -1.2, 1.2)))
    w = z_round * np.float32(1 / HEIGHT_MM)
    uu, vv = u * u, v * v
    q = uu + vv + w * w + np.float32(1e-6)
    gauge = np.sqrt(q)
    # The corners bulge: by `square` in the axial plane, and by a constant between the sides and the top.
    bulge = np.float32(head.square) * uu * vv + np.float32(0.3) * (uu + vv) * w * w
    gauge *= 1 - (bulge + np.float32(head.skew) * u * v * q) / (q * q)
    radius = np.sqrt(x * x + y * y + z_round * z_round)
    return radius - radius / gauge


def floor_distance(head: Head, x: Array, y: Array, z: Array) -> Array:
    """Distance to the skull base in mm, negative above it; float32 ``(s, h, w)``."""
    rows, columns = x.shape[-2:]
    places_x = (x + np.float32(_MAP_MM)).reshape(-1, columns)
    places_y = (y + np.float32(_MAP_MM)).reshape(-1, columns)
    both = cv2.remap(head.floor, places_x, places_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    both = both.reshape(-1, rows, columns, 2)
    return (both[..., 0] - z) * both[..., 1]


def inner_distance(head: Head, x: Array, y: Array, z: Array) -> tuple[Array, Array]:
    """Distance to the inside of the skull, vault and base together, and to the vault alone; negative inside."""
    vault = vault_distance(head, x, y, z)
    if z.min() > FLOOR_TOP_MM + 6:
        return vault, vault
    return np.maximum(vault, floor_distance(head, x, y, z)), vault


def surface_point(head: Head, direction: Array) -> Array:
    """The point in mm where a ray from the origin meets the inner table of the vault."""
    direction = direction / np.linalg.norm(direction)
    low, high = 10.0, 140.0
    for _ in range(40):
        middle = (low + high) / 2
        point = np.array(direction * middle, np.float32).reshape(3, 1, 1, 1)
        low, high = (middle, high) if float(vault_distance(head, *point)[0, 0, 0]) < 0 else (low, middle)
    return direction * low


def surface_normal(head: Head, point: Array) -> Array:
    """The outward normal of the vault at a point of its inner table."""
    steps = np.eye(3) * 0.5
    pairs = [(point + s, point - s) for s in steps]
    flat = np.array([p for pair in pairs for p in pair], np.float32).T.reshape(3, 1, 1, 6)
    d = vault_distance(head, *flat).ravel()
    slope = d[0::2] - d[1::2]
    return slope / np.linalg.norm(slope)


def tentorium_height(x: Array, y: Array) -> Array:
    """Height of the tentorium in mm: a tent, highest behind the midbrain and falling to the transverse sinuses."""
    return np.float32(4) - np.float32(0.42) * np.abs(x) - np.float32(0.16) * np.maximum(y - 22, 0)


def behind_tentorium(x: Array, y: Array, z: Array, softness: float) -> Array:
    """Weight of the posterior fossa: 1 below the tentorium and behind the petrous ridge."""
    below = cover(z - tentorium_height(x, y), softness)
    below *= cover(ridge_y(x, -3.0) - y, softness)
    return below
