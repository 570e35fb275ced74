"""Simulates the image of a slice: artefacts, point spread function, kernel, and noise."""

import cv2
import numpy as np

from ich_lstm.phantom.anatomy.shapes import Array
from ich_lstm.phantom.scanner.acquisition import Acquisition
from ich_lstm.phantom.scanner.artefacts import Artefacts, harden, move, streak


class Scanner:
    """Simulates the images of one scan, slice after slice.

    Args:
        acquisition: Geometry and image quality.
        artefacts: Artefacts of the scan.
        noise_rng: Source of the noise.
        streak_rng: Source of the streaks of beam hardening.
    """

    def __init__(
        self, acquisition: Acquisition, artefacts: Artefacts, noise_rng: np.random.Generator, streak_rng: np.random.Generator
    ) -> None:
        self._acquisition, self._artefacts = acquisition, artefacts
        self._noise_rng, self._streak_rng = noise_rng, streak_rng

    def expose(self, index: int, hu: Array) -> Array:
        """The image of a slice, float32 HU ``(h, w)``; ``hu`` may be changed."""
        acquisition, artefacts = self._acquisition, self._artefacts
        height = (index + 0.5) * acquisition.spacing_mm
        picture = hu
        motion = artefacts.motion
        if motion is not None and motion.first <= height <= motion.last:
            picture = move(picture, motion, acquisition.pixel_mm)
        if artefacts.hardening_hu:
            harden(picture, acquisition.pixel_mm, artefacts.hardening_hu, self._streak_rng)
        if artefacts.metal is not None:
            center = acquisition.head_pixel
            streak(picture, artefacts.metal, center, height, acquisition.spacing_mm, acquisition.pixel_mm)
        response, blur = acquisition.response, acquisition.blur_px
        sharp: Array = cv2.GaussianBlur(picture, (0, 0), blur * response.blur)
        if response.edge:
            sharp += np.float32(response.edge) * (sharp - cv2.GaussianBlur(sharp, (0, 0), 1.5 * blur))
        if acquisition.noise_hu:
            sharp += self._noise(hu.shape)
        return sharp

    def _noise(self, shape: tuple[int, ...]) -> Array:
        """CT noise lacks the lowest frequencies (filtered back-projection) and the highest (the kernel)."""
        acquisition = self._acquisition
        white = self._noise_rng.standard_normal(shape, dtype=np.float32)
        grain = 0.75 * max(acquisition.blur_px, 0.5) * acquisition.response.noise_blur
        noise: Array = cv2.GaussianBlur(white, (0, 0), grain)
        noise -= np.float32(0.8) * cv2.GaussianBlur(noise, (0, 0), 3.0)
        noise *= np.float32(acquisition.noise_hu / noise.std())
        return noise
