"""Decides which slices of a series belong to its scan, and whether they fit together."""

import math
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

from ich_lstm.errors import FileError, SeriesError
from ich_lstm.reading.header.geometry import AXIAL, MAX_TILT_DEGREES, Display, display_of, is_orientation, tilt_degrees
from ich_lstm.reading.header.header import SliceHeader
from ich_lstm.reading.pixels.dicom_file import read_stored
from ich_lstm.reading.series.notes import ScanNotes
from ich_lstm.reading.series.strays import find_strays
from ich_lstm.reading.terms import vocabulary

MIN_SLICES = 4

SAME_MM = 0.01
"""Pixel spacings that differ by less are equal; the difference is rounding in the file."""

SAME_DEGREES = 1.0
"""Slices of one series are parallel if their directions differ by less than this."""

PIXEL_SPACING_MM = (0.05, 10.0)
"""A head of 200 mm has 4000 or 20 pixels at these limits; a header with a spacing beyond them is wrong."""

_FLIPS_BY_PATIENT_POSITION = {"HFP": (-1.0, -1.0), "FFS": (-1.0, 1.0), "FFP": (1.0, -1.0)}


def is_localizer(header: SliceHeader) -> bool:
    """Whether Image Type says that the image is a scout view."""
    return any(vocabulary.names_localizer(value) for value in header.image_type)


def thickness_of(headers: Sequence[SliceHeader]) -> float | None:
    """The median Slice Thickness (0018,0050) in mm; None if no slice states it."""
    known = [header.thickness for header in headers if header.thickness is not None and 0 < header.thickness < math.inf]
    return float(np.median(known)) if known else None


def check_count(name: str, headers: Sequence[SliceHeader]) -> None:
    """Refuse a scan that has too few slices.

    Raises:
        SeriesError: ``no_usable_slice`` or ``few_slices``.
    """
    if not headers:
        raise SeriesError("no_usable_slice", where=name, got="no usable slice", todo="Export the series again.")
    if len(headers) < MIN_SLICES:
        raise SeriesError(
            "few_slices",
            where=name,
            got=f"{len(headers)} usable slices",
            expected=f"at least {MIN_SLICES}",
            todo="Choose a series that shows the whole head.",
        )


def without_scouts(headers: Sequence[SliceHeader], notes: ScanNotes) -> list[SliceHeader]:
    """Exclude the scout views of a series."""
    kept = []
    for header in headers:
        if is_localizer(header):
            notes.exclude(header, "localizer", "a scout inside the series")
        else:
            kept.append(header)
    return kept


def without_strays(headers: Sequence[SliceHeader], notes: ScanNotes) -> list[SliceHeader]:
    """Exclude images that are stored in a series but are not slices of it."""
    strays = find_strays(headers)
    for number, (code, reason) in strays.items():
        notes.exclude(headers[number], code, reason)
    return [header for number, header in enumerate(headers) if number not in strays]


def without_duplicates(name: str, headers: Sequence[SliceHeader], notes: ScanNotes) -> list[SliceHeader]:
    """Keep one file of those with the same SOP Instance UID: the same slice of the same patient, with the same pixels.

    Args:
        name: Name of the series in messages.
        headers: Slices of one patient.
        notes: Collects the excluded files. If only one of two files can be read, the other one is excluded.

    Raises:
        SeriesError: ``conflicting_uids`` if the files are different slices, or if their pixels differ.
    """
    kept: dict[object, SliceHeader] = {}
    for header in headers:
        key = header.sop_uid or header.source  # slices without a UID are not compared
        known = kept.setdefault(key, header)
        if known is header:
            continue
        if (known.position, known.instance_number) != (header.position, header.instance_number):
            raise _conflicting_uids(name, "different slices under one SOP Instance UID")
        pixels, errors = zip(*map(_read_pixels, (known, header)), strict=True)
        if errors[0] is None and errors[1] is None:
            if _scale_of(known) != _scale_of(header) or not np.array_equal(*pixels):
                raise _conflicting_uids(name, "files under one SOP Instance UID whose pixels differ")
            notes.exclude(header, "duplicate_file", "the same SOP Instance UID and pixels as another file of the series")
        elif errors[1] is not None:
            notes.exclude(header, errors[1].code, errors[1].detail)
        else:
            notes.exclude(known, errors[0].code, errors[0].detail)
            kept[key] = header
        notes.repair("duplicate_file", "duplicate files were read once")
    return list(kept.values())


def _read_pixels(header: SliceHeader) -> tuple[np.ndarray, None] | tuple[None, FileError]:
    """The stored pixel values of a file, or the reason why they cannot be read."""
    try:
        return read_stored(header)[0], None
    except FileError as error:
        return None, error


def _scale_of(header: SliceHeader) -> tuple[float | None, float | None]:
    return header.slope, header.intercept


def _conflicting_uids(name: str, got: str) -> SeriesError:
    return SeriesError(
        "conflicting_uids", where=name, got=got, expected="one identifier per slice", todo="Export the series again."
    )


def parallel_slices(name: str, headers: Sequence[SliceHeader], notes: ScanNotes) -> tuple[list[SliceHeader], Display]:
    """Keep the slices that are parallel to the majority, and determine their display convention.

    Raises:
        SeriesError: ``bad_orientation`` or ``not_axial``.
    """
    check_count(name, headers)
    if all(header.orientation is None for header in headers):
        return list(headers), _assumed_display(headers[0], notes)
    groups: dict[tuple[float, ...], list[SliceHeader]] = defaultdict(list)
    for header in headers:
        if header.orientation is None or not is_orientation(header.orientation):
            raise SeriesError(
                "bad_orientation",
                where=name,
                got="Image Orientation (Patient) (0020,0037) missing or malformed in some slices",
                expected="two unit vectors at a right angle",
                todo="Export the series again.",
            )
        groups[tuple(round(value, 3) for value in header.orientation)].append(header)
    common = max(sorted(groups), key=lambda orientation: len(groups[orientation]))
    kept = []
    for orientation, group in groups.items():
        if _is_parallel(common, orientation):
            kept += group
            continue
        for header in group:
            notes.exclude(header, "other_orientation", "not parallel to the other slices of the series")
        notes.flag("incomplete", "slices of another orientation were excluded")
    display = display_of(groups[common][0].orientation or AXIAL)
    tilt = tilt_degrees(display.normal)
    if tilt > MAX_TILT_DEGREES:
        raise SeriesError(
            "not_axial",
            where=name,
            got=f"slices {tilt:.0f} degrees from axial",
            expected=f"at most {MAX_TILT_DEGREES:.0f}",
            todo="Choose the axial series.",
        )
    if str(display):
        notes.repair("reoriented", str(display))
    return kept, display


def _is_parallel(first: Sequence[float], second: Sequence[float]) -> bool:
    limit = np.cos(np.radians(SAME_DEGREES))
    pairs = ((np.array(first[i : i + 3]), np.array(second[i : i + 3])) for i in (0, 3))
    return all(a @ b >= limit * np.linalg.norm(a) * np.linalg.norm(b) for a, b in pairs)


def _assumed_display(header: SliceHeader, notes: ScanNotes) -> Display:
    """Assume axial slices; Patient Position (0018,5100) determines left and right, front and back."""
    notes.flag("no_orientation", "orientation missing: left and right are not certain")
    flips = _FLIPS_BY_PATIENT_POSITION.get(header.patient_position)
    if flips is None:
        notes.repair("no_orientation", "orientation missing, taken as axial")
        return display_of(AXIAL)
    notes.repair("no_orientation", f"orientation missing, taken as axial with the patient {header.patient_position}")
    return display_of((flips[0], 0.0, 0.0, 0.0, flips[1], 0.0))


def check_same_grid(name: str, headers: Sequence[SliceHeader]) -> None:
    """Refuse slices that differ in matrix size or pixel spacing.

    Raises:
        SeriesError: ``mixed_matrix``, ``mixed_spacing`` or ``no_spacing``.
    """
    sizes = Counter(f"{header.rows} x {header.columns}" for header in headers)
    if len(sizes) > 1:
        raise SeriesError(
            "mixed_matrix",
            where=name,
            got=", ".join(f"{size} in {count}" for size, count in sizes.most_common()),
            expected="one size",
            todo="Remove the other slices, or pick another series (--series of ich-predict, --choices of ich-prepare).",
        )
    low, high = PIXEL_SPACING_MM
    for header in headers:
        spacing = header.pixel_spacing
        if spacing is None or len(spacing) != 2 or not all(low <= value <= high for value in spacing):
            raise SeriesError(
                "no_spacing",
                where=name,
                got="Pixel Spacing (0028,0030) missing or impossible",
                expected=f"two lengths of {low} to {high} mm",
                todo="Export the series again.",
            )
    spacings = np.array([header.pixel_spacing for header in headers])
    if (np.ptp(spacings, axis=0) > SAME_MM).any():
        raise SeriesError(
            "mixed_spacing",
            where=name,
            got=f"pixel spacings of {spacings.min():.3f} to {spacings.max():.3f} mm",
            expected="one",
            todo="Remove the other slices, or pick another series (--series of ich-predict, --choices of ich-prepare).",
        )
