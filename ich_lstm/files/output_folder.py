"""The output folder of a command: new or empty, so that files of other commands are neither overwritten nor mixed in."""

from collections.abc import Collection
from pathlib import Path

from ich_lstm.errors import ConfigError


def is_new_or_empty(folder: Path, *, apart_from: Collection[str] = ()) -> bool:
    """Whether a folder is missing or empty.

    Args:
        folder: Folder to check.
        apart_from: Names of files and folders in it that are ignored.
    """
    if not folder.exists():
        return True
    return folder.is_dir() and all(path.name in apart_from for path in folder.iterdir())


def check_new_or_empty(folder: Path) -> None:
    """Check that a command may write to a folder.

    Args:
        folder: Output folder of the command.

    Raises:
        ConfigError: ``out_not_empty``.
    """
    if not is_new_or_empty(folder):
        raise out_not_empty(folder)


def out_not_empty(folder: Path, expected: str = "a new or empty folder") -> ConfigError:
    """The error for a folder that contains other files.

    Args:
        folder: Output folder of the command.
        expected: Description of the folders that the command accepts.
    """
    return ConfigError("out_not_empty", where=str(folder), got="it is not empty", expected=expected)
