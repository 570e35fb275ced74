"""Synthetic heads that several tests look at, each made once, and the repair that readers of RSNA's files make."""

from collections.abc import Callable

import numpy as np
import pytest

from ich_lstm.labels import HEMORRHAGE_TYPES
from ich_lstm.phantom import PhantomScan, PhantomSettings, make_head


@pytest.fixture(scope="session")
def bleeding_heads() -> list[PhantomScan]:
    """Heads that all have a hemorrhage, with the usual noise."""
    return [make_head(PhantomSettings(seed=5, size=128, slices=16, prevalence=1.0), patient) for patient in range(24)]


@pytest.fixture(scope="session")
def heads_with(bleeding_heads) -> Callable[[str], list[PhantomScan]]:
    """The heads in which a type can be seen."""

    def find(kind: str) -> list[PhantomScan]:
        found = [head for head in bleeding_heads if head.slice_labels[:, HEMORRHAGE_TYPES.index(kind)].any()]
        assert found, f"no head with {kind} blood among {len(bleeding_heads)}"
        return found

    return find


@pytest.fixture(scope="session")
def clean_head() -> PhantomScan:
    """A head without hemorrhage and without noise."""
    return make_head(PhantomSettings(seed=5, size=192, slices=24, prevalence=0.0, noise=0.0), 0)


@pytest.fixture(scope="session")
def repair() -> Callable[[np.ndarray], np.ndarray]:
    """From the stored values of wrapped files to HU: add 1000, subtract 4096 from 4096 on, intercept -1000."""

    def mend(stored: np.ndarray) -> np.ndarray:
        values = stored.astype(np.int32) + 1000
        values[values >= 4096] -= 4096
        return values - 1000

    return mend
