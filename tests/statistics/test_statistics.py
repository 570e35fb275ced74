"""The package is light: figures can be had where no model is loaded."""

import subprocess
import sys


def test_no_torch() -> None:
    code = "import sys, ich_lstm.statistics; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
