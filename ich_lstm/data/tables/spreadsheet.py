"""The one reader of every CSV file that a user provides, which reports the assumptions it made."""

import csv
import io
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import NoReturn

import numpy as np
import pandas as pd

from ich_lstm.data.tables.dates import read_dates
from ich_lstm.data.tables.labelled import stop_at
from ich_lstm.errors import TableError
from ich_lstm.files.csv_table import plain_cell
from ich_lstm.printable import printable_logger

logger = printable_logger(__name__)

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
"""Delimiters and their names. Commas are the documented format; spreadsheets of other countries write the others."""

BYTE_ORDER_MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig", ""),
    (b"\xff\xfe\x00\x00", "utf-32", "UTF-32"),
    (b"\xff\xfe", "utf-16", "UTF-16"),
    (b"\xfe\xff", "utf-16", "UTF-16"),
)
"""First bytes, the encoding that they indicate, and its name if it should be reported. UTF-32's mark begins like UTF-16's."""

NO_TEXT = {
    b"PK\x03\x04": "a workbook of a spreadsheet (.xlsx, .ods), or another zip",
    b"\xd0\xcf\x11\xe0": "a workbook of an older spreadsheet (.xls)",
    b"<": "a page or an XML file",
    b"%PDF": "a PDF",
    b"{\\rtf": "a text with formatting (.rtf)",
    b"PAR1": "a Parquet file",
}
"""First bytes of files that are often given by mistake, and their formats."""

SAMPLE_BYTES = 1 << 16
ROWS_SNIFFED = 100
"""Number of bytes that are examined to find the delimiter."""

LARGE_BYTES = 16 << 20
"""Size from which pandas reads files in plain UTF-8 with commas: seven times as fast, at a third of the memory."""

SHEET_LINES = (65_536, 1_048_576)
"""Maximum number of rows in old and in new spreadsheets."""

TICKS = frozenset(("x", "×", "✓", "✔"))
PRESENT = TICKS | {"true", "wahr", "vrai", "vero", "verdadero", "waar", "yes", "ja", "oui", "si", "sí", "y", "j"}
ABSENT = frozenset(("false", "falsch", "faux", "falso", "onwaar", "no", "nein", "non", "nee", "n"))
"""Words for 1 and 0 in any case: logical values of spreadsheets in several languages, and marks in ticked boxes."""

TOTALS = frozenset(
    ("total", "totals", "grand total", "sum", "sums", "summe", "gesamt", "gesamtsumme", "somme", "totale", "totaal", "suma")
)
"""Names of a row of totals below the table."""

EXPORT_AGAIN = (
    "Export the table again from its source without saving it in a spreadsheet, or import it there with this column as "
    "text (Excel: Data, From Text/CSV, Transform Data, column type Text)."
)

UIDS = frozenset(("sop_uid", "series_uid", "study_uid", "series", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"))
"""Columns of identifiers that contain dots, or of descriptions, where ``1.0`` may be a complete value."""

SIGNIFICANT_DIGITS = 15
"""Number of digits that spreadsheets keep; further digits become zeros."""

_EXPONENT = re.compile(r"\d+([.,]\d+)*[eE]\+\d+")
_FLOAT = re.compile(r"\d+[.,]0+")
_SHEET_ERROR = re.compile(r"#+|#(NAME\?|N/A|REF!|VALUE!|DIV/0!|NUM!|NULL!|NV|WERT!|BEZUG!|ZAHL!)")
_FORMULA_TEXT = re.compile(r'="(.*)"')
_APOSTROPHE = re.compile(r"'([\w.-]+)")
_LABEL_NUMBER = re.compile(r"([01])([.,])0{1,2}")
_NUMBER = re.compile(r"-?(\d+|\d{1,3}(\.\d{3})+),\d+")
_SEP_LINE = re.compile(r'"?sep=(.)"?[;,\t]*(?:\n|$)', re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Sheet:
    """A table of text cells, and the assumptions made in reading it.

    Args:
        path: The file that was read.
        cells: Text without surrounding blanks, one row per non-empty row of the table; columns by their names.
        lines: The line in the file at which each row begins, ``(rows,)``.
        header: The names of all columns as in the file, without surrounding blanks.
        assumed: Assumptions as texts; none for a CSV in UTF-8 with commas.
    """

    path: Path
    cells: pd.DataFrame = field(repr=False)
    lines: np.ndarray = field(repr=False)
    header: tuple[str, ...] = ()
    assumed: tuple[str, ...] = ()

    @property
    def flags(self) -> tuple[str, ...]:
        """All assumptions as one flag; empty if there are none."""
        return (f"read as saved by a spreadsheet: {'; '.join(self.assumed)}",) if self.assumed else ()

    def log(self) -> None:
        """Log the assumptions, for tables whose flags appear in no audit."""
        for flag in self.flags:
            logger.warning("%s: %s", self.path.name, flag)

    def assuming(self, *assumed: str) -> "Sheet":
        """Copy the table with further assumptions; repeated ones are kept once."""
        return replace(self, assumed=tuple(dict.fromkeys((*self.assumed, *assumed))))

    def named(self, known: Collection[str]) -> "Sheet":
        """Rename columns that differ from a known name only in case, blanks and punctuation.

        Args:
            known: The names of the columns that are read.

        Raises:
            TableError: If two columns would get the same known name.
        """
        names = canonical(self.header, known)
        repeated = sorted({name for name in names if names.count(name) > 1} & set(known))
        if repeated:
            raise TableError(
                "repeated_columns",
                where=f"{self.path}, line 1",
                got=f"{', '.join(repeated)} more than once",
                expected="each once",
                todo="Remove or rename one of them.",
            )
        renamed = {old: new for old, new in zip(self.header, names, strict=True) if old != new}
        if not renamed:
            return self
        words = ", ".join(f"{old} as {new}" for old, new in renamed.items())
        sheet = replace(self, cells=self.cells.rename(columns=renamed), header=tuple(names))
        return sheet.assuming(f"columns {words}")

    def truths(self, columns: Iterable[str]) -> "Sheet":
        """Convert words and decimals in label columns to 0 and 1; any other cell stays unchanged.

        Args:
            columns: Names of columns with the cells 0, 1 or empty.
        """
        changed, words, decimals = {}, set(), set()
        for column in columns:
            for value in self.cells[column].unique():
                if value in ("", "0", "1"):
                    continue
                number = _LABEL_NUMBER.fullmatch(value)
                if number:
                    changed[value] = number[1]
                    decimals.add(number[2])
                elif value.casefold() in PRESENT | ABSENT:
                    changed[value] = "1" if value.casefold() in PRESENT else "0"
                    words.add(value)
        if not changed:
            return self
        columns = list(columns)
        cells = self.cells.assign(**{column: self.cells[column].replace(changed) for column in columns})
        assumed = [f"the label {word} as {changed[word]}" for word in sorted(words)]
        if any(word.casefold() in TICKS for word in words) and not (cells[columns] == "0").any(axis=None):
            assumed.append("empty cells as unknown, not as 0")
        if "," in decimals:
            assumed.append("commas in numbers as decimal points")
        return replace(self, cells=cells).assuming(*assumed)

    def identifiers(self, columns: Iterable[str]) -> "Sheet":
        """Restore identifiers that a spreadsheet kept as text.

        ``="00123"`` and ``'00123`` contain every digit: they are read as 00123 with an assumption that says so, as is the quoted
        ``'=A1`` of the library's own tables. Identifiers that a spreadsheet turned into numbers have lost digits: reading stops.

        Args:
            columns: Names of columns of identifiers; missing columns are ignored.

        Raises:
            TableError: ``spreadsheet_damage`` if a cell is ``1.23E+04``, ``12340.0`` (except in columns of UIDs), a number of
                which only 15 digits are left, or a spreadsheet's error value.
        """
        sheet = self
        for column in columns:
            if column in sheet.cells:
                sheet = sheet._unprotected(column)
                sheet._stop_at_damage(column)
        return sheet

    def dates(self, column: str) -> "Sheet":
        """Convert a column of dates to ``YYYY-MM-DD``.

        Args:
            column: The name of the column.

        Raises:
            TableError: If the dates cannot be read, with the code ``bad_date``, ``ambiguous_dates`` or
                ``contradicting_date_orders``.
        """
        dates, assumed = read_dates(self.path, self.cells[column], self.lines)
        return replace(self, cells=self.cells.assign(**{column: dates})).assuming(*assumed)

    def numbers(self, columns: Iterable[str]) -> "Sheet":
        """Convert decimal commas to points in columns whose every cell is a number.

        Args:
            columns: Names of columns that may hold numbers.
        """
        changed = {}
        for column in columns:
            filled = self.cells[column][self.cells[column] != ""]
            with_comma = filled.str.fullmatch(_NUMBER)
            if with_comma.any() and (with_comma | filled.str.fullmatch(r"-?\d+")).all():
                changed[column] = self.cells[column].str.replace(".", "", regex=False).str.replace(",", ".", regex=False)
        if not changed:
            return self
        return replace(self, cells=self.cells.assign(**changed)).assuming("commas in numbers as decimal points")

    def _unprotected(self, column: str) -> "Sheet":
        """Remove the notation by which a spreadsheet keeps identifiers as text."""
        texts = self.cells[column]
        found = {}
        for start, pattern, shown in (("=", _FORMULA_TEXT, '="…"'), ("'", _APOSTROPHE, "'…")):
            some = texts[texts.str.startswith(start)]
            plain = {text: match[1].strip() for text in some.unique() if (match := pattern.fullmatch(text))}
            # The library's own tables have an apostrophe before what looks like a formula.
            plain |= {text: plain_cell(text) for text in some.unique() if text not in plain and plain_cell(text) != text}
            if plain:
                found[shown] = int(some.isin(list(plain)).sum())
                texts = texts.replace(plain)
        if not found:
            return self
        words = [f"{shown} in {count} cells of {column} as the text in it" for shown, count in found.items()]
        return replace(self, cells=self.cells.assign(**{column: texts})).assuming(*words)

    def _stop_at_damage(self, column: str) -> None:
        texts = self.cells[column]
        checks: list[tuple[pd.Series, Callable[[str], str]]] = [
            (texts.str.fullmatch(_EXPONENT), str),
            (texts.str.fullmatch(_SHEET_ERROR), str),
        ]
        if column not in UIDS:
            checks.append((texts.str.fullmatch(_FLOAT), _masked))
        long = texts.str.fullmatch(rf"\d{{{SIGNIFICANT_DIGITS + 1},}}")
        rounded = long & texts.str.slice(SIGNIFICANT_DIGITS).str.fullmatch("0+")
        # One number in ten ends in a zero, so a few such numbers may be unchanged.
        if rounded.sum() >= 3 and (rounded == long).all():
            checks.append((rounded, _masked))
        for wrong, shown in checks:
            if wrong.any():
                examples = ", ".join(dict.fromkeys(map(shown, texts[wrong].unique()[:3])))
                stop_at_damage(self.path, self.lines[wrong.to_numpy(bool)], column, examples)


def stop_at_damage(path: Path, lines: Iterable[int], column: str, examples: str) -> NoReturn:
    """Stop because a spreadsheet has changed identifiers.

    Args:
        path: The path of the table.
        lines: The line of each damaged row in the table.
        column: The column that holds the identifiers.
        examples: Examples of changed identifiers, safe to be printed.

    Raises:
        TableError: Always, with the code ``spreadsheet_damage``.
    """
    stop_at(
        path,
        lines,
        "spreadsheet_damage",
        f"a spreadsheet has changed the column {column}, for example into {examples}",
        "identifiers exactly as in the images",
        todo=EXPORT_AGAIN,
    )


def find_lost_digits(names: pd.Series, there: Iterable[str]) -> np.ndarray:
    """Find names that are identifiers without their leading zeros, or without the digits after the fifteenth, bool ``(rows,)``.

    Only identifiers that no row names in full are considered, because 123 may be another patient than 00123.

    Args:
        names: Names in a table; none of them is among ``there``.
        there: Identifiers that no row of the table names.

    Example:
        >>> find_lost_digits(pd.Series(["123", "77", "A1"]), ["00123", "0A1", "78"])
        array([ True, False, False])
    """
    whole = {name for name in there if name.isdecimal()}
    short = {name.lstrip("0") for name in whole if name.startswith("0")}
    short |= {
        name[:SIGNIFICANT_DIGITS] + "0" * (len(name) - SIGNIFICANT_DIGITS) for name in whole if len(name) > SIGNIFICANT_DIGITS
    }
    return (names.isin(short) & ~names.isin(whole)).to_numpy(bool)


def show_lost_digits(name: str, there: Iterable[str]) -> str:
    """Show how an identifier was changed, with its digits masked, because it may identify a person.

    Args:
        name: A name found by :func:`find_lost_digits`.
        there: The identifiers before the change.

    Example:
        >>> show_lost_digits("123", ["00123", "00124"])
        '999 where the images have 00999'
    """
    whole = next(one for one in there if find_lost_digits(pd.Series([name]), [one]).any())
    digits = whole.lstrip("0")
    return f"{_masked(name)} where the images have {'0' * (len(whole) - len(digits))}{_masked(digits)}"


def canonical(header: Sequence[str], known: Collection[str]) -> list[str]:
    """Replace names of columns by the known names that differ only in case, blanks and punctuation.

    Args:
        header: Names as in a file.
        known: The names of the columns that are read.

    Example:
        >>> canonical(["SOP UID", "Any", "age"], ("sop_uid", "any"))
        ['sop_uid', 'any', 'age']
    """
    by_fold = {_fold(name): name for name in known}
    return [name if name in known else by_fold.get(_fold(name), name) for name in header]


def read_sheet(path: Path | str) -> Sheet:
    """Read a user's CSV as any spreadsheet saves it.

    The delimiter may be a comma, semicolon, tab or bar, or be given by a first line such as ``sep=;``. The text may be UTF-8,
    UTF-16 (with or without a byte-order mark) or Windows-1252. Lines may end as on any system, also within quotes. Empty rows and
    columns, and a last row with only totals, are excluded.

    Args:
        path: The path of the CSV file.

    Returns:
        The table of text cells, which the methods of `Sheet` convert.

    Raises:
        TableError: If the file is not text, is empty or has only a header, or a row has more cells than the header.
        OSError: If the file cannot be read.
    """
    path = Path(path)
    start, size = _read_start(path)
    if size >= LARGE_BYTES:
        sheet = _read_large(path, start)
        if sheet is not None:
            return sheet
    text, assumed = _decode(path, path.read_bytes())
    text, delimiter, skipped, assumed = _dialect(path, text, assumed, complete=True)
    rows, lines = _split(path, text, delimiter, skipped)
    header = [name.strip() for name in rows[0]]
    long = [i for i, row in enumerate(rows[1:]) if any(cell.strip() for cell in row[len(header) :])]
    if long:
        stop_at(
            path,
            [lines[1:][i] for i in long],
            "unreadable_table",
            f"rows with more cells than the header, which has {len(header)}",
            "as many cells in each row as in the header",
            todo=f"Put cells that contain {DELIMITERS[delimiter]} in quotes.",
        )
    width = len(header)
    columns = zip(*([*row[:width], *[""] * (width - len(row))] for row in rows[1:]), strict=True)
    cells = pd.DataFrame({i: pd.Series([cell.strip() for cell in column], dtype=str) for i, column in enumerate(columns)})
    return _finished(path, header, cells.reindex(columns=range(width)), np.array(lines[1:], dtype=int), assumed)


def read_header(path: Path | str) -> list[str]:
    """Read the names of the columns of a CSV, without surrounding blanks.

    Args:
        path: The path of the CSV file; only its beginning is read.

    Raises:
        TableError: If the beginning of the file is not a CSV; see :func:`read_sheet`.
        OSError: If the file cannot be read.
    """
    path = Path(path)
    start, size = _read_start(path)
    text, assumed = _decode(path, start, complete=size <= len(start))
    text, delimiter, _, _ = _dialect(path, text, assumed, complete=size <= len(start))
    return [name.strip() for name in next(_reader(text, delimiter), [])]


def _fold(name: str) -> str:
    return re.sub(r"[\W_]+", "", name).casefold()


def _masked(identifier: str) -> str:
    """Mask the digits of an identifier."""
    return re.sub(r"\d", "9", identifier)


def _read_start(path: Path) -> tuple[bytes, int]:
    """The first bytes of a file, and its size."""
    with path.open("rb") as file:
        start = file.read(SAMPLE_BYTES)
    for first, what in NO_TEXT.items():
        if start.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(first):
            raise TableError(
                "no_text_table",
                where=str(path),
                got=what,
                expected="a CSV: text with commas, semicolons or tabs",
                todo="Open it in a spreadsheet and save it as CSV UTF-8, with the columns of identifiers formatted as text.",
            )
    return start, path.stat().st_size


def _decode(path: Path, data: bytes, *, complete: bool = True) -> tuple[str, list[str]]:
    """Decode the text of a file, and report the assumption about its encoding.

    Args:
        path: The file, for messages.
        data: The bytes of the file, or the first of them.
        complete: Whether ``data`` holds all bytes.
    """
    encoding, name = next(((code, name) for mark, code, name in BYTE_ORDER_MARKS if data.startswith(mark)), ("", ""))
    if not encoding:
        # In UTF-16 without a mark, every other byte of a text in a Western language is 0.
        even, odd = data[:SAMPLE_BYTES:2].count(0), data[1:SAMPLE_BYTES:2].count(0)
        half = max(1, min(len(data), SAMPLE_BYTES) // 2)
        for mine, other, code in ((odd, even, "utf-16-le"), (even, odd, "utf-16-be")):
            if mine > 0.5 * half and not other:
                encoding, name = code, "UTF-16"
    if not complete:
        data = data[: len(data) // 4 * 4]
    tried = [(encoding, name)] if encoding else [("utf-8", ""), ("cp1252", "Windows-1252")]
    for encoding, name in tried:
        try:
            text = data.decode(encoding)
        except UnicodeDecodeError as error:
            # The last character may be cut off.
            if complete or len(data) - error.start > 4:
                continue
            text = data[: error.start].decode(encoding)
        if "\0" not in text:
            return text.removeprefix("\ufeff"), [f"text in {name}"] if name else []
    raise TableError(
        "unreadable_table",
        where=str(path),
        got="bytes that are not text in UTF-8, UTF-16 or Windows-1252",
        expected="a CSV in UTF-8",
        todo="Save the file as CSV UTF-8.",
    )


def _dialect(path: Path, text: str, assumed: list[str], *, complete: bool) -> tuple[str, str, int, list[str]]:
    """Find the text from the header on, the delimiter, the number of lines before the text, and the assumptions.

    Args:
        path: The file, for messages.
        text: The text of the file, or the beginning of it.
        assumed: Assumptions that were made before.
        complete: Whether ``text`` is the whole text.
    """
    if not text.strip():
        raise TableError("empty_table", where=str(path), got="an empty file", expected="a header and rows")
    said = _SEP_LINE.match(io.StringIO(text[:32], newline=None).read())
    if said:
        text = text.partition("\n" if "\n" in text[:32] else "\r")[2]
        delimiter = said[1]
        if delimiter not in DELIMITERS:
            raise TableError(
                "unreadable_table", where=f"{path}, line 1", got=f"sep={delimiter}", expected=f"one of {' '.join(DELIMITERS)}"
            )
    else:
        delimiter = _delimiter(text, complete)
    if not text.strip():
        raise TableError("empty_table", where=str(path), got="no header", expected="a header and rows")
    words = [] if delimiter == "," else [f"{DELIMITERS[delimiter]} between cells" + (", as the first line says" if said else "")]
    return text, delimiter, int(said is not None), [*words, *assumed]


def _delimiter(text: str, complete: bool) -> str:
    """Choose, among the delimiters in the header, the one that makes all rows equally long, and then the one with most cells."""
    fits: list[tuple[bool, int, str]] = []
    for delimiter in DELIMITERS:
        rows = list(islice(_reader(text[:SAMPLE_BYTES], delimiter), ROWS_SNIFFED))
        if not (complete and len(text) <= SAMPLE_BYTES) and len(rows) < ROWS_SNIFFED:
            rows = rows[:-1] or rows  # the last row may be cut off
        widths = [len(row) for row in rows if any(cell.strip() for cell in row)]
        if widths and len(rows[0]) > 1:
            fits.append((all(width == len(rows[0]) for width in widths), len(rows[0]), delimiter))
    if not fits:
        return ","
    return max(fits, key=lambda fit: fit[:2])[2]  # the first of equals, which is a comma


def _reader(text: str, delimiter: str, *, strict: bool = False) -> "csv._reader":  # type: ignore[name-defined]
    return csv.reader(io.StringIO(text, newline=None), delimiter=delimiter, skipinitialspace=delimiter != "\t", strict=strict)


def _split(path: Path, text: str, delimiter: str, skipped: int) -> tuple[list[list[str]], list[int]]:
    """Split a text into rows, each with the number of its first line."""
    try:
        return _numbered_rows(_reader(text, delimiter, strict=True), skipped)
    except csv.Error as error:
        if "unexpected end" in str(error) or "field larger" in str(error):
            raise TableError(
                "unreadable_table",
                where=str(path),
                got="a quote that is not closed" if "unexpected end" in str(error) else str(error),
                expected="a quote at the end of every cell that begins with one",
            ) from error
    return _numbered_rows(_reader(text, delimiter), skipped)  # text after a closing quote, which other readers accept too


def _numbered_rows(reader: "csv._reader", skipped: int) -> tuple[list[list[str]], list[int]]:  # type: ignore[name-defined]
    rows, lines, next_line = [], [], 1
    for row in reader:
        rows.append(row)
        lines.append(next_line + skipped)
        next_line = reader.line_num + 1
    return rows, lines


def _read_large(path: Path, start: bytes) -> Sheet | None:
    """Read a table in plain UTF-8 with commas by pandas; None if the file is something else or malformed."""
    try:
        text, assumed = _decode(path, start, complete=False)
        _, delimiter, skipped, assumed = _dialect(path, text, assumed, complete=False)
        if assumed or skipped or delimiter != ",":
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("error", pd.errors.ParserWarning)
            cells = pd.read_csv(
                path,
                dtype=str,  # "007" is an identifier, and "True" is a word
                keep_default_na=False,
                encoding="utf-8-sig",  # with or without a byte-order mark
                skipinitialspace=True,
                skip_blank_lines=False,  # otherwise the line numbers in messages would be wrong
                index_col=False,  # otherwise rows with one cell too many would be shifted by one column
            )
    except (ValueError, pd.errors.ParserWarning):
        return None
    header = [name.strip() for name in next(_reader(text, ","))]
    cells.columns = pd.RangeIndex(len(header))
    cells = cells.fillna("")
    lines = np.arange(len(cells)) + 2
    with path.open("rb") as file:
        newlines = sum(block.count(b"\n") for block in iter(lambda: file.read(1 << 20), b""))
    if newlines > len(cells) + 1:  # some are within quotes
        within = sum(cells[column].str.count("\n").to_numpy() for column in cells)
        lines = lines + np.concatenate([[0], np.cumsum(within)[:-1]])
    return _finished(path, header, cells.apply(lambda column: column.str.strip()), lines, [])


def _finished(path: Path, header: list[str], cells: pd.DataFrame, lines: np.ndarray, assumed: list[str]) -> Sheet:
    """Remove empty rows and columns and a row of totals, and give the numbered columns their names."""
    last_line = int(lines[-1]) if len(lines) else 1
    filled = (cells != "").any(axis=1).to_numpy() if len(cells) else np.zeros(0, bool)
    if not filled.any():
        raise TableError("no_rows", where=str(path), got="a header and no rows", expected="labelled slices or scans")
    if not filled.all():
        cells, lines = cells[filled].reset_index(drop=True), lines[filled]
    if last_line in SHEET_LINES:
        assumed = [*assumed, f"rows may be missing: the table ends at line {last_line:,}, the last that a spreadsheet can hold"]
    if _is_total(cells):
        assumed = [*assumed, f"line {lines[-1]} excluded, which contains totals"]
        cells, lines = cells.iloc[:-1], lines[:-1]
    empty = [i for i, name in enumerate(header) if not name and cells[i].eq("").all()]
    cells = cells.drop(columns=empty)
    names = [name or f"column {i + 1}" for i, name in enumerate(header) if i not in empty]
    repeats = [names[:i].count(name) for i, name in enumerate(names)]
    cells.columns = [f"{name} ({count + 1})" if count else name for name, count in zip(names, repeats, strict=True)]
    return Sheet(path, cells, lines, tuple(names), tuple(assumed))


def _is_total(cells: pd.DataFrame) -> bool:
    """Whether the last row holds totals: each of its numbers is the sum of its column, or counts its cells.

    All other cells of such a row are empty or a word for a total.
    """
    if len(cells) < 3:
        return False
    last = cells.iloc[-1]
    words = [text for text in last if text and not re.fullmatch(r"\d+([.,]\d+)?", text)]
    named = len(words) == 1 and words[0].rstrip(":").strip().casefold() in TOTALS
    numbers = {column: text for column, text in last.items() if text and text not in words}
    if not numbers or not (named or (not words and not last.iloc[0])):
        return False
    return all(float(text.replace(",", ".")) in _sums(cells[column].iloc[:-1]) for column, text in numbers.items())


def _sums(texts: pd.Series) -> set[float]:
    """Possible totals of a column: its sum, the number of filled cells, and the number of cells that mean yes."""
    numbers = pd.to_numeric(texts.str.replace(",", ".", regex=False), errors="coerce")
    sums = {float((texts != "").sum()), float(texts.str.casefold().isin(PRESENT).sum())}
    return sums | ({float(numbers.sum())} if numbers.notna().any() else set())
