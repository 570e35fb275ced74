"""Input features of a sequence head that describe the position of a slice in its scan."""

from typing import Literal

import torch
from torch import Tensor

Positions = Literal["none", "mm", "relative"]

POSITION_UNIT_MM = 50.0
STEP_UNIT_MM = 5.0
"""A head is about 150 mm high and a slice about 5 mm thick, so that features in these units are of the order of 1."""

POSITION_FEATURES: dict[Positions, int] = {"none": 0, "mm": 2, "relative": 1}


def position_features(positions_mm: Tensor, lengths: Tensor) -> Tensor:
    """Compute position features that do not depend on the origin of the coordinates.

    Distances are measured from the top, because scans end at the vertex but begin anywhere between the eyes and the neck.

    Args:
        positions_mm: Position of each slice along the normal of its scan, in mm, ``(n,)``.
        lengths: Number of slices of each scan ``(b,)``.

    Returns:
        Features ``(n, 2)``: distance to the top slice in units of `POSITION_UNIT_MM`, and distance to the slice below in units of
        `STEP_UNIT_MM`, which is 0 for the lowest slice.
    """
    rows = []
    for positions in positions_mm.float().split(lengths.tolist()):
        to_top = (positions[-1] - positions) / POSITION_UNIT_MM
        step = torch.diff(positions, prepend=positions[:1]) / STEP_UNIT_MM
        rows.append(torch.stack([to_top, step], dim=1))
    return torch.cat(rows)


def relative_positions(lengths: Tensor) -> Tensor:
    """Place of each slice in its scan, from 0 at the bottom to 1 at the top.

    Args:
        lengths: Number of slices of each scan ``(b,)``.

    Returns:
        Places ``(n, 1)``: the index of the slice divided by the index of the last slice; 0 for a single slice.
    """
    return torch.cat([torch.arange(size) / max(1, size - 1) for size in lengths.tolist()]).unsqueeze(1)
