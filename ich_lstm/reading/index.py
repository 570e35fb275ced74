"""A tree of any size -> a table of slice headers, and the ledger of every file."""

import logging
import multiprocessing
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from ich_lstm.errors import FileError, SourceError
from ich_lstm.reading.header import SliceHeader, read_header
from ich_lstm.reading.ledger import Ledger, LedgerRow
from ich_lstm.reading.reasons import phrase_of
from ich_lstm.reading.sources import FileRef, walk_source
from ich_lstm.reading.study import Study, group_studies
from ich_lstm.reading.table import SCHEMA, HeaderRows, to_batch

logger = logging.getLogger(__name__)

CHUNK_FILES = 256
CHUNKS_AHEAD = 4
"""Chunks per worker that are read ahead: bounds the memory, whatever the size of the tree."""

FILES_FOR_WORKERS = 4096
"""Below this, starting processes takes longer than reading."""

HEADERS_FILE = "headers.parquet"
LEDGER_FILE = "ledger.parquet"

Progress = Callable[[int], None]


class Index:
    """The slices of a source, and what became of each of its files.

    Private: it holds paths and identifiers, in memory and on disk.

    Args:
        table: Slice headers, rows of :data:`ich_lstm.reading.table.SCHEMA`.
        ledger: What became of every file.
    """

    def __init__(self, table: pa.Table, ledger: Ledger) -> None:
        self._table = table
        self.ledger = ledger

    @property
    def headers(self) -> HeaderRows:
        """All slices; a sequence whose items are made when they are asked for."""
        return HeaderRows(self._table)

    def studies(self) -> list[Study]:
        """The studies, ordered by UID. Their headers are made when they are asked for."""
        return group_studies(self._table)

    def write(self, folder: Path | str) -> None:
        """Write the index as Parquet files into a folder, which should be private."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        _write_table(self._table, folder / HEADERS_FILE)
        rows = self.ledger.rows()
        columns = list(zip(*rows, strict=True)) if rows else [()] * len(_LEDGER_SCHEMA)
        paths = [path.encode(errors="surrogateescape") for path in columns[0]]
        _write_table(
            pa.Table.from_arrays([pa.array(paths, pa.binary()), *map(_strings, columns[1:])], schema=_LEDGER_SCHEMA),
            folder / LEDGER_FILE,
        )

    @classmethod
    def read(cls, folder: Path | str) -> "Index":
        """Read what :meth:`write` wrote.

        Raises:
            SourceError: ``no_index`` if there is none, or it is damaged.
        """
        folder = Path(folder)
        try:
            table = pq.read_table(folder / HEADERS_FILE, schema=SCHEMA)
            noted = pq.read_table(folder / LEDGER_FILE, schema=_LEDGER_SCHEMA)
        except (OSError, pa.ArrowException) as error:
            raise SourceError(
                "no_index",
                where=str(folder),
                got=f"no readable {HEADERS_FILE} and {LEDGER_FILE}",
                todo="Make the index with ich-prepare.",
            ) from error
        ledger = Ledger(table)
        ledger.update(LedgerRow(**{**row, "path": row["path"].decode(errors="surrogateescape")}) for row in noted.to_pylist())
        return cls(table, ledger)


_LEDGER_SCHEMA = pa.schema([pa.field("path", pa.binary()), *(pa.field(name, pa.string()) for name in LedgerRow._fields[1:])])


def _strings(column: Iterable[str]) -> pa.Array:
    return pa.array(column, pa.string())


def _write_table(table: pa.Table, path: Path) -> None:
    aside = path.with_name(f"{path.name}.{os.getpid()}")
    pq.write_table(table, aside, compression="zstd")
    os.replace(aside, path)


def index_source(path: Path | str, *, workers: int | None = None, progress: Progress | None = None) -> Index:
    """Read the headers of all files of a folder, a zip or a single file.

    Args:
        path: The source.
        workers: Processes that read. By default one per core where there are thousands of files, else none but this one.
        progress: Called now and then with the number of files done since.

    Raises:
        SourceError: ``missing_path``, ``empty_folder``, or ``no_ct``, which says what was found instead.
    """
    source = Path(path).absolute()
    problems: list[tuple[FileRef, FileError]] = []
    refs = walk_source(source, on_problem=lambda ref, error: problems.append((ref, error)))
    batches: list[pa.RecordBatch] = []
    errors: list[tuple[FileRef, FileError]] = []
    for chunk in _read_chunks(refs, workers):
        batches.append(chunk.batch)
        errors += chunk.errors
        if progress is not None:
            progress(len(chunk.batch) + len(chunk.errors))
    table = pa.Table.from_batches(batches, SCHEMA).combine_chunks()
    ledger = Ledger(table)
    for ref, error in chain(problems, errors):
        ledger.add(ref, error)
    if not len(table):
        raise _no_ct(source, [error for _, error in chain(problems, errors)])
    return Index(table, ledger)


def _no_ct(source: Path, errors: list[FileError]) -> SourceError:
    found = Counter(error.got if error.code in ("not_ct", "not_dicom") else phrase_of(error.code) for error in errors)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.most_common())
    return SourceError(
        "no_ct",
        where=str(source),
        got=f"{len(errors):,} {'file' if len(errors) == 1 else 'files'}: {kinds}",
        expected="CT slices as DICOM",
        todo="Name the folder of a head CT.",
    )


class _Chunk(NamedTuple):
    batch: pa.RecordBatch
    errors: list[tuple[FileRef, FileError]]


def _read_chunk(refs: list[FileRef]) -> _Chunk:
    headers: list[SliceHeader] = []
    errors: list[tuple[FileRef, FileError]] = []
    for ref in refs:
        try:
            headers.append(read_header(ref))
        except FileError as error:
            errors.append((ref, error.with_traceback(None)))
    return _Chunk(to_batch(headers), errors)


def _chunked(refs: Iterator[FileRef]) -> Iterator[list[FileRef]]:
    while chunk := list(islice(refs, CHUNK_FILES)):
        yield chunk


def _read_chunks(refs: Iterator[FileRef], workers: int | None) -> Iterator[_Chunk]:
    """Read headers chunk by chunk, in the order of the source, in this process or in several."""
    if workers is None:
        start = list(islice(refs, FILES_FOR_WORKERS))
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if len(start) < FILES_FOR_WORKERS:
            workers = 1
        refs = chain(start, refs)
    chunks = _chunked(refs)
    # Workers of a data loader are daemonic and may have no children.
    if workers <= 1 or multiprocessing.current_process().daemon:
        yield from map(_read_chunk, chunks)
    else:
        yield from _read_in_processes(chunks, workers)


def _read_in_processes(chunks: Iterator[list[FileRef]], workers: int) -> Iterator[_Chunk]:
    # fork would copy the locks of torch's threads in whatever state they are.
    method = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
    waiting: deque[tuple[list[FileRef], Future[_Chunk]]] = deque()
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context(method)) as pool:
        try:
            for chunk in chunks:
                waiting.append((chunk, pool.submit(_read_chunk, chunk)))
                if len(waiting) >= workers * CHUNKS_AHEAD:
                    yield waiting[0][1].result()
                    waiting.popleft()
            while waiting:
                yield waiting[0][1].result()
                waiting.popleft()
            return
        except BrokenProcessPool:
            logger.warning("a process that reads headers died; going on in one process")
            rest = chain([chunk for chunk, _ in waiting], chunks)
    yield from map(_read_chunk, rest)
