"""What all tests share: the modules beside this file, such as ``dicom_files``, can be imported from any folder."""

import gc
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

# Before torch is imported: the tests' networks are so small that a second thread costs more than it brings.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# Before albumentations is imported: it asks a server for its newest version.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")

PHANTOM = {"patients": 6, "slices": 12, "size": 64, "seed": 3, "prevalence": 0.5}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collecting makes thousands of tests and throws nothing away: to look for garbage meanwhile takes a quarter of its time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


@pytest.fixture(scope="session", autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A home of the tests' own: the user's key and cache are never read and never written."""
    folder = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        for name in ("CONFIG", "CACHE", "DATA", "STATE"):
            patch.setenv(f"XDG_{name}_HOME", str(folder / name.lower()))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def exact_engine() -> Iterator[None]:
    """Predictions by torch in float32, whatever the machine has, so that they can be compared to the last bits.

    The tests of the engines themselves choose others.
    """
    from ich_lstm.inference.engines import choose

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(choose, "has_openvino", lambda: False)
        patch.setattr(choose, "has_bfloat16", lambda device_type: False)
        yield


@pytest.fixture(scope="session")
def phantom_settings():
    """Settings of `phantom`: six patients, three of them with a hemorrhage."""
    from ich_lstm.phantom import PhantomSettings

    return PhantomSettings(**PHANTOM)


@pytest.fixture(scope="session")
def phantom(phantom_settings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Small synthetic scans as DICOM in RSNA's layout; not to be written into."""
    from ich_lstm.phantom import write_phantom

    return write_phantom(phantom_settings, tmp_path_factory.mktemp("phantom"), workers=1)


@pytest.fixture(scope="session")
def heads(phantom_settings):
    """The truth about `phantom`, one head per patient, without a detour through files."""
    from ich_lstm.phantom import make_head

    return [make_head(phantom_settings, patient) for patient in range(phantom_settings.patients)]


@pytest.fixture(scope="session")
def project_key():
    """A key that is the same in every run."""
    from ich_lstm.privacy import ProjectKey

    return ProjectKey(bytes(range(32)))


@pytest.fixture(scope="session")
def prepared(phantom: Path, project_key, tmp_path_factory: pytest.TempPathFactory):
    """`phantom`, prepared at 32 pixels with all its labels; not to be written into."""
    from ich_lstm.data.labels.table import read_label_table
    from ich_lstm.data.prepare.prepare import prepare
    from ich_lstm.preprocessing.crop_and_resize import Preprocessing

    return prepare(
        phantom,
        tmp_path_factory.mktemp("prepared"),
        preprocessing=Preprocessing(size=32),
        key=project_key,
        labels=read_label_table(phantom / "stage_2_train.csv"),
        workers=1,
    )


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real CT files beside the checkout."""
    from shared_files import DATA as folder

    if not folder.is_dir():
        pytest.skip("the real CT files are not beside this checkout")
    return folder
