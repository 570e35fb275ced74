"""The list of export formats; options and help of ``ich-predict`` and the folders of the files are derived from it."""

import textwrap
from pathlib import Path

from ich_lstm.archive.exports.dicom import DicomExport
from ich_lstm.archive.exports.export import Export
from ich_lstm.errors import ConfigError
from ich_lstm.privacy import PRIVATE

EXPORTS: tuple[Export, ...] = (DicomExport(),)


def find_export(name: str) -> Export:
    """Find a format by its name.

    Args:
        name: Name of the format.

    Raises:
        ConfigError: ``unknown_export``.
    """
    for export in EXPORTS:
        if export.name == name:
            return export
    raise ConfigError(
        "unknown_export", where="exports", got=repr(name), expected=f"one of {', '.join(export.name for export in EXPORTS)}"
    )


def folder_of_export(export: Export) -> Path:
    """The folder of a format's files, relative to the folder of predictions."""
    return Path(PRIVATE, export.name) if export.is_private else Path(export.name)


def describe_exports(indent: int, width: int) -> str:
    """Format the help text, with one option for each format.

    Args:
        indent: Column at which the descriptions begin.
        width: Maximum length of a line in characters.
    """
    lines = []
    for export in EXPORTS:
        extra = f' (pip install ".[{export.requirement.extra}]")' if export.requirement else ""
        lines += textwrap.wrap(
            f"write {export.description}{extra}",
            width,
            initial_indent=f"  --{export.name}".ljust(indent),
            subsequent_indent=" " * indent,
            break_long_words=False,
        )
    return "\n".join(lines)
