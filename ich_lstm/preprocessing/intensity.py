"""Intensity augmentation of windowed slices: noise, blur, contrast and brightness, drawn per slice."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ich_lstm.errors import ConfigError

SLICE_STRIDE = 0x9E3779B1
"""Distance between the seeds of a scan's slices: odd, so that none repeats, and large, so that the seeds of scans do not meet."""

FIELD = 0x85EBCA6B
"""Mask that derives the seed of a slice's noise from the seed of its other draws, so that the two streams differ."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Intensity:
    """Augmentation of windowed slices, whose values range from 0 (lower end of the window) to 1 (upper end). Off by default.

    Draws are independent for each slice and shared by its windows, except that noise is independent in each window. The order
    is noise, blur, contrast with brightness; the result is clipped to [0, 1].

    Args:
        brightness: Largest shift up or down.
        contrast: Largest relative change of contrast: 0.2 multiplies values by 0.8 to 1.2. With 0.2 for both, brightness and
            contrast equal albumentations' RandomBrightnessContrast at its defaults.
        brightness_contrast_p: Probability of contrast and brightness, which are applied together.
        noise: Largest standard deviation of additive Gaussian noise.
        speckle: Largest standard deviation of multiplicative Gaussian noise.
        noise_p: Probability of noise; if both kinds are set, either is drawn with equal probability.
        blur: Largest side length in pixels of a mean filter, odd; 0 for none.
        median: Whether to use a median filter of 3 x 3 pixels.
        blur_p: Probability of a filter; if both kinds are set, either is drawn with equal probability.

    Raises:
        ConfigError: ``intensity_out_of_range`` if a value is out of range.
    """

    brightness: float = 0.0
    contrast: float = 0.0
    brightness_contrast_p: float = 0.5
    noise: float = 0.0
    speckle: float = 0.0
    noise_p: float = 0.5
    blur: int = 0
    median: bool = False
    blur_p: float = 0.5

    def __post_init__(self) -> None:
        shares = (self.brightness, self.contrast, self.brightness_contrast_p, self.noise_p, self.blur_p)
        deviations = (self.noise, self.speckle)
        odd = self.blur == 0 or (self.blur >= 3 and self.blur % 2 == 1)
        if not all(0 <= share <= 1 for share in shares) or not all(value >= 0 for value in deviations) or not odd:
            raise ConfigError(
                "intensity_out_of_range",
                where="intensity",
                got=str(self),
                expected="brightness, contrast and the probabilities in [0, 1], noise and speckle not below 0, blur 0 or odd and"
                " at least 3",
            )

    def __call__(self, x: Tensor, draws: Tensor) -> Tensor:
        """Augment each slice by its own seed, independently of the other slices.

        Args:
            x: Windowed slices, float ``(n, c, h, w)`` in [0, 1].
            draws: Seed of each slice, int64 ``(n,)`` in [0, 2**32), beyond which torch's generators ignore bits. For a given
                seed, the noise differs between kinds of devices; all other draws are the same.

        Returns:
            Augmented slices, float ``(n, c, h, w)`` in [0, 1].
        """
        if not len(x) or not any((self.brightness, self.contrast, self.noise, self.speckle, self.blur, self.median)):
            return x
        return torch.stack([self._change(image, seed) for image, seed in zip(x, draws.tolist(), strict=True)])

    def _change(self, image: Tensor, seed: int) -> Tensor:
        # Every number is always drawn, so that switching one kind of augmentation on does not change the others.
        numbers = torch.rand(9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, device="cpu").tolist()
        before = image
        noises = [name for name in ("noise", "speckle") if getattr(self, name)]
        if noises and numbers[0] < self.noise_p:
            kind = _one_of(noises, numbers[1])
            field = _normal(image, seed ^ FIELD) * (numbers[2] * getattr(self, kind))
            image = image + (field if kind == "noise" else image * field)
        sides = [*([range(3, self.blur + 1, 2)] if self.blur else []), *([None] if self.median else [])]
        if sides and numbers[3] < self.blur_p:
            chosen = _one_of(sides, numbers[4])
            image = _median(image) if chosen is None else _mean(image, _one_of(chosen, numbers[5]))
        if (self.brightness or self.contrast) and numbers[6] < self.brightness_contrast_p:
            image = image * (1 + self.contrast * (2 * numbers[7] - 1)) + self.brightness * (2 * numbers[8] - 1)
        return image if image is before else image.clamp(0, 1)


def _one_of(choices: Sequence[T], number: float) -> T:
    """The choice that a number in [0, 1) selects."""
    return choices[int(number * len(choices))]


def _normal(image: Tensor, seed: int) -> Tensor:
    """Standard normal noise in an image's shape, drawn on the image's device."""
    generator = torch.Generator(image.device).manual_seed(seed)
    return torch.randn(image.shape, generator=generator, dtype=image.dtype, device=image.device)


def _mean(image: Tensor, side: int) -> Tensor:
    """Mean filter of ``side`` x ``side`` pixels on ``(c, h, w)``; the edge is repeated."""
    return F.avg_pool2d(F.pad(image, (side // 2,) * 4, mode="replicate"), side, stride=1)


def _median(image: Tensor) -> Tensor:
    """Median filter of 3 x 3 pixels on ``(c, h, w)``; the edge is repeated.

    The median of nine is the median of three values: the largest minimum, the median of the medians and the smallest maximum of
    the columns (Smith 1996). This is elementwise, ten times faster than sorting, and its gradient is deterministic.
    """
    padded = F.pad(image, (1, 1, 1, 1), mode="replicate")
    above, here, below = padded[:, :-2], padded[:, 1:-1], padded[:, 2:]  # (c, h, w + 2)
    lowest = torch.minimum(torch.minimum(above, here), below)
    highest = torch.maximum(torch.maximum(above, here), below)
    middle = _middle(above, here, below)
    low = torch.maximum(torch.maximum(lowest[..., :-2], lowest[..., 1:-1]), lowest[..., 2:])  # (c, h, w)
    high = torch.minimum(torch.minimum(highest[..., :-2], highest[..., 1:-1]), highest[..., 2:])
    return _middle(low, _middle(middle[..., :-2], middle[..., 1:-1], middle[..., 2:]), high)


def _middle(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
    """The median of three, elementwise."""
    return torch.maximum(torch.minimum(a, b), torch.minimum(torch.maximum(a, b), c))
