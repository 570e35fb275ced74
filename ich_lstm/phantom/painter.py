"""Composes head, brain, blood and injuries slice by slice, and counts what is visible."""

from dataclasses import dataclass

import numpy as np

from ich_lstm.labels import HEMORRHAGE_TYPES
from ich_lstm.phantom.anatomy.brain import draw_brain
from ich_lstm.phantom.anatomy.head import behind_tentorium, inner_distance
from ich_lstm.phantom.anatomy.shapes import Array, Texture, cover, paint
from ich_lstm.phantom.anatomy.skull import Grain, draw_outside
from ich_lstm.phantom.anatomy.vessels import Enhancement, enhancement
from ich_lstm.phantom.lesions.intraaxial import Clot
from ich_lstm.phantom.lesions.lesion import Lesion, Place, displace
from ich_lstm.phantom.patient import Patient
from ich_lstm.phantom.scanner.acquisition import Acquisition
from ich_lstm.phantom.scanner.slab import Slab, bounding_box

SEEN_HU = 8.0
"""Smallest contrast, twice the usual noise, at which a pixel of blood counts as visible."""

UNHIDDEN = 0.9
"""Smallest share of a pixel inside the skull at which its blood counts: a tenth of bone outshines blood, as at the vertex."""

BEND_MM, BEND_GRAIN_MM = 1.3, 24.0
"""Amplitude and grain of a smooth deformation of every brain, so that no structure is a perfect ellipsoid."""


@dataclass(eq=False)
class Layer:
    """One slice, averaged over its planes.

    Args:
        hu: Hounsfield units in the box around the head, ``(h, w)``.
        blood: Share of each pixel that is blood of each type, ``(5, h, w)``.
        contrast: Contrast of each type in HU, summed over the pixels where it is visible, ``(5,)``.
        brain: Share of each pixel that lies inside the skull, ``(h, w)``.
        ventricles: Share of each pixel that lies in the ventricles, ``(h, w)``.
    """

    hu: Array
    blood: Array
    contrast: Array
    brain: Array
    ventricles: Array


class Painter:
    """Paints slice after slice of one patient.

    Args:
        patient: The patient, with head and lesions.
        acquisition: Geometry of the slices.
        height_mm: Height of the acquisition, which does not depend on the slice thickness.
        contrast: Whether a contrast agent was given.
        rng: Source of the textures; the same generator gives the same head in every reconstruction.
    """

    def __init__(
        self, patient: Patient, acquisition: Acquisition, height_mm: float, contrast: bool, rng: np.random.Generator
    ) -> None:
        self._patient, self._head, self._acquisition = patient, patient.head, acquisition
        self._pushes = patient.pushes
        self._vessels: Enhancement = enhancement(patient.head.sinus_hu, patient.head.dura_hu, contrast)
        self._box = acquisition.head_box(patient.head)
        self._shape = tuple(part.stop - part.start for part in self._box)
        extent = (height_mm, *(side * acquisition.pixel_mm for side in self._shape))
        self._textures = [Texture(rng, extent, grain) for grain in (60.0, 9.0, 3.6)]
        self._bends = [Texture(rng, extent, BEND_GRAIN_MM) for _ in range(2)]

    def paint(self, index: int) -> Layer:
        """Paint one slice; slice 0 is the lowest."""
        acquisition = self._acquisition
        slab = acquisition.slab(index, self._head, self._box)
        planes = acquisition.planes
        depths = (index + (np.arange(planes) + 0.5) / planes) * acquisition.spacing_mm
        grain = Grain(*(texture.planes(depths, self._shape) for texture in self._textures))
        inner, vault = inner_distance(self._head, *slab.points)
        hu = draw_outside(self._head, slab, inner, vault, grain, self._patient.injuries)
        blood = np.zeros((len(HEMORRHAGE_TYPES), *self._shape), np.float32)
        contrast = np.zeros(len(HEMORRHAGE_TYPES), np.float32)
        inside = np.zeros(self._shape, np.float32)
        ventricles = np.zeros(self._shape, np.float32)
        if cut := bounding_box(inner < 1.5):
            bends = [bend.planes(depths, self._shape)[cut] for bend in self._bends]
            place = self._brain_place(slab.cut(cut), inner[cut], vault[cut], grain.middle[cut], bends)
            inside[cut[1:]] = place.inside.mean(axis=0)
            for mimic in self._patient.mimics:
                mimic.draw(place)
            for kind, (share, seen) in _bleed(self._patient.lesions, place).items():
                blood[kind][cut[1:]] = share
                contrast[kind] = seen[(seen > SEEN_HU) & (inside[cut[1:]] > UNHIDDEN)].sum()
            paint(hu[cut], place.brain.hu, place.inside)
            ventricles[cut[1:]] = (cover(place.brain.ventricles, 1.0) * place.inside).mean(axis=0)
        return Layer(hu.mean(axis=0), blood, contrast, inside, ventricles)

    def _brain_place(self, slab: Slab, inner: Array, vault: Array, texture: Array, bends: list[Array]) -> Place:
        # The deformation vanishes towards the midline, because the falx is stretched tight.
        aside = np.float32(BEND_MM) * bends[0] * np.minimum(np.abs(slab.x) * np.float32(0.07), 1)
        bent = Slab(slab.x + aside, slab.y + np.float32(BEND_MM) * bends[1], slab.z, slab.pixel_mm)
        moved, effaced = displace(bent, self._pushes)
        brain = draw_brain(self._head, moved, -inner, texture, effaced, self._vessels)
        fossa = behind_tentorium(*slab.points, 1.0)
        return Place(slab, moved, brain, cover(inner, slab.pixel_mm), -vault, fossa, texture)


def _bleed(lesions: tuple[Lesion, ...], place: Place) -> dict[int, tuple[Array, Array]]:
    """Paint the lesions into the brain; return, per type, the share of blood in each pixel and its contrast there."""
    shares: dict[int, Array] = {}
    seen: dict[int, Array] = {}
    for lesion in lesions:
        weight = lesion.weight(place)
        if weight is None:
            continue
        weight *= place.inside
        hu = lesion.blood.attenuation(place.slab, place.texture)
        contrast = np.maximum(np.abs(hu - place.brain.hu), np.float32(lesion.betrayed_hu)) * weight
        if isinstance(lesion, Clot):
            lesion.paint_oedema(place)
        paint(place.brain.hu, hu, weight)
        # This lesion hides what it covers of the lesions painted before it.
        for earlier in (*shares.values(), *seen.values()):
            earlier *= 1 - weight
        kind = HEMORRHAGE_TYPES.index(lesion.kind)
        shares[kind] = shares.get(kind, 0) + weight
        seen[kind] = seen.get(kind, 0) + contrast
    return {kind: (shares[kind].mean(axis=0), seen[kind].mean(axis=0)) for kind in shares}
