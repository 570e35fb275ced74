"""Loads the slices of one series as an ordered, checked Scan."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ich_lstm.errors import FileError, IchLstmError, SeriesError
from ich_lstm.formatting import counted
from ich_lstm.reading.body.head import (
    BRAIN_SHARE,
    METAL_MM2,
    NECK_MARGIN_MM,
    brain_share,
    count_neck_slices,
    describe_sections,
    is_defaced,
    judge,
    measure_section,
    metal_mm2,
    missing_parts,
)
from ich_lstm.reading.header.examinations import identity_of
from ich_lstm.reading.header.geometry import MAX_TILT_DEGREES, Display, origins_in_plane, tilt_degrees
from ich_lstm.reading.ledger.header_table import HeaderRows, values_of
from ich_lstm.reading.ledger.ledger import Ledger
from ich_lstm.reading.pixels.dicom_file import SliceHeader, assume_rescale, has_rescale, read_hu
from ich_lstm.reading.pixels.plausibility import check_hu
from ich_lstm.reading.pixels.rescale import NO_RESCALE
from ich_lstm.reading.series.members import (
    MIN_SLICES,
    SAME_MM,
    check_count,
    check_same_grid,
    parallel_slices,
    thickness_of,
    without_duplicates,
    without_scouts,
    without_strays,
)
from ich_lstm.reading.series.notes import ScanNotes
from ich_lstm.reading.series.ordering import place_slices, spacing_flags
from ich_lstm.reading.series.plain import bone_reason, check_units, contrast_reason, has_unspecified_unit, map_reason
from ich_lstm.reading.series.slabs import SLAB_MM, mean_slabs
from ich_lstm.reading.terms.charset import UNDECODED
from ich_lstm.scan import Note, Scan
from ich_lstm.unexpected import one_of_many

FEW_SLICES = 12
"""A head of 140 mm has 12 slices of 12 mm; a scan with fewer slices likely misses part of the head."""

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
    """The slices of one stack, in any order: all slices of a Series Instance UID, some of them, or those of several UIDs.

    Args:
        series_uid: Series Instance UID (0020,000E).
        headers: Headers of the slices, at least one.
        qualifier: Text that distinguishes series under one UID, such as the kernel or the patient. Private; usually empty.
        acquisition: Number of the acquisition under the UID, from 1 in the order of acquisition; 0 if the UID has only one.
        acquisitions: Number of acquisitions under the UID.
        joined: UIDs of further series whose slices are included, because all are of one acquisition. `series_uid` is the
            UID with the lowest Series Number, and the first in text order if several share it.
    """

    series_uid: str
    headers: Sequence[SliceHeader]
    qualifier: str = ""
    acquisition: int = 0
    acquisitions: int = 1
    joined: tuple[str, ...] = ()

    @property
    def identifier(self) -> str:
        """A unique identifier: the UID, with the qualifier and the acquisition if several series share the UID."""
        acquisition = f"acquisition {self.acquisition} of {self.acquisitions}" if self.acquisition else ""
        return "|".join(filter(None, (self.series_uid, self.qualifier, acquisition)))

    @property
    def series_uids(self) -> tuple[str, ...]:
        """All UIDs under which the slices are stored, `series_uid` first."""
        return self.series_uid, *self.joined

    @property
    def composition(self) -> str:
        """How the series differs from the series as stored, as text for a person; empty if it does not."""
        if self.acquisition:
            return f"acquisition {self.acquisition} of {self.acquisitions} in its series"
        if self.joined:
            counts = Counter(values_of(self.headers, "series_uid"))
            slices = " + ".join(str(counts[uid]) for uid in self.series_uids)
            return f"{len(self.series_uids)} series of one acquisition joined: {slices} slices"
        return ""

    def decoded(self) -> "Series":
        """The series with decoded headers.

        An index holds millions of headers undecoded. A function that works on one series decodes its headers once, and passes
        the decoded series on.
        """
        return replace(self, headers=self.headers.decoded()) if isinstance(self.headers, HeaderRows) else self

    def __len__(self) -> int:
        """Number of slices."""
        return len(self.headers)


def short_uid(uid: str) -> str:
    """Shorten a long identifier for display: its beginning and its end."""
    return uid if len(uid) <= SHORT_UID_LENGTH else f"{uid[:8]}…{uid[-6:]}"


def name_series(series: Series) -> str:
    """The name of a series in messages: ``series 1.2.840.…123456 (28 slices)``."""
    return f"series {short_uid(series.series_uid)} ({counted(len(series), 'slice')})"


def load_scan(
    series: Series,
    *,
    training: bool = False,
    ledger: Ledger | None = None,
    slab_mm: float | None = SLAB_MM,
    allow_other_part: bool = False,
) -> Scan:
    """Load a series as a scan: slices ordered by their projection on the slice normal, in the display convention.

    Args:
        series: The slices, in any order.
        training: If true, unreadable slices are excluded and the scan is flagged as ``incomplete``. If false, one unreadable
            slice refuses the scan, because a partial scan must not get a probability.
        ledger: Records the excluded slices (duplicates, scouts, unreadable slices), and all slices if the series is refused. A
            worker process passes an empty ledger and returns its rows to the parent process.
        slab_mm: Thickness to which thin slices are averaged; None disables the averaging.
        allow_other_part: Also read a series whose pixels do not show a head (:func:`~ich_lstm.reading.body.head.judge`).

    Raises:
        SeriesError: If the slices do not form a scan; the code says why.
        UnexpectedError: ``unexpected_error`` or ``out_of_memory``.

    Example:
        >>> load_scan(series).positions_mm  # doctest: +SKIP
        array([-33.67, -29.67, ...])
    """
    notes = ScanNotes()
    series = series.decoded()
    try:
        with one_of_many(name_series(series)):
            return _load(series, training, slab_mm, allow_other_part, notes)
    except IchLstmError as error:
        if ledger is not None:
            ledger.mark(series.headers, error.code, error.detail)
        raise
    finally:
        if ledger is not None:
            notes.write(ledger)


def _load(series: Series, training: bool, slab_mm: float | None, allow_other_part: bool, notes: ScanNotes) -> Scan:
    name = name_series(series)
    if series.joined:
        notes.repair("joined_series", series.composition)
    if series.acquisition:
        notes.flag("several_acquisitions", series.composition)
    headers = sorted(series.headers, key=lambda header: (str(header.source), header.frame))
    headers = without_scouts(headers, notes)
    headers = without_strays(headers, notes)
    check_count(name, headers)
    identity = identity_of(headers, name)
    headers = without_duplicates(name, headers, notes)
    headers, display = parallel_slices(name, headers, notes)
    check_same_grid(name, headers)
    check_units(name, headers)
    headers, positions = place_slices(name, headers, display.normal, notes)
    check_count(name, headers)
    volume, read = _read_volume(name, headers, display, training, notes)
    headers, positions = [headers[i] for i in read], positions[read]
    check_count(name, headers)
    check_hu(volume, name, SeriesError)
    volume, pixel_mm = _square_pixels(volume, headers[0], display, notes)
    for flag in spacing_flags(positions):
        notes.flag(*flag)
    scan = Scan(
        hu=volume,
        positions_mm=positions,
        spacing_mm=(float(np.median(np.diff(positions))), *pixel_mm),
        tilt_degrees=tilt_degrees(display.normal),
        sop_uids=tuple(header.sop_uid for header in headers),
        series_uid=series.series_uid,
        qualifier=series.qualifier,
        study_uid=identity.study_uid,
        patient_id=identity.patient_id,
        description=headers[0].series_description,
        repairs=notes.repairs(),
    )
    _flag_header(headers, notes, scan.tilt_degrees)
    origins = origins_in_plane(display, headers[0].orientation, [header.position for header in headers])
    scan, below = without_neck(scan, name, notes, allow_other_part=allow_other_part)
    for header in headers[:below]:
        notes.exclude(header, "neck", "a slice of the neck or the trunk, below the head")
    origins = None if origins is None else origins[below:]
    return finish_scan(scan, notes, slab_mm=slab_mm, thickness_mm=thickness_of(headers), origins_mm=origins)


def without_neck(scan: Scan, name: str, notes: ScanNotes, *, allow_other_part: bool = False) -> tuple[Scan, int]:
    """Check that a scan shows a head, flag missing parts, and exclude the slices of the neck and the trunk.

    Args:
        scan: A scan in the display convention, with square pixels.
        name: Name of the scan in messages.
        notes: Collects flags and repairs.
        allow_other_part: Accept a scan that does not show a head.

    Returns:
        The scan, and the number of slices that were excluded at its lower end.

    Raises:
        SeriesError: ``not_head``.
    """
    sections = [measure_section(image, scan.spacing_mm[1]) for image in scan.hu]
    verdict = judge(sections, scan.spacing_mm[0])
    if verdict == "other" and not allow_other_part:
        raise SeriesError(
            "not_head",
            where=name,
            got=f"images of another part of the body: {describe_sections(sections)}",
            expected="a closed skull of plausible size around soft tissue",
            todo="Choose the series of the head, or read this one with --allow-other-body-part of ich-predict if it is one.",
        )
    if verdict != "head":
        notes.flag("no_skull", "no skull in the images: a phantom, or not the whole head")
    pixel_mm2 = scan.spacing_mm[1] * scan.spacing_mm[2]
    if brain_share(sections) < BRAIN_SHARE:
        notes.flag("no_brain", "little within the skull has the density of a brain")
    if metal_mm2(scan.hu, pixel_mm2) >= METAL_MM2:
        notes.flag("metal", "metal in the images")
    if verdict == "head" and is_defaced(sections):
        notes.flag("defaced", "outside the skull there are regions of exactly 0 HU: the face was removed by a program")
    below = count_neck_slices(sections, scan.positions_mm) if verdict == "head" else 0
    if len(scan) - below < MIN_SLICES:
        below = 0
    for reason in missing_parts(sections[below:], scan.positions_mm[below:]):
        notes.flag("incomplete", reason)
    if below == 0:
        return scan, 0
    note = Note(
        "neck", f"{counted(below, 'slice')} of the neck or the trunk, more than {NECK_MARGIN_MM:.0f} mm below the skull, excluded"
    )
    above = replace(
        scan,
        hu=scan.hu[below:],
        positions_mm=scan.positions_mm[below:],
        sop_uids=scan.sop_uids[below:],
        repairs=(*scan.repairs, note),
    )
    return above, below


def finish_scan(
    scan: Scan,
    notes: ScanNotes,
    *,
    slab_mm: float | None,
    thickness_mm: float | None = None,
    origins_mm: np.ndarray | None = None,
) -> Scan:
    """Average thin slices to slabs and set the flags: the last steps for every scan, from DICOM or NIfTI.

    Args:
        scan: A scan in the display convention, with its repairs.
        notes: Collects the flags.
        slab_mm: Thickness in mm to which thin slices are averaged; None disables the averaging.
        thickness_mm: Slice Thickness (0018,0050), if known.
        origins_mm: In-plane origin of each slice, across and down, ``(n, 2)``; None if it is the same for all slices.
    """
    if slab_mm is not None:
        scan = mean_slabs(scan, slab_mm=slab_mm, thickness_mm=thickness_mm, origins_mm=origins_mm)
    flag_scan(scan, notes)
    return replace(scan, flags=notes.flags())


def _read_volume(
    name: str, headers: Sequence[SliceHeader], display: Display, training: bool, notes: ScanNotes
) -> tuple[np.ndarray, list[int]]:
    """The slices that can be read, int16 ``(n, h, w)``, and their indices."""
    if not all(map(has_rescale, headers)):
        headers = assume_rescale(headers)
        if all(map(has_rescale, headers)):
            notes.repair(*NO_RESCALE)
    volume: np.ndarray | None = None
    read: list[int] = []
    for i, header in enumerate(headers):
        try:
            hu, repairs = read_hu(header)
        except FileError as error:
            notes.exclude(header, error.code, error.detail)
            if not training:
                raise SeriesError(
                    error.code,
                    where=name,
                    got=f"slice {i + 1} of {len(headers)} ({header.source}): {error.got}",
                    expected=error.expected,
                    todo=error.todo,
                ) from error
            notes.flag("incomplete", "unreadable slices were excluded")
            continue
        hu = display.apply(hu)
        if volume is None:
            volume = np.empty((len(headers), *hu.shape), np.int16)
        volume[len(read)] = hu
        read.append(i)
        for note in repairs:
            notes.repair_slice(note)
    if volume is None:
        raise SeriesError("no_usable_slice", where=name, got="no slice can be read", todo="Export the series again.")
    return volume[: len(read)], read


def _square_pixels(
    volume: np.ndarray, header: SliceHeader, display: Display, notes: ScanNotes
) -> tuple[np.ndarray, tuple[float, float]]:
    """Resample to square pixels of the smaller spacing; square pixels are returned unchanged."""
    assert header.pixel_spacing is not None
    row_mm, column_mm = header.pixel_spacing[::-1] if display.transpose else header.pixel_spacing
    if abs(row_mm - column_mm) <= SAME_MM:
        return volume, (row_mm, column_mm)
    import cv2

    side = min(row_mm, column_mm)
    width, height = round(volume.shape[2] * column_mm / side), round(volume.shape[1] * row_mm / side)
    square = np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR) for image in volume])
    notes.repair("non_square_pixels", f"pixels of {row_mm:g} x {column_mm:g} mm resampled to {side:g} mm")
    return square, (side, side)


def flag_scan(scan: Scan, notes: ScanNotes) -> None:
    """Flag what the scan itself shows: tilt, few or thick slices, slices without content."""
    if scan.tilt_degrees >= TILT_FLAG_DEGREES:
        notes.flag("tilt", f"slices tilted by {scan.tilt_degrees:.1f} degrees")
    if len(scan) < FEW_SLICES:
        notes.flag("few_slices", f"{len(scan)} slices")
    if scan.spacing_mm[0] >= THICK_MM:
        notes.flag("thick_slices", f"one slice per {scan.spacing_mm[0]:.1f} mm")
    constant = sum(bool(image.min() == image.max()) for image in scan.hu)
    if constant:
        notes.flag("constant_slice", f"{counted(constant, 'slice')} of one value")


def _flag_header(headers: Sequence[SliceHeader], notes: ScanNotes, tilt: float) -> None:
    first = headers[0]
    if contrast_reason(headers, first.series_description):
        notes.flag("contrast", "contrast given")
    if reason := map_reason(headers):
        notes.flag("derived_map", reason)
    elif has_unspecified_unit(headers):
        notes.flag("unspecified_unit", "Rescale Type (0028,1054) is US (unspecified): the values may not be HU")
    if any(UNDECODED in text for text in (first.series_description, first.study_description, first.body_part, first.kernel)):
        notes.flag("character_set", "some text of the header could not be decoded and was not interpreted")
    if tilt < TILT_FLAG_DEGREES and first.tilt is not None and TILT_FLAG_DEGREES < abs(first.tilt) <= MAX_TILT_DEGREES:
        header_tilt = f"Gantry/Detector Tilt (0018,1120) of {first.tilt:.1f} degrees"
        notes.flag("tilt", f"{header_tilt}, but the orientation has none: slices may be sheared against each other")
    if reason := bone_reason(headers, first.series_description):
        notes.flag("kernel", reason)
    if any(header.lossy or header.transfer_syntax in LOSSY_SYNTAXES for header in headers):
        notes.flag("lossy", "lossy compressed")
    if any(header.burned_in for header in headers):
        notes.flag("burned_in", "annotations burned into the pixels")
    if first.kvp is not None and not KVP_RANGE[0] <= first.kvp <= KVP_RANGE[1]:
        notes.flag("kvp", f"{first.kvp:g} kVp")
    if first.age_years is not None and first.age_years < ADULT_YEARS:
        notes.flag("child", f"younger than {ADULT_YEARS} years")
