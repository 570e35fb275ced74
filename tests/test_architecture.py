"""The house: imports go down the floors, and the heavy ones wait until they are needed."""

import ast
import subprocess
import sys
from collections import Counter
from functools import cache
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "ich_lstm"

FLOORS: tuple[tuple[str, ...], ...] = (
    (
        "printable",
        "errors",
        "labels",
        "window",
        "scan",
        "formatting",
        "privacy",
        "files",
        "explanation",
        "prediction",
        "settings",
        "lazy",
        "unexpected",
        "parallel",
    ),
    ("statistics", "reading"),
    ("preprocessing", "pages", "phantom"),
    ("models", "data"),
    ("inference",),
    ("training",),
    ("archive", "evaluation", "adaptation"),
    ("cli", "configs"),
)
"""The rooms from the ground up. A room imports from floors below, from what stands before it on its floor, or itself."""

SUB_ROOMS = {
    "statistics": ("", "measures", "adjustment", "comparison"),
    "reading": ("files", "terms", "header", "ledger", "pixels", "body", "series", "study", "index"),
    "pages": ("", "plots", "report"),
    "models": ("execution", "stored", "heads", "", "released"),
    "data": ("tables", "prepared", "labels", "joining", "split", "prepare", "audit", "loading", "features", ""),
    "inference": ("stored", "engines", ""),
    "training": ("faults", "checkpoints", "features", ""),
    "archive": ("folder", "exports", ""),
    "evaluation": ("", "comparisons", "thresholds", "report"),
    "adaptation": ("scans", "comparing", ""),
}
"""Within a room, the order of its sub-rooms: each imports from those before it. The empty name is the room itself."""

THIN_CALLS = {("scan", "pages"), ("explanation", "pages"), ("prediction", "pages")}
"""Up, but only from within a method: a boundary type is data, and its pictures are made by the room of pictures."""

FORBIDDEN = {("models", "reading"), ("phantom", "reading"), ("pages", "reading"), ("inference", "data")}
"""Arrows that go down and still must not be."""

MOST_MODULES = 9
"""In one room; where there are more, there is a sub-room."""


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def sub_room_of(module: str) -> str:
    """Of ``ich_lstm.room.sub_room.module``; empty for a module that lies in the room itself."""
    parts = module.split(".")[2:]
    return parts[0] if parts and (len(parts) > 1 or parts[0] in SUB_ROOMS.get(room_of(module), ())) else ""


def module_of(path: Path) -> str:
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"}


@cache
def imported_modules(source: str, *, in_functions: bool = True) -> frozenset[str]:
    """All modules of the package that a file imports, at its top or inside its functions; not those for type checkers only."""
    nodes = list(ast.walk(ast.parse(source)))
    inside = {
        id(child)
        for node in nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for statement in node.body
        for child in ast.walk(statement)
    }
    skipped = {
        id(child)
        for node in nodes
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for statement in node.body
        for child in ast.walk(statement)
    }
    names: set[str] = set()
    for node in nodes:
        if id(node) in skipped or (id(node) in inside and not in_functions):
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            # A name may be a module of the package that it is imported from.
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name if name in FILES else node.module for name in whole}
        elif isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
    return frozenset(name for name in names if name.startswith("ich_lstm."))


def breaches(module: str, source: str) -> list[str]:
    """What a module imports and must not."""
    height = {name: (floor, place) for floor, rooms in enumerate(FLOORS) for place, name in enumerate(rooms)}
    at_the_top = imported_modules(source, in_functions=False)
    room = room_of(module)
    found = []
    for other in sorted(imported_modules(source)):
        if room_of(other) == room:
            order = SUB_ROOMS.get(room)
            here, there = sub_room_of(module), sub_room_of(other)
            # A room's own package offers what is in its sub-rooms.
            is_package = module == f"ich_lstm.{room}" or other == f"ich_lstm.{room}"
            is_wrong = order is not None and not is_package and order.index(there) > order.index(here)
        elif (room, room_of(other)) in THIN_CALLS and other not in at_the_top:
            is_wrong = False
        else:
            is_wrong = height[room_of(other)] > height[room] or (room, room_of(other)) in FORBIDDEN
        if is_wrong:
            found.append(f"{module} imports {other}")
    return found


def circles(imports: dict[str, set[str]]) -> list[set[str]]:
    """Groups of modules that import one another, directly or by way of others; none of a sound house."""
    reached: dict[str, set[str]] = {}
    for module in imports:
        seen: set[str] = set()
        waiting = [module]
        while waiting:
            for other in imports.get(waiting.pop(), set()) - seen:
                seen.add(other)
                waiting.append(other)
        reached[module] = seen
    rings = [{other for other in reached[module] if module in reached.get(other, set())} for module in imports]
    return [ring for number, ring in enumerate(rings) if ring and ring not in rings[:number]]


def named_modules(module: str, source: str) -> set[str]:
    """The modules that a file imports, thin calls left out."""
    at_the_top = imported_modules(source, in_functions=False)
    found = set()
    for name in imported_modules(source):
        if (room_of(module), room_of(name)) in THIN_CALLS and name not in at_the_top:
            continue
        found.add(name)
    return found - {module}


def test_imports_go_down() -> None:
    assert [breach for module, path in FILES.items() for breach in breaches(module, path.read_text())] == []


def test_no_module_imports_itself_by_way_of_others() -> None:
    imports = {module: named_modules(module, path.read_text()) for module, path in FILES.items()}
    assert sum(map(len, imports.values())) > 500
    assert circles(imports) == []


def test_every_room_stands_on_a_floor() -> None:
    assert {room_of(module) for module in FILES} <= {room for rooms in FLOORS for room in rooms}


def test_rooms_are_small() -> None:
    rooms = Counter(path.parent for path in FILES.values() if path.name != "__init__.py" and path.parent != PACKAGE)
    assert {str(room): count for room, count in rooms.items() if count > MOST_MODULES} == {}


class TestTheTestCanFail:
    @pytest.mark.parametrize(
        ("module", "source"),
        [
            ("models.encoder", "from ich_lstm.data.loading.batch import ScanBatch"),
            ("models.encoder", "import ich_lstm.reading"),
            ("reading.series.load", "def f():\n    from ich_lstm.preprocessing.windows import Window"),
            ("reading.header.fields", "from ich_lstm.reading.series.members import names"),
            ("reading.header.fields", "from ich_lstm.reading import index"),
            ("pages.scan_page", "from ich_lstm.training.classifier import ScanClassifier"),
            ("inference.forward", "from ich_lstm.data.loading.batch import ScanBatch"),
            ("archive.run", "from ich_lstm.evaluation.evidence import Evidence"),
            ("labels", "from ich_lstm import scan"),
            ("scan", "from ich_lstm.pages.plots.curves import plot_slices"),
            ("scan", "class Scan:\n    from ich_lstm.pages.plots import curves"),
            ("labels", "def plot():\n    from ich_lstm.pages.plots.curves import plot_slices"),
        ],
    )
    def test_an_arrow_up_is_found(self, module: str, source: str) -> None:
        assert len(breaches(f"ich_lstm.{module}", source)) == 1

    @pytest.mark.parametrize(
        ("module", "source"),
        [
            ("pages.scan_page", "if TYPE_CHECKING:\n    from ich_lstm.training.classifier import ScanClassifier"),
            ("scan", "def plot():\n    from ich_lstm.pages.plots.curves import plot_slices"),
            ("training.classifier", "from ich_lstm.models.scan_model import ScanModel\nimport torch"),
            ("reading.index.build", "from ich_lstm.reading.header.fields import Values"),
        ],
        ids=["for type checkers", "a thin call from a method", "down", "to a sub-room before it"],
    )
    def test_others_are_not(self, module: str, source: str) -> None:
        assert breaches(f"ich_lstm.{module}", source) == []

    @pytest.mark.parametrize(
        ("imports", "count"),
        [
            ({"a": {"b"}, "b": {"a"}}, 1),
            ({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}, 1),
            ({"a": {"b"}, "b": {"a"}, "c": {"d"}, "d": {"c"}}, 2),
            ({"a": {"b", "c"}, "b": {"c"}, "c": set()}, 0),
        ],
    )
    def test_circles_are_found(self, imports: dict[str, set[str]], count: int) -> None:
        assert len(circles(imports)) == count


HEAVY = ("torch", "pytorch_lightning", "timm", "pandas", "pydicom", "numpy", "matplotlib", "albumentations", "wandb")


@pytest.mark.parametrize(
    "statement",
    [
        "import ich_lstm",
        *(
            f"from ich_lstm.cli import {name}; {name}.main(['--help'])"
            for name in ("train", "prepare", "predict", "evaluate", "adapt", "phantom")
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
