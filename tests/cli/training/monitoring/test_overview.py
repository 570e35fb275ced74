"""What ich-train says and checks before the first step."""

import os
from pathlib import Path

import pytest
import torch
from fabricated import make_classifier

from ich_lstm.cli.training.monitoring import overview
from ich_lstm.cli.training.monitoring.overview import FILES, check_room, room_for
from ich_lstm.errors import StorageError
from ich_lstm.training.stages import Stage

SLICES = {"train": 1000, "validation": 100, "test": 100}


def stages(*emas: float | None) -> list[Stage]:
    return [Stage(name=f"s{i}", max_epochs=1, changes={"ema": ema}) for i, ema in enumerate(emas)]


class TestRoom:
    def test_a_checkpoint_takes_no_more_than_estimated(self, tmp_path: Path) -> None:
        classifier = make_classifier()
        optimizer = torch.optim.AdamW(classifier.parameters())
        for parameter in classifier.parameters():
            parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        torch.save({"state_dict": classifier.state_dict(), "optimizer_states": [optimizer.state_dict()]}, tmp_path / "one.ckpt")
        one = (tmp_path / "one.ckpt").stat().st_size
        of_a_checkpoint = (room_for(classifier, stages(None)) - room_for(classifier, [])) / (FILES + 1)
        assert 0.8 * one < of_a_checkpoint < 1.2 * one

    def test_grows_with_stages_and_averages(self) -> None:
        classifier = make_classifier()
        one, averaged, two = (room_for(classifier, stages(*emas)) for emas in ((None,), (0.9,), (None, None)))
        assert one < averaged < two

    @pytest.mark.parametrize("free", [0, 1 << 10, 1 << 20])
    def test_too_little_is_said_before_anything_is_trained(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int
    ) -> None:
        status = os.statvfs(tmp_path)
        full = os.statvfs_result([status.f_bsize, 1, free, free, free, *tuple(status)[5:]])
        monkeypatch.setattr(overview.os, "statvfs", lambda folder: full)
        with pytest.raises(StorageError, match=r"disk_full.*expected about .* for checkpoints"):
            check_room(tmp_path, make_classifier(), stages(None), SLICES)

    def test_enough_is_enough(self, tmp_path: Path) -> None:
        check_room(tmp_path, make_classifier(), stages(None), SLICES)
