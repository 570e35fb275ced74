"""Runs a model on scans on the model's device, and restores its train or eval mode."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from ich_lstm.models.scan_model import EncoderRun, ScanLogits, ScanModel, mean_logits, raise_unions
from ich_lstm.preprocessing.crop_and_resize import Box, Preprocessing, network_box, preprocess_scan
from ich_lstm.scan import Scan

TestTime = Literal["none", "flip", "flip-reverse"]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Set evaluation mode without gradients, and restore the mode of every module afterwards."""
    with evaluation_mode(module), torch.inference_mode():
        yield


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Set evaluation mode, and restore the mode of every module afterwards."""
    modes = [(each, each.training) for each in module.modules()]  # frozen modules may already be in evaluation mode
    module.eval()
    try:
        yield
    finally:
        for each, mode in modes:
            each.training = mode


def infer(
    model: ScanModel,
    hu: Tensor,
    lengths: Tensor,
    positions_mm: Tensor | None,
    *,
    test_time: TestTime = "none",
    features: Tensor | None = None,
    by: EncoderRun | None = None,
) -> ScanLogits:
    """Compute the logits of packed scans, averaged over the views of test-time augmentation.

    Args:
        model: The network in evaluation mode.
        hu: Hounsfield units of all slices, ``(n, h, w)``.
        lengths: Number of slices of each scan, ``(b,)``, on the CPU.
        positions_mm: Position of each slice in mm, ``(n,)``; None if positions are unknown.
        test_time: The views: ``none`` for only the scans; ``flip`` for the scans and their left-right mirror images;
            ``flip-reverse`` for both, each processed in ascending and descending order of slices.
        features: The encoder's features of the slices without augmentation, ``(n, d)``; None computes them.
        by: Runs the encoder; None for the network itself.
    """
    both_ways = test_time == "flip-reverse"
    features = model.encode(hu, lengths, by=by) if features is None else features
    logits = model.logits_of(features, lengths, positions_mm, both_ways=both_ways)
    if test_time == "none":
        return logits
    mirrored = model.encode(hu.flip(-1), lengths, by=by)
    return mean_logits([logits, model.logits_of(mirrored, lengths, positions_mm, both_ways=both_ways)])


@dataclass(frozen=True, eq=False)
class PreparedScan:
    """A scan as the network takes it.

    Args:
        scan: The scan.
        box: The region of every slice that is the network's input.
        hu: Hounsfield units of that region at the network's size, int16 ``(n, size, size)``, on the model's device.
        positions_mm: Position of each slice in mm, float32 ``(n,)``, on the model's device.
    """

    scan: Scan
    box: Box
    hu: Tensor
    positions_mm: Tensor

    @property
    def lengths(self) -> Tensor:
        """The number of slices as lengths of a batch of one scan, ``(1,)``, on the CPU."""
        return torch.tensor([len(self.scan)])


@dataclass(frozen=True, eq=False)
class EncodedScan(PreparedScan):
    """A scan with the encoder's features, from which both its probabilities and its explanation are computed.

    Args:
        features: The encoder's features of each slice, ``(n, d)``.
        by: What ran the encoder, and runs it for further views of the scan; None for the network itself.
    """

    features: Tensor
    by: EncoderRun | None = None


def prepare_scan(scan: Scan, preprocessing: Preprocessing, device: torch.device) -> PreparedScan:
    """Preprocess a scan.

    Args:
        scan: The scan, for example from `ich_lstm.read_scan`.
        preprocessing: The preprocessing of the model.
        device: The model's device.
    """
    with torch.inference_mode(False):  # autograd can use the tensors, even if the caller is in torch's inference mode
        box = network_box(scan, preprocessing)
        hu = torch.from_numpy(preprocess_scan(scan, preprocessing, box)).to(device)
        return PreparedScan(scan, box, hu, torch.tensor(scan.positions_mm, dtype=torch.float32, device=device))


def encode_scan(model: ScanModel, prepared: PreparedScan, by: EncoderRun | None = None) -> EncodedScan:
    """Run the encoder on every slice of a scan, once.

    Args:
        model: The network in evaluation mode, on any device.
        prepared: The scan.
        by: Runs the encoder; None for the network itself.

    Returns:
        The encoded scan; autograd can use its tensors, even if the caller is in torch's inference mode.
    """
    with torch.inference_mode(False), torch.no_grad():
        return EncodedScan(**vars(prepared), features=model.encode(prepared.hu, prepared.lengths, by=by), by=by)


class ScanProbabilities(NamedTuple):
    """Probabilities of packed scans, float64 in [0, 1].

    Args:
        slices: Probabilities of each slice, ``(n, k)``.
        scans: Probabilities of each scan, ``(b, k)``.
    """

    slices: Tensor
    scans: Tensor


def predicted(logits: ScanLogits, lengths: Tensor, *, coherent: bool = True) -> ScanProbabilities:
    """Convert logits of packed scans to probabilities.

    A scan has every label that one of its slices has, and "any" is present if a type is. Because the outputs of the network need
    not be consistent with this, coherent probabilities are raised: that of a scan to its most probable slice, and that of "any"
    to the most probable type, in slices and in scans. No probability is lowered.

    Args:
        logits: The logits of the network.
        lengths: Number of slices of each scan, ``(b,)``.
        coherent: Whether to make the probabilities coherent; otherwise they are those of the network.
    """
    slices, scans = probabilities_of(logits.slice_logits), probabilities_of(logits.scan_logits)
    if not coherent:
        return ScanProbabilities(slices, scans)
    slices = raise_unions(slices)
    highest = torch.stack([of_scan.amax(dim=0) for of_scan in slices.split(lengths.tolist())])  # (b, k)
    return ScanProbabilities(slices, raise_unions(torch.maximum(scans, highest)))


class PredictedScan(NamedTuple):
    """Probabilities of one scan, float64 on the CPU, with labels in the order of `LABELS`.

    Args:
        scan_id: Keyed hash of the series identifier.
        slices: Probabilities of each slice in the order of the scan, ``(n, k)``, in [0, 1].
        scan: Probabilities of the scan, ``(k,)``, in [0, 1].
    """

    scan_id: str
    slices: Tensor
    scan: Tensor


def split_scans(probabilities: ScanProbabilities, lengths: Tensor, scan_ids: Sequence[str]) -> list[PredictedScan]:
    """Split the probabilities of packed scans by scan.

    Args:
        probabilities: Probabilities of the packed scans.
        lengths: Number of slices of each scan, ``(b,)``.
        scan_ids: The ids of the b scans.
    """
    slices = probabilities.slices.cpu().split(lengths.tolist())
    return [PredictedScan(*scan) for scan in zip(scan_ids, slices, probabilities.scans.cpu(), strict=True)]


def probabilities_of(logits: Tensor) -> Tensor:
    """Apply the sigmoid in float64; in float32, probabilities near 1 would round to 1, and their loss would be clipped."""
    return torch.sigmoid(logits.to(torch.float64))
