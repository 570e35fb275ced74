"""The folder that a command fills."""

from pathlib import Path

import pytest

from ich_lstm.errors import ConfigError
from ich_lstm.files.output_folder import check_new_or_empty, is_new_or_empty


def test_a_missing_or_an_empty_folder_may_be_filled(tmp_path: Path) -> None:
    check_new_or_empty(tmp_path)
    check_new_or_empty(tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("name", ["notes.txt", ".hidden", "private"])
def test_whatever_lies_in_it_stops(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    with pytest.raises(ConfigError, match="out_not_empty"):
        check_new_or_empty(tmp_path)
    assert is_new_or_empty(tmp_path, apart_from=[name])


def test_a_file_of_its_name_stops(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="out_not_empty"):
        check_new_or_empty(tmp_path / "file")
