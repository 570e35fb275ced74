"""Decides by the skull whether a volume shows a head, how much of it, and at which slice the head ends."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import cv2
import numpy as np

from ich_lstm.reading.body.skull_interior import BONE_HU, enclosed_regions
from ich_lstm.scan import HU_MIN

CELL_MM = 2.5
"""The rules look at the picture in cells of about this side; a cell is bone if any of its pixels is."""

BODY_HU, AIR_HU, METAL_HU = -300, -400, 3000

DIRECTIONS = 36
RING_DEPTH_MM = 25.0
"""A skull lies within 25 mm of the skin all round; a spine does not."""

HEAD_RING = 0.6
"""Share of the directions with bone below the skin. A large craniectomy opens a third; a neck shows a fifth."""

HEAD_ASPECT = 1.6
"""Longer side by the shorter one: heads have at most 1.5, with the nose; the sole of a foot 2.5."""

OPEN_RUN = 0.5
"""An open skull still has bone in half of the directions without a break; ribs leave gaps all round."""

HEAD_AREA_CM2 = (40.0, 400.0)
HEAD_EXTENT_MM = 280.0
HEAD_AIR = 0.25
"""Sinuses and mastoids fill less than this of a section of the head; lungs more than a third of the chest."""

CLOSED_RING = 0.9
"""With more air (after surgery, or in a hollow phantom), the ring must be closed; that of the ribs is not."""

MIN_CAVITY_CM2, MAX_CAVITY_CM2 = 8.0, 350.0
"""What a section of the skull encloses. Less is an eye, a sinus, marrow or the canal of the spine; more is a trunk."""

SKULL_CM2 = 40.0
"""Of the largest cavity. A preterm infant's head has 50 cm²; the marrow of a tibial plateau 30, a large dog's skull 35."""

OPEN_CM2 = 100.0
"""Within the hull of an open ring of bone, without any closed section: an adult's skull after surgery, not a child's pelvis."""

SKULL_ML = 150.0
"""Of all cavities together. A preterm infant's skull holds 200 ml, an adult's 1,400, a dog's 100."""

SKULL_MM = (60.0, 250.0)
"""Height of a whole skull along the normal. A tube of bone that is longer, or a cast, is none."""

BRIDGE_MM = 20.0
"""Sections without a cavity between others, where artefacts or surgery open the skull."""

TRUNK_EXTENT_MM = 300.0
TRUNK_AIR, TRUNK_AREA_CM2 = 0.3, 200.0
OTHER_RING, OTHER_BONE = 0.3, 0.01
OTHER_SHARE = 0.5
"""A volume without a skull is refused if half of its sections show another part of the body."""

MIN_SECTION_CM2 = 5.0
FULL_SHARE = 0.95
"""A section that fills more of the picture has no skin to be seen; the picture's edge stands for it."""

NECK_MARGIN_MM = 40.0
"""Left below the lowest section of the skull: its base, whose ring is open, and more."""

METAL_MM2 = 50.0

BRAIN_HU = (0, 80)
BRAIN_SHARE = 0.2
"""Less in that range of what the skull encloses is no brain: real heads had 97 % and more, one of plastic 3 %."""

EVIDENT_BRAIN_SHARE = 0.6
"""With this, the end of a skull, lower than 60 mm, at the end of a series is taken for a head that was cut short."""

HEAD_MM = 100.0
"""Least height of a head from its base to the vertex, but for the smallest infants, both ends of whose heads are seen."""

TOP_SHARE, BOTTOM_SHARE = 0.4, 0.5
"""Of the largest cavity. The last section of 95 real heads cut at most 0.26 of it, the first at most 0.29."""

ERASED_CM2 = 10.0
"""A region of exactly 0 HU as large as this holds no noise: no scanner made it."""

MIN_ERASED_SLICES = 3

Verdict = Literal["head", "other", "unclear"]


class SectionLook(NamedTuple):
    """What the rules see of one slice.

    Args:
        judged: Whether there is a section of a body.
        area_cm2: Of the section.
        extent_mm: Its longer side.
        aspect: That by its shorter side.
        ring: Share of the directions from its middle with bone within 25 mm of the skin.
        bone: Share of it that is bone.
        air: Share of it that is air.
        cavity_cm2: The largest region that bone encloses; of a skull that is open to one side, what lies within the convex
            hull of its bone.
        brain: Share of that region between 0 and 80 HU.
        erased_cm2: Outside that region, exactly 0 HU and without noise: what a program has removed.
        full: Whether the section fills the picture, so that its skin is not seen.
        is_open: Whether the skull is open to one side, or it is its base, which no bone closes in front.
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
        """Bone below the skin nearly all round, in a section of the size of a head: a skull, or an ankle."""
        low, high = HEAD_AREA_CM2
        fits = self.judged and not self.full and low <= self.area_cm2 <= high and self.extent_mm <= HEAD_EXTENT_MM
        fits = fits and self.aspect <= HEAD_ASPECT
        return fits and self.ring >= (HEAD_RING if self.air <= HEAD_AIR else CLOSED_RING)

    @property
    def is_skull(self) -> bool:
        """Encloses as much as a section through a skull may."""
        return MIN_CAVITY_CM2 <= self.cavity_cm2 <= MAX_CAVITY_CM2

    @property
    def has_skull_size(self) -> bool:
        """Encloses as much as the largest section of any skull: 40 cm² if it is closed, 100 cm² if not."""
        return self.is_skull and self.cavity_cm2 >= (OPEN_CM2 if self.is_open else SKULL_CM2)

    @property
    def is_other(self) -> bool:
        """Like a trunk, like a limb, a neck or a spine (bone in the middle, none around), or bone that encloses little."""
        trunk = self.extent_mm > TRUNK_EXTENT_MM or (self.air > TRUNK_AIR and self.area_cm2 > TRUNK_AREA_CM2)
        inside = self.bone >= OTHER_BONE and self.ring < OTHER_RING
        little = self.bone >= OTHER_BONE and not self.full and not self.has_skull_size
        return self.judged and (trunk or inside or little)


class Skull(NamedTuple):
    """The slices of a series that show a skull.

    Args:
        first: Index of the lowest one.
        last: Index of the highest one.
        volume_ml: What they enclose.
        largest_cm2: The largest cavity of a section.
        has_size: Whether a section is as large as one of a skull must be.
        height_mm: Along the normal.
        closed_mm: Of the sections among them that are closed all round: without the face.
        brain: Share of what they enclose between 0 and 80 HU.
    """

    first: int
    last: int
    volume_ml: float
    largest_cm2: float
    has_size: bool
    height_mm: float
    closed_mm: float
    brain: float


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
    # First along the rows' axis: whole rows at a time are several times as fast as both at once.
    densest = cells.max(axis=1).max(axis=2)
    # A frame of air, so that a body that is cut by the edge of the picture has a contour there too.
    densest = np.pad(densest, 1, constant_values=HU_MIN)
    middle = np.pad(cells[:, step // 2, :, step // 2], 1, constant_values=HU_MIN)
    bone = densest > BONE_HU
    cavity = next(enclosed_regions(bone, cell, cell), np.zeros(bone.shape, bool)) if bone.any() else np.zeros(bone.shape, bool)
    erased = _erased(densest, middle, cell) & ~cavity
    middle[erased] = HU_MIN
    contours, _ = cv2.findContours((middle > BODY_HU).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    if not contours:
        return SectionLook(False)
    body = np.zeros(middle.shape, np.uint8)
    cv2.drawContours(body, [max(contours, key=cv2.contourArea)], -1, 1, cv2.FILLED)
    size = int(body.sum())
    area = size * cell**2 / 100
    if area < MIN_SECTION_CM2:
        return SectionLook(False)
    rows, columns = np.nonzero(body)
    depth = cv2.distanceTransform(body, cv2.DIST_L2, 3) * cell
    bone &= body > 0
    shell = bone & (depth <= RING_DEPTH_MM)
    y, x = np.nonzero(shell)
    angles = np.arctan2(y - rows.mean(), x - columns.mean())
    seen = np.zeros(DIRECTIONS, bool)
    seen[np.floor((angles / (2 * np.pi) + 0.5) * DIRECTIONS).astype(int) % DIRECTIONS] = True
    sides = sorted((int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1))
    look = SectionLook(
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
    if look.is_ringed and cavity.sum() * cell**2 / 100 < SKULL_CM2 and _longest_run(seen) >= OPEN_RUN * DIRECTIONS:
        hull = np.zeros(body.shape, np.uint8)
        cv2.fillConvexPoly(hull, cv2.convexHull(np.stack([x, y], axis=1).astype(np.int32)), 1)
        cavity, look = (hull > 0) & ~bone, look._replace(is_open=True)
    inside = middle[cavity]
    return look._replace(
        cavity_cm2=len(inside) * cell**2 / 100,
        brain=float(((inside >= BRAIN_HU[0]) & (inside <= BRAIN_HU[1])).mean()) if len(inside) else 0.0,
    )


def _erased(densest: np.ndarray, middle: np.ndarray, cell: float) -> np.ndarray:
    """Cells of exactly 0 HU that lie close together over at least 10 cm²; bool, as the cells are."""
    zero = (densest == 0) & (middle == 0)
    if zero.sum() * cell**2 < 100 * ERASED_CM2:
        return np.zeros(zero.shape, bool)
    count, regions, stats, _ = cv2.connectedComponentsWithStats(zero.astype(np.uint8), connectivity=4)
    large = [i for i in range(1, count) if stats[i, cv2.CC_STAT_AREA] * cell**2 >= 100 * ERASED_CM2]
    return np.isin(regions, large)


def _longest_run(seen: np.ndarray) -> int:
    """The most neighbouring directions of a circle that are seen."""
    if seen.all():
        return len(seen)
    missing = np.flatnonzero(~seen)
    return int(np.diff(np.append(missing, missing[0] + len(seen))).max()) - 1


def find_skull(looks: Sequence[SectionLook], step_mm: float) -> Skull | None:
    """The slices that show a skull of plausible size, if any do; the rule is that of :func:`judge`.

    Args:
        looks: One per slice, inferior to superior.
        step_mm: Their distance.
    """
    runs: list[list[int]] = []
    for i, look in enumerate(looks):
        if not look.is_skull:
            continue
        between = looks[runs[-1][-1] + 1 : i] if runs else []
        joined = runs and (len(between) * step_mm <= BRIDGE_MM or all(each.is_ringed for each in between))
        runs[-1].append(i) if joined else runs.append([i])
    skulls = [_measure(looks, run, step_mm) for run in runs]
    fitting = [skull for skull in skulls if _is_plausible(skull, len(looks), step_mm)]
    return max(fitting, key=lambda skull: skull.volume_ml, default=None)


def _measure(looks: Sequence[SectionLook], run: list[int], step_mm: float) -> Skull:
    cavities = np.array([looks[i].cavity_cm2 for i in run])
    return Skull(
        first=run[0],
        last=run[-1],
        volume_ml=float(cavities.sum()) * step_mm / 10,
        largest_cm2=float(cavities.max()),
        has_size=any(looks[i].has_skull_size for i in run),
        height_mm=(run[-1] - run[0] + 1) * step_mm,
        closed_mm=sum(not looks[i].is_open for i in run) * step_mm,
        brain=float(np.average([looks[i].brain for i in run], weights=cavities)),
    )


def _is_plausible(skull: Skull, count: int, step_mm: float) -> bool:
    if not skull.has_size or skull.volume_ml < SKULL_ML or skull.closed_mm > SKULL_MM[1]:
        return False
    at_an_end = min(skull.first, count - 1 - skull.last) * step_mm <= BRIDGE_MM
    return skull.height_mm >= SKULL_MM[0] or (at_an_end and skull.brain >= EVIDENT_BRAIN_SHARE)


def judge(looks: Sequence[SectionLook], step_mm: float) -> Verdict:
    """Say whether the slices are those of a head.

    A *head* has a skull: neighbouring sections in which bone encloses 8 to 350 cm² (gaps of up to 12 mm are closed; of a
    skull that surgery has opened, what lies within the convex hull of its bone), at least one of them 40 cm², or 100 if it is
    open, together at least 150 ml and 60 to 250 mm high. A lower one counts at the end of a series, as of a head that was cut
    short, if at least 60 % of what it encloses has 0 to 80 HU.
    It is something *other* if there is no skull, and at least half of the slices show a trunk (more than 300 mm long, or
    more than 30 % air in more than 200 cm²), a part with bone inside and little around (in less than 30 % of the directions:
    neck, spine, knee), or bone that encloses less than 40 cm² (ankle, wrist, foot).
    The rest, phantoms without bone among it, is *unclear*: used, and flagged.

    Error (``examples/benchmarks/head_test.py``): of 200 heads of :mod:`ich_lstm.phantom`, half of them hard (surgery, metal,
    tilt, off the centre), 95 real heads with bleeding and two real examinations, none is refused or flagged as no head or as
    incomplete; their skulls hold 339 to 2,221 ml, a drawn preterm infant's 280. All of 20 drawings of other parts (legs, feet,
    ankle, knee, arm, wrist, pelvis, abdomen, chest, shoulders, spine; two of them of children; a dog; an empty table) are
    refused. Of 100 half heads 97 are flagged as incomplete: a skull that surgery has opened in its lowest section passes for
    the open base. Real other parts were not at hand; the real heads were 8-bit, their bone put back, and their spacing assumed.

    Args:
        looks: One per slice, inferior to superior.
        step_mm: Their distance.
    """
    if find_skull(looks, step_mm) is not None:
        return "head"
    judged = [look for look in looks if look.judged]
    others = sum(look.is_other for look in judged)
    if not judged or 2 * len(judged) <= len(looks) or others < OTHER_SHARE * len(judged):
        return "unclear"
    return "other"


def count_neck_slices(looks: Sequence[SectionLook], positions_mm: np.ndarray) -> int:
    """How many slices at the lower end lie more than 40 mm below the skull: of the neck, or of the whole trunk.

    Args:
        looks: One per slice, inferior to superior.
        positions_mm: Along the slice normal.
    """
    skull = find_skull(looks, float(np.median(np.diff(positions_mm))) if len(positions_mm) > 1 else 0.0)
    if skull is None:
        return 0
    first = skull.first
    while first and looks[first - 1].is_ringed:  # the face and the base, whose bone encloses nothing large
        first -= 1
    return int(np.searchsorted(positions_mm, positions_mm[first] - NECK_MARGIN_MM))


def missing_parts(looks: Sequence[SectionLook], positions_mm: np.ndarray) -> list[str]:
    """What of a head the slices do not show, for a person to read; empty if it is whole.

    The vertex is missing where the highest slice still cuts more than 40 % of the largest section of the cavity, the base
    where the lowest one cuts more than 50 %. Less than 100 mm along the normal are short of a head, unless both ends
    are seen, as of a small infant.

    Error: that of :func:`judge`.

    Args:
        looks: One per slice, inferior to superior, without those of the neck.
        positions_mm: Along the slice normal.
    """
    step_mm = float(np.median(np.diff(positions_mm)))
    skull = find_skull(looks, step_mm)
    largest = skull.largest_cm2 if skull else max((look.cavity_cm2 for look in looks if look.is_skull), default=0.0)
    parts = []
    for look, share, text in (
        (looks[-1], TOP_SHARE, "the vertex is missing: the highest slice"),
        (looks[0], BOTTOM_SHARE, "the base is missing: the lowest slice"),
    ):
        # The base is open in front, and would count as a skull that surgery has opened.
        if look.is_skull and not (look.is_open and look is looks[0]) and look.cavity_cm2 > share * largest:
            parts.append(f"{text} cuts {look.cavity_cm2:.0f} of {largest:.0f} cm² within the skull")
    covered = float(positions_mm[-1] - positions_mm[0]) + step_mm
    if covered < HEAD_MM and (parts or skull is None or skull.height_mm < SKULL_MM[0]):
        parts.insert(0, f"covers {covered:.0f} mm of a head of at least {HEAD_MM:.0f} mm")
    return parts


def brain_share(looks: Sequence[SectionLook]) -> float:
    """The share of soft tissue in what bone encloses, in the middle one of the sections that have a skull's size; 1 without any.

    Args:
        looks: One per slice.
    """
    shares = [look.brain for look in looks if look.has_skull_size]
    return float(np.median(shares)) if shares else 1.0


def is_defaced(looks: Sequence[SectionLook]) -> bool:
    """Whether at least three slices hold a region of exactly 0 HU outside the skull: a removed face.

    A face that was filled with air looks like air around the head, and is not seen.

    Args:
        looks: One per slice.
    """
    return sum(look.erased_cm2 > 0 for look in looks) >= MIN_ERASED_SLICES


def describe_looks(looks: Sequence[SectionLook]) -> str:
    """What was found instead of a skull, for a message.

    Args:
        looks: One per slice.
    """
    judged = [look for look in looks if look.judged]
    others = sum(look.is_other for look in judged)
    largest = max((look.cavity_cm2 for look in judged), default=0.0)
    return f"{others} of {len(judged)} sections do not show a head, and bone encloses {largest:.0f} cm² at most"


def metal_mm2(hu: np.ndarray, pixel_mm2: float) -> float:
    """The largest area of metal in any slice of ``(n, h, w)``."""
    return max(int(np.count_nonzero(image >= METAL_HU)) for image in hu) * pixel_mm2
