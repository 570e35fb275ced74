"""The table of files as Arrow batches: a few hundred bytes per slice, in memory or memory-mapped from disk."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ich_lstm.reading.files.sources import FileRef
from ich_lstm.reading.header.header import SliceHeader

_TYPES: dict[Any, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    int | None: pa.int64(),
    float | None: pa.float64(),
    tuple[str, ...]: pa.list_(pa.string()),
    tuple[float, ...] | None: pa.list_(pa.float64()),
}
_FIELDS = tuple(field for field in fields(SliceHeader) if field.name != "source")
_NAMES = tuple(field.name for field in _FIELDS)
_TUPLES = tuple(field.name for field in _FIELDS if pa.types.is_list(_TYPES[field.type]))
_values_of = attrgetter(*_NAMES)

SOURCE_FIELDS = [pa.field("path", pa.binary(), nullable=False), pa.field("member", pa.binary())]
"""Paths are stored as bytes: file names need not be valid text."""

SCHEMA = pa.schema(SOURCE_FIELDS + [pa.field(field.name, _TYPES[field.type]) for field in _FIELDS])
"""Columns of slice headers."""

REASON_FIELDS = [pa.field(name, pa.string()) for name in ("code", "got", "detail")]
"""Columns for the reason why a file is not used, and for what was found in it; null if the file counts as used."""

FILES_SCHEMA = pa.schema([*SCHEMA, *REASON_FIELDS])
"""Columns of all files of a source; a file that is not a slice has no Series Instance UID."""


class Rows:
    """Arrow batches of one schema as one table with access to single rows.

    Args:
        batches: Record batches, which may be memory-mapped from a file.
        schema: Schema of the batches.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> None:
        self.batches = [batch for batch in batches if len(batch)]
        self.schema = schema
        self._starts = np.cumsum([0, *map(len, self.batches)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __reduce__(self) -> tuple[Any, ...]:
        return Rows, (self.batches, self.schema)

    def column(self, name: str) -> pa.ChunkedArray:
        """The values of one column in all rows."""
        return pa.chunked_array([batch.column(name) for batch in self.batches], self.schema.field(name).type)

    def value(self, name: str, row: int) -> Any:
        """The value of one column in one row."""
        place = int(np.searchsorted(self._starts, row, side="right")) - 1
        return self.batches[place].column(name)[row - int(self._starts[place])].as_py()

    def slices(self) -> np.ndarray:
        """Indices of the rows that are slices, uint32 ``(n,)``."""
        is_slice = pc.not_equal(self.column("series_uid"), "")
        return np.flatnonzero(is_slice.to_numpy()).astype(np.uint32)

    def codes(self, name: str) -> tuple[np.ndarray, pa.Array]:
        """A dictionary-encoded text column: codes, int32 ``(n,)`` with -1 for null, and the texts they stand for."""
        encoded = self.column(name).dictionary_encode().unify_dictionaries()
        if not encoded.num_chunks:
            return np.zeros(0, np.int32), pa.array([], self.schema.field(name).type)
        indices = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in encoded.chunks]
        return np.concatenate(indices).astype(np.int32, copy=False), encoded.chunk(0).dictionary

    def take(self, rows: np.ndarray, names: Sequence[str] | None = None) -> pa.Table:
        """Select rows, in the given order.

        Args:
            rows: Row indices, ``(n,)``.
            names: Columns to read; all by default.
        """
        schema = self.schema if names is None else pa.schema([self.schema.field(name) for name in names])
        rows = np.asarray(rows, np.int64)
        places = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(places, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(places[order])) + 1) if len(rows) else []
        # Arrow's own `take` on a chunked table first copies whole columns.
        taken = [
            self.batches[places[group[0]]].select(schema.names).take(rows[group] - self._starts[places[group[0]]])
            for group in groups
        ]
        table = pa.Table.from_batches(taken, schema)
        return table if len(groups) <= 1 else table.combine_chunks().take(np.argsort(order))


def to_files(headers: Sequence[SliceHeader]) -> Rows:
    """Convert headers to a table of files, all of which count as used."""
    headers_alone = to_batch(headers)
    reasons = [pa.nulls(len(headers), field.type) for field in REASON_FIELDS]
    return Rows([pa.RecordBatch.from_arrays([*headers_alone.columns, *reasons], schema=FILES_SCHEMA)], FILES_SCHEMA)


def to_batch(headers: Sequence[SliceHeader]) -> pa.RecordBatch:
    """Convert headers to rows of :data:`SCHEMA`."""
    columns: list[Any] = list(source_columns([header.source for header in headers]))
    columns += zip(*map(_values_of, headers), strict=True) if headers else [() for _ in _NAMES]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def source_columns(refs: Sequence[FileRef]) -> tuple[list[bytes], list[bytes | None]]:
    """The values of the columns ``path`` and ``member``."""
    return [_encode(str(ref.path)) for ref in refs], [None if ref.member is None else _encode(ref.member) for ref in refs]


def to_ref(path: bytes, member: bytes | None) -> FileRef:
    """The file reference for values of the columns ``path`` and ``member``."""
    return FileRef(Path(_decode(path)), None if member is None else _decode(member))


def _encode(text: str) -> bytes:
    return text.encode(errors="surrogateescape")


def _decode(data: bytes) -> str:
    return data.decode(errors="surrogateescape")


def to_headers(table: pa.Table) -> list[SliceHeader]:
    """Convert rows of :data:`SCHEMA` to headers."""
    headers = []
    for row in table.to_pylist():
        source = to_ref(row.pop("path"), row.pop("member"))
        for name in _TUPLES:
            if row[name] is not None:
                row[name] = tuple(row[name])
        headers.append(SliceHeader(source=source, **row))
    return headers


def values_of(headers: Sequence[SliceHeader], name: str) -> list[Any]:
    """The values of one field in all headers."""
    return headers.values(name) if isinstance(headers, HeaderRows) else [getattr(header, name) for header in headers]


def take_headers(headers: Sequence[SliceHeader], which: np.ndarray) -> Sequence[SliceHeader]:
    """Select headers of a sequence.

    Args:
        headers: Headers to select from.
        which: Indices of the selected headers, ``(n,)``.
    """
    return headers.take(which) if isinstance(headers, HeaderRows) else tuple(headers[number] for number in which)


class HeaderRows(Sequence[SliceHeader]):
    """Rows of a table as a sequence of headers.

    A header is built at each access, so that millions of them need no memory. A function that works on one study calls
    :meth:`decoded` once, and passes the result on.

    Args:
        table: Table with the columns of :data:`SCHEMA`.
        rows: Row indices of the headers, ``(n,)``.
    """

    def __init__(self, table: Rows, rows: np.ndarray) -> None:
        self.table = table
        self.rows = rows
        self._decoded: list[SliceHeader] | None = None

    def decoded(self) -> "HeaderRows":
        """The headers as a sequence that builds all of them now and holds them."""
        if self._decoded is not None:
            return self
        held = HeaderRows(self.table, self.rows)
        held._decoded = list(self)
        return held

    def take(self, which: np.ndarray) -> "HeaderRows":
        """Select some of the headers.

        Args:
            which: Indices of the selected headers, or a bool mask ``(n,)``.
        """
        return HeaderRows(self.table, self.rows[which])

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> SliceHeader: ...
    @overload
    def __getitem__(self, index: slice) -> "HeaderRows": ...
    def __getitem__(self, index: int | slice) -> "SliceHeader | HeaderRows":
        if isinstance(index, slice):
            return HeaderRows(self.table, self.rows[index])
        if self._decoded is not None:
            return self._decoded[index]
        return to_headers(self.table.take(self.rows[index : index + 1 or None], SCHEMA.names))[0]

    def __iter__(self) -> Iterator[SliceHeader]:
        if self._decoded is not None:
            yield from self._decoded
            return
        chunk = 1024
        for start in range(0, len(self.rows), chunk):
            yield from to_headers(self.table.take(self.rows[start : start + chunk], SCHEMA.names))

    def values(self, name: str) -> list[Any]:
        """The values of one field in all headers, read without building the headers."""
        if self._decoded is not None:
            return [getattr(header, name) for header in self._decoded]
        if name != "source":
            return self.table.take(self.rows, [name])[name].to_pylist()
        columns = self.table.take(self.rows, ["path", "member"]).to_pydict()
        return list(map(to_ref, columns["path"], columns["member"]))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, HeaderRows) and other.table is self.table:
            return np.array_equal(self.rows, other.rows)
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickling for a worker process copies only the rows of this series, not the whole table.
        own = Rows(self.table.take(self.rows, SCHEMA.names).to_batches(), SCHEMA)
        return HeaderRows, (own, np.arange(len(own), dtype=np.uint32))
