"""Range checks of the phantom's settings and options, with one wording of their errors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from ich_lstm.errors import ConfigError


class RangeCheck(NamedTuple):
    """Refuses values of one group of settings.

    Args:
        code: Code of the errors, for example ``phantom_setting_out_of_range``.
        group: What the group is called in messages, for example ``phantom setting``.
    """

    code: str
    group: str

    def choice(self, name: str, value: Any, choices: Sequence[str]) -> None:
        """Refuse anything but one of the choices."""
        if value not in choices:
            raise self.refused(name, value, " or ".join(choices))

    def whole(self, name: str, value: Any, low: int = 0, high: int = 1_000_000) -> None:
        """Refuse anything but a whole number from ``low`` to ``high``."""
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self.refused(name, value, f"a whole number from {low} to {high:,}")

    def number(self, name: str, value: Any, low: float, high: float) -> None:
        """Refuse anything but a number from ``low`` to ``high``; NaN is refused, because comparisons with it are false."""
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise self.refused(name, value, f"a number from {low:g} to {high:g}")

    def refused(self, name: str, value: Any, expected: str) -> ConfigError:
        """The error for a value that is out of range."""
        return ConfigError(
            self.code,
            where=f"{self.group} {name}",
            got=repr(value),
            expected=expected,
            todo=f"Choose another value for {name}.",
        )


OPTION = RangeCheck("phantom_option_out_of_range", "phantom layout option")
"""Checks the options of the layouts."""
