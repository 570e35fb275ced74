"""CutMix over the slices of a batch (Yun et al. 2019, arXiv 1905.04899)."""

import numpy as np
import torch
from torch import Tensor

from ich_lstm.data.loading.batch import ScanBatch


def mix_slices(batch: ScanBatch, alpha: float, seed: int) -> ScanBatch:
    """Replace one box of every slice by that of a partner slice, and mix the labels by area.

    As in the paper, there is one box and one permutation for the batch. Lambda is drawn from Beta(alpha, alpha). The box has
    sides of sqrt(1 - lambda) times those of the image around a uniformly drawn centre, and is clipped at the edge; labels are
    mixed by the area that remains. A slice may be its own partner.

    Args:
        batch: Packed scans, at least one. Its HU are changed in place, because it may lie in memory shared with the training
            process.
        alpha: Parameter of the Beta distribution, above 0; 1 draws lambda uniformly.
        seed: Seed of the random draws.

    Returns:
        The batch with mixed HU and soft slice labels, ``own + share (partner's - own)``, NaN where either is unknown. A scan
        label is kept if the scan was mixed only with itself. Otherwise it is 0 where all the mixed scans are 0, and unknown
        elsewhere, because a box may hold or cover all of a hemorrhage.
    """
    random = np.random.default_rng(seed)
    n, height, width = batch.hu.shape
    top, left, bottom, right = _draw_box(random, height, width, alpha)
    partners = torch.from_numpy(random.permutation(n))
    share = (bottom - top) * (right - left) / (height * width)
    if share == 0:
        return batch
    # The right side is a copy, so no slice receives pixels that another one has just received.
    batch.hu[:, top:bottom, left:right] = batch.hu[partners, top:bottom, left:right]
    return batch._replace(
        slice_labels=torch.lerp(batch.slice_labels, batch.slice_labels[partners], share),
        scan_labels=_labels_of_mixed(batch.scan_labels, batch.lengths, partners),
    )


def _draw_box(random: np.random.Generator, height: int, width: int, alpha: float) -> tuple[int, int, int, int]:
    """Draw top, left, bottom and right of the box, within the image."""
    side = np.sqrt(1 - random.beta(alpha, alpha))
    row, column = random.integers(height), random.integers(width)
    rows, columns = int(height * side), int(width * side)
    top, left = int(row) - rows // 2, int(column) - columns // 2
    return max(0, top), max(0, left), min(height, top + rows), min(width, left + columns)


def _labels_of_mixed(labels: Tensor, lengths: Tensor, partners: Tensor) -> Tensor:
    """Derive the labels of scans, ``(b, k)``, whose slices have these partners, ``(n,)``."""
    scan_of = torch.repeat_interleave(torch.arange(len(lengths)), lengths)  # (n,)
    mixed = torch.eye(len(lengths), dtype=torch.bool)  # (b, b): which scan holds boxes of which
    mixed[scan_of, scan_of[partners]] = True
    negative = ~(mixed[:, :, None] & (labels != 0)[None]).any(dim=1)  # (b, k)
    # Mixing within a scan loses nothing, because what one slice loses another one gains.
    alone = mixed.sum(dim=1, keepdim=True) == 1  # (b, 1)
    return torch.where(alone, labels, torch.where(negative, 0.0, torch.nan))
