"""Which series is read, what its words mean, and attributes that are missing."""

from pathlib import Path
from typing import Any

from dicom_files import make_series, make_slice

from catalogue.case import Expect, Variant, beside, no_scan, refused, second, skipped, used, whole

SAGITTAL = (0, 1, 0, 0, 0, -1)
CORONAL = (1, 0, 0, 0, 0, -1)

OTHERS: dict[tuple[str, str], tuple[dict[str, Any], str]] = {
    ("47", "sagittal"): ({"orientation": SAGITTAL}, "not_axial"),
    ("47", "coronal"): ({"orientation": CORONAL}, "not_axial"),
    ("47", "oblique"): ({"orientation": (1, 0, 0, 0, 0.7, 0.714)}, "not_axial"),
    ("49", "localizer"): ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
    ("49", "scout-by-name"): ({"SeriesDescription": "Scout"}, "localizer"),
    ("49", "topogram-by-name"): ({"SeriesDescription": "Topogramm 0.6 T20s"}, "localizer"),
    ("49", "three-slices"): ({"count": 3}, "few_slices"),
    ("49", "one-slice"): ({"count": 1}, "few_slices"),
    ("55", "by-name"): ({"SeriesDescription": "PERFUSION"}, "derived_map"),
    ("57", "dose"): ({"SeriesDescription": "Dose Report"}, "secondary_capture"),
    ("57", "summary"): ({"SeriesDescription": "Exam Summary"}, "secondary_capture"),
    ("57", "protocol"): ({"SeriesDescription": "Patient Protocol"}, "secondary_capture"),
    ("57", "iodine"): ({"SeriesDescription": "Iodine map"}, "derived_map"),
    ("57", "bone-removed"): ({"SeriesDescription": "HEAD Bone removed"}, "derived_map"),
    ("57", "virtual-plain"): ({"SeriesDescription": "VNC head"}, "derived_map"),
    ("57", "40-kev"): ({"SeriesDescription": "MONO 40 keV"}, "derived_map"),
    ("57", "190-kev"): ({"SeriesDescription": "Monoenergetic 190 keV"}, "derived_map"),
    ("57", "projection"): ({"SeriesDescription": "MIP axial"}, "derived_map"),
    ("57", "by-image-type"): ({"ImageType": ["DERIVED", "SECONDARY", "MIP"]}, "derived_map"),
    ("58", "siemens"): ({"ConvolutionKernel": "H70s"}, "bone_kernel"),
    ("58", "siemens-iterative"): ({"ConvolutionKernel": ["Hr64h", "3"]}, "bone_kernel"),
    ("58", "ge"): ({"ConvolutionKernel": "BONEPLUS"}, "bone_kernel"),
    ("58", "philips"): ({"ConvolutionKernel": "YC"}, "bone_kernel"),
    ("58", "canon"): ({"ConvolutionKernel": "FC30"}, "bone_kernel"),
    ("58", "by-name"): ({"SeriesDescription": "Knochen 1.0"}, "bone_kernel"),
    ("62", "neck"): ({"SeriesDescription": "C-SPINE 2MM"}, "not_head"),
    ("62", "chest"): ({"SeriesDescription": "5mm", "BodyPartExamined": "CHEST"}, "not_head"),
    ("62", "sinuses"): ({"SeriesDescription": "Sinuses"}, "not_head"),
    ("62", "abdomen"): ({"SeriesDescription": "Abdomen 5.0"}, "not_head"),
}


def _with_plain(**elements: Any) -> Any:
    def make(folder: Path) -> None:
        own: dict[str, Any] = {"SeriesInstanceUID": "1.2.3.100.2", "SeriesNumber": 1}
        make_series(folder / "energy", **(own | elements))
        make_series(folder / "plain")

    return make


NOT_NEEDED = {
    "sop-class": {"SOPClassUID": None},
    "study-uid": {"StudyInstanceUID": None},
    "patient-id": {"PatientID": None},
    "patient-name": {"PatientName": None},
    "image-type": {"ImageType": None},
    "thickness": {"SliceThickness": None},
    "description": {"SeriesDescription": None},
    "series-number": {"SeriesNumber": None},
    "patient-position": {"PatientPosition": None},
    "samples": {"SamplesPerPixel": None},
    "photometric": {"PhotometricInterpretation": None},
    "bits-stored": {"BitsStored": None, "HighBit": None},
    "high-bit": {"HighBit": None},
    "pixel-representation": {"PixelRepresentation": None},
    "all-of-them": {
        "PatientName": None,
        "SliceThickness": None,
        "SeriesDescription": None,
        "SeriesNumber": None,
        "PatientPosition": None,
        "InstanceNumber": None,
    },
    "empty-description": {"SeriesDescription": ""},
    "empty-patient-id": {"PatientID": ""},
    "empty-thickness": {"SliceThickness": ""},
    "rsna": {"SeriesInstanceUID": "ID_f00", "StudyInstanceUID": "ID_ba5", "InstanceNumber": None, "SliceThickness": None},
}
NEEDED: dict[str, tuple[dict[str, Any], Expect]] = {
    "series-uid": ({"SeriesInstanceUID": None}, refused("no_series_uid")),
    "empty-series-uid": ({"SeriesInstanceUID": ""}, refused("no_series_uid")),
    "modality": ({"Modality": None}, no_scan("not_ct")),
    "empty-modality": ({"Modality": ""}, no_scan("not_ct")),
    "rows": ({"Rows": None}, no_scan("no_pixels")),
    "columns": ({"Columns": None}, refused("bad_matrix")),
    "bits-allocated": ({"BitsAllocated": None}, refused("pixel_format")),
}

VARIANTS: list[Variant] = [
    *(
        Variant(row=row, name=name, make=second(**elements), expect=skipped(code, elements.get("count", 8)))
        for (row, name), (elements, code) in OTHERS.items()
    ),
    *(
        Variant(row="57", name=f"{name}-alone", make=whole(SeriesDescription=text), expect=used())
        for name, text in {"mixed": "Mixed", "70-kev": "MONO 70 keV"}.items()
    ),
    *(
        Variant(row="57", name=f"{name}-beside-plain", make=_with_plain(SeriesDescription=text), expect=skipped("not_chosen", 8))
        for name, text in {"mixed": "Mixed", "70-kev": "MONO 70 keV"}.items()
    ),
    *(
        Variant(row="59", name=name, make=whole(**elements), expect=refused("contrast"))
        for name, elements in {
            "agent": {"ContrastBolusAgent": "OMNIPAQUE 300"},
            "agent-iv": {"ContrastBolusAgent": "IV"},
            "description": {"SeriesDescription": "HEAD POST CONTRAST"},
            "cta": {"SeriesDescription": "CTA HEAD 0.75"},
            "german": {"SeriesDescription": "Schädel mit KM"},
        }.items()
    ),
    Variant(row="59", name="agent-none", make=whole(ContrastBolusAgent="NONE"), expect=used()),
    Variant(
        row="59",
        name="beside-plain",
        make=second(SeriesDescription="POST CONTRAST"),
        expect=Expect(slices=8, refused={"contrast": 8}),
    ),
    *(
        Variant(
            row="61",
            name=kind.lower(),
            make=beside(lambda folder, kind=kind: make_slice(folder / "x.dcm", Modality=kind)),  # type: ignore[misc]
            expect=skipped("not_ct"),
        )
        for kind in ("MR", "PT", "CR", "DX", "NM", "US", "XA", "OT")
    ),
    Variant(row="63", name="child", make=whole(PatientAge="008Y"), expect=used(flags=("child",))),
    Variant(row="63", name="infant", make=whole(PatientAge="020D"), expect=used(flags=("child",))),
    Variant(row="63", name="months", make=whole(PatientAge="030M"), expect=used(flags=("child",))),
    Variant(row="63", name="adult", make=whole(PatientAge="018Y"), expect=used()),
    Variant(row="63", name="nonsense", make=whole(PatientAge="old"), expect=used()),
    Variant(row="63", name="kvp-40", make=whole(KVP="40"), expect=used(flags=("kvp",))),
    Variant(row="63", name="kvp-190", make=whole(KVP="190"), expect=used(flags=("kvp",))),
    Variant(row="63", name="kvp-120", make=whole(KVP="120"), expect=used()),
    Variant(row="65", name="yes", make=whole(BurnedInAnnotation="YES"), expect=used(flags=("burned_in",))),
    Variant(row="65", name="no", make=whole(BurnedInAnnotation="NO"), expect=used()),
    Variant(row="80", name="three-slices", make=whole(count=3), expect=no_scan("few_slices", 3)),
    Variant(
        row="80",
        name="all-truncated",
        make=whole(stored=bytes(8)),
        expect=Expect(code="no_usable_slice", refused={"truncated_pixels": 8}),
        training=True,
    ),
    *(Variant(row="a", name=name, make=whole(**elements), expect=used()) for name, elements in NOT_NEEDED.items()),
    *(Variant(row="b", name=name, make=whole(**elements), expect=expect) for name, (elements, expect) in NEEDED.items()),
]
