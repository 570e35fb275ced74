"""Synthetic heads that several tests look at, each made once, and the repair that readers of RSNA's files make."""

from collections.abc import Callable

import numpy as np
import pytest

from ich_lstm.labels import HEMORRHAGE_TYPES
from ich_lstm.phantom import PhantomScan, PhantomSettings, make_head
from ich_lstm.phantom.patient import Patient, draw_patient


@pytest.fixture(scope="session")
def bleeding_heads() -> list[PhantomScan]:
    """Heads that all have a hemorrhage, acute and not spoiled by anything, with the usual noise."""
    settings = PhantomSettings(seed=5, size=128, slices=16, prevalence=1.0, difficulty=0.0)
    return [make_head(settings, patient) for patient in range(24)]


@pytest.fixture(scope="session")
def hard_heads() -> list[tuple[Patient, PhantomScan]]:
    """Heads with one hemorrhage each, of any age, and with all else that makes them hard to read; without noise."""
    settings = PhantomSettings(seed=6, size=112, slices=16, prevalence=1.0, noise=0.0, difficulty=1.0)
    patients = ((number, draw_patient(settings, number)) for number in range(100))
    alone = [(number, patient) for number, patient in patients if len(patient.lesions) == 1]
    return [(patient, make_head(settings, number)) for number, patient in alone[:16]]


@pytest.fixture(scope="session")
def head_points() -> Callable[[PhantomScan, Patient], np.ndarray]:
    """Where each pixel lies in the head: ``(3, n, h, w)``, in the coordinates of `ich_lstm.phantom.anatomy.head`."""

    def find(scan: PhantomScan, patient: Patient) -> np.ndarray:
        whole = (slice(0, scan.hu.shape[1]), slice(0, scan.hu.shape[2]))
        slabs = [scan.acquisition.slab(i, patient.head, whole) for i in range(len(scan.hu))]
        return np.stack([np.stack([part.mean(axis=0) for part in slab.points]) for slab in slabs], axis=1)

    return find


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
    """A head without hemorrhage, without noise, and with nothing that spoils it."""
    return make_head(PhantomSettings(seed=5, size=192, slices=24, prevalence=0.0, noise=0.0, difficulty=0.0), 0)


@pytest.fixture(scope="session")
def repair() -> Callable[[np.ndarray], np.ndarray]:
    """From the stored values of wrapped files to HU: add 1000, subtract 4096 from 4096 on, intercept -1000."""

    def mend(stored: np.ndarray) -> np.ndarray:
        values = stored.astype(np.int32) + 1000
        values[values >= 4096] -= 4096
        return values - 1000

    return mend
