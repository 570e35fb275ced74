"""The rules that decide whether a series is the plain axial brain series, written as a readable list."""

import math
from collections.abc import Callable, Collection
from typing import NamedTuple

import numpy as np

from ich_lstm.formatting import counted
from ich_lstm.reading.header.examinations import find_mixture
from ich_lstm.reading.header.geometry import (
    AXIAL,
    MAX_TILT_DEGREES,
    display_of,
    is_orientation,
    is_position,
    positions_along,
    tilt_degrees,
)
from ich_lstm.reading.header.header import SliceHeader
from ich_lstm.reading.series.load import Series
from ich_lstm.reading.series.members import MIN_SLICES, is_localizer
from ich_lstm.reading.series.plain import bone_reason, contrast_reason, has_unspecified_unit, map_reason, text_of
from ich_lstm.reading.series.strays import find_strays
from ich_lstm.reading.terms import vocabulary

SECONDARY_CAPTURE_CLASSES = "1.2.840.10008.5.1.4.1.1.7"
"""Prefix of the UIDs of the Secondary Capture Image Storage classes."""

PREFERRED_MM = 5.0
"""Slice thickness that networks are trained on; the series nearer to it is preferred."""

PREFERRED_FROM_MM, PREFERRED_TO_MM = 2.0, 7.5
"""Thinner or thicker series are taken only if there is no other. This limits the thickness; `THIN_MM` of `slabs.py` limits the
step between slices."""


class Facts(NamedTuple):
    """The properties of a series that the rules use."""

    series: Series
    headers: tuple[SliceHeader, ...]  # without scouts and strays, unless there are no others
    first: SliceHeader
    text: str
    tilt: float
    coverage_mm: float
    thickness_mm: float
    step_mm: float  # the distance between the slices of the loaded scan; 0 if they have no positions
    number: int


def facts_of(series: Series) -> Facts:
    """Collect the properties of a series that the rules use."""
    everything = tuple(sorted(series.headers, key=lambda header: (header.instance_number or 0, header.sop_uid)))
    headers = tuple(header for header in everything if not is_localizer(header)) or everything
    strays = find_strays(headers)
    headers = tuple(header for number, header in enumerate(headers) if number not in strays)
    first = headers[len(headers) // 2]
    oriented = first.orientation is not None and is_orientation(first.orientation)
    display = display_of(first.orientation if oriented and first.orientation is not None else AXIAL)
    placed = [header.position for header in headers if header.position is not None and is_position(header.position)]
    places = np.unique(np.round(positions_along(display.normal, placed), 2)) if placed else np.zeros(1)
    steps = np.diff(places)
    step = float(np.median(steps)) if len(steps) else 0.0
    thickness = first.thickness if first.thickness is not None and 0 < first.thickness < math.inf else step
    return Facts(
        series=series,
        headers=headers,
        first=first,
        text=text_of(first),
        tilt=tilt_degrees(display.normal),
        coverage_mm=float(places[-1] - places[0]) + thickness,
        thickness_mm=thickness,
        step_mm=step,
        number=first.series_number if first.series_number is not None else 1 << 31,
    )


# The rules in order; the first one that returns a reason decides.
def _mixed_patients(facts: Facts) -> str:
    code, reason = find_mixture(facts.headers)
    return reason if code == "mixed_patients" else ""


def _mixed_examinations(facts: Facts) -> str:
    code, reason = find_mixture(facts.headers)
    return reason if code == "mixed_examinations" else ""


def _localizer(facts: Facts) -> str:
    return "a localizer" if vocabulary.names_localizer(facts.text) else ""


def _secondary_capture(facts: Facts) -> str:
    if facts.first.sop_class_uid.startswith(SECONDARY_CAPTURE_CLASSES):
        return "a secondary capture"
    return "a report or screenshot by its name" if vocabulary.names_report(facts.text) else ""


def _color(facts: Facts) -> str:
    return "" if facts.first.photometric in ("", "MONOCHROME1", "MONOCHROME2") else f"{facts.first.photometric} pixels"


def _not_axial(facts: Facts) -> str:
    return f"{facts.tilt:.0f} degrees from axial" if facts.tilt > MAX_TILT_DEGREES else ""


def _few_slices(facts: Facts) -> str:
    count = len(facts.headers)
    return f"{counted(count, 'slice')}, fewer than {MIN_SLICES}" if count < MIN_SLICES else ""


def _derived_map(facts: Facts) -> str:
    return map_reason(facts.headers)


def _not_head(facts: Facts) -> str:
    other = vocabulary.names_other_part(facts.first.series_description, facts.first.body_part)
    return "not the head by its name or body part" if other else ""


def _bone_kernel(facts: Facts) -> str:
    return bone_reason(facts.headers, facts.first.series_description)


def _contrast(facts: Facts) -> str:
    return contrast_reason(facts.headers, facts.first.series_description)


RULES: tuple[tuple[str, Callable[[Facts], str]], ...] = (
    ("localizer", _localizer),
    ("secondary_capture", _secondary_capture),
    ("color", _color),
    ("not_axial", _not_axial),
    ("few_slices", _few_slices),
    ("mixed_patients", _mixed_patients),
    ("mixed_examinations", _mixed_examinations),
    ("derived_map", _derived_map),
    ("not_head", _not_head),
    ("bone_kernel", _bone_kernel),
    ("contrast", _contrast),
)
"""Rules for excluding a series: a reason code, and a function that returns the reason or an empty text."""


def preference(facts: Facts) -> tuple[object, ...]:
    """Sort key of an eligible series; smaller is better.

    In order of importance: no contrast, a head by its name, certain HU, the usual energies, thick slices, plain by its name,
    a thickness near 5 mm, more slices, the lower number. Of several acquisitions in one series the latest is preferred,
    because an acquisition is repeated after the patient has moved.
    """
    thin, thick = facts.thickness_mm < PREFERRED_FROM_MM, facts.thickness_mm > PREFERRED_TO_MM
    return (
        bool(_contrast(facts)),
        bool(_not_head(facts)),
        has_unspecified_unit(facts.headers),
        vocabulary.names_energy(facts.text),
        2 * thin + thick,
        not vocabulary.names_plain(facts.text),
        abs(facts.thickness_mm - PREFERRED_MM) // 1,
        -round(facts.coverage_mm / 10),
        facts.number,
        facts.series.series_uid,
        -facts.series.acquisition,
        str(facts.first.source),
    )


def describe(facts: Facts) -> str:
    """Describe a series in a few words; the distance between slices is that of the scan, regardless of Slice Thickness."""
    name = vocabulary.kernel_name(facts.first.kernel)
    kernel = f", kernel {name}" if name else ""
    spaced = f"{facts.step_mm:.1f} mm apart" if facts.step_mm else f"of {facts.thickness_mm:.1f} mm"
    composition = f", {facts.series.composition}" if facts.series.composition else ""
    return f"axial, {len(facts.headers)} slices {spaced}{kernel}{composition}"


def first_exclusion(facts: Facts, allowed: Collection[str] = ()) -> tuple[str, str]:
    """Code and reason of the first rule that excludes a series; empty if no rule does.

    Args:
        facts: Properties of the series.
        allowed: Codes of rules that are not applied.
    """
    for code, rule in RULES:
        if code not in allowed and (reason := rule(facts)):
            return code, reason
    return "", ""
