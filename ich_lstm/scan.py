"""A scan: one series of head CT as a volume in Hounsfield units."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ich_lstm.window import BRAIN, Window

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HU_MIN, HU_MAX = -1024, 3071
"""Range of a scan's HU: the 12 bits of a CT number, with air at its usual floor."""


class Note(NamedTuple):
    """Something that was repaired in a scan, or that its reader should know.

    Args:
        code: Stable reason in lower_snake_case, for example ``tilt``.
        detail: Text for a person, with the value, for example ``gantry tilt 18.5 degrees``.
    """

    code: str
    detail: str

    def __str__(self) -> str:
        return f"{self.code}: {self.detail}" if self.detail else self.code


class Slab(NamedTuple):
    """The slices that one slice of a scan was averaged of, inferior to superior.

    Args:
        ids: Their identifiers.
        positions_mm: Their positions along the slice normal.
    """

    ids: tuple[str, ...]
    positions_mm: tuple[float, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class Scan:
    """One series of head CT, checked and ordered; immutable.

    Args:
        hu: Hounsfield units, int16 ``(n, h, w)`` within [-1024, 3071], ordered inferior to superior, in the
            radiological display convention (the patient's right at the left of the image, the nose at the top).
        positions_mm: Position of each slice along the slice normal, float64 ``(n,)``, not decreasing.
        spacing_mm: Median distance of slices, row spacing, column spacing.
        tilt_degrees: Angle between the slice normal and the body axis.
        sop_uids: One identifier per slice.
        series_uid: Identifier of the series.
        qualifier: Tells the scan apart from another one under the same series identifier; usually empty.
        study_uid: Identifier of the study.
        patient_id: Identifier of the patient; empty if unknown.
        description: Series Description (0008,103E); may be empty.
        repairs: What was wrong in the files and has been put right.
        flags: What a reader of the result should know.
        slabs: Of thin slices that were averaged, those of each slab, whose ``sop_uids`` then name the middle ones; empty
            where the slices are those of the files.
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
        """Slices side by side, evenly spaced from the scan's lower end to its upper, with their numbers and positions.

        Args:
            window: Level and width in HU.
            most: How many slices at most, at least 1.

        Returns:
            A matplotlib figure, which shows itself in a notebook.

        Raises:
            ValueError: If ``most`` is below 1.
        """
        from ich_lstm.pages.plots.curves import plot_slices

        return plot_slices(self, window=window, most=most)

    @property
    def identifier(self) -> str:
        """What no other scan has, as of :class:`~ich_lstm.reading.series.load.Series`: what its id is made from."""
        return f"{self.series_uid}|{self.qualifier}" if self.qualifier else self.series_uid

    @property
    def file_sop_uids(self) -> tuple[str, ...]:
        """Identifiers of the slices of the files: ``sop_uids``, or those of all slabs in a row."""
        return tuple(uid for uids in self.slice_uids for uid in uids)

    @property
    def slice_uids(self) -> tuple[tuple[str, ...], ...]:
        """For each slice the identifiers of the files' slices that it was made of: its own, or those of its slab."""
        return tuple(slab.ids for slab in self.slabs) or tuple((uid,) for uid in self.sop_uids)
