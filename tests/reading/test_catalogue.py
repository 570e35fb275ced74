"""Bad inputs, by their number in the catalogue: what the public entrance makes of each.

Every case makes a folder with a sound series of 8 slices, spoils it or adds to it, reads it like a prediction does, and
looks at the scan or the refusal, and at the ledger, whose sum must be the number of files.
"""

import errno
import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from dicom_files import AXIAL, head, make_series, make_slice, slice_hu
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
)

from ich_lstm.errors import IchLstmError
from ich_lstm.reading import choose_series, index_source, load_scan
from ich_lstm.scan import Scan

SAGITTAL = (0, 1, 0, 0, 0, -1)
CORONAL = (1, 0, 0, 0, 0, -1)


class Outcome(NamedTuple):
    scan: Scan | None
    error: IchLstmError | None
    ledger: pd.DataFrame

    def codes(self, action: str) -> dict[str, int]:
        rows = self.ledger[self.ledger.action == action]
        return dict(rows.code.value_counts())


def read_like_prediction(source: Path, *, training: bool = False) -> Outcome:
    index = index_source(source)
    scan, error = None, None
    for study in index.studies():
        try:
            scan = load_scan(choose_series(study, ledger=index.ledger).series, training=training, ledger=index.ledger)
        except IchLstmError as refusal:
            error = refusal
    frame = index.ledger.to_frame()
    assert frame.path.is_unique
    assert sum(index.ledger.counts().values()) == len(frame)
    for text in (str(error), index.ledger.summary(), *(str(note) for note in (scan.repairs + scan.flags if scan else ()))):
        assert "SECRET" not in text
        assert "Secret" not in text
    return Outcome(scan, error, frame)


def files_below(folder: Path) -> int:
    return sum(1 for path in folder.rglob("*") if path.is_symlink() or path.is_file())


def tail(path: Path, cut: int) -> None:
    path.write_bytes(path.read_bytes()[:-cut])


def patch_pixel_length(path: Path, length: int) -> None:
    data = path.read_bytes()
    at = data.index(b"\xe0\x7f\x10\x00OW\0\0") + 8
    path.write_bytes(data[:at] + struct.pack("<I", length) + data[at + 4 :])


def as_sequences(path: Path, depth: int) -> None:
    """Put nested sequences of undefined length before the pixels."""
    data = path.read_bytes()
    at = data.index(b"\x28\x00\x02\x00US")
    begin = b"\x18\x00\x01\x90SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    path.write_bytes(data[:at] + begin * depth + end * depth + data[at:])


# ---------------------------------------------------------------------------------------------- files to leave out
def _add(name: str, data: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


def _copy_of(name: str, change: Callable[[Path], object], **elements: Any) -> Callable[[Path], object]:
    return lambda folder: change(make_slice(folder / name, SOPInstanceUID="1.2.9", **elements))


EXTRA_FILES = {
    "2-text": (_add("note.txt", b"Dear colleague,\n" * 50), "not_dicom"),
    "2-ds_store": (_add(".DS_Store", b"\0\0\0\x01Bud1" + bytes(200)), "not_dicom"),
    "2-empty": (_add("empty.dcm", b""), "empty_file"),
    "2-one-byte": (_add("byte.dcm", b"\x08"), "not_dicom"),
    "2-random": (_add("random.dcm", np.random.default_rng(2).bytes(5000)), "not_dicom"),
    "2-mark-only": (_add("mark.dcm", bytes(128) + b"DICM"), "truncated_header"),
    "3-dicomdir": (lambda folder: make_slice(folder / "DICOMDIR", SOPClassUID="1.2.840.10008.1.3.10"), "dicomdir"),
    "5-before-modality": (_copy_of("a.dcm", lambda path: path.write_bytes(path.read_bytes()[:330])), "truncated_header"),
    "5-before-pixels": (_copy_of("a.dcm", lambda path: tail(path, 32 * 32 * 2 + 100)), "truncated_header"),
    "10-report": (lambda folder: make_slice(folder / "sr.dcm", Modality="SR", PixelData=None), "not_ct"),
    "10-no-pixels": (lambda folder: make_slice(folder / "ko.dcm", PixelData=None, Rows=None), "no_pixels"),
    "12-nested": (_copy_of("deep.dcm", lambda path: as_sequences(path, 2000)), "nested_too_deep"),
    "61-mr": (lambda folder: make_slice(folder / "mr.dcm", Modality="MR"), "not_ct"),
    "61-pt": (lambda folder: make_slice(folder / "pt.dcm", Modality="PT"), "not_ct"),
    "69-loop": (lambda folder: (folder / "loop").symlink_to(folder, target_is_directory=True), "link"),
    "69-dangling": (lambda folder: (folder / "gone").symlink_to(folder / "nowhere"), "link"),
}


@pytest.mark.parametrize("case", EXTRA_FILES)
def test_extra_file_is_skipped_with_its_reason(case: str, tmp_path: Path) -> None:
    add, code = EXTRA_FILES[case]
    make_series(tmp_path)
    add(tmp_path)
    outcome = read_like_prediction(tmp_path)
    assert outcome.scan is not None
    assert len(outcome.scan) == 8
    assert outcome.codes("skipped") == {code: 1}
    assert len(outcome.ledger) == files_below(tmp_path)


EXTRA_SERIES: dict[str, tuple[dict[str, Any], str]] = {
    "31-rgb": ({"PhotometricInterpretation": "RGB", "SamplesPerPixel": 3, "stored": bytes(32 * 32 * 6)}, "color"),
    "31-secondary-capture": ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.7"}, "secondary_capture"),
    "47-sagittal": ({"orientation": SAGITTAL}, "not_axial"),
    "47-coronal": ({"orientation": CORONAL}, "not_axial"),
    "47-oblique": ({"orientation": (1, 0, 0, 0, 0.7, 0.714)}, "not_axial"),
    "49-localizer": ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "localizer"),
    "49-three-slices": ({"count": 3}, "few_slices"),
    "55-perfusion": ({"SeriesDescription": "PERFUSION"}, "derived_map"),
    "57-dose": ({"SeriesDescription": "Dose Report"}, "secondary_capture"),
    "57-summary": ({"SeriesDescription": "Exam Summary"}, "secondary_capture"),
    "57-iodine": ({"SeriesDescription": "Iodine map"}, "derived_map"),
    "57-bone-removed": ({"SeriesDescription": "HEAD Bone removed"}, "derived_map"),
    "57-40kev": ({"SeriesDescription": "MONO 40 keV"}, "derived_map"),
    "58-bone-kernel": ({"ConvolutionKernel": "H70s"}, "bone_kernel"),
    "62-neck": ({"SeriesDescription": "C-SPINE 2MM"}, "not_head"),
    "62-chest": ({"SeriesDescription": "5mm", "BodyPartExamined": "CHEST"}, "not_head"),
}


@pytest.mark.parametrize("case", EXTRA_SERIES)
def test_other_series_of_the_study_is_skipped_with_its_reason(case: str, tmp_path: Path) -> None:
    elements, code = EXTRA_SERIES[case]
    make_series(tmp_path / "a", SeriesDescription="STD")
    own: dict[str, Any] = {"SeriesInstanceUID": "1.2.3.100.2", "SeriesNumber": 1}
    others = make_series(tmp_path / "b", **(own | elements))
    outcome = read_like_prediction(tmp_path)
    assert outcome.scan is not None
    assert outcome.scan.series_uid == "1.2.3.100.1"
    assert outcome.codes("skipped") == {code: len(others)}
    assert outcome.codes("used") == {"": 8}


@pytest.mark.parametrize("name", ["Mixed", "MONO 70 keV"], ids=["57-mixed", "57-70kev"])
def test_usual_energies_are_read_only_if_there_is_nothing_plainer(name: str, tmp_path: Path) -> None:
    make_series(tmp_path / "energy", SeriesInstanceUID="1.2.3.100.2", SeriesNumber=1, SeriesDescription=name)
    alone = read_like_prediction(tmp_path)
    assert alone.scan is not None
    make_series(tmp_path / "plain")
    beside = read_like_prediction(tmp_path)
    assert beside.scan is not None
    assert beside.scan.series_uid == "1.2.3.100.1"
    assert beside.codes("skipped") == {"not_chosen": 8}


# ---------------------------------------------------------------------------------------------- one bad slice
def _spoil(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        change(make_series(folder)[3])

    return make


def _with(**elements: Any) -> Callable[[Path], None]:
    def make(folder: Path) -> None:
        make_series(folder, change=lambda i: elements if i == 3 else {})

    return make


BAD_SLICES: dict[str, tuple[Callable[[Path], None], str]] = {
    "4-truncated": (_spoil(lambda path: tail(path, 500)), "truncated_pixels"),
    "7-length-of-4-gb": (_spoil(lambda path: patch_pixel_length(path, 0xFFFFFFF0)), "truncated_pixels"),
    "7-undefined-length": (_spoil(lambda path: patch_pixel_length(path, 0xFFFFFFFF)), "truncated_pixels"),
    "13-private-syntax": (_with(syntax="1.2.3.4.5.6"), "unknown_transfer_syntax"),
    "14-raw-bytes-as-jpeg-2000": (_with(syntax=JPEG2000Lossless), "decode_failed"),
    "22-no-slope": (_with(RescaleSlope=None), "rescale_missing"),
    "22-no-intercept": (_with(RescaleIntercept=None), "rescale_missing"),
    "23-slope-0": (_with(RescaleSlope="0"), "bad_rescale"),
    "23-slope-nan": (_with(RescaleSlope="nan"), "bad_rescale"),
    "23-slope-text": (_with(RescaleSlope="one"), "bad_rescale"),
    "23-slope-huge": (_with(RescaleSlope="1e9"), "bad_rescale"),
    "32-8-bit": (_with(BitsAllocated=8, BitsStored=8, HighBit=7), "pixel_format"),
    "32-32-bit": (_with(BitsAllocated=32, BitsStored=32, HighBit=31), "pixel_format"),
}


@pytest.mark.parametrize("case", BAD_SLICES)
def test_bad_slice_refuses_its_series_for_prediction(case: str, tmp_path: Path) -> None:
    make, code = BAD_SLICES[case]
    make(tmp_path)
    outcome = read_like_prediction(tmp_path)
    assert outcome.scan is None
    assert outcome.error is not None
    assert outcome.error.code == code
    assert outcome.codes("refused") == {code: 8}


@pytest.mark.parametrize("case", BAD_SLICES)
def test_bad_slice_is_left_out_for_training_and_said(case: str, tmp_path: Path) -> None:
    make, code = BAD_SLICES[case]
    make(tmp_path)
    outcome = read_like_prediction(tmp_path, training=True)
    assert outcome.scan is not None
    assert len(outcome.scan) == 7
    assert {"incomplete", "gap"} <= {flag.code for flag in outcome.scan.flags}
    assert outcome.codes("refused") == {code: 1}
    assert outcome.codes("used") == {"": 7}


def test_18_missing_codec_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pydicom.pixels.decoders.base.Decoder.is_available", property(lambda decoder: False))
    make_series(tmp_path, syntax=JPEG2000Lossless)
    outcome = read_like_prediction(tmp_path)
    assert outcome.error is not None
    assert outcome.error.code == "codec_missing"
    assert "codecs" in outcome.error.todo


# ---------------------------------------------------------------------------------------------- bad series
def _different(i: int, **elements: Any) -> dict[str, Any]:
    return elements if i >= 4 else {}


BAD_SERIES: dict[str, tuple[dict[str, Any], str]] = {
    "8-rows-65535": ({"Rows": 65535, "Columns": 65535, "stored": bytes(2048)}, "bad_matrix"),
    "9-rows-0": ({"Rows": 0, "stored": bytes(2048)}, "bad_matrix"),
    "32-palette": ({"PhotometricInterpretation": "PALETTE COLOR"}, "color"),
    "38-all-positions-equal": ({"step": 0.0}, "equal_positions"),
    "44-position-of-two-values": ({"ImagePositionPatient": [1, 2]}, "bad_position"),
    "44-position-nan": ({"ImagePositionPatient": ["1", "2", "nan"]}, "bad_position"),
    "44-position-text": ({"ImagePositionPatient": ["1", "2", "head"]}, "bad_position"),
    "36-no-position-at-all": ({"ImagePositionPatient": None, "InstanceNumber": None}, "no_position"),
    "51-mixed-matrix": ({"change": lambda i: _different(i, hu=np.zeros((16, 16)))}, "mixed_matrix"),
    "52-mixed-spacing": ({"change": lambda i: _different(i, PixelSpacing=[5, 5])}, "mixed_spacing"),
    "53-empty-spacing": ({"PixelSpacing": ""}, "no_spacing"),
    "53-no-spacing": ({"PixelSpacing": None}, "no_spacing"),
    "orientation-of-zeros": ({"ImageOrientationPatient": [0, 0, 0, 0, 0, 0]}, "bad_orientation"),
    "59-agent": ({"ContrastBolusAgent": "OMNIPAQUE 300"}, "contrast"),
    "59-description": ({"SeriesDescription": "HEAD POST CONTRAST"}, "contrast"),
    "80-three-slices": ({"count": 3}, "few_slices"),
}


@pytest.mark.parametrize("case", BAD_SERIES)
def test_bad_series_gets_no_scan(case: str, tmp_path: Path) -> None:
    elements, code = BAD_SERIES[case]
    paths = make_series(tmp_path, **elements)
    outcome = read_like_prediction(tmp_path)
    assert outcome.scan is None
    assert outcome.error is not None
    assert outcome.error.code == code
    assert set(outcome.ledger.code) == {code}
    assert len(outcome.ledger) == len(paths)


# ---------------------------------------------------------------------------------------------- repairs
def _stored_12bit_rsna(hu: np.ndarray) -> np.ndarray:
    return ((hu.astype(int)) % 4096).astype(np.uint16)


def _hu(i: int) -> np.ndarray:
    return np.rint(slice_hu((-96, -96, -20 + 5 * i)))


REPAIRS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "1-no-preamble": ({"preamble": False}, set()),
    "1-no-preamble-implicit": ({"preamble": False, "syntax": ImplicitVRLittleEndian}, set()),
    "19-deflated": ({"syntax": DeflatedExplicitVRLittleEndian}, set()),
    "21-implicit": ({"syntax": ImplicitVRLittleEndian}, set()),
    "22-rescale-missing-but-hu": (
        {"PixelRepresentation": 1, "intercept": 0, "RescaleSlope": None, "RescaleIntercept": None},
        {"rescale_missing"},
    ),
    "24-fractional-slope": ({"slope": 0.5, "intercept": -1024.0}, set()),
    "25-rescale-per-slice": ({"change": lambda i: {"intercept": -1024.0 - i, "RescaleIntercept": -1024 - i}}, set()),
    "26-signed-as-unsigned": (
        {"change": lambda i: {"stored": _hu(i).astype(np.int16), "RescaleIntercept": 0}},
        {"unsigned_flag"},
    ),
    "27-rsna": (
        {"change": lambda i: {"stored": _stored_12bit_rsna(_hu(i)), "RescaleIntercept": 0, "BitsStored": 12, "HighBit": 11}},
        {"wrap_12bit"},
    ),
    "28-12-bit-signed": (
        {
            "change": lambda i: {
                "stored": _stored_12bit_rsna(_hu(i)),
                "RescaleIntercept": 0,
                "BitsStored": 12,
                "HighBit": 11,
                "PixelRepresentation": 1,
            }
        },
        {"sign_12bit"},
    ),
    "30-monochrome1": ({"PhotometricInterpretation": "MONOCHROME1"}, set()),
    "36-slice-location": (
        {"ImagePositionPatient": None, "change": lambda i: {"SliceLocation": -20 + 5 * i, "hu": _hu(i)}},
        {"no_position"},
    ),
    "36-instance-number": ({"ImagePositionPatient": None, "change": lambda i: {"hu": _hu(i)}}, {"no_position"}),
    "37-no-orientation": ({"ImageOrientationPatient": None}, {"no_orientation"}),
    "42-instance-numbers-reversed": ({"change": lambda i: {"InstanceNumber": 99 - i}}, set()),
    "43-no-instance-number": ({"InstanceNumber": None}, set()),
    "66-raw-bytes-in-a-name": ({"SpecificCharacterSet": "ISO_IR 999", "StudyDescription": "\xff\xfe"}, set()),
}


@pytest.mark.parametrize("case", REPAIRS)
def test_repaired_series_has_the_same_hu(case: str, tmp_path: Path) -> None:
    elements, codes = REPAIRS[case]
    make_series(tmp_path, **elements)
    outcome = read_like_prediction(tmp_path)
    assert outcome.error is None
    assert outcome.scan is not None
    np.testing.assert_array_equal(outcome.scan.hu, np.stack([_hu(i) for i in range(8)]))
    assert {note.code for note in outcome.scan.repairs} == codes
    assert outcome.codes("used") == {"": 8}


def test_21_big_endian(tmp_path: Path) -> None:
    make_series(tmp_path, syntax=ExplicitVRBigEndian, change=lambda i: {"stored": (_hu(i) + 1024).astype(">u2")})
    outcome = read_like_prediction(tmp_path)
    assert outcome.scan is not None
    np.testing.assert_array_equal(outcome.scan.hu, np.stack([_hu(i) for i in range(8)]))


def test_6_trailing_garbage(tmp_path: Path) -> None:
    for path in make_series(tmp_path):
        path.write_bytes(path.read_bytes() + b"garbage after the last element")
    outcome = read_like_prediction(tmp_path)
    assert outcome.scan is not None
    assert [note.code for note in outcome.scan.repairs] == ["trailing_bytes"]


@pytest.mark.parametrize(
    "padding", [{}, {"PixelPaddingValue": -2000}, {"PixelPaddingValue": -1500}], ids=["29-circle", "29-value", "29-other"]
)
def test_29_padding_becomes_air(padding: dict[str, Any], tmp_path: Path) -> None:
    value = padding.get("PixelPaddingValue", -2000)

    def with_circle(i: int) -> dict[str, Any]:
        hu = _hu(i)
        hu[:3, :3] = value
        return {"hu": hu}

    make_series(tmp_path, PixelRepresentation=1, intercept=0.0, change=with_circle, **padding)
    outcome = read_like_prediction(tmp_path)
    assert outcome.scan is not None
    assert (outcome.scan.hu[:, :3, :3] == -1024).all()
    assert len(outcome.scan.repairs) == 1
    np.testing.assert_array_equal(outcome.scan.hu[:, 3:, 3:], np.stack([_hu(i) for i in range(8)])[:, 3:, 3:])


@pytest.mark.parametrize("value", [40000, 65535])
def test_34_overflow_is_clipped(value: int, tmp_path: Path) -> None:
    make_series(tmp_path, stored=np.full((32, 32), value, np.uint16))
    outcome = read_like_prediction(tmp_path)
    assert outcome.scan is not None
    assert (outcome.scan.hu == 3071).all()


# ---------------------------------------------------------------------------------------------- flags
FLAGS: dict[str, tuple[dict[str, Any], set[str]]] = {
    "35-constant-slice": ({"change": lambda i: {"hu": np.zeros((32, 32))} if i == 2 else {}}, {"constant_slice"}),
    "36-order-assumed": ({"ImagePositionPatient": None}, {"order_assumed"}),
    "37-no-orientation": ({"ImageOrientationPatient": None}, {"no_orientation"}),
    "39-gap": ({"places": [0, 5, 10, 15, 25, 30, 35, 40]}, {"gap", "incomplete", "uneven_spacing"}),
    "45-tilt": ({"orientation": (1, 0, 0, 0, 0.9272, -0.3746)}, {"tilt"}),
    "46-two-steps": ({"places": [0, 5, 10, 15, 20, 30, 40, 50]}, {"uneven_spacing"}),
    "60b-thick": ({"step": 10.0}, {"thick_slices"}),
    "63-age": ({"PatientAge": "008Y"}, {"child"}),
    "63-days": ({"PatientAge": "020D"}, {"child"}),
    "63-kvp": ({"KVP": "40"}, {"kvp"}),
    "20-lossy": ({"LossyImageCompression": "01"}, {"lossy"}),
    "65-burned-in": ({"BurnedInAnnotation": "YES"}, {"burned_in"}),
    "none": ({"PatientAge": "064Y", "KVP": "120", "LossyImageCompression": "00", "ConvolutionKernel": "H31s"}, set()),
}


@pytest.mark.parametrize("case", FLAGS)
def test_flagged_series_is_read(case: str, tmp_path: Path) -> None:
    elements, codes = FLAGS[case]
    make_series(tmp_path, **elements)
    outcome = read_like_prediction(tmp_path)
    assert outcome.scan is not None
    assert {flag.code for flag in outcome.scan.flags} == codes | {"few_slices"}


# ---------------------------------------------------------------------------------------------- slices that repeat
def test_40_of_two_acquisitions_the_later_is_kept(tmp_path: Path) -> None:
    make_series(tmp_path, AcquisitionNumber=1)
    make_series(
        tmp_path / "again", 2, AcquisitionNumber=2, change=lambda i: {"SOPInstanceUID": f"1.2.8.{i}", "hu": np.full((32, 32), 7)}
    )
    outcome = read_like_prediction(tmp_path)
    assert outcome.scan is not None
    assert len(outcome.scan) == 8
    assert (outcome.scan.hu[:2] == 7).all()
    assert outcome.codes("skipped") == {"repeated_position": 2}
    assert "repeated_position" in {note.code for note in outcome.scan.repairs}


def test_40_two_kernels_under_one_uid_are_parted(tmp_path: Path) -> None:
    make_series(
        tmp_path / "bone",
        ConvolutionKernel="BONEPLUS",
        hu=np.full((32, 32), 500),
        change=lambda i: {"SOPInstanceUID": f"1.9.{i}"},
    )
    make_series(tmp_path / "soft", ConvolutionKernel="STANDARD")
    outcome = read_like_prediction(tmp_path)
    assert outcome.scan is not None
    np.testing.assert_array_equal(outcome.scan.hu, np.stack([_hu(i) for i in range(8)]))
    assert outcome.codes("skipped") == {"bone_kernel": 8}


def test_41_the_same_file_twice(tmp_path: Path) -> None:
    paths = make_series(tmp_path)
    (tmp_path / "copy.dcm").write_bytes(paths[2].read_bytes())
    outcome = read_like_prediction(tmp_path)
    assert outcome.scan is not None
    assert len(outcome.scan) == 8
    assert outcome.codes("skipped") == {"duplicate_file": 1}


def test_41_one_uid_for_different_slices_is_refused(tmp_path: Path) -> None:
    make_series(tmp_path, SOPInstanceUID="1.2.3")
    outcome = read_like_prediction(tmp_path)
    assert outcome.error is not None
    assert outcome.error.code == "conflicting_uids"


def test_48_a_scout_inside_the_series_is_skipped(tmp_path: Path) -> None:
    make_series(tmp_path)
    make_slice(
        tmp_path / "scout.dcm",
        ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"],
        ImageOrientationPatient=CORONAL,
        ImagePositionPatient=(0, 0, 9),
    )
    outcome = read_like_prediction(tmp_path)
    assert outcome.scan is not None
    assert len(outcome.scan) == 8
    assert outcome.codes("skipped") == {"localizer": 1}


def test_48_an_unmarked_slice_of_another_orientation_is_skipped_and_said(tmp_path: Path) -> None:
    make_series(tmp_path)
    make_slice(tmp_path / "other.dcm", ImageOrientationPatient=CORONAL, ImagePositionPatient=(0, 0, 9))
    outcome = read_like_prediction(tmp_path)
    assert outcome.scan is not None
    assert "incomplete" in {flag.code for flag in outcome.scan.flags}
    assert outcome.codes("skipped") == {"other_orientation": 1}


def test_55_repeated_positions_are_a_time_series(tmp_path: Path) -> None:
    for time in range(6):
        make_series(tmp_path / str(time), change=lambda i, time=time: {"SOPInstanceUID": f"1.5.{time}.{i}"})  # type: ignore[misc]
    outcome = read_like_prediction(tmp_path)
    assert outcome.error is not None
    assert outcome.error.code == "perfusion"
    assert outcome.codes("skipped") == {"perfusion": 48}


# ---------------------------------------------------------------------------------------------- geometry
def test_50_two_series_in_one_folder_are_parted(tmp_path: Path) -> None:
    make_series(tmp_path)
    for path in make_series(tmp_path / "other", SeriesInstanceUID="1.2.3.100.2", SliceThickness=5, SeriesNumber=3):
        path.rename(tmp_path / f"b{path.name}")
    (tmp_path / "other").rmdir()
    outcome = read_like_prediction(tmp_path)
    assert outcome.scan is not None
    assert len(outcome.scan) == 8
    assert outcome.codes("skipped") == {"not_chosen": 8}


def test_47_a_tilted_axial_reformat_marked_derived_is_read(tmp_path: Path) -> None:
    make_series(tmp_path, orientation=(1, 0, 0, 0, 0.9397, -0.342), ImageType=["DERIVED", "SECONDARY", "REFORMATTED"])
    assert read_like_prediction(tmp_path).scan is not None


def test_53_non_square_pixels_are_resampled(tmp_path: Path) -> None:
    hu = slice_hu((-96, -96, 0))
    make_series(tmp_path, hu=hu[::2], PixelSpacing=[6.0, 3.0])
    scan = read_like_prediction(tmp_path).scan
    assert scan is not None
    assert scan.hu.shape == (8, 32, 32)
    assert scan.spacing_mm[1:] == (3.0, 3.0)
    assert [note.code for note in scan.repairs] == ["non_square_pixels"]


@pytest.mark.parametrize("size", [16, 48, 64])
def test_54_other_matrix_sizes_are_read(size: int, tmp_path: Path) -> None:
    make_series(tmp_path, hu=np.zeros((size, size)))
    scan = read_like_prediction(tmp_path).scan
    assert scan is not None
    assert scan.hu.shape == (8, size, size)


@pytest.mark.parametrize(
    ("orientation", "start"),
    [
        ((-1, 0, 0, 0, 1, 0), (90, -96, -20)),
        ((1, 0, 0, 0, -1, 0), (-96, 90, -20)),
        ((-1, 0, 0, 0, -1, 0), (90, 90, -20)),
        ((0, 1, 0, 1, 0, 0), (-96, -96, -20)),
        ((0, 1, 0, -1, 0, 0), (90, -96, -20)),
        ((0, -1, 0, 1, 0, 0), (-96, 90, -20)),
        ((0, -1, 0, -1, 0, 0), (90, 90, -20)),
    ],
    ids=["64-mirrored", "64-upside-down", "64-prone", "64-exchanged", "64-turned-right", "64-turned-left", "64-turned-mirrored"],
)
def test_64_every_orientation_gives_the_same_scan(
    orientation: tuple[float, ...], start: tuple[float, ...], tmp_path: Path
) -> None:
    z_step = np.cross(orientation[:3], orientation[3:])[2]
    make_series(tmp_path, orientation=orientation, start=start, step=5 * z_step)
    scan = read_like_prediction(tmp_path).scan
    assert scan is not None
    np.testing.assert_array_equal(scan.hu, np.stack([_hu(i) for i in range(8)]))
    np.testing.assert_allclose(scan.positions_mm, -20 + 5 * np.arange(8))
    assert "reoriented" in {note.code for note in scan.repairs}


def test_the_made_head_is_not_symmetric() -> None:
    image = slice_hu((-96, -96, 0), AXIAL, anatomy=head)
    assert all((image != other).any() for other in (image[::-1], image[:, ::-1], image.T))


# ---------------------------------------------------------------------------------------------- archives and disks
def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)
    return path


@pytest.mark.parametrize("name", ["../evil.dcm", "/evil.dcm", "a/../../evil.dcm", "C:\\evil.dcm", "..\\evil.dcm"])
def test_67_hostile_archive_in_a_folder_is_refused_and_the_rest_read(name: str, tmp_path: Path) -> None:
    paths = make_series(tmp_path)
    zipped(tmp_path / "evil.zip", {"fine.dcm": paths[0].read_bytes(), name: b"x"})
    outcome = read_like_prediction(tmp_path)
    assert outcome.scan is not None
    assert len(outcome.scan) == 8
    assert outcome.codes("refused") == {"archive_traversal": 1}
    assert not (tmp_path.parent / "evil.dcm").exists()


def test_67_hostile_archive_alone_is_refused(tmp_path: Path) -> None:
    with pytest.raises(IchLstmError) as refusal:
        index_source(zipped(tmp_path / "evil.zip", {"../evil.dcm": b"x"}))
    assert refusal.value.code == "archive_traversal"


def test_68_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ich_lstm.reading.sources.SMALL_ARCHIVE_BYTES", 1 << 20)
    with pytest.raises(IchLstmError) as refusal:
        index_source(zipped(tmp_path / "bomb.zip", {"zeros.dcm": bytes(8 << 20)}))
    assert refusal.value.code == "archive_bomb"


def test_70_vanished_file_refuses_its_series(tmp_path: Path) -> None:
    paths = make_series(tmp_path)
    index = index_source(tmp_path)
    paths[5].unlink()
    with pytest.raises(IchLstmError) as refusal:
        load_scan(index.studies()[0].series[0], ledger=index.ledger)
    assert refusal.value.code == "unreadable"
    assert index.ledger.counts() == {"used": 0, "skipped": 0, "refused": 8}


def test_70_disk_error_in_the_header_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_series(tmp_path)

    def fail(*args: object, **options: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("ich_lstm.reading.header.read_dataset", fail)
    with pytest.raises(IchLstmError) as refusal:
        index_source(tmp_path)
    assert refusal.value.code == "no_ct"
    assert "8 unreadable" in str(refusal.value)


def test_11_deflated_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_series(tmp_path)
    monkeypatch.setattr("ich_lstm.reading.container.MAX_INFLATED_BYTES", 1 << 20)
    make_slice(tmp_path / "bomb.dcm", syntax=DeflatedExplicitVRLittleEndian, stored=bytes(8 << 20))
    assert read_like_prediction(tmp_path).codes("refused") == {"deflated_bomb": 1}


@pytest.mark.parametrize("seed", range(8))
def test_mutated_files_end_in_a_scan_or_a_reason(seed: int, tmp_path: Path) -> None:
    """Bit flips, cuts and length lies: nothing but the library's own errors comes out."""
    rng = np.random.default_rng(seed)
    syntax = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian, JPEG2000Lossless)[seed % 4]
    sound = [path.read_bytes() for path in make_series(tmp_path, syntax=syntax)]
    for _ in range(20):
        for i, data in enumerate(sound):
            mutated = bytearray(data)
            at = int(rng.integers(128, min(1200, len(data) - 4)))
            match rng.integers(4):
                case 0:
                    mutated[at] ^= 1 << int(rng.integers(8))
                case 1:
                    del mutated[at:]
                case 2:
                    del mutated[at : at + int(rng.integers(1, 40))]
                case _:
                    mutated[at : at + 4] = rng.bytes(4)
            if rng.random() < 0.3:
                (tmp_path / f"{i}.dcm").write_bytes(mutated)
        try:
            read_like_prediction(tmp_path, training=True)
        except IchLstmError as error:
            assert error.code == "no_ct"  # noqa: PT017


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_70_forbidden_file_is_refused(tmp_path: Path) -> None:
    make_series(tmp_path)[3].chmod(0)
    assert read_like_prediction(tmp_path).codes("refused") == {"unreadable": 1}
