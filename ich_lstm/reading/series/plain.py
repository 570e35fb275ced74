"""Recognizes from headers the series that are not plain: maps, renderings, other units, contrast, bone kernels."""

from collections.abc import Sequence

from ich_lstm.errors import SeriesError
from ich_lstm.reading.header.header import SliceHeader
from ich_lstm.reading.terms import vocabulary
from ich_lstm.reading.terms.contrast import contrast_by_header

HU_TYPES = frozenset({"", "HU", "H.U.", "HOUNSFIELD", "HOUNSFIELD UNIT", "HOUNSFIELD UNITS"})
"""Values of Rescale Type (0028,1054) that mean plain HU; PS3.3 C.11.1.1.2 allows the attribute to be missing."""

UNSPECIFIED_TYPES = frozenset({"US", "UNSPECIFIED"})
"""Values that mean an unknown unit, unless Image Type (0008,0008) is ORIGINAL PRIMARY. Software that compresses or rewrites
plain images (such as GDCM) inserts US where the scanner wrote nothing."""

DOUBTFUL_TYPES = UNSPECIFIED_TYPES | {"HU_MOD"}
"""Unspecified units and modified HU. A map with one of these is read only if the user names the series."""

KNOWN_TYPES = frozenset({*DOUBTFUL_TYPES, "OD", "MGML", "Z_EFF", "ED", "EDW", "PCT"})
"""The other defined terms of PS3.3 C.11.1.1.2: optical density, mg/ml, effective atomic number, electron densities, percent."""


def text_of(header: SliceHeader) -> str:
    """Series Description and Image Type (0008,0008), which both describe the kind of a series."""
    return f"{header.series_description} {' '.join(header.image_type)}"


def map_reason(headers: Sequence[SliceHeader]) -> str:
    """Why the values of a series are not plain HU, as text for a person; empty if the headers give no reason.

    Args:
        headers: Slices of one series, at least one.
    """
    units = sorted({header.rescale_type for header in headers if not _may_be_original(header)} - HU_TYPES)
    if units:
        return f"Rescale Type (0028,1054) {_unit_names(units)}, not HU"
    for text in sorted(set(map(text_of, headers))):
        if vocabulary.names_virtual_plain(text):
            return "contrast removed by computation, by its name"
        if vocabulary.names_map(text):
            return "a map, a rendering or an extreme energy by its name"
    return ""


def contrast_reason(headers: Sequence[SliceHeader], description: str) -> str:
    """Why a series counts as contrast-enhanced, as text for a person; empty if the headers give no reason.

    Args:
        headers: Slices of one series.
        description: Series Description (0008,103E).
    """
    evidence = contrast_by_header((header.contrast_agent for header in headers), (header.contrast_given for header in headers))
    if evidence:
        return f"contrast given, by {evidence}"
    return "contrast given, by its name" if vocabulary.names_contrast(description) else ""


def bone_reason(headers: Sequence[SliceHeader], description: str) -> str:
    """Why a series counts as a bone reconstruction, as text for a person; empty if the headers give no reason.

    Args:
        headers: Slices of one series.
        description: Series Description (0008,103E).
    """
    kernels = sorted({vocabulary.kernel_name(header.kernel) for header in headers if vocabulary.is_bone_kernel(header.kernel)})
    return f"bone kernel {', '.join(kernels)}".strip() if kernels or vocabulary.names_bone(description) else ""


def has_unspecified_unit(headers: Sequence[SliceHeader]) -> bool:
    """Whether the unit of at least one slice is unspecified (PS3.3 C.11.1.1.2: US)."""
    return any(header.rescale_type in UNSPECIFIED_TYPES for header in headers)


def _may_be_original(header: SliceHeader) -> bool:
    return header.rescale_type in UNSPECIFIED_TYPES and header.image_type[:2] == ("ORIGINAL", "PRIMARY")


def check_units(name: str, headers: Sequence[SliceHeader]) -> None:
    """Refuse slices whose values are not in HU.

    Raises:
        SeriesError: ``not_hu``.
    """
    units = sorted({header.rescale_type for header in headers} - HU_TYPES - DOUBTFUL_TYPES)
    if units:
        raise SeriesError(
            "not_hu",
            where=name,
            got=f"Rescale Type (0028,1054) {_unit_names(units)}",
            expected="HU",
            todo="Choose the plain series.",
        )


def _unit_names(units: Sequence[str]) -> str:
    # The attribute is free text that could identify a person, and the reason is written to shareable files.
    return ", ".join(unit if unit in KNOWN_TYPES else "of another unit" for unit in units)
