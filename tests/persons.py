"""Fabricate heads whose pixels say whose they are: the brain of person n has 20 + n HU, whatever the header says."""

from pathlib import Path
from typing import Any

import numpy as np
from dicom_files import make_series, slice_hu

from ich_lstm.scan import Scan

BRAIN_HU = 20


def head_of(person: int, z: float, size: int = 32, spacing: float = 6.0) -> np.ndarray:
    """One slice of a skull around a brain of one value, HU ``(size, size)``."""

    def anatomy(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
        radius = np.sqrt((x / 70) ** 2 + (y / 85) ** 2)
        hu = np.full(np.broadcast(x, y, z).shape, -1000.0)
        hu[radius < 1] = 900
        hu[radius < 0.88] = BRAIN_HU + person
        return hu

    return slice_hu((-96, -96, z), size=size, spacing=spacing, anatomy=anatomy)


def make_person(folder: Path, person: int, count: int = 8, *, start_mm: float = -20, **elements: Any) -> list[Path]:
    """A series of one person's head.

    Args:
        folder: Where to; files are ``0.dcm`` and so on.
        person: Whose.
        count: Number of slices, 5 mm apart.
        start_mm: Position of the lowest.
        **elements: Of all slices, as of `make_series`.
    """
    own: dict[str, Any] = {
        "PatientID": f"P{person}",
        "PatientName": f"Name{person}^Of",
        "AccessionNumber": f"A{person}",
        "StudyInstanceUID": f"1.2.9.{person}",
        "SeriesInstanceUID": f"1.2.9.{person}.1",
        "StudyDate": f"2024{person % 12 + 1:02}{person % 28 + 1:02}",
    }
    change = elements.pop("change", None)

    def of_slice(i: int) -> dict[str, Any]:
        return {"hu": head_of(person, start_mm + 5 * i), **(change(i) if change else {})}

    return make_series(folder, count, start=(-96, -96, start_mm), change=of_slice, **(own | elements))


def persons_in(scan: Scan) -> set[int]:
    """Whose slices a scan has."""
    middle = scan.hu.shape[1] // 2
    return {int(image[middle, middle]) - BRAIN_HU for image in scan.hu}
