"""Scripts of the benchmarks that tests import."""

import sys
from importlib import import_module
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

BENCHMARKS = str(Path(__file__).parents[2] / "examples" / "benchmarks")

# The folder does not stay on the path: it also holds data.py and coverage.py, which other tests and packages would find there.
sys.path.insert(0, BENCHMARKS)
for script in ("imagenet_weights", "phe_sich", "real_bleeding", "real_bleeding_maps"):
    import_module(script)
sys.path.remove(BENCHMARKS)

BLEEDING_PATIENTS = 9


@pytest.fixture(scope="session")
def bleeding_set(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic heads in the form of PHE-SICH-CT-IDS, each with intraparenchymal blood, and a slice of unknown label each."""
    from ich_lstm.labels import LABELS
    from ich_lstm.phantom import PhantomSettings, make_head

    folder = tmp_path_factory.mktemp("bleeding_set")
    settings = PhantomSettings(patients=400, slices=24, size=96, seed=11, prevalence=1.0)
    rows = []
    number = 0
    for patient in range(settings.patients):
        if number == BLEEDING_PATIENTS:
            break
        head = make_head(settings, patient)
        labels = head.slice_labels[:, LABELS.index("intraparenchymal")]
        if not labels.any():
            continue
        number += 1
        first = 45 if number == 3 else 0  # as two patients of the set
        gray = np.rint((np.clip(head.hu, -20, 100) + 20) * (255 / 120)).astype(np.uint8)
        np.savez_compressed(folder / f"{number:04d}.npz", gray=gray, slice=first + np.arange(len(gray)))
        texts = [str(int(label)) for label in labels]
        texts[-1] = ""
        rows += [(f"{number:04d}", place, text) for place, text in enumerate(texts, start=first)]
    pd.DataFrame(rows, columns=["patient_id", "slice", "intraparenchymal"]).to_csv(folder / "labels.csv", index=False)
    return folder
