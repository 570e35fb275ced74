"""A tree of images becomes a prepared folder: every file accounted for, every wanted scan cached."""

import contextlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from ich_lstm.data.cache import CachedScan, ScanCache, write_cached
from ich_lstm.data.labelled import NO_IMAGE, LabelTable, stop_at
from ich_lstm.data.prepared import KEY_TABLE, LEDGER_TABLE, MANIFEST, PreparedFolder, folders_of, key_rows, relative_name
from ich_lstm.errors import ConfigError, IchLstmError, SourceError
from ich_lstm.pixels.preprocess import Preprocessing, preprocess_scan
from ich_lstm.privacy import ProjectKey, private_folder
from ich_lstm.reading import FileRef, Ledger, Series, Study, choose_series, index_source, load_scan, walk_source
from ich_lstm.reading.ahead import count_cores, map_ahead
from ich_lstm.reading.ledger import LedgerRow

JOURNAL = "prepared.jsonl"

PHANTOM_MARKER = "phantom.json"
"""What the library's own synthetic heads have beside them."""
INDEX_FOLDER = "index"

JOBS_WORTH_A_PROCESS = 8
"""Starting a process takes as long as preparing a few scans."""

Progress = Callable[[str, int, int | None], None]
"""Called with what is being done, how much has been done since, and the total if known."""


def prepare(
    root: Path,
    out: Path,
    *,
    preprocessing: Preprocessing,
    key: ProjectKey,
    labels: LabelTable | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    progress: Progress | None = None,
) -> PreparedFolder:
    """Read a tree of head CT, and cache the scans to train on or to predict.

    Of a study, the series that the labels name by slice or by series are taken, whatever they are; otherwise the plain axial
    brain series. A slice that cannot be read is left out and its scan flagged; a series that makes no scan is refused. Every
    file has a row in the ledger. What is cached already is not read again.

    Args:
        root: A folder, a zip, or a file.
        out: Folder to make.
        preprocessing: Size and crop.
        key: The project's key, for the ids.
        labels: Which slices and scans are labelled; studies without any label are then left out. None: every study.
        workers: Processes; by default one per processor. With an executor: how many calls it can run at a time.
        executor: What runs the calls instead of processes of this machine, for example that of a dask.distributed client;
            ``root`` and ``out`` must have the same paths there, and the project's key travels to it.
        progress: Told how far it is.

    Returns:
        The prepared folder.

    Raises:
        SourceError: If nothing can be read, or no scan is left.
    """
    tell = progress or (lambda what, done, total: None)
    next(walk_source(root))  # a missing path or an empty folder should leave nothing behind
    try:
        private = private_folder(out)
    except OSError as error:
        raise ConfigError(
            "folder_unwritable",
            where=str(out),
            got=str(error),
            expected="a folder that can be written into",
            todo="Name another: --out, or --data.cache_dir of ich-train.",
        ) from error
    index = index_source(
        root,
        workers=workers,
        executor=executor,
        folder=private / INDEX_FOLDER,
        progress=lambda done: tell("reading headers", done, None),
    )
    ledger = index.ledger
    cache = ScanCache(out / "cache", preprocessing)
    matcher = _LabelMatcher(labels, root)
    jobs = [
        _Job(
            series, key, cache.path(key.hash_id(series.identifier), [header.sop_uid for header in series.headers]), preprocessing
        )
        for study in index.studies()
        for series in _wanted_series(study, matcher, ledger)
    ]
    if labels is not None and not jobs:
        stop_at(labels.source, labels.rows["line"], *NO_IMAGE)
    rows: list[pd.DataFrame] = []
    for job, done in _run(jobs, private / JOURNAL, workers, executor, lambda done: tell("preparing scans", done, len(jobs))):
        ledger.update(done.ledger)
        if done.slice_ids:
            rows.append(_key_rows(job, done.slice_ids, root))
    ledger.write_csv(private / LEDGER_TABLE)
    if not rows:
        raise SourceError(
            "no_scan",
            where=str(root),
            got=ledger.summary().rstrip("."),
            expected="at least one readable scan of the head",
            todo=f"{private / LEDGER_TABLE} has the reason for each file.",
        )
    table = pd.concat(rows, ignore_index=True)
    manifest = {
        "ich_lstm": version("ich_lstm"),
        "preprocessing": preprocessing.to_dict(),
        "files": ledger.counts(),
        "scans": len(rows),
        "slices": len(table),
        "patients": int(table["patient_id"].nunique()),
        "private": [f"private/{name}" for name in (KEY_TABLE, LEDGER_TABLE, JOURNAL, INDEX_FOLDER)],
        "summary": ledger.summary(),
        "synthetic": (root / PHANTOM_MARKER).is_file(),
    }
    table.to_parquet(private / KEY_TABLE)
    (out / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")
    return PreparedFolder(out, preprocessing, table, manifest)


class _Job(NamedTuple):
    """One scan to prepare."""

    series: Series
    key: ProjectKey
    path: Path
    preprocessing: Preprocessing


class _Done(NamedTuple):
    """What came of it: the slices in their order (none if refused), and what the ledger should know."""

    slice_ids: tuple[str, ...]
    ledger: list[LedgerRow]


def _wanted_series(study: Study, labels: "_LabelMatcher", ledger: Ledger) -> list[Series]:
    """The series of a study to prepare; all others get their reason in the ledger."""
    named = [series for series in study.series if labels.name_series(series)]
    if named:
        for series in study.series:
            if series not in named:
                ledger.mark(series.headers, "not_chosen", "the labels name another series of the study")
        return named
    if not labels.name_study(study):
        for series in study.series:
            ledger.mark(series.headers, "no_label", "no label speaks of it")
        return []
    try:
        return [choose_series(study, allow_contrast=True, ledger=ledger).series]  # in training, contrast is flagged
    except IchLstmError:
        return []  # the ledger has every series' reason


class _LabelMatcher:
    """Whether the labels name a series or a study; without labels, every study is wanted.

    Args:
        table: The labels, or None.
        root: What paths in the table are relative to.
    """

    def __init__(self, table: LabelTable | None, root: Path) -> None:
        self._root = root
        self._all = table is None
        rows = {} if table is None else dict(tuple(table.rows.groupby("kind")["name"]))
        self._names: dict[str, set[str]] = {str(kind): set(names) for kind, names in rows.items()}

    def name_series(self, series: Series) -> bool:
        if series.series_uid in self._names.get("series_uid", ()):
            return True
        uids, files = self._names.get("sop_uid", set()), self._names.get("file", set())
        if uids and any(header.sop_uid in uids for header in series.headers):
            return True
        return bool(files) and any(relative_name(header.source, self._root) in files for header in series.headers)

    def name_study(self, study: Study) -> bool:
        if self._all or study.study_uid in self._names.get("study_uid", ()):
            return True
        folders = self._names.get("folder", set())
        return bool(folders) and any(
            parent in folders
            for series in study.series
            for parent in folders_of(relative_name(series.headers[0].source, self._root))
        )


def _run(
    jobs: list[_Job], journal: Path, workers: int | None, executor: Executor | None, progress: Callable[[int], None]
) -> Iterator[tuple[_Job, _Done]]:
    """Prepare what is not prepared yet. The journal remembers what is, so that an interrupted run goes on."""
    before = _read_journal(journal)
    is_pending = [not _is_done(job, before.get(job.path.name)) for job in jobs]
    progress(len(jobs) - sum(is_pending))
    made = _map([job for job, pending in zip(jobs, is_pending, strict=True) if pending], workers, executor)
    with journal.open("a") as file:
        # In the order of the jobs, whatever was done before: the order of scans decides how they are dealt into batches.
        for job, pending in zip(jobs, is_pending, strict=True):
            if not pending:
                yield job, before[job.path.name].done_of(job)
                continue
            done = next(made)
            # What was refused is tried again: the file may be mended by then, or a codec installed.
            if done.slice_ids and all(row.action != "refused" for row in done.ledger):
                file.write(json.dumps([job.path.name, *_Entry.of(job, done)]) + "\n")
                file.flush()
            progress(1)
            yield job, done


def _map(jobs: list[_Job], workers: int | None, executor: Executor | None) -> Iterator[_Done]:
    workers = workers or count_cores()
    if executor is None:
        workers = min(workers, len(jobs) // JOBS_WORTH_A_PROCESS)
    return map_ahead(_prepare_scan, jobs, workers, executor)


class _Entry(NamedTuple):
    """What the journal remembers of a scan; without paths, for the source may be moved.

    Args:
        files: Size and time of change of each file, in the order of their paths.
        slice_ids: As of `_Done`.
        left_out: Which of the files have a row in the ledger, and its action, code and detail.
    """

    files: list[list[int]]
    slice_ids: list[str]
    left_out: list[list[Any]]

    @classmethod
    def of(cls, job: _Job, done: _Done) -> "_Entry":
        """What to remember of a scan that is done."""
        places = {str(source): place for place, source in enumerate(_sources(job))}
        left_out = [[places[row.path], row.sop_uid, row.action, row.code, row.detail] for row in done.ledger]
        return cls(_states(job), list(done.slice_ids), left_out)

    def done_of(self, job: _Job) -> _Done:
        """The same, for the files where they are now."""
        sources = _sources(job)
        rows = [LedgerRow(str(sources[place]), uid, job.series.series_uid, *row) for place, uid, *row in self.left_out]
        return _Done(tuple(self.slice_ids), rows)


def _is_done(job: _Job, entry: _Entry | None) -> bool:
    """Whether a scan is cached, and its files are as they were then."""
    return entry is not None and job.path.exists() and entry.files == _states(job)


def _sources(job: _Job) -> list[FileRef]:
    return sorted({header.source for header in job.series.headers}, key=str)


def _states(job: _Job) -> list[list[int]]:
    """Size and time of change of each file of a scan; of archives, of the archive."""
    states = []
    for source in _sources(job):
        with contextlib.suppress(OSError):  # vanished: then it differs from what was noted, and reading will say so
            state = source.path.stat()
            states.append([state.st_size, state.st_mtime_ns])
    return states


def _read_journal(journal: Path) -> dict[str, _Entry]:
    entries = {}
    if journal.exists():
        for line in journal.read_text().splitlines():
            try:
                name, *entry = json.loads(line)
                entries[name] = _Entry(*entry)
            except (ValueError, TypeError):
                continue  # the line that a kill cut short
    return entries


def _prepare_scan(job: _Job) -> _Done:
    ledger = Ledger()
    try:
        scan = load_scan(job.series, training=True, ledger=ledger, slab_mm=None)  # labels speak of single slices
    except IchLstmError:
        return _Done((), ledger.rows())
    cached = CachedScan(
        hu=preprocess_scan(scan, job.preprocessing),
        positions_mm=scan.positions_mm.astype(np.float32),
        slice_ids=tuple(job.key.hash_id(uid) for uid in scan.sop_uids),
        flags=scan.flags,
        repairs=scan.repairs,
    )
    write_cached(job.path, cached)
    return _Done(cached.slice_ids, ledger.rows())


def _key_rows(job: _Job, slice_ids: Sequence[str], root: Path) -> pd.DataFrame:
    headers = {job.key.hash_id(header.sop_uid): header for header in job.series.headers}
    return key_rows(job.key, job.key.hash_id(job.series.identifier), [headers[slice_id] for slice_id in slice_ids], root).assign(
        cache=job.path.name
    )
