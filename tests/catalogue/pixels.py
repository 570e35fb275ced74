"""Pixels, and what the header says of them."""

from collections.abc import Callable
from typing import Any

import numpy as np
from dicom_files import make_series
from pydicom.uid import JPEG2000Lossless

from catalogue.case import (
    Expect,
    Variant,
    bad_slice,
    one,
    refused,
    second,
    skipped,
    sound_hu,
    used,
    whole,
)


def _wrapped(i: int) -> np.ndarray:
    return (sound_hu(i).astype(int) % 4096).astype(np.uint16)


def _with_corner(value: float, **elements: Any) -> Callable[..., object]:
    """A corner outside the field of view holds a value far below air."""

    def corner(i: int) -> dict[str, Any]:
        hu = sound_hu(i)
        hu[:3, :3] = value
        return {"hu": hu}

    return whole(**({"PixelRepresentation": 1, "intercept": 0.0, "change": corner} | elements))


def _false_hu(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[int], dict[str, Any]]:
    """Stored values that are made of HU wrongly; the skull's are spread, as those of bone are."""
    bone = np.random.default_rng(22).uniform(300, 1700, sound_hu(0).shape)

    def own(i: int) -> dict[str, Any]:
        hu = sound_hu(i)
        stored = change(np.where(hu == 900, bone, hu))
        return {"stored": np.clip(np.rint(stored), 0, 4095).astype(np.uint16)}

    return own


def _shown(hu: np.ndarray) -> np.ndarray:
    return np.clip(hu / 80, 0, 1) * 255


def _filled(value: int) -> dict[str, Any]:
    return {"stored": np.full((32, 32), value, np.uint16)}


UNKNOWN_SYNTAXES = {
    "private": "1.2.3.4.5.6",
    "mpeg-2": "1.2.840.10008.1.2.4.100",
    "h264": "1.2.840.10008.1.2.4.102",
    "xml": "1.2.840.10008.1.2.6.2",
}
BAD_SLOPES = {"0": "0", "negative": "-1", "nan": "nan", "infinite": "inf", "text": "one", "huge": "1e9", "two-values": "1\\2"}
BAD_INTERCEPTS = {"nan": "nan", "infinite": "-inf", "huge": "1e9", "text": "none"}
FORMATS = {
    "1-bit": {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0},
    "8-bit": {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
    "12-bit": {"BitsAllocated": 12, "BitsStored": 12, "HighBit": 11},
    "32-bit": {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31},
    "64-bit": {"BitsAllocated": 64, "BitsStored": 64, "HighBit": 63},
    "17-stored": {"BitsStored": 17, "HighBit": 16},
    "4-stored": {"BitsStored": 4, "HighBit": 3},
}
FLOATS = {"float": "FloatPixelData", "double": "DoubleFloatPixelData"}
WRAPPED: dict[str, Any] = {"RescaleIntercept": 0, "BitsStored": 12, "HighBit": 11}
HU_AS_STORED: dict[str, Any] = {"PixelRepresentation": 1, "intercept": 0}
FALSE_RESCALE: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float, float]] = {
    "intercept-missing": (lambda hu: hu + 1024, 1, 0),
    "intercept-twice": (lambda hu: hu + 1024, 1, -2048),
    "display-values": (_shown, 1, 0),
    "display-values-intercept": (_shown, 1, -1024),
    "slope-double": (lambda hu: hu + 1024, 2, -1024),
    "slope-half": (lambda hu: hu + 1024, 0.5, -1024),
    "inverted": (lambda hu: 4095 - (hu + 1024), 1, -1024),
}
PADDED = ("padding",)
BELOW_AIR = ("below_air",)

VARIANTS: list[Variant] = [
    *(v for name, uid in UNKNOWN_SYNTAXES.items() for v in bad_slice("13", name, one(syntax=uid), "unknown_transfer_syntax")),
    *bad_slice("22", "no-slope", one(RescaleSlope=None), "rescale_missing"),
    *bad_slice("22", "no-intercept", one(RescaleIntercept=None), "rescale_missing"),
    *bad_slice("22", "neither", one(RescaleSlope=None, RescaleIntercept=None), "rescale_missing"),
    *(
        Variant(
            row="22",
            name=f"but-hu-{name}",
            make=whole(**HU_AS_STORED, **missing),
            expect=used(repairs=("rescale_missing",)),
        )
        for name, missing in {
            "neither": {"RescaleSlope": None, "RescaleIntercept": None},
            "no-slope": {"RescaleSlope": None},
            "no-intercept": {"RescaleIntercept": None},
        }.items()
    ),
    *(
        Variant(
            row="22b",
            name=f"{name}-{bits}-bit-{'signed' if signed else 'unsigned'}",
            make=whole(
                change=_false_hu(change),
                RescaleSlope=slope,
                RescaleIntercept=intercept,
                BitsStored=bits,
                HighBit=bits - 1,
                PixelRepresentation=int(signed),
            ),
            expect=refused("not_hu"),
        )
        for name, (change, slope, intercept) in FALSE_RESCALE.items()
        for bits in (12, 16)
        for signed in (False, True)
    ),
    *(v for name, text in BAD_SLOPES.items() for v in bad_slice("23", f"slope-{name}", one(RescaleSlope=text), "bad_rescale")),
    *(
        v
        for name, text in BAD_INTERCEPTS.items()
        for v in bad_slice("23", f"intercept-{name}", one(RescaleIntercept=text), "bad_rescale")
    ),
    *(
        Variant(row="24", name=f"{slope:g}", make=whole(slope=slope, intercept=-1024.0), expect=used())
        for slope in (0.5, 0.25, 0.125)
    ),
    Variant(
        row="24",
        name="signed",
        make=whole(slope=0.5, intercept=0.0, PixelRepresentation=1),
        expect=used(),
    ),
    Variant(
        row="25",
        name="intercept",
        make=whole(change=lambda i: {"intercept": -1024.0 - i, "RescaleIntercept": -1024 - i}),
        expect=used(),
    ),
    Variant(
        row="25",
        name="slope",
        make=whole(change=lambda i: {"slope": 0.5 if i % 2 else 1.0, "RescaleSlope": 0.5 if i % 2 else 1}),
        expect=used(),
    ),
    Variant(
        row="26",
        name="16-bit",
        make=whole(change=lambda i: {"stored": sound_hu(i).astype(np.int16), "RescaleIntercept": 0}),
        expect=used(repairs=("unsigned_flag",)),
    ),
    Variant(row="26", name="flagged-rightly", make=whole(**HU_AS_STORED), expect=used()),
    Variant(
        row="27",
        name="intercept-0",
        make=whole(change=lambda i: {"stored": _wrapped(i)}, **WRAPPED),
        expect=used(repairs=("wrap_12bit",)),
    ),
    Variant(
        row="27",
        name="intercept-minus-1",
        make=whole(change=lambda i: {"stored": _wrapped(i)}, **(WRAPPED | {"RescaleIntercept": -1})),
        expect=used(repairs=("wrap_12bit",)),
    ),
    Variant(
        row="27",
        name="air-at-minus-1024",
        make=whole(change=lambda i: {"stored": np.where((hu := _wrapped(i)) == 3096, 3072, hu).astype(np.uint16)}, **WRAPPED),
        expect=used(repairs=("wrap_12bit",), same_hu=False),
    ),
    Variant(
        row="28",
        name="12-bit",
        make=whole(change=lambda i: {"stored": _wrapped(i)}, **WRAPPED, PixelRepresentation=1),
        expect=used(repairs=("sign_12bit",)),
    ),
    Variant(row="29", name="circle-2000", make=_with_corner(-2000), expect=used(repairs=BELOW_AIR)),
    Variant(row="29", name="circle-3024", make=_with_corner(-3024), expect=used(repairs=BELOW_AIR)),
    *(
        Variant(
            row="29",
            name=f"outside-of-{bits}-bits-{-value}-{'named' if named else 'not-named'}",
            make=_with_corner(value, BitsStored=bits, HighBit=bits - 1, **({"PixelPaddingValue": value} if named else {})),
            expect=used(repairs=PADDED if named else BELOW_AIR),
        )
        for bits in (12, 13)
        for value in (-8192, -32768)
        for named in (True, False)
    ),
    Variant(row="29", name="value", make=_with_corner(-2000, PixelPaddingValue=-2000), expect=used(repairs=PADDED)),
    Variant(row="29", name="value-1500", make=_with_corner(-1500, PixelPaddingValue=-1500), expect=used(repairs=PADDED)),
    Variant(row="29", name="another-value", make=_with_corner(-2000, PixelPaddingValue=-1500), expect=used(repairs=BELOW_AIR)),
    Variant(row="30", name="monochrome1", make=whole(PhotometricInterpretation="MONOCHROME1"), expect=used()),
    *(
        Variant(
            row="31",
            name=kind.lower().replace(" ", "-"),
            make=second(PhotometricInterpretation=kind, SamplesPerPixel=3, stored=bytes(32 * 32 * 6)),
            expect=skipped("color", 8),
        )
        for kind in ("RGB", "YBR_FULL", "YBR_FULL_422")
    ),
    *(
        Variant(
            row="31",
            name=f"secondary-capture{end.replace('.', '-')}",
            make=second(SOPClassUID=f"1.2.840.10008.5.1.4.1.1.7{end}"),
            expect=skipped("secondary_capture", 8),
        )
        for end in ("", ".1", ".2", ".3", ".4")
    ),
    Variant(
        row="32",
        name="palette",
        make=whole(PhotometricInterpretation="PALETTE COLOR"),
        expect=Expect(code="color", skipped={"color": 8}),
    ),
    *(v for name, elements in FORMATS.items() for v in bad_slice("32", name, one(**elements), "pixel_format")),
    Variant(row="32", name="3-samples", make=whole(SamplesPerPixel=3), expect=refused("pixel_format")),
    *(
        Variant(
            row="34",
            name=str(value),
            make=whole(**_filled(value)),
            expect=used(flags=("constant_slice", "no_skull", "metal"), same_hu=False),
        )
        for value in (40000, 65535)
    ),
    Variant(
        row="34",
        name="signed-times-16",
        make=whole(**HU_AS_STORED, stored=np.full((32, 32), 32767, np.int16), RescaleSlope=16),
        expect=used(flags=("constant_slice", "no_skull", "metal"), same_hu=False),
    ),
    Variant(
        row="35",
        name="one",
        make=whole(change=lambda i: {"hu": np.zeros((32, 32))} if i == 2 else {}),
        expect=used(flags=("constant_slice",), same_hu=False),
    ),
    Variant(
        row="35",
        name="all-air",
        make=lambda folder: make_series(folder, hu=np.full((32, 32), -1000)),
        expect=used(flags=("constant_slice", "no_skull"), same_hu=False),
    ),
    Variant(row="20", name="marked", make=whole(LossyImageCompression="01"), expect=used(flags=("lossy",))),
    Variant(row="20", name="not-marked", make=whole(LossyImageCompression="00"), expect=used()),
    Variant(
        row="18",
        name="jpeg-2000",
        make=whole(syntax=JPEG2000Lossless),
        expect=Expect(code="codec_missing", refused={"codec_missing": 8}, detail="codecs"),
        patch={"ich_lstm.reading.pixels.compressed.is_installed": lambda syntax: False},
    ),
]
