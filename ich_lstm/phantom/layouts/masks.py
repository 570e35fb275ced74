"""Masks of a scan on disk, next to its images."""

from pathlib import Path

import numpy as np

from ich_lstm.phantom.scan import PhantomScan

MASK_FILES = "masks/*.npy"
"""Where they lie in a set, whatever its layout."""


def write_masks(scan: PhantomScan, name: str, folder: Path) -> None:
    """Write ``masks/<name>.npy`` below a set's folder: uint8 ``(n, h, w)``, inferior to superior.

    Bit k, counted from the lowest, is set where the k-th of `HEMORRHAGE_TYPES` covers at least half of the pixel.

    Args:
        scan: With its masks.
        name: Of the series: its UID, or its file without suffix where the format has no UIDs.
        folder: Of the set.
    """
    bits = np.packbits(scan.masks, axis=0, bitorder="little")[0]
    (folder / "masks").mkdir(exist_ok=True)
    np.save(folder / "masks" / f"{name}.npy", bits, allow_pickle=False)
