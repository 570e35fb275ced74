"""The worklist: one row per study, the most urgent first."""

import math
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any, NamedTuple

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
    """A study with its row of ``scans.csv``.

    Args:
        record: The record of the study.
        row: Cells of the scan's row by column: text, numbers, or None for an empty cell.
    """

    record: StudyRecord
    row: Mapping[str, Any]

    @property
    def probability(self) -> float:
        """The probability of "any"; NaN if the study could not be predicted."""
        return math.nan if self.row[ANY] is None else float(self.row[ANY])

    @property
    def is_flagged(self) -> bool:
        """Whether a label is called positive; without an operating point, whether "any" is more probable than not."""
        has_point = any(self.row.get(CALLED_PREFIX + label) is not None for label in LABELS)
        return bool(self.called) if has_point else self.probability >= EVEN

    @property
    def called(self) -> list[str]:
        """Labels that are called positive at the operating point."""
        return [label for label in LABELS if self.row.get(CALLED_PREFIX + label) == 1]


def by_urgency(listed: Sequence[Listed]) -> list[Listed]:
    """Sort studies: flagged ones first, then those without a prediction, which must be read for that reason, then the rest.

    Within each group, studies are sorted by decreasing probability of "any".

    Args:
        listed: Studies in order of arrival, which is kept between equals.
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
        listed: Studies in the order of the worklist.
        key: Key of the project, for hashed ids.
        identify: Whether the hospital's identifiers of the studies are included; such a table is private.
        operating_point: Rule by which labels are called positive; empty if there is none.
        model_hash: Hash of the model's weights.

    Returns:
        A table with the columns ``rank`` (from 1), ``study_id``, with `identify` also accession number, study UID, patient id
        and study date, ``scan_id``, without `identify` also the hashed ``patient_id``, ``flag`` (1 or 0; empty if not
        predicted), ``called`` (labels called positive at the operating point), six probabilities, six calibrated probabilities
        if available, ``operating_point``, ``key_slices`` (from 1), ``series`` (which one was read, and why no other), ``flags``
        (of the scan's quality), ``status``, ``not_made`` (requested results that could not be made), ``seconds``,
        ``model_hash``.
    """
    rows = []
    for rank, each in enumerate(listed, start=1):
        record, row = each.record, each.row
        ids: dict[str, Any] = {"rank": rank, "study_id": key.hash_id(record.study) if record.study else row["scan_id"]}
        if identify:
            ids |= {name: record.identity[name] for name in IDENTITY}
        ids |= {"scan_id": row["scan_id"]} if identify else {"scan_id": row["scan_id"], "patient_id": row["patient_id"]}
        probabilities = {name: row[name] for label in LABELS for name in (label, CALIBRATED_PREFIX + label) if name in row}
        rows.append(
            ids
            | {"flag": int(each.is_flagged) if record.is_predicted else None, "called": ";".join(each.called)}
            | dict(sorted(probabilities.items(), key=lambda item: item[0].startswith(CALIBRATED_PREFIX)))
            | {
                "operating_point": operating_point,
                "key_slices": ";".join(map(str, record.key_slices)),
                "series": record.series,
                "flags": row["flags"],
                "status": record.status,
                "not_made": ";".join(record.not_made),
                "seconds": f"{record.seconds:.2f}",
                "model_hash": model_hash,
            }
        )
    return pd.DataFrame(rows, dtype=object)


def index_rows(listed: Sequence[Listed], *, identify: bool, folder: str) -> list[IndexRow]:
    """Convert the worklist to the rows of the index page.

    Args:
        listed: Studies in the order of the worklist.
        identify: Whether the studies are identified by their accession numbers.
        folder: Folder of the page relative to the folder of predictions; it also contains ``pages``.
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
