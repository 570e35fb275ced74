"""Indexes a tree of any size: a table of slice headers, and the ledger of every file."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ich_lstm.errors import FileError, SourceError
from ich_lstm.formatting import counted
from ich_lstm.parallel import count_cores, map_ahead
from ich_lstm.reading.files.sources import FileRef, Found, find_files
from ich_lstm.reading.header.header import SliceHeader, read_header
from ich_lstm.reading.index.shards import SHARD_FILES, Read, Shards, fitted, mapped, to_shard, write_parquet
from ich_lstm.reading.ledger.header_table import FILES_SCHEMA, HeaderRows, Rows
from ich_lstm.reading.ledger.ledger import Ledger
from ich_lstm.reading.ledger.reasons import phrase_of
from ich_lstm.reading.series.nifti import find_nifti
from ich_lstm.reading.study.choose import Study, group_studies

logger = logging.getLogger(__name__)

CHUNK_FILES = 256

FILES_FOR_WORKERS = 4096
"""Below this, starting processes takes longer than reading."""

INDEX_FILE = "files.parquet"

Progress = Callable[[int], None]


class Index:
    """The files of a source in one table: the header of each slice, and the reason of each file that is not used.

    Private: it holds paths and identifiers, in memory and on disk.

    Args:
        table: All files, rows of :data:`ich_lstm.reading.ledger.header_table.FILES_SCHEMA`.
    """

    def __init__(self, table: Rows) -> None:
        self._table = table
        self._slices = table.slices()
        self.ledger = Ledger(table)
        self.scans: int | None = None
        """How many scans the files that are used make, once they have been read
        (:func:`~ich_lstm.reading.index.check.check_source`);
        None before."""

    @property
    def headers(self) -> HeaderRows:
        """All slices; a sequence whose items are made when they are asked for."""
        return HeaderRows(self._table, self._slices)

    @property
    def nifti_files(self) -> list[FileRef]:
        """The NIfTI files among the files that are not DICOM, in the order of their names; each is a study of its own."""
        return sorted(find_nifti(self._table), key=str)

    def refuse_empty(self, source: Path) -> None:
        """Refuse a source with neither DICOM nor NIfTI.

        Args:
            source: What was indexed.

        Raises:
            SourceError: ``no_ct``, which says what was found instead.
        """
        if not len(self._slices) and not self.nifti_files:
            raise no_ct(source.absolute(), self._table)

    def studies(self) -> list[Study]:
        """The studies, ordered by UID. Their headers are made when they are asked for."""
        return group_studies(self.headers)

    def write(self, folder: Path | str) -> None:
        """Write the index as a Parquet file, with the reasons as the ledger has them, into a folder, which should be private."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_parquet(self.ledger.batches(), FILES_SCHEMA, folder / INDEX_FILE)

    @classmethod
    def read(cls, folder: Path | str) -> "Index":
        """Read what :meth:`write` wrote.

        Raises:
            SourceError: ``no_index`` if there is none, or it is damaged.
        """
        folder = Path(folder)
        try:
            return cls(_read_parquet(folder / INDEX_FILE, FILES_SCHEMA))
        except (OSError, KeyError, pa.ArrowException) as error:
            raise SourceError(
                "no_index",
                where=str(folder),
                got=f"no readable {INDEX_FILE}",
                todo="Make the index with ich-prepare.",
            ) from error


def _read_parquet(path: Path, schema: pa.Schema) -> Rows:
    with pq.ParquetFile(path) as file:
        batches = (fitted(batch, schema) for batch in file.iter_batches(SHARD_FILES))
        if file.metadata.num_rows <= SHARD_FILES:
            return Rows(list(batches), schema)
        return mapped(batches, schema)


def index_source(
    path: Path | str,
    *,
    workers: int | None = None,
    executor: Executor | None = None,
    folder: Path | str | None = None,
    progress: Progress | None = None,
    must_have_ct: bool = True,
    exclude: Path | None = None,
) -> Index:
    """Read the headers of all files of a folder, an archive or a single file.

    A stream: what was read goes to disk shard by shard, and memory hardly grows with the number of files.

    Args:
        path: The source.
        workers: Processes that read. By default one per core where there are thousands of files, else none but this one.
            With an executor: how many calls it can run at a time.
        executor: What reads instead of processes of this machine, for example that of a dask.distributed client. The
            source must have the same path there.
        folder: Where to write the index, which should be private. An indexing of the same source that was interrupted
            there goes on where it stopped, and ends with the same index.
        progress: Called now and then with the number of files done since.
        must_have_ct: Refuse a source without any CT slice; otherwise its index has no studies, and a ledger.
        exclude: A folder that is not searched even if it lies in the source: where results are written.

    Raises:
        SourceError: ``missing_path``, ``empty_folder``, ``no_ct``, which says what was found instead, or
            ``executor_failed``.
    """
    source = Path(path).absolute()
    folder = None if folder is None else Path(folder)
    shards = Shards(folder, source)
    try:
        index = Index(_read_files(source, shards, workers, executor, progress or (lambda done: None), exclude))
        if must_have_ct and not len(index.headers):
            raise no_ct(source, index.headers.table)
        if folder is not None:
            index.write(folder)
            shards.remove()
        return index
    finally:
        shards.close()


def _read_files(
    source: Path,
    shards: Shards,
    workers: int | None,
    executor: Executor | None,
    progress: Progress,
    exclude: Path | None,
) -> Rows:
    """All files of a source, without those that an earlier run has read."""
    known = 0

    def unread() -> Iterator[Found]:
        nonlocal known
        for found in find_files(source, exclude=exclude):
            if not len(shards) or (found if isinstance(found, FileRef) else found[0]) not in shards:
                yield found
                continue
            known += 1
            if known % CHUNK_FILES == 0:
                progress(CHUNK_FILES)

    for batch in _read_chunks(unread(), workers, executor):
        shards.add(batch)
        progress(len(batch))
    if known % CHUNK_FILES:
        progress(known % CHUNK_FILES)
    if known == len(shards):
        return shards.finish()
    logger.warning("files were removed since indexing was interrupted; it begins again")
    shards.forget()
    return _read_files(source, shards, workers, executor, progress, exclude)


def no_ct(source: Path, files: Rows) -> SourceError:
    """The refusal of a source without a CT slice; it says what was found instead."""
    found: Counter[str] = Counter()
    for batch in files.batches:
        for code, got in zip(batch.column("code").to_pylist(), batch.column("got").to_pylist(), strict=True):
            found[got if code in ("not_ct", "not_dicom") else phrase_of(code)] += 1
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in found.most_common())
    return SourceError(
        "no_ct",
        where=str(source),
        got=f"{counted(len(files), 'file')}: {kinds}",
        expected="CT slices as DICOM",
        todo="Name the folder of a head CT.",
    )


def _read_chunk(chunk: list[Found]) -> pa.RecordBatch:
    files: list[Read] = []
    for found in chunk:
        files.append(found if isinstance(found, tuple) else (found, _read(found)))
    return to_shard(files)


def _read(ref: FileRef) -> SliceHeader | FileError:
    try:
        return read_header(ref)
    except FileError as error:
        return error


def _chunked(files: Iterator[Found]) -> Iterator[list[Found]]:
    while chunk := list(islice(files, CHUNK_FILES)):
        yield chunk


def _read_chunks(files: Iterator[Found], workers: int | None, executor: Executor | None) -> Iterator[pa.RecordBatch]:
    """Read headers chunk by chunk, in the order of the source, in this process or in several."""
    if workers is None:
        workers = count_cores()
        if executor is None:
            start = list(islice(files, FILES_FOR_WORKERS))
            if len(start) < FILES_FOR_WORKERS:
                workers = 1
            files = chain(start, files)
            del start
    yield from map_ahead(_read_chunk, _chunked(files), workers, executor)
