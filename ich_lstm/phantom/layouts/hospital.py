"""Heads in the layout of a hospital's PACS export, with a table that was compiled from reports."""

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, NamedTuple

from pydicom.dataset import Dataset
from pydicom.uid import UID

from ich_lstm.files.atomic_write import write_bytes
from ich_lstm.labels import LABELS
from ich_lstm.phantom.checks import OPTION
from ich_lstm.phantom.draws import chance, valid_uid
from ich_lstm.phantom.layouts.layout import Layout, write_lines
from ich_lstm.phantom.layouts.masks import write_masks
from ich_lstm.phantom.scan import PhantomScan, make_head
from ich_lstm.phantom.scanner.dicom import Examination, SeriesFacts, common, file_bytes, localizer_file, series_files
from ich_lstm.phantom.scanner.localizer import FIELD_MM, make_localizer
from ich_lstm.phantom.scanner.reconstruction import Reconstruction
from ich_lstm.phantom.settings import PhantomSettings

MAX_STUDIES = 8
"""Largest number of studies per patient; each study has a head of its own."""

FIRST_DAY = datetime.date(2019, 1, 1)
DAYS = 1400
FOLLOW_UP_DAYS = 60

THIN_MM, BONE_MM = 1.25, 2.5

SCOUT_SERIES, PLAIN_SERIES, THIN_SERIES, BONE_SERIES, CONTRAST_SERIES, DOSE_SERIES = 1, 2, 3, 4, 5, 999

SILENT_SHARE = 0.15
"""Share of hemorrhages whose report does not state the type, so that the cells of the types are empty."""

DOSE_REPORT = UID("1.2.840.10008.5.1.4.1.1.88.67")
"""SOP Class UID of X-Ray Radiation Dose SR Storage."""

TABLE_COLUMNS = ("accession_number", "patient_id", "study_date", *LABELS)


class StudyRecord(NamedTuple):
    """Identifiers and labels of one study, for the table.

    Args:
        accession_number: Accession number of the study.
        patient_id: Patient ID.
        study_date: Date of the study, YYYY-MM-DD.
        labels: Labels of the scan, in the order of `LABELS`.
        slices: SOP Instance UID and labels of each slice of the plain series.
    """

    accession_number: str
    patient_id: str
    study_date: str
    labels: tuple[int, ...]
    slices: tuple[tuple[str, tuple[int, ...]], ...]


@dataclass(frozen=True, kw_only=True)
class HospitalLayout(Layout[list[StudyRecord]]):
    """``DICOM/PAT00000/STD00000/SER00002/IMG00000``, files without extension, and ``labels.csv``.

    Every study has a localizer, a plain series of thick slices, and a dose report without pixels; some also have a thin
    series, a series with a bone kernel, or a series after contrast. The studies of one patient are weeks apart; their heads
    are drawn independently and do not resemble each other.

    Args:
        most_studies: Largest number of studies per patient, from 1 to 8; each patient has at least one.
        slice_rows: Whether the table describes every third study with a row per slice, named in a column ``sop_uid``,
            instead of a row for the scan.
    """

    name: ClassVar[str] = "hospital"
    labels: ClassVar[str] = "labels.csv"
    contents: ClassVar[tuple[str, ...]] = ("DICOM/*/*/*/*", "DICOM/README.TXT", "*.csv")

    most_studies: int = 3
    slice_rows: bool = False

    def check(self, settings: PhantomSettings) -> None:
        """Refuse options that are out of range."""
        OPTION.whole("most_studies", self.most_studies, 1, MAX_STUDIES)

    def write_patient(self, settings: PhantomSettings, patient: int, folder: Path) -> list[StudyRecord]:
        """Write all studies of one patient and return their records."""
        images = folder / "DICOM" / f"PAT{patient:05d}"
        count = 1 + int(self.most_studies * chance(settings.seed, "studies", patient))
        return [
            _write_study(settings, examination, patient * MAX_STUDIES + i, images / f"STD{i:05d}", folder)
            for i, examination in enumerate(_examinations(settings.seed, patient, count))
        ]

    def write_tables(self, settings: PhantomSettings, folder: Path, records: Sequence[list[StudyRecord]]) -> None:
        """Write ``labels.csv``, by accession number, and the leaflet that comes with an export."""
        studies = sorted(study for record in records for study in record)
        lines = [",".join((*(("sop_uid",) if self.slice_rows else ()), *TABLE_COLUMNS))]
        for i, study in enumerate(studies):
            key = (study.accession_number, study.patient_id, study.study_date)
            if self.slice_rows and i % 3 == 0:
                lines += [",".join((sop_uid, *key, *map(str, labels))) for sop_uid, labels in study.slices]
            else:
                cells = _report(settings.seed, study)
                lines.append(",".join((*(("",) if self.slice_rows else ()), *key, *cells)))
        write_lines(folder / self.labels, lines)
        write_lines(folder / "DICOM" / "README.TXT", ["This medium holds images of synthetic patients."])


def _examinations(seed: int, patient: int, count: int) -> Iterator[Examination]:
    day = FIRST_DAY + datetime.timedelta(days=int(DAYS * chance(seed, "day", patient)))
    age = 18 + int(72 * chance(seed, "age", patient))
    for i in range(count):
        minute = int(24 * 60 * chance(seed, "minute", patient, i))
        number = patient * MAX_STUDIES + i
        yield Examination(
            patient_id=f"{10_000_000 + patient}",
            study_uid=valid_uid(seed, "hospital", number),
            frame_uid=valid_uid(seed, "hospital frame", number),
            date=f"{day:%Y%m%d}",
            time=f"{minute // 60:02d}{minute % 60:02d}00",
            accession_number=f"A{20_000_000 + number:08d}",
            age=f"{age:03d}Y",
            sex="MF"[chance(seed, "sex", patient) < 0.45],
        )
        day += datetime.timedelta(days=1 + int(FOLLOW_UP_DAYS * chance(seed, "follow-up", patient, i)))


def _write_study(settings: PhantomSettings, examination: Examination, number: int, folder: Path, root: Path) -> StudyRecord:
    seed = settings.seed

    def write_series(series: int, description: str, reconstruction: Reconstruction) -> tuple[PhantomScan, list[str]]:
        scan = make_head(settings, number, reconstruction=reconstruction)
        facts = SeriesFacts(uid=_uid(seed, number, series), number=series, description=description)
        uids = [_uid(seed, number, series, i) for i in range(len(scan.hu))]
        _write_files(folder / f"SER{series:05d}", series_files(scan, examination, facts, uids))
        if settings.masks:
            write_masks(scan, facts.uid, root)
        return scan, uids

    plain, sop_uids = write_series(PLAIN_SERIES, "HEAD 5.0 NATIV", Reconstruction())
    for series in _further_series(seed, number):
        write_series(*series)
    scout = SeriesFacts(uid=_uid(seed, number, SCOUT_SERIES), number=SCOUT_SERIES, description="Topogram 0.6 T20f")
    picture, pixel_mm = make_localizer(settings, number), FIELD_MM / settings.size
    content = localizer_file(picture, pixel_mm, examination, scout, _uid(seed, number, SCOUT_SERIES, 0))
    _write_files(folder / f"SER{SCOUT_SERIES:05d}", [content])
    dose = SeriesFacts(uid=_uid(seed, number, DOSE_SERIES), number=DOSE_SERIES, description="Dose Report")
    _write_files(folder / f"SER{DOSE_SERIES:05d}", [_dose_report(examination, dose, _uid(seed, number, DOSE_SERIES, 0))])
    return StudyRecord(
        examination.accession_number,
        examination.patient_id,
        f"{examination.date[:4]}-{examination.date[4:6]}-{examination.date[6:]}",
        tuple(plain.slice_labels.max(axis=0).tolist()),
        tuple((uid, tuple(labels)) for uid, labels in zip(sop_uids, plain.slice_labels.tolist(), strict=True)),
    )


def _uid(seed: int, study: int, series: int, *index: int) -> str:
    return valid_uid(seed, "hospital", study, series, *index)


def _further_series(seed: int, number: int) -> Iterator[tuple[int, str, Reconstruction]]:
    """Number, description and reconstruction of the further series of a study."""
    if chance(seed, "thin", number) < 0.2:
        yield THIN_SERIES, "HEAD 1.25 NATIV", Reconstruction(thickness_mm=THIN_MM)
    if chance(seed, "bone", number) < 0.4:
        yield BONE_SERIES, "HEAD 2.5 BONE", Reconstruction(thickness_mm=BONE_MM, kernel="bone")
    if chance(seed, "contrast", number) < 0.25:
        yield CONTRAST_SERIES, "HEAD 5.0 + C", Reconstruction(contrast=True)


def _dose_report(examination: Examination, series: SeriesFacts, sop_uid: str) -> bytes:
    """A structured report, as an example of DICOM without an image."""
    dataset = common(examination, series, "SR", DOSE_REPORT, sop_uid)
    dataset.InstanceNumber = "1"
    dataset.CompletionFlag = "COMPLETE"
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.ValueType = "CONTAINER"
    dataset.ContinuityOfContent = "SEPARATE"
    title = Dataset()
    title.CodeValue, title.CodingSchemeDesignator, title.CodeMeaning = "113701", "DCM", "X-Ray Radiation Dose Report"
    dataset.ConceptNameCodeSequence = [title]
    return file_bytes(dataset)


def _write_files(folder: Path, files: Iterable[bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for i, content in enumerate(files):
        write_bytes(folder / f"IMG{i:05d}", content, durable=False)


def _report(seed: int, study: StudyRecord) -> list[str]:
    """The label cells of one study; the types are empty if the report does not state the type of the hemorrhage."""
    bleeds = study.labels[-1]
    if bleeds and chance(seed, "report", study.accession_number) < SILENT_SHARE:
        return [*[""] * (len(LABELS) - 1), "1"]
    return list(map(str, study.labels))
