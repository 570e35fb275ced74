"""Feature maps of the encoder for one slice, and gradients with respect to one of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ich_lstm.errors import ConfigError
from ich_lstm.models.encoder import SliceEncoder
from ich_lstm.models.execution.compiled import unwrapped
from ich_lstm.models.execution.recompute import batch_norms

USUAL_STRIDE = 16
"""Largest stride of the map that is used by default. On real bleeding, maps of stride 16 of a fine-tuned EfficientNet-Lite0
pointed at it, and its last maps, of stride 32, beside it (`examples/benchmarks/real_bleeding_maps.py`)."""


class MapPoint(NamedTuple):
    """A module of a backbone whose output is a feature map.

    Args:
        module: Name of the module whose output is the map.
        stride: Width of a cell of the map, in pixels of the input.
        channels: Number of channels of the map.
        norms: Names of modules that may normalize the map afterwards, before it is pooled; only the last map has any.
    """

    module: str
    stride: int
    channels: int
    norms: tuple[str, ...] = ()


class RecordedMap:
    """Holds the feature map of the encoder's most recent call, ``(n, c, h, w)``, a leaf of autograd's graph."""

    def __init__(self) -> None:
        self._tensor: Tensor | None = None

    @property
    def tensor(self) -> Tensor:
        """The recorded map.

        Raises:
            ConfigError: ``no_map``, if the encoder did not run the module.
        """
        if self._tensor is None:
            raise _no_map("a network that does not run the module that timm names for its map")
        return self._tensor

    def put(self, tensor: Tensor) -> None:
        """Replace the recorded map.

        Args:
            tensor: The map of the slices of the present call ``(n, c, h, w)``.
        """
        self._tensor = tensor


def map_point(encoder: SliceEncoder, stride: int | None) -> MapPoint:
    """Find the last feature map of a given stride, by timm's ``feature_info``.

    Args:
        encoder: The encoder.
        stride: Width of a cell of the map, in pixels of the input; None for the last map whose cells are at most `USUAL_STRIDE`
            wide. A backbone without such a map, or without batch normalization, gives its last map.

    Raises:
        ConfigError: ``unknown_stride``, if no map has this stride; ``no_map``, if timm names no maps of the backbone.
    """
    feature_info: Any = getattr(encoder.network, "feature_info", None)
    entries = feature_info if isinstance(feature_info, list) else list(getattr(feature_info, "info", []))
    points = {int(entry["reduction"]): MapPoint(entry["module"], int(entry["reduction"]), entry["num_chs"]) for entry in entries}
    if not points:
        raise _no_map(f"{type(encoder.network).__name__}, whose maps timm does not name")
    last = list(points.values())[-1]
    if stride is None and batch_norms(encoder):
        # Where a network normalizes each place instead (ConvNeXt, Swin), gradient times map sums to 0 before the next stage.
        stride = max((each for each in points if each <= USUAL_STRIDE), default=last.stride)
    if stride in (None, last.stride):
        return last._replace(norms=("norm", "head.norm") if encoder.pools_late else ("norm",))
    if stride not in points:
        raise ConfigError(
            "unknown_stride",
            where="stride",
            got=repr(stride),
            expected=f"the stride of a feature map of {type(encoder.network).__name__}: {', '.join(map(str, sorted(points)))}",
        )
    return points[stride]


@contextmanager
def recording_from(encoder: SliceEncoder, point: MapPoint) -> Iterator[RecordedMap]:
    """Let the encoder record gradients from one of its feature maps on, but not in the layers before it.

    Inside this context, call the encoder under `torch.no_grad`; a hook switches gradients on where the map is computed. On exit,
    the encoder is restored.

    Args:
        encoder: The encoder, in evaluation mode.
        point: The map to record, from `map_point`.

    Yields:
        The object that holds the map after each call.

    Raises:
        ConfigError: ``no_map``, if the module is missing, or if its output in a call is not a feature map.
    """
    network = unwrapped(encoder.network)
    modules = dict(network.named_modules())
    if point.module not in modules:
        raise _no_map(f"{type(network).__name__}, which has no module {point.module}")
    is_last = getattr(network, "output_fmt", None) == "NHWC"
    recorded = RecordedMap()

    def is_map(output: Any) -> bool:
        return isinstance(output, Tensor) and output.ndim == 4 and output.shape[-1 if is_last else 1] == point.channels

    def record(_: nn.Module, __: Any, output: Any) -> Tensor:
        if not is_map(output):
            got = f"{output.ndim} axes" if isinstance(output, Tensor) and output.ndim != 4 else "another layout"
            raise _no_map(f"{type(network).__name__}, whose {point.module} gives {got}")
        leaf = (output.permute(0, 3, 1, 2) if is_last else output).detach().requires_grad_()
        recorded.put(leaf)
        torch.set_grad_enabled(True)
        # The next layer gets a copy, because it may work in place, which autograd forbids on a leaf.
        return (leaf.permute(0, 2, 3, 1) if is_last else leaf).clone()

    def record_again(module: nn.Module, inputs: Any, output: Any) -> Tensor:
        # A map that is normalized at each place is invariant to its scale: gradient times the map before it would sum to 0 there.
        return record(module, inputs, output) if is_map(output) else output

    # Compiled code does not call hooks that are registered later, nor does timm's checkpointing of the layers inside a module.
    compiled, network._compiled_call_impl = network._compiled_call_impl, None
    checkpointed = [part for part in network.modules() if getattr(part, "grad_checkpointing", False) is True]
    hooks = [modules[point.module].register_forward_hook(record)]
    hooks += [modules[name].register_forward_hook(record_again) for name in point.norms if name in modules]
    try:
        for part in checkpointed:
            part.grad_checkpointing = False  # type: ignore[assignment]
        with torch.compiler.set_stance("force_eager"):
            yield recorded
    finally:
        for hook in hooks:
            hook.remove()
        for part in checkpointed:
            part.grad_checkpointing = True  # type: ignore[assignment]
        network._compiled_call_impl = compiled


def _no_map(got: str) -> ConfigError:
    return ConfigError(
        "no_map",
        where="backbone",
        got=got,
        expected="a backbone with maps (n, c, h, w) or (n, h, w, c), as CNNs and Swin transformers have",
        todo="Explain a model with another backbone.",
    )
