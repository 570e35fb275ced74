"""Positions, orientations, spacings, and slices that repeat."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from dicom_files import make_series, make_slice, slice_hu

from catalogue.case import Expect, Make, Variant, beside, no_scan, refused, skipped, sound_hu, used, whole

CORONAL = (1, 0, 0, 0, 0, -1)
SHUFFLED = (3, 1, 7, 0, 6, 2, 5, 4)


def tilted(degrees: float) -> tuple[float, ...]:
    """Axial, turned about the patient's left-right axis."""
    angle = np.radians(degrees)
    return (1, 0, 0, 0, round(float(np.cos(angle)), 6), round(float(np.sin(angle)), 6))


def turned(orientation: Sequence[float], start: Sequence[float]) -> Make:
    """The same head, stored in another orientation."""
    z_step = np.cross(orientation[:3], orientation[3:])[2]
    return whole(orientation=orientation, start=start, step=5 * z_step)


def _second_half(**elements: Any) -> Make:
    return whole(change=lambda i: elements if i >= 4 else {})


def _again(folder: Path) -> None:
    make_series(folder, AcquisitionNumber=1)
    own = {"hu": np.full((32, 32), 7), "AcquisitionNumber": 2}
    make_series(folder / "again", 2, change=lambda i: own | {"SOPInstanceUID": f"1.2.8.{i}"})


def _again_by_time(folder: Path) -> None:
    make_series(folder, AcquisitionTime="101112")
    make_series(folder / "again", 2, AcquisitionTime="101212", change=lambda i: {"SOPInstanceUID": f"1.2.8.{i}"})


def _two_kernels(folder: Path) -> None:
    own = {"ConvolutionKernel": "BONEPLUS", "hu": np.full((32, 32), 500)}
    make_series(folder / "bone", change=lambda i: own | {"SOPInstanceUID": f"1.9.{i}"})
    make_series(folder / "soft", ConvolutionKernel="STANDARD")


def _copies(count: int) -> Make:
    def add(folder: Path) -> None:
        for i in range(count):
            (folder / f"copy{i}.dcm").write_bytes((folder / f"{i}.dcm").read_bytes())

    return beside(add)


def _scout(**elements: Any) -> Make:
    own: dict[str, Any] = {"ImageOrientationPatient": CORONAL, "ImagePositionPatient": (0, 0, 9), "SOPInstanceUID": "1.2.9"}
    return beside(lambda folder: make_slice(folder / "scout.dcm", **(own | elements)))


def _perfusion(folder: Path) -> None:
    for time in range(6):
        own = {"AcquisitionTime": f"10111{time}"}
        make_series(folder / str(time), change=lambda i: own | {"SOPInstanceUID": f"1.5.{time}.{i}"})  # noqa: B023


def _two_series(folder: Path) -> None:
    make_series(folder)
    for path in make_series(folder / "other", SeriesInstanceUID="1.2.3.100.2", SeriesNumber=3):
        path.rename(folder / f"b{path.name}")
    (folder / "other").rmdir()


def _pieces(*places: Sequence[int], **second: Any) -> Make:
    """The sound series in several series of one acquisition; the second may differ."""

    def make(folder: Path) -> None:
        for number, mine in enumerate(places, 1):
            own: dict[str, Any] = {
                "SeriesInstanceUID": f"1.2.3.100.{number}",
                "SeriesNumber": number,
                "FrameOfReferenceUID": "1.2.3.9",
                "AcquisitionNumber": 1,
            }
            make_series(folder / str(number), places=[5 * i for i in mine], **own | (second if number > 1 else {}))

    return make


def _acquisitions(shift: float, count: int = 8, **second: Any) -> Make:
    """The sound series, and another acquisition under its UID."""

    def make(folder: Path) -> None:
        own = {"AcquisitionNumber": 1, "AcquisitionTime": "101112", "InstanceNumber": None}
        other = own | {"AcquisitionNumber": 2, "AcquisitionTime": "101212", "start": (-96, -96, -20 + shift)} | second
        make_series(folder / "b", change=lambda i: {"SOPInstanceUID": f"1.2.8.{i}"}, count=count, **other)
        make_series(folder / "a", **own)

    return make


def _rounded(step: float, digits: int, **elements: Any) -> Make:
    """Slices of a true step whose positions are rounded."""
    rng = np.random.default_rng(0)

    def change(i: int) -> dict[str, Any]:
        z = -20 + step * i
        noisy = slice_hu((-96, -96, z)) + rng.normal(0, 3, (32, 32))
        return {"ImagePositionPatient": (-96, -96, round(z, digits)), "hu": noisy, "SliceThickness": step} | elements

    return whole(count=round(40 / step), change=change)


ORIENTATIONS = {
    "mirrored": ((-1, 0, 0, 0, 1, 0), (90, -96, -20)),
    "upside-down": ((1, 0, 0, 0, -1, 0), (-96, 90, -20)),
    "prone": ((-1, 0, 0, 0, -1, 0), (90, 90, -20)),
    "exchanged": ((0, 1, 0, 1, 0, 0), (-96, -96, -20)),
    "turned-right": ((0, 1, 0, -1, 0, 0), (90, -96, -20)),
    "turned-left": ((0, -1, 0, 1, 0, 0), (-96, 90, -20)),
    "turned-mirrored": ((0, -1, 0, -1, 0, 0), (90, 90, -20)),
}
BAD_POSITIONS: dict[str, Any] = {
    "two-values": [1, 2],
    "one-value": ["7"],
    "four-values": [1, 2, 3, 4],
    "nan": ["1", "2", "nan"],
    "infinite": ["1", "2", "inf"],
    "text": ["1", "2", "head"],
    "far-away": ["1", "2", "1e9"],
}
BAD_ORIENTATIONS: dict[str, Any] = {
    "zeros": [0, 0, 0, 0, 0, 0],
    "five-values": [1, 0, 0, 0, 1],
    "nan": ["1", "0", "0", "0", "nan", "0"],
    "not-unit": [2, 0, 0, 0, 2, 0],
    "not-square": [1, 0, 0, "0.7", "0.7", 0],
}
NO_POSITION: dict[str, Any] = {"ImagePositionPatient": None}
ASSUMED = ("order_assumed",)

VARIANTS: list[Variant] = [
    Variant(
        row="36",
        name="slice-location",
        make=whole(**NO_POSITION, change=lambda i: {"SliceLocation": -20 + 5 * i, "hu": sound_hu(i)}),
        expect=used(repairs=("no_position",), flags=ASSUMED),
    ),
    Variant(
        row="36",
        name="instance-number",
        make=whole(**NO_POSITION, change=lambda i: {"hu": sound_hu(i)}),
        expect=used(repairs=("no_position",), flags=ASSUMED),
    ),
    Variant(
        row="36",
        name="in-some-slices",
        make=whole(change=lambda i: {"hu": sound_hu(i)} | (NO_POSITION if i == 2 else {})),
        expect=used(repairs=("no_position",), flags=ASSUMED),
    ),
    Variant(row="36", name="nothing-at-all", make=whole(**NO_POSITION, InstanceNumber=None), expect=refused("no_position")),
    *(
        Variant(
            row="36b",
            name=f"{step}-mm-to-{digits}-digits{'-without-numbers' if elements else ''}",
            make=_rounded(step, digits, **elements),
            expect=Expect(
                slices=8,
                files_used=round(40 / step),
                repairs=frozenset({"rounded_positions", "slabs"}),
                flags=frozenset(flags),
            ),
        )
        for step, digits, elements, flags in (
            (0.5, 0, {}, ()),
            (0.625, 0, {}, ()),
            (1.25, 0, {}, ()),
            (0.625, 1, {}, ()),
            (0.625, 0, {"InstanceNumber": None}, ("rounded_positions",)),
        )
    ),
    *(
        Variant(
            row="37",
            name=where or "unknown",
            make=whole(ImageOrientationPatient=None, PatientPosition=where or None),
            expect=used(repairs=("no_orientation",), flags=("no_orientation",), same_hu=where in ("", "HFS")),
        )
        for where in ("", "HFS", "HFP", "FFS", "FFP")
    ),
    *(
        Variant(row="37", name=name, make=whole(ImageOrientationPatient=value), expect=refused("bad_orientation"))
        for name, value in BAD_ORIENTATIONS.items()
    ),
    Variant(row="38", name="equal", make=whole(step=0.0), expect=refused("equal_positions")),
    Variant(row="38", name="nearly", make=whole(step=0.001), expect=refused("equal_positions")),
    Variant(
        row="39",
        name="one",
        make=whole(places=[0, 5, 10, 15, 25, 30, 35, 40]),
        expect=used(flags=("gap", "incomplete", "uneven_spacing"), flag_detail="slices are missing", same_hu=False),
    ),
    Variant(
        row="39",
        name="two-places",
        make=whole(places=[0, 5, 10, 20, 25, 30, 35, 45, 50, 55]),
        expect=used(slices=10, flags=("gap", "incomplete", "uneven_spacing"), flag_detail="slices are missing", same_hu=False),
    ),
    Variant(
        row="40",
        name="later-acquisition",
        make=_again,
        expect=Expect(slices=8, skipped={"repeated_position": 2}, repairs=frozenset({"repeated_position"})),
    ),
    Variant(
        row="40",
        name="later-time",
        make=_again_by_time,
        expect=Expect(slices=8, skipped={"repeated_position": 2}, repairs=frozenset({"repeated_position"}), same_hu=True),
    ),
    Variant(row="40", name="two-kernels", make=_two_kernels, expect=Expect(slices=8, skipped={"bone_kernel": 8}, same_hu=True)),
    *(
        Variant(
            row="40b",
            name=name,
            make=_acquisitions(shift, **second),
            expect=Expect(
                slices=8,
                skipped={code: second.get("count", 8)},
                refused={},
                repairs=frozenset(),
                flags=frozenset({"several_acquisitions"}),
                same_hu=code != "not_chosen",
            ),
        )
        for name, shift, second, code in (
            ("shifted", 2.0, {}, "not_chosen"),
            ("shifted-by-half-a-step", 2.5, {}, "not_chosen"),
            ("moved-in-between", 12.0, {}, "not_chosen"),
            ("by-time", 2.0, {"AcquisitionNumber": 1}, "not_chosen"),
            ("broken-off", 2.0, {"count": 4}, "partial_coverage"),
            ("of-two-slices", 12.0, {"count": 2}, "few_slices"),
        )
    ),
    Variant(
        row="40b",
        name="step-and-shoot-is-one",
        make=whole(change=lambda i: {"AcquisitionNumber": i + 1, "AcquisitionTime": f"1011{i:02}"}),
        expect=used(),
    ),
    *(
        Variant(
            row="41",
            name=f"{count}-copies",
            make=_copies(count),
            expect=Expect(slices=8, skipped={"duplicate_file": count}, repairs=frozenset({"duplicate_file"}), same_hu=True),
        )
        for count in (1, 8)
    ),
    Variant(row="41", name="one-uid-for-all", make=whole(SOPInstanceUID="1.2.3"), expect=refused("conflicting_uids")),
    Variant(row="42", name="reversed", make=whole(change=lambda i: {"InstanceNumber": 99 - i}), expect=used()),
    Variant(row="42", name="shuffled", make=whole(change=lambda i: {"InstanceNumber": SHUFFLED[i]}), expect=used()),
    Variant(row="42", name="all-the-same", make=whole(InstanceNumber=1), expect=used()),
    Variant(row="42", name="from-head-to-neck", make=whole(start=(-96, -96, 15), step=-5), expect=used()),
    Variant(row="43", name="none", make=whole(InstanceNumber=None), expect=used()),
    Variant(row="43", name="empty", make=whole(InstanceNumber=""), expect=used()),
    *(
        Variant(row="44", name=name, make=whole(ImagePositionPatient=value), expect=refused("bad_position"))
        for name, value in BAD_POSITIONS.items()
    ),
    *(
        Variant(
            row="45",
            name=f"{degrees}",
            make=whole(orientation=tilted(degrees)),
            expect=used(flags=("tilt",), same_hu=False),
        )
        for degrees in (-30, -18.5, 5, 22, 30)
    ),
    Variant(
        row="46",
        name="5-then-10",
        make=whole(places=[0, 5, 10, 15, 20, 30, 40, 50]),
        expect=used(flags=("uneven_spacing",), same_hu=False),
    ),
    Variant(
        row="46",
        name="4-then-7",
        make=whole(places=[0, 4, 8, 12, 16, 23, 30, 37]),
        expect=used(flags=("uneven_spacing",), same_hu=False),
    ),
    Variant(row="46", name="rounded", make=whole(places=[0, 5.01, 10, 15.01, 20, 25.01, 30, 35]), expect=used(same_hu=False)),
    *(
        Variant(
            row="47",
            name=f"reformat-{degrees}",
            make=whole(orientation=tilted(degrees), ImageType=["DERIVED", "SECONDARY", kind]),
            expect=used(flags=("tilt",), same_hu=False),
        )
        for degrees, kind in ((10, "REFORMATTED"), (25, "MPR"), (39, "AXIAL"))
    ),
    *(
        Variant(
            row="47",
            name=f"alone-{name}",
            make=whole(orientation=orientation),
            expect=no_scan("not_axial"),
        )
        for name, orientation in {"sagittal": (0, 1, 0, 0, 0, -1), "coronal": CORONAL, "steep": tilted(41)}.items()
    ),
    Variant(
        row="48",
        name="marked",
        make=_scout(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        expect=skipped("localizer"),
    ),
    Variant(
        row="48",
        name="not-marked",
        make=_scout(),
        expect=Expect(
            slices=8,
            skipped={"other_orientation": 1},
            flags=frozenset({"incomplete"}),
            flag_detail="slices of another orientation were excluded",
        ),
    ),
    *(
        Variant(row="50b", name=name, make=_pieces(*places), expect=used(repairs=("joined_series",)))
        for name, places in {
            "in-the-middle": (range(4), range(4, 8)),
            "odd-and-even": (range(0, 8, 2), range(1, 8, 2)),
            "in-three": (range(3), range(3, 6), range(6, 8)),
        }.items()
    ),
    *(
        Variant(
            row="50b",
            name=f"not-{name}",
            make=_pieces(range(8), mine, **second),
            expect=skipped(code, len(mine)),
        )
        for name, mine, second, code in (
            ("repeated", range(8), {}, "not_chosen"),
            ("taken-again", range(4, 8), {"AcquisitionNumber": 2}, "partial_coverage"),
            ("of-another-frame", range(8, 16), {"FrameOfReferenceUID": "1.2.3.10"}, "not_chosen"),
        )
    ),
    Variant(row="50", name="one-folder", make=_two_series, expect=skipped("not_chosen", 8)),
    Variant(row="51", name="half", make=_second_half(hu=np.zeros((16, 16))), expect=refused("mixed_matrix")),
    Variant(
        row="51",
        name="one-slice",
        make=whole(change=lambda i: {"hu": np.zeros((64, 64))} if i == 7 else {}),
        expect=refused("mixed_matrix"),
    ),
    Variant(row="52", name="half", make=_second_half(PixelSpacing=[5, 5]), expect=refused("mixed_spacing")),
    Variant(row="52", name="slightly", make=_second_half(PixelSpacing=[6.02, 6.02]), expect=refused("mixed_spacing")),
    Variant(row="52", name="rounding", make=_second_half(PixelSpacing=["6.0000001", "6.0000001"]), expect=used()),
    Variant(
        row="53",
        name="rows-apart",
        make=whole(hu=slice_hu((-96, -96, 0), size=64, spacing=3)[::2], PixelSpacing=[6.0, 3.0]),
        expect=used(repairs=("non_square_pixels",), same_hu=False),
    ),
    Variant(
        row="53",
        name="columns-apart",
        make=whole(hu=slice_hu((-96, -96, 0), size=64, spacing=3)[:, ::2], PixelSpacing=[3.0, 6.0]),
        expect=used(repairs=("non_square_pixels",), same_hu=False),
    ),
    *(
        Variant(row="53", name=name, make=whole(PixelSpacing=value), expect=refused("no_spacing"))
        for name, value in {
            "empty": "",
            "none": None,
            "one-value": ["6"],
            "zero": [0, 0],
            "negative": [-1, -1],
            "text": ["a", "b"],
        }.items()
    ),
    *(
        Variant(
            row="54",
            name=str(size),
            make=whole(hu=slice_hu((-96, -96, 0), size=size, spacing=192 / size), PixelSpacing=[192 / size, 192 / size], count=5),
            expect=used(slices=5, same_hu=False),
        )
        for size in (24, 256, 768, 1024)
    ),
    Variant(row="54", name="not-square", make=whole(hu=slice_hu((-96, -96, 0))[4:]), expect=used(same_hu=False)),
    Variant(row="55", name="repeated-positions", make=_perfusion, expect=no_scan("perfusion", 48)),
    *(
        Variant(
            row="60",
            name=name,
            make=whole(step=step, count=count, SliceThickness=step),
            expect=Expect(slices=slabs, files_used=count, repairs=frozenset({"slabs"})),
        )
        for name, step, count, slabs in (("1-mm", 1.0, 40, 8), ("half-a-mm", 0.5, 80, 8), ("1.25-mm", 1.25, 32, 8))
    ),
    Variant(row="60b", name="10-mm", make=whole(step=10.0), expect=used(flags=("thick_slices",), same_hu=False)),
    *(
        Variant(row="64", name=name, make=turned(orientation, start), expect=used(repairs=("reoriented",)))
        for name, (orientation, start) in ORIENTATIONS.items()
    ),
    *(
        Variant(row="64", name=f"position-{where}", make=whole(PatientPosition=where), expect=used())
        for where in ("FFS", "HFP", "FFP", "HFDR")
    ),
]
