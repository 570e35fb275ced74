"""Identifiers that patients and examinations share."""

from pathlib import Path
from typing import Any

from dicom_files import make_series, make_slice, slice_hu

from catalogue.case import Expect, Make, Variant, beside, refused, whole


def two(*, series_uid: str = "1.2.3.100.2", **elements: Any) -> Make:
    """A sound series, and a whole head of another patient or examination in another folder."""

    def make(folder: Path) -> None:
        make_series(folder / "a")
        make_series(folder / "b", SeriesInstanceUID=series_uid, **elements)

    return make


def _own_sop_uids(i: int) -> dict[str, Any]:
    return {"SOPInstanceUID": f"1.2.7.{i}"}


def _other_pixels(folder: Path) -> None:
    hu = slice_hu((-96, -96, -5))
    hu[16, 16] += 2
    position = ["-96.000000", "-96.000000", "-5.000000"]
    make_slice(folder / "x.dcm", hu, SOPInstanceUID="1.2.3.100.1.4", InstanceNumber=4, ImagePositionPatient=position)


BOTH_READ = Expect(slices=8, files_used=16, same_hu=True)
SAME_SERIES = "1.2.3.100.1"
NAMELESS: dict[str, Any] = {"PatientID": "", "PatientName": None, "StudyInstanceUID": ""}


def _nameless_folders(folder: Path) -> None:
    for name in "ab":
        make_series(folder / name, **NAMELESS)


def _two_examinations(**values: tuple[str, str]) -> Make:
    def make(folder: Path) -> None:
        for i, name in enumerate("ab"):
            own = {keyword: both[i] for keyword, both in values.items()}
            make_series(folder / name, SeriesInstanceUID=f"1.2.3.100.{i + 1}", **own)

    return make


VARIANTS: tuple[Variant, ...] = (
    Variant(row="41", name="other-pixels", make=beside(_other_pixels), expect=refused("conflicting_uids", 9)),
    Variant(row="81", name="one-study-uid", make=two(PatientID="OTHER"), expect=BOTH_READ),
    Variant(row="81", name="one-study-uid-no-id", make=two(PatientID=None), expect=BOTH_READ),
    Variant(row="81", name="one-id-another-name", make=two(PatientName="Other^Name"), expect=BOTH_READ),
    Variant(row="81", name="one-series-uid", make=two(series_uid=SAME_SERIES, PatientID="OTHER"), expect=BOTH_READ),
    Variant(
        row="81",
        name="one-series-uid-interleaved",
        make=two(series_uid=SAME_SERIES, PatientID="OTHER", start=(-96, -96, -22.5), change=_own_sop_uids),
        expect=Expect(slices=8, files_used=16),
    ),
    Variant(row="81", name="no-identifier", make=_nameless_folders, expect=BOTH_READ),
    Variant(
        row="81",
        name="one-slice-of-nobody",
        make=whole(change=lambda i: {"PatientID": ""} if i == 3 else {}),
        expect=refused("mixed_patients"),
    ),
    Variant(
        row="81", name="no-id-in-one-series", make=two(series_uid=SAME_SERIES, PatientID=""), expect=refused("mixed_patients", 16)
    ),
    *(
        Variant(row="82", name=name, make=_two_examinations(**{keyword: values}), expect=BOTH_READ)
        for name, keyword, values in (
            ("dates", "StudyDate", ("20240101", "20240102")),
            ("accession-numbers", "AccessionNumber", ("A1", "A2")),
        )
    ),
    Variant(
        row="82",
        name="one-series",
        make=whole(change=lambda i: {"AccessionNumber": f"A{i // 4}"}),
        expect=refused("mixed_examinations"),
    ),
)
