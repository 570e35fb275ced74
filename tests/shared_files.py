"""Real CT files, which lie beside the project and not in it; tests that need them are skipped where they are missing."""

from pathlib import Path

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
