"""Reads, predicts, explains and writes one study of an archive; its record is the source of the archive's tables."""

import hashlib
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

import pandas as pd

from ich_lstm.archive.deface import ShownScan, deface
from ich_lstm.archive.exports.export import PredictedStudy
from ich_lstm.archive.exports.formats import EXPORTS, find_export, folder_of_export
from ich_lstm.archive.folder.file_names import KEY_TABLE, PAGES, PREDICTED, SCANS, SERIES_TABLE, SLICES
from ich_lstm.archive.folder.study_record import StudyRecord, TableRows
from ich_lstm.data.prepared.file_names import SLICE_MARK, relative_name
from ich_lstm.data.prepared.folder import KEY_COLUMNS, key_rows
from ich_lstm.errors import IchLstmError, PredictionError, StorageError, StudyError, UnexpectedError
from ich_lstm.files.atomic_write import write_text
from ich_lstm.files.full_disk import is_disk_full
from ich_lstm.inference.engines.engine import EngineChoice, EngineOrAuto, PrecisionOrAuto
from ich_lstm.inference.explain import explain
from ich_lstm.inference.predictor import Predictor
from ich_lstm.labels import LABELS
from ich_lstm.pages.index_page import encode_thumbnail
from ich_lstm.pages.scan_page import prediction_page
from ich_lstm.prediction import ScanPrediction
from ich_lstm.privacy import PRIVATE, ProjectKey, make_folder
from ich_lstm.reading import (
    Candidate,
    FileRef,
    Ledger,
    Series,
    Study,
    load_scan,
    rank_series,
    read_nifti,
    short_uid,
)
from ich_lstm.reading.header.examinations import Identity, common_identity, folder_of, identity_of
from ich_lstm.reading.ledger.header_table import values_of
from ich_lstm.reading.ledger.ledger import LedgerRow
from ich_lstm.reading.ledger.reasons import phrase_of
from ich_lstm.reading.study.choose import choose_among
from ich_lstm.reading.study.shared_names import Name, shared_kinds
from ich_lstm.scan import Scan
from ich_lstm.unexpected import concerns_all, one_of_many

REPEATED = "repeated_study"
"""Status of a study whose files are also below an earlier path of the command; that path's row has the result."""

HeatMaps = Literal["positive", "all", "none"]


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Settings of what is read from an archive, and what is written for each study.

    Args:
        series_uid: UID of the series to read in place of the chosen one, or the beginning of the UID.
        allow_contrast: Also predict contrast-enhanced series if the study has no plain one; they are flagged.
        allow_other_part: Also predict series that do not show a head by their names or pixels.
        vocabulary: Digest of the words that a site has added for the choice of series
            (:func:`~ich_lstm.reading.terms.word_table.use_vocabulary`); empty if there are none.
        heat_maps: Labels with heat maps on the pages: ``positive`` (called by the operating point; without one, a probability
            of at least 0.5), ``all``, or ``none``.
        share_pages: Also write defaced pages, which may be shared.
        exports: Names of formats of `EXPORTS` in which each study is also written.
        coherent: Whether the scan's probability is raised to that of its most probable slice, and that of "any" to that of
            each type; False writes raw probabilities.
        engine: What runs the encoder: ``auto``, ``torch`` or ``openvino``, see `EngineChoice`.
        precision: ``auto``, ``float32`` or ``bfloat16``.
    """

    series_uid: str | None = None
    allow_contrast: bool = False
    allow_other_part: bool = False
    vocabulary: str = ""
    heat_maps: HeatMaps = "positive"
    share_pages: bool = False
    exports: tuple[str, ...] = ()
    coherent: bool = True
    engine: EngineOrAuto = "auto"
    precision: PrecisionOrAuto = "auto"

    def __post_init__(self) -> None:
        """Check that the exports, the engine and the precision exist.

        Raises:
            ConfigError: ``unknown_export``, ``unknown_engine`` or ``unknown_precision``.
        """
        for name in self.exports:
            find_export(name)
        EngineChoice(engine=self.engine, precision=self.precision)

    @property
    def engine_choice(self) -> EngineChoice:
        """The engine and the precision."""
        return EngineChoice(engine=self.engine, precision=self.precision)

    @classmethod
    def names(cls) -> list[str]:
        """The names of all options."""
        return [each.name for each in fields(cls)]

    def to_dict(self) -> dict[str, Any]:
        """The options as stored with a folder of predictions, with one entry for each export."""
        options = asdict(self)
        del options["exports"]
        return options | {export.name: export.name in self.exports for export in EXPORTS}

    def is_same_as(self, stored: Mapping[str, Any]) -> bool:
        """Whether a folder of predictions was created with equal options.

        Args:
            stored: Result of `to_dict` at that time, perhaps from a version of the library with fewer options. A missing
                option counts as its default, because a new option does not change results that were made without it.
        """
        defaults = PredictOptions().to_dict()

        def changed(options: Mapping[str, Any]) -> dict[str, Any]:
            return {name: value for name, value in options.items() if value != defaults.get(name, False)}

        return changed(self.to_dict()) == changed(stored)

    @property
    def allowed(self) -> dict[str, bool]:
        """The options that permit further kinds of series."""
        return {"allow_contrast": self.allow_contrast, "allow_other_part": self.allow_other_part}


@dataclass(frozen=True)
class Job:
    """A study to predict, or a path from which no study could be read.

    Args:
        root: The path that the user gave.
        study: The study; None for a NIfTI file, or if there is an error.
        error: The error that prevents a prediction, or None.
        file: The NIfTI file, which is the path itself or below it; None for a DICOM study.
        is_copy: Whether the study is already read from an earlier path of the same command.
        shared: Names shared by images of several patients, from `find_shared_names`.
        sources: Digest of the names of the files.
        digest: Digest of the study's identifier, its qualifiers and the names of its files, or of the path; the study must be
            predicted again if it changes.
    """

    root: Path
    study: Study | None = None
    error: IchLstmError | None = None
    file: FileRef | None = None
    is_copy: bool = False
    shared: frozenset[Name] = field(default=frozenset(), repr=False)
    sources: str = field(init=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        lines = [""]
        if self.study is not None:
            # Qualifiers are part of the digest: if a later study shares an identifier, this one is predicted again with a new id.
            parts = {series.qualifier for series in self.study.series} | {
                self.shared_kinds(series) for series in self.study.series
            }
            lines = [self.study.identifier, *sorted(parts - {""})]
        files = list(map(str, self.files()))
        object.__setattr__(self, "sources", _digest(files))
        object.__setattr__(self, "digest", _digest([*lines, *files]))

    def shared_kinds(self, series: Series) -> str:
        """The kinds of names by which labels must not identify a series (`shared_kinds`)."""
        return "" if self.study is None else shared_kinds(self.shared, self.study, series)

    @property
    def name(self) -> str:
        """The name for a person; private."""
        if self.study is not None:
            return f"study {short_uid(self.study.study_uid)}"
        return str(self.root if self.file is None or self.file.path == self.root.absolute() else self.file)

    @property
    def study_identifier(self) -> str:
        """An identifier that is unique in the command; empty if there is no study."""
        return "" if self.study is None else self.study.identifier

    def files(self) -> list[FileRef]:
        """The files of the study in the order of their names, without repetition; not stored, because archives have millions."""
        if self.study is None:
            return [self.file or FileRef(self.root)]
        return sorted({source for series in self.study.series for source in values_of(series.headers, "source")}, key=str)

    @property
    def identifier(self) -> str:
        """The identity of the study, independent of the location of its files: its new result replaces its old row. Private.

        It consists of UID, patient and examination. If the Patient ID is anonymous, it includes the folder, because images in
        another folder may belong to another person.
        """
        study = self.study
        if study is None:
            name = f"path\n{self.file or self.root.absolute()}"
        else:
            who = sorted({"\x1f".join(origin._replace(folder="")) for origin in study.origins})
            is_anonymous = not study.study_uid or any(origin.is_anonymous for origin in study.origins)
            folders = {folder_of(series.headers[0]) for series in study.series} if is_anonymous else {""}
            name = "\n".join(["study", study.study_uid, *who, min(folders)])
        return f"copy\n{self.root.absolute()}\n{name}" if self.is_copy else name

    def as_copy_of(self, first: "Job") -> "Job":
        """Mark the study as a copy of a study under an earlier path of the command, so that it is not predicted twice.

        Args:
            first: The study that is predicted.
        """
        if first.sources == self.sources:
            error = StudyError(REPEATED, where=self.name, got="the same files below two paths", todo="Name each folder once.")
        else:
            error = StudyError(
                "other_copy",
                where=self.name,
                got=f"other files of a study that is read from {first.root}",
                expected="each study below one path",
                todo="Put its files into one folder, or predict this path alone: its result then replaces the other one.",
            )
        return replace(self, error=error, is_copy=True)


def _digest(lines: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode(errors="surrogateescape")).hexdigest()


def predict_study(predictor: Predictor, job: Job, out: Path, options: PredictOptions, key: ProjectKey) -> StudyRecord:
    """Predict a study, and write its pages and exports.

    Args:
        predictor: The model with its preprocessing and calibration.
        job: The study to predict.
        out: The folder of predictions.
        options: Settings of what is read and written.
        key: Key of the project, for hashed ids.

    Returns:
        The record of the study; if the study cannot be read or predicted, it has the reason and no probabilities.

    Raises:
        StorageError: If a disk is full; the errors of settings and of the model end the command too (`concerns_all`).
    """
    began = time.monotonic()
    work = _StudyRun(predictor, job, out, options, key)
    try:
        with one_of_many(job.name):
            if job.error is not None:
                raise job.error
            record = work.predict_nifti(job.files()[0]) if job.study is None else work.predict_dicom(job.study)
    except IchLstmError as error:
        if job.error is None and concerns_all(error):
            raise
        record = work.record_failure(error)
    return replace(record, seconds=round(time.monotonic() - began, 3))


@dataclass
class _StudyRun:
    """The prediction of one study, and what is collected for its record."""

    predictor: Predictor
    job: Job
    out: Path
    options: PredictOptions
    key: ProjectKey
    ledger: Ledger = field(default_factory=Ledger)
    candidates: list[Candidate] = field(default_factory=list)
    chosen: Series | None = None
    not_made: dict[str, str] = field(default_factory=dict)
    tracebacks: list[str] = field(default_factory=list)
    thumbnails: dict[str, str] = field(default_factory=dict)

    def predict_dicom(self, study: Study) -> StudyRecord:
        study = study.decoded()
        self.candidates = rank_series(study, **self.options.allowed)
        candidate = choose_among(study, self.candidates, self.options.series_uid, ledger=self.ledger)
        self.chosen = chosen = candidate.series
        scan = load_scan(
            chosen, ledger=self.ledger, slab_mm=self.predictor.slab_mm, allow_other_part=self.options.allow_other_part
        )
        headers = {header.sop_uid: header for header in chosen.headers}
        used = [headers[uid] for uid in scan.file_sop_uids]
        prediction = self.predict(scan)
        slices_with_text = [i for i, uids in enumerate(scan.slice_uids) if any(headers[uid].burned_in for uid in uids)]
        files = self.write_pages(prediction, slices_with_text) + self.write_exports(PredictedStudy(prediction, scan, chosen))
        rows, choices = self.describe_series(study, chosen)
        key = key_rows(self.key, prediction.scan_id, used, self.job.root, shared=self.job.shared_kinds(chosen))
        tables = self.tables(prediction) | {
            f"{PRIVATE}/{KEY_TABLE}": TableRows.of(key),
            f"{PRIVATE}/{SERIES_TABLE}": TableRows.of(rows),
        }
        description = self.describe_choice(candidate)
        return self.record_predicted(prediction, tables, files, identity_of(used), series=description, choices=choices)

    def predict_nifti(self, file: FileRef) -> StudyRecord:
        """Predict a NIfTI file, which is a study of its own and has no identifier but its name."""
        scan = read_nifti(file.path, slab_mm=self.predictor.slab_mm, allow_other_part=self.options.allow_other_part)
        prediction = self.predict(scan)
        files = self.write_pages(prediction, []) + self.write_exports(PredictedStudy(prediction, scan, None))
        uids = scan.file_sop_uids
        rows = pd.DataFrame({"scan_id": prediction.scan_id, "slice": range(1, len(uids) + 1), "sop_uid": uids})
        rows = rows.assign(
            slice_id=[self.key.hash_id(uid) for uid in uids],
            series_uid=scan.series_uid,
            # Tables of labels name a slice by its number along the file's own axis, which is the last part of its UID.
            file=[f"{relative_name(file, self.job.root)}{SLICE_MARK}{uid.rpartition('.')[2]}" for uid in uids],
        )
        self.ledger.update([LedgerRow(str(file), "", scan.series_uid, "used", "", "")])
        tables = self.tables(prediction) | {
            f"{PRIVATE}/{KEY_TABLE}": TableRows.of(rows.reindex(columns=list(KEY_COLUMNS), fill_value=""))
        }
        return self.record_predicted(prediction, tables, files, Identity(), series=f"a NIfTI file, {len(uids)} slices")

    def predict(self, scan: Scan) -> ScanPrediction:
        """Predict probabilities, and the heat maps that the options request."""
        encoded = self.predictor.encode(scan)
        prediction = self.predictor.predict_scan(encoded, self.key, coherent=self.options.coherent)
        labels = list(LABELS) if self.options.heat_maps == "all" else list(prediction.positive_labels)
        if self.options.heat_maps == "none" or not labels:
            return prediction
        with self.optional("heat_maps"):  # the encoder may not support them
            return replace(prediction, explanation=explain(self.predictor, encoded, labels=labels))
        return prediction

    @contextmanager
    def optional(self, name: str) -> Iterator[None]:
        """Make a result without which the study keeps its probabilities; `not_made` gets the reason if it cannot be made."""
        try:
            with one_of_many(self.job.name):
                yield
        except IchLstmError as error:
            if isinstance(error, StorageError) or is_disk_full(error):
                raise
            self.not_made[name] = str(error)
            self.keep_traceback(error)

    def keep_traceback(self, error: IchLstmError) -> None:
        """Keep where an error arose that nobody foresaw, for the private record."""
        if isinstance(error, UnexpectedError):
            self.tracebacks.append("".join(traceback.format_exception(error.__cause__ or error)))

    def write_pages(self, prediction: ScanPrediction, slices_with_text: Sequence[int]) -> list[str]:
        """Write the private page of the whole scan and, if requested, the defaced page."""
        pages = {f"{PRIVATE}/{PAGES}": ShownScan(prediction)}  # burned-in text may be shown inside the hospital
        if self.options.share_pages:
            with self.optional(PAGES):
                pages[PAGES] = deface(prediction, slices_with_text)
        written = []
        for folder, shown in pages.items():
            path = Path(folder) / f"{prediction.scan_id}.html"
            make_folder(self.out / folder)
            with self.optional(PAGES):
                html = prediction_page(shown.prediction, notice=shown.notice, blank_reasons=shown.not_shown)
                thumbnail = encode_thumbnail(shown.prediction)
                write_text(self.out / path, html)
                self.thumbnails[path.as_posix()] = thumbnail
                written.append(path.as_posix())
        return written

    def write_exports(self, predicted: PredictedStudy) -> list[str]:
        """Write the study in each requested format; `not_made` gets the reason if a format cannot be written."""
        written: list[Path] = []
        for name in self.options.exports:
            export = find_export(name)
            folder = self.out / folder_of_export(export)
            make_folder(folder)
            with self.optional(name):
                written += export.write(predicted, folder)
        return [path.relative_to(self.out).as_posix() for path in written]

    def tables(self, prediction: ScanPrediction) -> dict[str, TableRows]:
        return {SLICES: TableRows.of(prediction.to_frame()), SCANS: TableRows.of(prediction.scan_frame())}

    def record_predicted(
        self,
        prediction: ScanPrediction,
        tables: dict[str, TableRows],
        files: list[str],
        identity: Identity,
        *,
        series: str,
        choices: Sequence[str] = (),
    ) -> StudyRecord:
        return StudyRecord(
            name=self.job.name,
            study=self.job.study_identifier,
            identity=identity._asdict(),
            status=PREDICTED,
            series=series,
            choices=list(choices),
            text=repr(prediction),
            key_slices=[i + 1 for i in prediction.key_slices],
            tables=tables,
            ledger=[list(row) for row in self.ledger.rows()],
            not_made=self.not_made,
            tracebacks=self.tracebacks,
            files=files,
            thumbnails=self.thumbnails,
            engine={} if (chosen := self.predictor.engines.chosen) is None else chosen.to_dict(),
        )

    def record_failure(self, error: IchLstmError) -> StudyRecord:
        """The record of a study without probabilities: the table has the code of the error, the record also its text."""
        study = self.job.study
        self.keep_traceback(error)
        choices: list[str] = []
        tables: dict[str, TableRows] = {}
        headers = [] if study is None else [header for series in study.series for header in series.headers]
        identity = common_identity(headers)
        patient = identity.patient_id
        identifier = self.job.study_identifier or str(self.job.files()[0])
        ids = {"scan_id": self.key.hash_id(identifier), "patient_id": self.key.hash_id(patient) if patient else ""}
        calibration = self.predictor.calibration
        columns = (*LABELS, *(calibration.columns if calibration else ()))
        row: dict[str, str | None] = {**ids, **dict.fromkeys(columns), "flags": "", "status": error.code}
        tables[SCANS] = TableRows.of(pd.DataFrame([row]))
        if study is None:
            if self.job.error is None:
                self.ledger.update([LedgerRow(str(self.job.files()[0]), "", "", "refused", error.code, error.detail)])
        elif isinstance(error, UnexpectedError | PredictionError):  # anywhere; reading marks its own errors
            for series in [self.chosen] if self.chosen is not None else study.series:
                self.ledger.mark(series.headers, error.code, error.detail)
        if study is not None and self.candidates:
            rows, choices = self.describe_series(study, None)
            tables[f"{PRIVATE}/{SERIES_TABLE}"] = TableRows.of(rows)
        return StudyRecord(
            name=self.job.name,
            study=self.job.study_identifier,
            identity=identity._asdict(),
            status=error.code,
            error=str(error),
            tracebacks=self.tracebacks,
            choices=choices,
            tables=tables,
            ledger=[list(row) for row in self.ledger.rows()],
        )

    def describe_choice(self, chosen: Candidate) -> str:
        """Describe which series was read, and why the others were not, without identity."""
        codes = Counter(phrase_of(each.code) if each.code else "not chosen" for each in self.candidates if each != chosen)
        others = ", ".join(f"{count} {reason}" for reason, count in codes.items())
        return f"{chosen.reason}; not read: {others}" if others else f"{chosen.reason}; the only series"

    def describe_series(self, study: Study, chosen: Series | None) -> tuple[pd.DataFrame, list[str]]:
        """Describe the series of a study, as table rows and as lines for a person."""
        rows, lines = [], []
        for candidate in self.candidates:
            first = candidate.series.headers[0]
            read = chosen is not None and candidate.series == chosen
            code, reason = ("", "read") if read else (candidate.code or "not_chosen", candidate.reason)
            title = first.series_description or "(no description)"
            lines.append(f"{'read' if read else 'not read'}: {title} ({len(candidate.series)} images): {candidate.reason}")
            uids = {"study_uid": study.study_uid, "patient_id": study.patient_id, "series_uid": candidate.series.series_uid}
            rows.append(
                uids | {"description": title, "images": len(candidate.series), "read": read, "code": code, "reason": reason}
            )
        return pd.DataFrame(rows), lines
