"""The list of exports: a format that is added to it reaches the command, the folder and the comparison of options."""

import json
from pathlib import Path

import pytest
from dicom_files import make_series

from ich_lstm.archive import study
from ich_lstm.archive.exports import formats
from ich_lstm.archive.exports.export import PredictedStudy
from ich_lstm.archive.exports.requirement import Requirement
from ich_lstm.archive.study import PredictOptions
from ich_lstm.cli import predict
from ich_lstm.errors import ConfigError, StudyError


class OutlineExport:
    """A format of the tests: the scan's id and its number of slices as JSON."""

    name = "outline"
    description = "an outline"
    requirement: Requirement | None = None
    is_private = False

    def write(self, study: PredictedStudy, folder: Path) -> list[Path]:
        path = folder / f"{study.prediction.scan_id}.json"
        path.write_text(json.dumps({"slices": len(study.scan)}))
        return [path]


class BrokenExport(OutlineExport):
    """A format that cannot be made of any study."""

    def write(self, study: PredictedStudy, folder: Path) -> list[Path]:
        raise StudyError("no_outline", where="the study", got="nothing to outline")


@pytest.fixture
def add(monkeypatch: pytest.MonkeyPatch):
    def add(export: OutlineExport) -> None:
        exports = (*formats.EXPORTS, export)
        for module in (formats, study, predict):
            monkeypatch.setattr(module, "EXPORTS", exports)

    return add


def command(folder: Path, model_folder: Path, *options: str) -> list[str]:
    out = str(folder / "out")
    return [str(folder / "dicom"), "--checkpoint", str(model_folder), "--out", out, "--heat-maps", "none", *options]


class TestAFurtherFormat:
    def test_is_an_option_and_writes_into_its_own_folder(self, add, model_folder: Path, tmp_path: Path):
        add(OutlineExport())
        make_series(tmp_path / "dicom")
        assert predict.main(command(tmp_path, model_folder, "--outline")) == 0
        [path] = (tmp_path / "out/outline").iterdir()
        assert json.loads(path.read_text()) == {"slices": 8}
        assert f"outline/{path.name}" not in json.loads((tmp_path / "out/manifest.json").read_text())["private"]

    def test_one_that_cannot_be_made_is_exit_code_3(
        self, add, model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ):
        add(BrokenExport())
        make_series(tmp_path / "dicom")
        assert predict.main(command(tmp_path, model_folder, "--outline")) == 3
        assert "no_outline" in "".join(capsys.readouterr())

    def test_folders_that_were_begun_before_it_go_on(self, add, model_folder: Path, tmp_path: Path):
        make_series(tmp_path / "dicom")
        assert predict.main(command(tmp_path, model_folder)) == 0
        begun = json.loads((tmp_path / "out/private/begun.json").read_text())
        assert "outline" not in begun["options"]
        add(OutlineExport())
        assert predict.main(command(tmp_path, model_folder)) == 0
        assert predict.main(command(tmp_path, model_folder, "--outline")) == 2


class TestOptions:
    def test_an_option_that_was_not_stored_had_its_default(self):
        options = PredictOptions(share_pages=True)
        stored = options.to_dict()
        assert options.is_same_as(stored)
        del stored["coherent"], stored["dicom"]
        assert options.is_same_as(stored)
        assert not PredictOptions(share_pages=True, coherent=False).is_same_as(stored)
        assert not PredictOptions(share_pages=True, exports=("dicom",)).is_same_as(stored)
        assert not PredictOptions().is_same_as(stored)

    def test_an_unknown_export_is_refused(self):
        with pytest.raises(ConfigError, match="one of dicom"):
            PredictOptions(exports=("fax",))


def test_every_format_is_in_the_help():
    for export in formats.EXPORTS:
        assert f"--{export.name}" in predict.HELP
        assert export.description.split()[0] in predict.HELP


def test_a_missing_package_is_named_with_its_extra():
    with pytest.raises(ConfigError, match=r"--outline.*outline-out"):
        Requirement("no_such_package", "outline-out").check("--outline")
