"""The ledger: the outcome of every file, and the reason. It is private, since it holds paths and identifiers."""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from ich_lstm.errors import IchLstmError
from ich_lstm.formatting import counted
from ich_lstm.reading.files.sources import FileRef
from ich_lstm.reading.header.header import SliceHeader
from ich_lstm.reading.ledger.header_table import FILES_SCHEMA, HeaderRows, Rows, to_batch
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


class _Fate(NamedTuple):
    """The outcome that many files share.

    Args:
        code: Reason code; empty if the files are used.
        detail: The reason for a person; None: it stands in the table of files.
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
        files: All files of a source, rows of :data:`ich_lstm.reading.ledger.header_table.FILES_SCHEMA`. A file whose ``code`` is
            null counts as used until something else is noted. Without a table, the ledger knows only what is noted.
    """

    def __init__(self, files: Rows | None = None) -> None:
        self._files = Rows([], FILES_SCHEMA) if files is None else files
        self._fates: list[_Fate] = [_USED]
        self._numbers: dict[_Fate, int] = {_USED: 0}
        self._extra: dict[str, LedgerRow] = {}
        self._known: tuple[np.ndarray, np.ndarray] | None = None
        codes, texts = self._files.codes("code")
        number_of = np.array([*(self._number(_Fate(code, None)) for code in texts.to_pylist()), 0], np.int32)
        self._fate_of = number_of[codes]  # a null is -1, which takes the last number: used

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
        if isinstance(headers, HeaderRows) and headers.table is self._files:
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

    def _note(self, row: LedgerRow) -> None:
        place = self._find(row.path)
        if place is None:
            self._extra[row.path] = row
        else:
            self._fate_of[place] = self._number(_Fate(row.code, row.detail))

    def _find(self, path: str) -> int | None:
        """The row of a file in the table."""
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
            if _full_path(self._files.value("path", row), self._files.value("member", row)) == path:
                return row
        return None

    def _blocks(self, rows: np.ndarray) -> Iterator[list[tuple[str, str, str, str | None]]]:
        """Full path, UIDs and the table's own detail of rows in ascending order, some at a time."""
        for start in range(0, len(rows), BLOCK_ROWS):
            taken = self._files.take(rows[start : start + BLOCK_ROWS], ["path", "member", "sop_uid", "series_uid", "detail"])
            paths, members, *columns = (column.to_pylist() for column in taken.columns)
            yield list(zip(map(_full_path, paths, members), *columns, strict=True))

    def _iterate(self, rows: np.ndarray) -> Iterator[LedgerRow]:
        places = iter(rows)
        for block in self._blocks(rows):
            for path, sop_uid, series_uid, said in block:
                fate = self._fates[self._fate_of[next(places)]]
                detail = _one_line(said or "") if fate.detail is None else fate.detail
                yield LedgerRow(path, sop_uid, series_uid, fate.action, fate.code, detail)
        yield from self._extra.values()

    def rows(self) -> list[LedgerRow]:
        """The rows that were noted, without the files that are used and nothing else."""
        return list(self._iterate(np.flatnonzero(self._fate_of)))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The table of files with the reasons as they are noted now, from which the same ledger can be made again."""
        start = 0
        for batch in self._files.batches:
            fates = [self._fates[number] for number in self._fate_of[start : start + len(batch)]]
            details = zip(fates, batch.column("detail").to_pylist(), strict=True)
            reasons = {
                "code": [fate.code or None for fate in fates],
                "detail": [said if fate.detail is None else fate.detail or None for fate, said in details],
            }
            columns = [
                pa.array(reasons[name], pa.string()) if name in reasons else batch.column(name) for name in FILES_SCHEMA.names
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=FILES_SCHEMA)
            start += len(batch)
        if self._extra:
            extra = list(self._extra.values())
            files = to_batch([SliceHeader(source=FileRef(Path(row.path)), sop_uid=row.sop_uid) for row in extra])
            noted = [[row.code or None for row in extra], [None] * len(extra), [row.detail or None for row in extra]]
            columns = [*files.columns, *(pa.array(values, pa.string()) for values in noted)]
            yield pa.RecordBatch.from_arrays(columns, schema=FILES_SCHEMA)

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
            within = f" in {counted(series, *(['scan'] if action == 'used' else ['series', 'series']))}" if series else ""
            parts.append(f"{total:,} {action}{within}{_words(reasons)}")
        return f"{counted(len(self), 'file')}: {', '.join(parts)}."

    def _series_of(self, action: Action) -> set[object]:
        wanted = [number for number, fate in enumerate(self._fates) if fate.action == action]
        found: set[object] = {row.series_uid for row in self._extra.values() if row.action == action and row.series_uid}
        codes, uids = self._files.codes("series_uid")
        found.update(uids.take(pa.array(np.unique(codes[np.isin(self._fate_of, wanted)]))).to_pylist())
        return found - {""}


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


def _full_path(path: bytes, member: bytes | None) -> str:
    """As in :meth:`FileRef.__str__`."""
    return (path if member is None else path + b"!" + member).decode(errors="surrogateescape")


def _one_line(text: str) -> str:
    return " ".join(text.split())
