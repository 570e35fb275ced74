"""Feature maps of the encoder for one slice, and gradients with respect to one of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ich_lstm.errors import ConfigError
from ich_lstm.models.compiled import unwrapped
from ich_lstm.models.encoder import SliceEncoder


class MapPoint(NamedTuple):
    """A place in a backbone where there is a map.

    Args:
        module: Name of the module that gives it.
        stride: Pixels of the input per cell.
        channels: Channels of the map.
        norms: Names of modules that may normalize the last map before it is pooled.
    """

    module: str
    stride: int
    channels: int
    norms: tuple[str, ...] = ()


class RecordedMap:
    """The map of the slices that went through the encoder last, ``(n, c, h, w)``, a leaf of autograd's graph."""

    def __init__(self) -> None:
        self._tensor: Tensor | None = None

    @property
    def tensor(self) -> Tensor:
        """The map.

        Raises:
            ConfigError: If the encoder went past it.
        """
        if self._tensor is None:
            raise _no_map("a network that does not run the module it names")
        return self._tensor

    def put(self, tensor: Tensor) -> None:
        """Replace the map by that of other slices."""
        self._tensor = tensor


def map_point(encoder: SliceEncoder, stride: int | None) -> MapPoint:
    """The last map of a backbone that has a stride, by timm's ``feature_info``.

    Args:
        encoder: The encoder.
        stride: Pixels of the input per cell; None for the last map of all.

    Raises:
        ConfigError: ``unknown_stride`` or ``no_map``.
    """
    told: Any = getattr(encoder.network, "feature_info", None)
    entries = told if isinstance(told, list) else list(getattr(told, "info", []))
    points = {int(entry["reduction"]): MapPoint(entry["module"], int(entry["reduction"]), entry["num_chs"]) for entry in entries}
    if not points:
        raise _no_map(f"{type(encoder.network).__name__}, whose maps timm does not name")
    last = list(points.values())[-1]
    if stride in (None, last.stride):
        return last._replace(norms=("norm", "head.norm") if encoder.pools_late else ("norm",))
    if stride not in points:
        raise ConfigError(
            "unknown_stride",
            where="stride",
            got=repr(stride),
            expected=f"that of a map of {type(encoder.network).__name__}: {', '.join(map(str, sorted(points)))}",
        )
    return points[stride]


@contextmanager
def recording_from(encoder: SliceEncoder, point: MapPoint) -> Iterator[RecordedMap]:
    """Let the encoder record gradients from one of its maps on, and nothing before it.

    Call the encoder inside, each time within `torch.no_grad`, which its map then ends. Afterwards it is as it was.

    Args:
        encoder: In evaluation mode.
        point: The map, of `map_point`.

    Yields:
        Where the map lies after each call.

    Raises:
        ConfigError: ``no_map``, in a call: the module gives something else than a map.
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
        # A copy goes on: the next layer may work in place, which a leaf forbids.
        return (leaf.permute(0, 2, 3, 1) if is_last else leaf).clone()

    def record_again(module: nn.Module, inputs: Any, output: Any) -> Tensor:
        # What is normalized place by place does not change with its scale: before, gradient times map would be 0 everywhere.
        return record(module, inputs, output) if is_map(output) else output

    # What is compiled does not call hooks that came later, nor does timm where it checkpoints the layers inside a module.
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
        todo="Explain a model of another backbone.",
    )
