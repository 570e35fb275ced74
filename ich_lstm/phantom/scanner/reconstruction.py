"""Reconstructions of one acquisition: thick or thin slices, a soft or a sharp kernel, with or without contrast."""

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from ich_lstm.phantom.checks import RangeCheck

Kernel = Literal["soft", "bone"]

THINNEST_MM, THICKEST_MM = 0.5, 20.0

CHECK = RangeCheck("phantom_reconstruction_out_of_range", "phantom reconstruction")


class Response(NamedTuple):
    """Response of a reconstruction kernel, relative to the soft kernel.

    Args:
        blur: Factor on the width of the point spread function.
        edge: Edge enhancement: weight of an unsharp mask, 0 for none.
        noise: Factor on the standard deviation of the noise.
        noise_blur: Factor on the grain size of the noise.
    """

    blur: float
    edge: float
    noise: float
    noise_blur: float


RESPONSES: dict[Kernel, Response] = {"soft": Response(1.0, 0.0, 1.0, 1.0), "bone": Response(0.6, 0.55, 4.5, 0.45)}
"""A bone kernel enhances high frequencies: sharper edges with overshoot, and four to five times the noise."""


@dataclass(frozen=True, kw_only=True)
class Reconstruction:
    """One reconstruction of a patient's acquisition; the head and its hemorrhages do not depend on it.

    Args:
        thickness_mm: Slice thickness and slice spacing, 0.5 to 20; None keeps those of the acquisition: about 5 mm, or the
            height of the head divided by ``PhantomSettings.slices``. Noise grows as the square root of 1 / thickness.
        kernel: Reconstruction kernel: ``soft`` for the brain, ``bone`` for edges.
        contrast: Whether an iodinated contrast agent enhances arteries, venous sinuses and choroid plexus.

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
        if self.thickness_mm is not None:
            CHECK.number("thickness_mm", self.thickness_mm, THINNEST_MM, THICKEST_MM)
        CHECK.choice("kernel", self.kernel, get_args(Kernel))

    @property
    def code(self) -> int:
        """A number below 2 ** 13 that identifies the reconstruction, to 0.01 mm of thickness; 0 for the plain one."""
        thickness = 0 if self.thickness_mm is None else round(100 * self.thickness_mm)
        return 4 * thickness + 2 * (self.kernel == "bone") + self.contrast


PLAIN = Reconstruction()
"""The default of `make_head`: the acquisition's own slices, soft kernel, no contrast agent."""
