"""The slices of one series -> an ordered, checked Scan."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ich_lstm.errors import FileError, IchLstmError, SeriesError
from ich_lstm.reading import words
from ich_lstm.reading.account import Account
from ich_lstm.reading.dicom import SliceHeader, read_hu
from ich_lstm.reading.geometry import Display, tilt_degrees
from ich_lstm.reading.ledger import Ledger
from ich_lstm.reading.members import SAME_MM, check_count, check_same_grid, parallel_slices, without_doubles, without_scouts
from ich_lstm.reading.ordering import place_slices, spacing_flags
from ich_lstm.scan import Scan

FEW_SLICES = 12
"""A head of 140 mm in slices of 12 mm; with fewer, part of it is likely missing."""

TILT_FLAG_DEGREES = 1.0
THICK_MM = 9.0
KVP_RANGE = (70.0, 150.0)
ADULT_YEARS = 18
SHORT_UID_LENGTH = 16

LOSSY_SYNTAXES = frozenset(
    "1.2.840.10008.1.2.4." + end
    for end in ("50", "51", "81", "91", "93", "203")  # JPEG, JPEG-LS, JPEG 2000, HTJ2K
)


@dataclass(frozen=True)
class Series:
    """The slices that share a Series Instance UID, in any order.

    Args:
        series_uid: Series Instance UID (0020,000E).
        headers: At least one.
    """

    series_uid: str
    headers: Sequence[SliceHeader]

    def __len__(self) -> int:
        """Number of files."""
        return len(self.headers)


def short_uid(uid: str) -> str:
    """An identifier for people: a short one whole, of a long one the beginning and the end."""
    return uid if len(uid) <= SHORT_UID_LENGTH else f"{uid[:8]}…{uid[-6:]}"


def name_series(series: Series) -> str:
    """How messages call a series: ``series 1.2.840.…123456 (28 slices)``."""
    return f"series {short_uid(series.series_uid)} ({len(series)} {'slice' if len(series) == 1 else 'slices'})"


def load_scan(series: Series, *, training: bool = False, ledger: Ledger | None = None) -> Scan:
    """Read a series as a scan: ordered by the projection on the slice normal, in the display convention.

    Args:
        series: The slices, in any order.
        training: Leave out slices that cannot be read and flag the scan as ``incomplete``; otherwise one such slice
            refuses the scan, for a probability of half a head is none.
        ledger: Where to note the slices that were left out (doubles, scouts, unreadable ones) and, if the series is
            refused, all of them. In a worker process: give it an empty one, and send its rows home.

    Raises:
        SeriesError: If the slices make no scan; the code says why.

    Example:
        >>> load_scan(series).positions_mm  # doctest: +SKIP
        array([-33.67, -29.67, ...])
    """
    account = Account()
    try:
        return _load(series, training, account)
    except IchLstmError as error:
        if ledger is not None:
            ledger.mark(series.headers, error.code, error.detail)
        raise
    finally:
        if ledger is not None:
            account.write(ledger)


def _load(series: Series, training: bool, account: Account) -> Scan:
    name = name_series(series)
    headers = sorted(series.headers, key=lambda header: str(header.source))
    headers = without_scouts(headers, account)
    headers = without_doubles(name, headers, account)
    headers, display = parallel_slices(name, headers, account)
    check_same_grid(name, headers)
    headers, positions = place_slices(name, headers, display.normal, account)
    check_count(name, headers)
    volume, read = _read_volume(name, headers, display, training, account)
    headers, positions = [headers[i] for i in read], positions[read]
    check_count(name, headers)
    volume, pixel_mm = _square_pixels(volume, headers[0], display, account)
    step_mm = float(np.median(np.diff(positions)))
    for flag in spacing_flags(positions):
        account.flag(*flag)
    tilt = tilt_degrees(display.normal)
    _flag_geometry(tilt, step_mm, volume, account)
    _flag_header(headers, account)
    return Scan(
        hu=volume,
        positions_mm=positions,
        spacing_mm=(step_mm, *pixel_mm),
        tilt_degrees=tilt,
        sop_uids=tuple(header.sop_uid for header in headers),
        series_uid=series.series_uid,
        study_uid=headers[0].study_uid,
        patient_id=headers[0].patient_id,
        description=headers[0].series_description,
        repairs=account.repairs(),
        flags=account.flags(),
    )


def _read_volume(
    name: str, headers: Sequence[SliceHeader], display: Display, training: bool, account: Account
) -> tuple[np.ndarray, list[int]]:
    """All slices as int16 ``(n, h, w)``, and the indices of those that could be read."""
    volume: np.ndarray | None = None
    read: list[int] = []
    for i, header in enumerate(headers):
        try:
            hu, repairs = read_hu(header)
        except FileError as error:
            account.drop(header, error.code, error.detail)
            if not training:
                raise SeriesError(
                    error.code,
                    where=name,
                    got=f"slice {i + 1} of {len(headers)} ({header.source}): {error.got}",
                    expected=error.expected,
                    todo=error.todo,
                ) from error
            account.flag("incomplete", "slices that cannot be read are left out")
            continue
        hu = display.apply(hu)
        if volume is None:
            volume = np.empty((len(headers), *hu.shape), np.int16)
        volume[len(read)] = hu
        read.append(i)
        for note in repairs:
            account.repair_slice(note)
    if volume is None:
        raise SeriesError("no_usable_slice", where=name, got="no slice can be read", todo="Export the series again.")
    return volume[: len(read)], read


def _square_pixels(
    volume: np.ndarray, header: SliceHeader, display: Display, account: Account
) -> tuple[np.ndarray, tuple[float, float]]:
    """Resample to square pixels of the smaller spacing, if they are not."""
    assert header.pixel_spacing is not None
    row_mm, column_mm = header.pixel_spacing[::-1] if display.transpose else header.pixel_spacing
    if abs(row_mm - column_mm) <= SAME_MM:
        return volume, (row_mm, column_mm)
    import cv2

    side = min(row_mm, column_mm)
    width, height = round(volume.shape[2] * column_mm / side), round(volume.shape[1] * row_mm / side)
    square = np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR) for image in volume])
    account.repair("non_square_pixels", f"pixels of {row_mm:g} x {column_mm:g} mm resampled to {side:g} mm")
    return square, (side, side)


def _flag_geometry(tilt: float, step_mm: float, volume: np.ndarray, account: Account) -> None:
    if tilt >= TILT_FLAG_DEGREES:
        account.flag("tilt", f"slices tilted by {tilt:.1f} degrees")
    if len(volume) < FEW_SLICES:
        account.flag("few_slices", f"{len(volume)} slices")
    if step_mm >= THICK_MM:
        account.flag("thick_slices", f"one slice per {step_mm:.1f} mm")
    constant = sum(bool(image.min() == image.max()) for image in volume)
    if constant:
        account.flag("constant_slice", f"{constant} {'slice' if constant == 1 else 'slices'} of one value")


def _flag_header(headers: Sequence[SliceHeader], account: Account) -> None:
    first = headers[0]
    if words.names_contrast(first.series_description) or any(words.names_agent(header.contrast_agent) for header in headers):
        account.flag("contrast", "contrast given")
    bone = sorted({header.kernel for header in headers if words.is_bone_kernel(header.kernel)})
    if bone or words.names_bone(first.series_description):
        account.flag("kernel", f"bone kernel {', '.join(bone)}".strip())
    if any(header.lossy or header.transfer_syntax in LOSSY_SYNTAXES for header in headers):
        account.flag("lossy", "lossy compressed")
    if any(header.burned_in for header in headers):
        account.flag("burned_in", "annotations burned into the pixels")
    if first.kvp is not None and not KVP_RANGE[0] <= first.kvp <= KVP_RANGE[1]:
        account.flag("kvp", f"{first.kvp:g} kVp")
    years = _years(first.patient_age)
    if years is not None and years < ADULT_YEARS:
        account.flag("child", f"younger than {ADULT_YEARS} years")


def _years(age: str) -> float | None:
    """Patient's Age (0010,1010), an age string such as ``064Y`` or ``003M``, in years."""
    units = {"Y": 1.0, "M": 1 / 12, "W": 1 / 52, "D": 1 / 365}
    return int(age[:-1]) * units[age[-1]] if age[:-1].isdecimal() and age[-1] in units else None
