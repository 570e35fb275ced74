"""Heads in the layout of CQ500: several series per study under their real names, and the answers of three readers."""

import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, NamedTuple

from ich_lstm.errors import ConfigError
from ich_lstm.files.atomic_write import atomic_write, write_bytes
from ich_lstm.phantom.anatomy.neck import with_neck
from ich_lstm.phantom.checks import OPTION
from ich_lstm.phantom.draws import chance, valid_uid
from ich_lstm.phantom.layouts.boxes import Box, box_lines, find_boxes
from ich_lstm.phantom.layouts.cq500_series import SeriesPlan, plan_series
from ich_lstm.phantom.layouts.layout import Layout, write_lines
from ich_lstm.phantom.layouts.masks import write_masks
from ich_lstm.phantom.layouts.readers import SKILLS, Skill, read_scan, reads_lines, scan_truth
from ich_lstm.phantom.scan import PhantomScan, make_head
from ich_lstm.phantom.scanner.dicom import Examination, SeriesFacts, localizer_file, series_files
from ich_lstm.phantom.scanner.localizer import FIELD_MM, make_localizer
from ich_lstm.phantom.settings import PhantomSettings

BATCH_TWO = {True: 170 / 205, False: 107 / 286}
"""Share of category B2 among scans with and without hemorrhage; in CQ500, 170 of the 277 scans of B2 and 35 of the 214 of B1
have a hemorrhage."""

STUDIES_PER_FOLDER = 36
"""Number of studies in each folder ``qct*/`` of the mirror."""

EARLIEST = (1980, 1, 1, 0, 0, 0)
"""Fixed time of all files in an archive, so that the same settings give the same bytes."""

BOX_FILES = (
    "1_Initial_Manual_Labeling.csv",
    "2_Extrapolation_to_All_Series.csv",
    "3_Extrapolation_to_Selected_Series.csv",
)
"""Tables of BHX: boxes on the preferred plain series, on all series, and on all plain series with a soft kernel."""

Rows = list[tuple[str, str, str, Box, str]]


class Cq500Record(NamedTuple):
    """Truth and boxes of one study, for the tables.

    Args:
        truth: Whether each finding is present in the scan, as `scan_truth` gives it.
        boxes: Boxes for each of `BOX_FILES`.
    """

    truth: dict[str, bool]
    boxes: tuple[Rows, ...]


@dataclass(frozen=True, kw_only=True)
class Cq500Layout(Layout[Cq500Record]):
    """``CQ500-CT-<n>/CQ500CT<n> CQ500CT<n>/Unknown Study/<series name>/CT000000.dcm`` and ``reads.csv``.

    The number of a study determines its series (`ich_lstm.phantom.layouts.cq500_series`).

    Args:
        archives: Whether studies are archives ``CQ500-CT-<n>.zip`` instead of folders.
        nested: Whether studies lie in ``qct01/``, ``qct02/`` and so on, as in one mirror of the data set.
        thin_every: One study in this many has a thin series beside the thick one; 0 writes no thin series.
        thin_mm: Slice thickness of the thin series, which take most of the time and space.
        boxes: Whether the three tables of BHX are written too.
        byte_order_mark: Whether ``reads.csv`` begins with a byte order mark.
        skills: Sensitivity and specificity of the readers, by finding.
    """

    name: ClassVar[str] = "cq500"
    labels: ClassVar[str] = "reads.csv"
    contents: ClassVar[tuple[str, ...]] = ("**/*.dcm", "**/CQ500-CT-*.zip", "*.csv")

    archives: bool = False
    nested: bool = False
    thin_every: int = 10
    thin_mm: float = 0.625
    boxes: bool = False
    byte_order_mark: bool = True
    skills: dict[str, Skill] = field(default_factory=lambda: dict(SKILLS))

    def check(self, settings: PhantomSettings) -> None:
        """Refuse options that are out of range."""
        OPTION.whole("thin_every", self.thin_every)
        OPTION.number("thin_mm", self.thin_mm, 0.5, 1.9)
        if set(self.skills) != set(SKILLS):
            raise ConfigError(
                "phantom_skills",
                where="phantom layout option skills",
                got=", ".join(sorted(self.skills)) or "nothing",
                expected=", ".join(sorted(SKILLS)),
                todo="Give a Skill for each finding.",
            )
        for name, skill in self.skills.items():
            OPTION.number(f"skills[{name}].sensitivity", skill.sensitivity, 0, 1)
            OPTION.number(f"skills[{name}].specificity", skill.specificity, 0, 1)

    def write_patient(self, settings: PhantomSettings, patient: int, folder: Path) -> Cq500Record:
        """Write one study and return its truth and boxes."""
        place = folder
        if self.nested:
            place = folder / f"qct{patient // STUDIES_PER_FOLDER + 1:02d}"
            place.mkdir(exist_ok=True)
        examination = _examination(settings, patient)
        truth: dict[str, bool] = {}
        boxes: tuple[Rows, ...] = ([], [], [])
        with _study_writer(place / f"CQ500-CT-{patient}", self.archives) as write:
            for number, plan in enumerate(plan_series(patient, self.thin_every, self.thin_mm), 1):
                series = SeriesFacts(uid=_uid(settings, patient, number), number=number, description=plan.description)
                inner = f"CQ500CT{patient} CQ500CT{patient}/Unknown Study/{plan.name}"
                if plan.is_localizer:
                    sop_uid, pixel_mm = _uid(settings, patient, number, 0), FIELD_MM / settings.size
                    picture = make_localizer(settings, patient)
                    write(f"{inner}/CT000000.dcm", localizer_file(picture, pixel_mm, examination, series, sop_uid))
                    continue
                scan = _make_scan(settings, patient, plan)
                sop_uids = [_uid(settings, patient, number, i) for i in range(len(scan.hu))]
                for i, content in enumerate(series_files(scan, examination, series, sop_uids)):
                    write(f"{inner}/CT{i:06d}.dcm", content)
                truth = truth or scan_truth(scan)
                if settings.masks:
                    write_masks(scan, series.uid, folder)
                if self.boxes:
                    _add_boxes(boxes, plan, _box_rows(scan, examination.study_uid, series.uid, sop_uids))
        return Cq500Record(truth, boxes)

    def write_tables(self, settings: PhantomSettings, folder: Path, records: Sequence[Cq500Record]) -> None:
        """Write ``reads.csv``, sorted by name as text, and BHX's tables."""
        studies = sorted(range(len(records)), key=str)
        categories = [_category(settings.seed, patient, records[patient].truth["ICH"]) for patient in studies]
        answers = [read_scan(records[patient].truth, settings.seed, patient, self.skills) for patient in studies]
        lines = reads_lines([f"CQ500-CT-{patient}" for patient in studies], categories, answers)
        write_lines(folder / self.labels, lines, byte_order_mark=self.byte_order_mark)
        if self.boxes:
            for i, file in enumerate(BOX_FILES):
                write_lines(folder / file, box_lines([row for record in records for row in record.boxes[i]]))


@contextmanager
def _study_writer(path: Path, archive: bool) -> Iterator[Callable[[str, bytes], None]]:
    """Yield a function that writes a file into the study's folder ``path``, or into the archive ``<path>.zip``."""
    if not archive:

        def write_file(name: str, content: bytes) -> None:
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path / name, content, durable=False)

        yield write_file
        return
    # Stored without compression, because the output of zlib differs between versions.
    archived = path.with_name(f"{path.name}.zip")
    with atomic_write(archived, durable=False) as unfinished, zipfile.ZipFile(unfinished, "w", zipfile.ZIP_STORED) as file:
        yield lambda name, content: file.writestr(zipfile.ZipInfo(name, EARLIEST), content)


def _make_scan(settings: PhantomSettings, patient: int, plan: SeriesPlan) -> PhantomScan:
    scan = make_head(settings, patient, reconstruction=plan.reconstruction(settings))
    return with_neck(scan, settings, patient, plan.neck_slices) if plan.neck_slices else scan


def _examination(settings: PhantomSettings, patient: int) -> Examination:
    seed = settings.seed
    return Examination(
        patient_id=f"CQ500-CT-{patient}",
        study_uid=valid_uid(seed, "cq500", patient),
        frame_uid=valid_uid(seed, "cq500 frame", patient),
        date=f"{2012 + int(6 * chance(seed, 'cq500 year', patient))}0101",  # anonymized to the year
        time="000000",
        accession_number="",
        age=f"{18 + int(72 * chance(seed, 'cq500 age', patient)):03d}Y",
        sex="MF"[chance(seed, "cq500 sex", patient) < 0.4],
    )


def _uid(settings: PhantomSettings, patient: int, series: int, *index: int) -> str:
    return valid_uid(settings.seed, "cq500", patient, series, *index)


def _category(seed: int, patient: int, bleeds: bool) -> str:
    return "B2" if chance(seed, "cq500 category", patient) < BATCH_TWO[bleeds] else "B1"


def _box_rows(scan: PhantomScan, study_uid: str, series_uid: str, sop_uids: Sequence[str]) -> Rows:
    ages = {lesion.blood.age for lesion in scan.lesions if lesion.kind == "subdural"}
    chronic = {"subdural": "Chronic"} if ages == {"chronic"} else {}
    return [
        (study_uid, series_uid, sop_uids[box.image], box, chronic.get(box.kind, box.kind.capitalize()))
        for box in find_boxes(scan)
    ]


def _add_boxes(boxes: tuple[Rows, ...], plan: SeriesPlan, rows: Rows) -> None:
    first, everywhere, selected = boxes
    everywhere += rows
    if plan.is_plain:
        selected += rows
        if not first:
            first += rows
