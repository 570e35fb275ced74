"""Thins scans that are too long for the sequence head: it sees evenly spaced slices, and the others take the nearest result."""

import torch
from torch import Tensor


def thinned(lengths: Tensor, most: int) -> tuple[Tensor, Tensor]:
    """Choose evenly spaced slices of each scan that has too many.

    Args:
        lengths: Number of slices of each scan ``(b,)``.
        most: The most slices to choose from one scan, at least 1.

    Returns:
        Indices in the batch of the chosen slices ``(m,)``, and the number of chosen slices of each scan ``(b,)``.

    Example:
        >>> thinned(torch.tensor([2, 7]), 3)
        (tensor([0, 1, 2, 5, 8]), tensor([2, 3]))
    """
    starts = (torch.cumsum(lengths, 0) - lengths).tolist()
    chosen = [start + _spaced(size, most) for start, size in zip(starts, lengths.tolist(), strict=True)]
    return torch.cat(chosen), torch.tensor([len(places) for places in chosen])


def nearest_looked_at(lengths: Tensor, fewer: Tensor) -> Tensor:
    """Find the chosen slice that is nearest to each slice of the batch; of two that are equally near, the lower.

    Args:
        lengths: Number of slices of each scan ``(b,)``.
        fewer: Number of chosen slices of each scan ``(b,)``, from `thinned`.

    Returns:
        For each slice of the batch, an index into the slices that `thinned` chose ``(n,)``.

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
    """At most ``most`` evenly spaced integers from 0 to ``size`` - 1, rounded half to even as NumPy does."""
    return torch.arange(size) if size <= most else torch.linspace(0, size - 1, most, dtype=torch.float64).round().long()
