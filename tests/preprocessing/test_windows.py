"""Windows, as a function and as the first layer of the model."""

import json
from dataclasses import replace
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from fabricated import make_classifier, make_model

from ich_lstm import ScanClassifier, Window
from ich_lstm.errors import ConfigError
from ich_lstm.models.released.weights import PAN
from ich_lstm.preprocessing.intensity import Intensity
from ich_lstm.preprocessing.windows import NARROWEST, Windows, WindowStack
from ich_lstm.settings import merged
from ich_lstm.window import BONE, BRAIN, SUBDURAL

WINDOWS = (BRAIN, SUBDURAL, BONE)
HU = torch.arange(-1024, 3072, dtype=torch.int16).reshape(1, 64, 64)


class TestApplyWindow:
    def test_the_level_is_the_middle(self) -> None:
        for window in WINDOWS:
            assert window.apply(torch.tensor(float(window.level))) == 0.5
        assert BRAIN.apply(torch.tensor(40.0)) == 0.5

    def test_ends_are_those_of_linear_exact(self) -> None:
        # LINEAR, DICOM's default, would reach 1 at 79 HU.
        values = BRAIN.apply(torch.tensor([-1024.0, -1, 0, 1, 79, 80, 81, 3071], dtype=torch.float64))
        assert values.tolist() == [0, 0, 0, 1 / 80, 79 / 80, 1, 1, 1]

    def test_equals_numpy_on_every_ct_number(self) -> None:
        for window in WINDOWS:
            points = [window.level - window.width / 2, window.level + window.width / 2]
            np.testing.assert_allclose(window.apply(HU).numpy(), np.interp(HU.numpy(), points, [0, 1]), atol=1e-6)


class TestWindowStack:
    @pytest.mark.parametrize(("mean", "std"), [((0.0,), (1.0,)), ((0.449,), (0.226,)), ((0.1, 0.5, 0.9), (0.2, 0.3, 2.0))])
    def test_equals_windows_then_mean_and_std(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        stack = WindowStack(WINDOWS, mean, std)
        means, stds = np.broadcast_to(mean, 3), np.broadcast_to(std, 3)
        expected = [(window.apply(HU.double()) - m) / s for window, m, s in zip(WINDOWS, means, stds, strict=True)]
        got = stack(HU)
        assert got.dtype == torch.float32
        assert got.shape == (1, 3, 64, 64)
        assert len(stack) == 3
        np.testing.assert_allclose(got.numpy(), torch.stack(expected, 1).numpy(), atol=1e-6 / min(std))

    def test_float64_is_kept(self) -> None:
        stack = WindowStack(WINDOWS, (0.5,), (0.25,)).double()
        got = stack(HU)
        assert got.dtype == torch.float64
        expected = torch.stack([(window.apply(HU.double()) - 0.5) / 0.25 for window in WINDOWS], 1)
        np.testing.assert_allclose(got.numpy(), expected.numpy(), atol=1e-12)

    def test_int16_and_float_hu_are_the_same(self) -> None:
        stack = WindowStack([(40, 80)])
        assert torch.equal(stack(HU), stack(HU.float()))

    def test_low_precision_does_not_reach_the_hu(self) -> None:
        # bfloat16 knows HU above 256 in steps of 2 and more.
        stack = WindowStack([Window(1000, 100)])
        with torch.autocast("cpu", dtype=torch.bfloat16):
            got = stack(torch.tensor([[[1000, 1001, 1002, 1003]]], dtype=torch.int16))
        np.testing.assert_allclose(got.float().numpy().ravel(), [0.5, 0.51, 0.52, 0.53], atol=1e-5)

    def test_windows_travel_with_the_weights(self) -> None:
        other = WindowStack([(1, 2)])
        other.load_state_dict(WindowStack([BRAIN], (0.4,), (0.2,)).state_dict())
        assert torch.equal(other(HU), WindowStack([BRAIN], (0.4,), (0.2,))(HU))

    @pytest.mark.parametrize(
        ("windows", "mean", "std"),
        [
            ([], (0,), (1,)),
            ([(40, 0)], (0,), (1,)),
            ([(40, -80)], (0,), (1,)),
            ([(40,)], (0,), (1,)),
            ([BRAIN, BONE], (0, 0, 0), (1,)),
            ([BRAIN, BONE], (0,), (1, 1, 1)),
            ([BRAIN], (0,), (0,)),
        ],
    )
    def test_refuses_what_is_no_window(self, windows: list, mean: tuple, std: tuple) -> None:
        with pytest.raises(ValueError, match="got"):
            WindowStack(windows, mean, std)

    def test_what_a_missing_slice_is(self) -> None:
        stack = WindowStack(WINDOWS, (0.5,), (0.1, 0.25, 0.5))
        np.testing.assert_allclose(stack.absent, [-5, -2, -1])
        air = torch.full((1, 2, 2), -1024)
        for quantize in (False, True):
            air_becomes = WindowStack(WINDOWS, (0.5,), (0.1, 0.25, 0.5), quantize=quantize)(air)
            assert torch.equal(air_becomes, stack.absent[None, :, None, None].expand(1, 3, 2, 2))


class TestQuantize:
    # 3 / 7 and odd widths: lower ends that are half a HU.
    windows = (*WINDOWS, Window(80, 200), Window(35, 77), Window(3, 7))

    def test_equals_integers_on_every_ct_number(self) -> None:
        got = WindowStack(self.windows, quantize=True)(HU)
        hu = HU.numpy().astype(np.int64)
        for channel, (level, width) in enumerate(self.windows):
            clipped = (2 * hu - (2 * level - width)).clip(0, 2 * width)  # in halves of a HU
            grey = 255 * clipped // (2 * width)
            np.testing.assert_array_equal((got[:, channel] * 255).round().numpy(), grey)
            np.testing.assert_allclose(got[:, channel].numpy(), grey / 255, atol=1e-7)

    def test_then_mean_and_std(self) -> None:
        plain = WindowStack(WINDOWS, quantize=True)(HU)
        got = WindowStack(WINDOWS, (0.1, 0.5, 0.9), (0.2, 0.3, 2.0), quantize=True)(HU)
        mean, std = torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.2, 0.3, 2.0])
        torch.testing.assert_close(got, (plain - mean[:, None, None]) / std[:, None, None])
        assert got.is_contiguous(memory_format=torch.channels_last)

    def test_only_rounds_down(self) -> None:
        plain, rounded = WindowStack(WINDOWS)(HU), WindowStack(WINDOWS, quantize=True)(HU)
        assert (plain - rounded).min() > -1e-6
        assert (plain - rounded).max() < 1 / 255 + 1e-6

    def test_the_gradient_passes_the_steps(self) -> None:
        gradients = []
        for quantize in (False, True):
            stack = WindowStack([(40.0, 80.0)], (0.5,), (0.25,), quantize=quantize, learnable=True)
            stack(HU).square().sum().backward()
            gradients.append(torch.stack([stack.levels.grad, stack.widths.grad]))
        torch.testing.assert_close(gradients[0], gradients[1], rtol=0.05, atol=1)


class TestLearnable:
    def test_the_same_values_and_names(self) -> None:
        fixed, learnable = WindowStack(WINDOWS, (0.4,), (0.2,)), WindowStack(WINDOWS, (0.4,), (0.2,), learnable=True)
        assert torch.equal(learnable(HU), fixed(HU))
        assert learnable.state_dict().keys() == fixed.state_dict().keys()
        assert [name for name, _ in learnable.named_parameters()] == ["levels", "widths"]
        assert not list(fixed.parameters())
        other = WindowStack([(1, 2)] * 3)
        other.load_state_dict(learnable.state_dict())
        assert torch.equal(other(HU), fixed(HU))

    @pytest.mark.parametrize("quantize", [False, True])
    def test_finds_the_window_it_is_taught(self, quantize: bool) -> None:
        target = WindowStack([(60.0, 120.0)])(HU)
        stack = WindowStack([(40.0, 80.0)], learnable=True, quantize=quantize)
        optimizer = torch.optim.Adam(stack.parameters(), lr=2.0)
        for _ in range(80):
            optimizer.zero_grad()
            (stack(HU) - target).square().mean().backward()
            optimizer.step()
        assert stack.levels.item() == pytest.approx(60, abs=1)
        assert stack.widths.item() == pytest.approx(120, abs=3)

    @pytest.mark.parametrize("quantize", [False, True])
    @pytest.mark.parametrize("width", [0.0, -50.0, 0.5])
    def test_no_width_below_the_narrowest_and_back_again(self, width: float, quantize: bool) -> None:
        stack = WindowStack([(40.0, 80.0)], learnable=True, quantize=quantize)
        narrowest = WindowStack([(40.0, NARROWEST)], quantize=quantize)
        with torch.no_grad():
            stack.widths.fill_(width)
        hu = torch.tensor([[[39.75, 40.0, 40.25, 41.0]]])
        torch.testing.assert_close(stack(hu), narrowest(hu))
        (stack(hu)[..., 2] - 0.5).sum().backward()
        assert stack.widths.grad.item() < 0  # a wider window would show it darker: descent can widen it

    def test_refuses_to_begin_below_the_narrowest(self) -> None:
        WindowStack([(40, 0.5)])
        with pytest.raises(ValueError, match="at least"):
            WindowStack([(40, 0.5)], learnable=True)


class TestIntensityInTheStack:
    strong = Intensity(brightness=0.3, contrast=0.3, noise=0.1, brightness_contrast_p=1, noise_p=1)
    draws = torch.tensor([7])

    def test_in_training_and_with_draws_alone(self) -> None:
        plain = WindowStack(WINDOWS, (0.4,), (0.2,))(HU)
        stack = WindowStack(WINDOWS, (0.4,), (0.2,), intensity=self.strong)
        assert torch.equal(stack(HU), plain)
        assert (stack(HU, self.draws) != plain).any()
        assert torch.equal(stack.eval()(HU, self.draws), plain)
        assert torch.equal(WindowStack(WINDOWS, (0.4,), (0.2,))(HU, self.draws), plain)

    @pytest.mark.parametrize("quantize", [False, True])
    def test_stands_between_windowing_and_normalization(self, quantize: bool) -> None:
        mean, std = torch.tensor([0.1, 0.5, 0.9]), torch.tensor([0.2, 0.3, 2.0])
        got = WindowStack(WINDOWS, mean.tolist(), std.tolist(), intensity=self.strong, quantize=quantize)(HU, self.draws)
        windowed = WindowStack(WINDOWS, quantize=quantize)(HU)
        expected = (self.strong(windowed, self.draws) - mean[:, None, None]) / std[:, None, None]
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
        assert got.is_contiguous(memory_format=torch.channels_last)

    def test_learned_windows_learn_through_it(self) -> None:
        stack = WindowStack(WINDOWS, intensity=self.strong, learnable=True)
        stack(HU, self.draws).square().sum().backward()
        assert (stack.levels.grad != 0).all()
        assert (stack.widths.grad != 0).all()


EVERY_HU = np.arange(-1024, 3072, dtype=np.int16)

PUBLISHED = {
    # recipe: windows as published, and the arithmetic of the authors' program in whole numbers and float64
    "nguyen2020": lambda hu, level, width: (
        (255 * (np.clip(hu, level - width // 2, level + width // 2) - (level - width // 2)) / width).astype(np.uint8) / 255
    ),
    "burduja2020": lambda hu, level, width: (np.clip(hu, level - width // 2, level + width // 2) - level + width // 2) / width,
    "ko2020": lambda hu, level, width: (np.clip(hu, level - width / 2, level + width / 2) - level + width / 2) / width,
}


class TestPublishedSystems:
    @pytest.mark.parametrize("recipe", PUBLISHED)
    def test_every_window_is_that_of_the_published_program_for_every_hu(self, recipe: str) -> None:
        model = yaml.safe_load((resources.files("ich_lstm.configs") / f"{recipe}.yaml").read_text())["model"]
        settings = merged(Windows(), model["windows"])
        stack = replace(settings, mean=(0.0,), std=(1.0,)).build()
        got = stack(torch.from_numpy(EVERY_HU).reshape(1, 1, -1))[0, :, 0].numpy()
        for channel, (level, width) in zip(got, settings.channels, strict=True):
            expected = PUBLISHED[recipe](EVERY_HU.astype(np.int64), level, width)
            np.testing.assert_allclose(channel, expected, rtol=0, atol=1e-6)

    def test_the_second_window_of_nguyen_ends_below_white(self) -> None:
        stack = WindowStack([(75, 215)], quantize=True, integer_edges=True)
        hu = torch.tensor([[[-33, -32, -31, 75, 181, 182, 183, 3071]]])
        assert (stack(hu).flatten() * 255).round().tolist() == [0, 0, 1, 126, 252, 253, 253, 253]
        exact = WindowStack([(75, 215)], quantize=True)
        assert (exact(hu).flatten() * 255).round().tolist()[-1] == 255

    def test_pan_divides_by_a_millionth_more(self) -> None:
        for level, width in PAN.windows.channels:
            theirs = (np.clip(EVERY_HU.astype(float), level - width / 2, level + width / 2) - (level - width / 2)) / (
                width + 1e-6
            )
            ours = WindowStack([(level, width)])(torch.from_numpy(EVERY_HU).reshape(1, 1, -1)).flatten().numpy()
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-7)

    @pytest.mark.parametrize("quantize", [False, True])
    @pytest.mark.parametrize("window", [(40, 80), (600, 2800), (80, 200), (75, 215), (41, 81), (40, 3), (7, 1)])
    def test_whole_edges_change_odd_widths_alone(self, window: tuple[int, int], quantize: bool) -> None:
        hu = torch.from_numpy(EVERY_HU).reshape(1, 1, -1)
        exact, whole = (WindowStack([window], quantize=quantize, integer_edges=value)(hu) for value in (False, True))
        level, width = window
        low, high = level - width // 2, level + width // 2
        expected = (np.clip(EVERY_HU.astype(np.int64), low, high) - low) / width
        expected = np.floor(255 * (np.clip(EVERY_HU.astype(np.int64), low, high) - low) / width) / 255 if quantize else expected
        np.testing.assert_allclose(whole.flatten().numpy(), expected, rtol=0, atol=1e-6)
        if width % 2 == 0:
            assert torch.equal(exact, whole)
        else:
            assert not torch.equal(exact, whole)

    def test_learnable_windows_have_no_whole_edges(self) -> None:
        with pytest.raises(ValueError, match="integer_edges"):
            WindowStack([(75, 215)], learnable=True, integer_edges=True)
        with pytest.raises(ConfigError):
            make_model(windows={"learnable": True, "integer_widths": True})

    def test_a_model_stores_which_it_has(self, tmp_path: Path) -> None:
        classifier = make_classifier(windows={"channels": [(75, 215)], "quantize": True, "integer_widths": True})
        classifier.save_pretrained(tmp_path)
        assert ScanClassifier.load(tmp_path).model.windows.integer_edges
        about = json.loads((tmp_path / "model.json").read_text())
        del about["settings"]["windows"]["integer_widths"]  # as of earlier versions
        del about["checksum"]
        (tmp_path / "model.json").write_text(json.dumps(about))
        assert not ScanClassifier.load(tmp_path).model.windows.integer_edges
