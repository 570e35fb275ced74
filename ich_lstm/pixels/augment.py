"""Geometric augmentation of HU: one draw for all slices of a scan."""

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np

from ich_lstm.errors import ConfigError
from ich_lstm.scan import HU_MIN

# albumentations asks a server for its newest version when it is imported; nobody asked for a network call.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

import albumentations


def sample_seed(seed: int, epoch: int, identifier: str) -> int:
    """The seed of a sample's random draws: a pure function of (seed, epoch, identifier), on every machine.

    So the number of workers or processes, and a stop and a resume, do not change what is drawn.

    Args:
        seed: The run's seed.
        epoch: The epoch, from 0.
        identifier: What is drawn for: the raw series UID, which no project's key changes.

    Returns:
        A number in [0, 2**32).
    """
    digest = hashlib.sha256(f"{seed}/{epoch}/".encode() + hashlib.sha256(identifier.encode()).digest()).digest()
    return int.from_bytes(digest[:4], "big")


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Flip, shift, scale and rotation in the image plane, the same for all slices of a scan.

    Args:
        flip: Probability of mirroring left and right.
        shift: Largest shift, as a share of the side.
        scale: Largest change of size, as a share: 0.1 draws from 0.9 to 1.1.
        rotate: Largest rotation in degrees.
    """

    flip: float = 0.5
    shift: float = 0.0625
    scale: float = 0.1
    rotate: float = 15.0

    def __post_init__(self) -> None:
        if not 0 <= self.flip <= 1 or not 0 <= self.scale < 1 or self.shift < 0 or self.rotate < 0:
            raise ConfigError(
                "augmentation_out_of_range",
                where="augment",
                got=str(self),
                expected="flip in [0, 1], scale in [0, 1), shift and rotate not below 0",
            )

    def __call__(self, hu: np.ndarray, seed: int) -> np.ndarray:
        """Draw once, and apply to every slice.

        Args:
            hu: int16 ``(n, h, w)``.
            seed: See `sample_seed`.

        Returns:
            int16 ``(n, h, w)``; what comes from outside the image is air.
        """
        transform = _transform_of(self)
        transform.set_random_seed(seed)
        return transform(volume=hu)["volume"]


@lru_cache(maxsize=8)
def _transform_of(geometry: Geometry) -> albumentations.Compose:
    """Kept beside the settings, not in them: a default that is shared by all must not change when one of them uses it."""
    return albumentations.Compose(
        [
            albumentations.HorizontalFlip(p=geometry.flip),
            albumentations.Affine(
                scale=(1 - geometry.scale, 1 + geometry.scale),
                translate_percent=(-geometry.shift, geometry.shift),
                rotate=(-geometry.rotate, geometry.rotate),
                keep_ratio=True,
                interpolation=cv2.INTER_LINEAR,
                border_mode=cv2.BORDER_CONSTANT,
                fill=HU_MIN,  # the default, 0 HU, would be water around the head
                p=1.0,
            ),
        ]
    )
