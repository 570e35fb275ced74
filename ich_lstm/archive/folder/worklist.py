"""The worklist: one row for every incoming study, the most urgent first."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

import pandas as pd

from ich_lstm.archive.folder.file_names import PAGES
from ich_lstm.archive.folder.study_record import StudyRecord
from ich_lstm.labels import ANY, LABELS
from ich_lstm.pages.index_page import IndexRow
from ich_lstm.prediction import CALIBRATED_PREFIX, CALLED_PREFIX, EVEN
from ich_lstm.privacy import ProjectKey
from ich_lstm.reading.ledger.reasons import phrase_of

IDENTITY = ("accession_number", "study_uid", "patient_id", "study_date")


class Listed(NamedTuple):
    """A study and its row of ``scans.csv``, all cells as text.

    Args:
        record: Of the study.
        row: Of the scan.
    """

    record: StudyRecord
    row: dict[str, str]

    @property
    def probability(self) -> float:
        """Of "any"; NaN if the study could not be predicted."""
        return float(self.row[ANY] or "nan")

    @property
    def is_flagged(self) -> bool:
        """Whether a label is called positive; without an operating point, whether "any" is more probable than not."""
        called = [self.row.get(CALLED_PREFIX + label, "") for label in LABELS]
        if any(called):
            return "1" in called
        return self.probability >= EVEN

    @property
    def called(self) -> list[str]:
        """Labels called positive at the operating point."""
        return [label for label in LABELS if self.row.get(CALLED_PREFIX + label, "") == "1"]


def by_urgency(listed: Sequence[Listed]) -> list[Listed]:
    """The flagged first, then what could not be judged and has to be looked at for that, then the rest; each by probability.

    Args:
        listed: In the order in which they came, which decides between equals.
    """

    def urgency(each: Listed) -> tuple[int, float]:
        if not each.record.is_predicted:
            return 1, 0.0
        return 0 if each.is_flagged else 2, -each.probability

    return sorted(listed, key=urgency)


def worklist_frame(
    listed: Sequence[Listed], key: ProjectKey, *, identify: bool, operating_point: str, model_hash: str
) -> pd.DataFrame:
    """The worklist as a table.

    Args:
        listed: In its order.
        key: The project's key.
        identify: Whether the studies are named as the hospital names them; such a table is private.
        operating_point: The rule by which labels are called positive, or empty.
        model_hash: Of the model's weights.

    Returns:
        ``rank`` (from 1), ``study_id``, with ``identify`` accession number, study UID, patient id and study date,
        ``scan_id``, ``flag`` (1 or 0; empty if not predicted), ``called`` (labels called positive at the operating point), six
        probabilities, six calibrated ones if there are any, ``operating_point``, ``key_slices`` (from 1), ``series`` (which was
        read, and why no other), ``flags`` (of the scan's quality), ``status``, ``left_out`` (what was asked for and could not be
        made), ``seconds``, ``model_hash``.
    """
    rows = []
    for rank, each in enumerate(listed, start=1):
        record, row = each.record, each.row
        ids = {"rank": str(rank), "study_id": key.hash_id(record.study) if record.study else row["scan_id"]}
        if identify:
            ids |= {name: record.identity[name] for name in IDENTITY}
        ids |= {"scan_id": row["scan_id"]} if identify else {"scan_id": row["scan_id"], "patient_id": row["patient_id"]}
        probabilities = {name: row[name] for label in LABELS for name in (label, CALIBRATED_PREFIX + label) if name in row}
        rows.append(
            ids
            | {"flag": str(int(each.is_flagged)) if record.is_predicted else "", "called": ";".join(each.called)}
            | dict(sorted(probabilities.items(), key=lambda item: item[0].startswith(CALIBRATED_PREFIX)))
            | {
                "operating_point": operating_point,
                "key_slices": ";".join(map(str, record.key_slices)),
                "series": record.series,
                "flags": row["flags"],
                "status": record.status,
                "left_out": ";".join(record.left_out),
                "seconds": f"{record.seconds:.2f}",
                "model_hash": model_hash,
            }
        )
    return pd.DataFrame(rows, dtype=str)


def index_rows(listed: Sequence[Listed], *, identify: bool, folder: str) -> list[IndexRow]:
    """Convert the worklist to the rows of the index page.

    Args:
        listed: In its order.
        identify: Whether the studies are called by their accession numbers.
        folder: Where the page will lie below the folder of predictions, beside its ``pages``.
    """
    rows = []
    for rank, each in enumerate(listed, start=1):
        record, row = each.record, each.row
        mine = [PurePosixPath(file) for file in record.files if PurePosixPath(file).parent == PurePosixPath(folder, PAGES)]
        rows.append(
            IndexRow(
                rank=rank,
                scan_id=row["scan_id"],
                title=(identify and record.identity["accession_number"]) or row["scan_id"],
                status=record.status,
                reason="" if record.is_predicted else phrase_of(record.status),
                probabilities=tuple(float(row[label]) for label in LABELS) if record.is_predicted else None,
                called=tuple(each.called),
                flags=tuple(filter(None, row["flags"].split(";"))),
                page=mine[0].relative_to(folder).as_posix() if mine else "",
                thumbnail=record.thumbnails.get(mine[0].as_posix(), "") if mine else "",
            )
        )
    return rows
