"""A small model on disk, for the commands that need one."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an untrained model."""
    import torch

    from ich_lstm import ScanClassifier
    from ich_lstm.preprocessing.crop_and_resize import Preprocessing

    torch.manual_seed(0)
    classifier = ScanClassifier(backbone="test_resnet", pretrained=False, hidden_size=8)
    classifier.preprocessing = Preprocessing(size=32)
    folder = tmp_path_factory.mktemp("model")
    classifier.save_pretrained(folder)
    return folder
