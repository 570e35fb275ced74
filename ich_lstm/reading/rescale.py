"""Stored pixel values -> Hounsfield units, with the known repairs. Arrays only; no files."""

import math
from typing import NamedTuple

import numpy as np

from ich_lstm.scan import HU_MAX, HU_MIN, Note

RSNA_INTERCEPT = -1000
"""The true intercept of RSNA's wrapped 12-bit files (whose headers say 0 or -1)."""

NO_AIR_INTERCEPT = -100
"""Above this intercept, unsigned values cannot reach air (-1000 HU): the header and the pixels disagree."""

MAX_SLOPE = 16.0
MAX_INTERCEPT = 1 << 15

PADDING_BELOW_HU = -500
"""A padding value that stands for more than this, and less than metal, may be tissue: it is left alone."""

CIRCLE_BELOW_HU = -1100
"""No CT number of air is as low; scanners fill the corners outside the field of view with -2000 or -3024."""

AIR_PEAK_HU = (-1050, -900)
TISSUE_PEAK_HU = (0, 60)
UNSIGNED_TISSUE_PEAK = (0, 100)
MIN_PEAK_SHARE = 0.01
"""A peak holds at least 1 % of the pixels."""

INT16_SIZE = 1 << 16


class Storage(NamedTuple):
    """How a slice's values are stored: the attributes of the Image Pixel and CT Image modules.

    Args:
        slope: Rescale Slope (0028,1053); None if missing.
        intercept: Rescale Intercept (0028,1052); None if missing.
        bits_stored: Bits Stored (0028,0101).
        signed: Pixel Representation (0028,0103) is 1.
        padding: Pixel Padding Value (0028,0120), as stored.
        padding_limit: Pixel Padding Range Limit (0028,0121), as stored.
    """

    slope: float | None = 1.0
    intercept: float | None = 0.0
    bits_stored: int = 16
    signed: bool = False
    padding: int | None = None
    padding_limit: int | None = None


class RescaleError(ValueError):
    """Stored values that cannot be turned into HU.

    Args:
        code: Stable reason, as in :mod:`ich_lstm.reading.reasons`.
        got: What was found.
        expected: What would have been right.
    """

    def __init__(self, code: str, got: str, expected: str) -> None:
        super().__init__(code, got, expected)
        self.code = code
        self.got = got
        self.expected = expected


def to_hu(stored: np.ndarray, storage: Storage) -> tuple[np.ndarray, tuple[Note, ...]]:
    """Turn stored values into HU, clipped to [-1024, 3071]; padding becomes air.

    Follows the Modality LUT (PS3.3 C.11.1): HU = stored x slope + intercept. With whole numbers that is exact in int16;
    fractional ones are computed in float32 and rounded.

    Args:
        stored: uint16 or int16 ``(h, w)``, in the machine's byte order. May be overwritten.
        storage: What the header says of them.

    Returns:
        int16 ``(h, w)``, and a note for each repair.

    Raises:
        RescaleError: ``rescale_missing`` or ``bad_rescale``.

    Example:
        >>> to_hu(np.array([[0, 1064, 4095]], np.uint16), Storage(intercept=-1024))[0]
        array([[-1024,    40,  3071]], dtype=int16)
    """
    repairs: list[Note] = []
    if storage.slope is None or storage.intercept is None:
        storage = _assume_hu(stored, storage, repairs)
    slope, intercept = _checked_rescale(storage)
    bits = storage.bits_stored
    if bits == 12 and intercept > NO_AIR_INTERCEPT:
        if storage.signed:
            stored = _extend_sign(stored, repairs)
        else:
            return _unwrap_rsna(stored, repairs), tuple(repairs)
    elif bits == 16 and not storage.signed and intercept > NO_AIR_INTERCEPT and _looks_signed(stored):
        stored = stored.view(np.int16)
        repairs.append(Note("unsigned_flag", "signed values flagged as unsigned"))
    padded = _padding_mask(stored, storage, slope, intercept)
    if padded is None and int(stored.min()) * slope + intercept < CIRCLE_BELOW_HU:
        repairs.append(Note("below_air", "values below air, outside the field of view, set to air"))
    hu = _linear(stored, slope, intercept)
    if padded is not None and padded.any():
        hu[padded] = HU_MIN
        repairs.append(Note("padding", f"padding value {storage.padding} set to air"))
    return hu, tuple(repairs)


def _checked_rescale(storage: Storage) -> tuple[float, float]:
    slope = math.nan if storage.slope is None else storage.slope
    intercept = math.nan if storage.intercept is None else storage.intercept
    if not (math.isfinite(slope) and 0 < slope <= MAX_SLOPE and abs(intercept) <= MAX_INTERCEPT):
        raise RescaleError(
            "bad_rescale",
            f"rescale slope {slope:g} and intercept {intercept:g}",
            f"a slope above 0 and at most {MAX_SLOPE:g}, an intercept within {MAX_INTERCEPT}",
        )
    return slope, intercept


def _unwrap_rsna(stored: np.ndarray, repairs: list[Note]) -> np.ndarray:
    """The repair of RSNA's 12-bit files: add 1000, wrap at 4096, intercept -1000 (so 3096 is air, 40 is brain)."""
    hu = (stored & 0x0FFF).view(np.int16)
    hu -= RSNA_INTERCEPT
    hu &= 0x0FFF  # subtracts 4096 where it is reached
    hu += RSNA_INTERCEPT
    np.clip(hu, HU_MIN, HU_MAX, out=hu)
    repairs.append(Note("wrap_12bit", "12-bit values wrapped below 0 HU, unwrapped"))
    return hu


def _extend_sign(stored: np.ndarray, repairs: list[Note]) -> np.ndarray:
    """Signed 12-bit values whose sign was not carried into the upper four bits: none is negative, some pass 2047."""
    if stored.min() < 0 or not 2047 < stored.max() <= 4095:
        return stored
    repairs.append(Note("sign_12bit", "12-bit signed values without sign extension, extended"))
    return (stored ^ 0x800) - 0x800


def _looks_signed(stored: np.ndarray) -> bool:
    """Whether unsigned values have their peaks where signed HU would: near 65536 - 1000 and at 0 to 100."""
    if stored.max() < INT16_SIZE // 2:
        return False
    air = _share(stored, AIR_PEAK_HU[0] + INT16_SIZE, AIR_PEAK_HU[1] + INT16_SIZE)
    return air >= MIN_PEAK_SHARE and _share(stored, *UNSIGNED_TISSUE_PEAK) >= MIN_PEAK_SHARE


def _assume_hu(stored: np.ndarray, storage: Storage, repairs: list[Note]) -> Storage:
    """Without rescale, take the values as HU if air and soft tissue lie where they should; refuse them otherwise."""
    soft = stored[(stored > -200) & (stored < 200)]
    peak = int(np.bincount(soft.astype(np.int64) + 200).argmax()) - 200 if soft.size else None
    if (
        _share(stored, *AIR_PEAK_HU) < MIN_PEAK_SHARE
        or peak is None
        or not TISSUE_PEAK_HU[0] <= peak <= TISSUE_PEAK_HU[1]
        or soft.size < MIN_PEAK_SHARE * stored.size
    ):
        raise RescaleError(
            "rescale_missing",
            "no Rescale Slope or Intercept (0028,1053), (0028,1052), and the stored values are not HU",
            "both, or air near -1000 and soft tissue at 0 to 60",
        )
    repairs.append(Note("rescale_missing", "no rescale in the header; the stored values are HU"))
    return storage._replace(slope=1.0, intercept=0.0)


def _share(values: np.ndarray, low: int, high: int) -> float:
    return float(np.count_nonzero((values >= low) & (values <= high))) / values.size


def _padding_mask(stored: np.ndarray, storage: Storage, slope: float, intercept: float) -> np.ndarray | None:
    """Where Pixel Padding Value (PS3.3 C.7.5.1.1.2) stands; None if it may be tissue, or clipping does the same."""
    if storage.padding is None:
        return None
    low = high = storage.padding
    if storage.padding_limit is not None:
        low, high = sorted((low, storage.padding_limit))
    if not (high * slope + intercept <= PADDING_BELOW_HU or low * slope + intercept > HU_MAX):
        return None
    return stored == low if low == high else (stored >= low) & (stored <= high)


def _linear(stored: np.ndarray, slope: float, intercept: float) -> np.ndarray:
    whole = int(intercept)
    if slope == 1 and whole == intercept:
        limits = np.iinfo(stored.dtype)
        low, high = max(HU_MIN - whole, limits.min), min(HU_MAX - whole, limits.max)
        if -(2**15) <= low <= high < 2**15:
            hu = np.clip(stored, low, high, out=stored if stored.flags.writeable else None).view(np.int16)
            hu += np.int16(whole)
            return hu
    exact = np.multiply(stored, slope, dtype=np.float32)
    np.add(exact, intercept, out=exact)
    np.rint(exact, out=exact)
    np.clip(exact, HU_MIN, HU_MAX, out=exact)
    return exact.astype(np.int16)
