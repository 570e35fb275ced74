"""CutMix over the slices of a batch (Yun et al. 2019, arXiv 1905.04899)."""

import numpy as np
import torch
from torch import Tensor

from ich_lstm.data.loading.batch import ScanBatch


def mix_slices(batch: ScanBatch, alpha: float, seed: int) -> ScanBatch:
    """Put one box of every slice's partner into the slice, and mix their labels by area.

    As in the paper, there is one box and one permutation for the batch: lambda is drawn from Beta(alpha, alpha), the box has
    sides of sqrt(1 - lambda) of the image's around a centre drawn evenly, and is clipped at the edge; the labels are mixed by
    the share that is left of it. A slice may be its own partner.

    Args:
        batch: Packed scans, at least one; its HU are changed in place, for it may lie in memory that is shared with training.
        alpha: Of the Beta distribution, above 0; 1 draws lambda evenly.
        seed: Of the draws.

    Returns:
        The batch with mixed HU and soft slice labels, ``own + share (partner's - own)``, NaN where either is unknown. What is
        known of a scan as a whole: what was known if it was mixed with nothing but itself; 0 where it and all scans that it was
        mixed with are 0; otherwise nothing, for a box may hold, or cover, all of a hemorrhage.
    """
    random = np.random.default_rng(seed)
    n, height, width = batch.hu.shape
    top, left, bottom, right = _draw_box(random, height, width, alpha)
    partners = torch.from_numpy(random.permutation(n))
    share = (bottom - top) * (right - left) / (height * width)
    if share == 0:
        return batch
    # The right side is a copy, so no slice is given what another one has got already.
    batch.hu[:, top:bottom, left:right] = batch.hu[partners, top:bottom, left:right]
    return batch._replace(
        slice_labels=torch.lerp(batch.slice_labels, batch.slice_labels[partners], share),
        scan_labels=_labels_of_mixed(batch.scan_labels, batch.lengths, partners),
    )


def _draw_box(random: np.random.Generator, height: int, width: int, alpha: float) -> tuple[int, int, int, int]:
    """Top, left, bottom and right of the box, within the image."""
    side = np.sqrt(1 - random.beta(alpha, alpha))
    row, column = random.integers(height), random.integers(width)
    rows, columns = int(height * side), int(width * side)
    top, left = int(row) - rows // 2, int(column) - columns // 2
    return max(0, top), max(0, left), min(height, top + rows), min(width, left + columns)


def _labels_of_mixed(labels: Tensor, lengths: Tensor, partners: Tensor) -> Tensor:
    """What is known of scans, ``(b, k)``, whose slices have these partners, ``(n,)``."""
    scan_of = torch.repeat_interleave(torch.arange(len(lengths)), lengths)  # (n,)
    mixed = torch.eye(len(lengths), dtype=torch.bool)  # (b, b): which holds parts of which
    mixed[scan_of, scan_of[partners]] = True
    negative = ~(mixed[:, :, None] & (labels != 0)[None]).any(dim=1)  # (b, k)
    # The slices of a scan among themselves lose nothing: what a box takes from one, it gives to another.
    alone = mixed.sum(dim=1, keepdim=True) == 1  # (b, 1)
    return torch.where(alone, labels, torch.where(negative, 0.0, torch.nan))
