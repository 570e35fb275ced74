"""Names of a package that are imported when they are first used, and imports that are not made at all."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from typing import Any


def lazy_names(package: str, homes: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the functions ``__getattr__`` and ``__dir__`` of a package (PEP 562).

    Args:
        package: The full name of the package.
        homes: The full name of the module that defines each name.

    Returns:
        The two functions. ``__dir__`` lists these names alone.
    """

    def get(name: str) -> Any:
        if name in homes:
            return getattr(import_module(homes[name]), name)
        raise AttributeError(f"module {package!r} has no attribute {name!r}")

    return get, lambda: sorted(homes)


@contextmanager
def without_module(module: str) -> Iterator[None]:
    """Make imports of a module fail as if it were not installed, unless it has been imported already.

    Args:
        module: Name of the module, which another library imports if it can.
    """
    if module in sys.modules:
        yield
        return
    sys.modules[module] = None  # type: ignore[assignment]  # with None here, Python raises ImportError
    try:
        yield
    finally:
        del sys.modules[module]
