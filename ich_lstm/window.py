"""Grey-scale windows as numbers, used by the first layer of the model, by pages and by pictures."""

from typing import Any, NamedTuple


class Window(NamedTuple):
    """A grey-scale window, described by level and width, as radiologists do: "level 40, width 80".

    Args:
        level: Centre in HU; DICOM Window Center (0028,1050).
        width: Full width in HU, above 0; DICOM Window Width (0028,1051).

    Example:
        >>> Window(level=40, width=80)(60)
        0.75
    """

    level: float
    width: float

    def __call__(self, hu: Any) -> Any:
        """Shorthand for `apply`: ``BRAIN(hu)``."""
        return self.apply(hu)

    def apply(self, hu: Any) -> Any:
        """Map HU linearly onto [0, 1], clipping outside the window.

        Follows DICOM LINEAR_EXACT (PS3.3 C.11.2.1.3.2), not the default LINEAR, which works with width - 1.

        Args:
            hu: Hounsfield units after rescale, as a numpy array or a tensor of any shape, or as a number.

        Returns:
            Floats in [0, 1] as an array, a tensor or a number, in the shape of ``hu``; gradients of a tensor are kept.

        Raises:
            TypeError: If ``hu`` is neither an array, a tensor nor a number.
            ValueError: If the width is not above 0.

        Example:
            >>> BRAIN.apply(0), BRAIN.apply(40), BRAIN.apply(3000)
            (0.0, 0.5, 1.0)
        """
        if not self.width > 0:
            raise ValueError(f"Window.width: got {self.width}, expected HU above 0")
        low = self.level - self.width / 2
        if isinstance(hu, (int, float)):
            return min(max((hu - low) / self.width, 0.0), 1.0)
        # The method of arrays and tensors is called, so that nothing heavy is imported here.
        if not hasattr(hu, "clip"):
            raise TypeError(
                f"Window.apply: got {type(hu).__name__}, expected HU as an array, a tensor or a number, such as scan.hu"
            )
        return ((hu - low) / self.width).clip(0, 1)


BRAIN = Window(level=40, width=80)
SUBDURAL = Window(level=75, width=215)
BONE = Window(level=600, width=2800)
"""These three are the windows of Nguyen et al. 2020, and the defaults of `ScanModel`."""
