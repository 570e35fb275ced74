"""The pages for who works on the code: every file, room and name that they give is there."""

import ast
import re

import pytest
from test_architecture import FLOORS, PACKAGE

TOP = PACKAGE.parent
PAGES = {"architecture": TOP / "docs/architecture.md", "contributing": TOP / "CONTRIBUTING.md"}
OTHERS = {"Trainer.fit", "requires_grad", "argparse", "lightning", "pytest", "mypy", "from", "dev"}
"""Names in code spans that the package does not define: those of other packages, a keyword, an extra."""


def code_spans(page: str) -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", page, flags=re.DOTALL)))


def missing_files(page: str) -> list[str]:
    """Paths, below the top or below the package, that lead nowhere; NAME stands for the reader's own."""
    paths = {
        span for span in code_spans(page) if re.fullmatch(r"[\w./-]+\.(py|md|cfg|toml)|[\w./-]+/", span) and "NAME" not in span
    }
    everywhere = {path.name for folder in (PACKAGE, TOP / "tests") for path in folder.rglob("*")}
    places = {path: (TOP / path, PACKAGE / path) for path in paths}
    short = {path for path in paths if path.rstrip("/") in everywhere}  # a file beside one that is named in full
    return sorted(path for path in paths - short - {"private/"} if not any(place.exists() for place in places[path]))


def defined_names() -> set[str]:
    """Functions, classes, arguments, fields, constants and modules of the package and of the tests."""
    names: set[str] = set()
    for folder in (PACKAGE, TOP / "tests"):
        for path in folder.rglob("*.py"):
            names |= {path.stem, path.parent.name}
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.FunctionDef | ast.ClassDef):
                    names.add(node.name)
                elif isinstance(node, ast.arg):
                    names.add(node.arg)
                elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                    names.add(node.id)
                elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
                    names.add(node.attr)
                elif (
                    isinstance(node, ast.Constant)
                    and isinstance(node.value, str)
                    and node.value.isidentifier()
                    and folder == PACKAGE
                ):
                    names.add(node.value)  # codes of errors
    return names


def unknown_names(page: str, known: set[str]) -> list[str]:
    spans = {span.removesuffix("()") for span in code_spans(page)} - OTHERS
    spans = {span for span in spans if re.fullmatch(r"[A-Za-z_][\w.]*", span) and not re.search(r"\.(py|md|cfg|csv|yaml)$", span)}
    return sorted(span for span in spans if not set(span.split(".")) <= known and "NAME" not in span)


@pytest.mark.parametrize("name", PAGES)
def test_what_a_page_names_is_there(name: str) -> None:
    page = PAGES[name].read_text()
    assert len(code_spans(page)) > 50
    assert missing_files(page) == []
    assert unknown_names(page, defined_names()) == []


def test_what_is_not_there_is_found() -> None:
    page = "See `nowhere/at_all.py`, `no_such_room/`, `no_such_function()` and `ScanClassifier.no_such_method`; `pages/` is one."
    assert missing_files(page) == ["no_such_room/", "nowhere/at_all.py"]
    assert unknown_names(page, defined_names() - {"no_such_function"}) == ["ScanClassifier.no_such_method", "no_such_function"]


def test_the_page_shows_every_room_and_floor() -> None:
    page = PAGES["architecture"].read_text()
    tree = page.split("```\nich_lstm/\n")[1].split("```")[0]
    shown: set[str] = set()
    above: list[str] = []
    for line in tree.splitlines():
        if found := re.match(r"( +)([\w.]+)/? {2,}\S", line):
            above = [*above[: len(found[1]) // 2 - 1], found[2]]
            shown.add("/".join(above))
    rooms = {
        path.parent.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*") if path.is_file() and path.suffix != ".pyc"
    }
    assert shown == rooms - {"."} | {path.name for path in PACKAGE.glob("*.py")}
    floors = re.findall(r"^ floor (\d) +(.+?)(?: {4,}|$)", page, re.MULTILINE)
    assert [(int(number), tuple(names.split())) for number, names in reversed(floors)] == list(enumerate(FLOORS))
