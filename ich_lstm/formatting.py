"""Formatting of values for people: probabilities, positions, sides, long lists."""

import math
from collections.abc import Iterable
from itertools import islice

from ich_lstm.scan import Note

RESEARCH_USE = "Research use only, not for diagnosis."


def percent(probability: float) -> str:
    """A probability in whole percent with a no-break space; never 0 or 100 %, of which no model can be certain.

    Example:
        >>> print(percent(0.0004))
        <1\xa0%
    """
    value = 100 * probability
    if value < 1:
        return "<1\u00a0%"
    if value > 99:
        return ">99\u00a0%"
    return f"{math.floor(value + 0.5)}\u00a0%"


def millimetres(position: float) -> str:
    """A position with one decimal, a true minus sign and a no-break space.

    Example:
        >>> print(millimetres(-33.67))
        −33.7\xa0mm
    """
    return f"{position:.1f}\u00a0mm".replace("-", "\u2212")


def counted(count: int, one: str, many: str = "") -> str:
    """A number with its noun.

    Args:
        count: The number, shown with commas between thousands.
        one: The noun for one.
        many: The noun for any other number; by default `one` with an s.

    Example:
        >>> counted(1, "slice"), counted(1200, "slice"), counted(0, "series", "series")
        ('1 slice', '1,200 slices', '0 series')
    """
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def first_of(names: Iterable[object], count: int = 10, *, separator: str = ", ", total: int | None = None) -> str:
    """The first of many names, and how many more there are, for a message of bounded length.

    Args:
        names: Names, numbers or other values, shown as ``str`` makes them; they are read only once.
        count: The most names that are shown.
        separator: What stands between two names.
        total: The length of the whole list, where ``names`` is only its beginning; None: ``names`` is the whole list.

    Example:
        >>> first_of(range(2, 14))
        '2, 3, 4, 5, 6, 7, 8, 9, 10, 11 and 2 more'
        >>> first_of(["a = 1", "b = 2"], separator="; ", total=5)
        'a = 1; b = 2 and 3 more'
    """
    rest = iter(names)
    shown = [str(name) for name in islice(rest, count)]
    more = (len(shown) + sum(1 for _ in rest) if total is None else total) - len(shown)
    return separator.join(shown) + (f" and {more:,} more" if more else "")


def side_marks(flags: Iterable[Note]) -> tuple[str, str]:
    """The marks at the left and the right edge of a picture, with a question mark where the header does not give the side."""
    return ("R?", "L?") if any(note.code == "no_orientation" for note in flags) else ("R", "L")
