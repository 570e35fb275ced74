"""CT-ICH (PhysioNet): reader of its table of slice labels."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from ich_lstm.data.prepared.file_names import SLICE_MARK
from ich_lstm.data.tables.labelled import PATIENT, LabelTable, checked_table, parse_labels, stop_at
from ich_lstm.data.tables.spreadsheet import read_sheet
from ich_lstm.labels import ANY

SCAN_FOLDER = "ct_scans"

PATIENT_COLUMN, SLICE_COLUMN, NONE_COLUMN = "PatientNumber", "SliceNumber", "No_Hemorrhage"

TYPE_COLUMNS = {
    "Epidural": "epidural",
    "Intraparenchymal": "intraparenchymal",
    "Intraventricular": "intraventricular",
    "Subarachnoid": "subarachnoid",
    "Subdural": "subdural",
}
"""The label that each column of a type holds."""

COLUMNS = (PATIENT_COLUMN, SLICE_COLUMN, NONE_COLUMN, *TYPE_COLUMNS)
"""The columns that are read from the table."""


def is_ct_ich(header: Sequence[str]) -> bool:
    """Whether a header is that of ``hemorrhage_diagnosis_raw_ct.csv``."""
    return set(COLUMNS) <= set(header)


def read_ct_ich(path: Path, *, repair_any: bool = False) -> LabelTable:
    """Read ``hemorrhage_diagnosis_raw_ct.csv``: a row per slice, numbered from 1, of the patients' NIfTI files.

    "Any" is 1 - No_Hemorrhage. The fracture column is not read.

    Args:
        path: PhysioNet's CSV file.
        repair_any: If a type and No_Hemorrhage are both 1, set any to 1 and count the row; otherwise stop.

    Returns:
        One row per slice, named like ``ct_scans/049.nii#12``.

    Raises:
        TableError: If a row is malformed or contradicts itself or another.
    """
    sheet = read_sheet(path).named(COLUMNS)
    sheet = sheet.truths(COLUMNS[2:])
    cells, lines = sheet.cells, sheet.lines
    numbers = cells[[PATIENT_COLUMN, SLICE_COLUMN]]
    wrong = ~numbers.apply(lambda column: column.str.fullmatch(r"0*[1-9]\d{0,5}")).all(axis=1).to_numpy(bool)
    if wrong.any():
        got = f"patient {numbers[PATIENT_COLUMN][wrong].iloc[0]!r}, slice {numbers[SLICE_COLUMN][wrong].iloc[0]!r}"
        stop_at(path, lines[wrong], "bad_slice_number", got, "the numbers of a patient and of a slice, from 1")
    patient, slice_number = (numbers[column].astype(int).astype(str) for column in numbers)
    columns = TYPE_COLUMNS | {NONE_COLUMN: ANY}
    labels = parse_labels(path, cells[list(columns)].rename(columns=columns), lines)
    labels[ANY] = 1 - labels[ANY]
    names = f"{SCAN_FOLDER}/" + patient.str.zfill(3) + ".nii" + SLICE_MARK + slice_number
    rows = pd.DataFrame({"kind": "file", "name": names, PATIENT: patient, "line": np.asarray(lines)}).join(labels)
    table = checked_table(rows, path, repair_any=repair_any)
    return LabelTable(table.rows, path, (*sheet.flags, *table.flags))
