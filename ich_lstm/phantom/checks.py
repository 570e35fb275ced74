"""Error messages for unsupported options, in one wording."""

from collections.abc import Sequence
from typing import Any

from ich_lstm.errors import ConfigError


def check_choice(name: str, value: Any, choices: Sequence[str]) -> None:
    """Refuse anything but one of the choices."""
    if value not in choices:
        raise _refused(name, value, " or ".join(choices))


def check_count(name: str, value: Any, low: int = 0, high: int = 1_000_000) -> None:
    """Refuse anything but a whole number within limits."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _refused(name, value, f"a whole number from {low} to {high:,}")


def check_number(name: str, value: Any, low: float, high: float) -> None:
    """Refuse anything but a number within limits; NaN is none."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise _refused(name, value, f"a number from {low:g} to {high:g}")


def _refused(name: str, value: Any, expected: str) -> ConfigError:
    return ConfigError(
        "phantom_option_out_of_range",
        where=f"phantom layout option {name}",
        got=repr(value),
        expected=expected,
        todo=f"Choose another value for {name}.",
    )
