"""Files that are no slices, and containers that are not as they should be."""

import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from dicom_files import make_slice
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from catalogue.case import (
    Variant,
    all_spoilt,
    bad_slice,
    beside,
    put,
    refused,
    refused_beside,
    skipped,
    sound_hu,
    spoilt,
    used,
    whole,
)

PIXEL_BYTES = 32 * 32 * 2


def cut(path: Path, size: int) -> None:
    """Keep the first bytes, or all but the last if negative."""
    path.write_bytes(path.read_bytes()[:size])


def append(data: bytes) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(path.read_bytes() + data)


def pixel_length(length: int) -> Callable[[Path], object]:
    """Let Pixel Data claim another length."""

    def change(path: Path) -> None:
        data = path.read_bytes()
        at = data.index(b"\xe0\x7f\x10\x00OW\0\0") + 8
        path.write_bytes(data[:at] + struct.pack("<I", length) + data[at + 4 :])

    return change


def nested(depth: int) -> Callable[[Path], object]:
    """Put nested sequences of undefined length before the pixels."""

    def change(path: Path) -> None:
        data = path.read_bytes()
        at = data.index(b"\x28\x00\x02\x00US")
        begin = b"\x18\x00\x01\x90SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
        end = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
        path.write_bytes(data[:at] + begin * depth + end * depth + data[at:])

    return change


def declared_syntax(uid: str) -> Callable[[Path], object]:
    """Let the File Meta Information name another transfer syntax than the data set is written in."""

    def change(path: Path) -> None:
        data = path.read_bytes()
        at = data.index(b"\x02\x00\x10\x00UI") + 6
        (length,) = struct.unpack("<H", data[at : at + 2])
        value = uid.encode() + b"\0" * (len(uid) % 2)
        data = data[:at] + struct.pack("<H", len(value)) + value + data[at + 2 + length :]
        group = data.index(b"\x02\x00\x00\x00UL\x04\x00") + 8
        (size,) = struct.unpack("<I", data[group : group + 4])
        path.write_bytes(data[:group] + struct.pack("<I", size + len(value) - length) + data[group + 4 :])

    return change


def as_unknown(tag: bytes) -> Callable[[Path], object]:
    """Write one short element as VR UN, which has a length of four bytes."""

    def change(path: Path) -> None:
        data = path.read_bytes()
        at = data.index(tag, 132)
        (length,) = struct.unpack("<H", data[at + 6 : at + 8])
        path.write_bytes(data[: at + 4] + b"UN\0\0" + struct.pack("<I", length) + data[at + 8 :])

    return change


def without_meta(path: Path) -> None:
    """Keep preamble and mark, and drop the File Meta Information."""
    data = path.read_bytes()
    path.write_bytes(data[:132] + data[data.index(b"\x08\x00\x08\x00CS") :])


def without_preamble(path: Path) -> None:
    """Drop preamble and mark, and keep the File Meta Information."""
    path.write_bytes(path.read_bytes()[132:])


def copy_of(change: Callable[[Path], object], **elements: Any) -> Callable[[Path], object]:
    """A further slice of another series, changed."""
    return lambda folder: change(
        make_slice(folder / "x.dcm", SOPInstanceUID="1.2.9", SeriesInstanceUID="1.2.3.100.9", **elements)
    )


def _extra(row: str, name: str, make: Callable[[Path], object], code: str) -> Variant:
    return Variant(row=row, name=name, make=beside(make), expect=skipped(code))


def _deflate_bomb(folder: Path) -> None:
    make_slice(folder / "bomb.dcm", syntax=DeflatedExplicitVRLittleEndian, stored=bytes(8 << 20))


def _broken_deflate(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-300:-200] = bytes(100)
    path.write_bytes(data)


STRAYS = {
    "text": (b"Dear colleague,\n" * 50, "not_dicom"),
    "ds-store": (b"\0\0\0\x01Bud1" + bytes(200), "not_dicom"),
    "thumbs-db": (bytes.fromhex("d0cf11e0a1b11ae1") + bytes(600), "not_dicom"),
    "empty": (b"", "empty_file"),
    "one-byte": (b"\x08", "not_dicom"),
    "random": (np.random.default_rng(2).bytes(5000), "not_dicom"),
    "zeros": (bytes(4096), "not_dicom"),
    "mark-only": (bytes(128) + b"DICM", "truncated_header"),
    "preamble-only": (bytes(128), "not_dicom"),
    "json": (b'{"0020000D": {"vr": "UI"}}', "not_dicom"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(300), "not_dicom"),
    "pdf": (b"%PDF-1.7\n" + bytes(300), "not_dicom"),
    "zlib": (zlib.compress(bytes(9999)), "not_dicom"),
}
CUTS = {"in-the-mark": 131, "in-the-meta": 160, "before-modality": 330, "before-pixels": -(PIXEL_BYTES + 100)}
CUT_CODES = {"in-the-mark": "not_dicom"}
NO_IMAGE = ("SR", "PR", "RTSTRUCT", "KO", "REG", "SEG", "DOC", "RTPLAN")
AS_UNKNOWN = {
    "rows": b"\x28\x00\x10\x00US",
    "slope": b"\x28\x00\x53\x10DS",
    "position": b"\x20\x00\x32\x00DS",
    "series-uid": b"\x20\x00\x0e\x00UI",
    "modality": b"\x08\x00\x60\x00CS",
}
BIG = {"syntax": ExplicitVRBigEndian, "change": lambda i: {"stored": (sound_hu(i) + 1024).astype(">u2")}}

VARIANTS: list[Variant] = [
    Variant(row="1", name="explicit", make=whole(preamble=False), expect=used()),
    Variant(row="1", name="implicit", make=whole(preamble=False, syntax=ImplicitVRLittleEndian), expect=used()),
    Variant(row="1", name="big-endian", make=whole(preamble=False, **BIG), expect=used()),
    Variant(row="1", name="mark-without-meta", make=all_spoilt(without_meta), expect=used()),
    Variant(row="1", name="meta-without-mark", make=all_spoilt(without_preamble), expect=used()),
    *(_extra("2", name, put("stray.dcm", data), code) for name, (data, code) in STRAYS.items()),
    _extra("2", "ds-store-by-name", put(".DS_Store", b"\0\0\0\x01Bud1" + bytes(200)), "not_dicom"),
    _extra("3", "dicomdir", lambda folder: make_slice(folder / "DICOMDIR", SOPClassUID="1.2.840.10008.1.3.10"), "dicomdir"),
    _extra("3", "other-name", lambda folder: make_slice(folder / "INDEX", SOPClassUID="1.2.840.10008.1.3.10"), "dicomdir"),
    _extra("3", "dirfile", put("DIRFILE", b"[DIRECTORY]\r\nFILES = 3\r\n"), "not_dicom"),
    *bad_slice("4", "half", spoilt(lambda path: cut(path, -PIXEL_BYTES // 2)), "truncated_pixels"),
    *bad_slice("4", "two-bytes", spoilt(lambda path: cut(path, -2)), "truncated_pixels"),
    *bad_slice("4", "one-byte", spoilt(lambda path: cut(path, -1)), "truncated_pixels"),
    *bad_slice("4", "all", spoilt(lambda path: cut(path, -PIXEL_BYTES)), "truncated_pixels"),
    *bad_slice("4", "short-and-true", spoilt(lambda path: (pixel_length(1024)(path), cut(path, -1024))), "truncated_pixels"),
    *(
        _extra("5", name, copy_of(lambda path, size=size: cut(path, size)), CUT_CODES.get(name, "truncated_header"))  # type: ignore[misc]
        for name, size in CUTS.items()
    ),
    Variant(row="6", name="text", make=all_spoilt(append(b"garbage after the last")), expect=used(repairs=("trailing_bytes",))),
    Variant(row="6", name="odd", make=all_spoilt(append(b"\x07")), expect=used(repairs=("trailing_bytes",))),
    Variant(
        row="6",
        name="trailing-padding-element",
        make=all_spoilt(append(b"\xfc\xff\xfc\xffOB\0\0\x04\0\0\0" + bytes(4))),
        expect=used(),
    ),
    Variant(
        row="6",
        name="too-many-pixels",
        make=all_spoilt(lambda path: (pixel_length(PIXEL_BYTES + 64)(path), append(bytes(64))(path))),
        expect=used(repairs=("excess_pixels",)),
    ),
    *bad_slice("7", "4-gb", spoilt(pixel_length(0xFFFFFFF0)), "truncated_pixels"),
    *bad_slice("7", "2-gb", spoilt(pixel_length(0x7FFFFFFE)), "truncated_pixels"),
    *bad_slice("7", "undefined", spoilt(pixel_length(0xFFFFFFFF)), "truncated_pixels"),
    *(
        Variant(row="8", name=f"{side}", make=whole(Rows=side, Columns=side, stored=bytes(2048)), expect=refused("bad_matrix"))
        for side in (65535, 30000, 8193)
    ),
    Variant(row="9", name="rows", make=whole(Rows=0, stored=bytes(2048)), expect=refused("bad_matrix")),
    Variant(row="9", name="columns", make=whole(Columns=0, stored=bytes(2048)), expect=refused("bad_matrix")),
    Variant(row="9", name="both", make=whole(Rows=0, Columns=0, stored=bytes(2048)), expect=refused("bad_matrix")),
    *(
        _extra("10", kind.lower(), lambda folder, kind=kind: make_slice(folder / "x", Modality=kind, PixelData=None), "not_ct")  # type: ignore[misc]
        for kind in NO_IMAGE
    ),
    _extra("10", "ct-without-image", lambda folder: make_slice(folder / "x", PixelData=None, Rows=None), "no_pixels"),
    Variant(
        row="11",
        name="bomb",
        make=beside(_deflate_bomb),
        expect=refused_beside("deflated_bomb"),
        patch={"ich_lstm.reading.files.container.MAX_INFLATED_BYTES": 1 << 20},
    ),
    _extra("12", "2000", copy_of(nested(2000)), "nested_too_deep"),
    _extra("12", "20000", copy_of(nested(20000)), "nested_too_deep"),
    Variant(row="12", name="10-is-read", make=all_spoilt(nested(10)), expect=used()),
    Variant(row="19", name="deflated", make=whole(syntax=DeflatedExplicitVRLittleEndian), expect=used()),
    Variant(row="21", name="implicit", make=whole(syntax=ImplicitVRLittleEndian), expect=used()),
    Variant(row="21", name="big-endian", make=whole(**BIG), expect=used()),
    Variant(
        row="21",
        name="implicit-called-explicit",
        make=all_spoilt(declared_syntax("1.2.840.10008.1.2.1"), syntax=ImplicitVRLittleEndian),
        expect=used(),
    ),
    Variant(row="21", name="explicit-called-implicit", make=all_spoilt(declared_syntax("1.2.840.10008.1.2")), expect=used()),
    *(Variant(row="21", name=f"un-{name}", make=all_spoilt(as_unknown(tag)), expect=used()) for name, tag in AS_UNKNOWN.items()),
    Variant(
        row="66",
        name="unknown-character-set",
        make=whole(SpecificCharacterSet="ISO_IR 999", StudyDescription="\xff\xfe"),
        expect=used(),
    ),
    Variant(
        row="66",
        name="japanese",
        make=whole(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Secret^Taro"),
        expect=used(),
    ),
    Variant(row="66", name="empty", make=whole(SpecificCharacterSet=""), expect=used()),
]
