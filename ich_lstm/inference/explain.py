"""Explanation of a prediction: heat maps, and the slices that contribute most to the scan's probabilities."""

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
"""Gradients of slices so far apart are computed together, as if they did not influence one another; usual scans have fewer."""

HEAD_SLICES = 2048
"""The head runs on copies of a scan side by side, of at most so many slices: its memory is bounded, however long the scan."""

INTEGRATION_STEPS = 16
"""Nodes of Gauss and Legendre along the path from the baseline to the scan."""


def explain(
    model: "ScanClassifier | Predictor",
    scan: Scan | EncodedScan,
    *,
    labels: Sequence[str] | None = None,
    stride: int | None = None,
    neighbours: int = 1,
) -> Explanation:
    """Heat maps of every slice, and what each slice adds to its scan, for several labels at once.

    Maps are Grad-CAM (Selvaraju et al. 2017, "Grad-CAM: visual explanations from deep networks via gradient-based
    localization") through the whole model: the gradient of a slice's logit behind the recurrent head, back to the encoder's
    map of that slice. It is not averaged over the map before it is multiplied with it (HiResCAM, Draelos and Carin 2020, "Use
    HiResCAM instead of Grad-CAM for faithful explanations of convolutional neural networks"): for the last map before an
    average that is the same, but a maximum has its gradient in one cell, which the mean would forget. The map of slice i adds
    up what in it speaks for the label in slices i - m to i + m, m being ``neighbours``. In scans of more than 64 slices those
    64 apart share a backward pass, and what the one says of the other, which is mostly nothing, is in the maps of both.

    Contributions are integrated gradients (Sundararajan et al. 2017, "Axiomatic attribution for deep networks") of the scan's
    logit along the straight path to the scan's features, from a scan whose every slice is like this one's least suspicious
    (lowest logit of "any"). A label's contributions add up to the difference of these two logits, but for the error of 16
    steps of integration, a few percent.

    Both explain the model without calibration and without what it does at test time (``test_time``), on the device it is on.
    Memory does not grow with the scan but by the maps and the features. The model is left as it was.

    Args:
        model: The model.
        scan: The scan; or, where it has just been predicted, what `Predictor.encode` made of it, so that the encoder does not
            compute its features again.
        labels: Which of `LABELS`; by default all.
        stride: Pixels of the network's input per cell of the map; by default that of the encoder's last map, for most 32.
            The map before has twice the cells, and less of the meaning.
        neighbours: Slices on either side, at least 0, for whose logits a slice is looked at too.

    Returns:
        Maps and contributions; NaN for the labels that are not wanted.

    Raises:
        ConfigError: If a label or the stride is unknown, ``neighbours`` below 0, or the backbone has no maps.
        CheckpointError: If the model does not know how scans are prepared for it.

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
    # Autograd may keep nothing that was made under a caller's inference_mode, be it what is computed here or the weights.
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
    """Places of the wanted labels among `LABELS`, in their order."""
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
    """The head in full precision, with gradients, and without cuDNN, whose LSTM has no backward pass in evaluation mode."""
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False), torch.autocast(device.type, enabled=False):
        yield


def _run_head(model: ScanModel, features: Tensor, positions_mm: Tensor) -> ScanLogits:
    """The head on versions of one scan, side by side: ``(r, n, d)``; slice logits ``(r * n, k)``, scan logits ``(r, k)``."""
    count, slices = features.shape[:2]
    return model.head(features.flatten(0, 1), torch.full((count,), slices), positions_mm.repeat(count))


def _feature_gradients(
    model: ScanModel, features: Tensor, positions_mm: Tensor, wanted: Sequence[int], neighbours: int
) -> Tensor:
    """How each slice's features move its own logits and its neighbours', ``(labels, n, d)``.

    A slice's logit depends on the features of all slices, so the gradient of all logits at once would mix what a slice says of
    itself with what it says of all others. Copies of the scan run side by side instead, each with other slices as targets.
    """
    slices = len(features)
    apart = 1 if model.sequence is None else min(slices, TARGET_DISTANCE)  # without a recurrent head its logits are a slice's own
    gradients = features.new_zeros(len(wanted), *features.shape)
    places = torch.arange(slices, device=features.device)
    for offsets in torch.arange(apart).split(max(1, HEAD_SLICES // slices)):
        targets = [places[int(offset) :: apart] for offset in offsets]
        # Slices at which the gradient of a copy is read: its targets and their neighbours.
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
    """HiResCAM of every slice, ``(n, labels, r, c)``, chunk by chunk."""
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
            del features  # or its graph would live on beside the next chunk
    return np.concatenate(maps)


def _contributions(model: ScanModel, features: Tensor, positions_mm: Tensor, wanted: Sequence[int]) -> np.ndarray:
    """Integrated gradients of the scan's logits over its slices, float64 ``(n, labels)``."""
    slices = len(features)
    suspicion = _run_head(model, features[None], positions_mm).slice_logits[:, LABELS.index(ANY)]
    baseline = features[suspicion.argmin()]  # (d,)
    way = features - baseline
    nodes, shares = np.polynomial.legendre.leggauss(INTEGRATION_STEPS)
    steps = torch.tensor(
        np.stack([nodes + 1, shares]) / 2, dtype=features.dtype, device=features.device
    )  # from [-1, 1] to [0, 1]
    contributions = np.zeros((slices, len(wanted)))
    for along, share in zip(*(part.split(max(1, HEAD_SLICES // slices)) for part in steps), strict=True):
        with _differentiable_head(features.device):
            between = (baseline + along[:, None, None] * way).requires_grad_()  # (r, n, d)
            logits = _run_head(model, between, positions_mm).scan_logits.sum(dim=0)  # (k,)
            for i, k in enumerate(wanted):
                (gradient,) = torch.autograd.grad(logits[k], between, retain_graph=k != wanted[-1])
                added = torch.einsum("r,rnd,nd->n", share, gradient, way)
                contributions[:, i] += added.double().cpu().numpy()
    return contributions


def _with_all_labels(values: np.ndarray, wanted: Sequence[int]) -> np.ndarray:
    """Expand values to all labels on the second axis, with NaN for labels that were not requested."""
    every = np.full((len(values), len(LABELS), *values.shape[2:]), np.nan, values.dtype)
    every[:, list(wanted)] = values
    return every


def _describe(point: MapPoint, neighbours: int, slices: int) -> str:
    beside = f" and of {neighbours} on either side" if neighbours else ""
    together = f", targets {TARGET_DISTANCE} slices apart together" if slices > TARGET_DISTANCE else ""
    return (
        f"Grad-CAM (HiResCAM) through the whole model to the encoder's map at stride {point.stride}, for the logit of the slice"
        f"{beside}{together}; contributions: integrated gradients of the scan's logit, {INTEGRATION_STEPS} steps from its least "
        "suspicious slice; without calibration and test-time augmentation"
    )
