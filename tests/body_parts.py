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


def make(folder: Path, shape_at: Callable[[float], Shape], count: int = 24, **elements: Any) -> Path:
    """A series of shapes by height, on a field of 512 mm."""

    def own(i: int) -> dict[str, Any]:
        corner = (*START, 5.0 * i)
        return {"ImagePositionPatient": list(corner), "hu": slice_hu(corner, anatomy=shape_at(5.0 * i), **FIELD)}  # type: ignore[arg-type]

    make_series(folder, count, PixelSpacing=[4, 4], change=own, **elements)
    return folder
