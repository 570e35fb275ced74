"""What all tests share: the modules beside this file, such as ``dicom_files``, can be imported from any folder."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
