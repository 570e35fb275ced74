"""Grey-scale windows, as numbers: the model's first layer takes them, and so do pages and pictures."""

from typing import NamedTuple


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
