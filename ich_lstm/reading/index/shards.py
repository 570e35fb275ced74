"""Shards of an index on disk: indexing needs little memory, and resumes after an interruption."""

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

from ich_lstm.errors import IchLstmError
from ich_lstm.files.atomic_write import atomic_write, write_text
from ich_lstm.privacy import PRIVATE_FOLDER, make_folder
from ich_lstm.reading.files.sources import FileRef
from ich_lstm.reading.header.header import SliceHeader
from ich_lstm.reading.ledger.header_table import FILES_SCHEMA, REASON_FIELDS, Rows, source_columns, to_batch, to_ref

SHARD_FILES = 2048
"""Files per shard, which limits the memory used, and the work lost in an interruption."""

SHARDS_FOLDER = "unfinished"
_SOURCE_FILE = "source.json"

_STATUS_FIELDS = [pa.field("file_size", pa.int64()), pa.field("modified_ns", pa.int64())]
_SHARD_SCHEMA = pa.schema([*FILES_SCHEMA, *_STATUS_FIELDS])

Read = tuple[FileRef, SliceHeader | IchLstmError]
"""A file with its header, or with the error that prevented reading it."""


def to_shard(files: Sequence[Read]) -> pa.RecordBatch:
    """Convert files to one batch in their order. A slice has no ``code``; other files have no header fields."""
    errors = [what if isinstance(what, IchLstmError) else None for _, what in files]
    headers = to_batch([SliceHeader(source=ref) if isinstance(what, IchLstmError) else what for ref, what in files])
    reasons = [[error and getattr(error, field.name) for error in errors] for field in REASON_FIELDS]
    status = zip(*map(_status_of, (ref for ref, _ in files)), strict=True) if files else ((), ())
    arrays = [*headers.columns, *(pa.array(column, pa.string()) for column in reasons)]
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
        folder: Folder of the index. An unfinished index of the same source is continued, unless one of its files has changed.
            None: a temporary folder is used, and created only if there are many files.
        source: The source that is indexed.
    """

    def __init__(self, folder: Path | None, source: Path) -> None:
        self._lasting = folder is not None
        self._folder = None if folder is None else folder / SHARDS_FOLDER
        self._pending: list[pa.RecordBatch] = []
        self._files: list[Path] = []
        self._done = np.zeros(0, np.uint64)
        if self._folder is not None:
            self._resume(self._folder, source)

    def _resume(self, folder: Path, source: Path) -> None:
        note = json.dumps({"source": os.fsencode(source).hex()})
        try:
            same = (folder / _SOURCE_FILE).read_text() == note
        except OSError:
            same = False
        if not same:
            shutil.rmtree(folder, ignore_errors=True)
            make_folder(folder).chmod(PRIVATE_FOLDER)
            write_text(folder / _SOURCE_FILE, note, durable=False)
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
                path.unlink()  # the files of this shard are read again
            else:
                self._files.append(path)
        self._done = np.sort(np.array(digests, np.uint64))

    def __len__(self) -> int:
        """Number of files that an interrupted run has already read."""
        return len(self._done)

    def discard_all(self) -> None:
        """Discard all shards, including those of an interrupted run."""
        for path in self._files:
            path.unlink(missing_ok=True)
        self._files, self._pending, self._done = [], [], self._done[:0]

    def __contains__(self, ref: FileRef) -> bool:
        """Whether an interrupted run has already read a file."""
        digest = _digest(*(columns[0] for columns in source_columns([ref])))
        at = int(np.searchsorted(self._done, digest))
        return at < len(self._done) and int(self._done[at]) == digest

    def add(self, shard: pa.RecordBatch) -> None:
        """Add a batch of files."""
        self._pending.append(shard)
        if sum(map(len, self._pending)) >= SHARD_FILES:
            self.flush()

    def flush(self) -> None:
        """Write the added files to disk."""
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
        """All files in order, rows of ``FILES_SCHEMA``; memory-mapped from disk if they are many."""
        if not self._files:
            return Rows([select_columns(batch, FILES_SCHEMA) for batch in self._pending], FILES_SCHEMA)
        self.flush()
        try:
            return memory_mapped((batch for path in self._files for batch in _read_shard(path)), FILES_SCHEMA)
        finally:
            pa.default_memory_pool().release_unused()

    def remove(self) -> None:
        """Remove the folder of shards."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def close(self) -> None:
        """Remove a temporary folder, which no later run could continue."""
        if not self._lasting:
            self.remove()


def _read_shard(path: Path) -> Iterator[pa.RecordBatch]:
    # Threads would need additional memory each.
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


def select_columns(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Select the columns of a schema from a batch that may have others."""
    return pa.RecordBatch.from_arrays([batch.column(name) for name in schema.names], schema=schema)


def memory_mapped(batches: Iterator[pa.RecordBatch], schema: pa.Schema) -> Rows:
    """Write the columns of a schema to a temporary file, and memory-map it."""
    folder = Path(tempfile.mkdtemp(prefix="ich_lstm-"))
    path = str(folder / "rows.arrow")
    try:
        with pa.ipc.new_file(path, schema) as writer:
            for batch in batches:
                writer.write_batch(select_columns(batch, schema))
        reader = pa.ipc.open_file(pa.memory_map(path))
        return Rows([reader.get_batch(i) for i in range(reader.num_record_batches)], schema)
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the memory-mapped file stays readable without its name


def write_parquet(batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path) -> None:
    """Write a Parquet file batch by batch; the file appears only when it is complete."""
    with atomic_write(path, durable=False) as unfinished, pq.ParquetWriter(unfinished, schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch, row_group_size=SHARD_FILES)
