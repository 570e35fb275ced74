"""Scans of more slices than a model was made for: some of them are looked at, evenly spaced, and speak for all."""

from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

Logits = TypeVar("Logits", bound=NamedTuple)


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


def spread_to_nearest(some: Logits, lengths: Tensor, fewer: Tensor) -> Logits:
    """Give every slice what the nearest slice that was looked at got, the lower of two equally near.

    Args:
        some: Logits of the slices of `thinned`, and of the scans.
        lengths: Slices of each scan, ``(b,)``.
        fewer: Slices of each scan that were looked at, ``(b,)``.

    Returns:
        The same with a row for each slice; the scans' rows stay.
    """
    rows, start = [], 0
    for size, few in zip(lengths.tolist(), fewer.tolist(), strict=True):
        distances = (torch.arange(size)[:, None] - _spaced(size, few)).abs()  # (size, few)
        rows.append(start + distances.argmin(dim=1))
        start += few
    places = torch.cat(rows)
    of_slices = {
        name: value[places.to(value.device)]
        for name, value in some._asdict().items()
        if name in ("slice_logits", "encoder_logits") and isinstance(value, Tensor)
    }
    return some._replace(**of_slices)


def _spaced(size: int, most: int) -> Tensor:
    """At most so many of 0 to size - 1, evenly spaced, rounded half to even as NumPy does."""
    return torch.arange(size) if size <= most else torch.linspace(0, size - 1, most, dtype=torch.float64).round().long()
