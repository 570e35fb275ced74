"""Packages whose names are imported when they are first used."""

import importlib
import subprocess
import sys

import pytest

from ich_lstm.lazy import lazy_names


def test_a_name_is_that_of_its_module_and_others_are_refused() -> None:
    get, names = lazy_names("package", {"loads": "json", "Path": "pathlib"})
    assert get("loads") is importlib.import_module("json").loads
    assert names() == ["Path", "loads"]
    with pytest.raises(AttributeError, match="module 'package' has no attribute 'dumps'"):
        get("dumps")


@pytest.mark.parametrize("package", ["ich_lstm", "ich_lstm.reading", "ich_lstm.statistics"])
def test_every_name_of_a_package_can_be_had(package: str) -> None:
    module = importlib.import_module(package)
    assert dir(module) == sorted(module.__all__)
    assert all(getattr(module, name) is not None for name in module.__all__)


def test_nothing_is_imported_before_it_is_used() -> None:
    code = (
        "import sys, ich_lstm.statistics, ich_lstm.reading; print([m for m in ('numpy', 'scipy', 'pandas') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"
