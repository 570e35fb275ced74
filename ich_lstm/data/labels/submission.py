"""Submission to the RSNA challenge: probabilities in Kaggle's format, in the order of the sample submission."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from ich_lstm.data.labels.rsna import HEADER, IDENTIFIER, RsnaIds, first_rows, split_ids, stop_at_incomplete
from ich_lstm.data.tables.labelled import stop_at
from ich_lstm.data.tables.spreadsheet import read_sheet
from ich_lstm.errors import TableError
from ich_lstm.files.csv_table import write_csv
from ich_lstm.formatting import first_of
from ich_lstm.labels import LABELS
from ich_lstm.printable import printable_logger

logger = printable_logger(__name__)


@dataclass(frozen=True, eq=False)
class SampleSubmission:
    """The rows that a submission must answer, as ``stage_2_sample_submission.csv`` lists them.

    Args:
        source: The sample submission that was read.
        identifiers: ``ID_<image>_<label>`` of each row.
        ids: The identifiers, split into image and label.
    """

    source: Path
    identifiers: pd.Series
    ids: RsnaIds

    @classmethod
    def read(cls, path: Path | str) -> "SampleSubmission":
        """Read and check a sample submission; the values of its column Label do not matter.

        Raises:
            TableError: If the file is missing or has another header, an identifier is malformed or occurs twice, or an image
                lacks one of RSNA's labels.
        """
        path = Path(path)
        if not path.is_file():
            raise TableError(
                "missing_table",
                where=str(path),
                got="no such file",
                expected="the sample submission",
                todo="Give stage_2_sample_submission.csv to --submission of ich-predict.",
            )
        sheet = read_sheet(path).named(HEADER)
        sheet.log()
        cells, lines = sheet.cells, sheet.lines
        if list(cells.columns) != HEADER:
            raise TableError(
                "missing_columns",
                where=f"{path}, line 1",
                got=f"columns {first_of(cells.columns)}",
                expected=",".join(HEADER),
                todo="Give stage_2_sample_submission.csv to --submission of ich-predict.",
            )
        ids = split_ids(cells["ID"])
        wrong = ids.label < 0
        if wrong.any():
            stop_at(path, lines[wrong], "bad_rsna_row", f"the ID {cells['ID'][wrong].iloc[0]!r}", IDENTIFIER)
        first = first_rows(ids)
        repeated = first[ids.cell] != np.arange(len(ids.cell))
        if repeated.any():
            stop_at(path, lines[repeated], "repeated_rows", "rows whose ID occurs in an earlier row", "each ID once")
        stop_at_incomplete(path, first, lines)
        return cls(path, cells["ID"], ids)


def write_submission(slices: pd.DataFrame, key: pd.DataFrame, sample: SampleSubmission, out: Path) -> Path:
    """Write one row per image and label, in the order of the sample file; private, because it holds the images' own identifiers.

    Args:
        slices: Predictions with the columns of ``slices.csv``: ``scan_id``, ``slice``, and a probability for each label.
        key: The SOP Instance UID of each predicted slice, with the columns ``scan_id``, ``slice`` and ``sop_uid``.
        sample: The rows that the submission must have.
        out: The CSV file to write.

    Returns:
        The path of the written file.

    Raises:
        TableError: If an image has no probability or several. Nothing is written then.
    """
    named = slices.merge(key[["scan_id", "slice", "sop_uid"]], on=["scan_id", "slice"], validate="one_to_one")
    asked = pd.Index(sample.ids.names)
    wanted = named[named["sop_uid"].isin(asked)]
    _check_images(
        sample.source, "several_probabilities", "occur in several scans", wanted["sop_uid"][wanted["sop_uid"].duplicated()]
    )
    _check_images(sample.source, "no_probability", "have no probability", asked[~asked.isin(wanted["sop_uid"])])
    if len(wanted) < len(named):
        logger.warning("%s: %d predicted images are not in the sample submission", sample.source.name, len(named) - len(wanted))
    probabilities = wanted.set_index("sop_uid")[list(LABELS)].loc[asked].to_numpy(np.float64)  # (images, k)
    answers = pd.DataFrame(dict(zip(HEADER, (sample.identifiers, probabilities.ravel()[sample.ids.cell]), strict=True)))
    write_csv(out, answers)  # with enough digits to restore each float64 exactly
    return out


def _check_images(source: Path, code: str, fault: str, images: pd.Series | pd.Index) -> None:
    if len(images):
        raise TableError(
            code,
            where=str(source),
            got=f"{len(images)} images {fault}: {first_of(images)}",
            expected="one scan for each image",
            todo="No submission was written. private/ledger.csv explains each file. Correct these and predict again.",
        )
