"""The ledger of a folder of predictions: the outcome of every file that any command has read into it."""

import csv
import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path

from ich_lstm.files.csv_table import CsvRows, plain_cell
from ich_lstm.reading.ledger.ledger import Ledger, LedgerRow
from ich_lstm.reading.ledger.reasons import action_of, phrase_of

SUPERSEDED = "superseded"


def write_merged(
    before: Path, aside: Path, ledgers: Sequence[Ledger], *, roots: Iterable[Path], again: Collection[str]
) -> Counter[str]:
    """Merge the ledgers of earlier commands and of this command, row by row, because they may not fit into memory.

    A file has one row. The outcome of this command replaces that of an earlier one; if the file lies below two paths of this
    command, the first path decides.

    Args:
        before: Ledger of the earlier commands, sorted by path; may be missing.
        aside: Path to which the merged ledger is written.
        ledgers: Ledgers of this command, in the order of its paths.
        roots: Paths that this command has read.
        again: Series UIDs of studies in the folder that this command has read again.

    Returns:
        The number of files by action.
    """
    counts: Counter[str] = Counter()
    new = [_rows_of(ledger) for ledger in ledgers]
    old = _earlier_rows(before, [str(root.absolute()) for root in roots])
    with aside.open("w", newline="", encoding="utf-8") as file:
        table = CsvRows(file)
        table.add(LedgerRow._fields)
        path = None
        # For equal paths, merge yields the row of the first iterable first.
        for row in heapq.merge(*new, _superseded(old, again), key=attrgetter("path")):
            if row.path != path:
                table.add(row)
                counts[row.action] += 1
                path = row.path
    return counts


def _rows_of(ledger: Ledger) -> Iterator[LedgerRow]:
    return iter(sorted(ledger.everything()))


def _earlier_rows(path: Path, roots: Sequence[str]) -> Iterator[LedgerRow]:
    """Rows of earlier commands, except those of unused files that still exist below the paths of this command.

    Such a file has a new row, or is now read as something else. A damaged archive, for example, that was replaced by a sound
    one has rows for its members, and none for itself.
    """
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows, None)
        for row in (LedgerRow._make(map(plain_cell, cells)) for cells in rows):
            is_below = any(row.path == root or row.path.startswith((f"{root}/", f"{root}!")) for root in roots)
            if row.action == "used" or not is_below or not Path(row.path).exists():
                yield row


def _superseded(rows: Iterable[LedgerRow], again: Collection[str]) -> Iterator[LedgerRow]:
    """Replace the outcome ``used`` by ``skipped`` for files whose study is now read from another copy."""
    for row in rows:
        if row.action == "used" and row.series_uid in again:
            row = row._replace(action=action_of(SUPERSEDED), code=SUPERSEDED, detail=phrase_of(SUPERSEDED))
        yield row
