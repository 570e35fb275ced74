"""Slices of the neck, for scans that begin below the head."""

from dataclasses import replace

import numpy as np

from ich_lstm.phantom import identifiers
from ich_lstm.phantom.anatomy.shapes import Array
from ich_lstm.phantom.anatomy.tissues import AIR_HU
from ich_lstm.phantom.draws import stream
from ich_lstm.phantom.scan import PhantomScan
from ich_lstm.phantom.settings import PhantomSettings
from ich_lstm.scan import HU_MAX

NECK_MM = (58.0, 66.0)
"""Half of the neck's width and of its depth."""

SPINE_MM, CANAL_MM, AIRWAY_MM = 17.0, 8.0, 9.0
SPINE_BACK_MM, AIRWAY_FRONT_MM = 22.0, 18.0
MUSCLE_HU, BONE_HU, CORD_HU = 55.0, 450.0, 30.0


def with_neck(scan: PhantomScan, settings: PhantomSettings, patient: int, slices: int) -> PhantomScan:
    """Add slices of the neck, without brain or hemorrhage, below a scan.

    Args:
        scan: Scan of a head.
        settings: Settings from which the scan was made.
        patient: Number of the scan's patient.
        slices: Number of slices to add, with the spacing of the scan.

    Returns:
        The scan with the slices of the neck first.
    """
    acquisition = scan.acquisition
    start = acquisition.image_position(-slices)
    noise = stream(settings.seed, patient, "neck").normal(0, acquisition.noise_hu, (slices, *scan.hu.shape[1:]))
    neck = np.clip(np.rint(_section(scan) + noise), scan.storage.floor_hu, HU_MAX).astype(np.int16)
    if acquisition.padded:
        neck[:, acquisition.outside_circle()] = scan.storage.floor_hu
    added = range(len(scan.hu), len(scan.hu) + slices)
    code = scan.reconstruction.code
    uids = tuple(identifiers.slice_identifier(settings.seed, patient, i, code) for i in added)
    return replace(
        scan,
        hu=np.concatenate([neck, scan.hu]),
        slice_labels=_below(scan.slice_labels, slices),
        visible=_below(scan.visible, slices),
        masks=_below(scan.masks, slices, axis=1),
        brain=_below(scan.brain, slices),
        ventricles=_below(scan.ventricles, slices),
        acquisition=replace(acquisition, slices=acquisition.slices + slices, origin=start),
        sop_uids=(*uids, *scan.sop_uids),
    )


def _below(values: Array, slices: int, axis: int = 0) -> Array:
    """The values with zeros for the added slices before them."""
    widths = [(slices if i == axis else 0, 0) for i in range(values.ndim)]
    return np.pad(values, widths)


def _section(scan: PhantomScan) -> Array:
    """One slice of the neck with muscles, a vertebra with its canal, and the airway: HU ``(h, w)``."""
    acquisition = scan.acquisition
    index = np.arange(acquisition.size) * acquisition.pixel_mm
    x = (index + acquisition.origin[0] - acquisition.head_center[0])[None, :]
    y = (index * acquisition.cos_tilt + acquisition.origin[1] - acquisition.head_center[1])[:, None]
    hu = np.full((acquisition.size, acquisition.size), AIR_HU)
    hu[np.square(x / NECK_MM[0]) + np.square(y / NECK_MM[1]) < 1] = MUSCLE_HU
    from_spine = np.hypot(x, y - SPINE_BACK_MM)
    hu[from_spine < SPINE_MM] = BONE_HU
    hu[from_spine < CANAL_MM] = CORD_HU
    hu[np.hypot(x, y + AIRWAY_FRONT_MM) < AIRWAY_MM] = AIR_HU
    return hu
