"""Stacks each slice with its neighbours as the channels of one image."""

import torch
from torch import Tensor

from ich_lstm.preprocessing.intensity import SLICE_STRIDE
from ich_lstm.preprocessing.windows import WindowStack


def stacks_of_scans(lengths: Tensor, neighbours: int) -> Tensor:
    """Say which slices stand beside each slice of whole scans.

    Args:
        lengths: Number of slices of each scan ``(b,)``, with sum n.
        neighbours: Number of neighbours on either side, at least 0.

    Returns:
        Indices of slices in the batch, int64 ``(n, 2 * neighbours + 1)``, the lowest slice first; -1 beyond the ends of a scan.
    """
    last = (torch.cumsum(lengths, 0) - 1).repeat_interleave(lengths)[:, None]  # (n, 1)
    first = last - lengths.repeat_interleave(lengths)[:, None] + 1
    places = torch.arange(len(last), device=lengths.device)[:, None]
    wanted = places + torch.arange(-neighbours, neighbours + 1, device=lengths.device)  # (n, s)
    return torch.where((wanted >= first) & (wanted <= last), wanted, -1)


def stack_neighbours(windows: WindowStack, hu: Tensor, stacks: Tensor, draws: Tensor | None = None) -> Tensor:
    """Apply the windows to slices and their neighbours, and make each stack one image.

    Args:
        windows: The windows, with c channels.
        hu: Hounsfield units ``(n, h, w)``.
        stacks: Indices in ``hu`` of the slices of each stack, int64 ``(m, s)``, the lowest slice first; -1 for no slice.
        draws: Seed of the random jitter of the middle slice of each stack ``(m,)``; None for no jitter. Seeds of adjacent slices
            differ by `SLICE_STRIDE`, so a slice has the same jitter in all stacks.

    Returns:
        Images ``(m, s * c, h, w)``, channels last in memory: the channels of the lowest slice come first, then those of the next
        higher slice. A slice that is not there is 0 in every window, before normalization.
    """
    count, size = stacks.shape
    flat = stacks.flatten()  # (m * s,)
    seeds = None
    if draws is not None:
        steps = torch.arange(size, device=draws.device) - size // 2
        seeds = ((draws[:, None] + steps * SLICE_STRIDE) % 2**32).flatten()
    shown = windows(hu[flat.clamp(min=0)], seeds)  # (m * s, c, h, w)
    shown = torch.where((flat >= 0)[:, None, None, None], shown, windows.absent.to(shown)[:, None, None])
    shown = shown.unflatten(0, (count, size)).flatten(1, 2)  # (m, s * c, h, w)
    return shown.contiguous(memory_format=torch.channels_last)
