"""The exceptions that this library raises on purpose.

Every one of them says what is wrong, where, what was found, what was expected, and what to do next, and carries a
``code`` that stays the same from release to release, so that ledgers and scripts can count on it.

What to do next may be to set something. It is named as ``[repair_any=true]``, by the library's own name for it, and spelt as
whoever reads it can use it: ``repair_any=True`` in Python, ``--repair-any`` or ``--data.repair_any true`` by a command.
"""

import re
from collections.abc import Callable

Spell = Callable[[str, str], str]
"""Spells a setting: gets its name, for example ``repair_any``, and a value, for example ``true``."""

_SETTING = re.compile(r"\[([a-z_]+)=([^\]]+)\]")


def spell_settings(text: str, spell: Spell) -> str:
    """The text with every ``[name=value]`` in it spelt.

    Args:
        text: What to do next.
        spell: For whom.

    Example:
        >>> spell_settings("Say [repair_any=true].", in_python)
        'Say repair_any=True.'
    """
    return _SETTING.sub(lambda match: spell(match[1], match[2]), text)


def in_python(name: str, value: str) -> str:
    """A setting as an argument of a function."""
    return f"{name}={'True' if value == 'true' else value if value.isupper() else repr(value)}"


def as_option(name: str, value: str) -> str:
    """A setting as an option of ich-prepare, ich-predict or ich-evaluate."""
    option = f"--{name.replace('_', '-')}"
    return option if value == "true" else f"{option} {value}"


def as_data_key(name: str, value: str) -> str:
    """A setting as a key of ich-train's data."""
    return f"--data.{name} {value}"


def in_files(name: str, value: str) -> str:
    """A setting in a file that either command may have written."""
    return f"{as_data_key(name, value)} of ich-train ({as_option(name, value)} of ich-prepare)"


class IchLstmError(Exception):
    """Base of all errors raised on purpose.

    Args:
        code: Stable reason in lower_snake_case, for example ``mixed_matrix``.
        where: The file, series, row or option concerned.
        got: What was found there.
        expected: What would have been right; left out of the text if empty.
        todo: What the reader should do next, a whole sentence; settings in it as ``[name=value]``.

    Example:
        >>> print(SeriesError("mixed_matrix", where="series 7f3a", got="512 x 512 and 256 x 256",
        ...                   expected="one size", todo="Pick another series with --series."))
        SeriesError[mixed_matrix]: series 7f3a: 512 x 512 and 256 x 256, expected one size. Pick another series with --series.
    """

    def __init__(self, code: str, *, where: str, got: str, expected: str = "", todo: str = "") -> None:
        self.code = code
        self.where = where
        self.got = got
        self.expected = expected
        self.todo = todo
        super().__init__(str(self))

    @property
    def detail(self) -> str:
        """The message without class, code and place: what a ledger's row shows."""
        return self._detail(in_python)

    def spelt(self, spell: Spell) -> str:
        """The whole message for a reader who sets things by other means than Python.

        Args:
            spell: How they are spelt there.
        """
        return f"{type(self).__name__}[{self.code}]: {self.where}: {self._detail(spell)}"

    def _detail(self, spell: Spell) -> str:
        fault = f"{self.got}, expected {self.expected}" if self.expected else self.got
        return f"{fault}. {spell_settings(self.todo, spell)}" if self.todo else f"{fault}."

    def __str__(self) -> str:
        return self.spelt(in_python)

    def __reduce__(self) -> tuple:
        # Exceptions pickle through their positional arguments; ours are keywords, and loader workers send them home.
        fields = {"where": self.where, "got": self.got, "expected": self.expected, "todo": self.todo}
        return _rebuild, (type(self), self.code, fields)


def _rebuild(kind: type[IchLstmError], code: str, fields: dict[str, str]) -> IchLstmError:
    return kind(code, **fields)


class SourceError(IchLstmError):
    """A path from which nothing can be read: missing, empty, or without CT."""


class FileError(IchLstmError):
    """One file that is no usable slice of CT."""


class SeriesError(IchLstmError):
    """Slices that do not make one scan."""


class StudyError(IchLstmError):
    """A study in which no series, or not the one asked for, can be used."""


class TableError(IchLstmError):
    """A label table that is malformed, contradicts itself, or does not fit the images."""


class SplitError(IchLstmError):
    """Patients that cannot be divided into training, validation and held-out sets."""


class AuditError(IchLstmError):
    """Labelled scans that must not be trained on as they are: leaked, contradicting, or of unknown patients."""


class CacheError(IchLstmError):
    """A cached scan that is missing or damaged."""


class StorageError(IchLstmError):
    """A disk or a quota that is full."""


class ConfigError(IchLstmError):
    """A setting that is unknown or out of range."""


class CheckpointError(IchLstmError):
    """A file or folder that holds no model this library can load."""
