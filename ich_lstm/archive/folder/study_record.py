"""The records of the studies in a folder of predictions, by which an interrupted command can be continued."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any, NamedTuple

import pandas as pd

from ich_lstm.archive.folder.file_names import PREDICTED
from ich_lstm.files.atomic_write import write_text
from ich_lstm.files.csv_table import CsvRows
from ich_lstm.privacy import make_folder
from ich_lstm.reading.files.sources import FileRef
from ich_lstm.reading.ledger.ledger import LedgerRow


class TableRows(NamedTuple):
    """Rows of one of the folder's tables.

    Args:
        columns: The names of the columns.
        rows: The cells of each row: text, numbers, or None for an empty cell.
    """

    columns: list[str]
    rows: list[list[Any]]

    @classmethod
    def of(cls, frame: pd.DataFrame) -> "TableRows":
        """Take over the rows of a table."""
        cells = frame.astype(object).where(frame.notna(), None)
        return cls([str(name) for name in frame.columns], cells.to_numpy().tolist())

    def frame(self) -> pd.DataFrame:
        """The rows as a table; a column with an empty cell is one of objects."""
        return pd.DataFrame(self.rows, columns=self.columns, dtype=object).infer_objects()


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """The result of one study, or of a path from which no study could be read. Private: it contains paths and identifiers.

    Args:
        name: Name of the study or the path for a person.
        identity: ``accession_number, study_uid, patient_id, study_date`` of the series that was read; for a refused study, the
            values on which its files agree; empty if unknown.
        status: ``ok``, or the reason code.
        study: Unique identifier of the study: its UID, with a qualifier if several studies share it; empty if unknown.
        error: Reason why there is no prediction; otherwise empty.
        series: Description of the series that was read and why no other was, without identity; empty if none was read.
        choices: A line per series: the one that was read, and the reasons why the others were not.
        text: The prediction in words; empty if there is none.
        key_slices: Numbers, from 1, of the slices with the highest probability of "any" and of the positive types.
        seconds: Time from reading the first file to writing the last one.
        tables: Rows of each table, by the table's path in the folder of predictions.
        ledger: Rows of the ledger for the study's files whose outcome is not simply "used".
        not_made: Reasons for results that could not be made, by name (``heat_maps``, ``pages``, or the name of an export).
        tracebacks: Where errors arose that nobody foresaw; a study with any is tried again by the next command.
        files: Files that were written for this study alone (pages and exports), as paths in the folder of predictions.
        thumbnails: Thumbnails of the scan for the indexes, by path of the linked page; base64 of a PNG, or empty.
        engine: What ran the encoder (`Chosen.to_dict`); empty if nothing was predicted, or by a version without engines.
    """

    name: str
    identity: Mapping[str, str]
    status: str
    study: str = ""
    error: str = ""
    series: str = ""
    choices: list[str] = field(default_factory=list)
    text: str = ""
    key_slices: list[int] = field(default_factory=list)
    seconds: float = 0.0
    tables: Mapping[str, TableRows] = field(default_factory=dict)
    ledger: list[list[str]] = field(default_factory=list)
    not_made: Mapping[str, str] = field(default_factory=dict)
    tracebacks: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    thumbnails: Mapping[str, str] = field(default_factory=dict)
    engine: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_predicted(self) -> bool:
        """Whether the study has probabilities."""
        return self.status == PREDICTED

    @property
    def ledger_rows(self) -> list[LedgerRow]:
        """Rows of the ledger for the study's files whose outcome is not simply "used"."""
        return [LedgerRow(*row) for row in self.ledger]  # type: ignore[arg-type]  # the action is one of three literals


class StudyRecords:
    """A folder with one file per finished study.

    Args:
        folder: The folder, private and created if missing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        make_folder(folder)

    def read(self, identifier: str, files: list[FileRef], out: Path, digest: str = "") -> StudyRecord | None:
        """Read the record of a study if it is still valid.

        Args:
            identifier: Identifier of the study, which is the name of the file.
            files: Files from which the study would be read now.
            out: The folder of predictions.
            digest: Digest of everything else on which the record depends.

        Returns:
            The record; None if there is none, if a file of the study has changed, or if a written file is missing.
        """
        record, states = self._load(identifier)
        if record is None or states != digest + states_of(files):
            return None
        return record if all((out / file).is_file() for file in record.files) else None

    def read_any(self, identifier: str) -> StudyRecord | None:
        """Read the record of a study, valid or not; None if there is none.

        Args:
            identifier: Identifier of the study, which is the name of the file.
        """
        return self._load(identifier)[0]

    def remove(self, identifier: str) -> None:
        """Remove the record of a study.

        Args:
            identifier: Identifier of the study, which is the name of the file.
        """
        self._path(identifier).unlink(missing_ok=True)

    def _load(self, identifier: str) -> tuple[StudyRecord | None, str]:
        try:
            kept = json.loads(self._path(identifier).read_text(encoding="utf-8"))
            states = kept.pop("states")
            kept["tables"] = {name: TableRows(*rows) for name, rows in kept["tables"].items()}
            return StudyRecord(**kept), states
        except (OSError, ValueError, TypeError, KeyError):
            return None, ""  # there is no record, or it was written by another version of the library

    def write(self, identifier: str, files: list[FileRef], record: StudyRecord, digest: str = "") -> None:
        """Write the record of a study, completely or not at all.

        Args:
            identifier: Identifier of the study, which is the name of the file.
            files: Files from which the study was read.
            record: The record to write.
            digest: Digest of everything else on which the record depends.
        """
        text = json.dumps({**asdict(record), "states": digest + states_of(files)})
        write_text(self._path(identifier), text, durable=False)  # a study whose record is damaged is predicted again

    def _path(self, identifier: str) -> Path:
        return self.folder / f"{identifier}.json"


def states_of(files: list[FileRef]) -> str:
    """A digest of names, sizes and modification times, which changes with any of the files (for members, with the archive)."""
    digest = hashlib.sha256()
    known: dict[Path, str] = {}
    for ref in sorted(files, key=str):
        if ref.path not in known:
            known[ref.path] = "gone"
            with contextlib.suppress(OSError):
                state = ref.path.stat()
                known[ref.path] = f"{state.st_size} {state.st_mtime_ns}"
        digest.update(f"{ref}\0{known[ref.path]}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


class JoinedTable:
    """A CSV table that is written piece by piece, from rows of equal columns.

    Args:
        file: Output file, opened as text without translation of line ends.
    """

    def __init__(self, file: IO[str]) -> None:
        self._csv = CsvRows(file)
        self.has_rows = False

    def add(self, table: TableRows) -> None:
        """Append rows.

        Args:
            table: The rows; numbers are written with the digits that restore them exactly.
        """
        if not self.has_rows:
            self._csv.add(table.columns)
            self.has_rows = True
        for row in table.rows:
            self._csv.add(row)
