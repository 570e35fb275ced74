"""Grey-scale windows as the first layer of the model, so that no model can be given the wrong ones."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ich_lstm.preprocessing.intensity import Intensity

NARROWEST = 1.0
"""Width in HU below which no learned window falls: HU are whole numbers, and a width of 0 would divide by it."""

GREYS = 255
"""The largest value of 8 bit."""


class WindowStack(nn.Module):
    """HU in, one normalized channel per window out.

    Args:
        windows: Level and width in HU of each channel.
        mean: Mean of the channels after windowing, in [0, 1]; one value for all, or one per window.
        std: Standard deviation of the windowed channels, above 0: one value, or one per window.
        quantize: Round windowed values down to 8 bit, ``floor(255 x) / 255``, as systems do that store windowed images as uint8
            (Nguyen et al. 2020); the gradient passes as if they were not rounded.
        integer_edges: Halve the widths in whole numbers, so that a window reaches from ``level - width // 2`` to
            ``level + width // 2``, and divide by the full width, as systems do that compute windows in integers (Nguyen et al.
            2020). It differs for odd widths alone, whose largest value is then ``(width - 1) / width``.
        learnable: Levels and widths are parameters in place of buffers, under the same names. A width below `NARROWEST` counts
            as `NARROWEST`, and can grow again.
        intensity: Augmentation between windowing and normalization, in training.

    Raises:
        ValueError: If there is no window, a width or a standard deviation is not above 0 (a learnable width: below
            `NARROWEST`), the numbers of values differ, or learnable windows are to have whole edges.
    """

    levels: Tensor
    widths: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self,
        windows: Sequence[Sequence[float]],
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
        *,
        quantize: bool = False,
        integer_edges: bool = False,
        learnable: bool = False,
        intensity: Intensity | None = None,
    ) -> None:
        super().__init__()
        if not windows or any(len(window) != 2 or window[1] <= 0 for window in windows):
            raise ValueError(f"windows: got {windows}, expected pairs (level, width) with width above 0")
        if learnable and any(width < NARROWEST for _, width in windows):
            raise ValueError(f"windows: got {windows}, expected widths of at least {NARROWEST:g} HU where they are learnable")
        if any(len(values) not in (1, len(windows)) for values in (mean, std)) or min(std) <= 0:
            raise ValueError(f"mean and std: got {mean} and {std}, expected 1 or {len(windows)} values each, std above 0")
        if learnable and integer_edges:
            raise ValueError("learnable windows with integer_edges, expected one of them: whole numbers have no gradient")
        self.quantize = quantize
        self.integer_edges = integer_edges
        self.learnable = learnable
        self.intensity = intensity
        levels = torch.tensor([float(level) for level, _ in windows])
        widths = torch.tensor([float(width) for _, width in windows])
        if learnable:
            self.levels, self.widths = nn.Parameter(levels), nn.Parameter(widths)
        else:
            self.register_buffer("levels", levels)
            self.register_buffer("widths", widths)
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32).expand(len(windows)).clone())
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32).expand(len(windows)).clone())

    def __len__(self) -> int:
        """Number of windows, which is the number of output channels."""
        return len(self.levels)

    @property
    def absent(self) -> Tensor:
        """What a windowed 0 becomes in each channel, ``(c,)``: the value of a neighbouring slice that does not exist."""
        return -self.mean / self.std

    def forward(self, hu: Tensor, draws: Tensor | None = None) -> Tensor:
        """Window and normalize.

        Args:
            hu: Hounsfield units ``(n, h, w)``, integer or float.
            draws: A seed for each slice, int64 ``(n,)``, for the augmentation in training; without it there is none.

        Returns:
            Float ``(n, c, h, w)``, in channels-last memory order, which the convolutions want.
        """
        widths = self.widths
        if self.learnable:
            widths = _with_gradient_of(widths, widths.clamp(min=NARROWEST))
        intensity = self.intensity if self.training and draws is not None else None
        if self.quantize or intensity is not None:
            return self._in_steps(hu, widths, intensity, draws)
        # Written as one multiply-add and one clamp, with mean and std folded in: 3 passes over the pixels instead of 6.
        scale = 1 / (widths * self.std)  # (c,)
        low = self.absent
        half = self._half(widths)
        offset = low - (self.levels - half) * scale
        x = torch.addcmul(offset, _in_full(hu, scale).unsqueeze(-1), scale)  # (n, h, w, c)
        x = x.clamp(min=low, max=low + 2 * half * scale)
        return x.permute(0, 3, 1, 2)  # (n, c, h, w), a view: channels last

    def _half(self, widths: Tensor) -> Tensor:
        """From a window's level to either of its edges, in HU."""
        return (widths / 2).floor() if self.integer_edges else widths / 2

    def _in_steps(self, hu: Tensor, widths: Tensor, intensity: Intensity | None, draws: Tensor | None) -> Tensor:
        # Divided, not multiplied by the inverse: so float32 puts whole HU into the same one of the 256 steps as exact numbers.
        half = self._half(widths)
        x = (_in_full(hu, widths).unsqueeze(-1) - (self.levels - half)) / widths  # (n, h, w, c)
        x = x.clamp(min=torch.zeros_like(half), max=2 * half / widths)
        if self.quantize:
            grey = x * GREYS
            x = _with_gradient_of(grey, grey.floor()) / GREYS
        x = x.permute(0, 3, 1, 2)  # (n, c, h, w)
        if intensity is not None and draws is not None:
            x = intensity(x, draws)
        x = (x - self.mean[:, None, None]) / self.std[:, None, None]
        return x.contiguous(memory_format=torch.channels_last)


def _in_full(hu: Tensor, like: Tensor) -> Tensor:
    """HU in at least float32, whatever the model's precision: bfloat16 knows HU above 256 in steps of 2 and more."""
    return hu.to(torch.promote_types(like.dtype, torch.float32))


def _with_gradient_of(x: Tensor, value: Tensor) -> Tensor:
    """A value that lets the gradient through to ``x`` as if it were ``x`` (straight-through; Bengio et al. 2013)."""
    return x + (value - x).detach() if x.requires_grad else value
