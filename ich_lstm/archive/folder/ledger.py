"""The ledger of a folder of predictions: the outcome of every file that any command has read into it."""

import csv
import heapq
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path

from ich_lstm.reading.ledger.ledger import Ledger, LedgerRow
from ich_lstm.reading.ledger.reasons import action_of, phrase_of

SUPERSEDED = "superseded"


def write_merged(
    before: Path, aside: Path, ledgers: Sequence[Ledger], *, roots: Iterable[Path], again: Collection[str]
) -> Counter[str]:
    """Write the ledger anew, row by row: what lies there already may be longer than memory.

    A file has one row. What this command has found of it replaces what an earlier one has found; of two paths of this
    command below which it lies, the first tells.

    Args:
        before: The ledger of the earlier commands, sorted by path; may be missing.
        aside: Where to write.
        ledgers: Of this command, by path.
        roots: The paths that this command has read.
        again: Series UIDs of studies that were in the folder and were read again by this command.

    Returns:
        The number of files by action.
    """
    counts: Counter[str] = Counter()
    new = [_rows_of(ledger) for ledger in ledgers]
    old = _kept(before, [str(root.absolute()) for root in roots])
    with aside.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(LedgerRow._fields)
        path = None
        # Of rows with equal paths, those of the first iterable come first.
        for row in heapq.merge(*new, _superseded(old, again), key=attrgetter("path")):
            if row.path != path:
                writer.writerow(row)
                counts[row.action] += 1
                path = row.path
    return counts


def _rows_of(ledger: Ledger) -> Iterator[LedgerRow]:
    return map(LedgerRow._make, ledger.to_frame().itertuples(index=False, name=None))


def _kept(path: Path, roots: Sequence[str]) -> Iterator[LedgerRow]:
    """Rows of an earlier command, without files below a path of this one that are there and had to be read as something else.

    A damaged archive that was refused, for example, and came again undamaged: its members have rows now, and it has none.
    """
    if not path.exists():
        return
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.reader(file)
        next(rows, None)
        for row in map(LedgerRow._make, rows):
            is_below = any(row.path == root or row.path.startswith((f"{root}/", f"{root}!")) for root in roots)
            if row.action == "used" or not is_below or not Path(row.path).exists():
                yield row


def _superseded(rows: Iterable[LedgerRow], again: Collection[str]) -> Iterator[LedgerRow]:
    """Files from which a result was made that another copy of their study has replaced count as skipped."""
    for row in rows:
        if row.action == "used" and row.series_uid in again:
            row = row._replace(action=action_of(SUPERSEDED), code=SUPERSEDED, detail=phrase_of(SUPERSEDED))
        yield row
