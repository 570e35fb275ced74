"""Predicts an archive: every study gets a row, a failure does not stop other studies, and finished studies are skipped."""

import json
import logging
import platform
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from importlib.metadata import version
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
from ich_lstm.archive.folder.folder import Arrivals, is_free, not_predictions
from ich_lstm.archive.folder.ledger import write_merged
from ich_lstm.archive.folder.study_record import JoinedTable, StudyRecord, StudyRecords, TableRows
from ich_lstm.archive.folder.worklist import Listed, by_urgency, index_rows, worklist_frame
from ich_lstm.archive.prevalence_shift import check_estimable, describe_calibration, estimate_share, move_to_share
from ich_lstm.archive.study import REPEATED, Job, PredictOptions, predict_study
from ich_lstm.data.labels.submission import SampleSubmission, write_submission
from ich_lstm.errors import ConfigError, IchLstmError
from ich_lstm.files.atomic_write import atomic_write, remove_unfinished, write_text
from ich_lstm.files.csv_table import plain_table, write_csv
from ich_lstm.inference.predictor import Predictor
from ich_lstm.labels import LABELS
from ich_lstm.pages.index_page import index_page
from ich_lstm.privacy import PRIVATE, ProjectKey, private_folder
from ich_lstm.reading import FileRef, Index, index_source, is_nifti
from ich_lstm.reading.ledger.ledger import ACTIONS, Ledger
from ich_lstm.reading.series.nifti import in_archive
from ich_lstm.reading.study.choose import make_identifiers_unique, with_qualifier
from ich_lstm.reading.study.shared_names import find_shared_names
from ich_lstm.statistics import Estimate
from ich_lstm.unexpected import concerns_all, one_of_many

Progress = Callable[[str, int, int | None], None]

LAYOUT = 3
"""Version of the stored records; studies cannot be added to a folder of another version."""

PACKAGES = ("torch", "timm", "pytorch-lightning", "pydicom", "opencv-python-headless", "numpy")


STRANGE = ("unexpected_error", "out_of_memory", "not_finite")
"""Statuses of studies that were not refused for what is in their files."""

MANY_IN_A_ROW = 5
"""Number of such studies one after the other at which a warning says so. The command goes on, because they cost little."""

logger = logging.getLogger(__name__)


class Archive(NamedTuple):
    """The studies to predict.

    Args:
        jobs: One job per study, or per path from which no study could be read, in the order of the paths.
        ledgers: Ledger of the files of each path; empty for a path that is a NIfTI file.
    """

    jobs: list[Job]
    ledgers: dict[Path, Ledger]


class Progressed(NamedTuple):
    """A finished study.

    Args:
        record: The record of the study.
        is_new: Whether the study was predicted now, rather than by an earlier command.
    """

    record: StudyRecord
    is_new: bool


class Finished(NamedTuple):
    """The results of a command, and the state of the folder.

    Args:
        records: Record of each study of this command, without its tables.
        listed: Number of studies in the folder.
        refused_alone: Number of refused files of this command that belong to no study, so that a study may be missing.
        unfinished: Paths that an earlier command has begun and not finished.
    """

    records: list[StudyRecord]
    listed: int
    refused_alone: int
    unfinished: list[str]


class ArchiveRun:
    """The folder of predictions of one or more archives.

    Shareable files, with hashed ids: ``slices.csv``, ``scans.csv`` (one row per study in order of arrival; ``status`` is ``ok``
    or the reason code), ``worklist.csv`` (most urgent first), ``manifest.json``; with ``share_pages`` also defaced pages and
    their index. Files in ``private/``: the key to the ids, the ledger of all files, the series of every study with the reason
    why each was or was not read, a page per scan (a stack of slices shows the face) and their index, exports with identities,
    the submission, the worklist if it contains identities, and a record of each study.

    The folder accumulates: each command adds its studies, and all tables are built from the records of all studies. A study
    that is read again, from any location, replaces its row and its pages. Finished studies whose files have not changed are not
    predicted again, so that an interrupted command can be continued. `claim_predictions` locks the folder for one command; the
    lock should be held from before `find_studies` until after `finish`.

    Args:
        predictor: The model with its preprocessing and calibration.
        archive: The studies from `find_studies`.
        out: Folder to create or to extend. Predictions in it must be of the same model, with the same key and options.
        key: Key of the project, for hashed ids.
        options: Settings of what is read and written; None for the defaults.
        identify: Whether the worklist contains accession number, study UID, patient id and study date; it is then private.
        estimate_share: Whether, at the end, the share of positive scans is estimated without labels, and the calibrated
            probabilities in the tables (not on the pages) are adjusted to it. The manifest records the share and its
            assumptions.
        submission: RSNA's sample submission, for which a submission is written at the end.

    Raises:
        ConfigError: If ``out`` contains other files, or was created with another model, key or options.
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
        self._check_or_create()
        self._records = StudyRecords(out / PRIVATE / RECORDS)
        self._arrivals = Arrivals(out / PRIVATE / ARRIVALS)
        self._again: set[str] = set()
        self._strange = 0
        self._register_studies()
        self._taken = self._scan_ids_of_others()

    def __len__(self) -> int:
        """Number of studies, plus the number of paths from which no study could be read."""
        return len(self.archive.jobs)

    def predict(self, number: int) -> Progressed:
        """Predict a study, unless it is finished, and write all files that concern it alone.

        Args:
            number: Number of the study, from 0.
        """
        job, identifier = self._job_with_unique_ids(number), self._identifier(number)
        files = job.files()
        record = self._records.read(identifier, files, self.out, job.digest)
        # Refused studies are tried again: a missing codec, for example, may have been installed, or there is more memory now.
        if record is not None and record.is_predicted and not record.tracebacks:
            return Progressed(record, False)
        former = self._records.read_any(identifier)
        record = predict_study(self.predictor, job, self.out, self.options, self.key)
        self._records.write(identifier, files, record, job.digest)
        self._tell_of_many_failures(record)
        if former is not None:  # remove earlier pages whose names differ from the new ones
            self._remove_files(set(former.files) - set(record.files))
        return Progressed(record, True)

    def _tell_of_many_failures(self, record: StudyRecord) -> None:
        """Say once, loudly, that studies fail one after the other in a way that points to the model or the machine."""
        self._strange = self._strange + 1 if record.status in STRANGE else 0
        if self._strange == MANY_IN_A_ROW:
            logger.warning(
                "%d studies in a row have failed with %s, which points to the model or the machine rather than to the studies. "
                "The others are tried too; the same command tries the failed ones again.",
                self._strange,
                record.status,
            )

    def finish(self) -> Finished:
        """Write the files that concern all studies of the folder.

        Returns:
            The records of the studies, and the state of the folder.

        Raises:
            TableError: If an image of the sample submission has no probability; all other files have been written.
        """
        # Count before the outcomes of the studies are added to the ledgers: a file refused so far belongs to no study.
        refused_alone = sum(ledger.counts()["refused"] for ledger in self.archive.ledgers.values())
        share = self._estimate_share() if self.estimate_share else None
        listed, mine = self._write_tables(share)
        counts = self._write_ledger()
        try:
            self._write_worklist(listed)
            self._arrivals.finish(job.root for job in self.archive.jobs)
            if self.sample is not None:
                self._write_answers(self.sample)
        finally:
            remove_unfinished(self.out)
            self._write_manifest(listed, counts, share)
        records = [mine[self._identifier(number)] for number in range(len(self))]
        return Finished(records, len(listed), refused_alone, list(self._arrivals.unfinished))

    def _estimate_share(self) -> Estimate:
        """Estimate the share of positive scans from the records of all studies."""
        scans = [record.tables[SCANS].frame() for _, _, record in self._all_records()]
        return estimate_share(pd.concat(scans, ignore_index=True), self.predictor.calibration)

    def _write_tables(self, share: Estimate | None) -> tuple[list[StudyRecord], dict[str, StudyRecord]]:
        """Write the tables study by study.

        Args:
            share: The share of positive scans to which calibrated probabilities are adjusted; None: they stay as they are.

        Returns:
            The records of all studies, and those of this command by identifier. Of their tables they keep only the row of
            the scan, because the tables of a year do not fit into memory.
        """
        listed: list[StudyRecord] = []
        mine: dict[str, StudyRecord] = {}
        names = (SLICES, SCANS, f"{PRIVATE}/{KEY_TABLE}", f"{PRIVATE}/{SERIES_TABLE}")
        with ExitStack() as stack:
            tables = {}
            for name in names:
                unfinished = stack.enter_context(atomic_write(self.out / name))
                file = stack.enter_context(unfinished.open("w", encoding="utf-8", newline=""))
                tables[name] = JoinedTable(file)
            for identifier, job, record in self._all_records():
                of_study = dict(record.tables)
                if share is not None and record.is_predicted:
                    slices, scans = of_study[SLICES].frame(), of_study[SCANS].frame()
                    slices, scans = move_to_share(slices, scans, share, self.predictor.calibration)
                    of_study |= {SLICES: TableRows.of(slices), SCANS: TableRows.of(scans)}
                for name, rows in of_study.items():
                    tables[name].add(rows)
                kept = replace(record, tables={SCANS: of_study[SCANS]}, ledger=[], choices=[], text="")
                listed.append(kept)
                if job is not None:
                    self.archive.ledgers.get(job.root, self._loose).update(record.ledger_rows)
                    mine[identifier] = kept
        for name, table in tables.items():
            if not table.has_rows:  # no study has rows for this table
                (self.out / name).unlink()
        return listed, mine

    def _all_records(self) -> Iterator[tuple[str, Job | None, StudyRecord]]:
        """Yield identifier, job (None for studies of earlier commands) and record of every finished study in order of arrival."""
        own_numbers = {self._identifier(number): number for number in range(len(self))}
        for identifier in self._arrivals.studies:
            number = own_numbers.get(identifier)
            if number is None:
                record = self._records.read_any(identifier)
                if record is not None:  # an earlier page may have been deleted
                    there = [file for file in record.files if (self.out / file).is_file()]
                    yield identifier, None, replace(record, files=there)
                continue
            job = self._job_with_unique_ids(number)
            done = self._records.read(identifier, job.files(), self.out, job.digest) or self.predict(number).record
            yield identifier, job, done

    def _identifier(self, number: int) -> str:
        return self.key.hash_id(self.archive.jobs[number].identifier)

    def _job_with_unique_ids(self, number: int) -> Job:
        """The job with ids that no other study of the folder has: an earlier study with equal ids may be another person's."""
        job = self.archive.jobs[number]
        if job.study is None or job.error is not None or not self._taken:
            return job
        named = [job.study.identifier, *(series.identifier for series in job.study.series)]
        mine = self._identifier(number)
        shared = {name for name in named if self._taken.get(self.key.hash_id(name), mine) != mine}
        return replace(job, study=with_qualifier(job.study, shared)) if shared else job

    def _scan_ids_of_others(self) -> dict[str, str]:
        """Scan ids of studies that this command does not read, with the identifiers of these studies."""
        own_identifiers = {self._identifier(number) for number in range(len(self))}
        taken: dict[str, str] = {}
        for identifier in self._arrivals.studies:
            record = None if identifier in own_identifiers else self._records.read_any(identifier)
            if record is not None:
                taken |= dict.fromkeys(record.tables[SCANS].frame()["scan_id"], identifier)
        return taken

    def _remove_files(self, files: Iterable[str]) -> None:
        for file in files:
            (self.out / file).unlink(missing_ok=True)

    def _register_studies(self) -> None:
        """Add the studies to the order of arrival, and remove records that the new studies make obsolete."""
        known = set(self._arrivals.studies)
        for number, job in enumerate(self.archive.jobs):
            if job.study is not None and not job.is_copy and self._identifier(number) in known:
                self._again |= {uid for series in job.study.series for uid in series.series_uids}
        # Obsolete: errors of paths that now contain studies, and copies that are now read from their own path.
        obsolete = [Job(path) for path in self.archive.ledgers]
        obsolete += [replace(job, is_copy=True) for job in self.archive.jobs if not job.is_copy]
        own_identifiers = {self._identifier(number) for number in range(len(self))}
        forgotten = {self.key.hash_id(job.identifier) for job in obsolete} & known - own_identifiers
        for identifier in forgotten:
            record = self._records.read_any(identifier)
            self._remove_files(record.files if record else ())
            self._records.remove(identifier)
        identifiers = (self._identifier(number) for number in range(len(self)))
        self._arrivals.begin(identifiers, (job.root for job in self.archive.jobs), forget=forgotten)

    def _check_or_create(self) -> None:
        """Create the folder, or check that it was created with the same settings."""
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
            write_text(private_folder(self.out) / BEGUN, json.dumps(begun))
            return
        try:
            there = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise not_predictions(self.out) from error
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

    def _write_ledger(self) -> Counter[str]:
        """Write the outcome of every file, and return the number of files by action."""
        path = self.out / PRIVATE / LEDGER_TABLE
        ledgers = [*self.archive.ledgers.values(), self._loose]
        with atomic_write(path) as unfinished:
            return write_merged(path, unfinished, ledgers, roots=[job.root for job in self.archive.jobs], again=self._again)

    def _write_worklist(self, records: Sequence[StudyRecord]) -> None:
        scans = (record.tables[SCANS] for record in records)
        rows = (dict(zip(table.columns, row, strict=True)) for table in scans for row in table.rows)
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
        write_csv(self.out / PRIVATE / WORKLIST if self.identify else self.out / WORKLIST, frame)
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
                write_text(self.out / folder / INDEX_PAGE, html)

    def _write_answers(self, sample: SampleSubmission) -> None:
        """Write the submission from the tables on disk."""
        columns = {Path(SLICES): ["scan_id", "slice", *LABELS], PRIVATE / KEY_TABLE: ["scan_id", "slice", "sop_uid"]}
        slices, key = (
            plain_table(pd.read_csv(self.out / table, usecols=names, dtype=str))  # text: hashes and UIDs may look like numbers
            if (self.out / table).exists()  # the table is missing if every study failed
            else pd.DataFrame(columns=names)
            for table, names in columns.items()
        )
        slices = slices.astype(dict.fromkeys(LABELS, np.float64))  # exact: pandas' own parser may round the last bit
        write_submission(slices, key, sample, self.out / PRIVATE / SUBMISSION)

    def _write_manifest(self, records: Sequence[StudyRecord], files: Counter[str], estimated: Estimate | None) -> None:
        """Write which model and options produced the files, and which of the files are private."""
        predicted = sum(record.is_predicted for record in records)
        counts = {"studies": len(records), "predicted": predicted, "failed": len(records) - predicted}
        lock = self.out / PRIVATE / LOCK  # exists while a command runs
        files_there = [lock, *(file for file in (self.out / PRIVATE).rglob("*") if file.is_file())]
        private = {file.relative_to(self.out).as_posix() for file in files_there}
        options = self.options.to_dict()
        options["series_uid"] = options["series_uid"] is not None  # only whether it was given, because a UID is an identity
        manifest: dict[str, Any] = {
            "ich_lstm": version("ich_lstm"),
            "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
            "model": {"name": self.predictor.name, "hash": self.predictor.weights_hash()},
            "engines": _distinct(record.engine for record in records if record.engine),
            "labels": list(LABELS),
            "calibration": describe_calibration(self.predictor.calibration, estimated),
            "options": {**options, "identify": self.identify},
            "counts": {**counts, "files": {action: files[action] for action in ACTIONS}},
            "private": sorted(private),
        }
        write_text(self.out / MANIFEST, json.dumps(manifest, indent=2) + "\n")


def _distinct(engines: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Each engine once: commands of other nights may have run on another machine."""
    return [json.loads(text) for text in sorted({json.dumps(engine, sort_keys=True) for engine in engines})]


def find_studies(paths: Sequence[Path], *, out: Path, progress: Progress | None = None) -> Archive:
    """Find all studies below some paths; every NIfTI file is a study of its own.

    Args:
        paths: Folders, archives or files.
        out: Folder of predictions, which is not searched.
        progress: Called with the current activity, the amount done since the last call, and the total (None if unknown).
    """
    progress = progress or (lambda what, done, total: None)
    jobs: list[Job] = []
    ledgers: dict[Path, Ledger] = {}
    for path in paths:
        found, ledger = _studies_below(path, out, lambda done: progress("reading headers", done, None))
        jobs += found
        ledgers.setdefault(path, ledger)  # the files of a path that is named twice count once
    return Archive(_mark_copies(jobs, ledgers), ledgers)


def _studies_below(path: Path, out: Path, progress: Callable[[int], None]) -> tuple[list[Job], Ledger]:
    """The studies and NIfTI files of a path, and the ledger of its files."""
    if is_nifti(path):
        return [Job(path, file=FileRef(path.absolute()))], Ledger()
    ledger = Ledger()
    try:
        with one_of_many(str(path)):
            index: Index = index_source(path, progress=progress, must_have_ct=False, exclude=out)
            ledger = index.ledger
            index.refuse_empty(path)
    except IchLstmError as error:
        if concerns_all(error):
            raise
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


def _mark_copies(jobs: list[Job], ledgers: Mapping[Path, Ledger]) -> list[Job]:
    """Mark studies that an earlier path also contains as copies, and make ids unique over all paths."""
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
    studies = make_identifiers_unique([study for place in places if (study := jobs[place].study) is not None])
    shared = find_shared_names(studies)
    for place, study in zip(places, studies, strict=True):
        if shared or study is not jobs[place].study:
            jobs[place] = replace(jobs[place], study=study, shared=shared)
    return jobs
