import shutil
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from ich_lstm.errors import ConfigError
from ich_lstm.phantom import LAYOUTS, Cq500Layout, HospitalLayout, Layout, PhantomSettings, RsnaLayout, write_phantom

SETTINGS = PhantomSettings(patients=6, slices=8, size=48, seed=11, prevalence=0.8)

SMALL = PhantomSettings(patients=2, slices=8, size=48, seed=11, prevalence=1.0, masks=True)

FULL_LAYOUTS: dict[str, Layout] = {
    "rsna": RsnaLayout(test_patients=1, repeated_rows=True, truncated_file=True, other_matrix=True),
    "cq500": Cq500Layout(thin_mm=1.9, boxes=True, nested=True),
    "cq500 archives": Cq500Layout(thin_every=0, archives=True),
    "ct-ich": LAYOUTS["ct-ich"](),
    "hospital": HospitalLayout(most_studies=2, slice_rows=True),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_phantom(SETTINGS, tmp_path_factory.mktemp("one") / "rsna", workers=1)


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Callable[[str], tuple[Path, dict[str, bytes]]]:
    """A small set in one of `FULL_LAYOUTS`, written once by one worker: its folder and its files. To be left as it is."""

    @cache
    def write(name: str) -> tuple[Path, dict[str, bytes]]:
        folder = write_phantom(SMALL, tmp_path_factory.mktemp("small") / "set", layout=FULL_LAYOUTS[name], workers=1)
        return folder, bytes_of(folder)

    return write


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class TestWriting:
    @pytest.mark.parametrize("name", ["rsna", "cq500 archives"])
    def test_the_number_of_workers_changes_no_byte(self, name, written, tmp_path):
        done: list[int] = []
        layout = FULL_LAYOUTS[name]
        two = write_phantom(SMALL, tmp_path / "two", layout=layout, workers=2, progress=done.append)
        assert written(name)[1] == bytes_of(two)
        assert sum(done) == layout.patients(SMALL)

    def test_the_same_set_is_left_alone(self, folder):
        before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
        done: list[int] = []
        assert write_phantom(SETTINGS, folder, workers=1, progress=done.append) == folder
        assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
        assert sum(done) == SETTINGS.patients

    def test_a_set_from_which_a_file_was_lost_is_written_again(self, tmp_path):
        small = PhantomSettings(patients=1, slices=8, size=48)
        target = write_phantom(small, tmp_path / "set", workers=1)
        whole = bytes_of(target)
        next((target / "stage_2_train").iterdir()).unlink()
        assert bytes_of(write_phantom(small, target, workers=1)) == whole

    def test_a_folder_with_other_things_is_refused_and_not_touched(self, tmp_path):
        (tmp_path / "thesis.txt").write_text("mine")
        with pytest.raises(ConfigError, match="phantom_folder_not_empty"):
            write_phantom(SETTINGS, tmp_path, workers=1)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]

    def test_a_phantom_with_other_settings_is_refused(self, folder):
        other = PhantomSettings(patients=7, slices=8, size=48, seed=11, prevalence=0.8)
        with pytest.raises(ConfigError, match="other settings"):
            write_phantom(other, folder, workers=1)

    def test_no_workers_are_refused(self, tmp_path):
        with pytest.raises(ConfigError, match="workers"):
            write_phantom(SETTINGS, tmp_path / "new", workers=0)
        assert not (tmp_path / "new").exists()

    def test_a_set_begun_in_another_layout_is_refused(self, folder):
        with pytest.raises(ConfigError, match="other settings"):
            write_phantom(SETTINGS, folder, layout=RsnaLayout(repeated_rows=True), workers=1)

    def test_a_patient_does_not_depend_on_the_others(self, folder, tmp_path):
        fewer = PhantomSettings(patients=2, slices=8, size=48, seed=11, prevalence=0.8)
        other = bytes_of(write_phantom(fewer, tmp_path / "set", workers=1))
        images = {name: content for name, content in other.items() if name.endswith(".dcm")}
        assert len(images) == 16
        assert images.items() <= bytes_of(folder).items()


@pytest.mark.parametrize("name", FULL_LAYOUTS)
def test_every_layout_gives_the_same_bytes_again(name: str, written, tmp_path: Path) -> None:
    layout = FULL_LAYOUTS[name]
    folder, content = written(name)
    assert layout.labels in content
    assert any(path.startswith("masks/") for path in content)
    # Every file but the marker is counted: a set from which one is taken is written again.
    copy = shutil.copytree(folder, tmp_path / "set")
    (copy / max(path for path in content if path != "phantom.json")).unlink()
    assert bytes_of(write_phantom(SMALL, copy, layout=layout, workers=1)) == content


def test_another_seed_gives_other_tables(tmp_path: Path) -> None:
    layout = Cq500Layout(thin_every=0)
    settings = [PhantomSettings(patients=3, slices=8, size=48, seed=seed, prevalence=0.9) for seed in (1, 2)]
    sets = [bytes_of(write_phantom(one, tmp_path / str(one.seed), layout=layout, workers=1)) for one in settings]
    assert sets[0]["reads.csv"] != sets[1]["reads.csv"]
    assert sets[0].keys() == sets[1].keys()


def test_archives_carry_no_time(tmp_path: Path) -> None:
    folder = write_phantom(SMALL, tmp_path / "set", layout=Cq500Layout(archives=True, thin_every=0), workers=1)
    with zipfile.ZipFile(folder / "CQ500-CT-1.zip") as archive:
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}
