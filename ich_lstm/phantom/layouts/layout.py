"""The interface of every layout; `ich_lstm.phantom.write` runs it."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Generic, TypeVar

from ich_lstm.files.atomic_write import write_bytes
from ich_lstm.phantom.settings import PhantomSettings

Record = TypeVar("Record")
"""What the tables need of one patient; a worker returns it, so it must be small and picklable."""

BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True, kw_only=True)
class Layout(ABC, Generic[Record]):
    """How heads are stored on disk, and which tables accompany them.

    The fields of a layout are its options. They are plain values, because they are written into the marker file of the data
    set. Everything that a layout writes is a pure function of its options and of the settings.
    """

    name: ClassVar[str]
    """Name of the layout, as in ``ich-phantom --layout``."""

    labels: ClassVar[str]
    """Path of the label table, relative to the folder of the data set."""

    contents: ClassVar[tuple[str, ...]]
    """Glob patterns that match every file except marker and masks; a data set in which one is missing is written again."""

    def check(self, settings: PhantomSettings) -> None:
        """Refuse settings that cannot be written, before anything is written.

        Raises:
            ConfigError: If an option does not fit the settings, or a package is missing.
        """

    def patients(self, settings: PhantomSettings) -> int:
        """Number of patients to write; `write_patient` is called with the numbers below it."""
        return settings.patients

    @abstractmethod
    def write_patient(self, settings: PhantomSettings, patient: int, folder: Path) -> Record:
        """Write the images of one patient into the folder of the data set; may run in another process."""

    @abstractmethod
    def write_tables(self, settings: PhantomSettings, folder: Path, records: Sequence[Record]) -> None:
        """Write the tables, given the records of all patients in the order of their numbers."""


def write_lines(path: Path, lines: Sequence[str], *, byte_order_mark: bool = False) -> None:
    """Write a table of ASCII lines, the same bytes on every system."""
    write_bytes(path, (BYTE_ORDER_MARK if byte_order_mark else b"") + ("\n".join(lines) + "\n").encode("ascii"))
