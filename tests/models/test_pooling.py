"""Scan logits against formulas written again in numpy, on probabilities rather than logits."""

import numpy as np
import pytest
import torch
from scipy.special import expit, logit

from ich_lstm.errors import ConfigError
from ich_lstm.models.pooling import SHARPNESS, Pooling, PoolingKind, ScanPooling

LENGTHS = torch.tensor([1, 5, 3])
KINDS: tuple[PoolingKind, ...] = ("max", "noisy-or", "log-sum-exp", "attention", "feature-attention")


def draw(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Slice logits and features of three scans."""
    random = np.random.default_rng(seed)
    return torch.tensor(random.normal(0, 2, (9, 6))), torch.tensor(random.normal(0, 1, (9, 4)))


def make(kind: PoolingKind) -> ScanPooling:
    torch.manual_seed(0)
    pooling = ScanPooling(Pooling(kind=kind), in_features=4, labels=6).double()
    for parameter in pooling.parameters():
        torch.nn.init.normal_(parameter)
    return pooling


def by_numpy(kind: PoolingKind, x: np.ndarray, features: np.ndarray, pooling: ScanPooling) -> np.ndarray:
    """The pool of one scan, ``(k,)``."""
    if kind == "max":
        return x.max(axis=0)
    if kind == "noisy-or":
        return logit(1 - np.prod(1 - expit(x), axis=0))
    if kind == "log-sum-exp":
        return np.log(np.mean(np.exp(SHARPNESS * x), axis=0)) / SHARPNESS
    weights = {name: value.detach().numpy() for name, value in pooling.state_dict().items()}
    hidden = np.tanh(features @ weights["attention.0.weight"].T + weights["attention.0.bias"])
    scores = np.exp(hidden @ weights["attention.2.weight"].T + weights["attention.2.bias"])
    if kind == "feature-attention":
        pooled = np.array([np.average(features, axis=0, weights=scores[:, label]) for label in range(6)])  # (k, d)
        return (weights["classifier_weight"] * pooled).sum(axis=1) + weights["classifier_bias"]
    return (scores / scores.sum(axis=0) * x).sum(axis=0) * weights["scale"] + weights["shift"]


@pytest.mark.parametrize("kind", KINDS)
class TestEveryKind:
    def test_equals_its_formula(self, kind: PoolingKind) -> None:
        logits, features = draw()
        pooling = make(kind)
        got = pooling(logits, features, LENGTHS).detach().numpy()
        expected = [
            by_numpy(kind, x.numpy(), f.numpy(), pooling)
            for x, f in zip(logits.split(LENGTHS.tolist()), features.split(LENGTHS.tolist()), strict=True)
        ]
        np.testing.assert_allclose(got, expected, rtol=1e-9)

    def test_scans_do_not_see_one_another(self, kind: PoolingKind) -> None:
        logits, features = draw()
        pooling = make(kind)
        together = pooling(logits, features, LENGTHS)
        alone = pooling(logits[1:6], features[1:6], torch.tensor([5]))
        torch.testing.assert_close(together[1:2], alone)

    def test_order_of_slices_does_not_matter(self, kind: PoolingKind) -> None:
        logits, features = draw()
        pooling = make(kind)
        length = torch.tensor([9])
        turned = torch.arange(8, -1, -1)
        torch.testing.assert_close(pooling(logits[turned], features[turned], length), pooling(logits, features, length))

    @pytest.mark.parametrize("value", [-1000.0, -200.0, -110.0, -90.0, -40.0, 0.0, 40.0, 90.0, 1000.0])
    @pytest.mark.parametrize("slices", [1, 30])
    def test_extreme_logits_and_features_stay_finite(self, kind: PoolingKind, value: float, slices: int) -> None:
        logits = torch.full((slices, 6), value, requires_grad=True)
        features = torch.full((slices, 4), value, requires_grad=True)
        pooled = make(kind).float()(logits, features, torch.tensor([slices]))
        pooled.sum().backward()
        assert pooled.isfinite().all()
        # Each kind looks at one of them at least.
        seen = [x.grad for x in (logits, features) if x.grad is not None]
        assert seen
        assert all(gradient.isfinite().all() for gradient in seen)


class TestNoisyOr:
    def test_one_slice_is_the_scan(self) -> None:
        logits = torch.linspace(-60, 60, 121, dtype=torch.float64).repeat(6, 1).T.contiguous()
        pooled = torch.stack([make("noisy-or")(row[None], torch.zeros(1, 4), torch.tensor([1]))[0] for row in logits])
        torch.testing.assert_close(pooled, logits, rtol=1e-6, atol=1e-6)

    def test_far_below_zero_odds_add_up(self) -> None:
        # log(30 e^-200)
        pooled = make("noisy-or").float()(torch.full((30, 6), -200.0), torch.zeros(30, 4), torch.tensor([30]))
        torch.testing.assert_close(pooled, torch.full((1, 6), -200 + float(np.log(30))))

    def test_more_of_one_slice_is_more(self) -> None:
        pooling = make("noisy-or")
        steps = torch.linspace(-45, 5, 400, dtype=torch.float64)
        pooled = [pooling(step.expand(3, 6), torch.zeros(3, 4), torch.tensor([3]))[0, 0].item() for step in steps]
        assert (np.diff(pooled) > 0).all()


def test_log_sum_exp_of_equal_slices_is_theirs() -> None:
    for slices in (1, 10, 60):
        pooled = make("log-sum-exp")(torch.full((slices, 6), -1.5).double(), torch.zeros(slices, 4), torch.tensor([slices]))
        torch.testing.assert_close(pooled, torch.full((1, 6), -1.5).double())


class TestAttention:
    def test_feature_attention_leaves_the_slice_logits_alone(self) -> None:
        logits, features = draw()
        pooling = make("feature-attention")
        assert torch.equal(pooling(logits, features, LENGTHS), pooling(-100 * logits, features, LENGTHS))

    def test_feature_attention_of_equal_slices_is_the_classifier_of_one(self) -> None:
        pooling, feature = make("feature-attention"), draw()[1][:1]
        expected = feature @ pooling.classifier_weight.T + pooling.classifier_bias
        for slices in (1, 10, 60):
            got = pooling(torch.zeros(slices, 6), feature.expand(slices, 4), torch.tensor([slices]))
            torch.testing.assert_close(got, expected)

    @pytest.mark.parametrize(
        ("kind", "own"),
        [
            ("attention", {"scale": (6,), "shift": (6,)}),
            ("feature-attention", {"classifier_weight": (6, 4), "classifier_bias": (6,)}),
        ],
    )
    def test_names_and_shapes(self, kind: PoolingKind, own: dict[str, tuple[int, ...]]) -> None:
        pooling = ScanPooling(Pooling(kind=kind, attention_size=9), in_features=4, labels=6)
        shapes = {name: tuple(parameter.shape) for name, parameter in pooling.named_parameters()}
        attention = {
            "attention.0.weight": (9, 4),
            "attention.0.bias": (9,),
            "attention.2.weight": (6, 9),
            "attention.2.bias": (6,),
        }
        assert shapes == attention | own

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("size", [0, -1])
    def test_a_size_out_of_range(self, kind: PoolingKind, size: int) -> None:
        with pytest.raises(ConfigError) as caught:
            Pooling(kind=kind, attention_size=size)
        assert caught.value.code == "attention_size_out_of_range"
