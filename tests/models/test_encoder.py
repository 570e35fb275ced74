"""The backbone."""

import pytest
import torch

from ich_lstm.errors import ConfigError
from ich_lstm.models.encoder import Encoder, SliceEncoder


def make(backbone: str, channels: int) -> SliceEncoder:
    return SliceEncoder(Encoder(backbone=backbone, pretrained=False), in_channels=channels)


class TestSliceEncoder:
    @pytest.mark.parametrize(("backbone", "channels"), [("resnet10t", 3), ("resnet10t", 5), ("mobilenetv3_small_050", 1)])
    def test_one_vector_per_slice(self, backbone: str, channels: int) -> None:
        encoder = make(backbone, channels)
        for training in (True, False):
            assert encoder.train(training)(torch.zeros(3, channels, 32, 32)).shape == (3, encoder.out_features)

    @pytest.mark.parametrize("count", [1, 7, 8, 9, 20])
    def test_chunks_at_inference_change_nothing(self, count: int) -> None:
        torch.manual_seed(0)
        encoder = make("resnet10t", 2).double().eval()
        x = torch.randn(count, 2, 32, 32, dtype=torch.float64)
        whole = encoder(x)
        assert whole.requires_grad
        with torch.inference_mode():
            torch.testing.assert_close(encoder(x), whole.detach(), rtol=1e-9, atol=1e-9)

    def test_unknown_backbone_names_the_nearest(self) -> None:
        with pytest.raises(ConfigError) as caught:
            make("resnext50_32x4", 3)
        assert caught.value.code == "unknown_backbone"
        assert "resnext50_32x4d" in caught.value.todo

    @pytest.mark.parametrize("name", ["", "§§§", "../../model"])
    def test_nothing_near(self, name: str) -> None:
        with pytest.raises(ConfigError):
            make(name, 3)
