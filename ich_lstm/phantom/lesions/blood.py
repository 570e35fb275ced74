"""Blood: its density by age, and its layering when it settles."""

from typing import Literal, NamedTuple

import numpy as np

from ich_lstm.phantom.anatomy.shapes import Array, cover
from ich_lstm.phantom.anatomy.tissues import BLOOD, PLASMA, Age
from ich_lstm.phantom.draws import Rng
from ich_lstm.phantom.scanner.slab import Slab

Pattern = Literal["even", "level", "mixed"]

TEXTURE_HU = 1.5
"""Standard deviation of the density within one clot."""

MARGIN_HU = 4.0
"""Distance in HU from the ends of a range within which densities are drawn, so that the texture stays in the range."""

OTHER_SUBDURALS = {"subacute": 0.2, "chronic": 0.3, "level": 0.15, "acute on chronic": 0.15, "mixed": 0.12, "hyperacute": 0.08}
"""Shares of the kinds of subdural blood that is not simply acute."""


class Blood(NamedTuple):
    """The blood of one lesion.

    Args:
        age: Age of the densest part.
        hu: Attenuation of the densest part.
        other_hu: Attenuation of the second part; None if there is only one.
        pattern: ``even`` for one part; ``level`` for a fluid level with the dense part behind, as cells settle below plasma in
            a supine patient; ``mixed`` for two parts in streaks and clots.
        level_mm: Position y of the fluid level; in a mixture the dense part lies mostly behind it.
    """

    age: Age
    hu: float
    other_hu: float | None = None
    pattern: Pattern = "even"
    level_mm: float = 0.0

    @property
    def holds_old(self) -> bool:
        """Whether a part of the blood is chronic."""
        old_part = self.other_hu is not None and self.age == "acute" and self.other_hu <= BLOOD["chronic"].high
        return self.age == "chronic" or old_part

    def attenuation(self, slab: Slab, texture: Array) -> Array:
        """Attenuation in HU of every sample; ``texture`` is a smooth variation of unit variance."""
        hu = np.float32(self.hu) + np.clip(texture, -2, 2) * np.float32(TEXTURE_HU)
        if self.other_hu is not None:
            if self.pattern == "level":
                # A fluid level is flat to within a pixel, which distinguishes it from a clot.
                other = cover(slab.y - np.float32(self.level_mm), 1.2)
            else:
                # Clots are suspended in the fluid, and more of them lie towards the back.
                other = cover(texture + (slab.y - np.float32(self.level_mm)) * np.float32(0.07), 1.0)
            hu += other * np.float32(self.other_hu - self.hu)
        return hu


def draw_hu(rng: Rng, age: Age) -> float:
    """Draw the attenuation of blood of a given age."""
    low, high = BLOOD[age].low + MARGIN_HU, BLOOD[age].high - MARGIN_HU
    return float(low + (high - low) * rng.beta(2.0, 2.6))


def draw_fresh(rng: Rng, difficulty: float, y_mm: float) -> Blood:
    """Draw recent blood around y = ``y_mm``: mostly clotted; active bleeding is darker, or swirls in the clot."""
    if rng.random() >= 0.3 * difficulty:
        return Blood("acute", draw_hu(rng, "acute"))
    if rng.random() < 0.5:
        return Blood("hyperacute", draw_hu(rng, "hyperacute"))
    return Blood("acute", draw_hu(rng, "acute"), float(rng.uniform(36, 46)), "mixed", y_mm)


def draw_clot(rng: Rng, difficulty: float, y_mm: float) -> Blood:
    """Draw blood in the brain around y = ``y_mm``: recent, rarely subacute, or with a fluid level (anticoagulation)."""
    if rng.random() < 0.2 * difficulty:
        return Blood("subacute", draw_hu(rng, "subacute"))
    if rng.random() < 0.15 * difficulty:
        return Blood("acute", draw_hu(rng, "acute"), float(rng.uniform(*PLASMA)), "level", y_mm + float(rng.normal(0, 2)))
    return draw_fresh(rng, difficulty, y_mm)


def draw_subdural(rng: Rng, difficulty: float, y_mm: float) -> Blood:
    """Draw subdural blood around y = ``y_mm``: of any age, of two ages, or with a fluid level."""
    if rng.random() >= 0.75 * difficulty:
        return Blood("acute", draw_hu(rng, "acute"))
    kind = rng.choice(list(OTHER_SUBDURALS), p=list(OTHER_SUBDURALS.values()))
    level = y_mm + float(rng.uniform(0, 18))
    if kind == "level":  # the cells of subacute blood below their plasma
        return Blood("subacute", draw_hu(rng, "subacute") + 3, float(rng.uniform(*PLASMA)) - 4, "level", level)
    if kind == "acute on chronic":
        return Blood("acute", draw_hu(rng, "acute"), draw_hu(rng, "chronic"), "level", level)
    if kind == "mixed":
        return Blood("acute", draw_hu(rng, "acute"), draw_hu(rng, "chronic"), "mixed", y_mm)
    age: Age = "subacute" if kind == "subacute" else "chronic" if kind == "chronic" else "hyperacute"
    return Blood(age, draw_hu(rng, age))
