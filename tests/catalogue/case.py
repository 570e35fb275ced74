"""What a variant of a bad input is: how it is made, and what must become of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from dicom_files import make_series, slice_hu

SLICES = 8

Make = Callable[[Path], object]


@dataclass(frozen=True, kw_only=True)
class Expect:
    """What must come of a source.

    Args:
        slices: Slices of the scan; 0: no scan.
        files_used: Files of the scan, where they are not as many as its slices.
        code: Of the error, where there is no scan.
        skipped: Files by reason.
        refused: Files by reason.
        repairs: Codes of the scan's repairs, all of them; None: whatever they are.
        flags: Codes of the scan's flags, all but ``few_slices`` and ``incomplete`` (most made series are 40 mm of a head);
            None: whatever they are.
        flag_detail: A text that the flags must hold.
        same_hu: The scan's HU are those of the sound series.
        detail: A text that the ledger's detail, or the error, must hold.
    """

    slices: int = 0
    files_used: int = 0
    code: str = ""
    skipped: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, int] = field(default_factory=dict)
    repairs: frozenset[str] | None = None
    flags: frozenset[str] | None = None
    flag_detail: str = ""
    same_hu: bool = False
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One made input.

    Args:
        row: Number in the catalogue, a key of :data:`catalogue.rows.ROWS`.
        name: What distinguishes it within the row.
        make: Writes the files into an empty folder.
        expect: What must come of it.
        training: Read like training does: unreadable slices were excluded.
        source: Name of what is read inside the folder; empty: the folder.
        meanwhile: Called with the folder between indexing and reading.
        patch: Attributes that are replaced while it is read.
        files: Rows of the ledger; 0: one per file on disk, where the source is the folder.
        syntax: Transfer syntax for which a decoder must be installed; empty: none.
    """

    row: str
    name: str
    make: Make
    expect: Expect
    training: bool = False
    source: str = ""
    meanwhile: Make | None = None
    patch: Mapping[str, Any] = field(default_factory=dict)
    files: int = 0
    syntax: str = ""

    @property
    def id(self) -> str:
        """The test's name."""
        return f"{self.row}-{self.name}"


def sound_hu(i: int) -> np.ndarray:
    """HU of the i-th slice of the sound series."""
    return np.rint(slice_hu((-96, -96, -20 + 5 * i)))


# ------------------------------------------------------------------------------------------------ makers
def whole(**elements: Any) -> Make:
    """A series, all of whose slices are so."""
    return lambda folder: make_series(folder, **elements)


def one(**elements: Any) -> Make:
    """A series with one slice that is so."""
    return lambda folder: make_series(folder, change=lambda i: elements if i == 3 else {})


def spoilt(change: Callable[[Path], object]) -> Make:
    """A series with one file that is changed afterwards."""
    return lambda folder: change(make_series(folder)[3])


def all_spoilt(change: Callable[[Path], object], **elements: Any) -> Make:
    """A series whose files are all changed afterwards."""

    def make(folder: Path) -> None:
        for path in make_series(folder, **elements):
            change(path)

    return make


def beside(add: Make) -> Make:
    """A sound series, and something beside it."""

    def make(folder: Path) -> None:
        make_series(folder)
        add(folder)

    return make


def second(**elements: Any) -> Make:
    """A sound series without a telling name, and another one of the same study with a lower number."""

    def make(folder: Path) -> None:
        make_series(folder / "a", SeriesDescription="STD")
        own: dict[str, Any] = {"SeriesInstanceUID": "1.2.3.100.2", "SeriesNumber": 1}
        make_series(folder / "b", **(own | elements))

    return make


def put(name: str, data: bytes) -> Make:
    """A file of these bytes."""
    return lambda folder: (folder / name).write_bytes(data)


# ------------------------------------------------------------------------------------------------ expectations
def used(
    *,
    slices: int = SLICES,
    repairs: tuple[str, ...] = (),
    flags: tuple[str, ...] = (),
    flag_detail: str = "",
    same_hu: bool = True,
) -> Expect:
    """A scan of all files, with these repairs and flags and no others."""
    return Expect(slices=slices, repairs=frozenset(repairs), flags=frozenset(flags), flag_detail=flag_detail, same_hu=same_hu)


def skipped(code: str, count: int = 1, detail: str = "") -> Expect:
    """The sound series is read, and files beside it are skipped."""
    return Expect(slices=SLICES, skipped={code: count}, detail=detail)


def refused_beside(code: str, count: int = 1) -> Expect:
    """The sound series is read, and files beside it are refused."""
    return Expect(slices=SLICES, refused={code: count})


def refused(code: str, count: int = SLICES) -> Expect:
    """No scan, and all files are refused."""
    return Expect(code=code, refused={code: count})


def no_scan(code: str, count: int = SLICES) -> Expect:
    """No scan, and all files are skipped."""
    return Expect(code=code, skipped={code: count})


def bad_slice(row: str, name: str, make: Make, code: str, **more: Any) -> list[Variant]:
    """One bad slice: it refuses its series for a prediction, and is left out for training."""
    gap = Expect(
        slices=SLICES - 1,
        refused={code: 1},
        flags=frozenset({"incomplete", "gap", "uneven_spacing"}),
        flag_detail="unreadable slices were excluded",
    )
    return [
        Variant(row=row, name=name, make=make, expect=refused(code), **more),
        Variant(row=row, name=f"{name}-training", make=make, expect=gap, training=True, **more),
    ]
