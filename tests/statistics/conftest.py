"""Vectors that all statistics are held against, and cases to try them on."""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import pytest
import sklearn
from metric_vectors import VECTORS


class Study(NamedTuple):
    labels: np.ndarray
    probabilities: np.ndarray
    patients: np.ndarray


@pytest.fixture(scope="session")
def vectors() -> dict:
    return VECTORS


@pytest.fixture(scope="session")
def two_models(vectors: dict) -> dict:
    return {name: np.array(values) if name in ("y", "s1", "s2") else values for name, values in vectors["two_models"].items()}


@pytest.fixture
def fast_sklearn() -> Iterator[None]:
    """Scikit-learn's checks of its arguments take longer than its answers."""
    with sklearn.config_context(skip_parameter_validation=True, assume_finite=True):
        yield


@pytest.fixture(scope="session")
def make_study() -> Callable[..., Study]:
    """Slices of patients, alike within a patient."""

    def make(
        *, patients: int = 60, slices: int = 8, labels: int = 1, ties: int | None = None, unknown: float = 0, seed: int = 0
    ) -> Study:
        random = np.random.default_rng(seed)
        patient = np.repeat(np.arange(patients), slices)
        logits = random.normal(-0.7, 1.5, (patients, labels))[patient] + random.normal(size=(len(patient), labels))
        y = (random.random(logits.shape) < 1 / (1 + np.exp(-logits))).astype(float)
        p = 1 / (1 + np.exp(-logits - random.normal(0, 0.5, logits.shape)))
        y[random.random(y.shape) < unknown] = np.nan
        return Study(y, p if ties is None else np.round(p * ties) / ties, patient)

    return make


@pytest.fixture(scope="session")
def small_cases() -> list[tuple[np.ndarray, np.ndarray]]:
    """600 pairs of labels and probabilities: 1 to 40 cases, many ties, some of one class."""
    random = np.random.default_rng(0)
    sizes = random.integers(1, 41, 600)
    return [(random.integers(0, 2, n).astype(float), random.integers(0, random.integers(2, 30), n) / 30) for n in sizes]
