"""Gradients of depthwise convolutions in float32, where bfloat16 is slow: on CPUs.

oneDNN has fast kernels for the forward pass of a depthwise convolution in bfloat16, but slow ones for its gradients: for
EfficientNet-Lite0 on an AMD EPYC (Zen 5) they took two thirds of a training step. The kernels for float32 are faster, and more
exact.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.overrides import TorchFunctionMode


def depthwise_gradients_in_float32(x: Tensor) -> AbstractContextManager:
    """A context in which depthwise convolutions get gradients in float32, where that is faster; elsewhere it changes nothing.

    Args:
        x: Input of the network that is run in the context.

    Example:
        >>> with torch.autocast("cpu", torch.bfloat16), depthwise_gradients_in_float32(x):  # doctest: +SKIP
        ...     features = encoder(x)
    """
    is_bfloat16 = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    if x.device.type == "cpu" and is_bfloat16 and torch.is_grad_enabled():
        return _DepthwiseGradientsInFloat32()
    return nullcontext()


class _DepthwiseGradientsInFloat32(TorchFunctionMode):
    """Redirects depthwise calls of `torch.conv2d` to `_Depthwise`."""

    def __torch_function__(
        self, func: Callable, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func is not torch.conv2d:
            return func(*args, **(kwargs or {}))
        given = dict(zip(_CONV2D, args, strict=False)) | dict(kwargs or {})
        if not _is_depthwise(given):
            return func(*args, **(kwargs or {}))
        x, weight, bias = given["input"], given["weight"], given.get("bias")
        geometry = [_pair(given.get(name, usual)) for name, usual in (("stride", 1), ("padding", 0), ("dilation", 1))]
        return _Depthwise.apply(x.to(torch.bfloat16), weight, bias, *geometry, given["groups"])


_CONV2D = ("input", "weight", "bias", "stride", "padding", "dilation", "groups")


def _is_depthwise(given: Mapping[str, Any]) -> bool:
    """Whether each channel has its own filters, and the padding is given in pixels."""
    return given.get("groups", 1) > 1 and given["weight"].shape[1] == 1 and not isinstance(given.get("padding"), str)


def _pair(value: int | Sequence[int]) -> list[int]:
    return [value, value] if isinstance(value, int) else list(value) * (2 // len(value))


class _Depthwise(torch.autograd.Function):
    """A convolution in bfloat16 with gradients in float32."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        stride: list[int],
        padding: list[int],
        dilation: list[int],
        groups: int,
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.bias = None if bias is None else list(bias.shape)
        ctx.geometry = (stride, padding, dilation, False, [0, 0], groups)
        return torch.conv2d(x, weight.to(x.dtype), None if bias is None else bias.to(x.dtype), stride, padding, dilation, groups)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.needs_input_grad[2]]
        of_x, of_weight, of_bias = torch.ops.aten.convolution_backward(
            gradient.float(), x.float(), weight.float(), ctx.bias, *ctx.geometry, wanted
        )
        return None if of_x is None else of_x.to(x.dtype), of_weight, of_bias, None, None, None, None
