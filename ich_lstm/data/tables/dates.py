"""Parsing of dates in the notations of several countries."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from ich_lstm.data.tables.labelled import stop_at

EXPECTED = "YYYY-MM-DD or YYYYMMDD, or an empty cell"

_TIME = re.compile(r"[T ]\s*\d{1,2}:\d{2}(:\d{2}([.,]\d+)?)?\s*([AaPp][Mm])?\s*(Z|[+-]\d{2}:?\d{2})?$")
_YEAR_FIRST = re.compile(r"(\d{4})([-/.])(\d{1,2})\2(\d{1,2})\.?")
_YEAR_LAST = re.compile(r"(\d{1,2})([-/.])(\d{1,2})\2(\d{4})")
_SERIAL = re.compile(r"[1-5]\d{4}([.,]\d+)?")


def read_dates(path: Path, texts: pd.Series, lines: np.ndarray) -> tuple[pd.Series, tuple[str, ...]]:
    """Read dates as ``YYYY-MM-DD``, empty where unknown.

    The documented formats are ``YYYY-MM-DD`` and ``YYYYMMDD``. ``YYYY/MM/DD`` is read too, and so are ``DD.MM.YYYY`` and
    ``MM/DD/YYYY``, with dots, slashes or hyphens, where the column itself settles whether the day comes first: some row has a
    number above 12 in one place, and no row in the other. A time of day after a date is dropped.

    Args:
        path: The path of the table, for messages.
        texts: The text of each cell.
        lines: The line of each cell in the table, ``(rows,)``.

    Returns:
        The dates, and the assumptions that were made, as texts.

    Raises:
        TableError: ``bad_date`` for a cell that is not a date; ``ambiguous_dates`` if no row settles the order;
            ``contradicting_date_orders`` if two rows settle it differently.
    """
    bare = texts.str.replace(_TIME, "", regex=True)
    bare = bare.where(texts.str.contains(":", regex=False), texts)
    assumed = [] if (bare == texts).all() else ["dropped the time of day after dates"]
    plain = bare.str.fullmatch(r"\d{4}-\d{2}-\d{2}|\d{8}")
    digits = bare.where(plain, "").str.replace("-", "", regex=False)
    first = bare.where(~plain, "").str.extract(f"^{_YEAR_FIRST.pattern}$")
    last = bare.where(~plain, "").str.extract(f"^{_YEAR_LAST.pattern}$")
    if first[0].notna().any():
        digits = digits.mask(first[0].notna(), first[0] + first[2].str.zfill(2) + first[3].str.zfill(2))
        assumed.append("dates as year, month, day")
    if last[0].notna().any():
        day_first = _is_day_first(path, last, lines)
        day, month = (last[0], last[2]) if day_first else (last[2], last[0])
        digits = digits.mask(last[3].notna(), last[3] + month.str.zfill(2) + day.str.zfill(2))
        assumed.append(f"dates as {'day, month' if day_first else 'month, day'}, year")
    dates = pd.to_datetime(digits.where(digits.str.fullmatch(r"\d{8}")), format="%Y%m%d", errors="coerce")
    wrong = (dates.isna() & (texts != "")).to_numpy()
    if wrong.any():
        text = texts[wrong].iloc[0]
        todo = "Correct the table, and run again."
        if _SERIAL.fullmatch(text):
            todo = "A spreadsheet wrote its serial number of the day: format the column as dates (YYYY-MM-DD) and save again."
        stop_at(path, lines[wrong], "bad_date", f"the date {text!r}", EXPECTED, todo=todo)
    return dates.dt.strftime("%Y-%m-%d").fillna(""), tuple(assumed)


def _is_day_first(path: Path, parts: pd.DataFrame, lines: np.ndarray) -> bool:
    """Whether days stand before months in dates whose year comes last.

    Args:
        path: The path of the table.
        parts: First number, separator, second number and year of each date; NaN where the text is not of this form.
        lines: The line of each date in the table.
    """
    one, two = parts[0].astype(float), parts[2].astype(float)
    day_first, month_first = (one > 12).to_numpy(), (two > 12).to_numpy()
    if day_first.any() and month_first.any():
        fewer = min(day_first, month_first, key=np.sum)
        stop_at(
            path,
            lines[fewer],
            "contradicting_date_orders",
            f"dates, {day_first.sum()} with the day first and {month_first.sum()} with the month first",
            "one order in the whole column",
            todo="Write the dates as YYYY-MM-DD.",
        )
    unsettled = (one != two).to_numpy() & parts[0].notna().to_numpy()
    if not day_first.any() and not month_first.any() and unsettled.any():
        stop_at(
            path,
            lines[unsettled],
            "ambiguous_dates",
            "dates that may have the day or the month first, with no number above 12 in the column to settle it",
            "YYYY-MM-DD",
            todo="Write the dates as YYYY-MM-DD.",
        )
    return not month_first.any()
