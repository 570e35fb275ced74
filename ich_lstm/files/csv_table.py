"""CSV tables that a spreadsheet, a terminal and the library's own readers open without harm or loss."""

import csv
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ich_lstm.files.atomic_write import atomic_write
from ich_lstm.printable import escaped, unescaped

if TYPE_CHECKING:
    import pandas as pd

_FORMULA = re.compile(r"[\s']*[=+\-@\uff1d\uff0b\uff0d\uff20].", re.DOTALL)
"""What a spreadsheet may take for a formula; the last four signs are the wide forms of the others, which it treats alike.

Tabs and line ends, after which it would look again, are escaped before. The apostrophes are those of texts that look quoted.
"""

_NUMBER = re.compile(r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:inf|nan)", re.ASCII)

_FIRST = frozenset(" '=+-@\uff1d\uff0b\uff0d\uff20")


def safe_cell(value: object) -> object:
    r"""Quote and escape the text of a cell: no formula, no control character, no line end.

    Args:
        value: Content of the cell; numbers, and text that is a number, stay as they are.

    Example:
        >>> safe_cell("=HYPERLINK(A1)"), safe_cell("-0.5"), safe_cell("a\x1b[2J")
        ("'=HYPERLINK(A1)", '-0.5', 'a\\x1b[2J')
    """
    if not isinstance(value, str) or (value.isprintable() and value[:1] not in _FIRST and "\\" not in value):
        return value
    text = escaped(value)
    return f"'{text}" if _looks_like_formula(text) else text


def plain_cell(text: str) -> str:
    """Restore the text of a cell that `safe_cell` made.

    Args:
        text: Text of a cell.
    """
    if text.startswith("'") and _looks_like_formula(text[1:]):
        text = text[1:]
    return unescaped(text)


def _looks_like_formula(text: str) -> bool:
    return _FORMULA.match(text) is not None and _NUMBER.fullmatch(text) is None


class CsvRows:
    """Writes rows of a CSV table one after the other.

    Args:
        file: Output file, opened as text in UTF-8 without translation of line ends.
    """

    def __init__(self, file: IO[str]) -> None:
        self._writer = csv.writer(file, lineterminator="\n")

    def add(self, row: Iterable[object]) -> None:
        """Write a row; see `safe_cell`.

        Args:
            row: Its cells: text, numbers, or None for an empty cell.
        """
        self._writer.writerow(map(safe_cell, row))


def write_csv(path: Path, table: "pd.DataFrame") -> None:
    """Write a table without its index, completely or not at all; see `safe_cell`.

    Args:
        path: File to write.
        table: The table; numbers are written with the digits that restore them exactly.
    """
    with atomic_write(path) as unfinished:
        safe_table(table).to_csv(unfinished, index=False, lineterminator="\n")


def safe_table(table: "pd.DataFrame") -> "pd.DataFrame":
    """Copy a table, with `safe_cell` applied to its text and to the names of its columns."""
    return _mapped(table, safe_cell).rename(columns=safe_cell)


def plain_table(table: "pd.DataFrame") -> "pd.DataFrame":
    """Restore the text of a table that was read from a CSV of this library."""
    return _mapped(table, lambda value: plain_cell(value) if isinstance(value, str) else value)


def _mapped(table: "pd.DataFrame", change: Callable[[object], object]) -> "pd.DataFrame":
    changed = table.copy(deep=False)
    for place, dtype in enumerate(table.dtypes):
        if dtype.kind == "O":  # text, categories and mixed cells; numbers have other kinds
            changed.isetitem(place, table.iloc[:, place].astype(object).map(change).to_numpy(object))
    return changed
