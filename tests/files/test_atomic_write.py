"""A file appears complete or not at all."""

from pathlib import Path

import pytest

from ich_lstm.files.atomic_write import SUFFIX, atomic_write, remove_unfinished, write_text


def test_an_error_leaves_the_old_file_and_nothing_of_the_new_one(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    write_text(path, "old")

    def fail() -> None:
        with atomic_write(path) as unfinished:
            unfinished.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_permissions_hold_from_the_first_byte_on(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    with atomic_write(path, mode=0o600) as unfinished:
        assert unfinished.stat().st_mode & 0o777 == 0o600
        unfinished.write_text("private")
    assert path.stat().st_mode & 0o777 == 0o600


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    kept = tmp_path / "below" / "a.txt"
    kept.parent.mkdir()
    write_text(kept, "whole")
    (kept.parent / f".a.txt.00000000{SUFFIX}").write_text("half")
    remove_unfinished(tmp_path)
    assert list(kept.parent.iterdir()) == [kept]
