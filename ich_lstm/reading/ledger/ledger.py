"""The ledger: the outcome of every file, and the reason. It is private, since it holds paths and identifiers."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from ich_lstm.errors import IchLstmError
from ich_lstm.reading.files.sources import FileRef
from ich_lstm.reading.header.header import SliceHeader
from ich_lstm.reading.ledger.header_table import HeaderRows, Rows
from ich_lstm.reading.ledger.reasons import Action, action_of, phrase_of

if TYPE_CHECKING:
    import pandas as pd

ACTIONS: tuple[Action, ...] = ("used", "skipped", "refused")

BLOCK_ROWS = 4096


class LedgerRow(NamedTuple):
    """One file's fate.

    Args:
        path: The file; ``archive.zip!member`` inside an archive.
        sop_uid: SOP Instance UID, if known.
        series_uid: Series Instance UID, if known.
        action: ``used``, ``skipped`` or ``refused``.
        code: Reason, empty if used.
        detail: The reason for a person.
    """

    path: str
    sop_uid: str
    series_uid: str
    action: Action
    code: str
    detail: str


LEDGER_SCHEMA = pa.schema([pa.field("path", pa.binary()), *(pa.field(name, pa.string()) for name in LedgerRow._fields[1:])])


class _Fate(NamedTuple):
    """What many files share.

    Args:
        code: Reason, empty if used.
        detail: The reason for a person; None: it stands in the table of the files that are left out.
    """

    code: str
    detail: str | None

    @property
    def action(self) -> Action:
        return action_of(self.code) if self.code else "used"


_USED = _Fate("", "")


class Ledger:
    """What became of every file: used, skipped or refused, each once.

    A file of the index costs a few bytes here: a number that stands for its reason. Rows are made when they are asked for.

    Args:
        used: Table with the columns ``path``, ``member``, ``sop_uid`` and ``series_uid`` of files that count as used as
            long as nothing else is noted; left out for a ledger that knows only what is noted.
        left_out: Table with the columns ``path``, ``member``, ``code`` and ``detail`` of files that are no slices.
    """

    def __init__(self, used: Rows | None = None, left_out: Rows | None = None) -> None:
        self.left_out = left_out
        self._used = used
        self._slices = 0 if used is None else len(used)
        # each with the number of its first row
        self._tables = [(first, table) for first, table in ((0, used), (self._slices, left_out)) if table is not None]
        self._fates: list[_Fate] = [_USED]
        self._numbers: dict[_Fate, int] = {_USED: 0}
        self._fate_of = np.zeros(sum(len(table) for _, table in self._tables), np.int32)
        self._extra: dict[str, LedgerRow] = {}
        self._known: tuple[np.ndarray, np.ndarray] | None = None
        row = self._slices
        for batch in [] if left_out is None else left_out.batches:
            numbers = [self._number(_Fate(code, None)) for code in batch.column("code").to_pylist()]
            self._fate_of[row : row + len(batch)] = numbers
            row += len(batch)

    def _number(self, fate: _Fate) -> int:
        number = self._numbers.setdefault(fate, len(self._fates))
        if number == len(self._fates):
            self._fates.append(fate)
        return number

    def add(self, ref: FileRef, error: IchLstmError) -> None:
        """Note that a file was skipped or refused (the error's code decides which)."""
        self._note(LedgerRow(str(ref), "", "", action_of(error.code), error.code, _one_line(error.detail)))

    def mark(self, headers: Iterable[SliceHeader], code: str, detail: str) -> None:
        """Note what became of slices that were read.

        Args:
            headers: The slices.
            code: Reason code, or empty for used.
            detail: The reason for a person.
        """
        detail = _one_line(detail)
        if isinstance(headers, HeaderRows) and headers.table is self._used:
            self._fate_of[headers.rows] = self._number(_Fate(code, detail))
            return
        action: Action = action_of(code) if code else "used"
        for header in headers:
            if header.frame > 1:
                continue  # its file has one row, and the fate of the series
            self._note(LedgerRow(str(header.source), header.sop_uid, header.series_uid, action, code, detail))

    def mark_used(self, headers: Iterable[SliceHeader]) -> None:
        """Note that slices were used after all."""
        self.mark(headers, "", "")

    def update(self, rows: Iterable[LedgerRow]) -> None:
        """Take over rows, for example from the ledger of a worker process."""
        for row in rows:
            self._note(row)

    def update_from(self, noted: Rows) -> None:
        """Take over rows of :data:`LEDGER_SCHEMA`."""
        for batch in noted.batches:
            rows = batch.to_pylist()
            self.update(LedgerRow(**{**row, "path": row["path"].decode(errors="surrogateescape")}) for row in rows)

    def _note(self, row: LedgerRow) -> None:
        place = self._find(row.path)
        if place is None:
            self._extra[row.path] = row
        else:
            self._fate_of[place] = self._number(_Fate(row.code, row.detail))

    def _find(self, path: str) -> int | None:
        """The row of a file in the tables."""
        if not len(self._fate_of):
            return None
        if self._known is None:
            hashes = np.empty(len(self._fate_of), np.int64)
            row = 0
            for block in self._blocks(np.arange(len(hashes))):
                hashes[row : row + len(block)] = [hash(name) for name, *_ in block]
                row += len(block)
            order = np.argsort(hashes).astype(np.uint32)
            self._known = hashes[order], order
        hashes, order = self._known
        for at in range(int(np.searchsorted(hashes, hash(path))), len(hashes)):
            if hashes[at] != hash(path):
                break
            row = int(order[at])
            first, table = self._tables[-1 if row >= self._tables[-1][0] else 0]
            if _full_path(table.value("path", row - first), table.value("member", row - first)) == path:
                return row
        return None

    def _blocks(self, rows: np.ndarray) -> Iterator[list[tuple[str, str, str, str]]]:
        """Full path, UIDs and detail of rows in ascending order, some at a time."""
        for first, table in self._tables:
            mine = rows[(rows >= first) & (rows < first + len(table))] - first
            names = [name if name in table.schema.names else None for name in ("sop_uid", "series_uid", "detail")]
            for start in range(0, len(mine), BLOCK_ROWS):
                taken = table.take(mine[start : start + BLOCK_ROWS])
                columns = [[""] * len(taken) if name is None else taken[name].to_pylist() for name in names]
                paths = map(_full_path, taken["path"].to_pylist(), taken["member"].to_pylist())
                yield list(zip(paths, *columns, strict=True))

    def _iterate(self, rows: np.ndarray) -> Iterator[LedgerRow]:
        places = iter(rows)
        for block in self._blocks(rows):
            for path, sop_uid, series_uid, said in block:
                fate = self._fates[self._fate_of[next(places)]]
                detail = _one_line(said) if fate.detail is None else fate.detail
                yield LedgerRow(path, sop_uid, series_uid, fate.action, fate.code, detail)
        yield from self._extra.values()

    def rows(self) -> list[LedgerRow]:
        """The rows that were noted, without the files that are used and nothing else."""
        return list(self._iterate(np.flatnonzero(self._fate_of)))

    def noted_batches(self) -> Iterator[pa.RecordBatch]:
        """The noted rows as Arrow batches of :data:`LEDGER_SCHEMA`."""
        rows = self._iterate(np.flatnonzero(self._fate_of))
        while block := [row for _, row in zip(range(BLOCK_ROWS), rows, strict=False)]:
            columns = list(zip(*block, strict=True))
            paths = [path.encode(errors="surrogateescape") for path in columns[0]]
            arrays = [pa.array(paths, pa.binary()), *(pa.array(column, pa.string()) for column in columns[1:])]
            yield pa.RecordBatch.from_arrays(arrays, schema=LEDGER_SCHEMA)

    def __len__(self) -> int:
        """Number of files."""
        return len(self._fate_of) + len(self._extra)

    def _count(self) -> Counter[_Fate]:
        counts: Counter[_Fate] = Counter(_Fate(row.code, None) for row in self._extra.values())
        for number, count in enumerate(np.bincount(self._fate_of, minlength=1)):
            counts[_Fate(self._fates[number].code, None)] += int(count)
        return counts

    def counts(self) -> dict[str, int]:
        """Files used, skipped and refused; their sum is the number of files."""
        counts: dict[str, int] = dict.fromkeys(ACTIONS, 0)
        for fate, count in self._count().items():
            counts[fate.action] += count
        return counts

    def to_frame(self) -> "pd.DataFrame":
        """All files as a table: ``path, sop_uid, series_uid, action, code, detail``, sorted by path."""
        import pandas as pd

        return pd.DataFrame(sorted(self._everything()), columns=list(LedgerRow._fields))

    def write_csv(self, path: Path) -> None:
        """Write all files as CSV, in the order in which they were found, without holding them in memory."""
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(LedgerRow._fields)
            writer.writerows(self._everything())

    def _everything(self) -> Iterator[LedgerRow]:
        """All rows, with names that are no text written as text."""
        for row in self._iterate(np.arange(len(self._fate_of))):
            yield row._replace(path=printable(row.path))

    def summary(self, *, scans: int | None = None) -> str:
        """What became of the files, in one sentence that holds no path and no identifier.

        Args:
            scans: How many scans the used files make; left out: as many as they have series UIDs.

        Example:
            >>> Ledger().summary()
            '0 files: 0 used.'
        """
        counts = self._count()
        parts = []
        for action in ACTIONS:
            reasons = {fate: count for fate, count in counts.items() if fate.action == action and count}
            total = sum(reasons.values())
            if action != "used" and not total:
                continue
            series = len(self._series_of(action)) if action != "skipped" else 0
            if action == "used" and scans is not None:
                series = scans
            within = f" in {_count(series, *(('scan', 'scans') if action == 'used' else ('series', 'series')))}" if series else ""
            parts.append(f"{total:,} {action}{within}{_words(reasons)}")
        return f"{_count(len(self), 'file', 'files')}: {', '.join(parts)}."

    def _series_of(self, action: Action) -> set[object]:
        wanted = [number for number, fate in enumerate(self._fates) if fate.action == action]
        found: set[object] = {row.series_uid for row in self._extra.values() if row.action == action and row.series_uid}
        if self._used is not None and self._slices:
            codes, uids = self._used.codes("series_uid")
            mine = np.unique(codes[np.isin(self._fate_of[: self._slices], wanted)])
            found.update(uids.take(pa.array(mine)).to_pylist())
        return found


def _words(reasons: dict[_Fate, int]) -> str:
    phrases: Counter[str] = Counter()
    for fate, count in reasons.items():
        if fate.code:
            phrases[phrase_of(fate.code)] += count
    if len(phrases) == 1:
        return f" ({next(iter(phrases))})"
    return f" ({', '.join(f'{count:,} {phrase}' for phrase, count in phrases.most_common())})" if phrases else ""


def printable(path: str) -> str:
    """A path as text that any table can hold: bytes that are no UTF-8 become ``\\xff``."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _count(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _full_path(path: bytes, member: bytes | None) -> str:
    """As in :meth:`FileRef.__str__`."""
    return (path if member is None else path + b"!" + member).decode(errors="surrogateescape")


def _one_line(text: str) -> str:
    return " ".join(text.split())
