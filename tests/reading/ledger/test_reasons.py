"""The list of reasons is complete: whatever the room raises about files and series has its action and its words."""

import re
from pathlib import Path

import ich_lstm.reading
from ich_lstm.reading.ledger.reasons import REASONS

RAISED = re.compile(r"(?:FileError|SeriesError|RescaleError|\.drop)\(\s*(?:header, )?\"([a-z0-9_]+)\"")


def test_every_code_has_its_reason() -> None:
    room = Path(ich_lstm.reading.__file__).parent
    raised = {code for path in room.rglob("*.py") for code in RAISED.findall(path.read_text())}
    assert len(raised) > 30
    assert raised <= set(REASONS)
