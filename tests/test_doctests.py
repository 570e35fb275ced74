"""The examples in the docstrings run."""

import doctest
import importlib
import pkgutil

import pytest

import ich_lstm

MODULES = [
    module.name
    for module in pkgutil.walk_packages(ich_lstm.__path__, "ich_lstm.")
    if not module.name.endswith((".__main__", ".decode"))
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0
