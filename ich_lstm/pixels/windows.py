"""Grey-scale windows: the first layer of the model, so that no model can be fed the wrong ones."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Window(NamedTuple):
    """A grey-scale window, as radiologists say it: "level 40, width 80".

    Args:
        level: Centre in HU; DICOM Window Center (0028,1050).
        width: Full width in HU, above 0; DICOM Window Width (0028,1051).
    """

    level: float
    width: float


BRAIN = Window(level=40, width=80)
SUBDURAL = Window(level=75, width=215)
BONE = Window(level=600, width=2800)
"""These three are the windows of Nguyen et al. 2020, and the defaults of `ScanModel`."""


def apply_window(hu: Tensor, window: Window) -> Tensor:
    """Map HU linearly onto [0, 1], clipping outside the window.

    Follows DICOM LINEAR_EXACT (PS3.3 C.11.2.1.3.2), not the default LINEAR, which works with width - 1.

    Args:
        hu: Hounsfield units, any shape; rescale already applied.
        window: Level and width in HU.

    Returns:
        A float tensor of the same shape.

    Example:
        >>> apply_window(torch.tensor([0.0, 40.0, 80.0]), BRAIN)
        tensor([0.0000, 0.5000, 1.0000])
    """
    low = window.level - window.width / 2
    return ((hu - low) / window.width).clamp(0, 1)


class WindowStack(nn.Module):
    """HU in, one normalized channel per window out.

    Args:
        windows: Level and width in HU of each channel.
        mean: Mean of the channels after windowing, in [0, 1]; one value for all, or one per window.
        std: Standard deviation likewise, above 0.

    Raises:
        ValueError: If there is no window, a width or a standard deviation is not above 0, or the numbers of values differ.
    """

    levels: Tensor
    widths: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, windows: Sequence[Sequence[float]], mean: Sequence[float] = (0.0,), std: Sequence[float] = (1.0,)) -> None:
        super().__init__()
        if not windows or any(len(window) != 2 or window[1] <= 0 for window in windows):
            raise ValueError(f"windows: got {windows}, expected pairs (level, width) with width above 0")
        if any(len(values) not in (1, len(windows)) for values in (mean, std)) or min(std) <= 0:
            raise ValueError(f"mean and std: got {mean} and {std}, expected 1 or {len(windows)} values each, std above 0")
        self.register_buffer("levels", torch.tensor([float(level) for level, _ in windows]))
        self.register_buffer("widths", torch.tensor([float(width) for _, width in windows]))
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).expand(len(windows)).clone())
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).expand(len(windows)).clone())

    def __len__(self) -> int:
        """Number of windows, which is the number of output channels."""
        return len(self.levels)

    def forward(self, hu: Tensor) -> Tensor:
        """Window and normalize.

        Args:
            hu: Hounsfield units ``(n, h, w)``, integer or float.

        Returns:
            Float ``(n, c, h, w)``, in channels-last memory order, which the convolutions want.
        """
        # Written as one multiply-add and one clamp, with mean and std folded in: 3 passes over the pixels instead of 6.
        scale = 1 / (self.widths * self.std)  # (c,)
        low = -self.mean / self.std  # what windowed 0 becomes
        offset = low - (self.levels - self.widths / 2) * scale
        # At least float32, whatever the model's precision: bfloat16 knows HU above 256 in steps of 2 and more.
        x = hu.to(torch.promote_types(scale.dtype, torch.float32)).unsqueeze(-1)  # (n, h, w, 1)
        x = torch.addcmul(offset, x, scale)  # (n, h, w, c)
        x = x.clamp(min=low, max=low + 1 / self.std)
        return x.permute(0, 3, 1, 2)  # (n, c, h, w), a view: channels last
