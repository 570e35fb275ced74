"""The ledger: the outcome of every file, and the reason. It is private, because it holds paths and identifiers."""

from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from ich_lstm.errors import IchLstmError
from ich_lstm.files.atomic_write import atomic_write
from ich_lstm.files.csv_table import CsvRows
from ich_lstm.formatting import counted
from ich_lstm.printable import printable
from ich_lstm.reading.files.sources import FileRef
from ich_lstm.reading.header.header import SliceHeader
from ich_lstm.reading.ledger.header_table import FILES_SCHEMA, HeaderRows, Rows, to_batch
from ich_lstm.reading.ledger.reasons import Action, action_of, phrase_of

if TYPE_CHECKING:
    import pandas as pd

ACTIONS: tuple[Action, ...] = ("used", "skipped", "refused")

BLOCK_ROWS = 4096


class LedgerRow(NamedTuple):
    """The outcome of one file.

    Args:
        path: Path of the file; ``archive.zip!member`` inside an archive.
        sop_uid: SOP Instance UID, if known.
        series_uid: Series Instance UID, if known.
        action: ``used``, ``skipped`` or ``refused``.
        code: Reason code; empty if the file is used.
        detail: The reason as text for a person.
    """

    path: str
    sop_uid: str
    series_uid: str
    action: Action
    code: str
    detail: str


class _Outcome(NamedTuple):
    """An outcome that many files share.

    Args:
        code: Reason code; empty if the files are used.
        detail: The reason as text for a person; None if each file's own detail is in the table of files.
    """

    code: str
    detail: str | None

    @property
    def action(self) -> Action:
        return action_of(self.code) if self.code else "used"


_USED = _Outcome("", "")


class Ledger:
    """The outcome of every file: used, skipped or refused.

    A file of the index needs only a few bytes here: the number of its outcome. Rows are built on access.

    Args:
        files: All files of a source, rows of :data:`ich_lstm.reading.ledger.header_table.FILES_SCHEMA`. A file whose ``code`` is
            null counts as used until another outcome is recorded. Without a table, the ledger holds only recorded outcomes.
    """

    def __init__(self, files: Rows | None = None) -> None:
        self._files = Rows([], FILES_SCHEMA) if files is None else files
        self._outcomes: list[_Outcome] = [_USED]
        self._numbers: dict[_Outcome, int] = {_USED: 0}
        self._extra: dict[str, LedgerRow] = {}
        self._known: tuple[np.ndarray, np.ndarray] | None = None
        codes, texts = self._files.codes("code")
        number_of = np.array([*(self._outcome_number(_Outcome(code, None)) for code in texts.to_pylist()), 0], np.int32)
        self._outcome_of = number_of[codes]  # null has code -1, which selects the last number: used

    def _outcome_number(self, outcome: _Outcome) -> int:
        number = self._numbers.setdefault(outcome, len(self._outcomes))
        if number == len(self._outcomes):
            self._outcomes.append(outcome)
        return number

    def add(self, ref: FileRef, error: IchLstmError) -> None:
        """Record that a file was skipped or refused, depending on the code of the error."""
        self._record(LedgerRow(str(ref), "", "", action_of(error.code), error.code, _one_line(error.detail)))

    def mark(self, headers: Iterable[SliceHeader], code: str, detail: str) -> None:
        """Record the outcome of slices.

        Args:
            headers: Headers of the slices.
            code: Reason code; empty if the slices are used.
            detail: The reason as text for a person.
        """
        detail = _one_line(detail)
        if isinstance(headers, HeaderRows) and headers.table is self._files:
            self._outcome_of[headers.rows] = self._outcome_number(_Outcome(code, detail))
            return
        action: Action = action_of(code) if code else "used"
        for header in headers:
            if header.frame > 1:
                continue  # a multi-frame file has one row, with the outcome of its first frame
            self._record(LedgerRow(str(header.source), header.sop_uid, header.series_uid, action, code, detail))

    def mark_used(self, headers: Iterable[SliceHeader]) -> None:
        """Record that slices are used, replacing an earlier outcome."""
        self.mark(headers, "", "")

    def update(self, rows: Iterable[LedgerRow]) -> None:
        """Record rows, for example from the ledger of a worker process."""
        for row in rows:
            self._record(row)

    def _record(self, row: LedgerRow) -> None:
        place = self._find(row.path)
        if place is None:
            self._extra[row.path] = row
        else:
            self._outcome_of[place] = self._outcome_number(_Outcome(row.code, row.detail))

    def _find(self, path: str) -> int | None:
        """The index of a file in the table; None if it is not there."""
        if not len(self._outcome_of):
            return None
        if self._known is None:
            hashes = np.empty(len(self._outcome_of), np.int64)
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
        """Yield full path, UIDs and the table's own detail of rows in ascending order, in blocks."""
        for start in range(0, len(rows), BLOCK_ROWS):
            taken = self._files.take(rows[start : start + BLOCK_ROWS], ["path", "member", "sop_uid", "series_uid", "detail"])
            paths, members, *columns = (column.to_pylist() for column in taken.columns)
            yield list(zip(map(_full_path, paths, members), *columns, strict=True))

    def _iterate(self, rows: np.ndarray) -> Iterator[LedgerRow]:
        places = iter(rows)
        for block in self._blocks(rows):
            for path, sop_uid, series_uid, own_detail in block:
                outcome = self._outcomes[self._outcome_of[next(places)]]
                detail = _one_line(own_detail or "") if outcome.detail is None else outcome.detail
                yield LedgerRow(path, sop_uid, series_uid, outcome.action, outcome.code, detail)
        yield from self._extra.values()

    def rows(self) -> list[LedgerRow]:
        """The recorded rows, without files that are used."""
        return list(self._iterate(np.flatnonzero(self._outcome_of)))

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The table of files with the outcomes recorded so far; a ledger made from it is equal to this one."""
        start = 0
        for batch in self._files.batches:
            outcomes = [self._outcomes[number] for number in self._outcome_of[start : start + len(batch)]]
            details = zip(outcomes, batch.column("detail").to_pylist(), strict=True)
            reasons = {
                "code": [outcome.code or None for outcome in outcomes],
                "detail": [own_detail if outcome.detail is None else outcome.detail or None for outcome, own_detail in details],
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
        return len(self._outcome_of) + len(self._extra)

    def _count(self) -> Counter[_Outcome]:
        counts: Counter[_Outcome] = Counter(_Outcome(row.code, None) for row in self._extra.values())
        for number, count in enumerate(np.bincount(self._outcome_of, minlength=1)):
            counts[_Outcome(self._outcomes[number].code, None)] += int(count)
        return counts

    def counts(self) -> dict[str, int]:
        """Number of files used, skipped and refused; the sum is the number of files."""
        counts: dict[str, int] = dict.fromkeys(ACTIONS, 0)
        for outcome, count in self._count().items():
            counts[outcome.action] += count
        return counts

    def to_frame(self) -> "pd.DataFrame":
        """All files as a table: ``path, sop_uid, series_uid, action, code, detail``, sorted by path, as printable text."""
        import pandas as pd

        rows = sorted(row._replace(path=printable(row.path)) for row in self.everything())
        return pd.DataFrame(rows, columns=list(LedgerRow._fields))

    def write_csv(self, path: Path) -> None:
        """Write all files as CSV in the order in which they were found, without holding all rows in memory."""
        with atomic_write(path) as unfinished, unfinished.open("w", newline="", encoding="utf-8") as file:
            table = CsvRows(file)
            table.add(LedgerRow._fields)
            for row in self.everything():
                table.add(row)

    def everything(self) -> Iterator[LedgerRow]:
        """Yield the rows of all files in the order in which they were found, names and all as they are."""
        return self._iterate(np.arange(len(self._outcome_of)))

    def summary(self, *, scans: int | None = None) -> str:
        """Summarize the outcomes in one sentence that contains no path and no identifier.

        Args:
            scans: Number of scans that the used files make up; by default the number of their series UIDs.

        Example:
            >>> Ledger().summary()
            '0 files: 0 used.'
        """
        counts = self._count()
        parts = []
        for action in ACTIONS:
            reasons = {outcome: count for outcome, count in counts.items() if outcome.action == action and count}
            total = sum(reasons.values())
            if action != "used" and not total:
                continue
            series = len(self._series_of(action)) if action != "skipped" else 0
            if action == "used" and scans is not None:
                series = scans
            within = f" in {counted(series, *(['scan'] if action == 'used' else ['series', 'series']))}" if series else ""
            parts.append(f"{total:,} {action}{within}{_reasons_in_words(reasons)}")
        return f"{counted(len(self), 'file')}: {', '.join(parts)}."

    def _series_of(self, action: Action) -> set[object]:
        wanted = [number for number, outcome in enumerate(self._outcomes) if outcome.action == action]
        found: set[object] = {row.series_uid for row in self._extra.values() if row.action == action and row.series_uid}
        codes, uids = self._files.codes("series_uid")
        found.update(uids.take(pa.array(np.unique(codes[np.isin(self._outcome_of, wanted)]))).to_pylist())
        return found - {""}


def _reasons_in_words(reasons: dict[_Outcome, int]) -> str:
    phrases: Counter[str] = Counter()
    for outcome, count in reasons.items():
        if outcome.code:
            phrases[phrase_of(outcome.code)] += count
    if len(phrases) == 1:
        return f" ({next(iter(phrases))})"
    return f" ({', '.join(f'{count:,} {phrase}' for phrase, count in phrases.most_common())})" if phrases else ""


def _full_path(path: bytes, member: bytes | None) -> str:
    """The path of a file as :meth:`FileRef.__str__` writes it."""
    return (path if member is None else path + b"!" + member).decode(errors="surrogateescape")


def _one_line(text: str) -> str:
    return " ".join(text.split())
