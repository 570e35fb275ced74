"""Export of a prediction as DICOM: a measurement report (TID 1500) and a picture, as new series of the same study."""

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
from ich_lstm.files.atomic_write import written_aside
from ich_lstm.formatting import RESEARCH_USE
from ich_lstm.labels import LABELS, PRIVATE_SCHEME
from ich_lstm.pages.style import library_version
from ich_lstm.prediction import ScanPrediction
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
"""Series numbers, above those that scanners give."""

MANUFACTURER = "ich_lstm"
DESCRIPTION = f"Intracranial hemorrhage. {RESEARCH_USE}"
CONTENT_DATES = ("Content", "Acquisition", "Series", "Study")
"""Whose date and time the new objects bear, the first that the source has."""

NO_DATE = "19000101"
"""Content Date is Type 1, and de-identified sources may have no date at all. The day of the run would make another report
every day; this one cannot be taken for a real one, and the report says so."""

MAX_UID_LENGTH = 64
_NAMESPACE = UUID("5f0c9f7e-6f0b-5d0e-9a43-2b1d7e6a8c14")


class _Image(NamedTuple):
    """One SOP instance of the source, the frames that are meant (none: all there is of it), and the series that it is of."""

    sop_class: str
    sop_uid: str
    frames: tuple[int, ...] = ()
    series_uid: str = ""


class _Source(NamedTuple):
    """What the new objects take from the series that was read.

    Args:
        identity: The patient and the study.
        images: ``(n,)``: those of each slice of the scan, in its order; several where it is a slab.
        date: ``YYYYMMDD``.
        time: ``HHMMSS.F``.
        seed: What UIDs are derived from: the instances that were read, and the model.
    """

    identity: "Dataset"
    images: tuple[tuple[_Image, ...], ...]
    date: str
    time: str
    seed: str

    @property
    def instances(self) -> list[_Image]:
        """Every instance once, in the order of the scan."""
        return _merge(image for images in self.images for image in images)

    def uid(self, what: str) -> str:
        """A UID that is the same in every run (PS3.5, B.2)."""
        return _derived_uid(f"{self.seed}\n{what}")


def write_dicom(prediction: ScanPrediction, scan: Scan, series: Series | None, folder: Path) -> list[Path]:
    """Write a prediction for an archive: a Comprehensive 3D SR by TID 1500, and a Secondary Capture.

    Both are series of the study that was read. Of the source they repeat the patient and the study alone
    (:mod:`ich_lstm.reading.header.identity` lists the attributes).
    UIDs follow from the instances that were read, the model's hash and
    the content; dates and times are those of the source. The same input therefore gives the same bytes, and whatever differs
    bears another SOP Instance UID.

    Args:
        prediction: With an operating point, labels are reported as present or absent; without one, as undetermined.
        scan: What was predicted.
        series: What it was read from; None if that was no DICOM.
        folder: Where to; made if missing. The files bear the scan's keyed hash, and hold the patient's name.

    Returns:
        The report and the picture.

    Raises:
        ConfigError: ``extra_missing``.
        SeriesError: If the source cannot be referred to: ``no_dicom_identity``, ``no_uid``, ``several_studies``; or if it is
            not of one examination of one patient: ``mixed_patients``, ``mixed_examinations``.
        FileError: If the source cannot be read any more, or its identity is not allowed by DICOM.

    Example:
        >>> write_dicom(prediction, scan, choose_series(study).series, Path("dicom"))  # doctest: +SKIP
        [PosixPath('dicom/7f3a19c04be2d851-sr.dcm'), PosixPath('dicom/7f3a19c04be2d851-sc.dcm')]
    """
    HIGHDICOM.check("write_dicom")
    source = _describe_source(prediction, scan, series)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for end, data_set in ((REPORT_END, _make_report(prediction, source)), (PICTURE_END, _make_picture(prediction, source))):
        path = folder / f"{prediction.scan_id}{end}"
        with written_aside(path) as aside:
            aside.write_bytes(_encode(_by_its_content(data_set)))
        paths.append(path)
    return paths


def _describe_source(prediction: ScanPrediction, scan: Scan, series: Series | None) -> _Source:
    if len(prediction) != len(scan):
        raise ValueError(f"write_dicom: a prediction of {len(prediction)} slices for a scan of {len(scan)}")
    if series is None:
        raise SeriesError(
            "no_dicom_identity",
            where=f"scan {prediction.scan_id}",
            got="a source without DICOM's patient and study",
            expected="a DICOM series, whose study the results join",
            todo="Predict the DICOM that it was made of.",
        )
    headers = {header.sop_uid: header for header in series.headers}
    used = [headers[uid] for uid in scan.file_sop_uids]
    name = f"series {short_uid(series.series_uid)}"
    _check_uids(name, used)
    filed_under = identity_of(used, name)
    _check_unchanged(name, used[0])
    identity = read_identity(used[0])
    date, time = _content_date(identity)
    # With patient and study: an anonymizer may give the images of two patients the same UIDs.
    seed = "\n".join([*filed_under, *sorted(scan.file_sop_uids), prediction.model_hash, library_version()])
    images = tuple(tuple(_refer(headers[uid]) for uid in uids) for uids in scan.slice_uids)
    return _Source(identity, images, date, time, seed)


def _check_uids(name: str, headers: Sequence[SliceHeader]) -> None:
    from pydicom.uid import RE_VALID_UID, UID_dictionary

    for header in headers:
        uids = (header.study_uid, header.series_uid, _refer(header).sop_uid)
        valid = all(len(uid) <= MAX_UID_LENGTH and re.fullmatch(RE_VALID_UID, uid) for uid in uids)
        if not valid or header.sop_class_uid not in UID_dictionary:
            raise SeriesError(
                "no_uid",
                where=name,
                got="identifiers of study, series, image or its class that are missing, or no UIDs",
                expected="UIDs (PS3.5, 9), by which an archive files",
                todo="Predict it without --dicom, or from an export that keeps them.",
            )
    if len({header.study_uid for header in headers}) > 1:
        raise SeriesError("several_studies", where=name, got="slices of several studies", expected="one Study Instance UID")


def _check_unchanged(name: str, header: SliceHeader) -> None:
    """See that the file from which patient and study are copied is the one whose pixels were read."""
    now = read_header(header.source)
    if (origin_of(now), now.study_uid) != (origin_of(header), header.study_uid):
        raise SeriesError(
            "mixed_patients",
            where=name,
            got="another patient or study in the file than when its pixels were read",
            expected="the patient and the study of the pixels",
            todo="Predict the study again, from files that nobody changes meanwhile.",
        )


def _content_date(identity: "Dataset") -> tuple[str, str]:
    for kind in CONTENT_DATES:
        date = str(identity.get(f"{kind}Date") or "")
        if date:
            return date, str(identity.get(f"{kind}Time") or "000000")
    return NO_DATE, "000000"


def _refer(header: SliceHeader) -> _Image:
    uid, _, _ = header.sop_uid.partition(FRAME_MARK)
    return _Image(header.sop_class_uid, uid, (header.frame,) if header.frame else (), header.series_uid)


def _merge(images: Iterable[_Image]) -> list[_Image]:
    """One for each instance, with the frames of all."""
    merged: dict[str, _Image] = {}
    for image in images:
        known = merged.get(image.sop_uid)
        merged[image.sop_uid] = image if known is None else known._replace(frames=tuple(sorted({*known.frames, *image.frames})))
    return list(merged.values())


def _derived_uid(text: str) -> str:
    return f"2.25.{uuid5(_NAMESPACE, text).int}"


def _by_its_content(data_set: "Dataset") -> "Dataset":
    """Name an object by what it holds: other content cannot come under the same UID."""
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


def _common(prediction: ScanPrediction, source: _Source, kind: str, number: int) -> dict[str, Any]:
    """Arguments that both objects share; the patient comes later, for highdicom judges names by its own rules."""
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


def _finish(data_set: "Dataset", source: _Source) -> "Dataset":
    """The patient and the study of the source; and nothing that tells when, or by which highdicom, it was made."""
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
        **_common(prediction, source, "report", REPORT_SERIES),
    )
    return _finish(report, source)


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
    items.insert(len(items) - 1, _make_library(source))  # before the measurements (TID 1500)
    items.append(_make_remarks(prediction, source))
    return report


def _make_library(source: _Source) -> "Any":
    """All images that were read: the sources of every group that names none (TID 1501)."""
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
    """The group of one label."""
    from highdicom import sr

    label = LABELS[k]
    calls = prediction.scan_calls
    call = codes.UNDETERMINED if calls is None or np.isnan(calls[k]) else codes.PRESENT if calls[k] == 1 else codes.ABSENT
    images = _merge(image for i in _slices_with(prediction, k) for image in source.images[i]) if call is codes.PRESENT else []
    return sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=sr.TrackingIdentifier(uid=source.uid(f"tracking {label}"), identifier=label),
        finding_type=_coded(codes.FINDINGS[label]),
        finding_sites=[sr.FindingSite(_coded(codes.SITES[label]))],
        # Without a family: readers take its code for one more evaluation of the finding.
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


def _slices_with(prediction: ScanPrediction, k: int) -> list[int]:
    """The slices that speak for a label: those where it is called, or else the one where it is most probable."""
    calls = prediction.slice_calls
    called = [] if calls is None else np.flatnonzero(calls[:, k] == 1).tolist()
    return called or [int(prediction.slice_probabilities[:, k].argmax())]


def _make_remarks(prediction: ScanPrediction, source: _Source) -> "Any":
    """What a reader must know of all groups, as text."""
    from highdicom.sr import ContainerContentItem, ContentSequence, RelationshipTypeValues, TextContentItem

    contains = RelationshipTypeValues.CONTAINS
    called = f"Operating point {prediction.operating_point.name}" if prediction.operating_point else ""
    remarks = [
        RESEARCH_USE,
        f"{called}: {prediction.calls_in_words}." if called else "No operating point was chosen: no label is called.",
        # Without the details: one of them repeats text of the files.
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
        **_common(prediction, source, "picture", PICTURE_SERIES),
    )
    picture.PatientOrientation = []  # of a page with several slices on it
    picture.BodyPartExamined = "HEAD"  # which has no left one and right one, so that Laterality is not asked for
    picture.ConversionType = "WSD"
    picture.BurnedInAnnotation = "NO"  # nothing that tells who it is, or when (PS3.3 C.7.6.1.1)
    picture.ImageComments = RESEARCH_USE
    picture.DerivationDescription = f"Summary of a prediction by {MANUFACTURER}"
    if source.identity.get("LossyImageCompression") == "01" and not burned_in:  # once lossy, always lossy (C.7.6.1.1.5)
        for keyword in LOSSY:
            if keyword in source.identity:
                setattr(picture, keyword, source.identity[keyword].value)
    if not burned_in:
        references = []
        for image in _merge(image for number in shown_slices(prediction) for image in source.images[number]):
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.sop_class, image.sop_uid
            if image.frames:
                item.ReferencedFrameNumber = list(image.frames)
            item.PurposeOfReferenceCodeSequence = [_coded(codes.SOURCE_IMAGE)]
            references.append(item)
        picture.SourceImageSequence = references
    return _finish(picture, source)
