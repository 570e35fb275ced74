"""What all commands share."""

import pytest
import torch

from ich_lstm.cli.console import choose_device
from ich_lstm.errors import ConfigError


@pytest.mark.parametrize(("given", "has_gpu", "device"), [(None, True, "cuda"), (None, False, "cpu"), ("cpu", True, "cpu")])
def test_a_gpu_is_taken_if_there_is_one_and_nothing_else_was_asked_for(
    given: str | None, has_gpu: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    assert choose_device(given) == device


def test_a_gpu_that_is_not_there_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no_gpu"):
        choose_device("cuda")
