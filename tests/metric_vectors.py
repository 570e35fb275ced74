"""Metric values that independent implementations agree on: what every metric and every loss must reproduce."""

import json
from pathlib import Path

VECTORS: dict = json.loads(Path(__file__).with_suffix(".json").read_text())
"""Cases by metric; the key ``note`` says in which order their columns are and to how many digits the values hold."""
