"""Writes the masks of a scan beside its images."""

from pathlib import Path

import numpy as np

from ich_lstm.files.atomic_write import atomic_write
from ich_lstm.phantom.scan import PhantomScan

MASK_FILES = "masks/*.npy"
"""Glob pattern of the masks in a data set of any layout."""


def write_masks(scan: PhantomScan, name: str, folder: Path) -> None:
    """Write ``masks/<name>.npy`` into the folder of a data set: uint8 ``(n, h, w)``, inferior to superior.

    Bit k, counted from the lowest, is set where the k-th of `HEMORRHAGE_TYPES` covers at least half of the pixel.

    Args:
        scan: The scan whose masks are written.
        name: Series UID, or the file name without suffix if the format has no UIDs.
        folder: Folder of the data set.
    """
    bits = np.packbits(scan.masks, axis=0, bitorder="little")[0]
    (folder / "masks").mkdir(exist_ok=True)
    with (
        atomic_write(folder / "masks" / f"{name}.npy", durable=False) as unfinished,
        unfinished.open("wb") as file,  # for a name, numpy would add a suffix
    ):
        np.save(file, bits, allow_pickle=False)
