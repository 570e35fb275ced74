"""Artefacts that the scanner adds: dark bands between dense bones, motion, and streaks from metal.

As described by Barrett JF, Keat N. Artifacts in CT: recognition and avoidance. RadioGraphics 2004;24:1679-1691.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from ich_lstm.phantom.anatomy.shapes import Array
from ich_lstm.phantom.anatomy.tissues import METAL_HU
from ich_lstm.phantom.draws import Rng

BONE_THRESHOLD_HU = 300.0
CORRECTED_MM, FULL_BEAM_MM = 7.5, 9.0
"""Thickness of dense bone on either side of a pixel that the scanner corrects for, and the further thickness at which the
hardening artefact is strongest."""


@dataclass(frozen=True)
class Motion:
    """A movement of the head during some slices.

    Args:
        first: Lower end of the affected slices, in mm above the lower edge of the scan.
        last: Upper end of the affected slices, in mm above the lower edge of the scan.
        degrees: Rotation of the head.
        shift_mm: Shift of the head along columns and rows.
        share: Share of the image that shows the head in its second position.
    """

    first: float
    last: float
    degrees: float
    shift_mm: tuple[float, float]
    share: float


@dataclass(frozen=True)
class Metal:
    """A metallic object, such as a clip or a dental filling.

    Args:
        place: Position in mm from the head's origin, to the left and to the back.
        height: Height in mm above the lower edge of the scan.
        radius: Radius of the object in mm.
        streak_hu: Amplitude of the streaks beside the object.
        rays: Directions of the streaks in radians.
    """

    place: tuple[float, float]
    height: float
    radius: float
    streak_hu: float
    rays: tuple[float, ...]


@dataclass(frozen=True)
class Artefacts:
    """The artefacts of one scan; ``hardening_hu`` is the depth of the band between the petrous bones, 0 for none."""

    hardening_hu: float
    motion: Motion | None
    metal: Metal | None


def draw_artefacts(seeds: tuple[Rng, Rng, Rng], height_mm: float, difficulty: float) -> Artefacts:
    """Draw the artefacts of a scan; beam hardening, motion and metal have a generator each, so that none changes another."""
    beam, moving, metallic = seeds
    motion = metal = None
    first = float(moving.uniform(0, 0.8 * height_mm))
    length, degrees = float(moving.uniform(8, 30)), float(moving.uniform(1.5, 5) * moving.choice([-1, 1]))
    shift = (float(moving.normal(0, 2.5)), float(moving.normal(0, 2.5)))
    if moving.random() < 0.3 * difficulty:
        motion = Motion(first, first + length, degrees, shift, float(moving.uniform(0.25, 0.5)))
    rays = tuple(map(float, metallic.uniform(0, np.pi, 11)))
    place = (float(metallic.uniform(-32, 32)), float(metallic.uniform(-22, -12)))
    if metallic.random() < 0.1 * difficulty:
        metal = Metal(place, float(metallic.uniform(0.2, 0.34) * height_mm), 2.5, float(metallic.uniform(50, 110)), rays)
    return Artefacts(float(beam.uniform(14, 30)) * difficulty, motion, metal)


def harden(picture: Array, pixel_mm: float, depth_hu: float, rng: Rng) -> None:
    """Darken, in place, the pixels between dense bones in the same row (beam hardening).

    Args:
        picture: Hounsfield units ``(h, w)``.
        pixel_mm: Width of a pixel in mm.
        depth_hu: Largest decrease in HU.
        rng: Source of the streaks within the band.
    """
    bone: Array = np.clip(picture - np.float32(BONE_THRESHOLD_HU), 0, 1200) * np.float32(pixel_mm / 1200)
    bone = cv2.GaussianBlur(bone, (0, 0), 1.6 / pixel_mm)
    before = np.cumsum(bone, axis=1)
    least: Array = cv2.GaussianBlur(np.minimum(before, before[:, -1:] - before), (0, 0), 2.5 / pixel_mm)
    band = np.clip((least - np.float32(CORRECTED_MM)) * np.float32(1 / FULL_BEAM_MM), 0, 1)
    lines = cv2.GaussianBlur(rng.standard_normal((len(picture), 1), dtype=np.float32), (1, 0), sigmaX=0.1, sigmaY=1.2 / pixel_mm)
    band *= 1 + np.float32(1.2) * lines
    picture -= band * np.float32(depth_hu)


def move(picture: Array, motion: Motion, pixel_mm: float) -> Array:
    """The image of a head that moved: a double contour, and streaks from inconsistent edges."""
    size = picture.shape[0]
    turned: Array = cv2.getRotationMatrix2D(((size - 1) / 2, (size - 1) / 2), motion.degrees, 1.0)
    turned[:, 2] += np.array(motion.shift_mm) / pixel_mm
    second = cv2.warpAffine(picture, turned, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    edges = np.clip(second - picture, -400, 400)
    streaks: Array = np.zeros_like(picture)
    for turn in (0.4, 1.3, 2.5):
        streaks = streaks + cv2.filter2D(edges, -1, _line(size // 2, turn + float(np.deg2rad(20 * motion.degrees))))
    share = np.float32(motion.share)
    return (1 - share) * picture + share * second + np.float32(0.35) * streaks


def streak(picture: Array, metal: Metal, center: tuple[float, float], height: float, slice_mm: float, pixel_mm: float) -> None:
    """Paint metal and its streaks into an image, in place, if the slice is near enough.

    Args:
        picture: Hounsfield units ``(h, w)``.
        metal: The metallic object.
        center: Row and column of the head's origin.
        height: Height of the slice in mm above the lower edge of the scan.
        slice_mm: Thickness of the slice in mm.
        pixel_mm: Width of a pixel in mm.
    """
    distance, near = abs(height - metal.height), max(slice_mm, 4.0)
    strength = np.float32(np.clip(1.5 - distance / near, 0, 1) * metal.streak_hu)
    if strength == 0:
        return
    index = np.arange(picture.shape[0], dtype=np.float32)
    y = (index[:, None] - np.float32(center[0])) * np.float32(pixel_mm) - np.float32(metal.place[1])
    x = (index[None, :] - np.float32(center[1])) * np.float32(pixel_mm) - np.float32(metal.place[0])
    radius = np.sqrt(x * x + y * y) + np.float32(0.5)
    angle = np.arctan2(y, x)
    rays = np.zeros_like(picture)
    for i, towards in enumerate(metal.rays):
        # Dark and bright rays alternate; a ray is symmetric about the metal.
        across = np.sin(angle - np.float32(towards)) * np.float32(14 + 5 * (i % 3))
        rays += np.float32(1 if i % 2 else -1.2) * np.exp(-across * across)
    rays *= strength * np.exp(-radius * np.float32(1 / 38)) * np.minimum(radius * np.float32(0.2), 1)
    picture += rays * (picture > -700)
    if distance < near:
        picture[radius < metal.radius] = METAL_HU


def _line(length: int, angle: float) -> Array:
    """A kernel of sum 1 that blurs along a line."""
    length |= 1
    kernel = np.zeros((length, length), np.float32)
    middle = length // 2
    reach = np.array([np.cos(angle), np.sin(angle)]) * middle
    ends = [tuple(round(float(v)) for v in middle + sign * reach) for sign in (-1, 1)]
    cv2.line(kernel, ends[0], ends[1], 1.0, 1)
    return kernel / kernel.sum()
