"""Checkpoints are written whole or not at all, and damaged ones are recognized."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ich_lstm.errors import CheckpointError, ConfigError, StorageError
from ich_lstm.training.checkpoints.checkpoint_io import (
    BEFORE_LAST,
    LAST,
    WholeCheckpointIO,
    damage_in,
    newest_whole,
    plain,
    read_checkpoint,
)


def content(number: int) -> dict[str, Any]:
    return {"step": number, "weights": torch.full((1000,), float(number))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with two checkpoints, of steps 1 and 2."""
    for number in (1, 2):
        WholeCheckpointIO().save_checkpoint(content(number), tmp_path / LAST)
    return tmp_path


class TestWholeCheckpointIO:
    def test_gives_back_what_was_saved_and_keeps_the_two_newest(self, folder: Path) -> None:
        assert read_checkpoint(folder / LAST)["step"] == 2
        assert read_checkpoint(folder / BEFORE_LAST)["step"] == 1
        assert sorted(path.name for path in folder.iterdir()) == sorted([LAST, BEFORE_LAST])

    def test_of_other_names_only_the_newest_is_kept(self, tmp_path: Path) -> None:
        for number in (1, 2):
            WholeCheckpointIO().save_checkpoint(content(number), tmp_path / "best.ckpt")
        assert [path.name for path in tmp_path.iterdir()] == ["best.ckpt"]
        assert read_checkpoint(tmp_path / "best.ckpt")["step"] == 2

    @pytest.mark.parametrize("moment", ["save", "fsync", "replace"])
    def test_a_full_disk_while_it_is_written_leaves_the_old_ones(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, moment: str
    ) -> None:
        before = {path.name: path.read_bytes() for path in folder.iterdir()}

        def fail(*given: Any) -> None:
            if moment == "save":
                given[1].write(b"half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(torch if moment == "save" else os, moment, fail)
        with pytest.raises(StorageError, match=r"disk_full.*an older one is unchanged"):
            WholeCheckpointIO().save_checkpoint(content(3), folder / LAST)
        monkeypatch.undo()
        assert {path.name: path.read_bytes() for path in folder.iterdir() if path.name == LAST} == {LAST: before[LAST]}
        assert read_checkpoint(folder / BEFORE_LAST)["step"] in (1, 2)
        assert sorted(path.name for path in folder.iterdir()) == sorted(before)

    def test_without_links_the_former_file_is_renamed(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def no_links(*_: Any) -> None:
            raise OSError(errno.EPERM, "Operation not permitted")

        monkeypatch.setattr(os, "link", no_links)
        WholeCheckpointIO().save_checkpoint(content(3), folder / LAST)
        assert [read_checkpoint(folder / name)["step"] for name in (LAST, BEFORE_LAST)] == [3, 2]

    def test_refuses_values_that_only_code_could_read_back(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"not_plain.*checkpoint, callbacks, mine.*PosixPath"):
            WholeCheckpointIO().save_checkpoint({"callbacks": {"mine": tmp_path}}, tmp_path / LAST)
        assert list(tmp_path.iterdir()) == []

    def test_numbers_of_numpy_become_plain(self) -> None:
        assert plain({"a": [np.float64(1.5), (np.int32(2),)], "b": {3}}) == {"a": [1.5, (2,)], "b": {3}}


class TestDamage:
    @pytest.mark.parametrize("damage", ["empty", "cut in half", "cut by one byte", "a bit in the middle", "other bytes"])
    def test_is_named_and_the_other_checkpoint_is_taken(self, folder: Path, damage: str) -> None:
        path = folder / LAST
        whole = path.read_bytes()
        place = whole.index(torch.full((10,), 2.0).numpy().tobytes()) + 100
        path.write_bytes(
            {
                "empty": b"",
                "cut in half": whole[: len(whole) // 2],
                "cut by one byte": whole[:-1],
                "a bit in the middle": whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :],
                "other bytes": b"not a checkpoint" * 100,
            }[damage]
        )
        broken: list[tuple[Path, str]] = []
        assert newest_whole(folder, lambda *what: broken.append(what)) == folder / BEFORE_LAST
        assert [found for found, _ in broken] == [path]
        with pytest.raises(CheckpointError, match=r"checkpoint_damaged.*last\.ckpt"):
            read_checkpoint(path)

    def test_without_a_whole_checkpoint_there_is_none(self, folder: Path) -> None:
        for name in (LAST, BEFORE_LAST):
            (folder / name).write_bytes(b"")
        broken: list[Path] = []
        assert newest_whole(folder, lambda path, reason: broken.append(path)) is None
        assert len(broken) == 2

    def test_a_whole_file_has_none(self, folder: Path) -> None:
        assert damage_in(folder / LAST) is None
