"""Enhanced multi-frame files, and what is no head."""

from pathlib import Path
from typing import Any

import numpy as np
from body_parts import Shape, abdomen, belly, chest, infant, knee, legs, neck, noisy, pelvis, skull, thorax, water, whole_head
from body_parts import body as whole_body
from body_parts import make as make_series_of
from enhanced_files import make_enhanced

from catalogue.case import Expect, Make, Variant, no_scan


def frames(**options: Any) -> Make:
    """One enhanced file of eight frames."""
    return lambda folder: make_enhanced(folder / "a.dcm", **options)


def body(shape: Shape, count: int = 24, **options: float) -> Make:
    """A series of another part of the body, not named so."""

    drawn = shape if shape is _defaced else noisy(shape)

    def make(folder: Path) -> None:
        make_series_of(folder, lambda z: drawn, count, **options)  # type: ignore[arg-type]

    return make


def _defaced(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> np.ndarray:
    """A head, whose face a program has set to 0 HU, with the air in front of it."""
    return np.where(y < -20 - z * 0.9, 0.0, noisy(whole_head)(x, y, z))


def _head_over_neck(folder: Path) -> None:
    make_series_of(folder, lambda z: skull if z >= 150 else neck, count=50)


FRAMES_READ = Expect(slices=8, files_used=1, repairs=frozenset(), same_hu=True)

VARIANTS: list[Variant] = [
    Variant(row="56", name="explicit", make=frames(), expect=FRAMES_READ),
    Variant(row="56", name="implicit", make=frames(syntax="1.2.840.10008.1.2"), expect=FRAMES_READ),
    Variant(row="56", name="deflated", make=frames(syntax="1.2.840.10008.1.2.1.99"), expect=FRAMES_READ),
    Variant(row="56", name="any-order", make=frames(order=[3, 0, 7, 1, 6, 2, 5, 4]), expect=FRAMES_READ),
    *(
        Variant(row="62", name=f"{part.__name__}-by-its-pixels", make=body(part), expect=no_scan("not_head", 24))
        for part in (neck, chest, abdomen, knee, pelvis, belly, thorax)
    ),
    Variant(row="62", name="legs-with-ankles-by-their-pixels", make=body(legs, 48, step=20), expect=no_scan("not_head", 48)),
    Variant(
        row="62",
        name="head-to-pelvis",
        make=body(whole_body, 96, step=10),
        expect=Expect(slices=20, skipped={"neck": 76}, repairs=frozenset({"neck"}), flags=frozenset({"thick_slices"})),
    ),
    Variant(
        row="62",
        name="preterm-infant",
        make=body(infant, 20, pixel_mm=2),
        expect=Expect(slices=20, repairs=frozenset(), flags=frozenset()),
    ),
    *(
        Variant(
            row="62",
            name=f"{name}-of-a-head",
            make=body(whole_head, 18, pixel_mm=2, start_mm=start),
            expect=Expect(slices=18, repairs=frozenset(), flags=frozenset({"incomplete"}), flag_detail=detail),
        )
        for name, start, detail in (("upper-half", 75, "the base is missing"), ("lower-half", 0, "the vertex is missing"))
    ),
    Variant(
        row="62",
        name="face-set-to-0-hu",
        make=body(_defaced, 34, pixel_mm=2),
        expect=Expect(slices=34, repairs=frozenset(), flags=frozenset({"defaced"})),
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
        make=lambda folder: make_series_of(folder, lambda z: water),
        expect=Expect(slices=24, repairs=frozenset(), flags=frozenset({"no_skull"})),
    ),
]
