"""Turns a tree of images into a prepared folder: every file is accounted for, and every wanted scan is cached."""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pandas as pd

from ich_lstm.data.prepare.excluded import excluded_names
from ich_lstm.data.prepare.prepare_scan import RECORDS_FOLDER, ScanDone, ScanJob, prepare_scan
from ich_lstm.data.prepare.wanted_series import Choice, SeriesChooser
from ich_lstm.data.prepared.file_names import relative_name
from ich_lstm.data.prepared.folder import (
    EXCLUDED_TABLE,
    KEY_TABLE,
    LEDGER_TABLE,
    MANIFEST,
    SCANS_TABLE,
    PreparedFolder,
    unprepared_rows,
)
from ich_lstm.data.tables.labelled import NO_IMAGE, LabelTable, stop_at
from ich_lstm.errors import ConfigError, FileError, SourceError
from ich_lstm.files.atomic_write import SUFFIX, atomic_write, remove_unfinished, write_text
from ich_lstm.files.csv_table import write_csv
from ich_lstm.files.folder_lock import claimed
from ich_lstm.formatting import first_of
from ich_lstm.parallel import count_cores, map_ahead
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.printable import printable_logger
from ich_lstm.privacy import PRIVATE, ProjectKey, close_to_others, private_folder
from ich_lstm.reading import Index, Ledger, Study, index_source, walk_source
from ich_lstm.reading.series.nifti import nifti_identifier, nifti_series
from ich_lstm.reading.study.shared_names import find_shared_names, shared_kinds

logger = printable_logger(__name__)

SERIES_TABLE, LOCK, INDEX_FOLDER = "series.csv", "lock", "index"
PRIVATE_NAMES = (
    KEY_TABLE,
    SCANS_TABLE,
    SERIES_TABLE,
    LEDGER_TABLE,
    EXCLUDED_TABLE,
    RECORDS_FOLDER,
    INDEX_FOLDER,
    LOCK,
)
"""The files in ``private/``."""

PHANTOM_MARKER = "phantom.json"
"""The file that marks the library's own synthetic heads."""

JOBS_WORTH_A_PROCESS = 8
"""Fewest scans per process; starting a process takes as long as preparing a few scans."""

CHECKS_PER_JOB = 20
"""Number of cached scans that are checked in the time in which one is prepared."""

Progress = Callable[[str, int, int | None], None]
"""Called with the current step, how much of it has been done, and the total if known."""


def prepare(
    root: Path,
    out: Path,
    *,
    preprocessing: Preprocessing,
    key: ProjectKey,
    labels: LabelTable | None = None,
    choices: Mapping[str, str] | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
    exclude: Path | None = None,
) -> PreparedFolder:
    """Read a tree of head CT and cache the scans to train on or to predict.

    Of each study, the series requested in ``choices`` is used; otherwise the series that the labels name by slice or by series,
    of whatever kind; otherwise the plain axial brain series. A NIfTI file is a study of its own. A slice that cannot be read is
    excluded and its scan flagged; a series that gives no scan is refused. Every file has a row in the ledger. Scans that are
    cached already are checked, and prepared again only if damaged.

    Args:
        root: A folder, a zip archive, or a file.
        out: The folder to create.
        preprocessing: Size, crop and clipping of the scans.
        key: The project's key, from which ids are made.
        labels: Which slices and scans are labelled; studies without any label are then excluded. None: every study.
        choices: Series that override the automatic choice. It maps a study's UID, its accession number or the name of any folder
            above its files to the UID or the description of one of its series.
        workers: Number of processes; by default one per processor. With an executor, the number of calls that it can run at a
            time.
        executor: Runs the calls instead of processes of this machine, for example that of a dask.distributed client; ``root`` and
            ``out`` must have the same paths there, and the project's key is sent to it.
        progress: Called with each step's progress.
        exclude: A folder whose files do not count as source if it lies in ``root``; by default ``out``.

    Returns:
        The folder that was prepared.

    Raises:
        SourceError: If nothing can be read, or no scan is left.
        TableError: If the labels reference no image, or a choice fits no series.
        ConfigError: If ``out`` is not writable, or is the source itself.
    """
    report = progress or (lambda what, done, total: None)
    root, out = root.absolute(), out.absolute()
    exclude = exclude or out
    next(walk_source(root, exclude=exclude))  # so that a missing path or an empty folder leaves nothing behind
    private = _private_folder(root, out)
    with claimed(private / LOCK, when_taken=_tell_waiting) as is_alone:
        close_to_others(private)
        index = index_source(
            root,
            workers=workers,
            executor=executor,
            folder=private / INDEX_FOLDER,
            progress=lambda done: report("reading headers", done, None),
            must_have_ct=False,
            exclude=exclude,
        )
        ledger = index.ledger
        chooser = SeriesChooser(labels, choices, root, ledger)
        studies = list(_studies(index, root))
        shared = find_shared_names(studies)
        chosen = [(study, choice) for study in studies for choice in chooser.choose(study)]
        chooser.check_choices()
        chooser.check_labels()
        if labels is not None and not chosen:
            stop_at(labels.source, labels.rows["line"], *NO_IMAGE)
        jobs = [
            ScanJob(each, len(study.series), root, out, key, preprocessing, shared_kinds(shared, study, each))
            for study, (each, *_) in chosen
        ]
        results = _run(jobs, workers, executor, ledger, lambda done: report("preparing scans", done, len(jobs)))
        ledger.write_csv(private / LEDGER_TABLE)
        scans = sum(result.key is not None for result in results)
        if not scans:
            raise SourceError(
                "no_scan",
                where=str(root),
                got=ledger.summary().rstrip("."),
                expected="at least one readable scan of the head",
                todo=f"{private / LEDGER_TABLE} gives the reason for each file.",
            )
        _forget_other(out, preprocessing)
        tables = {
            KEY_TABLE: pd.concat([result.key for result in results if result.key is not None], ignore_index=True),
            SCANS_TABLE: pd.DataFrame([result.facts for result in results if result.facts is not None]),
            EXCLUDED_TABLE: excluded_names(chosen, results, chooser, ledger, root),
        }
        _write_tables(private, tables, chosen, root)
        key_table = tables.pop(KEY_TABLE)
        # The folder may also hold the audit of an earlier command.
        further = sorted(path.name for path in private.iterdir() if not path.name.endswith(SUFFIX))
        manifest = {
            "ich_lstm": version("ich_lstm"),
            "preprocessing": preprocessing.to_dict(),
            "files": ledger.counts(),
            "scans": scans,
            "slices": len(key_table),
            "patients": int(key_table["patient_id"][key_table["patient_id"] != ""].nunique()),
            "private": [f"{PRIVATE}/{name}" for name in dict.fromkeys((*PRIVATE_NAMES, *further))],
            "summary": ledger.summary(scans=scans),
            # The root may be a subfolder of a data set: stage_2_train, ct_scans.
            "synthetic": any((folder / PHANTOM_MARKER).is_file() for folder in (root, root.parent)),
        }
        write_text(out / MANIFEST, json.dumps(manifest, indent=2) + "\n")
        if is_alone:
            remove_unfinished(out)
    return PreparedFolder(out, preprocessing, key_table, manifest, tables | {LEDGER_TABLE: unprepared_rows(ledger)})


def _private_folder(root: Path, out: Path) -> Path:
    if root.is_dir() and out.is_dir() and os.path.samefile(root, out):
        raise ConfigError(
            "out_is_source",
            where=str(out),
            got="the folder that is the source",
            expected="another folder, which may lie in the source",
            todo=f"Name another folder, for example {out / 'prepared'}.",
        )
    try:
        return private_folder(out)
    except OSError as error:
        raise ConfigError(
            "folder_unwritable",
            where=str(out),
            got=str(error),
            expected="a writable folder",
            todo="Name another folder: --out of ich-prepare, --data.cache_dir of ich-train and of ich-evaluate.",
        ) from error


def _tell_waiting(process: str) -> None:
    logger.warning("another process (%s) prepares scans in the same folder; waiting for it", process)


def _studies(index: Index, root: Path) -> Iterator[Study]:
    """Iterate over the studies of a source, each NIfTI file as a study of its own.

    Raises:
        SourceError: If the source holds neither.
    """
    yield from index.studies()
    index.refuse_empty(root)
    for ref in index.nifti_files:
        try:
            uid = nifti_identifier(relative_name(ref, root).encode())
            yield Study(uid, "", (nifti_series(ref, uid),))
        except FileError as error:
            index.ledger.add(ref, error)


def _run(
    jobs: list[ScanJob], workers: int | None, executor: Executor | None, ledger: Ledger, progress: Callable[[int], None]
) -> list[ScanDone]:
    """Prepare scans, or check that cached ones are intact; in the order of the jobs, on which the batches depend."""
    workers = workers or count_cores()
    if executor is None and jobs:
        known = min(len(jobs), sum(1 for _ in (jobs[0].out / PRIVATE / RECORDS_FOLDER).glob("*.json")))
        workers = min(workers, (len(jobs) - known + known // CHECKS_PER_JOB) // JOBS_WORTH_A_PROCESS)
    progress(0)
    results = []
    damaged = []
    for result in map_ahead(prepare_scan, jobs, workers, executor):
        ledger.update(result.ledger)
        results.append(result)
        if result.state == "damaged" and result.facts is not None:
            damaged.append(result.facts["cache"])
        progress(1)
    if damaged:
        logger.warning("%d cached scans were damaged and are prepared again: %s", len(damaged), first_of(damaged))
    return results


def _forget_other(out: Path, preprocessing: Preprocessing) -> None:
    """Remove a manifest of other preprocessing, which would be wrong for the new tables if this process is killed in between."""
    with suppress(SourceError):
        if PreparedFolder.open(out).preprocessing != preprocessing:
            (out / MANIFEST).unlink()


def _write_tables(private: Path, tables: Mapping[str, pd.DataFrame], chosen: list[tuple[Study, Choice]], root: Path) -> None:
    """Write the private tables and the list of chosen series."""
    for name, table in tables.items():
        with atomic_write(private / name) as unfinished:
            table.to_parquet(unfinished)
    write_csv(private / SERIES_TABLE, pd.DataFrame([_choice_row(study, choice, root) for study, choice in chosen]))


def _choice_row(study: Study, choice: Choice, root: Path) -> dict[str, str]:
    first = choice.series.headers[0]
    return {
        "study_uid": study.study_uid,
        "folder": relative_name(first.source, root).rpartition("/")[0],
        "series_uid": choice.series.series_uid,
        "description": first.series_description,
        "reason": choice.reason,
        "others": choice.others,
    }
