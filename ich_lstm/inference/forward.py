"""Runs a model on scans, on the device that the model is on; the model's train or eval mode is restored."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ich_lstm.models.scan_model import ScanLogits, ScanModel, mean_logits, raise_unions
from ich_lstm.preprocessing.crop_and_resize import Box, Preprocessing, network_box, preprocess_scan
from ich_lstm.scan import Scan

TestTime = Literal["none", "flip", "flip-reverse"]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients; afterwards every part is in the mode in which it was."""
    with evaluation_mode(module), torch.inference_mode():
        yield


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Evaluation mode; afterwards every part is in the mode in which it was."""
    modes = [(part, part.training) for part in module.modules()]  # a part may be frozen in evaluation mode
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def infer(
    model: ScanModel,
    hu: Tensor,
    lengths: Tensor,
    positions_mm: Tensor | None,
    *,
    test_time: TestTime = "none",
    features: Tensor | None = None,
) -> ScanLogits:
    """Logits of packed scans, as the mean over what is shown at test time.

    Args:
        model: In evaluation mode.
        hu: ``(n, h, w)``.
        lengths: ``(b,)``.
        positions_mm: ``(n,)``.
        test_time: ``flip``: the scans and their mirror images, left and right exchanged; ``flip-reverse``: both, each read
            upwards and downwards; ``none``.
        features: The encoder's features of the slices as they are, ``(n, d)``; None: they are computed.
    """
    both_ways = test_time == "flip-reverse"
    features = model.encode(hu, lengths) if features is None else features
    logits = model.logits_of(features, lengths, positions_mm, both_ways=both_ways)
    if test_time == "none":
        return logits
    return mean_logits([logits, model(hu.flip(-1), lengths, positions_mm, both_ways=both_ways)])


class EncodedScan(NamedTuple):
    """A scan that went through the encoder: its probabilities and its explanation both start from here.

    Args:
        scan: The scan.
        box: Which part of every slice the network gets.
        hu: That part at the network's size, int16 ``(n, size, size)``, on the model's device.
        positions_mm: Position of each slice, float32 ``(n,)``, on the model's device.
        features: The encoder's features of each slice, ``(n, d)``.
    """

    scan: Scan
    box: Box
    hu: Tensor
    positions_mm: Tensor
    features: Tensor

    @property
    def lengths(self) -> Tensor:
        """Number of slices, as a batch of one scan has it: ``(1,)``, on the CPU."""
        return torch.tensor([len(self.scan)])


def encode_scan(model: ScanModel, scan: Scan, preprocessing: Preprocessing) -> EncodedScan:
    """Preprocess a scan and run the encoder on every slice, once.

    Args:
        model: In evaluation mode, on any device.
        scan: The scan, as it comes from `ich_lstm.read_scan`.
        preprocessing: How scans are prepared for the model.

    Returns:
        Tensors that autograd may keep, even where the caller is in torch's inference mode.
    """
    device = next(model.parameters()).device
    with torch.inference_mode(False), torch.no_grad():
        box = network_box(scan, preprocessing)
        hu = torch.from_numpy(preprocess_scan(scan, preprocessing, box)).to(device)
        positions = torch.tensor(scan.positions_mm, dtype=torch.float32, device=device)
        features = model.encode(hu, torch.tensor([len(scan)]))
    return EncodedScan(scan, box, hu, positions, features)


class ScanProbabilities(NamedTuple):
    """What is predicted of packed scans, float64.

    Args:
        slices: Of each slice, ``(n, k)``.
        scans: Of each scan, ``(b, k)``.
    """

    slices: Tensor
    scans: Tensor


def predicted(logits: ScanLogits, lengths: Tensor, *, coherent: bool = True) -> ScanProbabilities:
    """Probabilities of packed scans, as they are shown, calibrated and judged.

    A scan has what any of its slices has, and "any" is present where a type is. The network's outputs need not agree with that;
    a scan's probability is therefore raised to that of its most probable slice, and that of "any" to the most probable type's,
    of slices and of scans. Nothing is lowered.

    Args:
        logits: As the network gives them.
        lengths: Slices of each scan, ``(b,)``.
        coherent: False: what the network says, as it is.
    """
    slices, scans = probabilities_of(logits.slice_logits), probabilities_of(logits.scan_logits)
    if not coherent:
        return ScanProbabilities(slices, scans)
    slices = raise_unions(slices)
    highest = torch.stack([of_scan.amax(dim=0) for of_scan in slices.split(lengths.tolist())])  # (b, k)
    return ScanProbabilities(slices, raise_unions(torch.maximum(scans, highest)))


class PredictedScan(NamedTuple):
    """What is predicted of one scan, float64 on the CPU, by the labels in the order of `LABELS`.

    Args:
        scan_id: Keyed hash of the series.
        slices: Probabilities of each slice in the order of the scan, ``(n, k)``, in [0, 1].
        scan: Probabilities of the scan, ``(k,)``, in [0, 1].
    """

    scan_id: str
    slices: Tensor
    scan: Tensor


def split_scans(probabilities: ScanProbabilities, lengths: Tensor, scan_ids: Sequence[str]) -> list[PredictedScan]:
    """Packed scans one by one.

    Args:
        probabilities: Of the packed scans.
        lengths: Slices of each scan, ``(b,)``.
        scan_ids: Of each scan, b of them.
    """
    slices = probabilities.slices.cpu().split(lengths.tolist())
    return [PredictedScan(*scan) for scan in zip(scan_ids, slices, probabilities.scans.cpu(), strict=True)]


def probabilities_of(logits: Tensor) -> Tensor:
    """In float64: float32 would round a sure probability to 1, and its loss to the clip's."""
    return torch.sigmoid(logits.to(torch.float64))
