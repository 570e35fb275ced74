"""The scripts of the benchmarks can be imported like the modules beside the tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "examples" / "benchmarks"))
