"""The folder that a command fills: new or empty, so that nothing of another command is overwritten or taken for its own."""

from collections.abc import Collection
from pathlib import Path

from ich_lstm.errors import ConfigError


def is_new_or_empty(folder: Path, *, apart_from: Collection[str] = ()) -> bool:
    """Whether a folder is missing or holds nothing.

    Args:
        folder: Folder to be filled.
        apart_from: Names of files and folders in it that do not count.
    """
    if not folder.exists():
        return True
    return folder.is_dir() and all(path.name in apart_from for path in folder.iterdir())


def check_new_or_empty(folder: Path) -> None:
    """Check that a command may fill a folder.

    Args:
        folder: The output folder.

    Raises:
        ConfigError: ``out_not_empty``.
    """
    if not is_new_or_empty(folder):
        raise out_not_empty(folder)


def out_not_empty(folder: Path, expected: str = "a new or empty folder") -> ConfigError:
    """The error for a folder that holds something else.

    Args:
        folder: The output folder.
        expected: What the command can work in.
    """
    return ConfigError("out_not_empty", where=str(folder), got="it is not empty", expected=expected)
