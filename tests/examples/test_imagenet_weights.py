"""ImageNet weights out of a Python package, for timm's network."""

from pathlib import Path

import imagenet_weights as script
import pytest
import timm
import torch

from ich_lstm import Encoder
from ich_lstm.models.encoder import SliceEncoder

PLAIN = "efficientnet_lite0"
"""The network with the same tensors and another padding."""


@pytest.fixture
def tensors() -> dict[str, torch.Tensor]:
    """Tensors in the published order, under other names than timm's."""
    state = timm.create_model(script.BACKBONE, pretrained=False).state_dict()
    return {f"_{place}.{name.rpartition('.')[2]}": tensor for place, (name, tensor) in enumerate(state.items())}


class TestNames:
    def test_by_order(self, tensors: dict[str, torch.Tensor]) -> None:
        renamed = script.under_names_of_timm(tensors)
        timm.create_model(script.BACKBONE, pretrained=False).load_state_dict(renamed)  # strict
        for mine, theirs in zip(renamed.values(), tensors.values(), strict=True):
            assert torch.equal(mine, theirs)

    def test_another_order_of_equal_shapes(self, tensors: dict[str, torch.Tensor]) -> None:
        names = list(tensors)
        weight, bias = (next(i for i, name in enumerate(names) if name.endswith(role)) for role in ("1.weight", "2.bias"))
        assert tensors[names[weight]].shape == tensors[names[bias]].shape
        names[weight], names[bias] = names[bias], names[weight]
        with pytest.raises(ValueError, match="got bias"):
            script.under_names_of_timm({name: tensors[name] for name in names})

    def test_a_tensor_too_few(self, tensors: dict[str, torch.Tensor]) -> None:
        tensors.popitem()
        with pytest.raises(ValueError, match="295 tensors, expected 296"):
            script.under_names_of_timm(tensors)


def test_nothing_is_written_where_outputs_differ(tensors, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "published_weights", lambda: tensors)
    monkeypatch.setattr(script, "largest_difference", lambda weights: float("nan"))
    with pytest.raises(ValueError, match="differs from the published network"):
        script.convert(tmp_path / "lite0.safetensors")
    assert not list(tmp_path.iterdir())


class TestPackage:
    @pytest.fixture(autouse=True)
    def packages(self) -> None:
        for name in (script.PACKAGE, script.PUBLISHED):
            pytest.importorskip(name, reason=f"the weights' package {name} is not installed")

    def test_the_library_loads_what_gives_the_published_outputs(self, tmp_path: Path) -> None:
        path = tmp_path / "lite0.safetensors"
        assert script.convert(path) <= script.TOLERANCE
        encoder = SliceEncoder(Encoder(backbone=script.BACKBONE, pretrained_file=path), in_channels=3).eval()
        assert encoder.starting_weights["file"] == path.name
        network = timm.create_model(script.BACKBONE, pretrained=False, num_classes=0)
        weights = script.under_names_of_timm(script.published_weights())
        network.load_state_dict({name: tensor for name, tensor in weights.items() if not name.startswith("classifier")})
        images = torch.rand(1, 3, 64, 64)
        with torch.inference_mode():
            # The encoder keeps pixels in another order in memory, so sums are rounded otherwise.
            assert torch.allclose(encoder(images), network.eval()(images), atol=script.TOLERANCE)

    def test_the_plain_network_is_found_to_be_wrong(self) -> None:
        assert script.largest_difference(script.published_weights(), backbone=PLAIN) > 1
