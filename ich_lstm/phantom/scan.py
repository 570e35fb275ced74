"""One patient: anatomy, blood and scanner put together, with the truth about every slice."""

from dataclasses import dataclass, field, replace

import numpy as np

from ich_lstm.labels import HEMORRHAGE_TYPES
from ich_lstm.phantom import identifiers
from ich_lstm.phantom.acquisition import PLANES_PER_SLICE, Acquisition, draw_acquisition
from ich_lstm.phantom.anatomy import Head, behind_tentorium, draw_head, inner_distance
from ich_lstm.phantom.bleeding import draw_lesions
from ich_lstm.phantom.brain import draw_brain
from ich_lstm.phantom.lesions import Clot, Lesion, Place, Push, VentricleBlood, displace
from ich_lstm.phantom.settings import PhantomSettings
from ich_lstm.phantom.shapes import Array, Texture, cover, paint
from ich_lstm.phantom.skull import Grain, draw_outside
from ich_lstm.phantom.slab import Slab, bounding_box
from ich_lstm.phantom.storage import Storage, draw_storage
from ich_lstm.scan import HU_MAX

VISIBLE_HU_MM2 = 1000.0
"""A type is present in a slice if its blood adds up to this much contrast times area, partial volume included: for
instance 40 mm² at 25 HU, or a clot 6 mm wide at 35 HU. Less is not to be seen in the noise of the image."""

SEEN_HU = 8.0
"""A pixel that blood brightens by less than this, twice the usual noise, does not count."""

UNHIDDEN = 0.9
"""Nor does a pixel that holds more bone than the rest: a tenth of it outshines blood, as at the vertex."""

HYDROCEPHALUS = 1.25
"""Blood in the ventricles dams up the CSF and widens them by this factor."""

BLOOD_TEXTURE_HU = 2.5

BEND_MM, BEND_GRAIN_MM = 1.3, 24.0
"""Every brain is bent a little, by this much from place to place: no structure is a perfect ellipsoid."""


@dataclass(frozen=True, eq=False, kw_only=True)
class PhantomScan:
    """A synthetic scan with its truth; slices ordered inferior to superior, in the radiological display convention.

    Args:
        hu: Hounsfield units, int16 ``(n, h, w)``, as a reader of the files should get them.
        slice_labels: uint8 ``(n, 6)`` in the order of `LABELS`: what can be seen in the slice.
        visible: Contrast times area per slice and type in HU mm², float32 ``(n, 5)``; the labels are this, thresholded.
        masks: Where each type covers at least half of a pixel, bool ``(5, n, h, w)``.
        brain: The inside of the skull, bool ``(n, h, w)``.
        ventricles: The ventricles, blood in them included, bool ``(n, h, w)``.
        acquisition: The scan's geometry.
        storage: How the HU are stored in DICOM.
        sop_uids: One identifier per slice.
        series_uid: Identifier of the series.
        study_uid: Identifier of the study.
        patient_id: Identifier of the patient.
    """

    hu: Array = field(repr=False)
    slice_labels: Array = field(repr=False)
    visible: Array = field(repr=False)
    masks: Array = field(repr=False)
    brain: Array = field(repr=False)
    ventricles: Array = field(repr=False)
    acquisition: Acquisition = field(repr=False)
    storage: Storage
    sop_uids: tuple[str, ...] = field(repr=False)
    series_uid: str
    study_uid: str
    patient_id: str

    @property
    def positions_mm(self) -> Array:
        """Position of each slice along the slice normal, float64 ``(n,)``."""
        return np.array([self.acquisition.image_position(i) @ self.acquisition.normal for i in range(len(self.hu))])

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance of slices, rows and columns."""
        return self.acquisition.spacing_mm, self.acquisition.pixel_mm, self.acquisition.pixel_mm

    @property
    def tilt_degrees(self) -> float:
        """Angle between the slice normal and the table."""
        return self.acquisition.tilt_degrees


def make_head(settings: PhantomSettings, patient: int) -> PhantomScan:
    """Make one patient's scan: a pure function of the settings and the patient's number.

    Args:
        settings: The set to which the patient belongs; ``settings.patients`` plays no part.
        patient: Number of the patient, from 0.

    Example:
        >>> make_head(PhantomSettings(slices=8, size=48), 0).slice_labels.shape
        (8, 6)
    """
    # One stream per concern, so that a change of the noise, say, leaves the anatomy as it is.
    streams = np.random.SeedSequence([settings.seed, patient]).spawn(6)
    anatomy_rng, blood_rng, scanner_rng, texture_rng, noise_rng, storage_rng = map(np.random.default_rng, streams)
    head = draw_head(anatomy_rng)
    lesions = draw_lesions(blood_rng, head, settings.prevalence)
    if any(isinstance(lesion, VentricleBlood) for lesion in lesions):
        head = replace(head, ventricle=head.ventricle * HYDROCEPHALUS)
    acquisition = draw_acquisition(scanner_rng, settings, head)
    storage = draw_storage(storage_rng)
    painter = _Painter(head, lesions, acquisition, texture_rng)
    background, outside = acquisition.background(), acquisition.outside_circle()

    shape = (acquisition.slices, settings.size, settings.size)
    hu = np.empty(shape, np.int16)
    visible = np.zeros((shape[0], len(HEMORRHAGE_TYPES)), np.float32)
    masks = np.zeros((len(HEMORRHAGE_TYPES), *shape), bool)
    brain, ventricles = np.zeros(shape, bool), np.zeros(shape, bool)
    box = acquisition.head_box(head)
    for i in range(acquisition.slices):
        layer = painter.paint(i)
        picture = background.copy()
        # Never darker than what stands there: the holder stays where the head's box is empty.
        picture[box] = np.maximum(picture[box], layer.hu)
        picture = acquisition.expose(noise_rng, picture)
        if acquisition.padded:
            picture[outside] = storage.floor_hu
        hu[i] = np.clip(np.rint(picture), storage.floor_hu, HU_MAX)
        visible[i] = layer.contrast * acquisition.pixel_mm**2
        masks[:, i, box[0], box[1]] = layer.blood >= 0.5
        brain[i][box] = layer.brain >= 0.5
        ventricles[i][box] = layer.ventricles >= 0.5
    types = visible >= VISIBLE_HU_MM2
    labels = np.concatenate([types, types.any(axis=1, keepdims=True)], axis=1).astype(np.uint8)
    return PhantomScan(
        hu=hu,
        slice_labels=labels,
        visible=visible,
        masks=masks,
        brain=brain,
        ventricles=ventricles,
        acquisition=acquisition,
        storage=storage,
        sop_uids=tuple(identifiers.slice_identifier(settings.seed, patient, i) for i in range(shape[0])),
        series_uid=identifiers.series_identifier(settings.seed, patient),
        study_uid=identifiers.study_identifier(settings.seed, patient),
        patient_id=identifiers.patient_identifier(settings.seed, patient),
    )


@dataclass(eq=False)
class _Layer:
    """One slice, averaged over its planes; blood ``(5, h, w)``, contrast summed per type ``(5,)``."""

    hu: Array
    blood: Array
    contrast: Array
    brain: Array
    ventricles: Array


class _Painter:
    """Paints slice after slice of one patient."""

    def __init__(self, head: Head, lesions: tuple[Lesion, ...], acquisition: Acquisition, rng: np.random.Generator) -> None:
        self._head, self._lesions, self._acquisition = head, lesions, acquisition
        self._pushes: tuple[Push, ...] = tuple(lesion.push for lesion in lesions if lesion.push)
        self._box = acquisition.head_box(head)
        self._shape = tuple(part.stop - part.start for part in self._box)
        extent = (acquisition.slices * acquisition.spacing_mm, *(side * acquisition.pixel_mm for side in self._shape))
        self._textures = [Texture(rng, extent, grain) for grain in (60.0, 9.0, 3.6)]
        self._bends = [Texture(rng, extent, BEND_GRAIN_MM) for _ in range(2)]

    def paint(self, index: int) -> _Layer:
        head, slab = self._head, self._acquisition.slab(index, self._head, self._box)
        spacing = self._acquisition.spacing_mm
        depths = (index + (np.arange(PLANES_PER_SLICE) + 0.5) / PLANES_PER_SLICE) * spacing
        grain = Grain(*(texture.planes(depths, self._shape) for texture in self._textures))
        inner, vault = inner_distance(head, *slab.points)
        hu = draw_outside(head, slab, inner, vault, grain)
        blood = np.zeros((len(HEMORRHAGE_TYPES), *self._shape), np.float32)
        contrast = np.zeros(len(HEMORRHAGE_TYPES), np.float32)
        inside = np.zeros(self._shape, np.float32)
        ventricles = np.zeros(self._shape, np.float32)
        if cut := bounding_box(inner < 1.5):
            bends = [bend.planes(depths, self._shape)[cut] for bend in self._bends]
            place = self._brain_place(slab.cut(cut), inner[cut], vault[cut], grain.middle[cut], bends)
            inside[cut[1:]] = place.inside.mean(axis=0)
            for kind, (share, brighter) in _bleed(self._lesions, place).items():
                blood[kind][cut[1:]] = share
                contrast[kind] = brighter[(brighter > SEEN_HU) & (inside[cut[1:]] > UNHIDDEN)].sum()
            paint(hu[cut], place.brain.hu, place.inside)
            ventricles[cut[1:]] = (cover(place.brain.ventricles, 1.0) * place.inside).mean(axis=0)
        return _Layer(hu.mean(axis=0), blood, contrast, inside, ventricles)

    def _brain_place(self, slab: Slab, inner: Array, vault: Array, texture: Array, bends: list[Array]) -> Place:
        # Towards the midline less: the falx is stretched tight.
        aside = np.float32(BEND_MM) * bends[0] * np.minimum(np.abs(slab.x) * np.float32(0.07), 1)
        bent = Slab(slab.x + aside, slab.y + np.float32(BEND_MM) * bends[1], slab.z, slab.pixel_mm)
        moved, effaced = displace(bent, self._pushes)
        brain = draw_brain(self._head, moved, -inner, texture, effaced)
        fossa = behind_tentorium(*slab.points, 1.0)
        return Place(slab, moved, brain, cover(inner, slab.pixel_mm), -vault, fossa, texture)


def _bleed(lesions: tuple[Lesion, ...], place: Place) -> dict[int, tuple[Array, Array]]:
    """Paint the lesions into the brain; per type the share of each pixel that is blood, and how much brighter it made it."""
    shares: dict[int, Array] = {}
    brighter: dict[int, Array] = {}
    for lesion in lesions:
        weight = lesion.weight(place)
        if weight is None:
            continue
        weight *= place.inside
        before = place.brain.hu.copy()
        if isinstance(lesion, Clot):
            lesion.paint_oedema(place)
        paint(place.brain.hu, np.float32(lesion.hu) + np.float32(BLOOD_TEXTURE_HU) * place.texture, weight)
        # What this lesion covers is no longer seen of those before it.
        for earlier in (*shares.values(), *brighter.values()):
            earlier *= 1 - weight
        kind = HEMORRHAGE_TYPES.index(lesion.kind)
        shares[kind] = shares.get(kind, 0) + weight
        brighter[kind] = brighter.get(kind, 0) + np.maximum(place.brain.hu - before, 0) * place.inside
    return {kind: (shares[kind].mean(axis=0), brighter[kind].mean(axis=0)) for kind in shares}
