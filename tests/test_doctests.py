"""The examples in the docstrings run."""

import doctest
import importlib
import pkgutil

import ich_lstm

MODULES = [
    module.name
    for module in pkgutil.walk_packages(ich_lstm.__path__, "ich_lstm.")
    if not module.name.endswith((".__main__", ".decode"))
]


def test_examples() -> None:
    """In one test, because starting one for each module costs more than the examples do."""
    results = {name: doctest.testmod(importlib.import_module(name)) for name in MODULES}
    assert {name: result.failed for name, result in results.items() if result.failed} == {}
    assert sum(result.attempted for result in results.values()) > 50
