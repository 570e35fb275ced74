"""Grey-scale windows as the first layer of the model, so that a model cannot be used with the wrong windows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ich_lstm.errors import ConfigError
from ich_lstm.preprocessing.intensity import Intensity
from ich_lstm.settings import merged, setting
from ich_lstm.window import BONE, BRAIN, SUBDURAL

NARROWEST = 1.0
"""Smallest width in HU of a learned window: HU are whole numbers, and a width of 0 would cause a division by zero."""

GREYS = 255
"""Largest value of 8 bits."""


@dataclass(frozen=True, kw_only=True)
class Windows:
    """The windows that turn HU into the input channels of the encoder.

    Args:
        channels: Level and width of each window in HU, with widths above 0; each window gives one channel.
        mean: Mean of the windowed channels, in [0, 1], for normalization: one value, or one per channel. The default is the
            average of ImageNet's.
        std: Standard deviation of the windowed channels, above 0, for normalization: one value, or one per channel. The default
            is the average of ImageNet's.
        quantize: Round the windowed channels down to 8 bits.
        integer_widths: Halve odd widths in integers, as programs do that compute windows in integers: 75/215 then reaches from
            -32 to 182 HU, but is still divided by 215.
        learnable: Whether levels and widths are trained.
        intensity: Augmentation of the windowed channels in training; null for none.

    Raises:
        ConfigError: ``windows_out_of_range``, if a value is out of range or two settings contradict each other.
    """

    channels: tuple[tuple[float, float], ...] = (BRAIN, SUBDURAL, BONE)
    mean: tuple[float, ...] = (0.449,)
    std: tuple[float, ...] = (0.226,)
    quantize: bool = False
    integer_widths: bool = False
    learnable: bool = False
    intensity: Intensity | None = setting(None, free=True, stored=False)

    def __post_init__(self) -> None:
        # YAML and JSON give lists instead of tuples, and may give integers.
        try:
            channels = tuple((float(level), float(width)) for level, width in self.channels)
            means, deviations = tuple(map(float, self.mean)), tuple(map(float, self.std))
        except (TypeError, ValueError) as error:
            raise ConfigError("windows_out_of_range", where="windows", got=str(error), expected="numbers") from error
        object.__setattr__(self, "channels", channels)
        object.__setattr__(self, "mean", means)
        object.__setattr__(self, "std", deviations)
        if isinstance(self.intensity, Mapping):
            object.__setattr__(self, "intensity", merged(Intensity(), self.intensity, where="windows.intensity"))
        try:
            self.build()
        except ValueError as error:
            raise ConfigError("windows_out_of_range", where="windows", got=str(error)) from error

    def build(self) -> "WindowStack":
        """Build the layer that applies these windows."""
        return WindowStack(
            self.channels,
            self.mean,
            self.std,
            quantize=self.quantize,
            integer_edges=self.integer_widths,
            learnable=self.learnable,
            intensity=self.intensity,
        )


class WindowStack(nn.Module):
    """Turns HU into one normalized channel per window.

    Args:
        windows: Level and width in HU of each channel.
        mean: Mean of the windowed channels in [0, 1]; one value for all windows, or one per window.
        std: Standard deviation of the windowed channels, above 0; one value for all windows, or one per window.
        quantize: Whether to round windowed values down to 8 bits, ``floor(255 x) / 255``, as systems that store windowed images
            as uint8 do (Nguyen et al. 2020); gradients ignore the rounding.
        integer_edges: Whether a window reaches from ``level - width // 2`` to ``level + width // 2`` but is divided by the full
            width, as in systems that compute windows in integers (Nguyen et al. 2020). This matters only for odd widths, whose
            largest value is then ``(width - 1) / width``.
        learnable: Whether levels and widths are parameters instead of buffers, under the same names. A width below `NARROWEST`
            counts as `NARROWEST`, and can grow again.
        intensity: Augmentation between windowing and normalization, applied in training only.

    Raises:
        ValueError: If there is no window, a width or a standard deviation is not above 0, a learnable width is below
            `NARROWEST`, the numbers of values differ, or ``learnable`` and ``integer_edges`` are combined.
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
        """The normalized value of a windowed 0 in each channel, ``(c,)``; it stands for missing neighbouring slices."""
        return -self.mean / self.std

    def forward(self, hu: Tensor, draws: Tensor | None = None) -> Tensor:
        """Apply the windows and normalize.

        Args:
            hu: Hounsfield units ``(n, h, w)``, integer or float.
            draws: Seed of each slice for the augmentation in training, int64 ``(n,)``; None for no augmentation.

        Returns:
            Channels, float ``(n, c, h, w)`` in channels-last memory order, which convolutions prefer.
        """
        widths = self.widths
        if self.learnable:
            widths = _with_gradient_of(widths, widths.clamp(min=NARROWEST))
        intensity = self.intensity if self.training and draws is not None else None
        if self.quantize or intensity is not None:
            return self._in_steps(hu, widths, intensity, draws)
        # Mean and std are folded into one multiply-add and one clamp, which needs 3 passes over the pixels instead of 6.
        scale = 1 / (widths * self.std)  # (c,)
        low = self.absent
        half = self._half(widths)
        offset = low - (self.levels - half) * scale
        x = torch.addcmul(offset, _in_full(hu, scale).unsqueeze(-1), scale)  # (n, h, w, c)
        x = x.clamp(min=low, max=low + 2 * half * scale)
        return x.permute(0, 3, 1, 2)  # (n, c, h, w), a view: channels last

    def _half(self, widths: Tensor) -> Tensor:
        """Distance in HU from the level of a window to its edges."""
        return (widths / 2).floor() if self.integer_edges else widths / 2

    def _in_steps(self, hu: Tensor, widths: Tensor, intensity: Intensity | None, draws: Tensor | None) -> Tensor:
        """Window, quantize, augment and normalize in separate steps."""
        # Division gives integer HU in float32 the same of the 256 grey levels as exact arithmetic; multiplying by the inverse
        # does not.
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
    """HU in at least float32, whatever the model's precision, because bfloat16 resolves HU above 256 in steps of 2 or more."""
    return hu.to(torch.promote_types(like.dtype, torch.float32))


def _with_gradient_of(x: Tensor, value: Tensor) -> Tensor:
    """``value`` with the gradient of ``x`` (straight-through estimator; Bengio et al. 2013)."""
    return x + (value - x).detach() if x.requires_grad else value
