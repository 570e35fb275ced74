"""Matching of paths in tables with paths of files, whatever notation the table uses."""

import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

_DRIVE = re.compile(r"[A-Za-z]:(?=/)")


def tidy(path: str) -> str:
    """Normalize a path: forward slashes, composed letters (NFC), and no ``./``, ``//`` or slash at the end.

    Example:
        >>> tidy(".\\\\case 1\\\\series\\\\")
        'case 1/series'
    """
    text = unicodedata.normalize("NFC", path.strip().replace("\\", "/")).removeprefix("file://")
    return posixpath.normpath(text) if text else ""


def fold(path: str) -> str:
    """Normalize a path for comparisons that ignore its notation and its case."""
    return tidy(path).casefold()


def tails(path: str) -> Iterator[str]:
    """Iterate over the tails of an absolute path, the longest first; a relative path has none.

    Args:
        path: A path normalized by `tidy`.

    Example:
        >>> list(tails("D:/export/case 1"))
        ['export/case 1', 'case 1']
    """
    drive = _DRIVE.match(path)
    if not path.startswith("/") and not drive:
        return
    rest = path[drive.end() if drive else 0 :].lstrip("/")
    while rest:
        yield rest
        rest = rest.partition("/")[2]


class PathNames:
    """Names of files or folders that are found by paths in other notations.

    A path matches the name that equals it; or else every name that differs only in slashes and Unicode normal form; or else in
    case too. An absolute path, which may be from another machine, otherwise matches by the longest of its tails that exists.

    Args:
        there: The names, relative to the images' root.
    """

    def __init__(self, there: Iterable[str]) -> None:
        self._there = set(there)
        self._tidied: defaultdict[str, list[str]] = defaultdict(list)
        self._folded: defaultdict[str, list[str]] = defaultdict(list)
        for name in sorted(self._there):
            tidied = tidy(name)
            self._tidied[tidied].append(name)
            self._folded[tidied.casefold()].append(name)

    def tidied(self, names: Iterable[str]) -> list[str]:
        """Normalize paths by `tidy`."""
        return [tidy(name) for name in names]

    def resolve(self, names: pd.Series) -> tuple[np.ndarray, np.ndarray]:
        """Find the name that each path means.

        Args:
            names: Paths as a table has them.

        Returns:
            The names, which are the paths themselves where nothing matches; and which paths are ambiguous, bool: several names
            match one path, or two absolute paths in different places match the same name.
        """
        found = {name: self._find(name) for name in names.unique()}
        meant: defaultdict[str, set[str]] = defaultdict(set)
        for name, fits in found.items():
            if len(fits) == 1 and any(tails(tidy(name))):
                meant[fits[0]].add(fold(name))
        doubtful = {name for name, fits in found.items() if len(fits) > 1 or (fits and len(meant[fits[0]]) > 1)}
        called = [found[name][0] if len(found[name]) == 1 else name for name in names]
        return np.array(called, dtype=object), names.isin(list(doubtful)).to_numpy(bool)

    def _find(self, name: str) -> list[str]:
        if name in self._there:
            return [name]
        tidied = tidy(name)
        for path in (tidied, *tails(tidied)):
            fits = self._tidied.get(path) or self._folded.get(path.casefold())
            if fits:
                return fits
        return []
