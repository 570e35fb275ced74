"""The project's key, the ids it makes, and the private folder."""

import os
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ich_lstm.errors import ConfigError
from ich_lstm.files.atomic_write import atomic_write, write_text
from ich_lstm.files.folder_lock import claimed
from ich_lstm.privacy import ProjectKey, close_to_others, closed_to_others, is_private, make_folder, private_folder


@pytest.fixture(params=[0o000, 0o002, 0o022, 0o077, 0o177], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    former = os.umask(request.param)
    yield request.param
    os.umask(former)


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
        path.chmod(0o600)
        assert ProjectKey.open(path).hash_id("x") == ProjectKey(bytes(32)).hash_id("x")

    @pytest.mark.parametrize("others", [0o644, 0o666, 0o640, 0o604, 0o620])
    def test_a_key_that_others_can_access_is_refused(self, tmp_path: Path, others: int) -> None:
        path = tmp_path / "project key"
        ProjectKey.open(path)
        path.chmod(others)
        with pytest.raises(ConfigError, match=f"chmod 600 '{path}'") as caught:
            ProjectKey.open(path)
        assert caught.value.code == "project_key_readable"
        path.chmod(0o400)
        ProjectKey.open(path)

    def test_is_its_owner_s_whatever_the_umask(self, tmp_path: Path, umask: int) -> None:
        path = tmp_path / "project.key"
        ProjectKey.open(path)
        assert mode(path) == 0o600

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


class TestModes:
    """What lies below a private folder is its owner's alone, whatever the umask; other files follow the umask."""

    def test_files_and_folders(self, tmp_path: Path, umask: int) -> None:
        run = tmp_path / "run"
        run.mkdir()
        run.chmod(0o755)
        folder = make_folder(private_folder(run) / "pages" / "deep")
        write_text(folder / "a.html", "private")
        write_text(run / "b.html", "shareable")
        with atomic_write(folder / "c") as unfinished:
            assert mode(unfinished) == 0o600  # before the first byte
            unfinished.write_text("private")
        with claimed(folder / "lock", when_taken=print):
            assert mode(folder / "lock") == 0o600 & ~umask
        assert {mode(path) for path in (folder, folder.parent, folder.parent.parent)} == {0o700}
        assert {mode(folder / name) for name in ("a.html", "c")} == {0o600}
        assert mode(run / "b.html") == 0o666 & ~umask

    def test_of_other_libraries(self, tmp_path: Path, umask: int) -> None:
        folder = make_folder(private_folder(tmp_path) / "wandb")
        with closed_to_others():
            (folder / "log").mkdir()
            (folder / "log" / "a.txt").write_text("private")
        assert mode(folder / "log") & 0o077 == mode(folder / "log" / "a.txt") & 0o077 == 0
        (tmp_path / "after").write_text("")
        assert mode(tmp_path / "after") == 0o666 & ~umask

    def test_of_earlier_versions(self, tmp_path: Path) -> None:
        old = tmp_path / "private"
        (old / "pages").mkdir(parents=True)
        (old / "pages" / "a.html").write_text("private")
        (old / "link").symlink_to(tmp_path)
        for path, others in ((tmp_path, 0o755), (old / "pages", 0o755), (old / "pages" / "a.html", 0o644)):
            path.chmod(others)
        close_to_others(old)
        assert mode(old / "pages") == 0o700
        assert mode(old / "pages" / "a.html") == 0o600
        assert mode(tmp_path) == 0o755  # a link leads out of the folder

    @pytest.mark.parametrize("others", [0o755, 0o770, 0o750])
    def test_a_shared_folder_that_is_called_private_is_not(self, tmp_path: Path, others: int) -> None:
        shared = tmp_path / "private"
        shared.mkdir()
        shared.chmod(others)
        assert not is_private(shared / "runs" / "model.json")
        assert is_private(private_folder(shared / "run") / "split.json")
