"""The explanation of a prediction: heat maps that show which regions of a scan support each label."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ich_lstm.labels import LABELS
from ich_lstm.scan import Scan

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Explanation:
    """Heat maps and contributions of slices for one scan, as plain arrays that any model can fill.

    Args:
        maps: Heat maps, float32 ``(n, k, r, c)``, not negative, with labels in the order of ``LABELS``. A value says how much a
            place in a slice supports a label; NaN for labels that were not explained. Values of one label can be compared
            between slices; values of different labels cannot be compared.
        box: The part of each slice that a map covers: top, left, height and width in pixels. It may reach beyond the slice.
        contributions: Amount that each slice adds to the scan's logit, float64 ``(n, k)``; NaN for labels that were not
            explained.
        method: Method of the explanation, in words for the reader.
    """

    maps: np.ndarray = field(repr=False)
    box: tuple[float, float, float, float]
    contributions: np.ndarray = field(repr=False)
    method: str

    def __post_init__(self) -> None:
        if self.maps.dtype != np.float32 or self.maps.ndim != 4 or self.maps.shape[1] != len(LABELS) or 0 in self.maps.shape:
            raise ValueError(f"Explanation.maps: {self.maps.dtype} {self.maps.shape}, expected float32 (n, {len(LABELS)}, r, c)")
        if (self.maps < 0).any() or np.isinf(self.maps).any():
            raise ValueError("Explanation.maps: negative or infinite, expected finite values from 0, or NaN")
        if self.contributions.shape != self.maps.shape[:2]:
            raise ValueError(f"Explanation.contributions: {self.contributions.shape}, expected {self.maps.shape[:2]}")
        if not np.isfinite(self.box).all() or min(self.box[2:]) <= 0:
            raise ValueError(f"Explanation.box: {self.box}, expected top, left, height and width in pixels")

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.maps)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels that were explained."""
        return tuple(label for k, label in enumerate(LABELS) if not np.isnan(self.maps[:, k]).any())

    def plot(self, scan: Scan | None = None) -> "Figure":
        """Plot, for every explained label, its hottest heat map and below it the contributions along the scan.

        Args:
            scan: The scan that was explained; its slices are drawn below the heat maps. None draws the maps alone.

        Returns:
            A matplotlib figure, which a notebook displays.

        Raises:
            ValueError: If no label was explained, or if the scan has another number of slices.
        """
        from ich_lstm.pages.plots.curves import plot_explanation

        return plot_explanation(self, scan)

    def __repr__(self) -> str:
        rows, columns = self.maps.shape[2:]
        labels = ", ".join(self.labels) or "no label"
        return f"Explanation of {labels}: {len(self)} slices, maps of {rows} x {columns}; {self.method}"

    def share_on_slice(self, number: int, label: str, shape: tuple[int, int]) -> np.ndarray:
        """The heat map of a slice, divided by the label's largest value in the scan.

        Args:
            number: Index of the slice, from 0.
            label: One of ``labels``.
            shape: Rows and columns of the slice.

        Returns:
            Heat map in [0, 1], float32 ``(h, w)``; 0 outside the box.
        """
        largest = float(self.maps[:, LABELS.index(label)].max())
        return self.on_slice(number, label, shape) / (largest or 1)

    def on_slice(self, number: int, label: str, shape: tuple[int, int]) -> np.ndarray:
        """The heat map of a slice, at the resolution of the slice.

        Args:
            number: Index of the slice, from 0.
            label: One of ``labels``.
            shape: Rows and columns of the slice.

        Returns:
            Heat map, float32 ``(h, w)``; 0 outside the box.
        """
        import cv2

        heat = self.maps[number, LABELS.index(label)]
        top, left, height, width = self.box
        rows, columns = heat.shape
        # Maps pixel centres of the slice to coordinates of the map; OpenCV puts the centre of a cell at a whole number.
        to_map = np.array(
            [[columns / width, 0, (0.5 - left) * columns / width - 0.5], [0, rows / height, (0.5 - top) * rows / height - 0.5]]
        )
        on_slice = cv2.warpAffine(
            heat, to_map, shape[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP, borderMode=cv2.BORDER_REPLICATE
        )
        y, x = np.arange(shape[0])[:, None] + 0.5, np.arange(shape[1])[None] + 0.5
        inside = (y >= top) & (y <= top + height) & (x >= left) & (x <= left + width)
        return np.where(inside, on_slice, 0).astype(np.float32)
