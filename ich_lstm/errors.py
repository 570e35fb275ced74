"""The exceptions that this library raises on purpose.

Each says what is wrong, where, what was found, what was expected, and what to do next. Its ``code`` stays the same from
release to release, so that ledgers and scripts can rely on it.

A message may tell the reader to change a setting. It contains the setting as ``[repair_any=true]``; each interface spells it
in its own way: ``repair_any=True`` in Python, ``--repair-any`` or ``--data.repair_any true`` on a command line.
"""

import re
from collections.abc import Callable

from ich_lstm.printable import printable

Spell = Callable[[str, str], str]
"""A function that spells a setting, given its name, for example ``repair_any``, and its value, for example ``true``."""

_SETTING = re.compile(r"\[([a-z_]+)=([^\]]+)\]")


def spell_settings(text: str, spell: Spell) -> str:
    """Replace every ``[name=value]`` in a text by its spelling.

    Args:
        text: Text that may contain settings.
        spell: Function that spells a setting.

    Example:
        >>> spell_settings("Say [repair_any=true].", in_python)
        'Say repair_any=True.'
    """
    return _SETTING.sub(lambda match: spell(match[1], match[2]), text)


def in_python(name: str, value: str) -> str:
    """Spell a setting as an argument of a function."""
    return f"{name}={'True' if value == 'true' else value if value.isupper() else repr(value)}"


def as_option(name: str, value: str) -> str:
    """Spell a setting as an option of ich-prepare, ich-predict or ich-evaluate."""
    option = f"--{name.replace('_', '-')}"
    return option if value == "true" else f"{option} {value}"


def as_data_key(name: str, value: str) -> str:
    """Spell a setting as a key of ich-train's data."""
    return f"--data.{name} {value}"


def in_files(name: str, value: str) -> str:
    """Spell a setting in a file that either ich-train or ich-prepare may have written."""
    return f"{as_data_key(name, value)} of ich-train ({as_option(name, value)} of ich-prepare)"


class IchLstmError(Exception):
    """Base class of all errors raised on purpose.

    Args:
        code: Stable reason in lower_snake_case, for example ``mixed_matrix``.
        where: The file, series, row or option concerned.
        got: What was found there.
        expected: What is valid there; omitted from the message if empty.
        todo: What to do next, in whole sentences; settings in it are written as ``[name=value]``.

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
        """The message without class, code and place, as a row of the ledger shows it."""
        return self._detail(in_python)

    def spelt(self, spell: Spell) -> str:
        """The whole message as printable text, with settings spelt for a particular interface.

        Args:
            spell: Function that spells a setting.
        """
        return printable(f"{type(self).__name__}[{self.code}]: {self.where}: {self._detail(spell)}")

    def _detail(self, spell: Spell) -> str:
        fault = f"{self.got}, expected {self.expected}" if self.expected else self.got
        return f"{fault}. {spell_settings(self.todo, spell)}" if self.todo else f"{fault}."

    def __str__(self) -> str:
        return self.spelt(in_python)

    def __reduce__(self) -> tuple:
        # Exceptions are pickled by their positional arguments. Ours are keywords, and data loader workers must return them.
        fields = {"where": self.where, "got": self.got, "expected": self.expected, "todo": self.todo}
        return _rebuild, (type(self), self.code, fields)


def _rebuild(kind: type[IchLstmError], code: str, fields: dict[str, str]) -> IchLstmError:
    return kind(code, **fields)


class SourceError(IchLstmError):
    """A path that cannot be read: missing, empty, or without CT."""


class FileError(IchLstmError):
    """A file that is not a usable CT slice."""


class SeriesError(IchLstmError):
    """Slices that do not form one scan."""


class StudyError(IchLstmError):
    """A study of which no series, or not the requested one, can be used."""


class TableError(IchLstmError):
    """A label table that is malformed, contradicts itself, or does not fit the images."""


class SplitError(IchLstmError):
    """Patients who cannot be divided into training, validation and test sets."""


class AuditError(IchLstmError):
    """Labelled scans that must not be used for training as they are: leakage, contradictions, or unknown patients."""


class CacheError(IchLstmError):
    """A cached scan that is missing or damaged."""


class StorageError(IchLstmError):
    """A full disk or quota."""


class WorkerError(IchLstmError):
    """A process of this library that ended before its work was done."""


class UnexpectedError(IchLstmError):
    """An error that nobody foresaw, in the work on one study, series or file; all others go on."""


class PredictionError(IchLstmError):
    """A scan for which a model gives no probability."""


class ConfigError(IchLstmError):
    """A setting that is unknown or out of range."""


class TrainingError(IchLstmError):
    """A training that cannot go on: its numbers are not finite, or memory ran out."""


class CheckpointError(IchLstmError):
    """A file or folder that holds no model this library can load."""
