"""The localizer (scout view): a lateral projection of the head on which the slices are planned."""

import numpy as np

from ich_lstm.phantom.anatomy.head import inner_distance
from ich_lstm.phantom.anatomy.shapes import Array, cover, paint
from ich_lstm.phantom.anatomy.skull import Grain, draw_outside
from ich_lstm.phantom.draws import stream
from ich_lstm.phantom.patient import draw_patient
from ich_lstm.phantom.scanner.slab import Slab
from ich_lstm.phantom.settings import PhantomSettings

FIELD_MM = 260.0
"""Side length of the image in mm."""

RAYS_MM = 2.5
"""Distance in mm of the sagittal planes whose sum is the projection."""

BRAIN_HU = 32.0
HU_PER_WATER_MM = 4.0
"""Increase of the pixel value per mm of water along a ray: 150 mm of head give about -400, and with bone about 0."""


def make_localizer(settings: PhantomSettings, patient: int) -> Array:
    """Make the lateral scout view of one patient: face to the left, vertex up.

    Args:
        settings: Settings of the data set; ``settings.size`` is the side length of the image in pixels.
        patient: Number of the patient, from 0.

    Returns:
        Attenuation along each ray on the scale of Hounsfield units, as scanners store it: int16 ``(size, size)``.

    Example:
        >>> make_localizer(PhantomSettings(size=64), 0).shape
        (64, 64)
    """
    person = draw_patient(settings, patient)
    pixel = FIELD_MM / settings.size
    along = (np.arange(settings.size, dtype=np.float32) - np.float32((settings.size - 1) / 2)) * np.float32(pixel)
    across = np.arange(-96, 97, RAYS_MM, dtype=np.float32)
    x, z, y = (v.astype(np.float32) for v in np.meshgrid(across, 10 - along, along - 12, indexing="ij"))
    slab = Slab(x, y, z, pixel)
    inner, vault = inner_distance(person.head, x, y, z)
    smooth = np.zeros_like(x)
    hu = draw_outside(person.head, slab, inner, vault, Grain(smooth, smooth, smooth), person.injuries)
    paint(hu, BRAIN_HU, cover(inner, slab.pixel_mm))
    water_mm = np.maximum(hu + 1000, 0).sum(axis=0) * np.float32(RAYS_MM / 1000)
    noise = stream(settings.seed, patient, "localizer").normal(0, 4 * settings.noise, water_mm.shape)
    return np.clip(np.rint(HU_PER_WATER_MM * water_mm - 1000 + noise), -1024, 3071).astype(np.int16)
