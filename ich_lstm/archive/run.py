"""Predict an archive: every study gets a row, one failure does not stop the others, and finished studies are skipped."""

import json
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.archive.folder.file_names import (
    ARRIVALS,
    BEGUN,
    INDEX_PAGE,
    KEY_TABLE,
    LEDGER_TABLE,
    LOCK,
    MANIFEST,
    RECORDS,
    SCANS,
    SERIES_TABLE,
    SLICES,
    SUBMISSION,
    WORKLIST,
)
from ich_lstm.archive.folder.folder import Arrivals, is_free, not_ours
from ich_lstm.archive.folder.ledger import write_merged
from ich_lstm.archive.folder.study_record import JoinedTable, StudyRecord, StudyRecords, csv_of
from ich_lstm.archive.folder.worklist import Listed, by_urgency, index_rows, worklist_frame
from ich_lstm.archive.prevalence_shift import check_estimable, describe_calibration, move_to_estimated_share
from ich_lstm.archive.study import REPEATED, Job, PredictOptions, predict_study
from ich_lstm.data.labels.submission import SampleSubmission, write_submission
from ich_lstm.errors import ConfigError, IchLstmError
from ich_lstm.files.atomic_write import remove_asides, written_aside
from ich_lstm.inference.predictor import Predictor
from ich_lstm.labels import LABELS
from ich_lstm.pages.index_page import index_page
from ich_lstm.privacy import PRIVATE, ProjectKey, private_folder
from ich_lstm.reading import FileRef, Index, index_source, is_nifti
from ich_lstm.reading.ledger.ledger import ACTIONS, Ledger
from ich_lstm.reading.series.nifti import in_archive
from ich_lstm.reading.study.choose import tell_apart, with_qualifier
from ich_lstm.reading.study.shared_names import find_shared_names
from ich_lstm.statistics import Estimate

Progress = Callable[[str, int, int | None], None]

LAYOUT = 2
"""Of what is remembered of the studies; a folder of another layout cannot be added to."""

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


class Finished(NamedTuple):
    """What a command has done, and what the folder holds.

    Args:
        records: What became of each study of this command, without its tables.
        listed: Number of studies in the folder.
        refused_alone: Number of files of this command that were refused and belong to no study, so that a study may be missing.
        unfinished: Paths that an earlier command had begun and did not finish.
    """

    records: list[StudyRecord]
    listed: int
    refused_alone: int
    unfinished: list[str]


class ArchiveRun:
    """The folder of predictions of one or more archives.

    Shareable, with hashed ids: ``slices.csv``, ``scans.csv`` (a row for every study in the order in which they came; ``status``
    is ``ok`` or the reason code), ``worklist.csv`` (the most urgent first), ``manifest.json``; with ``share_pages`` also pages
    without the face and an index of them. In ``private/``: the key to the ids, the ledger of all files, the series of every
    study with the reason for which each is or is not read, a page per scan (a stack of slices shows the face) and an index of
    them, exports that name the patient, the submission, the worklist if it names the studies, and a record of each study.

    The folder accumulates: a further command adds its studies, and all tables are made from the records of all studies. A study
    that is read again, from wherever, replaces its row and its pages. Studies that are done, and whose files have not changed,
    are not predicted again, so that a command that was stopped goes on where it was. `claim_predictions` keeps a second
    command out; it should be held from before `find_studies` to after `finish`.

    Args:
        predictor: The model.
        archive: The studies that `find_studies` found.
        out: Folder to make or to add to; if it holds predictions, they must be of the same model with the same key and options.
        key: The project's key.
        options: What is read and written; None: the defaults.
        identify: Name accession number, study UID, patient id and study date in the worklist, which is private then.
        estimate_share: When all is predicted, estimate the share of positive scans without labels, and move the calibrated
            probabilities in the tables to it (not those on the pages); the manifest tells it, and what it assumes.
        submission: RSNA's sample submission, to answer it when all is predicted.

    Raises:
        ConfigError: If ``out`` holds something else, or was begun with another model, key or options.
        TableError: If the sample submission is malformed.
    """

    def __init__(
        self,
        predictor: Predictor,
        archive: Archive,
        out: Path,
        *,
        key: ProjectKey,
        options: PredictOptions | None = None,
        identify: bool = False,
        estimate_share: bool = False,
        submission: Path | None = None,
    ) -> None:
        self.predictor = predictor
        self.archive = archive
        self.out = out
        self.key = key
        self.options = options or PredictOptions()
        self.identify = identify
        self.estimate_share = estimate_share
        self.sample = SampleSubmission.read(submission) if submission else None
        if estimate_share:
            check_estimable(predictor.calibration)
        self._loose = Ledger()
        self._begin()
        self._records = StudyRecords(out / PRIVATE / RECORDS)
        self._arrivals = Arrivals(out / PRIVATE / ARRIVALS)
        self._again: set[str] = set()
        self._arrive()
        self._taken = self._scans_of_others()

    def __len__(self) -> int:
        """Number of studies, and of paths from which none could be read."""
        return len(self.archive.jobs)

    def predict(self, number: int) -> Progressed:
        """Predict a study, unless that is done; all that is written for it alone is on disk then.

        Args:
            number: Of the study, from 0.
        """
        job, identifier = self._with_own_ids(number), self._identifier(number)
        files = job.files()
        record = self._records.read(identifier, files, self.out, job.digest)
        # What was refused is tried again: a codec that was missing may be there by now.
        if record is not None and record.is_predicted:
            return Progressed(record, False)
        former = self._records.remembered(identifier)
        record = predict_study(self.predictor, job, self.out, self.options, self.key)
        self._records.write(identifier, files, record, job.digest)
        if former is not None:  # its pages, where they have other names than the new ones
            self._remove_files(set(former.files) - set(record.files))
        return Progressed(record, True)

    def finish(self) -> Finished:
        """Write what is made of all studies of the folder together.

        Returns:
            What became of each study.

        Raises:
            TableError: If an image of the sample submission has no probability; all else is on disk then.
        """
        # Before the ledgers learn what became of the studies: what is refused now is no slice of any.
        refused_alone = sum(ledger.counts()["refused"] for ledger in self.archive.ledgers.values())
        listed, mine = self._write_tables()
        counts = self._write_ledger()
        calibration = self.predictor.calibration
        estimated = None
        try:
            if self.estimate_share:
                estimated = move_to_estimated_share(self.out / SLICES, self.out / SCANS, calibration)
            self._write_worklist(listed)
            self._arrivals.finish(job.root for job in self.archive.jobs)
            if self.sample is not None:
                self._answer(self.sample)
        finally:
            remove_asides(self.out)
            self._write_manifest(listed, counts, estimated)
        records = [mine[self._identifier(number)] for number in range(len(self))]
        return Finished(records, len(listed), refused_alone, list(self._arrivals.unfinished))

    def _write_tables(self) -> tuple[list[StudyRecord], dict[str, StudyRecord]]:
        """Write the tables study by study; returns the records of all, and those of this command by their identifiers.

        The records are returned without their tables, of which those of a year do not fit into memory.
        """
        listed: list[StudyRecord] = []
        mine: dict[str, StudyRecord] = {}
        names = (SLICES, SCANS, f"{PRIVATE}/{KEY_TABLE}", f"{PRIVATE}/{SERIES_TABLE}")
        with ExitStack() as stack:
            tables = {}
            for name in names:
                aside = stack.enter_context(written_aside(self.out / name))
                file = stack.enter_context(aside.open("w", encoding="utf-8", newline=""))
                tables[name] = JoinedTable(file)
            for identifier, job, record in self._all_records():
                for name, text in record.tables.items():
                    tables[name].add(text)
                kept = replace(record, tables={}, ledger=[], choices=[], text="")
                listed.append(kept)
                if job is not None:
                    self.archive.ledgers.get(job.root, self._loose).update(record.ledger_rows)
                    mine[identifier] = kept
        for name, table in tables.items():
            if not table.has_rows:  # nothing came with such rows
                (self.out / name).unlink()
        return listed, mine

    def _all_records(self) -> Iterator[tuple[str, Job | None, StudyRecord]]:
        """Identifier and record of every study that is done, in the order in which they came; with the job, if it is ours."""
        ours = {self._identifier(number): number for number in range(len(self))}
        for identifier in self._arrivals.studies:
            number = ours.get(identifier)
            if number is None:
                record = self._records.remembered(identifier)
                if record is not None:  # a page may have been removed since
                    there = [file for file in record.files if (self.out / file).is_file()]
                    yield identifier, None, replace(record, files=there)
                continue
            job = self._with_own_ids(number)
            done = self._records.read(identifier, job.files(), self.out, job.digest) or self.predict(number).record
            yield identifier, job, done

    def _identifier(self, number: int) -> str:
        return self.key.hash_id(self.archive.jobs[number].identifier)

    def _with_own_ids(self, number: int) -> Job:
        """The study under ids that no other study of the folder has: that of an earlier night may be another person's."""
        job = self.archive.jobs[number]
        if job.study is None or job.error is not None or not self._taken:
            return job
        named = [job.study.identifier, *(series.identifier for series in job.study.series)]
        mine = self._identifier(number)
        shared = {name for name in named if self._taken.get(self.key.hash_id(name), mine) != mine}
        return replace(job, study=with_qualifier(job.study, shared)) if shared else job

    def _scans_of_others(self) -> dict[str, str]:
        """Scan ids of studies that this command does not read, with the identifiers of the studies."""
        ours = {self._identifier(number) for number in range(len(self))}
        taken: dict[str, str] = {}
        for identifier in self._arrivals.studies:
            record = None if identifier in ours else self._records.remembered(identifier)
            if record is not None:
                scans = pd.read_csv(StringIO(record.tables[SCANS]), usecols=["scan_id"], dtype=str)
                taken |= dict.fromkeys(scans["scan_id"], identifier)
        return taken

    def _remove_files(self, files: Iterable[str]) -> None:
        for file in files:
            (self.out / file).unlink(missing_ok=True)

    def _arrive(self) -> None:
        """Give each study its place in the folder, and forget what the studies show to be no longer true."""
        known = set(self._arrivals.studies)
        for number, job in enumerate(self.archive.jobs):
            if job.study is not None and not job.is_copy and self._identifier(number) in known:
                self._again |= {uid for series in job.study.series for uid in series.series_uids}
        # A path from which nothing could be read has studies now; what was a copy beside another path is none.
        void = [Job(path) for path in self.archive.ledgers]
        void += [replace(job, is_copy=True) for job in self.archive.jobs if not job.is_copy]
        ours = {self._identifier(number) for number in range(len(self))}
        forgotten = {self.key.hash_id(job.identifier) for job in void} & known - ours
        for identifier in forgotten:
            record = self._records.remembered(identifier)
            self._remove_files(record.files if record else ())
            self._records.forget(identifier)
        identifiers = (self._identifier(number) for number in range(len(self)))
        self._arrivals.begin(identifiers, (job.root for job in self.archive.jobs), forget=forgotten)

    def _begin(self) -> None:
        """Make the folder, or see that this is the command that has begun it."""
        begun = {
            "layout": LAYOUT,
            "ich_lstm": version("ich_lstm"),
            "model": self.predictor.weights_hash(),
            "calibration": json.loads(json.dumps(describe_calibration(self.predictor.calibration))),
            "options": self.options.to_dict(),
            "key": self.key.hash_id(""),
        }
        path = self.out / PRIVATE / BEGUN
        if is_free(self.out):
            with written_aside(private_folder(self.out) / BEGUN) as aside:
                aside.write_text(json.dumps(begun))
            return
        try:
            there = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise not_ours(self.out) from error
        other = [name for name in begun if name != "options" and there.get(name) != begun[name]]
        if not self.options.is_same_as(there.get("options", {})):
            other.append("options")
        if other:
            raise ConfigError(
                "other_predictions",
                where="--out",
                got=f"{self.out}, whose predictions were made with other settings ({', '.join(other)})",
                expected="one model, one key and the same options for all studies of a folder",
                todo="Name a new folder, or repeat the command as it was.",
            )

    def _write(self, table: str, lines: Iterable[str]) -> None:
        with written_aside(self.out / table) as aside, aside.open("w", encoding="utf-8", newline="") as file:
            file.writelines(lines)
        if not (self.out / table).stat().st_size:  # nothing came with such rows
            (self.out / table).unlink()

    def _write_ledger(self) -> Counter[str]:
        """What became of every file; returns their number by action."""
        path = self.out / PRIVATE / LEDGER_TABLE
        ledgers = [*self.archive.ledgers.values(), self._loose]
        with written_aside(path) as aside:
            return write_merged(path, aside, ledgers, roots=[job.root for job in self.archive.jobs], again=self._again)

    def _write_worklist(self, records: Sequence[StudyRecord]) -> None:
        scans = pd.read_csv(self.out / SCANS, dtype=str, keep_default_na=False)
        rows = (dict(zip(scans.columns, row, strict=True)) for row in scans.itertuples(index=False))
        listed = by_urgency([Listed(record, row) for record, row in zip(records, rows, strict=True)])
        calibration = self.predictor.calibration
        points = calibration.operating_points if calibration else None
        frame = worklist_frame(
            listed,
            self.key,
            identify=self.identify,
            operating_point=points.rule if points else "",
            model_hash=self.predictor.weights_hash(),
        )
        for folder in ("", f"{PRIVATE}/"):
            (self.out / f"{folder}{WORKLIST}").unlink(missing_ok=True)
        self._write(f"{PRIVATE}/{WORKLIST}" if self.identify else WORKLIST, [csv_of(frame)])
        facts = {"Model": f"{self.predictor.name} {self.predictor.weights_hash()}"}
        if points is not None and calibration is not None:
            facts["Operating point"] = f"{points.rule}, chosen on {calibration.chosen_on.subset} patients"
        for folder, is_written in ((PRIVATE.as_posix(), True), ("", self.options.share_pages)):
            if is_written:
                shown = index_rows(listed, identify=self.identify and bool(folder), folder=folder)
                html = index_page(
                    shown,
                    title=f"{len(shown)} {'study' if len(shown) == 1 else 'studies'}",
                    facts=facts,
                    has_operating_point=points is not None,
                )
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
        lock = self.out / PRIVATE / LOCK  # there while a command runs
        files_there = [lock, *(file for file in (self.out / PRIVATE).rglob("*") if file.is_file())]
        private = {file.relative_to(self.out).as_posix() for file in files_there}
        options = self.options.to_dict()
        options["series_uid"] = options["series_uid"] is not None  # whether; a UID is an identity
        manifest: dict[str, Any] = {
            "ich_lstm": version("ich_lstm"),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
            "model": {"name": self.predictor.name, "hash": self.predictor.weights_hash()},
            "labels": list(LABELS),
            "calibration": describe_calibration(self.predictor.calibration, estimated),
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
        progress: Called with what is being done, how much was done since the last call, and of how many (None: not known).
    """
    progress = progress or (lambda what, done, total: None)
    jobs: list[Job] = []
    ledgers: dict[Path, Ledger] = {}
    for path in paths:
        found, ledger = _studies_below(path, out, lambda done: progress("reading headers", done, None))
        jobs += found
        ledgers.setdefault(path, ledger)  # a path that is named twice has its files once
    return Archive(_told_apart(jobs, ledgers), ledgers)


def _studies_below(path: Path, out: Path, progress: Callable[[int], None]) -> tuple[list[Job], Ledger]:
    """The studies of a path, each NIfTI file as one of its own, and what became of the path's files."""
    if is_nifti(path):
        return [Job(path, file=FileRef(path.absolute()))], Ledger()
    ledger = Ledger()
    try:
        index: Index = index_source(path, progress=progress, must_have_ct=False, exclude=out)
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


def _told_apart(jobs: list[Job], ledgers: Mapping[Path, Ledger]) -> list[Job]:
    """Mark studies that an earlier path also holds as copies, and make ids unique over all paths."""
    seen: dict[str, Job] = {}
    places = []
    for place, job in enumerate(jobs):
        if job.error is not None:
            continue
        first = seen.setdefault(job.identifier, job)
        if first is not job:
            copy = jobs[place] = job.as_copy_of(first)
            if copy.error is not None and job.study is not None and copy.error.code != REPEATED:
                for series in job.study.series:
                    ledgers[job.root].mark(series.headers, copy.error.code, copy.error.detail)
        elif job.study is not None:
            places.append(place)
    studies = tell_apart([study for place in places if (study := jobs[place].study) is not None])
    shared = find_shared_names(studies)
    for place, study in zip(places, studies, strict=True):
        if shared or study is not jobs[place].study:
            jobs[place] = replace(jobs[place], study=study, shared=shared)
    return jobs
