"""The errors that this library raises on purpose.

Every one of them says what is wrong, where, what was found, what was expected, and what to do next, and carries a
``code`` that stays the same from release to release, so that ledgers and scripts can count on it.
"""


class IchLstmError(Exception):
    """Base of all errors raised on purpose.

    Args:
        code: Stable reason in lower_snake_case, for example ``mixed_matrix``.
        where: The file, series, row or option concerned.
        got: What was found there.
        expected: What would have been right; left out of the text if empty.
        todo: What the reader should do next, a whole sentence.

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
        fault = f"{self.got}, expected {self.expected}" if self.expected else self.got
        return f"{fault}. {self.todo}" if self.todo else f"{fault}."

    def __str__(self) -> str:
        return f"{type(self).__name__}[{self.code}]: {self.where}: {self.detail}"

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
