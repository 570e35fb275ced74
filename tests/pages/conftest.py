from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ich_lstm.explanation import Explanation
from ich_lstm.labels import LABELS
from ich_lstm.prediction import ScanPrediction
from ich_lstm.scan import Note


def make_prediction(count: int = 5, size: int = 32, **changes: Any) -> ScanPrediction:
    """A prediction whose slice i is evenly ``10 + i`` HU, with "any" highest in the middle slice."""
    distance = np.abs(np.arange(count) - count // 2)
    slices = np.full((count, len(LABELS)), 0.004)
    slices[:, LABELS.index("any")] = 0.9 / (1 + distance)
    slices[:, LABELS.index("subdural")] = np.linspace(0.02, 0.62, count)
    fields: dict[str, Any] = {
        "slice_probabilities": slices,
        "scan_probabilities": slices.max(axis=0),
        "scan_id": "7f3a19c04be2d851",
        "slice_ids": tuple(f"{i:016x}" for i in range(count)),
        "patient_id": "a0b1c2d3e4f50617",
        "positions_mm": np.arange(count) * 5.0 - 7.5,
        "spacing_mm": (5.0, 0.5, 0.5),
        "hu": np.broadcast_to((10 + np.arange(count, dtype=np.int16))[:, None, None], (count, size, size)).copy(),
        "flags": (Note("tilt", "gantry tilt 18.5 degrees"), Note("gap", "15 mm between slices 3 and 4")),
        "repairs": (Note("padding", "padding of -1500 replaced by air"),),
        "model_name": "demo",
        "model_hash": "c0ffee12ab34cd56",
        "tilt_degrees": 18.5,
    }
    return ScanPrediction(**(fields | changes))


def make_explanation(count: int = 5, cells: int = 4, size: int = 32, **changes: Any) -> Explanation:
    """Of subarachnoid, subdural and any: subdural is hottest in the lower right cell but one, more so from slice to slice."""
    maps = np.full((count, len(LABELS), cells, cells), np.nan, np.float32)
    contributions = np.full((count, len(LABELS)), np.nan)
    for label in ("subarachnoid", "subdural", "any"):
        maps[:, LABELS.index(label)] = 0
        contributions[:, LABELS.index(label)] = np.linspace(-2, 2, count) if count > 1 else 1
    maps[:, LABELS.index("subdural"), 2, 2] = np.arange(1, count + 1) / count
    maps[:, LABELS.index("subarachnoid"), 1, 1] = 0.5
    fields: dict[str, Any] = {
        "maps": maps,
        "box": (0.0, 0.0, float(size), float(size)),
        "contributions": contributions,
        "method": "a rule",
    }
    return Explanation(**(fields | changes))


@pytest.fixture(name="make_explanation")
def _make_explanation() -> Callable[..., Explanation]:
    return make_explanation


@pytest.fixture(name="make_prediction")
def _make_prediction() -> Callable[..., ScanPrediction]:
    return make_prediction
