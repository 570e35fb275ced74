"""Whether a volume shows a head, and where it ends below: by the ring of bone, the size and the air of its slices."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import cv2
import numpy as np

from ich_lstm.scan import HU_MIN

CELL_MM = 2.5
"""The rules look at the picture in cells of about this side; a cell is bone if any of its pixels is."""

BODY_HU, BONE_HU, AIR_HU, METAL_HU = -300, 200, -400, 3000

DIRECTIONS = 36
RING_DEPTH_MM = 25.0
"""A skull lies within 25 mm of the skin all round; a spine does not."""

HEAD_RING = 0.6
"""Share of the directions with bone below the skin. A large craniectomy opens a third; a neck shows a fifth."""

HEAD_AREA_CM2 = (40.0, 400.0)
HEAD_EXTENT_MM = 280.0
HEAD_AIR = 0.25
"""Sinuses and mastoids fill less than this of a section of the head; lungs more than a third of the chest."""

CLOSED_RING = 0.9
"""With more air (after surgery, or in a hollow phantom), the ring must be closed; that of the ribs is not."""

MIN_CRANIAL_MM, MIN_CRANIAL_SLICES = 20.0, 3

TRUNK_EXTENT_MM = 300.0
TRUNK_AIR, TRUNK_AREA_CM2 = 0.3, 200.0
OTHER_RING, OTHER_BONE = 0.3, 0.01
OTHER_SHARE = 0.8
"""A volume is refused only if four fifths of its slices are seen to be something else."""

MIN_SECTION_CM2 = 5.0
FULL_SHARE = 0.95
"""A section that fills the picture has no skin to be seen, and is not judged."""

NECK_MARGIN_MM = 40.0
"""Left below the lowest slice with a ring: the skull base, whose ring is open, and more."""

METAL_MM2 = 50.0

BRAIN_HU = (0, 80)
BRAIN_SHARE = 0.2
"""Less of the sections through the skull in that range is no brain: a real head had 56 %, one of plastic 3 %."""

Verdict = Literal["head", "other", "unclear"]


class SectionLook(NamedTuple):
    """What the rules see of one slice.

    Args:
        judged: Whether there is a section of a body with air around it.
        area_cm2: Of the section.
        extent_mm: Its longer side.
        ring: Share of the directions from its middle with bone within 25 mm of the skin.
        bone: Share of it that is bone.
        air: Share of it that is air.
    """

    judged: bool
    area_cm2: float = 0.0
    extent_mm: float = 0.0
    ring: float = 0.0
    bone: float = 0.0
    air: float = 0.0

    @property
    def is_cranial(self) -> bool:
        """Like a section through the skull."""
        low, high = HEAD_AREA_CM2
        fits = self.judged and low <= self.area_cm2 <= high and self.extent_mm <= HEAD_EXTENT_MM
        return fits and self.ring >= (HEAD_RING if self.air <= HEAD_AIR else CLOSED_RING)

    @property
    def is_other(self) -> bool:
        """Like a trunk, or like a limb, a neck or a spine: bone in the middle, none around."""
        trunk = self.extent_mm > TRUNK_EXTENT_MM or (self.air > TRUNK_AIR and self.area_cm2 > TRUNK_AREA_CM2)
        return self.judged and (trunk or (self.bone >= OTHER_BONE and self.ring < OTHER_RING))


def look_at_section(hu: np.ndarray, pixel_mm: float) -> SectionLook:
    """Look at one slice.

    Args:
        hu: int16 ``(h, w)``.
        pixel_mm: Side of its square pixels.
    """
    step = max(1, round(CELL_MM / pixel_mm))
    cell = step * pixel_mm
    height, width = (side // step * step for side in hu.shape)
    if min(height, width) < 8 * step:
        return SectionLook(False)
    cells = hu[:height, :width].reshape(height // step, step, width // step, step)
    # A frame of air, so that a body that is cut by the edge of the picture has a contour there too.
    densest = np.pad(cells.max(axis=(1, 3)), 1, constant_values=HU_MIN)
    middle = np.pad(cells[:, step // 2, :, step // 2], 1, constant_values=HU_MIN)
    contours, _ = cv2.findContours((middle > BODY_HU).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return SectionLook(False)
    body = np.zeros(middle.shape, np.uint8)
    cv2.drawContours(body, [max(contours, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    size = int(body.sum())
    area = size * cell**2 / 100
    if area < MIN_SECTION_CM2 or size > FULL_SHARE * (height // step) * (width // step):
        return SectionLook(False)
    rows, columns = np.nonzero(body)
    depth = cv2.distanceTransform(body, cv2.DIST_L2, 3) * cell
    bone = (densest > BONE_HU) & (body > 0)
    y, x = np.nonzero(bone & (depth <= RING_DEPTH_MM))
    angles = np.arctan2(y - rows.mean(), x - columns.mean())
    seen = np.unique(np.floor((angles / (2 * np.pi) + 0.5) * DIRECTIONS).astype(int) % DIRECTIONS)
    return SectionLook(
        True,
        area_cm2=area,
        extent_mm=float(max(np.ptp(rows), np.ptp(columns)) + 1) * cell,
        ring=len(seen) / DIRECTIONS,
        bone=float(bone.sum()) / size,
        air=float(((middle < AIR_HU) & (body > 0)).sum()) / size,
    )


def judge(looks: Sequence[SectionLook], step_mm: float) -> Verdict:
    """Say whether the slices are those of a head.

    A *head* has at least 3 slices, and 20 mm of them, whose section is as large as one through a skull (40 to 400 cm², at
    most 280 mm long) and has bone within 25 mm of the skin in at least 60 % of 36 directions (90 % if it holds more than 25 %
    air). It is
    something *other* only if there is no such thing, and at least four fifths of the slices show a trunk (more than 300 mm
    long, or more than 30 % air in more than 200 cm²) or a part with bone inside and little around (in less than 30 % of the
    directions: neck, spine, knee). The rest, phantoms without bone among it, is *unclear*: used, and flagged.

    Error: of 60 heads of :mod:`ich_lstm.phantom` and two real scans none is refused or flagged; of made necks, chests,
    abdomens and knees all are refused (``tests/reading/test_head.py``). Real other parts were not at hand.

    Args:
        looks: One per slice.
        step_mm: Their distance.
    """
    cranial = sum(look.is_cranial for look in looks)
    if cranial >= MIN_CRANIAL_SLICES and cranial * step_mm >= MIN_CRANIAL_MM:
        return "head"
    judged = [look for look in looks if look.judged]
    others = sum(look.is_other for look in judged)
    return "other" if judged and 2 * len(judged) > len(looks) and others >= OTHER_SHARE * len(judged) else "unclear"


def count_neck_slices(looks: Sequence[SectionLook], positions_mm: np.ndarray) -> int:
    """How many slices at the lower end lie more than 40 mm below the skull.

    Args:
        looks: One per slice, inferior to superior.
        positions_mm: Along the slice normal.
    """
    cranial = np.array([look.is_cranial for look in looks])
    # From below, the first slice that is cranial together with most of those above it: a jaw may close a ring by chance.
    for i in np.flatnonzero(cranial):
        above = cranial[i : i + 5]
        if above.sum() >= min(MIN_CRANIAL_SLICES, len(above)):
            return int(np.searchsorted(positions_mm, positions_mm[i] - NECK_MARGIN_MM))
    return 0


def brain_share(volume: np.ndarray, looks: Sequence[SectionLook], pixel_mm2: float) -> float:
    """The share of soft tissue in the sections through the skull, the middle one of them; 1 if there are none to judge by.

    Args:
        volume: HU ``(n, h, w)``.
        looks: One per slice.
        pixel_mm2: Area of a pixel.
    """
    low, high = BRAIN_HU
    shares = [
        np.count_nonzero((image >= low) & (image <= high)) * pixel_mm2 / 100 / look.area_cm2
        for image, look in zip(volume, looks, strict=True)
        if look.is_cranial
    ]
    return float(np.median(shares)) if shares else 1.0


def metal_mm2(hu: np.ndarray, pixel_mm2: float) -> float:
    """The largest area of metal in any slice of ``(n, h, w)``."""
    return max(int(np.count_nonzero(image >= METAL_HU)) for image in hu) * pixel_mm2
