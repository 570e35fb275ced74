"""Stacks each slice with its neighbours as the channels of one image."""

import torch
from torch import Tensor

from ich_lstm.preprocessing.windows import WindowStack


def stack_neighbours(
    windows: WindowStack, hu: Tensor, lengths: Tensor, places: Tensor, neighbours: int, draws: Tensor | None = None
) -> Tensor:
    """Apply the windows to some slices of a batch, and stack each slice with its neighbours in the same scan.

    Args:
        windows: The windows, with c channels.
        hu: Hounsfield units ``(n, h, w)``: the slices of all scans, one scan after the other.
        lengths: Number of slices of each scan ``(b,)``.
        places: Indices in the batch of the slices to window ``(m,)``.
        neighbours: Number of neighbours on either side, at least 0.
        draws: Seeds of the random jitter of each slice ``(n,)``, so that a slice gets the same jitter as a neighbour of any
            other; None for no jitter.

    Returns:
        Images ``(m, (2 * neighbours + 1) * c, h, w)``, channels last in memory: the channels of the lowest slice come first, then
        those of the next higher slice. A neighbour beyond the end of the scan is 0 in every window, before normalization.
    """
    if neighbours == 0:
        return windows(hu[places], None if draws is None else draws[places])
    last = torch.cumsum(lengths.to(hu.device), 0) - 1  # (b,)
    scan = torch.searchsorted(last, places)  # (m,)
    first = last[scan] - lengths.to(hu.device)[scan] + 1
    steps = torch.arange(-neighbours, neighbours + 1, device=hu.device)
    wanted = places[:, None] + steps  # (m, s)
    is_there = (wanted >= first[:, None]) & (wanted <= last[scan][:, None])
    wanted = torch.where(is_there, wanted, places[:, None]).flatten()  # (m * s,)
    shown = windows(hu[wanted], None if draws is None else draws[wanted])  # (m * s, c, h, w)
    shown = torch.where(is_there.flatten()[:, None, None, None], shown, windows.absent.to(shown)[:, None, None])
    shown = shown.unflatten(0, (len(places), len(steps))).flatten(1, 2)  # (m, s * c, h, w)
    return shown.contiguous(memory_format=torch.channels_last)
