"""Text from files, as a terminal, a log, a table or a page may show it: with control characters escaped."""

import logging
import re

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""C0 and C1 control characters, line and paragraph separators, marks that turn the direction of text, and single surrogates.

A terminal obeys control characters, among them those that erase lines or answer with input; the marks of direction make
``txt.exe`` look like ``exe.txt``. Surrogates are bytes of file names that are not UTF-8, which no file in UTF-8 can hold.
"""

BYTE = 0xDC00
"""The surrogate of a byte in a file name that is not UTF-8, minus the byte (:pep:`383`)."""


def printable(text: str, *, keep: str = "") -> str:
    r"""Escape control characters.

    Args:
        text: Text that may come from a file, a header or the name of a file.
        keep: Control characters that stay as they are, such as line ends in text of several lines.

    Example:
        >>> printable("brain\x1b[2J\u202e\n")
        'brain\\x1b[2J\\u202e\\x0a'
    """
    if text.isprintable():  # usual, and much faster than the search
        return text
    return _UNPRINTABLE.sub(lambda match: match[0] if match[0] in keep else _escaped(match[0]), text)


def _escaped(character: str) -> str:
    number = ord(character)
    if BYTE + 0x80 <= number <= BYTE + 0xFF:
        return f"\\x{number - BYTE:02x}"  # the byte
    return f"\\x{number:02x}" if number < 0x80 else f"\\u{number:04x}"


_ESCAPE = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4}))")


def escaped(text: str) -> str:
    """Escape control characters so that `unescaped` restores the text exactly: what looks like an escape is escaped too."""
    return printable(_ESCAPE.sub(lambda match: f"\\x5c{match[0][1:]}", text) if "\\" in text else text)


def unescaped(text: str) -> str:
    """Restore a text from `escaped`."""
    if "\\" not in text:
        return text
    return _ESCAPE.sub(lambda match: _character(int(match[1] or match[2], 16), is_byte=match[1] is not None), text)


def _character(number: int, *, is_byte: bool) -> str:
    return chr(BYTE + number if is_byte and number >= 0x80 else number)


class _Printable(logging.Filter):
    """Escapes control characters in log records, whichever handler writes them."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.msg, record.args = printable(record.getMessage()), ()
        return True


def printable_logger(name: str) -> logging.Logger:
    """The logger of a module, whose messages may contain text from files.

    Args:
        name: ``__name__`` of the module.
    """
    logger = logging.getLogger(name)
    logger.addFilter(_Printable())
    return logger
