"""Decides from the skull whether a volume shows a head, how much of the head it covers, and where the head ends."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import cv2
import numpy as np

from ich_lstm.reading.body.skull_interior import BONE_HU, enclosed_regions
from ich_lstm.scan import HU_MIN

CELL_MM = 2.5
"""The image is reduced to cells of about this side length; a cell is bone if any of its pixels is."""

BODY_HU, AIR_HU, METAL_HU = -300, -400, 3000

DIRECTIONS = 36
RING_DEPTH_MM = 25.0
"""A skull lies within 25 mm of the skin on all sides; a spine does not."""

HEAD_RING = 0.6
"""Minimum share of directions with bone below the skin. A large craniectomy opens a third of them; a neck has bone in a fifth."""

HEAD_ASPECT = 1.6
"""Maximum ratio of the longer to the shorter side. A head with its nose has at most 1.5, the sole of a foot 2.5."""

OPEN_RUN = 0.5
"""An open skull still has bone in an unbroken half of the directions; ribs leave gaps all around."""

HEAD_AREA_CM2 = (40.0, 400.0)
HEAD_EXTENT_MM = 280.0
HEAD_AIR = 0.25
"""Maximum share of air in a head. Sinuses and mastoids fill less than this; lungs fill more than a third of the chest."""

CLOSED_RING = 0.9
"""Minimum ring for a section with more air (after surgery, or a hollow phantom). The ring of the ribs has gaps."""

MIN_CAVITY_CM2, MAX_CAVITY_CM2 = 8.0, 350.0
"""Area enclosed by one section of a skull. An eye, a sinus, marrow or the spinal canal encloses less; a trunk encloses more."""

SKULL_CM2 = 40.0
"""Minimum area of the largest cavity. A preterm infant has 50 cm²; the marrow of a tibial plateau 30, a large dog's skull 35."""

OPEN_CM2 = 100.0
"""Minimum area within the convex hull of an open ring of bone. It admits an adult's skull after surgery, not a child's pelvis."""

SKULL_ML = 150.0
"""Minimum volume of all cavities. A preterm infant's skull holds 200 ml, an adult's 1,400, a dog's 100."""

SKULL_MM = (60.0, 250.0)
"""Height of a whole skull along the normal. A longer tube of bone, or a cast, is not a skull."""

BRIDGE_MM = 20.0
"""Sections without a cavity are bridged over this distance: artifacts or surgery may open the skull there."""

TRUNK_EXTENT_MM = 300.0
TRUNK_AIR, TRUNK_AREA_CM2 = 0.3, 200.0
OTHER_RING, OTHER_BONE = 0.3, 0.01
OTHER_SHARE = 0.5
"""A volume without a skull is refused if at least half of its sections show another part of the body."""

MIN_SECTION_CM2 = 5.0
FULL_SHARE = 0.95
"""A section that fills more of the image than this shows no skin; the edge of the image is taken as its contour."""

NECK_MARGIN_MM = 40.0
"""Slices kept below the lowest section of the skull: they hold its base, whose ring of bone is open, and a margin."""

METAL_MM2 = 50.0

BRAIN_HU = (0, 80)
BRAIN_SHARE = 0.2
"""Minimum share of brain density within the skull: real heads had at least 97 %, a plastic head 3 %."""

EVIDENT_BRAIN_SHARE = 0.6
"""Minimum share of brain density for a skull lower than 60 mm at the end of a series to count as a head that was cut short."""

HEAD_MM = 100.0
"""Minimum height of a head from base to vertex. Only very small infants are shorter; both ends of their heads are visible."""

TOP_SHARE, BOTTOM_SHARE = 0.4, 0.5
"""Shares of the largest cavity. In 95 real heads the last section had at most 0.26 of it, the first at most 0.29."""

ERASED_CM2 = 10.0
"""A region of exactly 0 HU that is this large has no noise, so no scanner produced it."""

MIN_ERASED_SLICES = 3

Verdict = Literal["head", "other", "unclear"]


class SectionFeatures(NamedTuple):
    """Measurements of one slice, on which the rules are based.

    Args:
        judged: Whether the slice shows a section of a body.
        area_cm2: Area of the section.
        extent_mm: Length of the section's longer side.
        aspect: Ratio of the section's longer side to its shorter side.
        ring: Share of the directions from the section's center that have bone within 25 mm of the skin.
        bone: Share of the section that is bone.
        air: Share of the section that is air.
        cavity_cm2: Area of the largest region enclosed by bone; if the skull is open to one side, the area within the
            convex hull of its bone.
        brain: Share of the cavity with 0 to 80 HU.
        erased_cm2: Area outside the cavity that has exactly 0 HU and no noise, as left by a defacing program.
        full: Whether the section fills the image, so that its skin is not visible.
        is_open: Whether the skull is open to one side. The base of a skull also counts: no bone closes it in front.
    """

    judged: bool
    area_cm2: float = 0.0
    extent_mm: float = 0.0
    aspect: float = 1.0
    ring: float = 0.0
    bone: float = 0.0
    air: float = 0.0
    cavity_cm2: float = 0.0
    brain: float = 0.0
    erased_cm2: float = 0.0
    full: bool = False
    is_open: bool = False

    @property
    def is_ringed(self) -> bool:
        """Whether a section the size of a head has bone below the skin nearly all around: a skull, or an ankle."""
        low, high = HEAD_AREA_CM2
        fits = self.judged and not self.full and low <= self.area_cm2 <= high and self.extent_mm <= HEAD_EXTENT_MM
        fits = fits and self.aspect <= HEAD_ASPECT
        return fits and self.ring >= (HEAD_RING if self.air <= HEAD_AIR else CLOSED_RING)

    @property
    def is_skull(self) -> bool:
        """Whether the section encloses an area that is possible within a skull."""
        return MIN_CAVITY_CM2 <= self.cavity_cm2 <= MAX_CAVITY_CM2

    @property
    def has_skull_size(self) -> bool:
        """Whether the section encloses an area that every skull reaches: 40 cm² if it is closed, 100 cm² if it is open."""
        return self.is_skull and self.cavity_cm2 >= (OPEN_CM2 if self.is_open else SKULL_CM2)

    @property
    def is_other(self) -> bool:
        """Whether the section resembles a trunk, a limb, a neck or a spine, or has bone that encloses little."""
        trunk = self.extent_mm > TRUNK_EXTENT_MM or (self.air > TRUNK_AIR and self.area_cm2 > TRUNK_AREA_CM2)
        inside = self.bone >= OTHER_BONE and self.ring < OTHER_RING
        little = self.bone >= OTHER_BONE and not self.full and not self.has_skull_size
        return self.judged and (trunk or inside or little)


class Skull(NamedTuple):
    """The slices of a series that show a skull.

    Args:
        first: Index of the lowest slice.
        last: Index of the highest slice.
        volume_ml: Volume that the skull encloses.
        largest_cm2: Area of the largest cavity.
        has_size: Whether at least one section encloses an area that every skull reaches.
        height_mm: Height of the skull along the slice normal.
        closed_mm: Height of the closed sections alone, which leave out the face.
        brain: Share of the enclosed volume with 0 to 80 HU.
    """

    first: int
    last: int
    volume_ml: float
    largest_cm2: float
    has_size: bool
    height_mm: float
    closed_mm: float
    brain: float


def measure_section(hu: np.ndarray, pixel_mm: float) -> SectionFeatures:
    """Measure one slice.

    Args:
        hu: Hounsfield units, int16 ``(h, w)``.
        pixel_mm: Side of the square pixels.
    """
    step = max(1, round(CELL_MM / pixel_mm))
    cell = step * pixel_mm
    height, width = (side // step * step for side in hu.shape)
    if min(height, width) < 8 * step:
        return SectionFeatures(False)
    cells = hu[:height, :width].reshape(height // step, step, width // step, step)
    # Reducing whole rows first is several times as fast as reducing both axes at once.
    densest = cells.max(axis=1).max(axis=2)
    # A frame of air gives a contour also to a body that the edge of the image cuts.
    densest = np.pad(densest, 1, constant_values=HU_MIN)
    middle = np.pad(cells[:, step // 2, :, step // 2], 1, constant_values=HU_MIN)
    bone = densest > BONE_HU
    cavity = next(enclosed_regions(bone, cell, cell), np.zeros(bone.shape, bool)) if bone.any() else np.zeros(bone.shape, bool)
    erased = _erased_cells(densest, middle, cell) & ~cavity
    middle[erased] = HU_MIN
    contours, _ = cv2.findContours((middle > BODY_HU).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return SectionFeatures(False)
    body = np.zeros(middle.shape, np.uint8)
    cv2.drawContours(body, [max(contours, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    size = int(body.sum())
    area = size * cell**2 / 100
    if area < MIN_SECTION_CM2:
        return SectionFeatures(False)
    rows, columns = np.nonzero(body)
    depth = cv2.distanceTransform(body, cv2.DIST_L2, 3) * cell
    bone &= body > 0
    shell = bone & (depth <= RING_DEPTH_MM)
    y, x = np.nonzero(shell)
    angles = np.arctan2(y - rows.mean(), x - columns.mean())
    seen = np.zeros(DIRECTIONS, bool)
    seen[np.floor((angles / (2 * np.pi) + 0.5) * DIRECTIONS).astype(int) % DIRECTIONS] = True
    sides = sorted((int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1))
    section = SectionFeatures(
        True,
        area_cm2=area,
        extent_mm=float(sides[1]) * cell,
        aspect=sides[1] / sides[0],
        ring=float(seen.mean()),
        bone=float(bone.sum()) / size,
        air=float(((middle < AIR_HU) & (body > 0)).sum()) / size,
        erased_cm2=float(erased.sum()) * cell**2 / 100,
        full=size > FULL_SHARE * (height // step) * (width // step),
    )
    if section.is_ringed and cavity.sum() * cell**2 / 100 < SKULL_CM2 and _longest_run(seen) >= OPEN_RUN * DIRECTIONS:
        hull = np.zeros(body.shape, np.uint8)
        cv2.fillConvexPoly(hull, cv2.convexHull(np.stack([x, y], axis=1).astype(np.int32)), 1)
        cavity, section = (hull > 0) & ~bone, section._replace(is_open=True)
    inside = middle[cavity]
    return section._replace(
        cavity_cm2=len(inside) * cell**2 / 100,
        brain=float(((inside >= BRAIN_HU[0]) & (inside <= BRAIN_HU[1])).mean()) if len(inside) else 0.0,
    )


def _erased_cells(densest: np.ndarray, middle: np.ndarray, cell: float) -> np.ndarray:
    """Connected cells of exactly 0 HU that cover at least 10 cm² together, bool in the shape of the cells."""
    zero = (densest == 0) & (middle == 0)
    if zero.sum() * cell**2 < 100 * ERASED_CM2:
        return np.zeros(zero.shape, bool)
    count, regions, stats, _ = cv2.connectedComponentsWithStats(zero.astype(np.uint8), connectivity=4)
    large = [i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] * cell**2 >= 100 * ERASED_CM2]
    return np.isin(regions, large)


def _longest_run(seen: np.ndarray) -> int:
    """The length of the longest unbroken run of directions that are seen, around the circle."""
    if seen.all():
        return len(seen)
    missing = np.flatnonzero(~seen)
    return int(np.diff(np.append(missing, missing[0] + len(seen))).max()) - 1


def find_skull(sections: Sequence[SectionFeatures], step_mm: float) -> Skull | None:
    """Find the slices that show a skull of plausible size, by the rules stated in :func:`judge`.

    Args:
        sections: Measurements of each slice, inferior to superior.
        step_mm: Distance between slices.
    """
    runs: list[list[int]] = []
    for i, section in enumerate(sections):
        if not section.is_skull:
            continue
        between = sections[runs[-1][-1] + 1 : i] if runs else []
        joined = runs and (len(between) * step_mm <= BRIDGE_MM or all(each.is_ringed for each in between))
        runs[-1].append(i) if joined else runs.append([i])
    skulls = [_measure_skull(sections, run, step_mm) for run in runs]
    fitting = [skull for skull in skulls if _is_plausible(skull, len(sections), step_mm)]
    return max(fitting, key=lambda skull: skull.volume_ml, default=None)


def _measure_skull(sections: Sequence[SectionFeatures], run: list[int], step_mm: float) -> Skull:
    cavities = np.array([sections[i].cavity_cm2 for i in run])
    return Skull(
        first=run[0],
        last=run[-1],
        volume_ml=float(cavities.sum()) * step_mm / 10,
        largest_cm2=float(cavities.max()),
        has_size=any(sections[i].has_skull_size for i in run),
        height_mm=(run[-1] - run[0] + 1) * step_mm,
        closed_mm=sum(not sections[i].is_open for i in run) * step_mm,
        brain=float(np.average([sections[i].brain for i in run], weights=cavities)),
    )


def _is_plausible(skull: Skull, count: int, step_mm: float) -> bool:
    if not skull.has_size or skull.volume_ml < SKULL_ML or skull.closed_mm > SKULL_MM[1]:
        return False
    at_an_end = min(skull.first, count - 1 - skull.last) * step_mm <= BRIDGE_MM
    return skull.height_mm >= SKULL_MM[0] or (at_an_end and skull.brain >= EVIDENT_BRAIN_SHARE)


def judge(sections: Sequence[SectionFeatures], step_mm: float) -> Verdict:
    """Decide whether the slices show a head.

    *Head*: the volume shows a skull, which is a run of neighboring sections in which bone encloses 8 to 350 cm². Gaps of up
    to 12 mm in the bone are closed; if surgery has opened the skull, the area within the convex hull of the bone counts.
    At least one section encloses 40 cm² (100 cm² if it is open), and all together are 60 to 250 mm high and enclose at least
    150 ml. A lower run at the end of a series counts as a head that was cut short if at least 60 % of what it encloses has 0
    to 80 HU.

    *Other*: the volume shows no skull, and at least half of its slices show a trunk (longer than 300 mm, or more than 30 %
    air in more than 200 cm²), a part with bone inside and little around it (in less than 30 % of the directions: neck, spine,
    knee), or bone that encloses less than 40 cm² (ankle, wrist, foot).

    *Unclear*: everything else, such as phantoms without bone. These volumes are used, and flagged.

    Measured errors (``examples/benchmarks/head_test.py``). Heads: 200 heads of :mod:`ich_lstm.phantom`, half of them
    difficult (surgery, metal, tilt, off-center), 95 real heads with hemorrhage and two real examinations; none was refused,
    or flagged as incomplete or as no head. Their skulls enclose 339 to 2,221 ml; a simulated preterm infant's 280 ml.
    Other parts: all 20 simulated volumes (legs, feet, ankle, knee, arm, wrist, pelvis, abdomen, chest, shoulders, spine; two
    of them of children; a dog; an empty table) were refused. Half heads: 97 of 100 were flagged as incomplete; if surgery has
    opened the skull in the lowest section, that section is mistaken for the open base. Limits: no real scans of other parts
    were available, and the real heads were 8-bit images whose bone was restored and whose spacing was assumed.

    Args:
        sections: Measurements of each slice, inferior to superior.
        step_mm: Distance between slices.
    """
    if find_skull(sections, step_mm) is not None:
        return "head"
    judged = [section for section in sections if section.judged]
    others = sum(section.is_other for section in judged)
    if not judged or 2 * len(judged) <= len(sections) or others < OTHER_SHARE * len(judged):
        return "unclear"
    return "other"


def count_neck_slices(sections: Sequence[SectionFeatures], positions_mm: np.ndarray) -> int:
    """Count the slices at the lower end that lie more than 40 mm below the skull, in the neck or the trunk.

    Args:
        sections: Measurements of each slice, inferior to superior.
        positions_mm: Positions along the slice normal.
    """
    skull = find_skull(sections, float(np.median(np.diff(positions_mm))) if len(positions_mm) > 1 else 0.0)
    if skull is None:
        return 0
    first = skull.first
    while first and sections[first - 1].is_ringed:  # the face and the base, where bone encloses no large area
        first -= 1
    return int(np.searchsorted(positions_mm, positions_mm[first] - NECK_MARGIN_MM))


def missing_parts(sections: Sequence[SectionFeatures], positions_mm: np.ndarray) -> list[str]:
    """List the parts of a head that the slices do not show, as text for a person; empty if the head is complete.

    The vertex is missing if the cavity of the highest slice has more than 40 % of the largest cavity's area. The base is
    missing if the cavity of the lowest slice has more than 50 % of it. A volume of less than 100 mm along the normal does not
    cover a head, unless both ends of the skull are visible, as in a small infant.

    The errors measured are stated in :func:`judge`.

    Args:
        sections: Measurements of each slice, inferior to superior, without the slices of the neck.
        positions_mm: Positions along the slice normal.
    """
    step_mm = float(np.median(np.diff(positions_mm)))
    skull = find_skull(sections, step_mm)
    largest = skull.largest_cm2 if skull else max((section.cavity_cm2 for section in sections if section.is_skull), default=0.0)
    parts = []
    for section, share, text in (
        (sections[-1], TOP_SHARE, "the vertex is missing: the highest slice"),
        (sections[0], BOTTOM_SHARE, "the base is missing: the lowest slice"),
    ):
        # The base is open in front, and would otherwise count as a skull that surgery has opened.
        if section.is_skull and not (section.is_open and section is sections[0]) and section.cavity_cm2 > share * largest:
            parts.append(f"{text} cuts {section.cavity_cm2:.0f} of {largest:.0f} cm² within the skull")
    covered = float(positions_mm[-1] - positions_mm[0]) + step_mm
    if covered < HEAD_MM and (parts or skull is None or skull.height_mm < SKULL_MM[0]):
        parts.insert(0, f"covers {covered:.0f} mm of a head of at least {HEAD_MM:.0f} mm")
    return parts


def brain_share(sections: Sequence[SectionFeatures]) -> float:
    """The share of brain density within the skull: the median over the sections of a skull's size; 1 if there are none.

    Args:
        sections: Measurements of each slice.
    """
    shares = [section.brain for section in sections if section.has_skull_size]
    return float(np.median(shares)) if shares else 1.0


def is_defaced(sections: Sequence[SectionFeatures]) -> bool:
    """Whether the face was removed: at least three slices have a region of exactly 0 HU outside the skull.

    A face that was replaced by air cannot be distinguished from the air around the head, and is not detected.

    Args:
        sections: Measurements of each slice.
    """
    return sum(section.erased_cm2 > 0 for section in sections) >= MIN_ERASED_SLICES


def describe_sections(sections: Sequence[SectionFeatures]) -> str:
    """Describe for an error message what was found instead of a skull.

    Args:
        sections: Measurements of each slice.
    """
    judged = [section for section in sections if section.judged]
    others = sum(section.is_other for section in judged)
    largest = max((section.cavity_cm2 for section in judged), default=0.0)
    return f"{others} of {len(judged)} sections do not show a head, and bone encloses {largest:.0f} cm² at most"


def metal_mm2(hu: np.ndarray, pixel_mm2: float) -> float:
    """The largest area of metal in any slice of a volume ``(n, h, w)``."""
    return max(int(np.count_nonzero(image >= METAL_HU)) for image in hu) * pixel_mm2
