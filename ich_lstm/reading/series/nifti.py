"""Reads NIfTI files as scans: the affine gives the orientation, the values must be HU. Requires the extra ``nifti``."""

import hashlib
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from ich_lstm.errors import FileError
from ich_lstm.reading.files.sources import FileRef
from ich_lstm.reading.header.geometry import MAX_TILT_DEGREES, tilt_degrees
from ich_lstm.reading.header.header import SliceHeader
from ich_lstm.reading.ledger.header_table import Rows, to_ref
from ich_lstm.reading.pixels.plausibility import check_hu
from ich_lstm.reading.pixels.rescale import CIRCLE_BELOW_HU
from ich_lstm.reading.series.load import Series, finish_scan, without_neck
from ich_lstm.reading.series.members import MIN_SLICES, PIXEL_SPACING_MM
from ich_lstm.reading.series.notes import ScanNotes
from ich_lstm.reading.series.ordering import spacing_flags
from ich_lstm.reading.series.slabs import SLAB_MM
from ich_lstm.scan import HU_MAX, HU_MIN, Scan

SUFFIXES = (".nii", ".nii.gz")

NOT_DICOM = frozenset({"not_dicom", "truncated_header"})
"""Codes that the index assigns to NIfTI files."""

MAGICS = (b"n+1", b"n+2")
"""Magic numbers of single-file NIfTI-1 and NIfTI-2."""

MAX_VOXEL_BYTES = 2**30
"""A head of 512 x 512 x 1000 voxels of 16 bits takes half of this. A file that declares more is a bomb, or not a head."""

MAX_DATA_OFFSET = 2**24
"""The largest offset of the voxels, which follow 352 bytes of header and the header extensions."""


def is_nifti(path: Path | str) -> bool:
    """Whether a path is a file with a NIfTI suffix."""
    return str(path).lower().endswith(SUFFIXES) and Path(path).is_file()


@dataclass(frozen=True)
class NiftiSeries(Series):
    """The slices of a NIfTI file, as :func:`nifti_series` returns them."""


def find_nifti(files: Rows) -> Iterator[FileRef]:
    """Find the NIfTI files among the files of a source, including members of archives.

    Args:
        files: Table with the columns ``path``, ``member`` and ``code``.
    """
    for batch in files.batches:
        columns = (batch.column(name).to_pylist() for name in ("path", "member", "code"))
        for path, member, code in zip(*columns, strict=True):
            if code in NOT_DICOM and (member or path).decode(errors="surrogateescape").lower().endswith(SUFFIXES):
                yield to_ref(path, member)


def in_archive(file: FileRef) -> FileError:
    """The error for a NIfTI file that is a member of an archive."""
    return FileError("nifti_in_archive", where=str(file), got="NIfTI in an archive", todo="Unpack the archive.")


def nifti_series(file: FileRef, identifier: str) -> NiftiSeries:
    """Describe the slices of a NIfTI file without reading its voxels: one header per slice, in the file's own order.

    Args:
        file: A ``.nii`` or ``.nii.gz`` file.
        identifier: UID of the study and the series. The UID of a slice is this with the slice's number along the file's
            slice axis, from 1.

    Raises:
        FileError: If the file lies in an archive, or is not a readable three-dimensional NIfTI; the code says why.
    """
    if file.member is not None:
        raise in_archive(file)
    path = file.path
    image = _open(path)
    (across_slices, down, across), _ = _axes_to_display(path, np.asarray(image.affine, float))
    count = image.shape[across_slices]
    headers = [
        SliceHeader(
            source=file,
            sop_uid=_slice_uid(identifier, number),
            series_uid=identifier,
            study_uid=identifier,
            modality="CT",
            rows=image.shape[down],
            columns=image.shape[across],
            frame=number,
            frames=count,
        )
        for number in range(1, count + 1)
    ]
    return NiftiSeries(identifier, headers)


def read_nifti(
    path: Path | str, *, identifier: str = "", slab_mm: float | None = SLAB_MM, allow_other_part: bool = False
) -> Scan:
    """Read a head CT from a NIfTI file.

    The affine gives the orientation: axes in any order and direction are converted to the radiological display convention.
    A NIfTI file has no identifiers. The identifier of the scan is a hash of its content (``nifti-3f...``); that of a slice
    adds its number in the file, from 1 (``nifti-3f....7``). Kernel, contrast and age are unknown.

    Args:
        path: A ``.nii`` or ``.nii.gz`` file.
        identifier: Identifier of the scan; by default the hash of its content.
        slab_mm: Thickness to which thin slices are averaged; None disables the averaging.
        allow_other_part: Also read a volume whose pixels do not show a head.

    Raises:
        SeriesError: ``not_head``.
        FileError: If the file holds no head CT in HU. The code says why (``codec_missing``, ``not_nifti``,
            ``four_dimensions``, ``not_finite``, ``not_hu``, ``nifti_bomb``, ``truncated_pixels``, ``not_axial``,
            ``few_slices`` and others).

    Example:
        >>> scan = read_nifti("049.nii.gz")  # doctest: +SKIP
    """
    path = Path(path)
    notes = ScanNotes()
    voxels, affine, is_oriented = _read_voxels(path)
    if not is_oriented:
        notes.flag("no_orientation", "orientation missing: left and right are not certain")
        notes.flag("order_assumed", "position missing: superior and inferior end are not certain")
    identifier = identifier or nifti_identifier(voxels.tobytes() + affine.tobytes())
    axes, flips = _axes_to_display(path, affine)
    # From (x, y, z) of the file to (n, h, w): superior, posterior, left.
    ordered = np.transpose(voxels, axes)
    ordered = ordered[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]
    steps = [affine[:3, axis] * (-1 if flip else 1) for axis, flip in zip(axes, flips, strict=True)]
    numbers = np.arange(1, len(ordered) + 1)
    corner = affine[:3, 3] + sum(
        (affine[:3, axis] * (size - 1) for axis, size, flip in zip(axes, ordered.shape, flips, strict=True) if flip), np.zeros(3)
    )
    across, down = (step / np.linalg.norm(step) for step in (steps[2], steps[1]))
    # The normal points superior in NIfTI's axes (right, anterior, superior) and in DICOM's (left, posterior, superior).
    normal = np.cross(across, down)
    normal /= np.linalg.norm(normal)
    tilt = tilt_degrees(normal)
    spacing = (float(abs(steps[0] @ normal)), float(np.linalg.norm(steps[1])), float(np.linalg.norm(steps[2])))
    _check_geometry(path, ordered.shape, spacing, tilt)
    hu = _to_hu(path, ordered, notes)
    positions = float(corner @ normal) + np.arange(len(hu)) * float(steps[0] @ normal)
    for flag in spacing_flags(positions):
        notes.flag(*flag)
    if any(flips) or axes != (2, 1, 0):
        notes.repair("reoriented", "turned into the display convention by the affine")
    scan = Scan(
        hu=hu,
        positions_mm=positions,
        spacing_mm=spacing,
        tilt_degrees=tilt,
        sop_uids=tuple(_slice_uid(identifier, number) for number in (numbers[::-1] if flips[0] else numbers)),
        series_uid=identifier,
        study_uid=identifier,
        repairs=notes.repairs(),
    )
    origins = np.arange(len(hu))[:, None] * np.array([steps[0] @ across, steps[0] @ down])
    scan, below = without_neck(scan, str(path), notes, allow_other_part=allow_other_part)
    return finish_scan(scan, notes, slab_mm=slab_mm, origins_mm=origins[below:])


def nifti_identifier(content: bytes) -> str:
    """Derive the identifier that replaces a UID, which NIfTI files do not have.

    Args:
        content: Bytes that differ between any two files.
    """
    return "nifti-" + hashlib.sha256(content).hexdigest()[:24]


def _slice_uid(identifier: str, number: int) -> str:
    return f"{identifier}.{number}"


def _read_voxels(path: Path) -> tuple[np.ndarray, np.ndarray, bool]:
    """Values after scaling ``(x, y, z)``, the affine to mm, and whether the header declares the affine valid."""
    image = _open(path)
    with _reading(path):
        values = np.asanyarray(image.dataobj)
    if values.ndim > 3:
        values = values.reshape(values.shape[:3])
    coded = int(image.header["qform_code"]) > 0 or int(image.header["sform_code"]) > 0
    return values, np.asarray(image.affine, float), coded


def _open(path: Path) -> Any:
    """Open the image with nibabel, read its header alone, and check it."""
    if find_spec("nibabel") is None:
        raise FileError(
            "codec_missing", where=str(path), got="NIfTI without nibabel", todo='Install it with: pip install "ich_lstm[nifti]"'
        )
    import nibabel

    # nibabel logs warnings about headers; this module decides what is acceptable.
    with _reading(path), nibabel.imageglobals.LoggingOutputSuppressor():
        image: Any = nibabel.load(path)
        if not isinstance(image, nibabel.Nifti1Image) or bytes(image.header["magic"]).rstrip(b"\0")[:3] not in MAGICS:
            raise ValueError("another format")
        _check_header(path, image)
    return image


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Convert any error raised inside the context to a FileError."""
    try:
        yield
    except FileError:
        raise
    except (EOFError, zlib.error) as error:
        raise _truncated(path) from error
    except MemoryError as error:
        raise _bomb(path, "more voxels than memory") from error
    except Exception as error:  # nibabel's own exceptions, ValueError, and the OSError of a truncated file
        if isinstance(error, OSError) and "Expected" in str(error):
            raise _truncated(path) from error
        raise FileError(
            "not_nifti",
            where=str(path),
            got=f"not a readable NIfTI ({type(error).__name__})",
            expected="one .nii or .nii.gz file",
            todo="Convert or copy it again.",
        ) from error


def _check_header(path: Path, image: Any) -> None:
    shape, kind = image.shape, image.get_data_dtype()
    if len(shape) < 3 or any(size > 1 for size in shape[3:]) or 0 in shape:
        raise FileError(
            "four_dimensions",
            where=str(path),
            got=f"{' x '.join(map(str, shape))} voxels",
            expected="three dimensions",
            todo="Convert the plain series alone, not a perfusion series.",
        )
    if kind.kind not in "iuf":
        raise FileError("pixel_format", where=str(path), got=f"voxels of {kind}", expected="numbers", todo="Convert it again.")
    size, offset = math.prod(shape) * max(kind.itemsize, 2), int(image.dataobj.offset)
    if size > MAX_VOXEL_BYTES or not 0 <= offset <= MAX_DATA_OFFSET:
        raise _bomb(path, f"a header that declares {size:,} bytes of voxels from offset {offset:,}")
    if not np.isfinite(image.affine).all() or np.linalg.matrix_rank(image.affine[:3, :3]) < 3:
        raise FileError(
            "bad_orientation", where=str(path), got="an affine that is singular or not finite", todo="Convert it again."
        )


def _axes_to_display(path: Path, affine: np.ndarray) -> tuple[tuple[int, int, int], tuple[bool, bool, bool]]:
    """The file's axes that run superior, posterior and left, and which of them must be reversed."""
    import nibabel

    found = nibabel.orientations.io_orientation(affine)  # (3, 2): axis of the patient (right, anterior, superior), direction
    if np.isnan(found).any():
        raise FileError("bad_orientation", where=str(path), got="an affine without clear axes", todo="Convert it again.")
    place = {int(axis): (i, direction) for i, (axis, direction) in enumerate(found)}
    (right, to_right), (front, to_front), (head, to_head) = place[0], place[1], place[2]
    return (head, front, right), (to_head < 0, to_front > 0, to_right > 0)


def _check_geometry(path: Path, shape: tuple[int, ...], spacing: tuple[float, float, float], tilt: float) -> None:
    low, high = PIXEL_SPACING_MM
    if not all(low <= side <= high for side in spacing[1:]) or not low <= spacing[0] <= 10 * high:
        raise FileError(
            "no_spacing",
            where=str(path),
            got=f"voxels of {spacing[0]:.3g} x {spacing[1]:.3g} x {spacing[2]:.3g} mm",
            expected=f"{low} to {high} mm within a slice",
            todo="Convert it again, with its spacing.",
        )
    if tilt > MAX_TILT_DEGREES:
        raise FileError(
            "not_axial",
            where=str(path),
            got=f"slices {tilt:.0f} degrees from axial",
            expected=f"at most {MAX_TILT_DEGREES:.0f}",
            todo="Convert the axial series.",
        )
    if shape[0] < MIN_SLICES:
        raise FileError("few_slices", where=str(path), got=f"{shape[0]} slices", expected=f"at least {MIN_SLICES}")


def _to_hu(path: Path, values: np.ndarray, notes: ScanNotes) -> np.ndarray:
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise FileError(
            "not_finite", where=str(path), got="NaN or infinite voxels", expected="HU", todo="Convert it again from DICOM."
        )
    check_hu(values, str(path), FileError)  # before clipping, which would turn impossible low values into air
    if float(values.min()) < CIRCLE_BELOW_HU:
        notes.repair("below_air", "values below air, outside the field of view, set to air")
    hu = np.clip(np.rint(values) if values.dtype.kind == "f" else values, HU_MIN, HU_MAX).astype(np.int16)
    return np.ascontiguousarray(hu)


def _truncated(path: Path) -> FileError:
    return FileError("truncated_pixels", where=str(path), got="a file that ends before its voxels", todo="Copy it again.")


def _bomb(path: Path, got: str) -> FileError:
    return FileError(
        "nifti_bomb",
        where=str(path),
        got=got,
        expected=f"at most {MAX_VOXEL_BYTES:,} bytes",
        todo="Do not open it; ask where it comes from.",
    )
