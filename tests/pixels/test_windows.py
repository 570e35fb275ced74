"""Windows, as a function and as the first layer of the model."""

import numpy as np
import pytest
import torch

from ich_lstm import Window
from ich_lstm.pixels.windows import BONE, BRAIN, SUBDURAL, WindowStack, apply_window

WINDOWS = (BRAIN, SUBDURAL, BONE)
HU = torch.arange(-1024, 3072, dtype=torch.int16).reshape(1, 64, 64)


class TestApplyWindow:
    def test_the_level_is_the_middle(self) -> None:
        for window in WINDOWS:
            assert apply_window(torch.tensor(float(window.level)), window) == 0.5
        assert apply_window(torch.tensor(40.0), BRAIN) == 0.5

    def test_ends_are_those_of_linear_exact(self) -> None:
        # LINEAR, DICOM's default, would reach 1 at 79 HU.
        values = apply_window(torch.tensor([-1024.0, -1, 0, 1, 79, 80, 81, 3071], dtype=torch.float64), BRAIN)
        assert values.tolist() == [0, 0, 0, 1 / 80, 79 / 80, 1, 1, 1]

    def test_equals_numpy_on_every_ct_number(self) -> None:
        for window in WINDOWS:
            points = [window.level - window.width / 2, window.level + window.width / 2]
            np.testing.assert_allclose(apply_window(HU, window).numpy(), np.interp(HU.numpy(), points, [0, 1]), atol=1e-6)


class TestWindowStack:
    @pytest.mark.parametrize(("mean", "std"), [((0.0,), (1.0,)), ((0.449,), (0.226,)), ((0.1, 0.5, 0.9), (0.2, 0.3, 2.0))])
    def test_equals_windows_then_mean_and_std(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        stack = WindowStack(WINDOWS, mean, std)
        means, stds = np.broadcast_to(mean, 3), np.broadcast_to(std, 3)
        expected = [(apply_window(HU.double(), window) - m) / s for window, m, s in zip(WINDOWS, means, stds, strict=True)]
        got = stack(HU)
        assert got.dtype == torch.float32
        assert got.shape == (1, 3, 64, 64)
        assert len(stack) == 3
        np.testing.assert_allclose(got.numpy(), torch.stack(expected, 1).numpy(), atol=1e-6 / min(std))

    def test_float64_is_kept(self) -> None:
        stack = WindowStack(WINDOWS, (0.5,), (0.25,)).double()
        got = stack(HU)
        assert got.dtype == torch.float64
        expected = torch.stack([(apply_window(HU.double(), window) - 0.5) / 0.25 for window in WINDOWS], 1)
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
