"""What is remembered of each study of an archive that is being predicted, so that a command that was stopped can go on."""

import contextlib
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO

import pandas as pd

from ich_lstm.archive.folder.file_names import PREDICTED
from ich_lstm.files.atomic_write import written_aside
from ich_lstm.reading.files.sources import FileRef
from ich_lstm.reading.ledger.ledger import LedgerRow


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """What became of one study, or of a path from which no study could be read. Private: it holds paths and identifiers.

    Args:
        name: The study, or the path, for a person.
        identity: ``accession_number, study_uid, patient_id, study_date`` as they stand in the files of the series that was read,
            or on which those of a refused study agree; empty if unknown.
        status: ``ok``, or the reason's code.
        study: What no other study has: its UID, and more where several share it; empty if unknown.
        error: Why there is no prediction, or empty.
        series: Which series was read and why no other, in words without identity; empty if none.
        choices: A line per series: the one that was read, and why not the others.
        text: The prediction in words, or empty.
        key_slices: Numbers, from 1, of the slices where "any" and the positive types are most probable.
        seconds: From the first file that was read to the last that was written.
        tables: Rows of each table, as CSV with its header, by the table's path in the folder of predictions.
        ledger: What became of the study's files, where that is more than "used".
        left_out: What was asked for and could not be made, by its name (``heat_maps``, or the name of an export), and why.
        files: What was written for this study alone: pages and exports, as paths in the folder of predictions.
        thumbnails: Of the scan for an index, by the path of the page it leads to; base64 of a PNG, or empty.
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
    tables: Mapping[str, str] = field(default_factory=dict)
    ledger: list[list[str]] = field(default_factory=list)
    left_out: Mapping[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    thumbnails: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_predicted(self) -> bool:
        """Whether there are probabilities."""
        return self.status == PREDICTED

    @property
    def ledger_rows(self) -> list[LedgerRow]:
        """What became of the study's files, where that is more than "used"."""
        return [LedgerRow(*row) for row in self.ledger]  # type: ignore[arg-type]  # the action is one of three words


class StudyRecords:
    """A folder with a file for each study that is done.

    Args:
        folder: Made if missing; private.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def read(self, identifier: str, files: list[FileRef], out: Path, digest: str = "") -> StudyRecord | None:
        """What is remembered of a study.

        Args:
            identifier: Of the study, as a file's name.
            files: From which it would be read now.
            digest: As it was written with the record, of all else that the record depends on.
            out: The folder of predictions.

        Returns:
            None if nothing is, if its files have changed since, or if something that was written for it is gone.
        """
        record, states = self._load(identifier)
        if record is None or states != digest + states_of(files):
            return None
        return record if all((out / file).is_file() for file in record.files) else None

    def remembered(self, identifier: str) -> StudyRecord | None:
        """What is remembered of a study, whatever became of its files since; None if nothing is.

        Args:
            identifier: Of the study, as a file's name.
        """
        return self._load(identifier)[0]

    def forget(self, identifier: str) -> None:
        """Remove what is remembered of a study.

        Args:
            identifier: Of the study, as a file's name.
        """
        self._path(identifier).unlink(missing_ok=True)

    def _load(self, identifier: str) -> tuple[StudyRecord | None, str]:
        try:
            kept = json.loads(self._path(identifier).read_text(encoding="utf-8"))
            states = kept.pop("states")
            return StudyRecord(**kept), states
        except (OSError, ValueError, TypeError, KeyError):
            return None, ""  # there is none, or one of another version of the library

    def write(self, identifier: str, files: list[FileRef], record: StudyRecord, digest: str = "") -> None:
        """Remember a study; the file appears whole or not at all.

        Args:
            identifier: Of the study, as a file's name.
            files: From which it was read.
            record: What became of it.
            digest: Of all else that the record depends on.
        """
        with written_aside(self._path(identifier)) as aside:
            aside.write_text(json.dumps({**asdict(record), "states": digest + states_of(files)}), encoding="utf-8")

    def _path(self, identifier: str) -> Path:
        return self.folder / f"{identifier}.json"


def states_of(files: list[FileRef]) -> str:
    """What is another when one of the files is: a digest of names, sizes and times of change (of archives, of the archive)."""
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


def csv_of(rows: pd.DataFrame) -> str:
    """Rows as CSV with a header, as a record keeps them."""
    return str(rows.to_csv(index=False, lineterminator="\n"))


class JoinedTable:
    """CSV texts with one header, written as one table piece by piece.

    Args:
        file: Where to write, opened as text.
    """

    def __init__(self, file: IO[str]) -> None:
        self._file = file
        self.has_rows = False

    def add(self, text: str) -> None:
        """Append the rows of a text.

        Args:
            text: CSV with its header.
        """
        header, _, rows = text.partition("\n")
        if not self.has_rows:
            self._file.write(f"{header}\n")
            self.has_rows = True
        self._file.write(rows)
