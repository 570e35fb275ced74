"""Where a slice lies in its scan, as inputs of a sequence head."""

from typing import Literal

import torch
from torch import Tensor

Positions = Literal["none", "mm", "relative"]

POSITION_UNIT_MM = 50.0
STEP_UNIT_MM = 5.0
"""A head is about 150 mm high and a slice about 5 mm thick, so the inputs made with these units are of the order of 1."""

POSITION_FEATURES: dict[Positions, int] = {"none": 0, "mm": 2, "relative": 1}


def position_features(positions_mm: Tensor, lengths: Tensor) -> Tensor:
    """Where a slice lies in its scan, whatever the origin: ``(n, 2)``, distance to the top slice and to the slice below.

    The top is the anchor because scans end at the vertex, while they begin anywhere between the eyes and the neck.
    """
    rows = []
    for positions in positions_mm.float().split(lengths.tolist()):
        to_top = (positions[-1] - positions) / POSITION_UNIT_MM
        step = torch.diff(positions, prepend=positions[:1]) / STEP_UNIT_MM
        rows.append(torch.stack([to_top, step], dim=1))
    return torch.cat(rows)


def relative_positions(lengths: Tensor) -> Tensor:
    """A slice's number in its scan over the last one's, ``(n, 1)``: 0 at the bottom, 1 at the top; a single slice is at 0."""
    return torch.cat([torch.arange(size) / max(1, size - 1) for size in lengths.tolist()]).unsqueeze(1)
