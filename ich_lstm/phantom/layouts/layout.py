"""The interface of every data set layout; `ich_lstm.phantom.write` does the rest."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from ich_lstm.phantom.settings import PhantomSettings

Record = TypeVar("Record")
"""What the tables need to know of one patient; it comes back from a worker, so it must be small and picklable."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class Layout(ABC, Generic[Record]):
    """How heads lie on disk, and which tables stand beside them.

    A layout holds its options as fields of plain values: they are written into the set's marker. Everything that it
    writes is a pure function of them and of the settings.
    """

    name: ClassVar[str]
    """As ``ich-phantom --layout`` calls it."""

    labels: ClassVar[str]
    """The label table, relative to the set's folder."""

    contents: ClassVar[tuple[str, ...]]
    """Glob patterns that find every file of the set but its marker and masks: a set from which one was lost is written again."""

    def check(self, settings: PhantomSettings) -> None:
        """Refuse, before anything is written, what cannot be done.

        Raises:
            ConfigError: If an option does not fit the settings, or a package is missing.
        """

    def patients(self, settings: PhantomSettings) -> int:
        """How many patients are written; `write_patient` gets the numbers below it."""
        return settings.patients

    @abstractmethod
    def write_patient(self, settings: PhantomSettings, patient: int, folder: Path) -> Record:
        """Write the images of one patient below the set's folder, in any process."""

    @abstractmethod
    def write_tables(self, settings: PhantomSettings, folder: Path, records: Sequence[Record]) -> None:
        """Write what stands beside the images, given every patient's record in the order of their numbers."""


def write_lines(path: Path, lines: Sequence[str], *, byte_order_mark: bool = False) -> None:
    """Write a table of ASCII lines, the same bytes on every system."""
    path.write_bytes((BYTE_ORDER_MARK if byte_order_mark else b"") + ("\n".join(lines) + "\n").encode("ascii"))
