"""Scans longer than the model supports: evenly spaced slices are predicted, and the others take the nearest result."""

import torch
from torch import Tensor


def thinned(lengths: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Which slices are looked at.

    Args:
        lengths: Slices of each scan, ``(b,)``.
        most: Most slices of a scan.

    Returns:
        Places in the batch ``(m,)``, first and last slice of each scan included, and how many of each scan they are ``(b,)``.

    Example:
        >>> thinned(torch.tensor([2, 7]), 3)
        (tensor([0, 1, 2, 5, 8]), tensor([2, 3]))
    """
    starts = (torch.cumsum(lengths, 0) - lengths).tolist()
    chosen = [start + _spaced(size, most) for start, size in zip(starts, lengths.tolist(), strict=True)]
    return torch.cat(chosen), torch.tensor([len(places) for places in chosen])


def nearest_looked_at(lengths: Tensor, fewer: Tensor) -> Tensor:
    """Which of the slices that were looked at is the nearest to each slice, the lower of two equally near.

    Args:
        lengths: Slices of each scan, ``(b,)``.
        fewer: Slices of each scan that were looked at, ``(b,)``.

    Returns:
        Places among those of `thinned`, ``(n,)``.

    Example:
        >>> nearest_looked_at(torch.tensor([2, 7]), torch.tensor([2, 3]))
        tensor([0, 1, 2, 2, 3, 3, 3, 4, 4])
    """
    rows, start = [], 0
    for size, few in zip(lengths.tolist(), fewer.tolist(), strict=True):
        distances = (torch.arange(size)[:, None] - _spaced(size, few)).abs()  # (size, few)
        rows.append(start + distances.argmin(dim=1))
        start += few
    return torch.cat(rows)


def _spaced(size: int, most: int) -> Tensor:
    """At most so many of 0 to size - 1, evenly spaced, rounded half to even as NumPy does."""
    return torch.arange(size) if size <= most else torch.linspace(0, size - 1, most, dtype=torch.float64).round().long()
