"""What commands write: private files are their owner's alone, and no text of a header does harm in a table or on a terminal."""

import csv
import os
import stat
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from dicom_files import make_series

from ich_lstm.cli import predict, prepare
from ich_lstm.files.csv_table import plain_table

HOSTILE = {
    "SeriesDescription": "=HYPERLINK(1) [red]",
    "PatientID": "@SUM(1+1)",
    "AccessionNumber": "-1+1|cmd",
    "StudyDescription": "+HEAD\u202egpj",
    "InstitutionName": "\x1b]0;owned\x07\x1b[2J",
    "ConvolutionKernel": "=H30",
}
"""Elements of a header that a spreadsheet or a terminal would obey."""

FOLDER = "=cmd \x1b[2J\u202e\n[bold]"

CONTROLS = "\x1b\x07\x9b\u202e\u2066"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three studies whose headers and folders hold formulas, escape sequences and markup; the last one cannot be read."""
    folder = tmp_path_factory.mktemp("hostile") / FOLDER
    for number in range(3):
        uid = f"1.2.3.{number}"
        elements: dict[str, Any] = HOSTILE | {"PatientID": f"{HOSTILE['PatientID']}{number}"}
        more: dict[str, Any] = {"StudyInstanceUID": uid, "SeriesInstanceUID": f"{uid}.1", "SpecificCharacterSet": "ISO_IR 192"}
        paths = make_series(folder / f"-{number}", **elements, **more)
    paths[3].write_bytes(paths[3].read_bytes()[:-500])
    return folder


def cells_of(folder: Path) -> Iterator[tuple[Path, str]]:
    """Every cell of every CSV below a folder."""
    for path in sorted(folder.rglob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            yield from ((path, cell) for row in csv.reader(file) for cell in row)


def check_tables(folder: Path) -> list[str]:
    """No cell is a formula or has a control character; returns the names of the tables."""
    cells = list(cells_of(folder))
    for path, cell in cells:
        assert cell.isprintable(), (path.name, cell)
        if cell[:1] in tuple("=+-@\t\r") and len(cell) > 1:
            float(cell)  # a number
    return sorted({path.relative_to(folder).as_posix() for path, _ in cells})


def open_to_others(folder: Path) -> list[Path]:
    """What lies in a private folder, or is one, and can be accessed by others."""
    private = [path for path in folder.rglob("*") if "private" in path.relative_to(folder).parts and not path.is_symlink()]
    assert private
    return [path for path in private if stat.S_IMODE(path.stat().st_mode) != (0o700 if path.is_dir() else 0o600)]


@pytest.fixture(params=[0o000, 0o022, 0o077], ids=oct)
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    former = os.umask(request.param)
    yield request.param
    os.umask(former)


class TestPredict:
    def test_tables_terminal_and_pages(
        self, hostile: Path, model_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        out = tmp_path / "out"
        arguments = [str(hostile), "--checkpoint", str(model_folder), "--out", str(out), "--identify"]
        assert predict.main(arguments) == 3
        shown = capfd.readouterr()
        for text in (shown.out, shown.err):
            assert not set(text) & set(CONTROLS)
        tables = check_tables(out)
        assert {"private/ledger.csv", "private/series.csv", "private/worklist.csv", "private/key.csv", "scans.csv"} <= set(tables)
        for page in out.rglob("*.html"):
            assert not set(page.read_text(encoding="utf-8")) & set(CONTROLS)
        worklist = plain_table(pd.read_csv(out / "private/worklist.csv", dtype=str))
        assert sorted(worklist["patient_id"]) == [f"{HOSTILE['PatientID']}{number}" for number in range(3)]
        assert set(worklist["accession_number"]) == {HOSTILE["AccessionNumber"]}
        # The ledger of a second command merges that of the first, which it must read back.
        ledger = (out / "private/ledger.csv").read_bytes()
        assert predict.main(arguments) == 3
        assert (out / "private/ledger.csv").read_bytes() == ledger
        paths = plain_table(pd.read_csv(out / "private/ledger.csv", dtype=str))["path"]
        assert len(paths) == 24
        assert all(Path(path).is_file() for path in paths)

    def test_errors(self, model_folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
        missing = tmp_path / "a\x1b[2J\u202eb\n[red]c"
        for more in ([], ["--debug"]):
            assert predict.main([str(missing), "--checkpoint", str(model_folder), "--out", str(tmp_path / "out"), *more]) == 1
            assert predict.main([str(missing), "--checkpoint", str(missing), "--out", str(tmp_path / "other"), *more]) == 1
        shown = capfd.readouterr()
        assert "[red]c" in shown.out + shown.err
        assert not set(shown.out + shown.err) & set(CONTROLS)

    def test_modes(self, hostile: Path, model_folder: Path, tmp_path: Path, umask: int) -> None:
        out = tmp_path / "out"
        assert predict.main([str(hostile), "--checkpoint", str(model_folder), "--out", str(out), "--share-pages"]) == 3
        assert open_to_others(out) == []
        assert stat.S_IMODE((out / "scans.csv").stat().st_mode) == 0o666 & ~umask

    def test_files_of_an_earlier_version(self, hostile: Path, model_folder: Path, tmp_path: Path) -> None:
        out = tmp_path / "out"
        arguments = [str(hostile), "--checkpoint", str(model_folder), "--out", str(out)]
        assert predict.main(arguments) == 3
        for path in (out / "private").rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        assert predict.main(arguments) == 3
        assert open_to_others(out) == []


class TestPrepare:
    def test_tables_and_modes(self, hostile: Path, tmp_path: Path, umask: int, capfd: pytest.CaptureFixture[str]) -> None:
        out = tmp_path / "out"
        assert prepare.main([str(hostile), "--out", str(out), "--size", "32"]) == 3
        assert not set("".join(capfd.readouterr())) & set(CONTROLS)
        assert {"private/ledger.csv", "private/series.csv"} <= set(check_tables(out))
        assert open_to_others(out) == []

    def test_labels_find_hostile_patients(self, hostile: Path, tmp_path: Path) -> None:
        """A table made from the library's own tables, with its quoted ids, names the same studies."""
        labels = pd.DataFrame({"study_uid": [f"1.2.3.{number}" for number in range(3)], "any": [0, 1, 0]})
        labels.to_csv(tmp_path / "labels.csv", index=False)
        arguments = [str(hostile), "--labels", str(tmp_path / "labels.csv"), "--out", str(tmp_path / "out"), "--size", "32"]
        assert prepare.main(arguments) in (0, 1, 3)
        check_tables(tmp_path / "out")


IMPORTED = """
    print("imported:", [name for name in ("wandb", "tensorboard", "tensorboardX") if sys.modules.get(name)])
"""

TRAIN = """
    from ich_lstm.cli import train
    arguments = ["--config=demo", "--out=run", "--phantom.patients=6", "--phantom.slices=8", "--phantom.size=64"]
    arguments += ["--phantom.prevalence=0.6", "--data.preprocessing.size=32", "--data.batches.slices=24"]
    arguments += ["--trainer.accelerator=cpu", "--trainer.max_epochs=1", "--model.encoder.backbone=test_resnet"]
    arguments += ["--model.encoder.global_pool=null", "--model.head.hidden_size=8", "--data.num_workers={workers}"]
    assert train.main(arguments) == 0
"""

FIT = """
    from fabricated import make_classifier
    from pytorch_lightning import Trainer
    from ich_lstm import ScanClassifier
    Trainer(accelerator="cpu", max_epochs=1, enable_progress_bar=False)
    make_classifier().save_pretrained("model")
    ScanClassifier.load("model")
"""

HELP = """
    from contextlib import suppress
    from ich_lstm.cli import train
    with suppress(SystemExit):
        train.main(["--help=full"])
"""


@pytest.fixture
def temporary() -> Iterator[Path]:
    """A temporary folder with a short path, because the sockets of loader processes lie in it."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.mark.parametrize(
    "code",
    [
        TRAIN.replace("{workers}", "0"),
        pytest.param(TRAIN.replace("{workers}", "2"), marks=pytest.mark.slow),
        FIT,
        pytest.param(HELP, marks=pytest.mark.slow),
        "import ich_lstm\nich_lstm.ScanClassifier\n",
    ],
    ids=["train", "train with workers", "Python", "help", "import"],
)
def test_wandb_is_imported_only_if_asked_for_and_nothing_stays_in_the_temporary_folder(
    code: str, tmp_path: Path, temporary: Path
) -> None:
    script = tmp_path / "script.py"
    body = textwrap.indent(textwrap.dedent(code) + textwrap.dedent(IMPORTED), "    ")
    script.write_text(f"import sys\n\nif __name__ == '__main__':\n{body}")  # loader processes import it too
    environment = {
        **os.environ,
        "TMPDIR": str(temporary),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "compiled"),  # torch makes this folder as soon as it is imported
        "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent.parent), *sys.path]),
    }
    done = subprocess.run(
        [sys.executable, str(script)], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "imported: []"
    assert list(temporary.iterdir()) == []


def test_numbers_are_numbers(hostile: Path, model_folder: Path, tmp_path: Path) -> None:
    """Negative positions stay numbers, to the last digit."""
    out = tmp_path / "out"
    assert predict.main([str(hostile), "--checkpoint", str(model_folder), "--out", str(out)]) == 3
    slices = pd.read_csv(out / "slices.csv")
    assert slices["position_mm"].dtype == np.float64
    assert (slices["position_mm"] < 0).any()
