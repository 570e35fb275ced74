"""A few positive slices of each label as shareable pictures that show only the inside of the skull."""

import hashlib
import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ich_lstm.data.joining.join import LabelledScan
from ich_lstm.data.prepared.scan_cache import read_cached
from ich_lstm.errors import CacheError, UnexpectedError
from ich_lstm.labels import LABELS
from ich_lstm.preprocessing.inside_skull import cavity_hull, slice_cavity
from ich_lstm.scan import HU_MIN
from ich_lstm.unexpected import one_of_many

logger = logging.getLogger(__name__)

TILES = 6
"""Number of pictures per label."""

TRIES = 24
"""Number of scans searched for these pictures; some scans have no slice that can be shown."""

FIELD_MM = 250.0
"""Assumed width of a picture, because prepared scans hold no pixel size: the usual field of view of a head."""

MIN_CAVITY = 0.12
"""Smallest share of the picture that a closed cavity must fill to be taken for the brain."""

LOWEST_SHOWN = 0.35
"""Lowest part of the scan, which holds the face and skull base and is never shown."""

NOT_SHOWN = {"burned_in"}
"""Flags of scans that are never shown, because text in the pixels can name the patient."""


class Tile(NamedTuple):
    """One picture of the montage.

    Args:
        hu: HU of the slice, int16 ``(h, w)``, with air outside the cranial cavity.
        scan_id: Keyed hash of the series.
        slice: Number of the slice, from 1, inferior to superior.
        labels: Labels present in the slice, or in its scan where labels of slices are unknown.
    """

    hu: np.ndarray
    scan_id: str
    slice: int
    labels: tuple[str, ...]


def choose_tiles(scans: Sequence[LabelledScan], flags: dict[str, str]) -> dict[str, list[Tile]]:
    """Choose positive slices of each label, at most one per patient, in an order given by a hash of the scans.

    Args:
        scans: Scans to choose from; preferably training scans, so that nobody looks at held-out ones.
        flags: The flags of each scan (codes separated by blanks) by the name of its cached file.

    Returns:
        The pictures of each label that has any.
    """
    shown = [scan for scan in scans if not NOT_SHOWN & set(flags.get(scan.cache_path.name, "").split())]
    ordered = sorted(shown, key=lambda scan: hashlib.sha256(scan.scan_id.encode()).digest())
    montages = {}
    for k, label in enumerate(LABELS):
        positive = [scan for scan in ordered if scan.scan_labels[k] == 1 or (scan.slice_labels[:, k] == 1).any()]
        tiles: list[Tile] = []
        patients: set[str] = set()
        for scan in positive[:TRIES]:
            if len(tiles) < TILES and scan.patient_id not in patients:
                tile = next(_tiles_of(scan, k), None)
                if tile is not None:
                    tiles.append(tile)
                    patients.add(scan.patient_id)
        if tiles:
            montages[label] = tiles
    return montages


def cut_out_brain(hu: np.ndarray) -> np.ndarray | None:
    """Replace everything outside the cranial cavity and the bone around it with air.

    A slice in which no bone encloses a large cavity is not shown: it shows the skull base or the face, or the skull is open after
    surgery.

    Args:
        hu: HU of one slice, int16 ``(h, w)``.

    Returns:
        int16 ``(h, w)``, or None if there is no such cavity.
    """
    pixel_mm = FIELD_MM / min(hu.shape)
    cavity = slice_cavity(hu, pixel_mm, pixel_mm)
    if np.count_nonzero(cavity) < MIN_CAVITY * hu.size:
        return None
    return np.where(cavity_hull(cavity, pixel_mm, pixel_mm), hu, np.int16(HU_MIN))


def brain_if_possible(hu: np.ndarray, where: str) -> np.ndarray | None:
    """Cut out the brain as `cut_out_brain` does; None, with a warning, at an error that nobody foresaw.

    Args:
        hu: HU of one slice, int16 ``(h, w)``.
        where: Name of the slice for the warning, which may be shared.
    """
    try:
        with one_of_many(where):
            return cut_out_brain(hu)
    except UnexpectedError as error:
        logger.warning("a picture is not shown: %s", error)
        return None


def _tiles_of(scan: LabelledScan, k: int) -> Iterator[Tile]:
    """Slices of a scan that can be shown for a label: the positive slices, or all slices where labels of slices are unknown."""
    positive = np.flatnonzero(scan.slice_labels[:, k] == 1)
    if not len(positive):
        positive = np.flatnonzero(np.isnan(scan.slice_labels[:, k]))
    count = len(scan.slice_labels)
    positive = positive[positive >= LOWEST_SHOWN * count]
    if not len(positive):
        return
    try:
        hu = read_cached(scan.cache_path).hu
    except CacheError:
        return  # training will report the damaged cache, and how to repair it
    # Outwards from the middle of the positive slices, where a bleed is largest.
    for n in positive[np.argsort(np.abs(positive - np.median(positive)), kind="stable")].tolist():
        picture = brain_if_possible(hu[n], f"slice {n + 1} of scan {scan.scan_id}")
        if picture is not None:
            labels = scan.slice_labels[n] if not np.isnan(scan.slice_labels[n]).any() else scan.scan_labels
            present = tuple(label for label, value in zip(LABELS, labels, strict=True) if value == 1)
            yield Tile(picture, scan.scan_id, n + 1, present)
