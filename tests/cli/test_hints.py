"""What an error tells to do, the command that printed it accepts, and it helps."""

import ast
import re
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pydicom
import pytest
from prediction_files import label_text, make_tables, write_predictions

import ich_lstm
from ich_lstm.cli import adapt, evaluate, predict, prepare, train
from ich_lstm.cli.console import OptionParser
from ich_lstm.cli.training.configuration import make_parser
from ich_lstm.data.datamodule import ScanDataModule
from ich_lstm.errors import ConfigError
from ich_lstm.labels import LABELS
from ich_lstm.phantom import PhantomSettings, write_phantom
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.privacy import ProjectKey

PACKAGE = Path(ich_lstm.__file__).parent

HINT = re.compile(r"(--[a-z][\w.-]*\w)(?: (stop|labels|images|both|unknown|study|trusted|true))?")
SETTING = re.compile(r"\[([a-z_]+)=[^\]]+\]")

COMMANDS = {"ich-prepare": prepare, "ich-predict": predict, "ich-evaluate": evaluate, "ich-adapt": adapt}


def options_of(command: str) -> set[str]:
    """All options that a command knows."""
    if command == "ich-train":
        keys = {f"--{action.dest}" for action in make_parser({})._actions}
        return keys | set(re.findall(r"--[a-z][\w.]*", train.HELP))
    known: set[str] = set()

    def parse(parser: OptionParser, arguments: Any) -> Any:
        known.update(parser._option_string_actions)
        raise ConfigError("stopped", where="", got="")

    with patch.object(OptionParser, "parse", parse):
        COMMANDS[command].main([])
    return known


def texts_of(path: Path) -> list[str]:
    """All texts in a module that are no docstrings; of those with values in them, what stands around the values."""
    tree = ast.parse(path.read_text())
    aside = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    aside |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    texts = []
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            texts.append("".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in aside:
            texts.append(node.value)
    return texts


LIBRARY = [
    path
    for path in sorted(PACKAGE.rglob("*.py"))
    if path.relative_to(PACKAGE).parts[0] not in ("cli", "errors.py", "configs", "views")
]


class TestTextsOfTheLibrary:
    """Rooms below the commands do not know which one is in hand."""

    @pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.relative_to(PACKAGE).as_posix())
    def test_name_options_with_their_command_or_as_settings(self, path: Path) -> None:
        for text in texts_of(path):
            for option in re.findall(r"--[a-z][\w.-]*\w", text):
                behind = re.search(rf"{option} of (ich-[a-z]+(?: and of ich-[a-z]+)*)", text)
                before = re.search(rf"(ich-[a-z]+) [^.;]*{option}\b", text)
                named = re.findall("ich-[a-z]+", behind[1]) if behind else [before[1]] if before else []
                if path.name == "memory_planner.py":
                    named = ["ich-train"]  # it writes what this command prints
                if path.relative_to(PACKAGE).parts[0] in ("archive", "evaluation") and option in options_of(
                    "ich-evaluate"
                ) | options_of("ich-predict"):
                    continue  # what makes and judges predictions is called by these two alone
                assert named, f"{option} of which command? {text}"
                for command in named:
                    assert option in options_of(command), text

    def test_settings_are_options_of_every_command_that_reads_labels(self) -> None:
        settings = {name for path in LIBRARY for text in texts_of(path) for name in SETTING.findall(text)}
        assert settings >= {"unmatched", "repair_any", "disagreement", "patient_ids", "project_key"}
        for name in settings:
            assert f"--data.{name}" in options_of("ich-train")
            for command in ("ich-prepare", "ich-evaluate"):
                assert f"--{name.replace('_', '-')}" in options_of(command)
        assert "--project-key" in options_of("ich-predict")

    def test_the_test_can_fail(self, tmp_path: Path) -> None:
        (tmp_path / "wrong.py").write_text('"""--doc"""\nx = f"Say --data.{1} or --allow."\n')
        assert texts_of(tmp_path / "wrong.py") == ["Say --data.{} or --allow."]


SETTINGS = PhantomSettings(patients=4, slices=8, size=64, seed=3, prevalence=0.5)


@pytest.fixture(scope="module")
def heads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four synthetic heads; not to be written into."""
    return write_phantom(SETTINGS, tmp_path_factory.mktemp("heads"), workers=1)


@pytest.fixture(scope="module")
def nobodies(heads: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, all of one patient who is nobody."""
    root = tmp_path_factory.mktemp("nobodies")
    (root / "stage_2_train").mkdir()
    for path in sorted((heads / "stage_2_train").iterdir()):
        dataset = pydicom.dcmread(path)
        dataset.PatientID = "ANON"
        dataset.save_as(root / "stage_2_train" / path.name)
    (root / "stage_2_train.csv").write_bytes((heads / "stage_2_train.csv").read_bytes())
    return root


def uid_of(path: Path, keyword: str) -> str:
    """The raw value: RSNA's ids are no valid UIDs."""
    return pydicom.dcmread(path, stop_before_pixels=True).get_item(keyword).value.decode().strip("\0 ")


def faulty(heads: Path, fault: str) -> str:
    """A label table of the heads with something wrong with it."""
    images = sorted((heads / "stage_2_train").iterdir())
    names = [path.stem for path in images]
    if fault == "disagreement":
        rows = "".join(f"{name},,1\n" for name in names)
        series = sorted({uid_of(path, "SeriesInstanceUID") for path in images})
        return "sop_uid,series_uid,any\n" + rows + f",{series[0]},0\n"
    if fault == "type without any":
        return "sop_uid,epidural,any\n" + "".join(f"{name},{int(i == 3)},0\n" for i, name in enumerate(names))
    rows = [f"{name},{i % 2}\n" for i, name in enumerate(names)]
    if fault in ("images", "both"):
        rows = rows[2:]
    if fault in ("labels", "both"):
        rows.append("ID_of_nothing,0\n")
    return "sop_uid,any\n" + "".join(rows)


def hints(message: str, named: str = "") -> list[list[str]]:
    """The options that a message tells to give, as arguments; of alternatives each by itself."""
    found = [[option, *([value] if value else [])] for option, value in HINT.findall(message)]
    return [hint for hint in found if hint[0] != named]


CODES = {
    "labels": "labels_without_image",
    "images": "images_without_label",
    "both": "images_without_label",
    "type without any": "any_contradicts_types",
    "disagreement": "contradicting_rows",
    "nobody": "patient_id_anonymous",
}


COMMANDS_WITH_LABELS = ("ich-train", "ich-prepare", "ich-evaluate")
FAULTY_COMMANDS = [
    pytest.param(command, fault, marks=[] if number % 3 == position else [pytest.mark.slow])
    for position, command in enumerate(COMMANDS_WITH_LABELS)
    for number, fault in enumerate(CODES)
]
"""Every fault by every command; in every run each fault once, and each command with two of them."""


class TestWhatIsToldHelps:
    @pytest.mark.parametrize(("command", "fault"), FAULTY_COMMANDS)
    def test_by_the_command_in_hand(
        self, command: str, fault: str, heads: Path, nobodies: Path, model_folder: Path, tmp_path: Path, capsys: Any
    ) -> None:
        root, table = (nobodies if fault == "nobody" else heads), tmp_path / "labels.csv"
        table.write_text(faulty(heads, fault))

        def run(*more: str, out: str) -> tuple[int, str]:
            place = str(tmp_path / out)
            if command == "ich-train":
                data = {
                    "root": root,
                    "labels": table,
                    "cache_dir": tmp_path / "cache",
                    "preprocessing.size": 32,
                    "num_workers": 0,
                }
                arguments = [f"--data.{key}={value}" for key, value in data.items()]
                # No such network: a run that comes as far as its model ends there.
                code = train.main([*arguments, "--model.encoder.backbone=none_such", f"--out={place}", *more])
            elif command == "ich-prepare":
                code = prepare.main([str(root), "--labels", str(table), "--out", place, "--size=32", "--workers=1", *more])
            else:
                arguments = ["--checkpoint", str(model_folder), "--data.root", str(root), "--labels", str(table)]
                arguments += ["--data.cache_dir", str(tmp_path / "cache"), "--data.num_workers", "0", "--replicates", "100"]
                code = evaluate.main([*arguments, "--out", place, "--device", "cpu", *more])
            return code, capsys.readouterr().err

        code, message = run(out="first")
        assert code == 1
        assert f"[{CODES[fault]}]" in message
        told = hints(message)
        assert told, message
        for number, hint in enumerate(told):
            code, after = run(*hint, out=f"after-{number}")
            assert code != 2 or "none_such" in after, after
            assert CODES[fault] not in after, hint
            assert "labels_without_image" not in after, hint

    @pytest.mark.parametrize(
        ("fault", "code"),
        [
            ("labels", "labels_without_prediction"),
            ("images", "unlabelled_scans"),
            ("both", "labels_without_prediction"),
            ("type without any", "any_contradicts_types"),
            ("disagreement", "contradicting_rows"),
        ],
    )
    def test_by_ich_evaluate_on_predictions(self, fault: str, code: str, tmp_path: Path, capsys: Any) -> None:
        tables = make_tables()
        folder = write_predictions(tmp_path / "predictions", ProjectKey.open(tmp_path / "key"), tables)
        head, *rows = label_text(tables).splitlines()
        if fault in ("images", "both"):
            rows = rows[:-5]
        if fault in ("labels", "both"):
            rows.append("9.9.9" + ",0" * len(LABELS))
        if fault == "type without any":
            rows[0] = rows[0].partition(",")[0] + ",1" + ",0" * (len(LABELS) - 1)
        if fault == "disagreement":
            head, rows = f"{head},series_uid", [f"{row}," for row in rows]
            rows.append("," * len(LABELS) + "0,1.0")
        (tmp_path / "labels.csv").write_text("\n".join([head, *rows]) + "\n")
        arguments = [str(folder), "--labels", str(tmp_path / "labels.csv"), "--project-key", str(tmp_path / "key")]
        arguments += ["--replicates", "100", "--level", "scan"]
        assert evaluate.main([*arguments, "--out", str(tmp_path / "first")]) == 1
        message = capsys.readouterr().err
        assert f"[{code}]" in message
        (hint,) = hints(message)
        assert evaluate.main([*arguments, "--out", str(tmp_path / "after"), *hint]) == 0, capsys.readouterr().err


def test_python_is_told_its_own_names(heads: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(faulty(heads, "both"))
    data = ScanDataModule(
        str(heads), str(tmp_path / "labels.csv"), cache_dir=str(tmp_path / "cache"), preprocessing=Preprocessing(size=32)
    )
    data.prepare_data()
    with pytest.raises(ich_lstm.errors.AuditError) as caught:
        data.setup()
    assert "unmatched='both'" in str(caught.value)
    assert "--" not in str(caught.value)
