"""Gradients of depthwise convolutions on a CPU under bfloat16."""

from contextlib import AbstractContextManager
from unittest import mock

import pytest
import torch
from torch import Tensor, nn

from ich_lstm.models.encoder import Encoder, SliceEncoder
from ich_lstm.models.execution.depthwise import _Depthwise, depthwise_gradients_in_float32

LAYERS = {
    "3 x 3": {"kernel_size": 3, "padding": 1},
    "5 x 5 with stride": {"kernel_size": 5, "stride": 2, "padding": 2},
    "dilated, with bias": {"kernel_size": 3, "dilation": 2, "padding": (2, 1), "bias": True},
    "padding by name": {"kernel_size": 3, "padding": "same"},
}


def gradients(layer: nn.Module, x: Tensor, *, bfloat16: bool, patched: bool) -> list[Tensor]:
    """Gradients of the input and of all weights, of a loss that weighs all outputs differently."""
    layer.zero_grad()
    x = x.detach().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        if patched:
            with depthwise_gradients_in_float32(x):
                y = layer(x)
        else:
            y = layer(x)
    (y.float() * torch.linspace(-1, 1, y.numel()).view_as(y)).sum().backward()
    return [x.grad, *(parameter.grad for parameter in layer.parameters())]


def counted() -> AbstractContextManager[mock.MagicMock]:
    """Counts the convolutions whose gradients are computed differently."""
    return mock.patch.object(_Depthwise, "apply", side_effect=_Depthwise.apply)


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("channels_last", [False, True])
def test_gradients_are_those_of_float32(name: str, channels_last: bool) -> None:
    torch.manual_seed(0)
    layer = nn.Conv2d(8, 8, groups=8, **({"bias": False} | LAYERS[name]))
    x = torch.randn(2, 8, 12, 10)
    if channels_last:
        layer, x = layer.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    exact = gradients(layer, x, bfloat16=False, patched=False)
    for found, expected in zip(gradients(layer, x, bfloat16=True, patched=True), exact, strict=True):
        assert found.dtype == torch.float32
        assert (found - expected).abs().max() <= 0.01 * expected.abs().max()  # the rounding of input and output


def test_outputs_are_those_of_autocast() -> None:
    layer, x = nn.Conv2d(8, 8, 3, groups=8), torch.randn(2, 8, 12, 10)
    with torch.autocast("cpu", torch.bfloat16):
        expected = layer(x)
        with depthwise_gradients_in_float32(x):
            found = layer(x)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected)


def test_a_frozen_layer_gets_no_gradient() -> None:
    layer, x = nn.Conv2d(8, 8, 3, groups=8).requires_grad_(False), torch.randn(2, 8, 12, 10)
    of_input, *of_weights = gradients(layer, x, bfloat16=True, patched=True)
    assert of_input.abs().sum() > 0
    assert of_weights == [None, None]


@pytest.mark.parametrize(
    ("backbone", "bfloat16", "depthwise"),
    [("tf_efficientnet_lite0", True, 16), ("tf_efficientnet_lite0", False, 0), ("resnext26ts", True, 0)],
)
def test_an_encoder_in_training(backbone: str, bfloat16: bool, depthwise: int) -> None:
    """All depthwise convolutions, and no other ones; and nothing without bfloat16."""
    torch.manual_seed(0)
    encoder = SliceEncoder(Encoder(backbone=backbone, pretrained=False), in_channels=3).train()
    x = torch.randn(2, 3, 64, 64)
    with counted() as applied, torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
        encoder(x).float().square().mean().backward()
    assert applied.call_count == depthwise
    assert all(parameter.grad is not None for parameter in encoder.parameters())
    with counted() as applied, torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        encoder(x)
    assert not applied.called, "without gradients there is nothing to change"


@pytest.mark.parametrize("settings", [{"checkpoint_blocks": True}, {"compiled": True}], ids=str)
def test_not_where_activations_are_computed_elsewhere(settings: dict[str, bool]) -> None:
    """Block checkpointing computes them again in the backward pass, and would find tensors of other types there."""
    encoder = SliceEncoder(Encoder(backbone="test_efficientnet", pretrained=False, **settings), in_channels=3).train()
    encoder.network._compiled_call_impl = None  # without the minutes of a compilation
    with counted() as applied, torch.autocast("cpu", torch.bfloat16):
        encoder(torch.randn(2, 3, 32, 32)).float().square().mean().backward()
    assert not applied.called
    assert all(parameter.grad is not None for parameter in encoder.parameters())
