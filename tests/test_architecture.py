"""The house: imports go down the floors, and the heavy ones wait until they are needed."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ich_lstm"

FLOORS = (
    ("errors", "labels", "scan", "window", "privacy", "keywords"),
    ("reading",),
    ("pixels", "views"),
    ("data", "models", "phantom"),
    ("learning",),
    ("results",),
    ("cli", "configs"),
)
"""The rooms from the ground up. A room imports from floors below its own, or from itself."""

SAME_FLOOR = {("scan", "errors"), ("privacy", "errors"), ("scan", "labels"), ("scan", "window"), ("keywords", "errors")}
"""Within a floor, what may import what: modules of floor 0, in their order."""

THIN_CALLS = {("scan", "views")}
"""Up, but only from within a method: a boundary type is data, and its pictures are made by the room of pictures."""

FORBIDDEN = {("models", "reading"), ("phantom", "reading"), ("views", "reading")}
"""Arrows that go down and still must not be."""


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def imported_modules(source: str, *, in_functions: bool = True) -> set[str]:
    """All modules of the package that a file imports, at its top or inside its functions; not those for type checkers only."""
    tree = ast.parse(source)
    inside = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in node.body
        for child in ast.walk(statement)
    }
    skipped = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for child in ast.walk(statement)
    }
    names = set()
    for node in ast.walk(tree):
        if id(node) in skipped or (id(node) in inside and not in_functions):
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names if node.module == "ich_lstm")
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return {name for name in names if name.startswith("ich_lstm.")}


def breaches(room: str, source: str) -> list[str]:
    """What a file of a room imports and must not."""
    floor = {name: height for height, rooms in enumerate(FLOORS) for name in rooms}
    at_the_top = imported_modules(source, in_functions=False)
    found = []
    for module in sorted(imported_modules(source)):
        other = room_of(module)
        if other == room or ((room, other) in THIN_CALLS and module not in at_the_top):
            continue
        same_floor = floor[other] == floor[room] and (room, other) in SAME_FLOOR
        if (floor[other] >= floor[room] and not same_floor) or (room, other) in FORBIDDEN:
            found.append(f"{room} imports {module}")
    return found


def files() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


def room_of_file(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("path", files(), ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_imports_go_down(path: Path) -> None:
    assert breaches(room_of_file(path), path.read_text()) == []


def test_every_room_stands_on_a_floor() -> None:
    assert {room_of_file(path) for path in files()} <= {room for rooms in FLOORS for room in rooms}


class TestTheTestCanFail:
    @pytest.mark.parametrize(
        ("room", "source"),
        [
            ("models", "from ich_lstm.data.loading.batch import ScanBatch"),
            ("models", "import ich_lstm.reading"),
            ("reading", "def f():\n    from ich_lstm.preprocessing.windows import Window"),
            ("views", "from ich_lstm.training.classifier import ScanClassifier"),
            ("labels", "from ich_lstm import scan"),
            ("scan", "from ich_lstm.pages.plots.curves import plot_slices"),
            ("scan", "class Scan:\n    from ich_lstm.pages.plots import curves"),
            ("labels", "def plot():\n    from ich_lstm.pages.plots.curves import plot_slices"),
        ],
    )
    def test_an_arrow_up_is_found(self, room: str, source: str) -> None:
        assert len(breaches(room, source)) == 1

    def test_an_import_for_type_checkers_is_none(self) -> None:
        assert breaches("views", "if TYPE_CHECKING:\n    from ich_lstm.training.classifier import ScanClassifier") == []

    def test_a_thin_call_from_a_method_is_none(self) -> None:
        assert breaches("scan", "def plot():\n    from ich_lstm.pages.plots.curves import plot_slices") == []

    def test_an_arrow_down_is_none(self) -> None:
        assert breaches("learning", "from ich_lstm.models.scan_model import ScanModel\nimport torch") == []


HEAVY = ("torch", "pytorch_lightning", "timm", "pandas", "pydicom", "numpy", "matplotlib", "albumentations", "wandb")


@pytest.mark.parametrize(
    "statement",
    [
        "import ich_lstm",
        *(
            f"from ich_lstm.cli import {name}; {name}.main(['--help'])"
            for name in ("train", "prepare", "predict", "evaluate", "phantom")
        ),
    ],
)
def test_the_front_door_is_light(statement: str) -> None:
    code = f"{statement}\nimport sys; print('heavy:', [name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_every_public_name_can_be_had() -> None:
    import ich_lstm

    for name in ich_lstm.__all__:
        assert getattr(ich_lstm, name) is not None
    assert dir(ich_lstm) == sorted(ich_lstm.__all__)  # and nothing else is offered
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = ich_lstm.nothing
