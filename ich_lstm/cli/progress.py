"""Progress output for log files: an occasional line instead of a progress bar."""

import time
from collections.abc import Callable
from dataclasses import dataclass

LINE_SECONDS = 60.0
"""Shortest time between two lines: the log of a night has some hundred lines, whatever the number of files."""


@dataclass
class _Activity:
    began: float
    done: int = 0
    total: int | None = None


class ProgressLines:
    """Prints, at most once a minute, the progress of an activity, its rate, and the time left.

    Args:
        say: Function that prints a line.
        clock: Function that gives the time in seconds; tests replace it.
    """

    def __init__(self, say: Callable[[str], None], *, clock: Callable[[], float] = time.monotonic) -> None:
        self._say, self._clock = say, clock
        self._activities: dict[str, _Activity] = {}
        self._said = clock()

    def advance(self, what: str, done: int, total: int | None = None) -> None:
        """Record progress, and print a line if the last one is a minute old.

        Args:
            what: Name of the activity.
            done: Number of items done since the last call.
            total: Number of all items; None if unknown.
        """
        now = self._clock()
        activity = self._activities.setdefault(what, _Activity(now))
        activity.done += done
        activity.total = total
        if activity.done and now - self._said >= LINE_SECONDS:
            self._said = now
            self._say(_line(what, activity, now))


def _line(what: str, activity: _Activity, now: float) -> str:
    rate = activity.done / max(now - activity.began, 1e-9)
    pace = f"{rate:,.0f}/s" if rate >= 10 else f"{rate:.1f}/s" if rate >= 1 else f"{60 * rate:.1f} a minute"
    if activity.total is None:
        return f"{what}: {activity.done:,}, {pace}"
    return f"{what}: {activity.done:,} of {activity.total:,}, {pace}, {in_words((activity.total - activity.done) / rate)} left"


def in_words(seconds: float) -> str:
    """A duration in words.

    Example:
        >>> in_words(40), in_words(150), in_words(3 * 3600 + 600)
        ('40 s', '2 min', '3 h 10 min')
    """
    minutes, rest = divmod(max(0, round(seconds)), 60)
    if not minutes:
        return f"{rest} s"
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
