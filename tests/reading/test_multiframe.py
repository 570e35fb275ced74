"""Enhanced multi-frame CT, row 56 of the catalogue: one file, many slices."""

import zipfile
from pathlib import Path

import numpy as np
import pytest
from dicom_files import SPACING_MM, make_series
from enhanced_files import COUNT, head_hu, item, make_enhanced
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    RLELossless,
)

from ich_lstm.errors import IchLstmError
from ich_lstm.reading import choose_series, index_source, load_scan, read_header, read_hu, read_scan
from ich_lstm.reading.files.sources import FileRef
from ich_lstm.reading.header.header import read_frames


def assert_is_the_head(source: Path) -> None:
    index = index_source(source)
    (study,) = index.studies()
    scan = load_scan(choose_series(study, ledger=index.ledger).series, ledger=index.ledger)
    np.testing.assert_array_equal(scan.hu, np.stack([head_hu(i) for i in range(COUNT)]))
    np.testing.assert_allclose(scan.positions_mm, -20 + 5 * np.arange(COUNT))
    assert scan.spacing_mm == (5.0, SPACING_MM, SPACING_MM)
    assert scan.repairs == ()
    assert {flag.code for flag in scan.flags} == {"few_slices", "incomplete"}  # 40 mm of a head
    assert index.ledger.counts() == {"used": 1, "skipped": 0, "refused": 0}
    frame = index.ledger.to_frame()
    assert list(frame.sop_uid) == ["1.2.3.100.1.1"]


def refusal_of(folder: Path) -> tuple[str, dict[str, int]]:
    index = index_source(folder)
    (study,) = index.studies()

    def read() -> None:
        load_scan(choose_series(study, ledger=index.ledger).series, ledger=index.ledger)

    with pytest.raises(IchLstmError) as refusal:
        read()
    return refusal.value.code, index.ledger.counts()


@pytest.mark.parametrize(
    "syntax",
    [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian],
    ids=["56-explicit", "56-implicit", "56-deflated"],
)
def test_56_frames_are_slices(syntax: str, tmp_path: Path) -> None:
    make_enhanced(tmp_path / "a.dcm", syntax=syntax)
    assert_is_the_head(tmp_path)


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless], ids=["56-rle", "56-jpeg-2000"])
def test_56_compressed_frames(syntax: str, tmp_path: Path) -> None:
    pytest.importorskip("rle")
    pytest.importorskip("openjpeg")
    make_enhanced(tmp_path / "a.dcm", encoder=syntax)
    assert_is_the_head(tmp_path)


def test_56_in_an_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(make_enhanced(tmp_path / "a.dcm"), "a.dcm")
    assert_is_the_head(tmp_path / "a.zip")


def test_56_frames_in_any_order(tmp_path: Path) -> None:
    make_enhanced(tmp_path / "a.dcm", order=[3, 0, 7, 1, 6, 2, 5, 4])
    assert_is_the_head(tmp_path)
    scan = read_scan(tmp_path)
    assert scan.sop_uids[:2] == ("1.2.3.100.1.1#2", "1.2.3.100.1.1#4")


def test_56_rescale_of_each_frame(tmp_path: Path) -> None:
    make_enhanced(tmp_path / "a.dcm", intercepts=[-1024 - i for i in range(COUNT)])
    assert_is_the_head(tmp_path)


def test_56_header_of_a_frame(tmp_path: Path) -> None:
    header = read_header(FileRef(make_enhanced(tmp_path / "a.dcm")))
    assert (header.frame, header.frames, header.sop_uid) == (0, COUNT, "1.2.3.100.1.1")
    frames = read_frames(header)
    assert [frame.frame for frame in frames] == list(range(1, COUNT + 1))
    assert {(frame.kvp, frame.kernel, frame.thickness, frame.acquisition_number) for frame in frames} == {(120, "H31s", 5, 1)}
    assert frames[0].image_type == ("ORIGINAL", "PRIMARY", "AXIAL", "NONE")
    np.testing.assert_array_equal(read_hu(frames[6])[0], head_hu(6))


def test_56_long_functional_groups_are_not_passed_over(tmp_path: Path) -> None:
    make_enhanced(tmp_path / "a.dcm", order=[i % COUNT for i in range(400)])
    assert len(read_frames(read_header(FileRef(tmp_path / "a.dcm")))) == 400


def test_56_one_frame_per_file(tmp_path: Path) -> None:
    for i in range(COUNT):
        make_enhanced(tmp_path / f"{i}.dcm", order=[i], SOPInstanceUID=f"1.2.3.100.1.{i}")
    scan = read_scan(tmp_path)
    np.testing.assert_array_equal(scan.hu, np.stack([head_hu(i) for i in range(COUNT)]))
    assert scan.sop_uids[0] == "1.2.3.100.1.0"


def test_56_beside_classic_slices_of_another_series(tmp_path: Path) -> None:
    make_enhanced(tmp_path / "a.dcm", SeriesInstanceUID="1.2.3.100.7", SeriesDescription="BONE")
    make_series(tmp_path / "b")
    index = index_source(tmp_path)
    (study,) = index.studies()
    scan = load_scan(choose_series(study, ledger=index.ledger).series, ledger=index.ledger)
    assert scan.series_uid == "1.2.3.100.1"
    assert index.ledger.counts() == {"used": 8, "skipped": 1, "refused": 0}


def test_59_contrast_agent_as_a_code(tmp_path: Path) -> None:
    make_enhanced(tmp_path / "a.dcm", ContrastBolusAgentSequence=[item(CodeValue="C-B0322", CodeMeaning="Iohexol")])
    assert refusal_of(tmp_path) == ("contrast", {"used": 0, "skipped": 0, "refused": 1})


def test_55_perfusion_as_frames(tmp_path: Path) -> None:
    make_enhanced(tmp_path / "a.dcm", order=[i % COUNT for i in range(6 * COUNT)])
    assert refusal_of(tmp_path) == ("perfusion", {"used": 0, "skipped": 1, "refused": 0})


@pytest.mark.parametrize("groups", [0, 3], ids=["56-no-groups", "56-few-groups"])
def test_56_frames_without_geometry_are_refused(groups: int, tmp_path: Path) -> None:
    make_series(tmp_path / "b")
    make_enhanced(tmp_path / "a.dcm", groups=groups)
    index = index_source(tmp_path)
    assert index.ledger.counts() == {"used": 8, "skipped": 0, "refused": 1}
    assert "multi_frame" in set(index.ledger.to_frame().code)


def test_56_multi_frame_screenshots_are_skipped(tmp_path: Path) -> None:
    make_series(tmp_path / "b")
    make_enhanced(tmp_path / "a.dcm", groups=0, SOPClassUID=MultiFrameGrayscaleWordSecondaryCaptureImageStorage)
    index = index_source(tmp_path)
    assert index.ledger.counts() == {"used": 8, "skipped": 1, "refused": 0}
    assert "secondary_capture" in set(index.ledger.to_frame().code)


@pytest.mark.parametrize("training", [False, True], ids=["prediction", "training"])
def test_4_truncated_frames(training: bool, tmp_path: Path) -> None:
    path = make_enhanced(tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes()[:-1000])
    if not training:
        assert refusal_of(tmp_path) == ("truncated_pixels", {"used": 0, "skipped": 0, "refused": 1})
        return
    index = index_source(tmp_path)
    scan = load_scan(index.studies()[0].series[0], training=True, ledger=index.ledger)
    assert len(scan) == COUNT - 1
    assert "excluded" in " ".join(flag.detail for flag in scan.flags if flag.code == "incomplete")
    assert index.ledger.counts() == {"used": 1, "skipped": 0, "refused": 0}


def test_8_absurd_number_of_frames_is_refused(tmp_path: Path) -> None:
    make_series(tmp_path / "b")
    make_enhanced(tmp_path / "a.dcm", NumberOfFrames=1 << 30)
    assert index_source(tmp_path).ledger.counts() == {"used": 8, "skipped": 0, "refused": 1}
