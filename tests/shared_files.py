"""Files that lie beside the project and not in it; what needs them is skipped where they are not."""

from pathlib import Path

SHARED = Path(__file__).parent.parent.parent / "shared"
DATA = SHARED / "data"
