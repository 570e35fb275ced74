"""Shards of an index on disk: indexing needs little memory, and resumes after a kill."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ich_lstm.errors import FileError
from ich_lstm.files.atomic_write import written_aside
from ich_lstm.reading.files.sources import FileRef
from ich_lstm.reading.header.header import SliceHeader
from ich_lstm.reading.ledger.header_table import FILES_SCHEMA, REASON_FIELDS, Rows, source_columns, to_batch, to_ref

SHARD_FILES = 2048
"""Files per shard: what a kill costs at most, and what is held in memory."""

SHARDS_FOLDER = "unfinished"
_SOURCE_FILE = "source.json"

_STATUS_FIELDS = [pa.field("file_size", pa.int64()), pa.field("modified_ns", pa.int64())]
_SHARD_SCHEMA = pa.schema([*FILES_SCHEMA, *_STATUS_FIELDS])

Read = tuple[FileRef, SliceHeader | FileError]
"""A file, and what was read of it."""


def to_shard(files: Sequence[Read]) -> pa.RecordBatch:
    """Files as one batch, in their order; a slice has no ``code``, and what is no slice has nothing else."""
    errors = [what if isinstance(what, FileError) else None for _, what in files]
    headers = to_batch([SliceHeader(source=ref) if isinstance(what, FileError) else what for ref, what in files])
    said = [[error and getattr(error, field.name) for error in errors] for field in REASON_FIELDS]
    status = zip(*map(_status_of, (ref for ref, _ in files)), strict=True) if files else ((), ())
    arrays = [*headers.columns, *(pa.array(column, pa.string()) for column in said)]
    arrays += [pa.array(column, pa.int64()) for column in status]
    return pa.RecordBatch.from_arrays(arrays, schema=_SHARD_SCHEMA)


def _status_of(ref: FileRef) -> tuple[int, int]:
    try:
        status = os.lstat(ref.path)
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


class Shards:
    """A folder of shards that is being filled.

    Args:
        folder: Where the index will lie; what is unfinished there of the same source is taken over, unless a file of it
            has changed. None: a folder of the moment, made only if there are many files.
        source: What is indexed.
    """

    def __init__(self, folder: Path | None, source: Path) -> None:
        self._lasting = folder is not None
        self._folder = None if folder is None else folder / SHARDS_FOLDER
        self._pending: list[pa.RecordBatch] = []
        self._files: list[Path] = []
        self._done = np.zeros(0, np.uint64)
        if self._folder is not None:
            self._take_over(self._folder, source)

    def _take_over(self, folder: Path, source: Path) -> None:
        note = json.dumps({"source": os.fsencode(source).hex()})
        try:
            same = (folder / _SOURCE_FILE).read_text() == note
        except OSError:
            same = False
        if not same:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True, mode=0o700)
            (folder / _SOURCE_FILE).write_text(note)
        digests = []
        for path in sorted(folder.glob("*.parquet")):
            try:
                shard = pq.read_table(
                    path, columns=["path", "member", *(field.name for field in _STATUS_FIELDS)], use_threads=False
                )
                if pq.read_schema(path) != _SHARD_SCHEMA:
                    raise ValueError("another version of the library")
                digests += _digests_if_unchanged(shard)
            except (OSError, ValueError, pa.ArrowException):
                path.unlink()  # read again
            else:
                self._files.append(path)
        self._done = np.sort(np.array(digests, np.uint64))

    def __len__(self) -> int:
        """Number of files that were taken over."""
        return len(self._done)

    def forget(self) -> None:
        """Drop everything, also what was taken over."""
        for path in self._files:
            path.unlink(missing_ok=True)
        self._files, self._pending, self._done = [], [], self._done[:0]

    def __contains__(self, ref: FileRef) -> bool:
        """Whether a file was read already."""
        digest = _digest(*(columns[0] for columns in source_columns([ref])))
        at = int(np.searchsorted(self._done, digest))
        return at < len(self._done) and int(self._done[at]) == digest

    def add(self, shard: pa.RecordBatch) -> None:
        """Take in files."""
        self._pending.append(shard)
        if sum(map(len, self._pending)) >= SHARD_FILES:
            self.flush()

    def flush(self) -> None:
        """Write what was taken in."""
        if not self._pending:
            return
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="ich_lstm-"))
        number = int(self._files[-1].stem) + 1 if self._files else 0
        path = self._folder / f"{number:08d}.parquet"
        write_parquet(iter([pa.concat_batches(self._pending)]), _SHARD_SCHEMA, path)
        self._files.append(path)
        self._pending = []

    def finish(self) -> Rows:
        """All files in order, rows of ``FILES_SCHEMA``; mapped from disk if they are many."""
        if not self._files:
            return Rows([fitted(batch, FILES_SCHEMA) for batch in self._pending], FILES_SCHEMA)
        self.flush()
        try:
            return mapped((batch for path in self._files for batch in _read_shard(path)), FILES_SCHEMA)
        finally:
            pa.default_memory_pool().release_unused()

    def remove(self) -> None:
        """Remove the folder of shards."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Remove what nobody can take over."""
        if not self._lasting:
            self.remove()


def _read_shard(path: Path) -> Iterator[pa.RecordBatch]:
    # Threads would each keep memory of their own.
    with pq.ParquetFile(path, pre_buffer=False) as file:
        yield from file.iter_batches(SHARD_FILES, use_threads=False)


def _digests_if_unchanged(shard: pa.Table) -> list[int]:
    digests = []
    for row in shard.to_pylist():
        if _status_of(to_ref(row["path"], row["member"])) != (row["file_size"], row["modified_ns"]):
            raise ValueError("a file has changed")
        digests.append(_digest(row["path"], row["member"]))
    return digests


def _digest(path: bytes | None, member: bytes | None) -> int:
    name = (path or b"") + (b"" if member is None else b"\0" + member)
    return int.from_bytes(blake2b(name, digest_size=8).digest(), "little")


def fitted(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of a schema, of a batch that may have others besides."""
    return pa.RecordBatch.from_arrays([batch.column(name) for name in schema.names], schema=schema)


def mapped(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Rows:
    """The columns of a schema, written to a temporary file and memory-mapped."""
    folder = Path(tempfile.mkdtemp(prefix="ich_lstm-"))
    path = str(folder / "rows.arrow")
    try:
        with pa.ipc.new_file(path, schema) as writer:
            for batch in batches:
                writer.write_batch(fitted(batch, schema))
        reader = pa.ipc.open_file(pa.memory_map(path))
        return Rows([reader.get_batch(i) for i in range(reader.num_record_batches)], schema)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the mapping outlives the name


def write_parquet(batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path) -> None:
    """Write a Parquet file batch by batch; it appears only when it is whole."""
    with written_aside(path) as aside, pq.ParquetWriter(aside, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch, row_group_size=SHARD_FILES)
