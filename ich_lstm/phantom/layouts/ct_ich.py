"""Heads in the layout of CT-ICH (PhysioNet): NIfTI in HU, and a table with a row per slice."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar

import numpy as np

from ich_lstm.errors import ConfigError
from ich_lstm.files.atomic_write import write_bytes
from ich_lstm.labels import ANY, LABELS
from ich_lstm.phantom.anatomy.shapes import Array
from ich_lstm.phantom.layouts.layout import Layout, write_lines
from ich_lstm.phantom.layouts.masks import write_masks
from ich_lstm.phantom.scan import make_head
from ich_lstm.phantom.scanner.acquisition import Acquisition
from ich_lstm.phantom.settings import PhantomSettings

SCAN_FOLDER = "ct_scans"

FIRST_PATIENT = 49
"""Number of the first patient in CT-ICH."""

LABEL_COLUMNS = {
    "Intraventricular": "intraventricular",
    "Intraparenchymal": "intraparenchymal",
    "Subarachnoid": "subarachnoid",
    "Epidural": "epidural",
    "Subdural": "subdural",
}
"""Label columns of CT-ICH in their order, and our labels."""

COLUMNS = ("PatientNumber", "SliceNumber", *LABEL_COLUMNS, "No_Hemorrhage", "Fracture_Yes_No")

TO_RAS = np.diag([-1.0, -1.0, 1.0])
"""Transforms DICOM coordinates (left, posterior, superior) to NIfTI coordinates (right, anterior, superior)."""

Rows = list[tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class CtIchLayout(Layout[Rows]):
    """``ct_scans/049.nii`` and ``hemorrhage_diagnosis_raw_ct.csv``; needs nibabel (extra ``nifti``).

    Slices are numbered from 1 along the third axis of the file, from the neck to the vertex.

    Args:
        byte_order_mark: Whether the table begins with a byte order mark.
    """

    name: ClassVar[str] = "ct-ich"
    labels: ClassVar[str] = "hemorrhage_diagnosis_raw_ct.csv"
    contents: ClassVar[tuple[str, ...]] = (f"{SCAN_FOLDER}/*.nii", "*.csv")

    byte_order_mark: bool = True

    def check(self, settings: PhantomSettings) -> None:
        """Refuse if nibabel is not installed."""
        if find_spec("nibabel") is None:
            raise ConfigError(
                "phantom_nifti",
                where="phantom layout ct-ich",
                got="no nibabel",
                expected="the extra nifti",
                todo='Install it with: pip install "ich_lstm[nifti]"',
            )

    def write_patient(self, settings: PhantomSettings, patient: int, folder: Path) -> Rows:
        """Write one scan as NIfTI and return its rows of the table."""
        import nibabel

        scan = make_head(settings, patient)
        number = FIRST_PATIENT + patient
        images = folder / SCAN_FOLDER
        images.mkdir(exist_ok=True)
        # (n, h, w) -> (x, y, z) with y to the front, as converters from DICOM write it
        voxels = np.ascontiguousarray(np.transpose(scan.hu[:, ::-1], (2, 1, 0)))
        image = nibabel.Nifti1Image(voxels, _affine(scan.acquisition))
        image.header.set_xyzt_units("mm")
        write_bytes(images / f"{number:03d}.nii", image.to_bytes(), durable=False)
        if settings.masks:
            write_masks(scan, f"{number:03d}", folder)
        columns = [LABELS.index(label) for label in LABEL_COLUMNS.values()]
        fracture = int("fracture" in scan.findings)
        return [
            (number, i, *labels[columns].tolist(), int(1 - labels[LABELS.index(ANY)]), fracture)
            for i, labels in enumerate(scan.slice_labels, 1)
        ]

    def write_tables(self, settings: PhantomSettings, folder: Path, records: Sequence[Rows]) -> None:
        """Write the table, by patient and slice."""
        lines = (",".join(map(str, row)) for rows in records for row in rows)
        write_lines(folder / self.labels, [",".join(COLUMNS), *lines], byte_order_mark=self.byte_order_mark)


def _affine(acquisition: Acquisition) -> Array:
    """Affine from voxels (column, row from below, slice) to mm; it is sheared if the gantry was tilted."""
    last_row = (acquisition.size - 1) * acquisition.pixel_mm * acquisition.column_direction
    affine = np.eye(4)
    affine[:3, 0] = TO_RAS @ acquisition.row_direction * acquisition.pixel_mm
    affine[:3, 1] = TO_RAS @ -acquisition.column_direction * acquisition.pixel_mm
    affine[:3, 2] = TO_RAS @ (acquisition.image_position(1) - acquisition.image_position(0))
    affine[:3, 3] = TO_RAS @ (acquisition.image_position(0) + last_row)
    return affine
