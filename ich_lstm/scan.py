"""A scan: one series of head CT as a volume in Hounsfield units."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ich_lstm.window import BRAIN, Window

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HU_MIN, HU_MAX = -1024, 3071
"""Range of HU in a scan: 12 bits, with the usual lower limit of -1024."""


class Note(NamedTuple):
    """A repair of a scan, or a flag that a reader of the result should know.

    Args:
        code: Stable reason in lower_snake_case, for example ``tilt``.
        detail: Readable text with the value, for example ``gantry tilt 18.5 degrees``.
    """

    code: str
    detail: str

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}" if self.detail else self.code


class Slab(NamedTuple):
    """The thin slices whose mean is one slice of a scan, inferior to superior.

    Args:
        ids: Identifiers of the thin slices.
        positions_mm: Positions of the thin slices along the slice normal.
    """

    ids: tuple[str, ...]
    positions_mm: tuple[float, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Scan:
    """One series of head CT, as a checked, ordered and immutable volume.

    Args:
        hu: Hounsfield units, int16 ``(n, h, w)`` within [-1024, 3071], ordered inferior to superior, in the
            radiological display convention (the patient's right at the left of the image, the nose at the top).
        positions_mm: Position of each slice along the slice normal, float64 ``(n,)``, not decreasing.
        spacing_mm: Median slice spacing, row spacing and column spacing, in mm.
        tilt_degrees: Angle between the slice normal and the body axis, in degrees.
        sop_uids: Identifier of each slice; for a slab, the identifier of its middle slice.
        series_uid: Identifier of the series.
        qualifier: Suffix that distinguishes several scans with the same series identifier; usually empty.
        study_uid: Identifier of the study.
        patient_id: Identifier of the patient; empty if unknown.
        description: Series Description (0008,103E); may be empty.
        repairs: Errors in the files that were repaired.
        flags: Properties of the scan that a reader of the result should know.
        slabs: For each slice, the thin slices that were averaged; empty if the slices are those of the files.
    """

    hu: np.ndarray = field(repr=False)
    positions_mm: np.ndarray = field(repr=False)
    spacing_mm: tuple[float, float, float]
    sop_uids: tuple[str, ...] = field(repr=False)
    series_uid: str
    qualifier: str = ""
    study_uid: str = ""
    patient_id: str = ""
    tilt_degrees: float = 0.0
    description: str = ""
    repairs: tuple[Note, ...] = ()
    flags: tuple[Note, ...] = ()
    slabs: tuple[Slab, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if self.hu.dtype != np.int16 or self.hu.ndim != 3 or 0 in self.hu.shape:
            raise ValueError(f"Scan.hu: got {self.hu.dtype} {self.hu.shape}, expected a filled int16 array (n, h, w)")
        if len(self.positions_mm) != len(self.hu) or len(self.sop_uids) != len(self.hu):
            raise ValueError(
                f"Scan: {len(self.hu)} slices with {len(self.positions_mm)} positions and "
                f"{len(self.sop_uids)} identifiers, expected one of each per slice"
            )
        if self.slabs and len(self.slabs) != len(self.hu):
            raise ValueError(f"Scan.slabs: {len(self.slabs)} for {len(self.hu)} slices, expected one each, or none at all")
        if self.positions_mm.shape != (len(self.hu),) or not np.isfinite(self.positions_mm).all():
            raise ValueError(f"Scan.positions_mm: got shape {self.positions_mm.shape}, expected ({len(self.hu)},) and finite")
        if (np.diff(self.positions_mm) < 0).any():
            raise ValueError("Scan.positions_mm: decreasing, expected slices ordered inferior to superior")
        if int(self.hu.min()) < HU_MIN or int(self.hu.max()) > HU_MAX:
            raise ValueError(f"Scan.hu: outside [{HU_MIN}, {HU_MAX}], expected clipped HU")
        self.hu.flags.writeable = False
        self.positions_mm.flags.writeable = False

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.hu)

    def plot(self, *, window: Window = BRAIN, most: int = 12) -> "Figure":
        """Plot evenly spaced slices side by side, inferior to superior, with their numbers and positions.

        Args:
            window: Level and width in HU.
            most: Largest number of slices to show, at least 1.

        Returns:
            A matplotlib figure, which a notebook displays.

        Raises:
            ValueError: If ``most`` is below 1.
        """
        from ich_lstm.pages.plots.curves import plot_slices

        return plot_slices(self, window=window, most=most)

    @property
    def identifier(self) -> str:
        """Unique identifier of the scan, from which its id is hashed: ``series_uid``, and ``qualifier`` if there is one."""
        return f"{self.series_uid}|{self.qualifier}" if self.qualifier else self.series_uid

    @property
    def file_sop_uids(self) -> tuple[str, ...]:
        """Identifiers of all slices in the files: ``sop_uids``, or those of the thin slices of all slabs, in order."""
        return tuple(uid for uids in self.slice_uids for uid in uids)

    @property
    def slice_uids(self) -> tuple[tuple[str, ...], ...]:
        """For each slice, the identifiers of the slices in the files that it was made from: its own, or those of its slab."""
        return tuple(slab.ids for slab in self.slabs) or tuple((uid,) for uid in self.sop_uids)
