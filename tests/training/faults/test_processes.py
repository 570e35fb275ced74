"""What the processes of a training say to each other, and how they part."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from ich_lstm.cli.training import fit
from ich_lstm.training.checkpoints.interruption import Interrupted
from ich_lstm.training.faults.processes import leave_processes


@pytest.fixture
def connected(tmp_path: Path) -> Iterator[None]:
    """A connection of this process with itself."""
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'store'}", rank=0, world_size=1)
    yield
    leave_processes()


def test_a_process_that_is_alone_leaves_nobody() -> None:
    leave_processes()


@pytest.mark.usefixtures("connected")
def test_a_finished_training_disconnects(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit, "_run_training", lambda *given: 0)
    assert fit.run_training("rsna", [], None) == 0
    assert not torch.distributed.is_initialized()


@pytest.mark.usefixtures("connected")
@pytest.mark.parametrize("is_saved", [True, False])
def test_a_stopped_training_disconnects_if_all_have_stopped_together(
    is_saved: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> int:
        raise Interrupted(15, tmp_path / "last.ckpt" if is_saved else None)

    monkeypatch.setattr(fit, "_run_training", stop)
    assert fit.run_training("rsna", [], None) == 143
    assert torch.distributed.is_initialized() == (not is_saved)
