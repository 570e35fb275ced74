"""A prediction as DICOM: what the files say, whom they name, and whether independent tools accept them."""

import re
import shutil
import subprocess
import sys
import zipfile
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_files import make_series
from enhanced_files import make_enhanced
from matplotlib.text import Text

from ich_lstm.archive.exports import dicom_out
from ich_lstm.archive.exports.dicom_codes import FINDINGS
from ich_lstm.archive.exports.dicom_out import NO_DATE, write_dicom
from ich_lstm.archive.exports.dicom_picture import draw_summary, shown_slices
from ich_lstm.errors import ConfigError, FileError, SeriesError
from ich_lstm.explanation import Explanation
from ich_lstm.labels import LABELS, PRIVATE_SCHEME
from ich_lstm.prediction import OperatingPoint, ScanPrediction
from ich_lstm.reading import Series, choose_series, index_source, load_scan
from ich_lstm.scan import Note, Scan

highdicom = pytest.importorskip("highdicom", reason="the extra dicom-out is not installed")

PLACES = {
    "PatientName": "CANARY^Jürgen",
    "PatientID": "CANARY-ID",
    "PatientBirthDate": "19500102",
    "PatientSex": "F",
    "AccessionNumber": "CANARY-ACC",
    "StudyID": "CANARY-STUDY",
    "StudyDate": "20240203",
    "StudyTime": "101112",
    "ReferringPhysicianName": "CANARY^Referrer",
    "StudyDescription": "CANARY study",
    "SpecificCharacterSet": "ISO_IR 100",
}
"""Of the patient and study modules: these the results repeat."""

CANARIES = {
    "InstitutionName": "KESTREL hospital",
    "InstitutionAddress": "KESTREL road",
    "StationName": "KESTREL-1",
    "Manufacturer": "KESTREL works",
    "OperatorsName": "KESTREL^Operator",
    "PerformingPhysicianName": "KESTREL^Performer",
    "NameOfPhysiciansReadingStudy": "KESTREL^Reader",
    "PatientComments": "KESTREL comment",
    "AdditionalPatientHistory": "KESTREL history",
    "PatientAddress": "KESTREL street",
    "OtherPatientNames": "KESTREL^Other",
    "ImageComments": "KESTREL image",
    "ProtocolName": "KESTREL protocol",
    "DeviceSerialNumber": "KESTREL-9",
    "ConvolutionKernel": "KESTREL-BONE",
    "SeriesDescription": "KESTREL HEAD",
}
"""Of other modules, or worth nothing to an archive: these they do not."""

Case = tuple[ScanPrediction, Scan, Series]


def read_case(source: Path, scan_id: str = "7f3a19c04be2d851", **changes: Any) -> Case:
    """What is read below a path, with a prediction of it: two types are called, of one nothing is known."""
    study = index_source(source).studies()[0]
    series = choose_series(study, allow_other_part=True).series
    scan = load_scan(series, allow_other_part=True)
    count = len(scan)
    peaks = np.array([0.03, 0.1 + 0.2, 0.93, 1 / 3, 0.004, 0.97])
    slices = np.exp(-((np.arange(count)[:, None] - count * np.array([0.3, 0.4, 0.5, 0.6, 0.7, 0.5])) ** 2)) * peaks
    fields: dict[str, Any] = {
        "slice_probabilities": slices,
        "scan_probabilities": peaks,
        "scan_id": scan_id,
        "slice_ids": tuple(f"{i:016x}" for i in range(count)),
        "positions_mm": scan.positions_mm,
        "spacing_mm": scan.spacing_mm,
        "hu": scan.hu,
        "flags": scan.flags,
        "model_name": "demo",
        "model_hash": "c0ffee12ab34cd56" * 4,
        "operating_point": OperatingPoint(
            "sensitivity 0.95", np.full(6, 0.4), np.array([0.5, 0.5, 0.5, 0.5, np.nan, 0.5]), "validation"
        ),
    }
    return ScanPrediction(**(fields | changes)), scan, series


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    folder = tmp_path_factory.mktemp("source")
    paths = make_series(folder, 8, **PLACES, **CANARIES)
    for path in paths:
        data_set = pydicom.dcmread(path)
        block = data_set.private_block(0x0011, "KESTREL PRIVATE", create=True)
        block.add_new(0x01, "LO", "KESTREL private")
        data_set.save_as(path)
    return read_case(folder)


@pytest.fixture(scope="module")
def written(case: Case, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_dicom(*case, tmp_path_factory.mktemp("written"))


@pytest.fixture(scope="module")
def report(written: list[Path]) -> Any:
    return highdicom.sr.srread(written[0])


@pytest.fixture(scope="module")
def groups(report: Any) -> list[Any]:
    return report.content.get_image_measurement_groups()


@pytest.fixture
def quick_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that do not look at it: drawing takes longer than all the rest."""
    monkeypatch.setattr(dicom_out, "draw_summary", lambda prediction, with_slices: np.zeros((8, 8, 3), np.uint8))


def child(item: Any, meaning: str) -> list[Any]:
    """Content items below one, by the meaning of their name."""
    return [below for below in item.ContentSequence if below.ConceptNameCodeSequence[0].CodeMeaning == meaning]


class TestReport:
    def test_one_group_per_label_in_their_order(self, groups: list[Any]) -> None:
        assert [group.tracking_identifier for group in groups] == list(LABELS)
        found = [(group.finding_type.value, group.finding_type.scheme_designator) for group in groups]
        assert found == [(FINDINGS[label].value, FINDINGS[label].scheme) for label in LABELS]

    def test_probabilities_to_the_last_bit(self, groups: list[Any], case: Case) -> None:
        values = [group.get_measurements()[0].value for group in groups]
        assert values == case[0].scan_probabilities.tolist()

    def test_calls_are_those_of_the_operating_point(self, groups: list[Any]) -> None:
        states = [group.get_qualitative_evaluations()[0].value.meaning for group in groups]
        assert states == ["Absent", "Absent", "Present", "Absent", "Undetermined", "Present"]

    @pytest.mark.usefixtures("quick_picture")
    def test_without_operating_point_nothing_is_called(self, case: Case, tmp_path: Path) -> None:
        prediction, scan, series = case
        path, _ = write_dicom(replace(prediction, operating_point=None), scan, series, tmp_path)
        groups = highdicom.sr.srread(path).content.get_image_measurement_groups()
        assert {group.get_qualitative_evaluations()[0].value.meaning for group in groups} == {"Undetermined"}
        assert not any(group.source_images for group in groups)

    def test_present_labels_refer_to_the_slices_where_they_are_called(self, groups: list[Any], case: Case) -> None:
        prediction, scan, _ = case
        for k, group in enumerate(groups):
            called = (prediction.slice_probabilities[:, k] >= 0.4).tolist() if LABELS[k] in ("intraventricular", "any") else []
            expected = [uid for uid, call in zip(scan.sop_uids, called, strict=False) if call]
            assert [image.referenced_sop_instance_uid for image in group.source_images] == expected
        assert any(group.source_images for group in groups)

    def test_every_slice_is_evidence(self, report: Any, case: Case) -> None:
        (study,) = report.CurrentRequestedProcedureEvidenceSequence
        (series,) = study.ReferencedSeriesSequence
        uids = [item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence]
        assert uids == list(case[1].file_sop_uids)
        assert (study.StudyInstanceUID, series.SeriesInstanceUID) == (case[1].study_uid, case[1].series_uid)
        (library,) = child(report, "Image Library")
        assert len(child(library, "Image Library Group")[0].ContentSequence) == len(uids)

    def test_the_algorithm_and_no_person_observes(self, report: Any, groups: list[Any], case: Case) -> None:
        texts = [item.TextValue for item in child(groups[0][0], "Algorithm Parameters")]
        assert f"model hash: {case[0].model_hash}" in texts
        (observer,) = report.content.get_observer_contexts()
        assert observer.observer_type.meaning == "Device"
        assert (report.CompletionFlag, report.VerificationFlag) == ("COMPLETE", "UNVERIFIED")

    def test_disclaimer_and_flags(self, report: Any, case: Case) -> None:
        comments = [item.TextValue for item in child(child(report, "Qualitative Evaluations")[0], "Comment")]
        assert comments[0] == "Research use only, not for diagnosis."
        assert {f"Quality flag: {flag.code}" for flag in case[0].flags} <= set(comments)
        assert "not for diagnosis" in report.SeriesDescription

    def test_private_codes_name_their_scheme(self, report: Any) -> None:
        (scheme,) = report.CodingSchemeIdentificationSequence
        assert scheme.CodingSchemeDesignator == PRIVATE_SCHEME


class TestPicture:
    def test_what_it_is(self, written: list[Path], case: Case) -> None:
        picture = pydicom.dcmread(written[1])
        assert picture.pixel_array.shape == (1024, 1024, 3)
        assert picture.BurnedInAnnotation == "NO"
        assert {item.ReferencedSOPInstanceUID for item in picture.SourceImageSequence} <= set(case[1].sop_uids)
        np.testing.assert_array_equal(picture.pixel_array, draw_summary(case[0], with_slices=True))

    def test_slices_shown_are_those_of_called_labels(self, case: Case) -> None:
        assert shown_slices(case[0]) == {4: ("any", "intraventricular")}
        unlikely = replace(case[0], operating_point=None, scan_probabilities=np.full(6, 0.1))
        assert shown_slices(unlikely) == {4: ("any",)}

    def test_at_most_four_slices(self, case: Case) -> None:
        prediction = case[0]
        slices = np.eye(8)[:, :6].copy()
        everywhere = replace(
            prediction,
            slice_probabilities=slices,
            scan_probabilities=np.array([0.6, 0.9, 0.8, 0.7, 0.95, 1.0]),
            operating_point=OperatingPoint("half", np.full(6, 0.5), np.full(6, 0.5), "validation"),
        )
        assert list(shown_slices(everywhere)) == [1, 2, 4, 5]

    def test_no_words_reach_other_words_or_the_edge(self, case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
        drawn: dict[Text, Any] = {}
        draw = Text.draw
        monkeypatch.setattr(
            Text, "draw", lambda text, *args: (drawn.update({text: text.get_window_extent()}), draw(text, *args))[1]
        )
        prediction = replace(
            case[0],
            scan_probabilities=np.full(6, 0.999),
            operating_point=OperatingPoint("sensitivity=0.95", np.full(6, 0.5), np.full(6, 0.5), "validation"),
        )
        for highest in ([1, 1, 1, 1, 1, 1], [1, 1, 1, 2, 2, 2], [0, 1, 2, 3, 3, 3]):
            slices = np.full((8, 6), 0.1)
            slices[highest, range(6)] = 0.9
            drawn.clear()
            draw_summary(replace(prediction, slice_probabilities=slices), with_slices=True)
            shown = [(text.get_text(), box) for text, box in drawn.items() if text.get_visible() and text.get_text().strip()]
            assert {"EDH", "Any"} <= set(re.findall(r"\w+", " ".join(text for text, _ in shown)))
            assert all(box.x0 >= 0 and box.y0 >= 0 and box.x1 <= 1024 and box.y1 <= 1024 for _, box in shown)
            assert [(one, other) for (one, a), (other, b) in combinations(shown, 2) if a.overlaps(b)] == []

    def test_heat_colours_its_place(self, case: Case) -> None:
        prediction = case[0]
        maps = np.zeros((8, 6, 4, 4), np.float32)
        maps[:, LABELS.index("intraventricular"), 1, 1] = 1
        size = prediction.hu.shape[1]
        heat = Explanation(maps=maps, box=(0, 0, size, size), contributions=np.zeros((8, 6)), method="made up")
        plain, hot = (draw_summary(replace(prediction, explanation=e), with_slices=True) for e in (None, heat))
        changed = np.argwhere((plain != hot).any(axis=2))
        shown = changed[(changed[:, 0] > 430) & (changed[:, 0] < 920)]  # the picture of the slice, above its caption
        left, top, side = 512, 1024 * (1 - 0.565), 0.46 * 1024
        assert shown.mean(axis=0) == pytest.approx([top + 0.375 * side, left + 0.375 * side], abs=20)

    def test_burned_in_text_keeps_every_slice_out(self, case: Case, tmp_path: Path) -> None:
        prediction, scan, series = case
        bright = replace(prediction, flags=(Note("burned_in", "annotations burned into the pixels"),), hu=prediction.hu)
        _, path = write_dicom(bright, scan, series, tmp_path)
        picture = pydicom.dcmread(path)
        other = replace(bright, hu=np.full_like(prediction.hu, 40))
        np.testing.assert_array_equal(picture.pixel_array, draw_summary(other, with_slices=False))
        assert "SourceImageSequence" not in picture


class TestIdentity:
    def test_patient_and_study_in_their_places(self, written: list[Path], case: Case) -> None:
        for path in written:
            data_set = pydicom.dcmread(path)
            for keyword, value in PLACES.items():
                if keyword != "SpecificCharacterSet":
                    assert str(data_set[keyword].value) == value
            assert data_set.StudyInstanceUID == case[1].study_uid
            assert data_set.SeriesInstanceUID != case[1].series_uid
            assert (data_set.ContentDate, data_set.ContentTime) == ("20240203", "101112")

    def test_nothing_else_of_the_source(self, written: list[Path]) -> None:
        for path in written:
            assert b"KESTREL" not in path.read_bytes()
            data_set = pydicom.dcmread(path)
            assert not [element for element in data_set.iterall() if element.tag.is_private]
            canaries = [element.keyword for element in data_set.iterall() if "CANARY" in str(element.value)]
            assert set(canaries) <= set(PLACES)

    def test_file_names_tell_nothing(self, written: list[Path]) -> None:
        assert [path.name for path in written] == ["7f3a19c04be2d851-sr.dcm", "7f3a19c04be2d851-sc.dcm"]

    @pytest.mark.parametrize(
        ("encoding", "charset", "name"),
        [
            ("iso8859-1", "ISO_IR 100", "Müller^Jörg"),
            ("iso8859-5", "ISO_IR 144", "Люкceмбypг"),
            ("utf-8", "ISO_IR 192", "Wang^XiaoDong=王^小东"),
        ],
    )
    @pytest.mark.usefixtures("quick_picture")
    def test_names_of_any_script(self, encoding: str, charset: str, name: str, tmp_path: Path) -> None:
        make_series(tmp_path / "in", 8, SpecificCharacterSet=charset, PatientName=name)
        assert name.encode(encoding) in (tmp_path / "in" / "0.dcm").read_bytes()
        for path in write_dicom(*read_case(tmp_path / "in"), tmp_path / "out"):
            assert pydicom.dcmread(path).PatientName == name
            assert name.encode() in path.read_bytes()

    @pytest.mark.usefixtures("quick_picture")
    def test_a_source_with_hardly_any_attribute(self, tmp_path: Path) -> None:
        make_series(tmp_path / "in", 8, PatientName=None, SeriesDescription=None)
        for path in write_dicom(*read_case(tmp_path / "in"), tmp_path / "out"):
            data_set = pydicom.dcmread(path)
            assert (data_set.PatientName, data_set.StudyID, data_set.AccessionNumber) == ("", "", "")
            assert data_set.ContentDate == NO_DATE
        text = highdicom.sr.srread(tmp_path / "out" / "7f3a19c04be2d851-sr.dcm")
        assert "placeholder" in child(child(text, "Qualitative Evaluations")[0], "Comment")[-1].TextValue

    @pytest.mark.usefixtures("quick_picture")
    def test_values_that_dicom_does_not_allow(self, tmp_path: Path) -> None:
        wrong = {"StudyDate": "3 May", "PatientSex": "female", "StudyID": "seventeen letters", "PatientAge": "64"}
        make_series(tmp_path / "in", 8, **wrong)
        data_set = pydicom.dcmread(write_dicom(*read_case(tmp_path / "in"), tmp_path / "out")[0])
        assert not any((data_set.StudyDate, data_set.PatientSex, data_set.StudyID))
        assert "PatientAge" not in data_set
        make_series(tmp_path / "long", 8, PatientID="9" * 65)
        with pytest.raises(FileError, match="invalid_identity") as caught:
            write_dicom(*read_case(tmp_path / "long"), tmp_path / "out")
        assert "999" not in str(caught.value)

    @pytest.mark.usefixtures("quick_picture")
    def test_what_was_deidentified_says_so(self, tmp_path: Path) -> None:
        make_series(tmp_path / "in", 8, PatientIdentityRemoved="YES", DeidentificationMethod="a tool")
        for path in write_dicom(*read_case(tmp_path / "in"), tmp_path / "out"):
            assert pydicom.dcmread(path).DeidentificationMethod == "a tool"


class TestSameInput:
    def test_same_bytes(self, case: Case, written: list[Path], tmp_path: Path) -> None:
        again = write_dicom(*case, tmp_path)
        assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]

    def test_order_of_files_does_not_matter(self, case: Case, written: list[Path], tmp_path: Path) -> None:
        prediction, scan, series = case
        shuffled = replace(series, headers=series.headers[::-1])
        again = write_dicom(prediction, scan, shuffled, tmp_path)
        assert [path.read_bytes() for path in again] == [path.read_bytes() for path in written]

    @pytest.mark.parametrize(
        ("change", "same_series"),
        [
            ({"model_hash": "0" * 64}, False),
            ({"operating_point": None}, True),
            ({"scan_probabilities": np.linspace(0.1, 0.6, 6)}, True),
            ({"flags": (Note("gap", ""),)}, True),
        ],
        ids=["model", "operating point", "probabilities", "flags"],
    )
    def test_other_content_has_other_uids(
        self, case: Case, written: list[Path], change: dict[str, Any], same_series: bool, tmp_path: Path
    ) -> None:
        prediction, scan, series = case
        for old, new in zip(written, write_dicom(replace(prediction, **change), scan, series, tmp_path), strict=True):
            one, other = pydicom.dcmread(old), pydicom.dcmread(new)
            assert one.SOPInstanceUID != other.SOPInstanceUID
            assert (one.SeriesInstanceUID == other.SeriesInstanceUID) == same_series
            assert other.SOPInstanceUID == other.file_meta.MediaStorageSOPInstanceUID

    @pytest.mark.usefixtures("quick_picture")
    def test_another_scan_has_other_uids(self, case: Case, written: list[Path], tmp_path: Path) -> None:
        make_series(tmp_path / "in", 8, SeriesInstanceUID="1.2.3.100.2", **PLACES)
        other = write_dicom(*read_case(tmp_path / "in"), tmp_path / "out")
        one, two = (highdicom.sr.srread(paths[0]) for paths in (written, other))
        assert one.SeriesInstanceUID != two.SeriesInstanceUID
        uids = [{group.tracking_uid for group in sr.content.get_image_measurement_groups()} for sr in (one, two)]
        assert len(uids[0]) == len(uids[1]) == 6
        assert not uids[0] & uids[1]


@pytest.mark.usefixtures("quick_picture")
class TestSources:
    def test_slices_joined_from_two_series_are_referred_to_in_their_own(self, tmp_path: Path) -> None:
        own = {"FrameOfReferenceUID": "1.2.3.9", "AcquisitionNumber": 1}
        for number, places in ((1, range(0, 20, 5)), (2, range(20, 40, 5))):
            make_series(tmp_path / str(number), places=places, SeriesInstanceUID=f"1.2.3.100.{number}", **own)
        case = read_case(tmp_path)
        assert len(case[1]) == 8
        report = pydicom.dcmread(write_dicom(*case, tmp_path / "out")[0])
        (study,) = report.CurrentRequestedProcedureEvidenceSequence
        evidence = {
            series.SeriesInstanceUID: {item.ReferencedSOPInstanceUID for item in series.ReferencedSOPSequence}
            for series in study.ReferencedSeriesSequence
        }
        assert evidence == {f"1.2.3.100.{number}": {f"1.2.3.100.{number}.{i}" for i in range(1, 5)} for number in (1, 2)}

    def test_slabs_refer_to_all_their_slices(self, tmp_path: Path) -> None:
        make_series(tmp_path / "in", 40, step=1.0, SliceThickness=1)
        prediction, scan, series = read_case(tmp_path / "in")
        assert len(scan.file_sop_uids) == 40 > len(scan)
        path, _ = write_dicom(prediction, scan, series, tmp_path / "out")
        report = highdicom.sr.srread(path)
        evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
        assert [item.ReferencedSOPInstanceUID for item in evidence] == list(scan.file_sop_uids)
        called = report.content.get_image_measurement_groups()[2].source_images
        slices = np.flatnonzero(prediction.slice_probabilities[:, 2] >= 0.4)
        assert [i.referenced_sop_instance_uid for i in called] == [uid for n in slices for uid in scan.slabs[n].ids]

    def test_frames_of_one_file(self, tmp_path: Path) -> None:
        make_enhanced(tmp_path / "in" / "all.dcm")
        prediction, scan, series = read_case(tmp_path / "in")
        report = highdicom.sr.srread(write_dicom(prediction, scan, series, tmp_path / "out")[0])
        evidence = report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence
        assert [item.ReferencedSOPInstanceUID for item in evidence] == [scan.sop_uids[0].partition("#")[0]]
        (image,) = report.content.get_image_measurement_groups()[2].source_images
        assert image.referenced_frame_numbers == [int(scan.sop_uids[i].partition("#")[2]) for i in (4,)]

    def test_from_an_archive(self, case: Case, written: list[Path], tmp_path: Path) -> None:
        with zipfile.ZipFile(tmp_path / "export.zip", "w") as archive:
            for header in case[2].headers:
                archive.write(header.source.path, f"study/{header.source.path.name}")
        again = write_dicom(*read_case(tmp_path / "export.zip"), tmp_path / "out")
        assert again[0].read_bytes() == written[0].read_bytes()

    def test_lossy_stays_lossy(self, tmp_path: Path) -> None:
        lossy = {"LossyImageCompression": "01", "LossyImageCompressionRatio": "12.5"}
        make_series(tmp_path / "in", 8, **lossy)
        picture = pydicom.dcmread(write_dicom(*read_case(tmp_path / "in"), tmp_path / "out")[1])
        assert (picture.LossyImageCompression, float(picture.LossyImageCompressionRatio)) == ("01", 12.5)


def test_two_patients_of_the_same_uids_get_objects_of_their_own(tmp_path: Path) -> None:
    """An archive would file the second report into the series of the first patient's."""
    uids = []
    for patient in ("P1", "P2"):
        make_series(tmp_path / patient, PatientID=patient)
        (tmp_path / f"out-{patient}").mkdir()
        written = write_dicom(*read_case(tmp_path / patient), tmp_path / f"out-{patient}")
        data_sets = list(map(pydicom.dcmread, written))
        assert {data_set.PatientID for data_set in data_sets} == {patient}
        uids += [uid for data_set in data_sets for uid in (data_set.SeriesInstanceUID, data_set.SOPInstanceUID)]
    assert len(set(uids)) == len(uids) == 8


class TestRefusals:
    def test_no_dicom(self, case: Case, tmp_path: Path) -> None:
        with pytest.raises(SeriesError, match="no_dicom_identity"):
            write_dicom(case[0], case[1], None, tmp_path)

    @pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SOPInstanceUID", "SOPClassUID"])
    def test_identifiers_that_are_no_uids(self, keyword: str, case: Case, tmp_path: Path) -> None:
        prediction, scan, series = case
        if keyword == "SOPInstanceUID":
            uids = tuple(f"ID_{i:09x}" for i in range(len(scan)))
            scan = replace(scan, sop_uids=uids)
            headers = {header.sop_uid: header for header in series.headers}
            ordered = [replace(headers[old], sop_uid=new) for old, new in zip(case[1].sop_uids, uids, strict=True)]
        else:
            field = {"StudyInstanceUID": "study_uid", "SOPClassUID": "sop_class_uid"}[keyword]
            ordered = [replace(header, **{field: ""}) for header in series.headers]
        with pytest.raises(SeriesError, match="no_uid"):
            write_dicom(prediction, scan, replace(series, headers=ordered), tmp_path)
        assert not list(tmp_path.iterdir())

    def test_files_as_rsna_shares_them(self, phantom: Path, tmp_path: Path) -> None:
        with pytest.raises(SeriesError, match="no_uid"):
            write_dicom(*read_case(phantom), tmp_path)

    def test_slices_of_two_studies(self, case: Case, tmp_path: Path) -> None:
        prediction, scan, series = case
        mixed = [replace(series.headers[0], study_uid="1.2.3.4"), *series.headers[1:]]
        with pytest.raises(SeriesError, match="several_studies"):
            write_dicom(prediction, scan, replace(series, headers=mixed), tmp_path)

    def test_slices_of_two_patients(self, case: Case, tmp_path: Path) -> None:
        prediction, scan, series = case
        mixed = [replace(series.headers[0], patient_id="OTHER"), *series.headers[1:]]
        with pytest.raises(SeriesError, match="mixed_patients"):
            write_dicom(prediction, scan, replace(series, headers=mixed), tmp_path)
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize(
        "change", [{"PatientID": "OTHER"}, {"StudyInstanceUID": "1.2.3.4"}, {"PatientBirthDate": "19010101"}], ids=str
    )
    def test_a_file_that_was_replaced_since_its_pixels_were_read(self, change: dict[str, str], tmp_path: Path) -> None:
        make_series(tmp_path / "in", PatientBirthDate="19500101")
        prediction, scan, series = read_case(tmp_path / "in")
        for header in series.headers:
            data_set = pydicom.dcmread(header.source.path)
            for keyword, value in change.items():
                setattr(data_set, keyword, value)
            data_set.save_as(header.source.path)
        (tmp_path / "out").mkdir()
        with pytest.raises(SeriesError, match="mixed_patients"):
            write_dicom(prediction, scan, series, tmp_path / "out")
        assert not list((tmp_path / "out").iterdir())

    def test_without_the_extra(self, case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "highdicom", None)
        with pytest.raises(ConfigError, match="dicom-out"):
            write_dicom(*case, tmp_path)

    def test_highdicom_waits_until_it_is_needed(self) -> None:
        code = "import sys, ich_lstm.archive.exports.dicom_out; print('highdicom' in sys.modules)"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == "False"


def complaints(tool: str, path: Path) -> list[str]:
    """What a checker has against a file: its errors, as lines."""
    if shutil.which(tool) is None:
        pytest.skip(f"{tool} is not installed")
    done = subprocess.run([tool, str(path)], capture_output=True, text=True, errors="replace", check=False)
    lines = (done.stdout + done.stderr).splitlines()
    marks = ("Error", "Abort") if tool == "dciodvfy" else ("E:", "F:")
    found = [line for line in lines if line.startswith(marks)]
    return found if tool == "dciodvfy" or done.returncode == 0 else [*found, f"exit code {done.returncode}"]


@pytest.fixture(scope="module")
def real(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_dicom(*read_case(real_data / "ge_head_tilt"), tmp_path_factory.mktemp("real"))


@pytest.fixture(scope="module")
def enhanced(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("enhanced")
    make_enhanced(folder / "in" / "all.dcm")
    return write_dicom(*read_case(folder / "in"), folder / "out")


@pytest.fixture(scope="module")
def phantom_head(phantom: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("phantom_head")
    study = index_source(phantom).studies()[0]
    # RSNA's identifiers are no UIDs, and its files name no class; those of an export do.
    for i, header in enumerate(study.series[0].headers):
        data_set = pydicom.dcmread(header.source.path)
        for keyword in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID"):
            data_set[keyword] = pydicom.DataElement(keyword, "UI", "1.2.3.4" + (f".{i}" if keyword == "SOPInstanceUID" else ""))
        data_set.SOPClassUID = data_set.file_meta.MediaStorageSOPClassUID
        data_set.save_as(folder / f"{i}.dcm")
    return write_dicom(*read_case(folder), folder / "out")


class TestByIndependentTools:
    @pytest.mark.parametrize("source", ["written", "enhanced", "phantom_head", "real"])
    @pytest.mark.parametrize(("tool", "number"), [("dciodvfy", 0), ("dciodvfy", 1), ("dsrdump", 0)])
    def test_no_error(self, source: str, tool: str, number: int, request: pytest.FixtureRequest) -> None:
        assert complaints(tool, request.getfixturevalue(source)[number]) == []

    @pytest.mark.parametrize("tool", ["dciodvfy", "dsrdump"])
    def test_the_tools_see_errors(self, tool: str, written: list[Path], tmp_path: Path) -> None:
        broken = pydicom.dcmread(written[0])
        del broken.ContentSequence[-1].ValueType, broken.CompletionFlag
        broken.save_as(tmp_path / "broken.dcm")
        assert complaints(tool, tmp_path / "broken.dcm")
