"""Blood by its age: its density, and how it settles."""

from typing import Literal, NamedTuple

import numpy as np

from ich_lstm.phantom.anatomy.shapes import Array, cover
from ich_lstm.phantom.anatomy.tissues import BLOOD, PLASMA, Age
from ich_lstm.phantom.scanner.slab import Slab

Rng = np.random.Generator
Pattern = Literal["even", "level", "mixed"]

TEXTURE_HU = 1.5
"""Standard deviation of the density within one clot."""

MARGIN_HU = 4.0
"""Densities are drawn this far inside their range, so that the texture stays in it."""

OTHER_SUBDURALS = {"subacute": 0.2, "chronic": 0.3, "level": 0.15, "acute on chronic": 0.15, "mixed": 0.12, "hyperacute": 0.08}
"""Shares of the subdurals that are not simply acute."""


class Blood(NamedTuple):
    """The blood of one lesion.

    Args:
        age: Age of the densest part.
        hu: Attenuation of that part.
        other_hu: Attenuation of the second part, if there are two.
        pattern: ``even``; ``level``, the dense part lying behind the other, as cells below plasma in a patient on the back;
            or ``mixed``, the two in streaks and clots.
        level_mm: The dense part lies behind this y, or, of a mixture, mostly so.
    """

    age: Age
    hu: float
    other_hu: float | None = None
    pattern: Pattern = "even"
    level_mm: float = 0.0

    @property
    def holds_old(self) -> bool:
        """Whether part of it is chronic."""
        old_part = self.other_hu is not None and self.age == "acute" and self.other_hu <= BLOOD["chronic"].high
        return self.age == "chronic" or old_part

    def attenuation(self, slab: Slab, texture: Array) -> Array:
        """HU at every sample; ``texture`` is a smooth variation of unit variance."""
        hu = np.float32(self.hu) + np.clip(texture, -2, 2) * np.float32(TEXTURE_HU)
        if self.other_hu is not None:
            if self.pattern == "level":
                # A level is flat to within a pixel, which is how one tells it from a clot.
                other = cover(slab.y - np.float32(self.level_mm), 1.2)
            else:
                # Clots hang in the fluid, more of them towards the back.
                other = cover(texture + (slab.y - np.float32(self.level_mm)) * np.float32(0.07), 1.0)
            hu += other * np.float32(self.other_hu - self.hu)
        return hu


def draw_hu(rng: Rng, age: Age) -> float:
    """Draw the attenuation of blood of an age."""
    low, high = BLOOD[age].low + MARGIN_HU, BLOOD[age].high - MARGIN_HU
    return float(low + (high - low) * rng.beta(2.0, 2.6))


def draw_fresh(rng: Rng, difficulty: float, y_mm: float) -> Blood:
    """Blood of a recent bleeding around some y: mostly clotted; while it still flows it is darker, or swirls in the clot."""
    if rng.random() >= 0.3 * difficulty:
        return Blood("acute", draw_hu(rng, "acute"))
    if rng.random() < 0.5:
        return Blood("hyperacute", draw_hu(rng, "hyperacute"))
    return Blood("acute", draw_hu(rng, "acute"), float(rng.uniform(36, 46)), "mixed", y_mm)


def draw_clot(rng: Rng, difficulty: float, y_mm: float) -> Blood:
    """Blood in the brain around some y: fresh, seldom subacute, or with a level where it cannot clot (anticoagulation)."""
    if rng.random() < 0.2 * difficulty:
        return Blood("subacute", draw_hu(rng, "subacute"))
    if rng.random() < 0.15 * difficulty:
        return Blood("acute", draw_hu(rng, "acute"), float(rng.uniform(*PLASMA)), "level", y_mm + float(rng.normal(0, 2)))
    return draw_fresh(rng, difficulty, y_mm)


def draw_subdural(rng: Rng, difficulty: float, y_mm: float) -> Blood:
    """Blood under the dura around some y: of any age, of two ages, or settled."""
    if rng.random() >= 0.75 * difficulty:
        return Blood("acute", draw_hu(rng, "acute"))
    kind = rng.choice(list(OTHER_SUBDURALS), p=list(OTHER_SUBDURALS.values()))
    level = y_mm + float(rng.uniform(0, 18))
    if kind == "level":  # cells of a subacute bleeding below their plasma
        return Blood("subacute", draw_hu(rng, "subacute") + 3, float(rng.uniform(*PLASMA)) - 4, "level", level)
    if kind == "acute on chronic":
        return Blood("acute", draw_hu(rng, "acute"), draw_hu(rng, "chronic"), "level", level)
    if kind == "mixed":
        return Blood("acute", draw_hu(rng, "acute"), draw_hu(rng, "chronic"), "mixed", y_mm)
    age: Age = "subacute" if kind == "subacute" else "chronic" if kind == "chronic" else "hyperacute"
    return Blood(age, draw_hu(rng, age))
