"""The project's key, the ids it makes, and the private folder."""

import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ich_lstm.errors import ConfigError
from ich_lstm.privacy import ProjectKey, private_folder


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


class TestProjectKey:
    def test_made_once_for_its_owner_alone(self, tmp_path: Path) -> None:
        path = tmp_path / "deep" / "project.key"
        first = ProjectKey.open(path)
        assert mode(path) == 0o600
        assert ProjectKey.open(path).hash_id("1.2.3") == first.hash_id("1.2.3")
        assert [file.name for file in path.parent.iterdir()] == ["project.key"]

    def test_default_lies_in_the_user_s_configuration(self, home: Path) -> None:
        ProjectKey.open()
        assert list(home.rglob("project.key"))

    def test_ids_are_stable_and_hide_the_identifier(self) -> None:
        key = ProjectKey(bytes(range(32)))
        # HMAC-SHA256, computed elsewhere: another id would part all predictions that exist from their tables.
        assert key.hash_id("1.2.840.1") == "d25ba188eba8ea45"
        assert key.hash_id("1.2.840.1") != key.hash_id("1.2.840.2")
        assert "840" not in repr(key)

    def test_two_keys_give_other_ids(self, tmp_path: Path) -> None:
        one, two = ProjectKey.open(tmp_path / "a"), ProjectKey.open(tmp_path / "b")
        assert one.hash_id("1.2.3") != two.hash_id("1.2.3")

    def test_any_text_has_an_id(self) -> None:
        key = ProjectKey(bytes(range(32)))
        # File names that are no UTF-8 come as lone surrogates.
        assert len({key.hash_id(text) for text in ("", "Müller", "a\udcff", "a\ud800")}) == 4

    def test_all_of_a_race_get_one_key(self, tmp_path: Path) -> None:
        path = tmp_path / "project.key"
        with ThreadPoolExecutor(16) as pool:
            ids = set(pool.map(lambda _: ProjectKey.open(path).hash_id("1.2.3"), range(64)))
        assert len(ids) == 1
        assert [file.name for file in tmp_path.iterdir()] == ["project.key"]

    def test_a_line_end_does_no_harm(self, tmp_path: Path) -> None:
        path = tmp_path / "project.key"
        path.write_text("00" * 32 + "\n")
        assert ProjectKey.open(path).hash_id("x") == ProjectKey(bytes(32)).hash_id("x")

    @pytest.mark.parametrize("content", [b"", b"abc", b"00" * 31, b"zz" * 32, b"\xff\xfe" * 32], ids=repr)
    def test_a_damaged_file_is_refused_and_left(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "project.key"
        path.write_bytes(content)
        with pytest.raises(ConfigError) as caught:
            ProjectKey.open(path)
        assert caught.value.where == str(path)
        assert path.read_bytes() == content

    def test_a_place_that_cannot_be_written_is_refused(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_text("")
        with pytest.raises(ConfigError):
            ProjectKey.open(tmp_path / "file" / "project.key")
        with pytest.raises(ConfigError):
            ProjectKey.open(tmp_path)


def test_private_folder_is_closed_to_others(tmp_path: Path) -> None:
    folder = private_folder(tmp_path / "run")
    assert folder == tmp_path / "run" / "private"
    assert mode(folder) == 0o700
    folder.chmod(0o755)
    assert mode(private_folder(tmp_path / "run")) == 0o700
