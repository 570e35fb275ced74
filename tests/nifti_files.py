"""Fabricate NIfTI files in one line. Needs the extra ``nifti``."""

from pathlib import Path

import numpy as np
from dicom_files import slice_hu

START = (-96.0, -96.0, -20.0)
STEP = 6.0


def head_volume(count: int = 8) -> np.ndarray:
    """HU ``(n, h, w)`` in the display convention."""
    return np.stack([np.rint(slice_hu((-96, -96, -20 + 5 * i))) for i in range(count)])


def make_nifti(
    path: Path,
    hu: np.ndarray | None = None,
    *,
    order: tuple[int, ...] = (0, 1, 2),
    flips: tuple[bool, ...] = (False, False, False),
    dtype: type = np.int16,
    coded: bool = True,
    affine: np.ndarray | None = None,
) -> Path:
    """Write the made head, with its axes in any order and direction; the affine tells which."""
    values = (head_volume() if hu is None else hu).astype(dtype)
    if values.ndim == 3:
        values = values.transpose(2, 1, 0)  # (left, back, head)
    if affine is None:
        # NIfTI's x runs to the right and y to the front, DICOM's to the left and to the back.
        affine = np.diag([-STEP, -STEP, 5.0, 1.0])
        affine[:3, 3] = (-START[0], -START[1], START[2])
    for axis, flip in enumerate(flips):
        if flip:
            values = np.flip(values, axis)
            affine[:3, 3] += affine[:3, axis] * (values.shape[axis] - 1)
            affine[:3, axis] *= -1
    if values.ndim == 3:
        values = values.transpose(order)
        affine[:, :3] = affine[:, list(order)]
    import nibabel

    image = nibabel.Nifti1Image(values, affine)
    image.set_sform(affine, code=1 if coded else 0)
    image.set_qform(None if not coded else affine, code=1 if coded else 0)
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(image, path)
    return path
