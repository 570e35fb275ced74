"""Reading of files that a stranger may have written: regular files of bounded size, with plain and bounded content."""

import json
import math
import os
import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import IO, Any, NoReturn

from ich_lstm.printable import printable

MOST_JSON = 16 * 2**20
"""Largest JSON file that is read, in bytes. Parsed, it may need 20 times as much memory."""

MOST_YAML = 2**20
"""Largest YAML file that is read, in bytes."""

DEEPEST = 50
"""Deepest nesting of lists and mappings in metadata. Settings need 5 levels, and each warm start adds 2."""

MOST_VALUES = 2_000_000
"""Largest number of values in metadata, where a value that is referred to twice counts twice."""

LARGEST_INTEGER = 2**63 - 1
"""Largest absolute value of an integer in metadata: what 64 bits hold."""

LONGEST_TEXT = 300
"""Number of characters of a stranger's text that a message repeats."""


def shown(text: str) -> str:
    """Make a stranger's text safe for messages: control characters are escaped, and long text is cut.

    Args:
        text: Any text.

    Example:
        >>> shown("a\\x1b[2Jb")
        'a\\\\x1b[2Jb'
    """
    return printable(text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}...")


def open_regular(path: Path, most: int | None = None) -> IO[bytes]:
    """Open a regular file. A named pipe or a device is refused without waiting for it.

    Args:
        path: The file; a link to a regular file is followed.
        most: The most bytes that the file may have; None for any size.

    Raises:
        OSError: If the file cannot be opened.
        ValueError: If it is not a regular file, or is too large.
    """
    # A pipe is opened without waiting for its other end, but some devices act when they are opened.
    if not stat.S_ISREG(path.stat().st_mode):
        raise ValueError("not a regular file")
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    about = os.fstat(descriptor)
    if not stat.S_ISREG(about.st_mode) or (most is not None and about.st_size > most):
        os.close(descriptor)
        raise ValueError(f"{about.st_size:,} bytes, expected a regular file of at most {most:,}")
    return os.fdopen(descriptor, "rb")


def read_json(path: Path) -> Any:
    """Read a JSON file whose author is not trusted.

    Args:
        path: The file.

    Returns:
        Plain values: every number is finite, and no key occurs twice in a mapping.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not a regular file, is too large, is not JSON in UTF-8, or is nested too deeply.
    """
    with open_regular(path, MOST_JSON) as file:
        content = file.read(MOST_JSON)
    try:
        value = json.loads(content.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_not_finite)
    except RecursionError as error:
        raise ValueError(f"values nested more than {DEEPEST} deep") from error
    check_plain(value)
    return value


def read_yaml(path: Path) -> Any:
    """Read a YAML file whose author is not trusted.

    Args:
        path: The file.

    Returns:
        Plain values. Infinity is allowed, as a setting may need it.

    Raises:
        OSError: If the file cannot be read.
        ValueError: If it is not a regular file, is too large, is not YAML in UTF-8, is nested too deeply, or has tags or aliases:
            a tag can name code, and a few aliases of aliases can stand for billions of values.
    """
    import yaml  # only ich-train needs it

    with open_regular(path, MOST_YAML) as file:
        text = file.read(MOST_YAML).decode("utf-8")
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            at = f"line {event.start_mark.line + 1}" if event.start_mark else "file"
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"{at}: the alias *{shown(str(event.anchor))}, expected values without aliases")
            if (tag := getattr(event, "tag", None)) is not None:
                raise ValueError(f"{at}: the tag {shown(tag)}, expected values without tags")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError(f"{at}: values nested more than {DEEPEST} deep")
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {shown(' '.join(str(error).split()))}") from error


def check_plain(value: Any) -> None:
    """Check that a value consists of finite numbers, text, None, lists and mappings by text, and is neither deep nor huge.

    Args:
        value: The value, for example the metadata of a model.

    Raises:
        ValueError: If it contains anything else.
    """
    waiting: list[tuple[Any, int]] = [(value, 0)]
    count = 0
    while waiting:
        item, depth = waiting.pop()
        count += 1
        inside: Collection[Any] = ()
        if isinstance(item, Mapping):
            if any(not isinstance(key, str) for key in item):
                raise ValueError("a mapping whose keys are not text")
            inside = item.values()
        elif isinstance(item, list | tuple):
            inside = item
        elif isinstance(item, float) and not math.isfinite(item):
            raise ValueError(f"the number {item}, expected finite numbers")
        elif isinstance(item, int) and abs(item) > LARGEST_INTEGER:
            raise ValueError("an integer of more than 64 bits")
        elif not isinstance(item, str | int | float | None):
            raise ValueError(f"a value of the type {type(item).__name__}")
        if inside and depth >= DEEPEST:
            raise ValueError(f"values nested more than {DEEPEST} deep")
        if count + len(waiting) + len(inside) > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values")
        waiting += [(each, depth + 1) for each in inside]


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(twice)!r} twice")
    return found


def _not_finite(name: str) -> NoReturn:
    raise ValueError(f"the number {name}, expected finite numbers")
