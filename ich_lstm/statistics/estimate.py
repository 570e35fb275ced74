"""An estimate: a figure, its interval, and the notes that go with it."""

import math
from typing import NamedTuple


class Estimate(NamedTuple):
    """A figure with its confidence interval; None and a reason where a number is undefined.

    Args:
        value: The figure, or None if it is undefined.
        low: Lower limit of the interval, or None if there is no interval.
        high: Upper limit of the interval, or None if there is no interval.
        method: The method of the interval; empty without an interval.
        note: Why value or interval are missing, or a caution for the reader.

    Example:
        >>> print(Estimate(0.93, 0.9, 0.95))
        0.930 (0.900 to 0.950)
        >>> print(undefined("no positive case"))
        undefined: no positive case
    """

    value: float | None
    low: float | None = None
    high: float | None = None
    method: str = ""
    note: str = ""

    def __str__(self) -> str:
        if self.value is None:
            return f"undefined: {self.note}"
        if self.low is None or self.high is None:
            return f"{self.value:.3f}"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"


def undefined(reason: str) -> Estimate:
    """Make the estimate of an undefined figure, with the reason."""
    return Estimate(None, note=reason)


def estimate_or(value: float, reason: str) -> Estimate:
    """Make an estimate without an interval; NaN becomes undefined, with the reason."""
    return undefined(reason) if math.isnan(value) else Estimate(float(value))
