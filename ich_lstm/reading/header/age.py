"""The age of a patient in years, from Patient's Age (0010,1010) or the dates of birth and study."""

import re
from datetime import date
from functools import lru_cache

_AGE = re.compile(r"(\d{1,4}(?:\.\d+)?) ?(?:(Y)(?:R|RS|EARS?)?|(M)(?:O|OS|ONTHS?)?|(W)(?:K|KS|EEKS?)?|(D)(?:AYS?)?)?\.?")
_DATE = re.compile(r"(\d{4})[.-]?(\d{2})[.-]?(\d{2})")
_PER_YEAR = {"Y": 1.0, "M": 12.0, "W": 52.18, "D": 365.25}

OLDEST_YEARS = 125.0
"""A higher age, or an earlier date of birth, is a placeholder."""

_PLACEHOLDERS = frozenset({date(1, 1, 1), date(1899, 12, 30), date(1899, 12, 31), date(1900, 1, 1), date(1901, 1, 1)})
"""Dates of birth that software writes if the date is unknown."""


@lru_cache(maxsize=4096)
def age_in_years(age: str, birth: str, studied: str) -> float | None:
    """The age of a patient at the study, in years; None if no plausible value is present.

    Args:
        age: An age string such as ``064Y`` or ``003M``. The variants ``3``, ``03 Y``, ``3y`` and ``36 months`` are accepted;
            a number without a unit is in years.
        birth: Date of birth, ``YYYYMMDD``; used if the age string is not plausible.
        studied: Date of the study, ``YYYYMMDD``.

    Example:
        >>> age_in_years("03 Y", "", ""), age_in_years("36M", "", ""), age_in_years("", "20150301", "20200301")
        (3.0, 3.0, 5.0)
    """
    years = _age_from_string(age)
    return _age_from_dates(birth, studied) if years is None else years


def _age_from_string(age: str) -> float | None:
    found = _AGE.fullmatch(age.strip(" \0").upper())
    if found is None:
        return None
    number, unit = float(found[1]), next(filter(None, found.groups()[1:]), "")
    if not unit and not number:
        return None  # zero means that the age was not entered
    years = number / _PER_YEAR[unit or "Y"]
    return years if years <= OLDEST_YEARS else None


def _age_from_dates(birth: str, studied: str) -> float | None:
    born, then = _date(birth), _date(studied)
    if born is None or then is None or born in _PLACEHOLDERS or (born == then and (born.month, born.day) == (1, 1)):
        return None
    years = then.year - born.year - ((then.month, then.day) < (born.month, born.day))
    return float(years) if 0 <= years <= OLDEST_YEARS and born <= then else None


def _date(text: str) -> date | None:
    found = _DATE.fullmatch(text.strip(" \0"))
    if found is None:
        return None
    year, month, day = int(found[1]), int(found[2]), int(found[3])
    try:
        # Software that removes days and months keeps the year: 20150000.
        return date(year, month or 1, day or 1)
    except ValueError:
        return None
