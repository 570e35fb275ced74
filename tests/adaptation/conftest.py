"""A small site: synthetic heads, and a model that was not trained on them."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from fabricated import make_classifier

from ich_lstm import ScanClassifier, ScanDataModule
from ich_lstm.phantom import PhantomSettings, write_phantom


@pytest.fixture(scope="session")
def site_heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 patients, half of them with a hemorrhage; not to be written into."""
    settings = PhantomSettings(patients=24, slices=8, size=64, seed=11, prevalence=0.5)
    return write_phantom(settings, tmp_path_factory.mktemp("site"), workers=1)


@pytest.fixture(scope="session")
def site_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("site-cache")


@pytest.fixture
def site_data(site_heads: Path, site_cache: Path) -> Callable[..., ScanDataModule]:
    """The data of the site at 32 pixels, prepared once."""
    return lambda **settings: ScanDataModule(site_heads, cache_dir=site_cache / "prepared", num_workers=0, **settings)


@pytest.fixture
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head is trained for a moment only."""
    monkeypatch.setattr("ich_lstm.adaptation.comparing.candidates.FEWEST_STEPS", 30)


@pytest.fixture
def stranger() -> ScanClassifier:
    """A model from elsewhere that records its training."""
    model = make_classifier(seed=3)
    with torch.no_grad():  # it calls everything positive
        model.model.gate.zero_()
        model.model.sequence_classifier.bias += 4
    counts = dict.fromkeys(("epidural", "intraparenchymal", "intraventricular", "subarachnoid", "subdural", "any"), 40)
    model.training_data = {
        "patients": 100,
        "scans": 100,
        "slices": 3000,
        "positive_slices": {label: 10 * count for label, count in counts.items()},
        "positive_scans": counts,
        "known_slice_labels": 1.0,
        "known_scan_labels": 1.0,
        "synthetic": True,
    }
    model.is_synthetic = True
    return model.eval()
