"""Slice headers as an Arrow table: a few hundred bytes per slice, however many there are."""

from collections.abc import Iterator, Sequence
from dataclasses import fields
from operator import attrgetter
from pathlib import Path
from typing import Any, overload

import numpy as np
import pyarrow as pa

from ich_lstm.reading.header import SliceHeader
from ich_lstm.reading.sources import FileRef

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

SCHEMA = pa.schema(
    # Paths are bytes: a file system's names need not be text.
    [pa.field("path", pa.binary(), nullable=False), pa.field("member", pa.binary())]
    + [pa.field(field.name, _TYPES[field.type]) for field in _FIELDS]
)


def to_batch(headers: Sequence[SliceHeader]) -> pa.RecordBatch:
    """Headers as rows of :data:`SCHEMA`."""
    columns: list[Any] = [
        [str(header.source.path).encode(errors="surrogateescape") for header in headers],
        [None if (member := header.source.member) is None else member.encode(errors="surrogateescape") for header in headers],
    ]
    columns += zip(*map(_values_of, headers), strict=True) if headers else [() for _ in _NAMES]
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)


def to_headers(table: pa.Table) -> list[SliceHeader]:
    """Rows of :data:`SCHEMA` as headers."""
    headers = []
    for row in table.to_pylist():
        path, member = row.pop("path"), row.pop("member")
        for name in _TUPLES:
            if row[name] is not None:
                row[name] = tuple(row[name])
        source = FileRef(
            Path(path.decode(errors="surrogateescape")), None if member is None else member.decode(errors="surrogateescape")
        )
        headers.append(SliceHeader(source=source, **row))
    return headers


class HeaderRows(Sequence[SliceHeader]):
    """Some rows of a table as a sequence of headers, each made when it is asked for.

    Args:
        table: Rows of :data:`SCHEMA`.
        rows: Which of them; all by default.
    """

    def __init__(self, table: pa.Table, rows: np.ndarray | None = None) -> None:
        self._table = table
        self._rows = np.arange(len(table)) if rows is None else rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> SliceHeader: ...
    @overload
    def __getitem__(self, index: slice) -> "HeaderRows": ...
    def __getitem__(self, index: int | slice) -> "SliceHeader | HeaderRows":
        if isinstance(index, slice):
            return HeaderRows(self._table, self._rows[index])
        return to_headers(self._table.take(self._rows[index : index + 1 or None]))[0]

    def __iter__(self) -> Iterator[SliceHeader]:
        chunk = 1024
        for start in range(0, len(self._rows), chunk):
            yield from to_headers(self._table.take(self._rows[start : start + chunk]))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __reduce__(self) -> tuple[Any, ...]:
        # A series that travels to a worker takes its own rows along, not the whole table.
        return HeaderRows, (self._table.take(self._rows),)
