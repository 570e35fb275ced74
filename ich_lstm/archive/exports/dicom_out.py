"""Export of a prediction as DICOM: a measurement report (TID 1500) and an image, as new series of the same study."""

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID, uuid5

import numpy as np

from ich_lstm.archive.exports import dicom_codes as codes
from ich_lstm.archive.exports.dicom_picture import draw_summary, shown_slices
from ich_lstm.archive.exports.requirement import HIGHDICOM
from ich_lstm.errors import SeriesError
from ich_lstm.files.atomic_write import write_bytes
from ich_lstm.formatting import RESEARCH_USE
from ich_lstm.labels import LABELS, PRIVATE_SCHEME
from ich_lstm.pages.style import library_version
from ich_lstm.prediction import ScanPrediction
from ich_lstm.privacy import make_folder
from ich_lstm.reading import Series, SliceHeader, read_header, read_identity, short_uid
from ich_lstm.reading.header.examinations import identity_of, origin_of
from ich_lstm.reading.header.frames import FRAME_MARK
from ich_lstm.reading.header.identity import DEIDENTIFICATION, LOSSY, PATIENT, PATIENT_STUDY, STUDY
from ich_lstm.scan import Scan

if TYPE_CHECKING:
    from highdicom.sr import CodedConcept, MeasurementReport, MeasurementsAndQualitativeEvaluations
    from pydicom.dataset import Dataset

REPORT_END, PICTURE_END = "-sr.dcm", "-sc.dcm"
REPORT_SERIES, PICTURE_SERIES = 9001, 9002
"""Series numbers, which are higher than those of scanners."""

MANUFACTURER = "ich_lstm"
DESCRIPTION = f"Intracranial hemorrhage. {RESEARCH_USE}"
CONTENT_DATES = ("Content", "Acquisition", "Series", "Study")
"""Kinds of dates and times that the new objects may take from the source; the first that is present is used."""

NO_DATE = "19000101"
"""Placeholder for sources without any date, because Content Date is Type 1. With the date of the run, each day would produce
another report; this date cannot be mistaken for a real one, and the report explains it."""

MAX_UID_LENGTH = 64
_NAMESPACE = UUID("5f0c9f7e-6f0b-5d0e-9a43-2b1d7e6a8c14")


class _Image(NamedTuple):
    """An SOP instance of the source with its series, and the frames that are meant (empty: all frames)."""

    sop_class: str
    sop_uid: str
    frames: tuple[int, ...] = ()
    series_uid: str = ""


class _Source(NamedTuple):
    """The properties that the new objects take from the source series.

    Args:
        identity: Attributes of the patient and the study.
        images: Images of each slice of the scan, in its order, length n; several images for a slab.
        date: Content Date, ``YYYYMMDD``.
        time: Content Time, ``HHMMSS.F``.
        seed: Text from which UIDs are derived: the instances that were read, and the model.
    """

    identity: "Dataset"
    images: tuple[tuple[_Image, ...], ...]
    date: str
    time: str
    seed: str

    @property
    def instances(self) -> list[_Image]:
        """All instances in the order of the scan, without repetition."""
        return _merge_frames(image for images in self.images for image in images)

    def uid(self, what: str) -> str:
        """A UID that does not change between runs (PS3.5, B.2)."""
        return _derived_uid(f"{self.seed}\n{what}")


def write_dicom(prediction: ScanPrediction, scan: Scan, series: Series | None, folder: Path) -> list[Path]:
    """Write a prediction for an archive: a Comprehensive 3D SR by TID 1500, and a Secondary Capture.

    Both are new series of the study that was read, and copy only patient and study from the source
    (:mod:`ich_lstm.reading.header.identity` lists the attributes).
    UIDs are derived from the instances that were read, the model's hash and the content; dates and times are those of the
    source. Equal input therefore gives equal bytes, and any difference gives another SOP Instance UID.

    Args:
        prediction: The prediction to export. With an operating point, labels are reported as present or absent; without one,
            as undetermined.
        scan: The predicted scan.
        series: The series from which the scan was read; None if it was not read from DICOM.
        folder: Output folder, created if missing. File names are the scan's keyed hash; the files contain the patient's name.

    Returns:
        The paths of the report and the image.

    Raises:
        ConfigError: ``extra_missing`` if highdicom is not installed.
        SeriesError: If the source cannot be referenced: ``no_dicom_identity``, ``no_uid``, ``several_studies``; or if it is not
            from one examination of one patient: ``mixed_patients``, ``mixed_examinations``.
        FileError: If the source can no longer be read, or contains an invalid identity.

    Example:
        >>> write_dicom(prediction, scan, choose_series(study).series, Path("dicom"))  # doctest: +SKIP
        [PosixPath('dicom/7f3a19c04be2d851-sr.dcm'), PosixPath('dicom/7f3a19c04be2d851-sc.dcm')]
    """
    HIGHDICOM.check("write_dicom")
    source = _describe_source(prediction, scan, series)
    make_folder(folder)
    paths = []
    for end, data_set in ((REPORT_END, _make_report(prediction, source)), (PICTURE_END, _make_picture(prediction, source))):
        path = folder / f"{prediction.scan_id}{end}"
        write_bytes(path, _encode(_with_content_uid(data_set)))
        paths.append(path)
    return paths


def _describe_source(prediction: ScanPrediction, scan: Scan, series: Series | None) -> _Source:
    if len(prediction) != len(scan):
        raise ValueError(f"write_dicom: a prediction of {len(prediction)} slices for a scan of {len(scan)}")
    if series is None:
        raise SeriesError(
            "no_dicom_identity",
            where=f"scan {prediction.scan_id}",
            got="a source without the patient and the study of DICOM",
            expected="a DICOM series, whose study the results join",
            todo="Predict the DICOM files from which it was made.",
        )
    headers = {header.sop_uid: header for header in series.headers}
    used = [headers[uid] for uid in scan.file_sop_uids]
    name = f"series {short_uid(series.series_uid)}"
    _check_uids(name, used)
    filed_under = identity_of(used, name)
    _check_unchanged(name, used[0])
    identity = read_identity(used[0])
    date, time = _content_date(identity)
    # Patient and study are included: an anonymizer may give equal UIDs to the images of two patients.
    seed = "\n".join([*filed_under, *sorted(scan.file_sop_uids), prediction.model_hash, library_version()])
    images = tuple(tuple(_reference(headers[uid]) for uid in uids) for uids in scan.slice_uids)
    return _Source(identity, images, date, time, seed)


def _check_uids(name: str, headers: Sequence[SliceHeader]) -> None:
    from pydicom.uid import RE_VALID_UID, UID_dictionary

    for header in headers:
        uids = (header.study_uid, header.series_uid, _reference(header).sop_uid)
        valid = all(len(uid) <= MAX_UID_LENGTH and re.fullmatch(RE_VALID_UID, uid) for uid in uids)
        if not valid or header.sop_class_uid not in UID_dictionary:
            raise SeriesError(
                "no_uid",
                where=name,
                got="identifiers of study, series, image or its class that are missing or not UIDs",
                expected="UIDs (PS3.5, 9), by which an archive files",
                todo="Predict it without --dicom, or from an export that keeps them.",
            )
    if len({header.study_uid for header in headers}) > 1:
        raise SeriesError("several_studies", where=name, got="slices of several studies", expected="one Study Instance UID")


def _check_unchanged(name: str, header: SliceHeader) -> None:
    """Check that the file from which patient and study are copied is still the one whose pixels were read."""
    now = read_header(header.source)
    if (origin_of(now), now.study_uid) != (origin_of(header), header.study_uid):
        raise SeriesError(
            "mixed_patients",
            where=name,
            got="another patient or study in the file than when its pixels were read",
            expected="the patient and the study of the pixels",
            todo="Predict the study again from files that do not change meanwhile.",
        )


def _content_date(identity: "Dataset") -> tuple[str, str]:
    for kind in CONTENT_DATES:
        date = str(identity.get(f"{kind}Date") or "")
        if date:
            return date, str(identity.get(f"{kind}Time") or "000000")
    return NO_DATE, "000000"


def _reference(header: SliceHeader) -> _Image:
    uid, _, _ = header.sop_uid.partition(FRAME_MARK)
    return _Image(header.sop_class_uid, uid, (header.frame,) if header.frame else (), header.series_uid)


def _merge_frames(images: Iterable[_Image]) -> list[_Image]:
    """Merge the frames of each instance."""
    merged: dict[str, _Image] = {}
    for image in images:
        known = merged.get(image.sop_uid)
        merged[image.sop_uid] = image if known is None else known._replace(frames=tuple(sorted({*known.frames, *image.frames})))
    return list(merged.values())


def _derived_uid(text: str) -> str:
    return f"2.25.{uuid5(_NAMESPACE, text).int}"


def _with_content_uid(data_set: "Dataset") -> "Dataset":
    """Derive the SOP Instance UID from the content, so that different content cannot have the same UID."""
    digest = hashlib.sha256(_encode(data_set)).hexdigest()
    data_set.SOPInstanceUID = _derived_uid(f"{data_set.SeriesInstanceUID}\n{digest}")
    data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    return data_set


def _encode(data_set: "Dataset") -> bytes:
    stream = io.BytesIO()
    data_set.save_as(stream, enforce_file_format=True)
    return stream.getvalue()


def _coded(concept: codes.Concept) -> "CodedConcept":
    from highdicom.sr import CodedConcept

    return CodedConcept(concept.value, concept.scheme, concept.meaning)


def _common_arguments(prediction: ScanPrediction, source: _Source, kind: str, number: int) -> dict[str, Any]:
    """The arguments that both objects share. The patient is set later, because highdicom restricts names by its own rules."""
    return {
        "series_instance_uid": source.uid(f"{kind} series"),
        "series_number": number,
        "sop_instance_uid": source.uid(kind),
        "instance_number": 1,
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": prediction.model_name[:64],
        "software_versions": library_version(),
        "device_serial_number": prediction.model_hash[:64],
        "series_description": DESCRIPTION,
        "content_date": source.date,
        "content_time": source.time,
        "specific_character_set": "ISO_IR 192",
    }


def _complete(data_set: "Dataset", source: _Source) -> "Dataset":
    """Add the patient and the study of the source, and remove what depends on the time or the version of highdicom."""
    from highdicom import ContributingEquipment

    for keyword in (*PATIENT, *DEIDENTIFICATION, *STUDY, *PATIENT_STUDY):
        if keyword in source.identity:
            setattr(data_set, keyword, source.identity[keyword].value)
    for keyword in ("InstanceCreationDate", "InstanceCreationTime", "DateOfSecondaryCapture", "TimeOfSecondaryCapture"):
        if keyword in data_set:
            delattr(data_set, keyword)
    purpose = _coded(codes.PROCESSING)
    data_set.ContributingEquipmentSequence = [ContributingEquipment("highdicom", purpose, manufacturer_model_name="highdicom")]
    return data_set


def _make_report(prediction: ScanPrediction, source: _Source) -> "Dataset":
    from highdicom.coding_schemes import CodingSchemeIdentificationItem
    from highdicom.sr import Comprehensive3DSR
    from pydicom.dataset import Dataset

    evidence = []
    for image in source.instances:
        item = Dataset()
        item.SOPClassUID, item.SOPInstanceUID = image.sop_class, image.sop_uid
        item.StudyInstanceUID, item.SeriesInstanceUID = source.identity.StudyInstanceUID, image.series_uid
        evidence.append(item)
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber", "StudyID"):
        setattr(evidence[0], keyword, "")
    evidence[0].StudyDate = evidence[0].StudyTime = None
    scheme = CodingSchemeIdentificationItem(PRIVATE_SCHEME, name="Private codes of ich_lstm", responsible_organization="ich_lstm")
    report = Comprehensive3DSR(
        evidence,
        _make_content(prediction, source),
        is_complete=True,
        is_final=False,
        coding_schemes=[scheme],
        **_common_arguments(prediction, source, "report", REPORT_SERIES),
    )
    return _complete(report, source)


def _make_content(prediction: ScanPrediction, source: _Source) -> "MeasurementReport":
    from highdicom import sr

    device = sr.DeviceObserverIdentifyingAttributes(
        uid=_derived_uid(f"device\n{prediction.model_hash}"),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=prediction.model_name,
        serial_number=prediction.model_hash,
    )
    observer = sr.ObserverContext(observer_type=_coded(codes.DEVICE), observer_identifying_attributes=device)
    report = sr.MeasurementReport(
        observation_context=sr.ObservationContext(observer_device_context=observer),
        procedure_reported=_coded(codes.CT),
        imaging_measurements=[_make_group(prediction, source, k) for k in range(len(LABELS))],
    )
    items = report[0].ContentSequence
    items.insert(len(items) - 1, _make_image_library(source))  # TID 1500 requires it before the measurements
    items.append(_make_remarks(prediction, source))
    return report


def _make_image_library(source: _Source) -> "Any":
    """All images that were read, which are the sources of every group without sources of its own (TID 1501)."""
    from highdicom.sr import ContainerContentItem, ContentSequence, ImageContentItem, RelationshipTypeValues

    contains = RelationshipTypeValues.CONTAINS
    library = ContainerContentItem(_coded(codes.IMAGE_LIBRARY), relationship_type=contains)
    group = ContainerContentItem(_coded(codes.IMAGE_LIBRARY_GROUP), relationship_type=contains)
    group.ContentSequence = ContentSequence(
        [
            ImageContentItem(
                _coded(codes.SOURCE), image.sop_class, image.sop_uid, list(image.frames) or None, relationship_type=contains
            )
            for image in source.instances
        ]
    )
    library.ContentSequence = ContentSequence([group])
    return library


def _make_group(prediction: ScanPrediction, source: _Source, k: int) -> "MeasurementsAndQualitativeEvaluations":
    """The measurement group of one label."""
    from highdicom import sr

    label = LABELS[k]
    calls = prediction.scan_calls
    call = codes.UNDETERMINED if calls is None or np.isnan(calls[k]) else codes.PRESENT if calls[k] == 1 else codes.ABSENT
    images = (
        _merge_frames(image for i in _supporting_slices(prediction, k) for image in source.images[i])
        if call is codes.PRESENT
        else []
    )
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=source.uid(f"tracking {label}"), identifier=label),
        finding_type=_coded(codes.FINDINGS[label]),
        finding_sites=[sr.FindingSite(_coded(codes.SITES[label]))],
        # The algorithm has no family: readers would take its code for another evaluation of the finding.
        algorithm_id=sr.AlgorithmIdentification(MANUFACTURER, library_version(), parameters=_parameters(prediction, k)),
        measurements=[sr.Measurement(_coded(codes.PROBABILITY), float(prediction.scan_probabilities[k]), _coded(codes.NO_UNITS))],
        qualitative_evaluations=[sr.QualitativeEvaluation(_coded(codes.PRESENCE), _coded(call))],
        source_images=[
            sr.SourceImageForMeasurementGroup(image.sop_class, image.sop_uid, list(image.frames) or None) for image in images
        ],
    )


def _parameters(prediction: ScanPrediction, k: int) -> list[str]:
    parameters = [f"model: {prediction.model_name}", f"model hash: {prediction.model_hash}"]
    point = prediction.operating_point
    if point is not None:
        threshold = float(point.scan_thresholds[k])
        parameters.append(f"operating point: {point.name}")
        parameters.append(f"threshold of the scan: {'none' if np.isnan(threshold) else repr(threshold)}")
    return parameters


def _supporting_slices(prediction: ScanPrediction, k: int) -> list[int]:
    """The slices that support a label: those in which it is called, or else the one in which it is most probable."""
    calls = prediction.slice_calls
    called = [] if calls is None else np.flatnonzero(calls[:, k] == 1).tolist()
    return called or [int(prediction.slice_probabilities[:, k].argmax())]


def _make_remarks(prediction: ScanPrediction, source: _Source) -> "Any":
    """Remarks, as text, that apply to all groups."""
    from highdicom.sr import ContainerContentItem, ContentSequence, RelationshipTypeValues, TextContentItem

    contains = RelationshipTypeValues.CONTAINS
    called = f"Operating point {prediction.operating_point.name}" if prediction.operating_point else ""
    remarks = [
        RESEARCH_USE,
        f"{called}: {prediction.calls_in_words}." if called else "No operating point was chosen: no label is called.",
        # Only the code is written: details of some flags repeat text from the files.
        *(f"Quality flag: {note.code}" for note in prediction.flags),
        *(["The images have no date: that of this report is a placeholder."] if source.date == NO_DATE else []),
    ]
    container = ContainerContentItem(_coded(codes.QUALITATIVE_EVALUATIONS), relationship_type=contains)
    container.ContentSequence = ContentSequence(
        [TextContentItem(_coded(codes.COMMENT), remark, relationship_type=contains) for remark in remarks]
    )
    return container


def _make_picture(prediction: ScanPrediction, source: _Source) -> "Dataset":
    from highdicom.sc import SCImage
    from pydicom.dataset import Dataset

    burned_in = any(note.code == "burned_in" for note in prediction.flags)
    picture = SCImage(
        draw_summary(prediction, with_slices=not burned_in),
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=("L", "P"),
        study_instance_uid=source.identity.StudyInstanceUID,
        **_common_arguments(prediction, source, "picture", PICTURE_SERIES),
    )
    picture.PatientOrientation = []  # undefined for an image of several slices
    picture.BodyPartExamined = "HEAD"  # an unpaired part, for which Laterality is not required
    picture.ConversionType = "WSD"
    picture.BurnedInAnnotation = "NO"  # the text identifies neither the patient nor the date (PS3.3 C.7.6.1.1)
    picture.ImageComments = RESEARCH_USE
    picture.DerivationDescription = f"Summary of a prediction by {MANUFACTURER}"
    if source.identity.get("LossyImageCompression") == "01" and not burned_in:  # lossy compression must be kept (C.7.6.1.1.5)
        for keyword in LOSSY:
            if keyword in source.identity:
                setattr(picture, keyword, source.identity[keyword].value)
    if not burned_in:
        references = []
        for image in _merge_frames(image for number in shown_slices(prediction) for image in source.images[number]):
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.sop_class, image.sop_uid
            if image.frames:
                item.ReferencedFrameNumber = list(image.frames)
            item.PurposeOfReferenceCodeSequence = [_coded(codes.SOURCE_IMAGE)]
            references.append(item)
        picture.SourceImageSequence = references
    return _complete(picture, source)
