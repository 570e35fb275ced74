"""Names of files and slices as label tables write them."""

import os
from pathlib import Path

from ich_lstm.printable import printable
from ich_lstm.reading import FileRef, SliceHeader
from ich_lstm.reading.files.archives import NESTED, has_suffix

SLICE_MARK = "#"
"""Separates a file that holds several slices from the number of one of them, which begins at 1: ``ct_scans/049.nii#12``."""


def slice_name(header: SliceHeader, root: Path) -> str:
    """The name of a slice in label tables: its file, followed by the slice's number where the file holds several."""
    name = relative_name(header.source, root)
    return f"{name}{SLICE_MARK}{header.frame}" if header.frames > 1 else name


def relative_name(source: FileRef, root: Path) -> str:
    """The name of a file in label tables: its path relative to the root, with ``/``; a zip archive counts as a folder."""
    base = root if root.is_dir() else root.parent
    name = Path(os.path.relpath(source.path, base)).as_posix()
    name = name if source.member is None else f"{name}/{source.member}"
    return printable(name)


def path_name(path: str, root: Path) -> str:
    """The name that label tables use for a path of the ledger (``archive.zip!member`` in an archive), see `relative_name`."""
    archive, mark, member = path.partition(NESTED)
    if mark and has_suffix(archive):
        return relative_name(FileRef(Path(archive), member), root)
    return relative_name(FileRef(Path(path)), root)


def folders_of(name: str) -> list[str]:
    """All folders above a file: ``a/b/c.dcm`` gives ``a`` and ``a/b``."""
    parts = name.split("/")[:-1]
    return ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
