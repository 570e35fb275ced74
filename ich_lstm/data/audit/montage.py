"""A few positive slices of each label as shareable pictures that show only the inside of the skull."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from ich_lstm.data.joining.join import LabelledScan
from ich_lstm.data.prepared.scan_cache import read_cached
from ich_lstm.errors import CacheError
from ich_lstm.labels import LABELS
from ich_lstm.preprocessing.inside_skull import cavity_hull, slice_cavity
from ich_lstm.scan import HU_MIN

TILES = 6
"""Pictures of each label."""

TRIES = 24
"""Scans looked at for them; some have no slice that can be shown."""

FIELD_MM = 250.0
"""Prepared scans hold no pixel size: a picture counts as so wide, which is the usual field of view of a head."""

MIN_CAVITY = 0.12
"""Share of the picture below which a closed cavity is none of the brain, or too little of it to judge by."""

LOWEST_SHOWN = 0.35
"""Part of the scan, from below, that holds face and skull base, and of which nothing is shown."""

NOT_SHOWN = {"burned_in"}
"""Flags of scans of which nothing is shown: text in the pixels can name the patient."""


class Tile(NamedTuple):
    """One picture.

    Args:
        hu: int16 ``(h, w)``, air outside the cranial cavity.
        scan_id: Keyed hash of the series.
        slice: Number of the slice, from 1, inferior to superior.
        labels: What is present in it (or in its scan, where single slices are unknown).
    """

    hu: np.ndarray
    scan_id: str
    slice: int
    labels: tuple[str, ...]


def choose_tiles(scans: Sequence[LabelledScan], flags: dict[str, str]) -> dict[str, list[Tile]]:
    """Positive slices of each label, at most one of a patient, in an order that is a hash of the scans.

    Args:
        scans: Scans to choose from; best the training ones, so that nobody looks at what is held out.
        flags: The flags of each scan (codes with blanks between) by the name of its cached file.

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
    """A slice with air in place of everything outside the cranial cavity and the bone around it.

    A slice in which no bone closes off a large cavity shows the skull base or the face, or is open after surgery, and is not
    for showing.

    Args:
        hu: int16 ``(h, w)``.

    Returns:
        int16 ``(h, w)``, or None if there is no such cavity.
    """
    pixel_mm = FIELD_MM / min(hu.shape)
    cavity = slice_cavity(hu, pixel_mm, pixel_mm)
    if np.count_nonzero(cavity) < MIN_CAVITY * hu.size:
        return None
    return np.where(cavity_hull(cavity, pixel_mm, pixel_mm), hu, np.int16(HU_MIN))


def _tiles_of(scan: LabelledScan, k: int) -> Iterator[Tile]:
    """Slices of a scan that can be shown for a label: the positive ones, or all where single ones are unknown."""
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
        return  # the training will say so, and how to mend it
    # From the middle of what is positive outwards: there a bleed is largest.
    for n in positive[np.argsort(np.abs(positive - np.median(positive)), kind="stable")].tolist():
        picture = cut_out_brain(hu[n])
        if picture is not None:
            labels = scan.slice_labels[n] if not np.isnan(scan.slice_labels[n]).any() else scan.scan_labels
            present = tuple(label for label, value in zip(LABELS, labels, strict=True) if value == 1)
            yield Tile(picture, scan.scan_id, n + 1, present)
