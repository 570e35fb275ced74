"""Converts stored pixel values to Hounsfield units, with the known repairs. Works on arrays alone."""

import math
from typing import NamedTuple

import numpy as np

from ich_lstm.scan import HU_MAX, HU_MIN, Note

WRAP_12BIT = 3072
"""HU above which RSNA's 12-bit files with wrong headers (0 or -1) wrap around: 12 bits hold exactly -1024 to 3071."""

NO_AIR_INTERCEPT = -100
"""With a higher intercept, unsigned values cannot represent air (-1000 HU): header and pixels contradict each other."""

MAX_SLOPE = 16.0
MAX_INTERCEPT = 1 << 15

PADDING_BELOW_HU = -500
"""A padding value that means more HU than this, but less than metal, may be tissue and is not replaced."""

CIRCLE_BELOW_HU = -1100
"""Air is never this low; scanners fill the corners outside the field of view with -2000 or -3024 HU."""

AIR_PEAK_HU = (-1050, -900)
TISSUE_PEAK_HU = (0, 60)
UNSIGNED_TISSUE_PEAK = (0, 100)
MIN_PEAK_SHARE = 0.01
"""Minimum share of the pixels in a peak."""

SOFT_RANGE = 200
"""Range in HU around water that is searched for the peak of soft tissue."""

MIN_PADDED_SHARE = 0.005
"""Minimum share of pixels with padding: the corners outside a circle are a fifth of the image, chance values are rarer."""

INT16_SIZE = 1 << 16

BELOW_AIR = Note("below_air", "values below air, outside the field of view, set to air")


class Storage(NamedTuple):
    """The storage of a slice's values: attributes of the Image Pixel and CT Image modules.

    Args:
        slope: Rescale Slope (0028,1053); None if missing.
        intercept: Rescale Intercept (0028,1052); None if missing.
        bits_stored: Bits Stored (0028,0101), 1 to 16.
        signed: Whether Pixel Representation (0028,0103) is 1.
        padding: Pixel Padding Value (0028,0120) as a stored value; None if missing.
        padding_limit: Pixel Padding Range Limit (0028,0121) as a stored value; None if missing.
    """

    slope: float | None = 1.0
    intercept: float | None = 0.0
    bits_stored: int = 16
    signed: bool = False
    padding: int | None = None
    padding_limit: int | None = None


class RescaleError(ValueError):
    """Raised for stored values that cannot be converted to HU.

    Args:
        code: Reason code of :mod:`ich_lstm.reading.ledger.reasons`.
        got: Description of what was found.
        expected: Description of acceptable values.
    """

    def __init__(self, code: str, got: str, expected: str) -> None:
        super().__init__(code, got, expected)
        self.code = code
        self.got = got
        self.expected = expected


def to_hu(stored: np.ndarray, storage: Storage) -> tuple[np.ndarray, tuple[Note, ...]]:
    """Convert stored values to HU, clipped to [-1024, 3071]; padding becomes air.

    The conversion is the Modality LUT (PS3.3 C.11.1): HU = stored x slope + intercept. Integer slopes and intercepts are
    computed exactly in int16; fractional ones are computed in float32 and rounded.

    Args:
        stored: Stored values, uint16 or int16 ``(h, w)``, in the machine's byte order. The array may be overwritten.
        storage: Storage attributes from the header.

    Returns:
        HU, int16 ``(h, w)``, and a note for each repair.

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
    signed = storage.signed
    if bits == 16 and not signed and intercept > NO_AIR_INTERCEPT and _looks_signed(stored):
        stored, signed = stored.view(np.int16), True
        repairs.append(Note("unsigned_flag", "signed values flagged as unsigned"))
    # Padding comes before bits are masked or sign-extended: these steps could map its extra bits to values of tissue.
    stored, padded, padding = _without_padding(stored, storage._replace(signed=signed), slope, intercept)
    if bits == 12 and intercept > NO_AIR_INTERCEPT and not signed:
        hu = _unwrap_rsna(stored, repairs)
    else:
        if bits < 16:
            stored = _extend_sign(stored, bits, intercept, repairs) if signed else _mask_unused(stored, bits, repairs)
        if int(stored.min()) * slope + intercept < CIRCLE_BELOW_HU and not (padded is not None and padded.all()):
            repairs.append(BELOW_AIR)
        hu = _linear(stored, slope, intercept)
    if padded is not None:
        hu[padded] = HU_MIN
        if padding not in repairs:
            repairs.append(padding)
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
    """Repair RSNA's 12-bit files: stored values of 3072 and more are 4096 too high (3072 is -1024, 3096 air, 40 brain)."""
    hu = (stored & 0x0FFF).view(np.int16)
    if int(hu.max()) >= WRAP_12BIT:
        hu -= HU_MIN
        hu &= 0x0FFF  # subtracts 4096 from values that reach it
        hu += HU_MIN
        repairs.append(Note("wrap_12bit", "12-bit values wrapped below 0 HU, unwrapped"))
    return hu


def _extend_sign(stored: np.ndarray, bits: int, intercept: float, repairs: list[Note]) -> np.ndarray:
    """Sign-extend signed values of fewer than 16 bits whose upper bits are unset or hold something else."""
    half = 1 << (bits - 1)
    low, high = int(stored.min()), int(stored.max())
    if -half <= low and high < half:
        return stored
    if -half <= low and high < 2 * half and (low < 0 or intercept <= NO_AIR_INTERCEPT):
        return stored  # Bits Stored is one too small, or the values are unsigned: they are correct as stored
    if low >= 0 and high < 2 * half:
        repairs.append(Note(f"sign_{bits}bit", f"{bits}-bit signed values without sign extension, extended"))
    else:
        repairs.append(Note("unused_bits", f"bits above the {bits} stored ones were ignored"))
    return (stored << (16 - bits)) >> (16 - bits)


def _mask_unused(stored: np.ndarray, bits: int, repairs: list[Note]) -> np.ndarray:
    """Clear the bits of unsigned values above Bits Stored (PS3.5 8.1.1), which may hold an old overlay or a sign."""
    if int(stored.max()) < 1 << bits:
        return stored
    if int(stored[stored >= 1 << bits].min()) >= INT16_SIZE - (1 << (bits - 1)):
        repairs.append(Note("unsigned_flag", "signed values flagged as unsigned"))
        return stored.view(np.int16)
    repairs.append(Note("unused_bits", f"bits above the {bits} stored ones were ignored"))
    return stored & np.uint16((1 << bits) - 1)


def _looks_signed(stored: np.ndarray) -> bool:
    """Whether unsigned values have their peaks where signed HU would have them: near 65536 - 1000 and at 0 to 100."""
    if stored.max() < INT16_SIZE // 2:
        return False
    air = _share(stored, AIR_PEAK_HU[0] + INT16_SIZE, AIR_PEAK_HU[1] + INT16_SIZE)
    return air >= MIN_PEAK_SHARE and _share(stored, *UNSIGNED_TISSUE_PEAK) >= MIN_PEAK_SHARE


class StoredPeaks:
    """Tests on one slice or many whether stored values are HU already: air near -1000, soft tissue at 0 to 60."""

    def __init__(self) -> None:
        self._size = 0
        self._air = 0
        self._soft = np.zeros(2 * SOFT_RANGE, np.int64)

    def add(self, stored: np.ndarray) -> None:
        """Add the values of a slice to the histogram."""
        self._size += stored.size
        self._air += int(np.count_nonzero((stored >= AIR_PEAK_HU[0]) & (stored <= AIR_PEAK_HU[1])))
        soft = stored[(stored > -SOFT_RANGE) & (stored < SOFT_RANGE)]
        self._soft += np.bincount(soft.astype(np.int64) + SOFT_RANGE, minlength=2 * SOFT_RANGE)

    def are_hu(self) -> bool:
        """Whether both peaks are present."""
        least = max(1.0, MIN_PEAK_SHARE * self._size)
        peak = int(self._soft.argmax()) - SOFT_RANGE
        return self._air >= least and int(self._soft.sum()) >= least and TISSUE_PEAK_HU[0] <= peak <= TISSUE_PEAK_HU[1]


NO_RESCALE = Note("rescale_missing", "no rescale in the header; the stored values are HU")


def _assume_hu(stored: np.ndarray, storage: Storage, repairs: list[Note]) -> Storage:
    """Accept values without rescale as HU if air and soft tissue have their peaks in place; refuse them otherwise."""
    peaks = StoredPeaks()
    peaks.add(stored)
    if not peaks.are_hu():
        raise RescaleError(
            "rescale_missing",
            "no Rescale Slope or Intercept (0028,1053), (0028,1052), and the stored values are not HU",
            "both, or air near -1000 and soft tissue at 0 to 60",
        )
    repairs.append(NO_RESCALE)
    return storage._replace(slope=1.0, intercept=0.0)


def _share(values: np.ndarray, low: int, high: int) -> float:
    return float(np.count_nonzero((values >= low) & (values <= high))) / values.size


def _without_padding(
    stored: np.ndarray, storage: Storage, slope: float, intercept: float
) -> tuple[np.ndarray, np.ndarray | None, Note]:
    """Replace padding by a neutral value.

    Padding is declared by Pixel Padding Value (PS3.3 C.7.5.1.1.2), or is a corner value that exceeds the stored bits and, read
    as signed, lies far below air.

    Returns:
        The values, the mask of padding (None if there is none), and the note for the repair.
    """
    padded = _declared_padding(stored, storage, slope, intercept)
    note = Note("padding", f"padding value {storage.padding} set to air")
    if padded is None:
        padded, note = _undeclared_padding(stored, storage, slope, intercept), BELOW_AIR
    if padded is None:
        return stored, None, note
    if not stored.flags.writeable:
        stored = stored.copy()
    stored[padded] = stored.flat[int(padded.argmin())]  # the first value that is not padding, so that no new value appears
    return stored, padded, note


def _declared_padding(stored: np.ndarray, storage: Storage, slope: float, intercept: float) -> np.ndarray | None:
    """The mask of the padding that the header declares; None if it is absent, may be tissue, or is clipped to air anyway."""
    if storage.padding is None:
        return None
    limit = storage.padding if storage.padding_limit is None else storage.padding_limit
    # Both attributes may be written with the VR of the other signedness, and unsigned values may hold signed padding.
    for signed in (True,) if storage.signed else (False, True):
        low, high = sorted(_as_16_bits(value, signed) for value in (storage.padding, limit))
        if high * slope + intercept <= PADDING_BELOW_HU or low * slope + intercept > HU_MAX:
            values = stored.view(np.int16 if signed else np.uint16)
            padded: np.ndarray = values == low if low == high else (values >= low) & (values <= high)
            if padded.any():
                return padded
    bits = storage.bits_stored
    masked = storage.padding & ((1 << bits) - 1)
    if bits == 16 or storage.padding_limit is not None or masked == storage.padding & (INT16_SIZE - 1):
        return None
    return _connected_to_corners(stored, masked)


def _as_16_bits(value: int, signed: bool) -> int:
    value &= INT16_SIZE - 1
    return value - INT16_SIZE if signed and value >= INT16_SIZE // 2 else value


def _connected_to_corners(stored: np.ndarray, value: int) -> np.ndarray | None:
    """The mask of a value in the regions that are connected to the corners; None unless it fills all four corners.

    A codec that keeps only the stored bits truncates padding, and the truncated value can equal one of tissue.
    """
    corners = stored[[0, 0, -1, -1], [0, -1, 0, -1]]
    if not (corners == value).all():
        return None
    import cv2

    _, regions = cv2.connectedComponents((stored == value).astype(np.uint8), connectivity=4)
    return np.isin(regions, regions[[0, 0, -1, -1], [0, -1, 0, -1]])


def _undeclared_padding(stored: np.ndarray, storage: Storage, slope: float, intercept: float) -> np.ndarray | None:
    """The mask of a corner value that exceeds the stored bits or any CT number and, read as signed, lies far below air."""
    half = 1 << (storage.bits_stored - 1)
    for value in {int(stored[row, column]) for row in (0, -1) for column in (0, -1)}:
        with_sign = _as_16_bits(value, True)
        if storage.signed:
            outside = with_sign < -half
        else:
            outside = value >= INT16_SIZE // 2 and (value >= 2 * half or value * slope + intercept > HU_MAX)
        if outside and with_sign * slope + intercept < CIRCLE_BELOW_HU:
            padded: np.ndarray = stored == value
            if MIN_PADDED_SHARE * stored.size <= np.count_nonzero(padded) < stored.size:
                return padded
    return None


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
