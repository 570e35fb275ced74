"""Averages thin slices to slabs of the thickness that networks are trained on; each slab records its slices."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ich_lstm.scan import HU_MIN, Note, Scan, Slab

SLAB_MM = 5.0
"""The usual slice thickness for reading head CT; most of RSNA's scans have it."""

THIN_MM = 2.5
"""The largest step between slices that are averaged: two slices 3 mm apart would make a slab of 6 mm, thicker than `SLAB_MM`."""

BREAK_RATIO = 1.5
"""A step longer than this multiple of the usual step is a gap; no slab extends across a gap."""

SAME_MM = 1e-3
"""Positions in files have about this resolution; distances that differ by less are equal."""

SHIFT_PIXELS = 0.1
"""Slices that are offset in their plane by at least this much are registered before they are averaged."""


def mean_slabs(
    scan: Scan, *, slab_mm: float = SLAB_MM, thickness_mm: float | None = None, origins_mm: np.ndarray | None = None
) -> Scan:
    """Average thin slices along their normal.

    The mean of 8 slices of 0.6 mm has about a third of their noise, and the thickness that networks are trained on. The
    number of slices per slab follows from their distance and their thickness, so overlapping thick slices are not averaged.
    If the stack does not run along the slice normal (a tilted gantry over a moving table), the slices of a slab are first
    registered to the middle slice. The middle slice also gives the slab its identifier; the slab's position along the normal
    is the mean over its slices.

    Args:
        scan: Any scan; a scan of thick slices is returned unchanged.
        slab_mm: Target thickness of a slab.
        thickness_mm: Slice Thickness (0018,0050); by default the distance between slices.
        origins_mm: In-plane origin of each slice, across and down, ``(n, 2)``; None if it is the same for all slices.

    Returns:
        A scan whose ``slabs`` hold the identifiers and positions of all slices, and whose repairs mention the averaging.

    Example:
        >>> thin = Scan(hu=np.zeros((8, 4, 4), np.int16), positions_mm=np.arange(8) * 1.25, spacing_mm=(1.25, 1, 1),
        ...             sop_uids=tuple("abcdefgh"), series_uid="1")
        >>> slabs = mean_slabs(thin)
        >>> slabs.positions_mm.tolist(), slabs.slabs[0].ids
        ([1.875, 6.875], ('a', 'b', 'c', 'd'))
    """
    step = scan.spacing_mm[0]
    per_slab = slices_per_slab(step, thickness_mm, slab_mm)
    if per_slab < 2:
        return scan
    groups = _groups(scan.positions_mm, step, per_slab)
    positions = np.array([scan.positions_mm[group].mean() for group in groups])
    middles = [_middle(scan.positions_mm, group) for group in groups]
    hu = np.stack([_mean(scan, group, middle, origins_mm) for group, middle in zip(groups, middles, strict=True)])
    size = f"{per_slab * step:.1f} mm"
    note = Note("slabs", f"{len(scan)} slices {step:.2f} mm apart averaged to {len(groups)} slabs of {size}")
    return replace(
        scan,
        hu=hu,
        positions_mm=positions,
        spacing_mm=(float(np.median(np.diff(positions))) if len(groups) > 1 else per_slab * step, *scan.spacing_mm[1:]),
        sop_uids=tuple(scan.sop_uids[i] for i in middles),
        slabs=tuple(
            Slab(tuple(scan.sop_uids[i] for i in group), tuple(float(scan.positions_mm[i]) for i in group)) for group in groups
        ),
        repairs=(*scan.repairs, note),
    )


def slices_per_slab(step_mm: float, thickness_mm: float | None = None, slab_mm: float = SLAB_MM) -> int:
    """The number of slices per slab; 1 if the slices are thick enough.

    Example:
        >>> slices_per_slab(0.625), slices_per_slab(0.625, 1.25), slices_per_slab(2.5, 5.0), slices_per_slab(3.0)
        (8, 7, 1, 1)
    """
    if not 0 < step_mm <= THIN_MM:
        return 1
    thickness = max(step_mm, thickness_mm or 0.0)
    return max(1, math.ceil((slab_mm - thickness) / step_mm - 0.5) + 1)  # rounds to the nearest integer, halves down


def _groups(positions: np.ndarray, step: float, per_slab: int) -> list[np.ndarray]:
    """Indices of the slices of each slab, by position; every slice is in one slab, and no slab extends across a gap."""
    groups: list[np.ndarray] = []
    for run in np.split(np.arange(len(positions)), np.flatnonzero(np.diff(positions) > BREAK_RATIO * step) + 1):
        bins = np.floor((positions[run] - positions[run[0]] + step / 2) / (per_slab * step)).astype(int)
        parts = np.split(run, np.flatnonzero(np.diff(bins)) + 1)
        if len(parts) > 1 and len(parts[-1]) < per_slab / 2:
            last = parts.pop()
            parts[-1] = np.concatenate([parts[-1], last])
        groups += parts
    return groups


def _middle(positions: np.ndarray, group: np.ndarray) -> int:
    """The slice of a slab that is nearest to the slab's mean position; the lower one of two that are equally near."""
    distances = abs(positions[group] - positions[group].mean())
    return int(group[np.flatnonzero(distances <= distances.min() + SAME_MM)[0]])


def _mean(scan: Scan, group: np.ndarray, middle: int, origins_mm: np.ndarray | None) -> np.ndarray:
    """The rounded mean of some slices on the grid of the middle slice, int16 ``(h, w)``."""
    images: Sequence[np.ndarray] = scan.hu[group]
    if origins_mm is not None:
        shifts = (origins_mm[middle] - origins_mm[group]) / np.array([scan.spacing_mm[2], scan.spacing_mm[1]])
        images = [_shifted(image, shift) for image, shift in zip(images, shifts, strict=True)]
    return np.rint(np.mean(images, axis=0, dtype=np.float32)).astype(np.int16)


def _shifted(image: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Translate an image so that its origin moves by ``shift`` pixels, across and down; the border is filled with air."""
    if (abs(shift) < SHIFT_PIXELS).all():
        return image
    import cv2

    matrix = np.array([[1, 0, shift[0]], [0, 1, shift[1]]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(image, matrix, image.shape[::-1], flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=HU_MIN)
