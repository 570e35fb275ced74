"""Evidence of made-up patients, whose truth is known."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from scipy.special import expit

from ich_lstm.evaluation import evidence as sources
from ich_lstm.evaluation.evidence import ENCODER_PREFIX, LABEL_PREFIX, Evidence
from ich_lstm.labels import LABELS


@pytest.fixture(scope="session")
def make_evidence() -> Callable[..., Evidence]:
    """Patients with one scan each, of whom half have slices with a hemorrhage: of one type, or of two."""

    def make(
        *,
        patients: int = 36,
        slices: int = 12,
        noise: float = 1.0,
        encoder: bool = False,
        middle_only: bool = False,
        lonely: bool = True,
        strata: dict | None = None,
        name: str = "p",
        seed: int = 0,
        noise_seed: int = 0,
    ) -> Evidence:
        random, errors = np.random.default_rng(seed), np.random.default_rng(noise_seed)
        types = np.zeros((patients, slices, len(LABELS) - 1))
        for i in range(0, patients, 2):
            start, length = int(random.integers(slices)), int(random.integers(2, slices // 2))
            here = np.arange(slices // 3, 2 * slices // 3) if middle_only else (start + np.arange(length)) % slices
            for kind in random.permutation(types.shape[2])[: 1 + i // 2 % 2]:
                types[i, here, kind] = 1
        labels = np.concatenate([types, types.max(axis=2, keepdims=True)], axis=2)  # (patients, slices, k)
        ids = [f"{name}s{i:03}" for i in range(patients)]
        owners = [f"{name}{i:03}" if lonely else f"{name}{i // 2:03}" for i in range(patients)]
        frame = pd.DataFrame({"scan_id": np.repeat(ids, slices), "slice": np.tile(np.arange(1, slices + 1), patients)})
        frame["position_mm"] = 5.0 * frame["slice"]

        def probabilities(y: np.ndarray, spread: float) -> np.ndarray:
            return expit(4 * y - 2 + errors.normal(0, spread, y.shape))

        flat, of_scans = labels.reshape(-1, len(LABELS)), labels.max(axis=1)
        groups = {"": probabilities(flat, noise), LABEL_PREFIX: flat}
        if encoder:
            groups[ENCODER_PREFIX] = probabilities(flat, 4 * noise)
        scans = pd.DataFrame({"scan_id": ids, "patient_id": owners, **(strata or {})})
        for prefix, values in groups.items():
            frame[[prefix + label for label in LABELS]] = values
        for prefix, values in {"": probabilities(of_scans, noise), LABEL_PREFIX: of_scans}.items():
            scans[[prefix + label for label in LABELS]] = values
        source = {"kind": "test", "model": {}, "part": "", "truth": "", "counts": {}, "notes": []}
        return sources.make_evidence(frame, scans, source, is_test=True)

    return make
