"""Collects repairs, flags and excluded slices while one scan is loaded."""

from collections import Counter
from typing import NamedTuple

from ich_lstm.reading.header.header import SliceHeader
from ich_lstm.reading.ledger.ledger import Ledger
from ich_lstm.scan import Note


class Dropped(NamedTuple):
    """A slice that is left out of its scan, and why."""

    header: SliceHeader
    code: str
    detail: str


class Account:
    """Collects repairs, flags and left-out slices; the same repair of many slices becomes one note."""

    def __init__(self) -> None:
        self.dropped: list[Dropped] = []
        self._repairs: dict[str, str] = {}
        self._slices: Counter[str] = Counter()
        self._flags: dict[str, list[str]] = {}

    def drop(self, header: SliceHeader, code: str, detail: str) -> None:
        """A slice is left out."""
        self.dropped.append(Dropped(header, code, detail))

    def repair(self, code: str, detail: str) -> None:
        """The series was repaired."""
        self._repairs.setdefault(code, detail)

    def repair_slice(self, note: Note) -> None:
        """One slice was repaired."""
        self._repairs.setdefault(note.code, note.detail)
        self._slices[note.code] += 1

    def flag(self, code: str, detail: str) -> None:
        """A reader of the scan should know this; what is said of one code more than once is joined."""
        details = self._flags.setdefault(code, [])
        if detail not in details:
            details.append(detail)

    def repairs(self) -> tuple[Note, ...]:
        """All repairs, each once, with the number of slices."""
        return tuple(Note(code, self._with_count(code, detail)) for code, detail in self._repairs.items())

    def flags(self) -> tuple[Note, ...]:
        """All flags, each once."""
        return tuple(Note(code, "; ".join(details)) for code, details in self._flags.items())

    def write(self, ledger: Ledger) -> None:
        """Note the left-out slices in a ledger; a frame is none, for its file has others that are used."""
        for header, code, detail in self.dropped:
            if header.frames == 1 or not header.frame:
                ledger.mark([header], code, detail)

    def _with_count(self, code: str, detail: str) -> str:
        count = self._slices[code]
        return f"{detail} (in {count} {'slice' if count == 1 else 'slices'})" if count else detail
