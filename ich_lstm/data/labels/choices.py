"""A table of the series to read in each study, which overrides the automatic choice."""

from pathlib import Path

from ich_lstm.data.labels.cq500 import folder_name
from ich_lstm.data.tables.labelled import stop_at
from ich_lstm.data.tables.spreadsheet import read_sheet
from ich_lstm.errors import TableError

COLUMNS = ("study", "series")


def read_choices(path: Path | str) -> dict[str, str]:
    """Read which series to use in each study.

    Args:
        path: A CSV with the columns ``study`` (its UID, accession number or folder's name, or the name of a scan of CQ500)
            and ``series`` (a UID, or a description).

    Returns:
        The series of each study. Scans of CQ500 are listed by the name of their folder.

    Raises:
        TableError: If the file or a column is missing, a cell is empty, or two rows give one study different series.
    """
    path = Path(path)
    try:
        sheet = read_sheet(path).named(COLUMNS).identifiers(COLUMNS)
    except OSError as error:
        raise TableError(
            "missing_table", where=str(path), got=error.strerror or str(error), expected="a CSV with the columns study and series"
        ) from error
    sheet.log()
    cells, lines = sheet.cells, sheet.lines
    missing = [column for column in COLUMNS if column not in cells]
    if missing:
        raise TableError(
            "missing_columns",
            where=f"{path}, line 1",
            got=f"columns {', '.join(map(str, cells.columns[:12]))}",
            expected=" and ".join(COLUMNS),
            todo="Give the table these two columns.",
        )
    cells = cells[list(COLUMNS)].assign(study=[folder_name(name) or name for name in cells["study"]])
    empty = (cells == "").any(axis=1).to_numpy()
    if empty.any():
        stop_at(path, lines[empty], "incomplete_choice", "rows without a study or a series", "a study and a series in each row")
    several = cells.groupby("study")["series"].transform("nunique").gt(1).to_numpy()
    if several.any():
        stop_at(path, lines[several], "contradicting_choices", "rows that give one study two series", "one series per study")
    return dict(zip(cells["study"], cells["series"], strict=True))
