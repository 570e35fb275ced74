"""Masks of the inside of the skull, so that images can be shown without the face, and of the whole head."""

import cv2
import numpy as np

from ich_lstm.reading.body.skull_interior import BONE_HU, ellipse, enclosed_regions
from ich_lstm.scan import HU_MIN

MIN_CAVITY_CM2 = 8.0
"""Smallest area of a cranial cavity; smaller ones are an orbit, a sinus or the spinal canal."""

TISSUE_HU = (-20.0, 110.0)
"""Range of the median HU of a cranial cavity: brain, CSF and blood, not the fat of an orbit or the air of a sinus."""

OVERLAP = 0.5
"""Smallest overlap of the cavities in neighbouring slices, as a share of the smaller one, at which they are the same cavity."""

MARGIN_MM = 6.0
"""Margin that is shown around the cavity: the inner part of the skull, without skin."""

BODY_HU = -300
"""Threshold in HU between air and everything else."""

LEAST_BONE = 0.015
"""Smallest share of bone pixels in a slice that shows the skull; above the vertex there is less."""

LOOKED_AT = 128
"""Longest side in pixels at which `head_mask` looks for the skull: finer than the cells of any heat map."""


def cranial_cavity(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> np.ndarray:
    """The inside of the skull in each slice.

    The cavity of a slice is the largest region enclosed by bone that is neither air nor fat. It is followed from the slice
    where it is largest, upwards and downwards while it overlaps. Slices with an open skull, as below its base, have none.

    Args:
        hu: Hounsfield units, int16 ``(n, h, w)``.
        spacing_mm: Slice spacing, row spacing, column spacing; 0 (unknown) in the plane counts as 0.5 mm.

    Returns:
        bool ``(n, h, w)``.
    """
    row_mm, column_mm = (mm or 0.5 for mm in spacing_mm[1:])
    cavities = np.stack([slice_cavity(image, row_mm, column_mm) for image in hu])
    sizes = cavities.sum(axis=(1, 2))
    found = np.zeros_like(cavities)
    if not sizes.any():
        return found
    middle = int(sizes.argmax())
    found[middle] = cavities[middle]
    for step in (1, -1):
        i = middle + step
        while 0 <= i < len(hu) and sizes[i]:
            shared = np.count_nonzero(cavities[i] & found[i - step])
            if shared < OVERLAP * min(sizes[i], sizes[i - step]):
                break
            found[i] = cavities[i]
            i += step
    return found


def without_face(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> tuple[np.ndarray, tuple[slice, slice], np.ndarray]:
    """Crop a head to its cranial cavity, and mask each slice to the convex hull of its cavity with a margin of 6 mm.

    Args:
        hu: Hounsfield units, int16 ``(n, h, w)``.
        spacing_mm: Slice spacing, row spacing, column spacing; 0 (unknown) in the plane counts as 0.5 mm.

    Returns:
        HU ``(n, h', w')`` with -1024 outside the hull, the rows and columns of the crop, and whether each slice has a cavity,
        bool ``(n,)``. If no slice has a cavity, each slice is one pixel of air.
    """
    row_mm, column_mm = (mm or 0.5 for mm in spacing_mm[1:])
    shown = np.stack([cavity_hull(cavity, row_mm, column_mm) for cavity in cranial_cavity(hu, spacing_mm)])
    has_cavity = np.array([bool(hull.any()) for hull in shown])
    rows, columns = (np.flatnonzero(shown.any(axis=axes)) for axes in ((0, 2), (0, 1)))
    if not len(rows):
        box = slice(0, 1), slice(0, 1)
        return np.full((len(hu), 1, 1), HU_MIN, np.int16), box, has_cavity
    box = slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)
    cut = np.where(shown[:, *box], hu[:, *box], np.int16(HU_MIN))
    return cut, box, has_cavity


def slice_cavity(image: np.ndarray, row_mm: float, column_mm: float) -> np.ndarray:
    """The largest region of soft tissue that bone encloses in one slice.

    Args:
        image: Hounsfield units, int16 ``(h, w)``.
        row_mm: Row spacing.
        column_mm: Column spacing.

    Returns:
        bool ``(h, w)``, empty where the skull is open or there is none.
    """
    for mask in enclosed_regions(image > BONE_HU, row_mm, column_mm):
        if np.count_nonzero(mask) * row_mm * column_mm < 100 * MIN_CAVITY_CM2:
            break
        if TISSUE_HU[0] <= float(np.median(image[mask])) <= TISSUE_HU[1]:
            return mask
    return np.zeros(image.shape, bool)


def cavity_hull(cavity: np.ndarray, row_mm: float, column_mm: float) -> np.ndarray:
    """The convex hull of a cavity and 6 mm around it.

    Args:
        cavity: bool ``(h, w)``, as `slice_cavity` gives it.
        row_mm: Row spacing.
        column_mm: Column spacing.

    Returns:
        bool ``(h, w)``, empty where the cavity is.
    """
    points = cv2.findNonZero(cavity.astype(np.uint8))
    if points is None:
        return np.zeros(cavity.shape, bool)
    hull = np.zeros(cavity.shape, np.uint8)
    cv2.fillConvexPoly(hull, cv2.convexHull(points), 1)
    return cv2.dilate(hull, ellipse(round(MARGIN_MM / row_mm), round(MARGIN_MM / column_mm))).astype(bool)


def head_mask(hu: np.ndarray) -> np.ndarray:
    """The skull and everything inside it: the convex hull of the bone in the largest region of tissue of a slice.

    A convex hull stays closed at eye sockets and at bone flaps that a surgeon has removed. If the slice has too little bone, the
    mask is the filled outline of the region.

    Args:
        hu: Hounsfield units of a slice, int16 ``(h, w)``.

    Returns:
        Mask at a lower resolution, bool ``(rows, columns)``.
    """
    step = -(-max(hu.shape) // LOOKED_AT)
    small = hu[::step, ::step]
    tissue = _largest_piece(small > BODY_HU)  # the largest piece excludes the table
    bone = tissue & (small > BONE_HU)
    mask = np.zeros(small.shape, np.uint8)
    if bone.sum() >= LEAST_BONE * bone.size:
        points = np.argwhere(bone)[:, ::-1].astype(np.int32)  # x, y
        cv2.fillConvexPoly(mask, cv2.convexHull(points), 1)
    else:
        outlines, _ = cv2.findContours(tissue.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(mask, outlines, -1, 1, cv2.FILLED)
    return mask.astype(bool)


def _largest_piece(mask: np.ndarray) -> np.ndarray:
    """The largest connected region of a mask ``(h, w)``; empty if the mask is empty."""
    count, pieces, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if count == 1:
        return np.zeros(mask.shape, bool)
    return pieces == 1 + int(facts[1:, cv2.CC_STAT_AREA].argmax())
