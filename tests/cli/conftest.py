"""What tests of several commands need."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained model."""
    from fabricated import make_classifier

    classifier = make_classifier()
    folder = tmp_path_factory.mktemp("model")
    classifier.save_pretrained(folder)
    return folder


@pytest.fixture
def one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine of one core, on which a command starts no process to make or load data: each costs more than its work here.

    Further processes change nothing, as `phantom/test_write.py` and `data/loading/test_loader.py` hold.
    """
    monkeypatch.setattr(os, "cpu_count", lambda: 1)
    if hasattr(os, "sched_getaffinity"):
        monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0})
