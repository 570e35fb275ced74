"""Which series is read, what its words mean, and attributes that are missing."""

from pathlib import Path
from typing import Any

import numpy as np
from dicom_files import make_series, make_slice
from pydicom import Dataset, dcmread

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
    **{
        ("57b", f"rescale-type-{unit.lower()}"): (
            {"RescaleType": unit, "ImageType": ["DERIVED", "SECONDARY", "AXIAL"]},
            "derived_map",
        )
        for unit in ("US", "ED", "EDW", "HU_MOD", "Z_EFF", "MGML", "PCT", "mg/ml")
    },
    ("57b", "rescale-type-original-z-eff"): ({"RescaleType": "Z_EFF"}, "derived_map"),
    ("57b", "rescale-type-original-hu-mod"): ({"RescaleType": "HU_MOD"}, "derived_map"),
    **{
        ("57b", f"image-type-{word.lower().replace('_', '-')}"): (
            {"ImageType": ["DERIVED", "PRIMARY", "AXIAL", word]},
            "derived_map",
        )
        for word in (
            "MAT_REMOVED",
            "VNC",
            "EFF_Z",
            "EFF_ATOMIC_NUM",
            "ELECTRON_DENSITY",
            "MAT_SPECIFIC",
            "MAT_VALUE_BASED",
            "MINIP",
        )
    },
    **{
        ("57b", f"name-{name.lower().replace(' ', '-').replace('/', '-')}"): ({"SeriesDescription": name}, "derived_map")
        for name in ("Zeff", "Rho/Z", "CaSupp 25", "VNI", "VNCa", "VUE", "Uric Acid", "tMIP", "rCBF", "rCBV", "TTD")
    },
    **{
        ("57b", f"software-{name.lower()}"): ({"SeriesDescription": f"{name} result"}, "derived_map")
        for name in ("RAPID", "ASPECTS", "Viz", "Aidoc")
    },
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


def agent_sequence(meaning: str | None) -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = "7140619", "RXNORM"
    if meaning is not None:
        item.CodeMeaning = meaning
    return [item]


def _stray(count: int = 1, **elements: Any) -> Any:
    """A sound series, and pages under its Series Instance UID."""

    def make(folder: Path) -> None:
        make_series(folder)
        for i in range(count):
            own: dict[str, Any] = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "SOPInstanceUID": f"1.2.9.{i}"}
            path = make_slice(folder / f"page{i}.dcm", **({"hu": np.zeros((32, 32)), "InstanceNumber": 99} | elements))
            if "ImagePositionPatient" not in elements:
                data_set = dcmread(path)
                for keyword, value in own.items():
                    if value is None:
                        delattr(data_set, keyword)
                data_set.save_as(path)

    return make


RGB: dict[str, Any] = {
    "PhotometricInterpretation": "RGB",
    "SamplesPerPixel": 3,
    "PlanarConfiguration": 0,
    "BitsAllocated": 8,
    "BitsStored": 8,
    "HighBit": 7,
    "stored": bytes(32 * 32 * 3),
}
MONO_8: dict[str, Any] = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "stored": bytes(32 * 32)}
CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

STRAYS: dict[str, tuple[dict[str, Any], str]] = {
    "rgb": (RGB, "color"),
    "rgb-capture": (RGB | {"SOPClassUID": CAPTURE}, "color"),
    "rgb-with-a-position": (RGB | {"ImagePositionPatient": (-96, -96, 5), "hu": np.zeros((32, 32))}, "color"),
    "rgb-large": (RGB | {"hu": np.zeros((48, 64)), "stored": bytes(48 * 64 * 3)}, "color"),
    "mono-8": (MONO_8, "secondary_capture"),
    "capture-16": ({"SOPClassUID": CAPTURE}, "secondary_capture"),
    "capture-with-a-position": ({"SOPClassUID": CAPTURE, "ImagePositionPatient": (-96, -96, 5)}, "secondary_capture"),
    "multi-frame-capture-class": ({"SOPClassUID": CAPTURE + ".3"}, "secondary_capture"),
    "other-matrix": ({"hu": np.zeros((48, 64))}, "secondary_capture"),
    "two": ({"hu": np.zeros((48, 64)), "count": 2}, "secondary_capture"),
}

VARIANTS: list[Variant] = [
    *(
        Variant(row="48b", name=name, make=_stray(**elements), expect=skipped(code, elements.get("count", 1)))
        for name, (elements, code) in STRAYS.items()
    ),
    Variant(row="48b", name="in-training", make=_stray(**RGB), expect=skipped("color"), training=True),
    Variant(row="48b", name="as-many-as-slices", make=_stray(8, hu=np.zeros((48, 64))), expect=refused("bad_orientation", 16)),
    Variant(
        row="48b",
        name="other-matrix-with-a-position",
        make=_stray(hu=np.zeros((48, 64)), ImagePositionPatient=(-96, -96, 5)),
        expect=refused("mixed_matrix", 9),
    ),
    Variant(
        row="57b",
        name="unspecified-original-alone",
        make=whole(RescaleType="US"),
        expect=used(flags=("unspecified_unit",)),
    ),
    Variant(row="57b", name="unspecified-original-beside-plain", make=second(RescaleType="US"), expect=skipped("not_chosen", 8)),
    *(Variant(row="57b", name=f"hu-{i}", make=whole(RescaleType=unit), expect=used()) for i, unit in enumerate(("HU", "hu", ""))),
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
    *(
        Variant(row="59b", name=name, make=whole(**elements), expect=refused("contrast"))
        for name, elements in {
            "route": {"ContrastBolusRoute": "IV"},
            "volume": {"ContrastBolusVolume": "80"},
            "start-time": {"ContrastBolusStartTime": "101500"},
            "total-dose": {"ContrastBolusTotalDose": "30.5"},
            "ingredient": {"ContrastBolusIngredient": "IODINE"},
            "concentration": {"ContrastBolusIngredientConcentration": "350"},
            "flow-rate": {"ContrastFlowRate": ["4", "0"]},
            "volume-beside-none": {"ContrastBolusAgent": "NONE", "ContrastBolusVolume": "80"},
            "agent-sequence": {"ContrastBolusAgentSequence": agent_sequence("Iohexol")},
            "agent-sequence-unnamed": {"ContrastBolusAgentSequence": agent_sequence(None)},
            "willis": {"SeriesDescription": "Circle of Willis"},
            "tsa": {"SeriesDescription": "TSA 0.6"},
            "vessels-german": {"SeriesDescription": "Gefässe"},
            "plus-c": {"SeriesDescription": "TETE +C"},
            "c-c": {"SeriesDescription": "CRANEO C/C"},
            "bolus-tracking": {"SeriesDescription": "SmartPrep"},
            "chinese": {"SeriesDescription": "头部CTA增强", "SpecificCharacterSet": "ISO_IR 192"},
            "japanese": {"SeriesDescription": "動脈相", "SpecificCharacterSet": "ISO_IR 192"},
            "korean": {"SeriesDescription": "두부조영", "SpecificCharacterSet": "ISO_IR 192"},
            "russian": {"SeriesDescription": "голова с контрастом", "SpecificCharacterSet": "ISO_IR 192"},
        }.items()
    ),
    *(
        Variant(row="59c", name=name, make=whole(**{"SpecificCharacterSet": "ISO_IR 192"} | elements), expect=used())
        for name, elements in {
            "volume-zero": {"ContrastBolusVolume": "0"},
            "volume-zero-point": {"ContrastBolusVolume": "0.00", "ContrastFlowRate": ["0", "0"]},
            "all-empty": {
                "ContrastBolusVolume": "",
                "ContrastBolusRoute": "",
                "ContrastBolusStartTime": "",
                "ContrastBolusIngredient": "",
            },
            "midnight": {"ContrastBolusStartTime": "000000.000", "ContrastBolusTotalDose": "0"},
            "route-none": {"ContrastBolusRoute": "NONE"},
            "route-beside-none": {"ContrastBolusAgent": "NONE", "ContrastBolusRoute": "IV"},
            "empty-agent-sequence": {"ContrastBolusAgentSequence": []},
            "agent-sequence-none": {"ContrastBolusAgentSequence": agent_sequence("No contrast")},
            "agent-denied": {"ContrastBolusAgent": "sans injection"},
            "iv-minus": {"SeriesDescription": "CRANE IV-"},
            "norwegian": {"SeriesDescription": "Hjerne uten kontrast"},
            "danish": {"SeriesDescription": "Cerebrum uden kontrast"},
            "swedish": {"SeriesDescription": "Skalle utan kontrast"},
            "french": {"SeriesDescription": "Crâne sans injection"},
            "korean": {"SeriesDescription": "두부 비조영"},
            "russian": {"SeriesDescription": "голова без контраста"},
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
    *(
        Variant(row="63", name=f"age-{name}", make=whole(PatientAge=age), expect=used(flags=("child",)))
        for name, age in {
            "bare": "3",
            "spaced": "03 Y",
            "lower": "3y",
            "months": "36M",
            "days": "0300D",
            "word": "3 years",
        }.items()
    ),
    *(
        Variant(row="63", name=f"birth-{name}", make=whole(**{"StudyDate": "20200315"} | dates), expect=used(flags=("child",)))
        for name, dates in {
            "date": {"PatientBirthDate": "20150301"},
            "with-points": {"PatientBirthDate": "2015.03.01"},
            "year-only": {"PatientBirthDate": "20150000"},
            "age-empty": {"PatientAge": "", "PatientBirthDate": "20150301"},
            "age-garbage": {"PatientAge": "n/a", "PatientBirthDate": "20150301"},
            "age-zero": {"PatientAge": "0", "PatientBirthDate": "20150301"},
            "day-before-18": {"PatientBirthDate": "20020316"},
            "acquisition-date": {"PatientBirthDate": "20150301", "StudyDate": None, "AcquisitionDate": "20200101"},
        }.items()
    ),
    *(
        Variant(row="63", name=f"no-child-{name}", make=whole(**{"StudyDate": "20200315"} | dates), expect=used())
        for name, dates in {
            "adult-by-birth": {"PatientBirthDate": "19500301"},
            "eighteen-today": {"PatientBirthDate": "20020315"},
            "age-before-birth": {"PatientAge": "064Y", "PatientBirthDate": "20150301"},
            "born-in-the-future": {"PatientBirthDate": "20300101"},
            "placeholder": {"PatientBirthDate": "19000101", "StudyDate": "19050101"},
            "both-the-same-placeholder": {"PatientBirthDate": "20000101", "StudyDate": "20000101"},
            "no-study-date": {"PatientBirthDate": "20150301", "StudyDate": None},
            "birth-garbage": {"PatientBirthDate": "2015/3/1"},
            "age-zero": {"PatientAge": "0"},
            "age-impossible": {"PatientAge": "999Y"},
        }.items()
    ),
    *(
        Variant(row="45b", name=name, make=whole(GantryDetectorTilt=tilt), expect=used(flags=flags))
        for name, tilt, flags in (
            ("forward", "-18.5", ("tilt",)),
            ("backward", "12", ("tilt",)),
            ("small", "1.5", ("tilt",)),
            ("none", "0", ()),
            ("rounding", "0.5", ()),
            ("impossible", "999", ()),
            ("garbage", "tilted", ()),
            ("empty", "", ()),
        )
    ),
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
