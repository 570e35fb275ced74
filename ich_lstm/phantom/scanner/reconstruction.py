"""Reconstructions of one acquisition: thick or thin slices, a soft or a sharp kernel, with or without contrast."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from ich_lstm.errors import ConfigError

Kernel = Literal["soft", "bone"]

THINNEST_MM, THICKEST_MM = 0.5, 20.0


class Response(NamedTuple):
    """How a kernel renders a picture.

    Args:
        blur: Factor on the point spread of the soft kernel.
        edge: How far edges are overshot, as a share of what a wider point spread loses; 0 none.
        noise: Factor on the standard deviation of the noise of the soft kernel.
        noise_blur: Factor on the grain of the noise of the soft kernel.
    """

    blur: float
    edge: float
    noise: float
    noise_blur: float


RESPONSES: dict[Kernel, Response] = {"soft": Response(1.0, 0.0, 1.0, 1.0), "bone": Response(0.6, 0.55, 4.5, 0.45)}
"""A bone kernel passes, and enhances, the high frequencies: sharper edges with overshoot, four to five times the noise."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """One reconstruction of a patient's acquisition: the head, its bleeding and where they lie stay the same.

    Args:
        thickness_mm: Thickness of the slices and their distance, 0.5 to 20; None is the acquisition's own: about 5 mm, or
            what ``PhantomSettings.slices`` makes of the head's height. Thinner slices are noisier by the root of the ratio.
        kernel: ``soft`` for the brain, ``bone`` for edges.
        contrast: Whether vessels, venous sinuses and choroid plexus are enhanced by an iodinated agent.

    Raises:
        ConfigError: If a value is out of range.

    Example:
        >>> Reconstruction(thickness_mm=1.25, kernel="bone").contrast
        False
    """

    thickness_mm: float | None = None
    kernel: Kernel = "soft"
    contrast: bool = False

    def __post_init__(self) -> None:
        thickness = self.thickness_mm
        if thickness is not None and not (_is_number(thickness) and THINNEST_MM <= thickness <= THICKEST_MM):
            raise _refused("thickness_mm", thickness, f"a number from {THINNEST_MM:g} to {THICKEST_MM:g}, or None")
        if self.kernel not in get_args(Kernel):
            raise _refused("kernel", self.kernel, " or ".join(get_args(Kernel)))

    @property
    def code(self) -> int:
        """A number of its own for every reconstruction, 0 for the plain one, below 2 ** 13: thickness to 0.01 mm."""
        thickness = 0 if self.thickness_mm is None else round(100 * self.thickness_mm)
        return 4 * thickness + 2 * (self.kernel == "bone") + self.contrast


PLAIN = Reconstruction()
"""What `make_head` gives when nothing else is asked for."""


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _refused(name: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(
        "phantom_reconstruction_out_of_range",
        where=f"phantom reconstruction {name}",
        got=repr(value),
        expected=expected,
        todo=f"Choose another value for {name}.",
    )
