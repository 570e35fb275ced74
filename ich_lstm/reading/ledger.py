"""The ledger: what became of every file, and why. Private: it holds paths and identifiers."""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ich_lstm.errors import IchLstmError
from ich_lstm.reading.header import SliceHeader
from ich_lstm.reading.reasons import Action, action_of, phrase_of
from ich_lstm.reading.sources import FileRef

if TYPE_CHECKING:
    import pandas as pd

ACTIONS: tuple[Action, ...] = ("used", "skipped", "refused")


class LedgerRow(NamedTuple):
    """One file's fate.

    Args:
        path: The file; ``archive.zip!member`` inside a zip.
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


class Ledger:
    """What became of every file: used, skipped or refused, each once.

    Files that are used cost nothing here: they are the index's own table. Only what departs from it has a row.

    Args:
        used: Table with the columns ``path``, ``member``, ``sop_uid`` and ``series_uid`` of files that count as used as
            long as nothing else is noted; left out for a ledger that knows only what is noted.
    """

    def __init__(self, used: pa.Table | None = None) -> None:
        self._used = used
        self._rows: dict[str, LedgerRow] = {}

    def add(self, ref: FileRef, error: IchLstmError) -> None:
        """Note that a file was skipped or refused (the error's code decides which)."""
        path = str(ref)
        self._rows[path] = LedgerRow(path, "", "", action_of(error.code), error.code, _one_line(error.detail))

    def mark(self, headers: Iterable[SliceHeader], code: str, detail: str) -> None:
        """Note what became of slices that were read.

        Args:
            headers: The slices.
            code: Reason code, or empty for used.
            detail: The reason for a person.
        """
        action: Action = action_of(code) if code else "used"
        for header in headers:
            path = str(header.source)
            self._rows[path] = LedgerRow(path, header.sop_uid, header.series_uid, action, code, _one_line(detail))

    def mark_used(self, headers: Iterable[SliceHeader]) -> None:
        """Note that slices were used after all."""
        self.mark(headers, "", "")

    def update(self, rows: Iterable[LedgerRow]) -> None:
        """Take over rows, for example from the ledger of a worker process."""
        self._rows.update((row.path, row) for row in rows)

    def rows(self) -> list[LedgerRow]:
        """The rows that were noted, without the files that are used and nothing else."""
        return list(self._rows.values())

    def __len__(self) -> int:
        """Number of files."""
        return sum(self.counts().values())

    def counts(self) -> dict[str, int]:
        """Files used, skipped and refused; their sum is the number of files."""
        counts = Counter(row.action for row in self._rows.values())
        counts["used"] += int(self._untouched().sum())
        return {action: counts[action] for action in ACTIONS}

    def _untouched(self) -> np.ndarray:
        """Which files of the table have no row of their own, bool ``(n,)``."""
        if self._used is None:
            return np.zeros(0, bool)
        if not self._rows:
            return np.ones(len(self._used), bool)
        noted = pa.array([path.encode(errors="surrogateescape") for path in self._rows], pa.binary())
        full = pc.is_in(_full_paths(self._used), value_set=noted)
        return ~np.asarray(full.combine_chunks() if isinstance(full, pa.ChunkedArray) else full).astype(bool)

    def to_frame(self) -> "pd.DataFrame":
        """All files as a table: ``path, sop_uid, series_uid, action, code, detail``, sorted by path."""
        import pandas as pd

        rows = list(self._rows.values())
        if self._used is not None:
            table = self._used.filter(pa.array(self._untouched()))
            paths = [path.decode(errors="surrogateescape") for path in _full_paths(table).to_pylist()]
            uids = zip(table["sop_uid"].to_pylist(), table["series_uid"].to_pylist(), strict=True)
            rows += [LedgerRow(path, *uid, "used", "", "") for path, uid in zip(paths, uids, strict=True)]
        return pd.DataFrame([row._replace(path=printable(row.path)) for row in sorted(rows)], columns=list(LedgerRow._fields))

    def summary(self) -> str:
        """What became of the files, in one sentence that holds no path and no identifier."""
        counts = self.counts()
        total = sum(counts.values())
        series = {row.series_uid for row in self._rows.values() if row.action == "used"}
        if self._used is not None:
            untouched = self._used["series_uid"].filter(pa.array(self._untouched()))
            series.update(pc.unique(untouched).to_pylist())
        parts = [f"{counts['used']:,} used" + (f" in {_count(len(series), 'series', 'series')}" if series else "")]
        for action in ("skipped", "refused"):
            rows = [row for row in self._rows.values() if row.action == action]
            if not rows:
                continue
            reasons = Counter(phrase_of(row.code) for row in rows).most_common()
            refused = len({row.series_uid for row in rows if row.series_uid}) if action == "refused" else 0
            within = f" in {_count(refused, 'series', 'series')}" if refused else ""
            words = ", ".join(f"{count:,} {phrase}" for phrase, count in reasons)
            parts.append(f"{len(rows):,} {action}{within} ({words})")
        return f"{_count(total, 'file', 'files')}: {', '.join(parts)}."


def printable(path: str) -> str:
    """A path as text that any table can hold: bytes that are no UTF-8 become ``\\xff``."""
    return path.encode(errors="surrogateescape").decode(errors="backslashreplace")


def _count(count: int, one: str, many: str) -> str:
    return f"{count:,} {one if count == 1 else many}"


def _full_paths(table: pa.Table) -> pa.ChunkedArray:
    """``path`` or ``path!member``, as in :meth:`FileRef.__str__`, as bytes."""
    joined = pc.binary_join_element_wise(table["path"], table["member"], pa.scalar(b"!", pa.binary()))
    return pc.if_else(pc.is_null(table["member"]), table["path"], joined)


def _one_line(text: str) -> str:
    return " ".join(text.split())
