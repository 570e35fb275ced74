"""Formatting of values for people: probabilities, positions, sides."""

import math
from collections.abc import Iterable

from ich_lstm.scan import Note

RESEARCH_USE = "Research use only, not for diagnosis."


def percent(probability: float) -> str:
    """A probability in whole percent, with a no-break space; never 0 or 100 %, which no model can promise.

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


def side_marks(flags: Iterable[Note]) -> tuple[str, str]:
    """What stands at the left and the right of a picture, with a question mark where the header did not say."""
    return ("R?", "L?") if any(note.code == "no_orientation" for note in flags) else ("R", "L")
