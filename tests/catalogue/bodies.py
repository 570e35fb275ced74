"""Enhanced multi-frame files, and what is no head."""

from pathlib import Path
from typing import Any

from body_parts import Shape, abdomen, chest, knee, neck, skull, water
from body_parts import make as make_series_of
from enhanced_files import make_enhanced

from catalogue.case import Expect, Make, Variant, refused


def frames(**options: Any) -> Make:
    """One enhanced file of eight frames."""
    return lambda folder: make_enhanced(folder / "a.dcm", **options)


def body(shape: Shape) -> Make:
    """A series of another part of the body, not named so."""

    def make(folder: Path) -> None:
        make_series_of(folder, lambda z: shape)

    return make


def _head_over_neck(folder: Path) -> None:
    make_series_of(folder, lambda z: skull if z >= 150 else neck, count=50)


FRAMES_READ = Expect(slices=8, files_used=1, repairs=frozenset(), same_hu=True)

VARIANTS: list[Variant] = [
    Variant(row="56", name="explicit", make=frames(), expect=FRAMES_READ),
    Variant(row="56", name="implicit", make=frames(syntax="1.2.840.10008.1.2"), expect=FRAMES_READ),
    Variant(row="56", name="deflated", make=frames(syntax="1.2.840.10008.1.2.1.99"), expect=FRAMES_READ),
    Variant(row="56", name="any-order", make=frames(order=[3, 0, 7, 1, 6, 2, 5, 4]), expect=FRAMES_READ),
    *(
        Variant(row="62", name=f"{part.__name__}-by-its-pixels", make=body(part), expect=refused("no_head", 24))
        for part in (neck, chest, abdomen, knee)
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
        make=body(water),
        expect=Expect(slices=24, repairs=frozenset(), flags=frozenset({"no_skull"})),
    ),
]
