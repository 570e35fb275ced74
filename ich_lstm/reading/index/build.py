"""Indexes a tree of any size: a table of slice headers, and the ledger of every file."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from itertools import chain, islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ich_lstm.errors import FileError, IchLstmError, SourceError
from ich_lstm.formatting import counted
from ich_lstm.parallel import count_cores, map_ahead
from ich_lstm.printable import printable_logger
from ich_lstm.privacy import make_folder
from ich_lstm.reading.files.sources import FileRef, Found, find_files
from ich_lstm.reading.header.header import SliceHeader, read_header
from ich_lstm.reading.index.shards import SHARD_FILES, Read, Shards, memory_mapped, select_columns, to_shard, write_parquet
from ich_lstm.reading.ledger.header_table import FILES_SCHEMA, HeaderRows, Rows
from ich_lstm.reading.ledger.ledger import Ledger
from ich_lstm.reading.ledger.reasons import phrase_of
from ich_lstm.reading.series.nifti import find_nifti
from ich_lstm.reading.study.choose import Study, group_studies
from ich_lstm.unexpected import concerns_all, unexpected

logger = printable_logger(__name__)

CHUNK_FILES = 256

FILES_FOR_WORKERS = 4096
"""With fewer files, starting processes takes longer than reading them here."""

INDEX_FILE = "files.parquet"

Progress = Callable[[int], None]


class Index:
    """The files of a source in one table: headers of slices, and reasons for files that are not used.

    Private: it contains paths and identifiers, in memory and on disk.

    Args:
        table: All files, rows of :data:`ich_lstm.reading.ledger.header_table.FILES_SCHEMA`.
    """

    def __init__(self, table: Rows) -> None:
        self._table = table
        self._slices = table.slices()
        self.ledger = Ledger(table)
        self.scans: int | None = None
        """Number of scans that the used files make up; None until they have been read by
        :func:`~ich_lstm.reading.index.check.check_source`."""

    @property
    def headers(self) -> HeaderRows:
        """All slices, as a sequence that builds headers on access."""
        return HeaderRows(self._table, self._slices)

    @property
    def nifti_files(self) -> list[FileRef]:
        """The NIfTI files in the order of their names; each is a study of its own."""
        return sorted(find_nifti(self._table), key=str)

    def refuse_empty(self, source: Path) -> None:
        """Raise an error if a source contains neither DICOM nor NIfTI.

        Args:
            source: The indexed source, for the message.

        Raises:
            SourceError: ``no_ct``, with a description of what was found.
        """
        if not len(self._slices) and not self.nifti_files:
            raise no_ct(source.absolute(), self._table)

    def studies(self) -> list[Study]:
        """The studies, ordered by UID; their headers are built on access."""
        return group_studies(self.headers)

    def write(self, folder: Path | str) -> None:
        """Write the index with the ledger's outcomes as a Parquet file into a folder, which should be private."""
        folder = Path(folder)
        make_folder(folder)
        write_parquet(self.ledger.batches(), FILES_SCHEMA, folder / INDEX_FILE)

    @classmethod
    def read(cls, folder: Path | str) -> "Index":
        """Read an index that :meth:`write` wrote.

        Args:
            folder: The folder that contains the index.

        Raises:
            SourceError: ``no_index`` if the folder has no index, or a damaged one.
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
        batches = (select_columns(batch, schema) for batch in file.iter_batches(SHARD_FILES))
        if file.metadata.num_rows <= SHARD_FILES:
            return Rows(list(batches), schema)
        return memory_mapped(batches, schema)


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

    The results are written to disk in shards, so that memory hardly grows with the number of files.

    Args:
        path: A folder, an archive, or a file.
        workers: Number of reading processes. By default one per core if there are thousands of files, otherwise only this
            process. With an executor: number of calls that it runs at a time.
        executor: Runs the reading in place of processes on this machine, for example on a dask.distributed cluster. The
            source must have the same path there.
        folder: Folder for the index, which should be private. An interrupted indexing of the same source is continued, and
            produces the same index.
        progress: Called from time to time with the number of files done since the last call.
        must_have_ct: Whether a source without any CT slice is refused; if not, its index has a ledger but no studies.
        exclude: A folder inside the source that is not searched, such as the output folder.

    Raises:
        SourceError: ``missing_path``, ``empty_folder``, ``no_ct`` (with a description of what was found), or
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
    """Read all files of a source, except those that an interrupted run has already read."""
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
    logger.warning("files were removed since indexing was interrupted: indexing starts again")
    shards.discard_all()
    return _read_files(source, shards, workers, executor, progress, exclude)


def no_ct(source: Path, files: Rows) -> SourceError:
    """The error for a source without a CT slice, with a description of what was found."""
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


def _read(ref: FileRef) -> SliceHeader | IchLstmError:
    try:
        return read_header(ref)
    except FileError as error:
        return error
    except Exception as error:  # not `one_of_many`, because this runs for every file
        if concerns_all(error):
            raise
        return unexpected(error, str(ref))


def _chunked(files: Iterator[Found]) -> Iterator[list[Found]]:
    while chunk := list(islice(files, CHUNK_FILES)):
        yield chunk


def _read_chunks(files: Iterator[Found], workers: int | None, executor: Executor | None) -> Iterator[pa.RecordBatch]:
    """Yield the headers chunk by chunk in the order of the source, read in this process or in several."""
    if workers is None:
        workers = count_cores()
        if executor is None:
            start = list(islice(files, FILES_FOR_WORKERS))
            if len(start) < FILES_FOR_WORKERS:
                workers = 1
            files = chain(start, files)
            del start
    yield from map_ahead(_read_chunk, _chunked(files), workers, executor)
