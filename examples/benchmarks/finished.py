"""Runs of a benchmark that have ended, so that none is done twice."""

import json
import sys
from pathlib import Path
from typing import Any

RUN = "run.json"
"""What is known about a run; written last, so that a folder without it is that of a run that did not end."""


def is_done(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether a run has ended.

    Args:
        folder: The folder of the run.
        settings: What must be the same in all runs of a benchmark.

    Raises:
        SystemExit: If it was made with other settings.
    """
    if not (folder / RUN).is_file():
        return False
    made = json.loads((folder / RUN).read_text())["settings"]
    if made != settings:
        sys.exit(f"{folder} was made with {made}, and asked for is {settings}: take another --out, or remove it.")
    return True
