"""A file appears complete or not at all."""

from pathlib import Path

import pytest

from ich_lstm.files.atomic_write import SUFFIX, remove_asides, write_text, written_aside


def test_an_error_leaves_the_old_file_and_nothing_of_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with written_aside(path) as aside:
            aside.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_hold_from_the_first_byte_on(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with written_aside(path, mode=0o600) as aside:
        assert aside.stat().st_mode & 0o777 == 0o600
        aside.write_text("private")
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    kept = tmp_path / "below" / "a.txt"
    kept.parent.mkdir()
    write_text(kept, "whole")
    (kept.parent / f".a.txt.00000000{SUFFIX}").write_text("half")
    remove_asides(tmp_path)
    assert list(kept.parent.iterdir()) == [kept]
