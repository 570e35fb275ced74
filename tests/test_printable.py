"""Control characters reach neither a terminal nor a log."""

import logging

import pytest

from ich_lstm.errors import SeriesError
from ich_lstm.printable import escaped, printable, printable_logger, unescaped

HOSTILE = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "a\rb",
    "a\nb",
    "a\x00b",
    "\x9b31m",
    "\x7f",
    "\u202e",
    "\u2066x\u2069",
    "\u2028",
    "a\udcff",
    "\ud800",
]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_control_characters_are_escaped(text: str) -> None:
    shown = printable(f"brain {text} thin")
    assert shown.isprintable()
    assert shown.startswith("brain ")
    assert printable(shown) == shown


def test_other_text_stays_as_it_is() -> None:
    text = "Schädel-CT «nativ» 頭部 العربية \N{ZERO WIDTH JOINER}\N{NO-BREAK SPACE} C:\\x1 [red]"
    assert printable(text) == text


def test_what_is_kept() -> None:
    assert printable("a\n\x1bb", keep="\n") == "a\n\\x1bb"


@pytest.mark.parametrize(
    "text", [*HOSTILE, r"a\x1b", "\\\x1b", r"\\x1b", r"C:\new", r"\x5c1b", r"\xff", r"\u202e", "", "ä"], ids=ascii
)
def test_escapes_can_be_undone(text: str) -> None:
    assert unescaped(escaped(text)) == text
    assert escaped(text).isprintable()


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_errors_are_printable_lines(text: str) -> None:
    error = SeriesError("mixed_matrix", where=f"series {text}", got=text, expected=text, todo=text)
    assert str(error).isprintable()
    assert str(error) == error.args[0]


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_log_records_are_printable(text: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        printable_logger("ich_lstm.test").warning("%s: %d rows of 100 %%", text, 3)
    assert caplog.messages == [f"{printable(text)}: 3 rows of 100 %"]
