"""Explanation of a prediction: heat maps of slices, and the contribution of each slice to the scan's logits."""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ich_lstm.errors import ConfigError
from ich_lstm.explanation import Explanation
from ich_lstm.inference.forward import EncodedScan, evaluation_mode
from ich_lstm.inference.predictor import Predictor
from ich_lstm.labels import ANY, LABELS
from ich_lstm.models.feature_maps import MapPoint, map_point, recording_from
from ich_lstm.models.scan_model import INFERENCE_SLICES_PER_CHUNK, ScanLogits, ScanModel
from ich_lstm.scan import Scan

if TYPE_CHECKING:
    from ich_lstm.training.classifier import ScanClassifier

TARGET_DISTANCE = 64
"""Gradients of slices at this distance share a backward pass, because their mutual influence is small; most scans are shorter."""

HEAD_SLICES = 2048
"""Maximum number of slices over all copies of a scan on which the head runs at once, which limits its memory."""

INTEGRATION_STEPS = 16
"""Number of Gauss-Legendre nodes along the path from the baseline to the scan."""


def explain(
    model: "ScanClassifier | Predictor",
    scan: Scan | EncodedScan,
    *,
    labels: Sequence[str] | None = None,
    stride: int | None = None,
    neighbours: int = 1,
) -> Explanation:
    """Compute heat maps of every slice, and the contribution of each slice to the scan, for several labels at once.

    Maps are Grad-CAM (Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based
    localization") through the whole model: the gradient of a slice's logit after the recurrent head with respect to the
    encoder's feature map of that slice. The gradient is multiplied with the feature map without averaging (HiResCAM, Draelos and
    Carin 2020, "Use HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks"). For the last
    feature map before average pooling, the result is the same; before maximum pooling, the gradient lies in one cell, which
    averaging would blur. The map of slice i is the sum of its evidence for the label in slices i - m to i + m, where m is
    ``neighbours``. In scans of more than 64 slices, slices that are 64 apart share a backward pass; their influence on each
    other, which is mostly negligible, is in the maps of both.

    Contributions are integrated gradients (Sundararajan et al. 2017, "Axiomatic attribution for deep networks") of the scan's
    logit along a straight path to the scan's features. The baseline is a scan in which every slice is the least suspicious slice
    of this scan (the lowest logit of "any"). The contributions of a label add up to the difference of the two logits, except for
    the error of integration in 16 steps, a few percent.

    Both explain the model without calibration and test-time augmentation, on the model's device. Memory grows with the scan only
    by the maps and the features. The model's mode is restored.

    Args:
        model: The model to explain.
        scan: The scan, or the result of `Predictor.encode` for a scan that was just predicted, whose features are reused.
        labels: The labels to explain, from `LABELS`; None for all.
        stride: Pixels of the network's input per cell of the map. None for the largest stride up to 16; for that of the last map
            if every map is coarser, or if the encoder has no batch normalization. 32 is the last map of most encoders; on real
            bleeding its peaks lay beside it.
        neighbours: Number of slices on either side, at least 0, whose logits are also attributed to a slice.

    Returns:
        Maps and contributions; NaN for labels that were not requested.

    Raises:
        ConfigError: If a label or the stride is unknown, ``neighbours`` is below 0, or the backbone has no maps.
        CheckpointError: If the model's preprocessing is unknown.

    Example:
        >>> explanation = explain(model, scan, labels=["subdural"])  # doctest: +SKIP
        >>> explanation.on_slice(12, "subdural", scan.hu.shape[1:])  # doctest: +SKIP
    """
    wanted = _wanted(labels)
    if neighbours < 0:
        raise ConfigError("neighbours_out_of_range", where="neighbours", got=str(neighbours), expected="at least 0")
    predictor = model if isinstance(model, Predictor) else model.predictor
    predictor.known_preprocessing()
    network = predictor.model
    point = map_point(network.encoder, stride)
    encoded = predictor.encode(scan) if isinstance(scan, Scan) else scan
    # Autograd cannot use tensors from a caller's inference_mode, neither intermediate results nor weights.
    with torch.inference_mode(False), torch.no_grad():
        if any(tensor.is_inference() for tensor in network.state_dict().values()):
            network = copy.deepcopy(network)
        with evaluation_mode(network):
            gradients = _feature_gradients(network, encoded.features, encoded.positions_mm, wanted, neighbours)
            maps = _maps(network, encoded.hu, gradients, point)
            contributions = _contributions(network, encoded.features, encoded.positions_mm, wanted)
    return Explanation(
        maps=_with_all_labels(maps, wanted),
        box=encoded.box,
        contributions=_with_all_labels(contributions, wanted),
        method=_describe(point, neighbours, len(encoded.scan)),
    )


def _wanted(labels: Sequence[str] | None) -> list[int]:
    """Find the indices of the requested labels in `LABELS`, in ascending order."""
    unknown = [label for label in labels or () if label not in LABELS]
    if unknown or (labels is not None and not labels):
        raise ConfigError(
            "unknown_label",
            where="labels",
            got=", ".join(map(repr, unknown)) or "none",
            expected=f"some of {', '.join(LABELS)}",
        )
    return [k for k, label in enumerate(LABELS) if labels is None or label in labels]


@contextmanager
def _differentiable_head(device: torch.device) -> Iterator[None]:
    """Run the head in full precision, with gradients and without cuDNN, whose LSTM has no backward pass in evaluation mode."""
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False), torch.autocast(device.type, enabled=False):
        yield


def _run_head(model: ScanModel, features: Tensor, positions_mm: Tensor) -> ScanLogits:
    """Run the head on r copies of a scan, features ``(r, n, d)``; slice logits ``(r * n, k)``, scan logits ``(r, k)``."""
    count, slices = features.shape[:2]
    return model.head(features.flatten(0, 1), torch.full((count,), slices), positions_mm.repeat(count))


def _feature_gradients(
    model: ScanModel, features: Tensor, positions_mm: Tensor, wanted: Sequence[int], neighbours: int
) -> Tensor:
    """Compute the gradients of the logits of each slice and its neighbours by the slice's features, ``(labels, n, d)``.

    A slice's logit depends on the features of all slices, so the gradient of the sum of all logits would include the influence
    of a slice on distant slices. Instead, several copies of the scan are processed at once, each with different target slices.
    """
    slices = len(features)
    apart = 1 if model.sequence is None else min(slices, TARGET_DISTANCE)  # without recurrence, logits depend only on the slice
    gradients = features.new_zeros(len(wanted), *features.shape)
    places = torch.arange(slices, device=features.device)
    for offsets in torch.arange(apart).split(max(1, HEAD_SLICES // slices)):
        targets = [places[int(offset) :: apart] for offset in offsets]
        # The gradient of a copy is used at its targets and their neighbours.
        near = torch.stack([((places[:, None] - those).abs() <= neighbours).any(dim=1) for those in targets])  # (r, n)
        with _differentiable_head(features.device):
            copies = features.repeat(len(targets), 1, 1).requires_grad_()  # (r, n, d)
            logits = _run_head(model, copies, positions_mm).slice_logits.unflatten(0, near.shape)  # (r, n, k)
            sums = torch.stack([of_copy[those].sum(dim=0) for of_copy, those in zip(logits, targets, strict=True)]).sum(dim=0)
            for i, k in enumerate(wanted):
                (gradient,) = torch.autograd.grad(sums[k], copies, retain_graph=k != wanted[-1])
                gradients[i] += (gradient * near[..., None]).sum(dim=0)
    return gradients


def _maps(model: ScanModel, hu: Tensor, gradients: Tensor, point: MapPoint) -> np.ndarray:
    """Compute the HiResCAM maps of every slice, ``(n, labels, r, c)``, chunk by chunk."""
    lengths = torch.tensor([len(hu)])
    features_of = model.features_of(hu, lengths)
    size = INFERENCE_SLICES_PER_CHUNK.get(hu.device.type, len(hu))
    maps = []
    with recording_from(model.encoder, point) as recorded:
        for places in torch.arange(len(hu), device=hu.device).split(size):
            with torch.no_grad():
                features = features_of(places)  # (m, d)
            of_chunk = []
            for i, gradient in enumerate(gradients):
                (at_map,) = torch.autograd.grad(
                    features, recorded.tensor, gradient[places].to(features.dtype), retain_graph=i < len(gradients) - 1
                )
                of_chunk.append(torch.einsum("mchw,mchw->mhw", at_map.float(), recorded.tensor.detach().float()).relu())
            maps.append(torch.stack(of_chunk, dim=1).cpu().numpy())  # (m, labels, r, c)
            del features  # otherwise its graph would stay in memory during the next chunk
    return np.concatenate(maps)


def _contributions(model: ScanModel, features: Tensor, positions_mm: Tensor, wanted: Sequence[int]) -> np.ndarray:
    """Compute the integrated gradients of the scan's logits by slice, float64 ``(n, labels)``."""
    slices = len(features)
    suspicion = _run_head(model, features[None], positions_mm).slice_logits[:, LABELS.index(ANY)]
    baseline = features[suspicion.argmin()]  # (d,)
    path = features - baseline
    nodes, shares = np.polynomial.legendre.leggauss(INTEGRATION_STEPS)
    steps = torch.tensor(
        np.stack([nodes + 1, shares]) / 2, dtype=features.dtype, device=features.device
    )  # from [-1, 1] to [0, 1]
    contributions = np.zeros((slices, len(wanted)))
    for along, share in zip(*(each.split(max(1, HEAD_SLICES // slices)) for each in steps), strict=True):
        with _differentiable_head(features.device):
            between = (baseline + along[:, None, None] * path).requires_grad_()  # (r, n, d)
            logits = _run_head(model, between, positions_mm).scan_logits.sum(dim=0)  # (k,)
            for i, k in enumerate(wanted):
                (gradient,) = torch.autograd.grad(logits[k], between, retain_graph=k != wanted[-1])
                added = torch.einsum("r,rnd,nd->n", share, gradient, path)
                contributions[:, i] += added.double().cpu().numpy()
    return contributions


def _with_all_labels(values: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
    """Expand values to all labels on the second axis, with NaN for labels that were not requested."""
    every = np.full((len(values), len(LABELS), *values.shape[2:]), np.nan, values.dtype)
    every[:, list(wanted)] = values
    return every


def _describe(point: MapPoint, neighbours: int, slices: int) -> str:
    beside = f" and of {neighbours} on either side" if neighbours else ""
    together = f", slices {TARGET_DISTANCE} apart in one backward pass" if slices > TARGET_DISTANCE else ""
    return (
        f"Grad-CAM (HiResCAM) through the whole model to the encoder's map at stride {point.stride}, for the logit of the slice"
        f"{beside}{together}; contributions: integrated gradients of the scan's logit, {INTEGRATION_STEPS} steps from its least "
        "suspicious slice; without calibration and test-time augmentation"
    )
