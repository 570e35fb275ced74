"""Collects repairs, flags and excluded slices while one scan is loaded."""

from collections import Counter
from typing import NamedTuple

from ich_lstm.formatting import counted
from ich_lstm.reading.header.header import SliceHeader
from ich_lstm.reading.ledger.ledger import Ledger
from ich_lstm.scan import Note


class Excluded(NamedTuple):
    """A slice that is excluded from its scan.

    Args:
        header: Header of the slice.
        code: Reason code of the ledger.
        detail: The reason as text for a person.
    """

    header: SliceHeader
    code: str
    detail: str


class ScanNotes:
    """Collects repairs, flags and excluded slices; the same repair of many slices becomes one note."""

    def __init__(self) -> None:
        self.excluded: list[Excluded] = []
        self._repairs: dict[str, str] = {}
        self._slices: Counter[str] = Counter()
        self._flags: dict[str, list[str]] = {}

    def exclude(self, header: SliceHeader, code: str, detail: str) -> None:
        """Note that a slice is excluded from the scan."""
        self.excluded.append(Excluded(header, code, detail))

    def repair(self, code: str, detail: str) -> None:
        """Note a repair of the whole series."""
        self._repairs.setdefault(code, detail)

    def repair_slice(self, note: Note) -> None:
        """Note a repair of one slice."""
        self._repairs.setdefault(note.code, note.detail)
        self._slices[note.code] += 1

    def flag(self, code: str, detail: str) -> None:
        """Note a property that users of the scan should know; different details of one code are joined."""
        details = self._flags.setdefault(code, [])
        if detail not in details:
            details.append(detail)

    def repairs(self) -> tuple[Note, ...]:
        """All repairs, each once, with the number of slices that were repaired."""
        return tuple(Note(code, self._with_count(code, detail)) for code, detail in self._repairs.items())

    def flags(self) -> tuple[Note, ...]:
        """All flags, each once."""
        return tuple(Note(code, "; ".join(details)) for code, details in self._flags.items())

    def write(self, ledger: Ledger) -> None:
        """Note the excluded slices in a ledger.

        A single frame of a multi-frame file is not noted: the ledger has one row per file, and the file's other frames are used.
        """
        for header, code, detail in self.excluded:
            if header.frames == 1 or not header.frame:
                ledger.mark([header], code, detail)

    def _with_count(self, code: str, detail: str) -> str:
        count = self._slices[code]
        return f"{detail} (in {counted(count, 'slice')})" if count else detail
