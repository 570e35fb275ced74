"""Enhanced multi-frame files, and what is no head; made by the functions of those rooms' own tests."""

from importlib import import_module
from pathlib import Path
from typing import Any

from catalogue.case import Expect, Make, Variant, refused


def frames(**options: Any) -> Make:
    """One enhanced file of eight frames."""
    return lambda folder: import_module("test_multiframe").make_enhanced(folder / "a.dcm", **options)


def body(name: str) -> Make:
    """A series of another part of the body, not named so."""

    def make(folder: Path) -> None:
        heads = import_module("test_head")
        heads.make(folder, lambda z: getattr(heads, name))

    return make


def _head_over_neck(folder: Path) -> None:
    heads = import_module("test_head")
    heads.make(folder, lambda z: heads.skull if z >= 150 else heads.neck, count=50)


FRAMES_READ = Expect(slices=8, files_used=1, repairs=frozenset(), same_hu=True)

VARIANTS: list[Variant] = [
    Variant(row="56", name="explicit", make=frames(), expect=FRAMES_READ),
    Variant(row="56", name="implicit", make=frames(syntax="1.2.840.10008.1.2"), expect=FRAMES_READ),
    Variant(row="56", name="deflated", make=frames(syntax="1.2.840.10008.1.2.1.99"), expect=FRAMES_READ),
    Variant(row="56", name="any-order", make=frames(order=[3, 0, 7, 1, 6, 2, 5, 4]), expect=FRAMES_READ),
    *(
        Variant(row="62", name=f"{part}-by-its-pixels", make=body(part), expect=refused("no_head", 24))
        for part in ("neck", "chest", "abdomen", "knee")
    ),
    Variant(
        row="62",
        name="head-over-neck",
        make=_head_over_neck,
        expect=Expect(slices=28, skipped={"neck": 22}, repairs=frozenset({"neck"})),
    ),
    Variant(
        row="62",
        name="water-phantom",
        make=body("water"),
        expect=Expect(slices=24, repairs=frozenset(), flags=frozenset({"no_skull"})),
    ),
]
