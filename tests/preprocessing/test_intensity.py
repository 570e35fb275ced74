"""Intensity augmentation of windowed slices."""

from dataclasses import asdict

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from ich_lstm.errors import ConfigError
from ich_lstm.preprocessing.intensity import Intensity

ALL = Intensity(brightness=0.2, contrast=0.2, noise=0.1, speckle=0.2, blur=5, median=True)
SEEDS = torch.arange(64) * 2654435769 % 2**32


def images(n: int = 64, c: int = 2, size: int = 12) -> Tensor:
    """Different slices in [0, 1], of which some touch the ends."""
    return torch.rand(n, c, size, size, generator=torch.Generator().manual_seed(1)).mul(1.4).sub(0.2).clamp(0, 1)


def flat(value: float, n: int = 400, size: int = 4) -> Tensor:
    return torch.full((n, 1, size, size), value)


class TestIntensity:
    def test_off_by_default(self) -> None:
        x = images()
        assert torch.equal(Intensity()(x, SEEDS), x)
        assert torch.equal(Intensity(brightness_contrast_p=1, noise_p=1, blur_p=1)(x, SEEDS), x)
        never = Intensity(**(asdict(ALL) | {"brightness_contrast_p": 0, "noise_p": 0, "blur_p": 0}))
        assert torch.equal(never(x, SEEDS), x)

    def test_a_slice_is_the_same_alone_in_a_batch_and_in_another_order(self) -> None:
        x = images()
        together = ALL(x, SEEDS)
        order = torch.randperm(64, generator=torch.Generator().manual_seed(2))
        assert torch.equal(ALL(x[order], SEEDS[order]), together[order])
        assert torch.equal(torch.cat([ALL(x[i : i + 1], SEEDS[i : i + 1]) for i in range(64)]), together)
        assert torch.equal(torch.cat([ALL(x[:40], SEEDS[:40]), ALL(x[40:], SEEDS[40:])]), together)

    def test_memory_order_plays_no_part(self) -> None:
        x = images()
        assert torch.equal(ALL(x.contiguous(memory_format=torch.channels_last), SEEDS), ALL(x, SEEDS))

    def test_other_seeds_other_draws(self) -> None:
        always = Intensity(brightness=0.2, contrast=0.2, noise=0.1, brightness_contrast_p=1, noise_p=1)
        same = images(1).expand(64, -1, -1, -1)
        assert len({image.numpy().tobytes() for image in always(same, SEEDS)}) == 64
        assert len({image.numpy().tobytes() for image in always(same, SEEDS[:1].expand(64))}) == 1

    def test_torch_s_own_generator_is_neither_asked_nor_moved(self) -> None:
        x, before = images(), torch.get_rng_state()
        first = ALL(x, SEEDS)
        assert torch.equal(torch.get_rng_state(), before)
        with torch.random.fork_rng():
            torch.manual_seed(99)
            assert torch.equal(ALL(x, SEEDS), first)

    def test_never_outside_the_window(self) -> None:
        wild = Intensity(
            brightness=1, contrast=1, noise=3, speckle=3, blur=3, median=True, brightness_contrast_p=1, noise_p=1, blur_p=0.5
        )
        out = wild(images(), SEEDS)
        assert out.min() == 0
        assert out.max() == 1

    def test_the_input_stays_as_it_was(self) -> None:
        x = images()
        ALL(x, SEEDS)
        assert torch.equal(x, images())

    def test_the_gradient_passes(self) -> None:
        x = images().mul(0.2).add(0.4).requires_grad_()
        mild = Intensity(brightness=0.05, contrast=0.1, noise=0.01, speckle=0.01, blur=3, median=True)
        mild(x, SEEDS).sum().backward()
        assert x.grad is not None
        assert x.grad.isfinite().all()
        assert (x.grad.abs().sum(dim=(1, 2, 3)) > 0).all()

    def test_float64_and_no_slice(self) -> None:
        assert ALL(images().double(), SEEDS).dtype == torch.float64
        assert ALL(images()[:0], SEEDS[:0]).shape == (0, 2, 12, 12)

    def test_one_kind_does_not_change_what_is_drawn_for_another(self) -> None:
        x = flat(0.5, 64)
        alone = Intensity(brightness=0.3)(x, SEEDS)
        beside = Intensity(brightness=0.3, blur=3, median=True)(x, SEEDS)  # a filter leaves what is flat
        torch.testing.assert_close(beside, alone)

    @pytest.mark.parametrize(
        "changes",
        [
            *({"brightness": -0.1}, {"brightness": 1.1}, {"contrast": 1.5}, {"contrast": -1}, {"noise": -0.1}, {"speckle": -1}),
            *({"brightness_contrast_p": 1.1}, {"noise_p": -0.1}, {"blur_p": 2}, {"blur": 1}, {"blur": 4}, {"blur": -3}),
            *({"noise": float("nan")}, {"brightness": float("nan")}),
        ],
    )
    def test_out_of_range(self, changes: dict) -> None:
        with pytest.raises(ConfigError):
            Intensity(**changes)


class TestDistribution:
    seeds = torch.arange(400) * 2654435769 % 2**32

    def test_brightness_and_contrast_as_albumentations(self) -> None:
        """Two pixels of a slice give contrast a and brightness b of ``clip(a x + b)``, even within 0.2, half of the time."""
        x = torch.tensor([0.3, 0.7]).reshape(1, 1, 1, 2).expand(400, -1, -1, -1)
        out = Intensity(brightness=0.2, contrast=0.2)(x, self.seeds).double()
        a = (out[:, 0, 0, 1] - out[:, 0, 0, 0]) / 0.4
        b = out[:, 0, 0, 0] - 0.3 * a
        changed = ~torch.isclose(a, torch.ones_like(a), atol=1e-5)
        assert 0.42 < changed.double().mean() < 0.58
        for values in (a[changed] - 1, b[changed]):
            assert values.abs().max() <= 0.2 + 1e-6
            assert values.abs().max() > 0.18
            assert abs(values.mean()) < 0.03
            assert values.std() == pytest.approx(0.4 / 12**0.5, abs=0.015)  # of an even distribution
        assert abs(np.corrcoef(a[changed], b[changed])[0, 1]) < 0.2

    def test_noise(self) -> None:
        out = Intensity(noise=0.1, noise_p=1)(flat(0.5, size=24), self.seeds)
        deviations = out.std(dim=(1, 2, 3))
        assert abs(out.mean() - 0.5) < 0.001
        assert deviations.max() < 0.11
        assert deviations.mean() == pytest.approx(0.05, abs=0.005)
        assert deviations.min() < 0.01

    def test_noise_differs_between_windows_and_pixels(self) -> None:
        image = Intensity(noise=0.1, noise_p=1)(torch.full((1, 3, 32, 32), 0.5), self.seeds[3:4])[0] - 0.5
        assert abs(np.corrcoef(image.reshape(3, -1))[0, 1:]).max() < 0.1
        assert abs(np.corrcoef(image[0, 1:].ravel(), image[0, :-1].ravel())[0, 1]) < 0.1

    def test_speckle_is_relative(self) -> None:
        x = torch.tensor([0.0, 0.2, 0.4]).reshape(1, 1, 3, 1).expand(400, 1, 3, 64)
        out = Intensity(speckle=0.2, noise_p=1)(x, self.seeds)
        assert (out[:, :, 0] == 0).all()
        low, high = (float((out[:, 0, i] - 0.2 * i).std()) for i in (1, 2))
        assert high == pytest.approx(2 * low, rel=0.05)
        assert low == pytest.approx(0.2 * 0.2 / 3**0.5, rel=0.1)

    def test_one_of_two_noises_or_none(self) -> None:
        x = torch.tensor([0.0, 0.5]).reshape(1, 1, 2, 1).expand(400, 1, 2, 16)
        out = Intensity(noise=0.1, speckle=0.1, noise_p=2 / 3)(x, self.seeds)
        additive, changed = (out[:, 0, 0] != 0).any(dim=1), (out[:, 0, 1] != 0.5).any(dim=1)
        shares = [float(which.double().mean()) for which in (additive, changed & ~additive, ~changed)]
        np.testing.assert_allclose(shares, [1 / 3] * 3, atol=0.07)

    def test_one_of_two_filters_or_none(self) -> None:
        point = torch.zeros(400, 1, 5, 5)
        point[:, :, 2, 2] = 0.9
        middle = Intensity(blur=3, median=True, blur_p=2 / 3)(point, self.seeds)[:, 0, 2, 2]
        shares = [float(torch.isclose(middle, torch.tensor(value)).double().mean()) for value in (0.1, 0.0, 0.9)]
        np.testing.assert_allclose(shares, [1 / 3] * 3, atol=0.07)


class TestFilters:
    """Against OpenCV."""

    x = images(20, 3, 16)
    seeds = SEEDS[:20]

    def test_the_mean(self) -> None:
        out = Intensity(blur=3, blur_p=1)(self.x, self.seeds)
        for image, blurred in zip(self.x.flatten(0, 1), out.flatten(0, 1), strict=True):
            expected = cv2.blur(image.numpy(), (3, 3), borderType=cv2.BORDER_REPLICATE)
            np.testing.assert_allclose(blurred.numpy(), expected, atol=1e-6)

    def test_the_side_is_drawn(self) -> None:
        out = Intensity(blur=7, blur_p=1)(self.x, self.seeds)
        sides = set()
        for image, blurred in zip(self.x, out, strict=True):
            kernels = {side: cv2.blur(image[0].numpy(), (side, side), borderType=cv2.BORDER_REPLICATE) for side in (3, 5, 7)}
            (side,) = (side for side, expected in kernels.items() if np.allclose(expected, blurred[0].numpy(), atol=1e-6))
            sides.add(side)
        assert sides == {3, 5, 7}

    def test_the_median(self) -> None:
        out = Intensity(median=True, blur_p=1)(self.x, self.seeds)
        for image, filtered in zip(self.x.flatten(0, 1), out.flatten(0, 1), strict=True):
            np.testing.assert_array_equal(filtered.numpy(), cv2.medianBlur(image.numpy(), 3))
