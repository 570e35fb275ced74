"""The header of one DICOM file: the values that the library needs, and the location of the pixel data."""

import warnings
import zipfile
import zlib
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, NamedTuple

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset

from ich_lstm.errors import FileError
from ich_lstm.reading.files.container import DEFLATED, EXPLICIT_BIG, IMPLICIT_LITTLE, UNDEFINED_LENGTH, inflate, start_data_set
from ich_lstm.reading.files.sources import FileRef, unreadable
from ich_lstm.reading.header.fields import convert_values
from ich_lstm.reading.header.frames import FRAME_MARK, count_frames, frame_values, is_enhanced
from ich_lstm.reading.terms.contrast import AGENT_SEQUENCE, agent_of_sequence

DEFER_BYTES = 1 << 16
"""Values above 64 KiB (thumbnails, private blobs) are skipped; the library uses none of them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceHeader:
    """The header values of one slice. A field is None, or empty, if the file does not contain the value.

    Args:
        source: File that contains the slice.
        sop_uid: SOP Instance UID (0008,0018).
        series_uid: Series Instance UID (0020,000E).
        study_uid: Study Instance UID (0020,000D).
        patient_id: Patient ID (0010,0020) as stored.
        issuer: Issuer of Patient ID (0010,0021).
        name_digest: Digest of Patient's Name (0010,0010), 16 hexadecimal digits, independent of padding and case; the name
            itself is not kept.
        birth_digest: Digest of Patient's Birth Date (0010,0030), 16 hexadecimal digits; the date itself is not kept.
        sex: Patient's Sex (0010,0040), upper case.
        accession_number: Accession Number (0008,0050), which identifies the study in lists of reports.
        study_date: Study Date (0008,0020) as ``YYYY-MM-DD``.
        modality: Modality (0008,0060).
        image_type: Image Type (0008,0008), upper case.
        sop_class_uid: SOP Class UID (0008,0016).
        transfer_syntax: Transfer Syntax UID (0002,0010).
        rows: Rows (0028,0010).
        columns: Columns (0028,0011).
        position: Image Position (Patient) (0020,0032) in mm, as many values as the file gives.
        orientation: Image Orientation (Patient) (0020,0037), as many values as the file gives.
        pixel_spacing: Pixel Spacing (0028,0030) in mm: between rows, between columns.
        instance_number: Instance Number (0020,0013).
        acquisition_number: Acquisition Number (0020,0012).
        acquisition_time: Acquisition Time (0008,0032) or Content Time (0008,0033), as text ``HHMMSS.f``.
        frame_of_reference: Frame of Reference UID (0020,0052).
        slice_location: Slice Location (0020,1041) in mm.
        series_number: Series Number (0020,0011).
        series_description: Series Description (0008,103E).
        study_description: Study Description (0008,1030).
        body_part: Body Part Examined (0018,0015), upper case.
        thickness: Slice Thickness (0018,0050) in mm.
        kernel: Convolution Kernel (0018,1210).
        manufacturer: Manufacturer (0008,0070).
        contrast_agent: Contrast/Bolus Agent (0018,0010), or the meaning of the code in its sequence (0018,0012).
        contrast_given: Name and tag of the attribute, other than the agent, that indicates contrast; empty if there is none.
        tilt: Gantry/Detector Tilt (0018,1120) in degrees.
        slope: Rescale Slope (0028,1053).
        intercept: Rescale Intercept (0028,1052).
        rescale_type: Rescale Type (0028,1054), upper case.
        bits_allocated: Bits Allocated (0028,0100).
        bits_stored: Bits Stored (0028,0101).
        pixel_representation: Pixel Representation (0028,0103): 0 unsigned, 1 signed.
        photometric: Photometric Interpretation (0028,0004).
        samples_per_pixel: Samples per Pixel (0028,0002).
        padding: Pixel Padding Value (0028,0120), a stored value.
        padding_limit: Pixel Padding Range Limit (0028,0121), a stored value.
        patient_position: Patient Position (0018,5100), for example ``HFS``.
        age_years: Age of the patient in years, from Patient's Age (0010,1010) or from the dates of birth and study.
        kvp: KVP (0018,0060).
        lossy: Whether Lossy Image Compression (0028,2110) is ``01``.
        burned_in: Whether Burned In Annotation (0028,0301) is ``YES``.
        big_endian: Whether stored values are big endian.
        pixel_offset: Byte offset of the pixel values (in a deflated file, counted from the inflated data set).
        pixel_length: Length of Pixel Data in bytes as declared by the file; 0xFFFFFFFF if encapsulated.
        frame: Number of the frame, from 1, in a multi-frame file; 0 if the file is one slice.
        frames: Number of Frames (0028,0008).
    """

    source: FileRef
    sop_uid: str = ""
    series_uid: str = ""
    study_uid: str = ""
    patient_id: str = ""
    issuer: str = ""
    name_digest: str = ""
    birth_digest: str = ""
    sex: str = ""
    accession_number: str = ""
    study_date: str = ""
    modality: str = ""
    image_type: tuple[str, ...] = ()
    sop_class_uid: str = ""
    transfer_syntax: str = ""
    rows: int = 0
    columns: int = 0
    position: tuple[float, ...] | None = None
    orientation: tuple[float, ...] | None = None
    pixel_spacing: tuple[float, ...] | None = None
    instance_number: int | None = None
    acquisition_number: int | None = None
    acquisition_time: str = ""
    frame_of_reference: str = ""
    slice_location: float | None = None
    series_number: int | None = None
    series_description: str = ""
    study_description: str = ""
    body_part: str = ""
    thickness: float | None = None
    kernel: str = ""
    manufacturer: str = ""
    contrast_agent: str = ""
    contrast_given: str = ""
    tilt: float | None = None
    slope: float | None = None
    intercept: float | None = None
    rescale_type: str = ""
    bits_allocated: int | None = None
    bits_stored: int | None = None
    pixel_representation: int | None = None
    photometric: str = ""
    samples_per_pixel: int | None = None
    padding: int | None = None
    padding_limit: int | None = None
    patient_position: str = ""
    age_years: float | None = None
    kvp: float | None = None
    lossy: bool = False
    burned_in: bool = False
    big_endian: bool = False
    pixel_offset: int = 0
    pixel_length: int = 0
    frame: int = 0
    frames: int = 1


_PIXEL_DATA = 0x7FE00010
_FIRST_PIXEL_TAG = 0x7FE00008  # float pixel data; double is 0x7FE00009
_SECONDARY_CAPTURES = "1.2.840.10008.5.1.4.1.1.7"


class _Parsed(NamedTuple):
    """A data set up to its pixels, and the location of the pixels."""

    syntax: str
    data_set: Dataset
    pixel_tag: int | None
    pixel_offset: int
    pixel_length: int

    @property
    def little(self) -> bool:
        return self.syntax != EXPLICIT_BIG

    @property
    def elements(self) -> dict[Any, Any]:
        """The raw elements, unconverted."""
        return dict(self.data_set.items())


def read_header(ref: FileRef) -> SliceHeader:
    """Read one file up to its pixels.

    A file without preamble is accepted if its first element looks like DICOM. For an enhanced multi-frame file, the header of
    the first frame is returned, with the number of frames in ``frames``; :func:`read_frames` returns all of them.

    Args:
        ref: The file to read.

    Raises:
        FileError: If the file is not a CT image; the code says why (``not_dicom``, ``dicomdir``, ``no_pixels``, ``not_ct``,
            ``multi_frame``, ``truncated_header``, ``unreadable`` and others).
    """
    parsed = _parse_file(ref, DEFER_BYTES)
    elements = parsed.elements
    values = convert_values(elements, parsed.little)
    _check_is_ct_image(ref, values, parsed)
    count = count_frames(elements)
    if count > 1 or is_enhanced(elements):
        frames = _frames_of(ref)
        uid = frames[0].sop_uid.partition(FRAME_MARK)[0]
        return frames[0] if count == 1 else replace(frames[0], frame=0, sop_uid=uid)
    if AGENT_SEQUENCE in elements:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values["contrast_agent"] = agent_of_sequence(parsed.data_set) or values.get("contrast_agent", "")
    return _header(ref, parsed, values)


def read_frames(header: SliceHeader) -> list[SliceHeader]:
    """The slices of a file: one per frame of a multi-frame file, otherwise the header itself.

    Args:
        header: A header from :func:`read_header`.

    Raises:
        FileError: If the file has been removed or changed since it was indexed.
    """
    return _frames_of(header.source) if header.frames > 1 and not header.frame else [header]


def read_data_set(ref: FileRef) -> Dataset:
    """Read the complete data set before the pixels with pydicom, without values above 64 KiB.

    Args:
        ref: The file to read.

    Raises:
        FileError: If the file no longer exists, or is not DICOM.
    """
    return _parse_file(ref, DEFER_BYTES).data_set


def _frames_of(ref: FileRef) -> list[SliceHeader]:
    parsed = _parse_file(ref, None)  # functional groups may be longer than the values that are skipped otherwise
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            frames = frame_values(parsed.data_set, parsed.little)
    except FileError:
        raise
    except Exception as error:  # pydicom's errors on damaged sequences, or the ValueError of `frame_values`
        is_capture = str(parsed.data_set.get("SOPClassUID", "")).startswith(_SECONDARY_CAPTURES)
        raise FileError(
            "secondary_capture" if is_capture else "multi_frame",
            where=str(ref),
            got=str(error) if type(error) is ValueError else f"functional groups that cannot be parsed ({type(error).__name__})",
            expected="as many frames as functional groups (PS3.3 C.7.6.16)",
            todo="Export the study again, or as classic CT images.",
        ) from error
    headers = []
    for i, values in enumerate(frames):
        header = _header(ref, parsed, values)
        offset, length = header.pixel_offset, header.pixel_length
        if length != UNDEFINED_LENGTH:
            size = header.rows * header.columns * ((header.bits_allocated or 0) // 8)
            offset, length = offset + i * size, min(size, max(0, length - i * size))
        headers.append(replace(header, frame=i + 1, frames=len(frames), pixel_offset=offset, pixel_length=length))
    return headers


def _header(ref: FileRef, parsed: _Parsed, values: dict[str, Any]) -> SliceHeader:
    return SliceHeader(
        source=ref,
        transfer_syntax=parsed.syntax,
        big_endian=not parsed.little,
        pixel_offset=parsed.pixel_offset,
        pixel_length=parsed.pixel_length,
        **values,
    )


def _parse_file(ref: FileRef, defer: int | None) -> _Parsed:
    with ref.open() as stream:
        try:
            # pydicom warns about harmless deviations; this module decides what is acceptable.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                return _parse(ref, stream, defer)
        except FileError:
            raise
        except RecursionError as error:
            raise FileError("nested_too_deep", where=str(ref), got="sequences nested too deep to parse") from error
        except (zlib.error, zipfile.BadZipFile) as error:
            raise unreadable(ref, error) from error
        except Exception as error:  # pydicom raises many kinds on damaged files (struct, value, key, EOF ...)
            if isinstance(error, OSError) and error.errno is not None:  # from the system; pydicom's own have no number
                raise unreadable(ref, error) from error
            raise FileError(
                "truncated_header",
                where=str(ref),
                got=f"header cannot be parsed ({type(error).__name__})",
                expected="DICOM",
                todo="Export the file again.",
            ) from error


def _parse(ref: FileRef, stream: BinaryIO, defer: int | None) -> _Parsed:
    syntax = start_data_set(ref, stream)
    if syntax == DEFLATED:
        stream = inflate(ref, stream)
    found: list[tuple[int, int, int]] = []

    def at_pixels(tag: int, vr: str | None, length: int) -> bool:
        if tag < _FIRST_PIXEL_TAG:
            return False
        if tag <= _PIXEL_DATA:
            found.append((tag, stream.tell(), length))
        return True

    data_set = read_dataset(stream, syntax == IMPLICIT_LITTLE, syntax != EXPLICIT_BIG, stop_when=at_pixels, defer_size=defer)
    return _Parsed(syntax, data_set, *(found[0] if found else (None, 0, 0)))


def _check_is_ct_image(ref: FileRef, values: dict[str, Any], parsed: _Parsed) -> None:
    where = str(ref)
    modality = values.get("modality", "")
    if not len(parsed.data_set):
        raise FileError("truncated_header", where=where, got="no data elements", expected="DICOM", todo="Export the file again.")
    if modality not in ("CT", ""):
        raise FileError("not_ct", where=where, got=modality, expected="CT")
    if parsed.pixel_tag is None:
        if "rows" in values or not modality:
            raise FileError(
                "truncated_header",
                where=where,
                got="the file ends before its pixels",
                expected="Pixel Data (7FE0,0010)",
                todo="Export the file again.",
            )
        raise FileError("no_pixels", where=where, got="DICOM without image", expected="Pixel Data (7FE0,0010)")
    if not modality:
        raise FileError("not_ct", where=where, got="DICOM without modality", expected="CT")
    if "rows" not in values:
        raise FileError("no_pixels", where=where, got="no Rows (0028,0010)", expected="an image")
    if parsed.pixel_tag != _PIXEL_DATA:
        raise FileError("pixel_format", where=where, got="floating-point pixels", expected="16-bit integers")
    if not values.get("series_uid"):
        raise FileError(
            "no_series_uid",
            where=where,
            got="no Series Instance UID (0020,000E)",
            expected="one for each slice",
            todo="Export the study again; slices without it cannot be assigned to a series safely.",
        )
