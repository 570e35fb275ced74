"""Geometric augmentation of HU: one draw per scan, or one per slice."""

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from ich_lstm.errors import ConfigError
from ich_lstm.preprocessing.intensity import SLICE_STRIDE
from ich_lstm.scan import HU_MIN

# Without this, albumentations asks a server for its newest version when it is imported.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations


def sample_seed(seed: int, epoch: int, identifier: str, *, draw: int = 0, purpose: str = "geometry") -> int:
    """The seed of a sample's random draws: a pure function of its arguments, on every machine.

    Therefore neither the number of workers or processes nor stopping and resuming changes what is drawn.

    Args:
        seed: The run's seed.
        epoch: The epoch, from 0.
        identifier: Raw series UID of the scan, which does not depend on a project's key.
        draw: Number of the sample among those of the scan in the epoch, from 0.
        purpose: Purpose of the draws, so that draws for different purposes are independent.

    Returns:
        A number in [0, 2**32).
    """
    digest = hashlib.sha256(f"{seed}/{epoch}/{draw}/{purpose}/".encode() + hashlib.sha256(identifier.encode()).digest()).digest()
    return int.from_bytes(digest[:4], "big")


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Flips, crop, shift, scale, rotation and distortion in the image plane.

    Args:
        flip: Probability of mirroring left and right.
        flip_vertical: Probability of mirroring front and back.
        crop: Smallest share of the image's area that a random crop keeps before it is resized; 1 for no crop.
        shift: Largest shift, as a share of the side length.
        scale: Largest relative change of size; 0.1 draws factors from 0.9 to 1.1.
        rotate: Largest rotation in degrees.
        move: Probability of the affine transform, which combines shift, scale and rotation.
        grid_distortion: Largest displacement of the lines of a 5 x 5 grid, as a share of their distance; 0 for none.
        optical_distortion: Largest coefficient of lens distortion; 0 for none.
        one_of: Whether to apply one of affine transform, grid distortion, optical distortion and identity, with equal
            probabilities, instead of all.
        per_slice: Whether to draw for each slice instead of once for all slices of a scan.
    """

    flip: float = 0.5
    flip_vertical: float = 0.0
    crop: float = 1.0
    shift: float = 0.0625
    scale: float = 0.1
    rotate: float = 15.0
    move: float = 1.0
    grid_distortion: float = 0.0
    optical_distortion: float = 0.0
    one_of: bool = False
    per_slice: bool = False

    def __post_init__(self) -> None:
        shares = (self.flip, self.flip_vertical, self.move)
        below_one = (self.scale, self.grid_distortion, self.optical_distortion)
        if (
            not all(0 <= share <= 1 for share in shares)
            or not all(0 <= value < 1 for value in below_one)
            or not 0 < self.crop <= 1
            or min(self.shift, self.rotate) < 0
        ):
            raise ConfigError(
                "augmentation_out_of_range",
                where="augment",
                got=str(self),
                expected="flip, flip_vertical and move in [0, 1], crop in (0, 1], scale, grid_distortion and optical_distortion"
                " in [0, 1), shift and rotate not below 0",
            )

    def __call__(self, hu: np.ndarray, seed: int) -> np.ndarray:
        """Draw once, or once per slice, and transform every slice.

        Args:
            hu: int16 ``(n, h, w)``, at least -1024.
            seed: Seed of the draws, from `sample_seed`.

        Returns:
            HU, int16 ``(n, h, w)``; regions outside the original image are air.
        """
        transform = _transform_of(self, hu.shape[1:])
        # As uint16 above air, which OpenCV 5 warps three times faster than int16 and exactly to the nearest HU, where int16 is
        # up to 18 HU off; air outside the image is then 0. Slice by slice, because albumentations fills only some slices of a
        # volume in a remap.
        above_air = (hu - np.int16(HU_MIN)).view(np.uint16)  # (n, h, w)
        for i, image in enumerate(above_air):
            transform.set_random_seed((seed + i * SLICE_STRIDE) % 2**32 if self.per_slice else seed)
            above_air[i] = transform(image=image)["image"]
        moved = above_air.view(np.int16)
        moved += np.int16(HU_MIN)
        return moved


@lru_cache(maxsize=8)
def _transform_of(geometry: Geometry, shape: tuple[int, int]) -> albumentations.Compose:
    """The transform of a geometry, cached here because the frozen settings cannot hold its mutable state."""
    steps: list = [albumentations.HorizontalFlip(p=geometry.flip)]
    if geometry.flip_vertical:
        steps.append(albumentations.VerticalFlip(p=geometry.flip_vertical))
    if geometry.crop < 1:
        steps.append(albumentations.RandomResizedCrop(shape, scale=(geometry.crop, 1.0), interpolation=cv2.INTER_LINEAR, p=1.0))
    outside = {"border_mode": cv2.BORDER_CONSTANT, "fill": 0}  # air: see Geometry.__call__
    warps: list = [
        albumentations.Affine(
            scale=(1 - geometry.scale, 1 + geometry.scale),
            translate_percent=(-geometry.shift, geometry.shift),
            rotate=(-geometry.rotate, geometry.rotate),
            keep_ratio=True,
            interpolation=cv2.INTER_LINEAR,
            p=geometry.move,
            **outside,
        )
    ]
    if geometry.grid_distortion:
        limit = (-geometry.grid_distortion, geometry.grid_distortion)
        warps.append(albumentations.GridDistortion(distort_limit=limit, interpolation=cv2.INTER_LINEAR, p=1.0, **outside))
    if geometry.optical_distortion:
        limit = (-geometry.optical_distortion, geometry.optical_distortion)
        warps.append(albumentations.OpticalDistortion(distort_limit=limit, interpolation=cv2.INTER_LINEAR, p=1.0, **outside))
    if geometry.one_of:
        for warp in warps:
            warp.p = 1.0  # OneOf uses p as a weight, and always applies what it draws
        warps = [albumentations.OneOf([*warps, albumentations.NoOp(p=1.0)], p=1.0)]
    return albumentations.Compose(steps + warps)
