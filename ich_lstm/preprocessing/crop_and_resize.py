"""Crops and resizes HU, with one function for training and prediction."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple, get_args

import cv2
import numpy as np

from ich_lstm.errors import ConfigError
from ich_lstm.scan import HU_MAX, HU_MIN, Scan

TISSUE_HU = -300
"""Threshold between air (-1000 HU) and tissue or objects (fat has -100 HU)."""

HEAD_SHARE_OF_SLICES = 0.08
"""A pixel of the image plane belongs to the head if it is tissue in more than this share of the slices."""

CROP_MARGIN = 0.03
"""Air left around the head on each side, as a share of the head's larger side."""

LARGEST_KEPT = 640 / 512
"""Largest ratio of image side to output side at which a centre crop keeps the native resolution."""

LARGEST_SIZE = 4096
"""Largest side length of the output in pixels. Head CT has 512, rarely 1024; a model's file must not ask for all memory."""

Crop = Literal["head", "center", "none"]


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """How the HU of a scan become the input of the network; stored with every model and every cache.

    Args:
        size: Side length of the square output in pixels, from 16 to 4096.
        crop: ``head`` for the smallest square around the head in all slices, ``none`` for the whole field of view, or
            ``center`` for the middle of the image at its native resolution, padded with air (-1024 HU) if the image is
            smaller; if a side is longer than 640/512 of ``size``, ``center`` keeps the whole field of view.
        clip: Lowest and highest HU to keep, or None for all. With [-250, 450] a cache takes a third of the space; windows
            inside this range are not affected.
    """

    size: int = 256
    crop: Crop = "head"
    clip: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.size < 16:
            raise ConfigError("size_too_small", where="size", got=str(self.size), expected="at least 16 pixels")
        if self.size > LARGEST_SIZE:
            raise ConfigError("size_too_large", where="size", got=str(self.size), expected=f"at most {LARGEST_SIZE} pixels")
        if self.crop not in get_args(Crop):
            raise ConfigError("unknown_crop", where="crop", got=repr(self.crop), expected=f"one of {', '.join(get_args(Crop))}")
        if self.clip is not None:
            object.__setattr__(self, "clip", tuple(self.clip))  # JSON and YAML have only lists
            if len(self.clip) != 2 or not HU_MIN <= self.clip[0] < self.clip[1] <= HU_MAX:
                raise ConfigError(
                    "clip_out_of_range",
                    where="clip",
                    got=str(list(self.clip)),
                    expected=f"two HU, the lower first, within [{HU_MIN}, {HU_MAX}]",
                )

    def check_windows(self, windows: Iterable[tuple[float, float]]) -> None:
        """Check that clipping does not affect a model's windows.

        Args:
            windows: Level and width in HU of each window.

        Raises:
            ConfigError: ``window_beyond_clip`` if a window reaches beyond ``clip``.
        """
        if self.clip is None:
            return
        low, high = self.clip
        for level, width in windows:
            bottom, top = level - width / 2, level + width / 2
            if bottom < low or top > high:
                raise ConfigError(
                    "window_beyond_clip",
                    where="windows of the model, clip of the data",
                    got=f"the window (level {level:g}, width {width:g}) from {bottom:g} to {top:g} HU, and HU clipped to "
                    f"[{low}, {high}]",
                    expected="windows within the clipped range",
                    todo="Widen data.preprocessing.clip (null keeps all HU), or remove the window from model.windows.channels.",
                )

    def to_dict(self) -> dict[str, Any]:
        """The settings as plain values for JSON and checkpoints."""
        return asdict(self)


class Box(NamedTuple):
    """A rectangle of the image plane in pixels; it may extend beyond the image, where there is air."""

    top: float
    left: float
    height: float
    width: float


def preprocess_scan(scan: Scan, preprocessing: Preprocessing, box: Box | None = None) -> np.ndarray:
    """Crop the HU of a scan, resize them to the network's size, and clip them.

    Pixels become square. Shrinking averages (``INTER_AREA``), so that small hemorrhages fade but do not fall between samples;
    enlarging interpolates linearly. Clipping comes last, because it would change the averages.

    Args:
        scan: Scan in HU.
        preprocessing: Size, crop and clipping.
        box: Part of every slice that the network gets, as `network_box` gives it; None: it is computed.

    Returns:
        HU, int16 ``(n, size, size)``.
    """
    box = network_box(scan, preprocessing) if box is None else box
    hu = np.stack([_cut_and_resize(image, box, preprocessing.size) for image in scan.hu])  # (n, size, size)
    return hu if preprocessing.clip is None else hu.clip(*preprocessing.clip, out=hu)


def network_box(scan: Scan, preprocessing: Preprocessing) -> Box:
    """The rectangle of every slice that becomes the network's input, in whole pixels.

    Args:
        scan: Scan in HU.
        preprocessing: Settings, of which size and crop are used.
    """
    if preprocessing.crop == "head":
        box = _head_box(scan)
    elif preprocessing.crop == "center":
        box = _center_box(scan, preprocessing.size)
    else:
        box = _whole_box(scan)
    return Box(round(box.top), round(box.left), max(1, round(box.height)), max(1, round(box.width)))


def _square(top: float, left: float, height: float, width: float, row_mm: float, column_mm: float) -> Box:
    """The smallest box with the same centre that is square in millimetres."""
    side_mm = max(height * row_mm, width * column_mm)
    rows, columns = side_mm / row_mm, side_mm / column_mm
    return Box(top + (height - rows) / 2, left + (width - columns) / 2, rows, columns)


def _whole_box(scan: Scan) -> Box:
    _, height, width = scan.hu.shape
    return _square(0, 0, height, width, scan.spacing_mm[1], scan.spacing_mm[2])


def _center_box(scan: Scan, size: int) -> Box:
    """The middle ``size`` x ``size`` pixels of the finer spacing; the whole field of view if that is much larger."""
    _, height, width = scan.hu.shape
    row_mm, column_mm = scan.spacing_mm[1:]
    pixel_mm = min(row_mm, column_mm)
    if max(height * row_mm, width * column_mm) > LARGEST_KEPT * size * pixel_mm:
        return _whole_box(scan)
    rows, columns = size * pixel_mm / row_mm, size * pixel_mm / column_mm
    # If the number of surplus or missing pixels is odd, the greater half is below and on the right.
    return Box(int((height - rows) / 2), int((width - columns) / 2), rows, columns)


def _head_box(scan: Scan) -> Box:
    """The square around the head in all slices; the whole field of view if there is only air."""
    step = max(1, max(scan.hu.shape[1:]) // 128)  # a quarter of the resolution suffices for a box, and is 16 times cheaper
    share = (scan.hu[:, ::step, ::step] > TISSUE_HU).mean(axis=0, dtype=np.float32)  # (h, w)
    mask = (share > HEAD_SHARE_OF_SLICES).astype(np.uint8)
    mask = cv2.morphologyEx(mask, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    count, _, stats, _ = cv2.connectedComponentsWithStats(mask)
    if count < 2:
        return _whole_box(scan)
    left, top, width, height, _ = (stats[1 + stats[1:, cv2.CC_STAT_AREA].argmax()] * step).tolist()
    margin = CROP_MARGIN * max(width, height)
    return _square(top - margin, left - margin, height + 2 * margin, width + 2 * margin, scan.spacing_mm[1], scan.spacing_mm[2])


def _cut_and_resize(image: np.ndarray, box: Box, size: int) -> np.ndarray:
    height, width = image.shape
    top, left = int(box.top), int(box.left)
    bottom, right = top + int(box.height), left + int(box.width)
    cut = image[max(0, top) : min(height, bottom), max(0, left) : min(width, right)]
    if top < 0 or left < 0 or bottom > height or right > width:
        cut = cv2.copyMakeBorder(
            cut, max(0, -top), max(0, bottom - height), max(0, -left), max(0, right - width), cv2.BORDER_CONSTANT, value=HU_MIN
        )
    if cut.shape == (size, size):
        return np.ascontiguousarray(cut)
    shrinks = min(cut.shape) >= size
    return cv2.resize(cut, (size, size), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
