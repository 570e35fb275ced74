"""Predict an archive: every study gets a row, what fails does not end the rest, and what is done is not done again."""

import json
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.data.submission import SampleSubmission, write_submission
from ich_lstm.errors import ConfigError, IchLstmError
from ich_lstm.labels import LABELS
from ich_lstm.learning.classifier import ScanClassifier
from ich_lstm.learning.statistics import Estimate
from ich_lstm.privacy import PRIVATE, ProjectKey, private_folder
from ich_lstm.reading import FileRef, Index, index_source, is_nifti
from ich_lstm.reading.aside import remove_asides, written_aside
from ich_lstm.reading.ledger import ACTIONS, Ledger, LedgerRow
from ich_lstm.reading.nifti import in_archive
from ich_lstm.results.names import (
    BEGUN,
    INDEX_PAGE,
    KEY_TABLE,
    LEDGER_TABLE,
    MANIFEST,
    RECORDS,
    SCANS,
    SERIES_TABLE,
    SLICES,
    SUBMISSION,
    WORKLIST,
)
from ich_lstm.results.predict_study import Job, PredictOptions, predict_study
from ich_lstm.results.site import check_estimable, describe_calibration, move_to_estimated_share
from ich_lstm.results.study_record import StudyRecord, StudyRecords, csv_of, joined
from ich_lstm.results.worklist import Listed, by_urgency, index_rows, worklist_frame
from ich_lstm.views.index_page import index_page

Progress = Callable[[str, int, int | None], None]

PACKAGES = ("torch", "timm", "pytorch-lightning", "pydicom", "opencv-python-headless", "numpy")


class Archive(NamedTuple):
    """What is to be predicted.

    Args:
        jobs: A study, or a path from which none could be read, each; in the order of the paths.
        ledgers: What became of the files of each path; of a NIfTI file that is the path itself, nothing yet.
    """

    jobs: list[Job]
    ledgers: dict[Path, Ledger]


class Progressed(NamedTuple):
    """A study that is done.

    Args:
        record: What became of it.
        is_new: Whether it was predicted now, and not by an earlier command.
    """

    record: StudyRecord
    is_new: bool


class ArchiveRun:
    """The folder of predictions of an archive.

    Shareable, with hashed ids: ``slices.csv``, ``scans.csv`` (a row for every study in the order in which they came; ``status``
    is ``ok`` or the reason code), ``worklist.csv`` (the most urgent first), ``manifest.json``; with ``share_pages`` also pages
    without the face and an index of them. In ``private/``: the key to the ids, the ledger of all files, the series of every
    study with the reason for which each is or is not read, a page per scan (a stack of slices shows the face) and an index of
    them, DICOM output, the submission, the worklist if it names the studies, and a record of each study.

    A command that was stopped goes on where it was: studies that are done, and whose files have not changed, are not predicted
    again, and all tables are made from the records of all studies.

    Args:
        classifier: The model.
        archive: As of `find_studies`.
        out: Folder to make; it must be new, empty, or begun by the same model with the same key and options.
        key: The project's key.
        options: What is read and written; None: the defaults.
        identify: Name accession number, study UID and patient id in the worklist, which is private then.
        estimate_share: When all is predicted, estimate the share of positive scans without labels, and move the calibrated
            probabilities in the tables to it (not those on the pages); the manifest tells it, and what it assumes.
        submission: RSNA's sample submission, to answer it when all is predicted.

    Raises:
        ConfigError: If ``out`` holds something else, or was begun with another model, key or options.
        TableError: If the sample submission is malformed.
    """

    def __init__(
        self,
        classifier: ScanClassifier,
        archive: Archive,
        out: Path,
        *,
        key: ProjectKey,
        options: PredictOptions | None = None,
        identify: bool = False,
        estimate_share: bool = False,
        submission: Path | None = None,
    ) -> None:
        self.classifier = classifier
        self.archive = archive
        self.out = out
        self.key = key
        self.options = options or PredictOptions()
        self.identify = identify
        self.estimate_share = estimate_share
        self.sample = SampleSubmission.read(submission) if submission else None
        if estimate_share:
            check_estimable(classifier.calibration)
        self._begin()
        self._records = StudyRecords(out / PRIVATE / RECORDS)

    def __len__(self) -> int:
        """Number of studies, and of paths from which none could be read."""
        return len(self.archive.jobs)

    def predict(self, number: int) -> Progressed:
        """Predict a study, unless that is done; all that is written for it alone is on disk then.

        Args:
            number: Of the study, from 0.
        """
        job, identifier = self.archive.jobs[number], self._identifier(number)
        files = job.files()
        record = self._records.read(identifier, files, self.out)
        # What was refused is tried again: a codec that was missing may be there by now.
        if record is not None and record.is_predicted:
            return Progressed(record, False)
        record = predict_study(self.classifier, job, self.out, self.options, self.key)
        self._records.write(identifier, files, record)
        return Progressed(record, True)

    def finish(self) -> list[StudyRecord]:
        """Write what is made of all studies together.

        Returns:
            What became of each study.

        Raises:
            TableError: If an image of the sample submission has no probability; all else is on disk then.
        """
        records = [
            self._records.read(self._identifier(number), job.files(), self.out) or self.predict(number).record
            for number, job in enumerate(self.archive.jobs)
        ]
        for table in (SLICES, SCANS, f"{PRIVATE}/{KEY_TABLE}", f"{PRIVATE}/{SERIES_TABLE}"):
            self._write(table, joined(record.tables[table] for record in records if table in record.tables))
        counts = self._write_ledger(records)
        calibration = self.classifier.calibration
        estimated = None
        try:
            if self.estimate_share:
                estimated = move_to_estimated_share(self.out / SLICES, self.out / SCANS, calibration)
            self._write_worklist(records)
            if self.sample is not None:
                self._answer(self.sample)
        finally:
            remove_asides(self.out)
            self._write_manifest(records, counts, estimated)
        return records

    def _identifier(self, number: int) -> str:
        job = self.archive.jobs[number]
        # Paths that cannot be read, and what comes twice, are told apart by their place.
        return self.key.hash_id(job.digest if job.error is None else f"{number}\n{job.digest}")

    def _begin(self) -> None:
        """Make the folder, or see that this is the command that has begun it."""
        begun = {
            "ich_lstm": version("ich_lstm"),
            "model": self.classifier.weights_hash(),
            "calibration": json.loads(json.dumps(describe_calibration(self.classifier.calibration))),
            "options": asdict(self.options),
            "key": self.key.hash_id(""),
        }
        path = self.out / PRIVATE / BEGUN
        if not self.out.exists() or (self.out.is_dir() and not any(self.out.iterdir())):
            self.out.mkdir(parents=True, exist_ok=True)
            with written_aside(private_folder(self.out) / BEGUN) as aside:
                aside.write_text(json.dumps(begun))
            return
        try:
            there = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise ConfigError(
                "out_not_empty",
                where="--out",
                got=f"{self.out}, which is not empty",
                expected="a new or empty folder, or one in which ich-predict was stopped",
            ) from error
        other = [name for name in begun if there.get(name) != begun[name]]
        if other:
            raise ConfigError(
                "other_predictions",
                where="--out",
                got=f"{self.out}, whose predictions were made with another {' and '.join(other)}",
                expected="the folder that the same command has begun, or a new one",
                todo="Name a new folder.",
            )

    def _write(self, table: str, lines: Iterable[str]) -> None:
        with written_aside(self.out / table) as aside, aside.open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines)
        if not (self.out / table).stat().st_size:  # nothing came with such rows
            (self.out / table).unlink()

    def _write_ledger(self, records: Sequence[StudyRecord]) -> Counter[str]:
        """What became of every file; returns their number by action."""
        ledgers = self.archive.ledgers
        for job, record in zip(self.archive.jobs, records, strict=True):
            ledgers[job.root].update(record.ledger_rows)
        counts: Counter[str] = Counter()
        for ledger in ledgers.values():
            counts.update(ledger.counts())
        self._write(f"{PRIVATE}/{LEDGER_TABLE}", joined(csv_of(ledger.to_frame()) for ledger in ledgers.values() if len(ledger)))
        return counts

    def _write_worklist(self, records: Sequence[StudyRecord]) -> None:
        scans = pd.read_csv(self.out / SCANS, dtype=str, keep_default_na=False)
        rows = (dict(zip(scans.columns, row, strict=True)) for row in scans.itertuples(index=False))
        listed = by_urgency([Listed(record, row) for record, row in zip(records, rows, strict=True)])
        calibration = self.classifier.calibration
        points = calibration.operating_points if calibration else None
        frame = worklist_frame(
            listed,
            self.key,
            identify=self.identify,
            operating_point=points.rule if points else "",
            model_hash=self.classifier.weights_hash(),
        )
        for folder in ("", f"{PRIVATE}/"):
            (self.out / f"{folder}{WORKLIST}").unlink(missing_ok=True)
        self._write(f"{PRIVATE}/{WORKLIST}" if self.identify else WORKLIST, [csv_of(frame)])
        facts = {"Model": f"{self.classifier.name} {self.classifier.weights_hash()}"}
        if points is not None and calibration is not None:
            facts["Operating point"] = f"{points.rule}, chosen on {calibration.chosen_on.part} patients"
        for folder, is_written in ((PRIVATE.as_posix(), True), ("", self.options.share_pages)):
            if is_written:
                shown = index_rows(listed, identify=self.identify and bool(folder), folder=folder)
                html = index_page(shown, title=f"{len(shown)} {'study' if len(shown) == 1 else 'studies'}", facts=facts)
                self._write(f"{folder}/{INDEX_PAGE}" if folder else INDEX_PAGE, [html])

    def _answer(self, sample: SampleSubmission) -> None:
        """Write the submission from the tables that are on disk."""
        columns = {Path(SLICES): ["scan_id", "slice", *LABELS], PRIVATE / KEY_TABLE: ["scan_id", "slice", "sop_uid"]}
        slices, key = (
            pd.read_csv(self.out / table, usecols=names, dtype=str)  # hashes and UIDs may look like numbers
            if (self.out / table).exists()  # not if every study failed
            else pd.DataFrame(columns=names)
            for table, names in columns.items()
        )
        slices = slices.astype(dict.fromkeys(LABELS, np.float64))  # exactly: pandas' own parser may round the last bit
        write_submission(slices, key, sample, self.out / PRIVATE / SUBMISSION)

    def _write_manifest(self, records: Sequence[StudyRecord], files: Counter[str], estimated: Estimate | None) -> None:
        """What was made by which model with which options, and which of the files are private."""
        predicted = sum(record.is_predicted for record in records)
        counts = {"studies": len(records), "predicted": predicted, "failed": len(records) - predicted}
        private = (file.relative_to(self.out).as_posix() for file in (self.out / PRIVATE).rglob("*") if file.is_file())
        options = asdict(self.options)
        options["series_uid"] = options["series_uid"] is not None  # whether; a UID is an identity
        manifest: dict[str, Any] = {
            "ich_lstm": version("ich_lstm"),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
            "model": {"name": self.classifier.name, "hash": self.classifier.weights_hash()},
            "labels": list(LABELS),
            "calibration": describe_calibration(self.classifier.calibration, estimated),
            "options": {**options, "identify": self.identify},
            "counts": {**counts, "files": {action: files[action] for action in ACTIONS}},
            "private": sorted(private),
        }
        self._write(MANIFEST, [json.dumps(manifest, indent=2) + "\n"])


def find_studies(paths: Sequence[Path], *, out: Path, progress: Progress | None = None) -> Archive:
    """All studies below some paths; a NIfTI file is one of its own, wherever it lies.

    Args:
        paths: Folders, archives or files.
        out: Where predictions are written, which is not looked into.
        progress: Told how far it is.
    """
    tell = progress or (lambda what, done, total: None)
    jobs: list[Job] = []
    ledgers: dict[Path, Ledger] = {}
    seen: set[str] = set()
    for path in paths:
        found, ledger = _studies_below(path, out, lambda done: tell("reading headers", done, None))
        for job in found:
            jobs.append(job.as_repeated() if job.digest in seen else job)
            if job.digest in seen:
                _mark_repeated(job, ledger)
            seen.add(job.digest)
        ledgers.setdefault(path, ledger)  # a path that is named twice has its files once
    return Archive(jobs, ledgers)


def _studies_below(path: Path, out: Path, progress: Callable[[int], None]) -> tuple[list[Job], Ledger]:
    """The studies of a path, each NIfTI file as one of its own, and what became of the path's files."""
    if is_nifti(path):
        return [Job(path, file=FileRef(path.absolute()))], Ledger()
    ledger = Ledger()
    try:
        index: Index = index_source(path, progress=progress, must_have_ct=False, leave_out=out)
        ledger = index.ledger
        index.refuse_empty(path)
    except IchLstmError as error:
        if not len(ledger) and path.is_file():
            ledger.add(FileRef(path.absolute()), error)
        return [Job(path, error=error)], ledger
    jobs = [Job(path, study) for study in index.studies()]
    for file in index.nifti_files:
        refusal = None if file.member is None else in_archive(file)
        jobs.append(Job(path, file=file, error=refusal))
        if refusal is not None:
            ledger.add(file, refusal)
    return jobs, ledger


def _mark_repeated(job: Job, ledger: Ledger) -> None:
    """Note the files of a study that another path holds, too."""
    reason = "it lies below another path that was named, too"
    if job.study is not None:
        for series in job.study.series:
            ledger.mark(series.headers, "duplicate_file", reason)
    elif job.error is None:
        ledger.update([LedgerRow(str(file), "", "", "skipped", "duplicate_file", reason) for file in job.files()])
