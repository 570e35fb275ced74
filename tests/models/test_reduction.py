"""The feature reducer, against scikit-learn, numpy and selections made by hand."""

import copy

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA
from torch import nn

from ich_lstm.errors import ConfigError
from ich_lstm.models.reduction import FITTED, SIZED, FeatureReducer, ReducerKind, Reduction

D, R, K = 12, 5, 3


def make(kind: ReducerKind, reduced: int = R, width: int = D) -> FeatureReducer:
    torch.manual_seed(0)
    return FeatureReducer(width, Reduction(kind=kind, features=reduced if kind in SIZED else None))


def draw(rows: int = 40, seed: int = 0) -> torch.Tensor:
    """Features that hang together, of unequal spread and away from 0."""
    random = np.random.default_rng(seed)
    return torch.tensor(random.normal(size=(rows, D)) @ random.normal(size=(D, D)) * random.uniform(0.1, 3, D) + 7)


def weights(seed: int = 0) -> torch.Tensor:
    return torch.tensor(np.random.default_rng(seed).normal(size=(K, D)))


def fitted(kind: ReducerKind, reduced: int = R) -> FeatureReducer:
    reducer = make(kind, reduced).double()
    if reducer.needs_fit:
        reducer.fit(draw(), weights())
    return reducer


@pytest.mark.parametrize("kind", ["none", "drop", *SIZED])
class TestEveryKind:
    def test_width(self, kind: ReducerKind) -> None:
        reducer = fitted(kind)
        assert reducer.out_features == {"none": D, "drop": 0}.get(kind, R)
        assert reducer(draw(9)).shape == (9, reducer.out_features)
        assert reducer.is_fitted
        assert reducer.needs_fit == (kind in FITTED)

    def test_loads_strictly_into_a_new_one(self, kind: ReducerKind) -> None:
        # Within a larger module, as in a checkpoint.
        model, new = nn.ModuleDict({"reducer": fitted(kind)}), nn.ModuleDict({"reducer": make(kind).double()})
        new.load_state_dict(model.state_dict(), strict=True)
        assert torch.equal(new["reducer"](draw(9)), model["reducer"](draw(9)))
        assert new["reducer"].is_fitted
        assert new["reducer"].explained == model["reducer"].explained

    def test_slices_do_not_see_one_another(self, kind: ReducerKind) -> None:
        reducer, features = fitted(kind), draw(9)
        torch.testing.assert_close(reducer(features)[3:4], reducer(features[3:4]))

    def test_gradients_reach_the_encoder(self, kind: ReducerKind) -> None:
        features = draw(9).requires_grad_()
        fitted(kind)(features).sum().backward()
        assert features.grad.any() == (kind != "drop")


@pytest.mark.parametrize("kind", FITTED)
class TestFitting:
    def test_none_without(self, kind: ReducerKind) -> None:
        reducer = make(kind)
        assert not reducer.is_fitted
        with pytest.raises(ConfigError) as caught:
            reducer(draw(9))
        assert caught.value.code == "reducer_not_fitted"

    def test_an_unfitted_state_makes_it_unfitted(self, kind: ReducerKind) -> None:
        reducer = fitted(kind)
        reducer.load_state_dict(make(kind).state_dict())
        with pytest.raises(ConfigError, match="reducer_not_fitted"):
            reducer(draw(9))

    def test_a_copy_is_fitted_too(self, kind: ReducerKind) -> None:
        reducer = fitted(kind)
        assert torch.equal(copy.deepcopy(reducer)(draw(9)), reducer(draw(9)))

    def test_the_same_twice(self, kind: ReducerKind) -> None:
        once, twice = fitted(kind), fitted(kind)
        twice.fit(draw(), weights())
        assert all(torch.equal(value, twice.state_dict()[name]) for name, value in once.state_dict().items())

    def test_leaves_no_gradient(self, kind: ReducerKind) -> None:
        reducer = make(kind).double()
        reducer.fit(draw().requires_grad_(), weights().requires_grad_())
        assert not any(value.requires_grad for value in reducer.state_dict(keep_vars=True).values())

    @pytest.mark.parametrize("shape", [(40, D - 1), (40, D + 1), (D,), (2, 20, D)])
    def test_another_shape(self, kind: ReducerKind, shape: tuple[int, ...]) -> None:
        with pytest.raises(ConfigError) as caught:
            make(kind).fit(torch.rand(shape), torch.rand(shape))
        assert caught.value.code == "reducer_shape"


class TestPca:
    @pytest.mark.parametrize("rows", [R, 8, 200])
    def test_equals_scikit_learn(self, rows: int) -> None:
        # As many components as slices: the last one has no variance and no direction of its own.
        reduced = R - 1 if rows == R else R
        reducer, features = make("pca", reduced).double(), draw(rows)
        reducer.fit(features)
        reference = PCA(reduced).fit(features.numpy())
        signs = np.sign((reducer.components.numpy() * reference.components_).sum(axis=1, keepdims=True))
        np.testing.assert_allclose(reducer.components, signs * reference.components_, atol=1e-7)
        np.testing.assert_allclose(reducer(draw(9, seed=1)), reference.transform(draw(9, seed=1).numpy()) * signs.T, atol=1e-6)
        assert reducer.explained.item() == pytest.approx(reference.explained_variance_ratio_.sum(), abs=1e-6)

    def test_sign(self) -> None:
        components = fitted("pca").components
        assert (components.gather(1, components.abs().argmax(dim=1, keepdim=True)) > 0).all()
        # The mirrored features have the same axes.
        mirrored = make("pca").double()
        mirrored.fit(-draw())
        torch.testing.assert_close(mirrored.components, components, rtol=0, atol=1e-9)

    def test_all_components_keep_distances_and_all_variance(self) -> None:
        reducer = fitted("pca", D)
        torch.testing.assert_close(torch.cdist(reducer(draw(9)), reducer(draw(9))), torch.cdist(draw(9), draw(9)))
        assert reducer.explained.item() == pytest.approx(1)

    def test_large_features_of_low_precision(self) -> None:
        # In float32, the mean of 1000 leaves about four digits of a deviation of 1; the fit must not lose them.
        features = (draw() / 10 + 1000).float()
        reducer = make("pca")
        reducer.fit(features)
        expected = PCA(R).fit(features.double().numpy())
        np.testing.assert_allclose(np.abs((reducer.components.numpy() * expected.components_).sum(axis=1)), 1, atol=1e-6)

    def test_fewer_slices_than_components(self) -> None:
        make("pca").fit(draw(R))
        with pytest.raises(ConfigError) as caught:
            make("pca").fit(draw(R - 1))
        assert caught.value.code == "too_few_samples"


class TestDeviation:
    def test_by_hand(self) -> None:
        reducer = make("deviation", 2, 4)
        features = torch.tensor([[9.0, 1, 0, 5], [9, 3, 4, 6]])  # deviations 0, 1, 2, 0.5
        reducer.fit(features)
        assert reducer.selected.tolist() == [2, 1]
        assert reducer(features).tolist() == [[0, 1], [4, 3]]
        assert reducer.explained.item() == pytest.approx(5 / 5.25)

    def test_equals_numpy(self) -> None:
        reducer = fitted("deviation")
        assert reducer.selected.tolist() == np.argsort(-draw().numpy().std(axis=0))[:R].tolist()

    def test_moving_the_features_does_not_matter(self) -> None:
        moved = make("deviation").double()
        moved.fit(-draw() + 100 * torch.arange(D))
        assert torch.equal(moved.selected, fitted("deviation").selected)

    def test_of_equal_ones_the_first(self) -> None:
        reducer = make("deviation", 2, 4)
        reducer.fit(torch.tensor([[0.0, 0, 0, 0], [1, 1, 1, 1]]))
        assert reducer.selected.tolist() == [0, 1]


@pytest.mark.parametrize("kind", ["pca", "deviation"])
@pytest.mark.parametrize(
    "features",
    [torch.ones(20, D), torch.ones(1, D), torch.ones(0, D), torch.rand(20, D).fill_diagonal_(torch.nan), torch.rand(20, D) / 0],
    ids=["constant", "one", "nothing", "nan", "infinite"],
)
def test_features_that_tell_nothing(kind: ReducerKind, features: torch.Tensor) -> None:
    reducer = make(kind, 1)
    with pytest.raises(ConfigError) as caught:
        reducer.fit(features)
    assert caught.value.code in ("features_do_not_vary", "too_few_samples")
    assert not reducer.is_fitted


class TestWeights:
    WEIGHT = torch.tensor([[0.1, -5, 3, 0.3, 2, 0], [0.2, 9, -4, 1, 0.1, 0.6]])

    @pytest.mark.parametrize(
        ("kind", "expected"),
        [
            # The first label takes 1, so the second takes its next, 2; then the first 4 rather than 2, the second 3.
            ("largest-weights", [1, 2, 4, 3, 0, 5]),
            # The first takes 5, the second 4; then the first 0; the second, its 4 and 0 gone, 5 too, takes 3.
            ("smallest-weights", [5, 4, 0, 3, 2, 1]),
        ],
    )
    @pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6])
    def test_by_hand(self, kind: ReducerKind, expected: list[int], count: int) -> None:
        reducer = make(kind, count, width=6)
        reducer.fit(torch.rand(0, 0), self.WEIGHT)
        assert reducer.selected.tolist() == expected[:count]
        assert reducer(torch.arange(6.0)[None]).tolist() == [expected[:count]]

    @pytest.mark.parametrize("kind", ["largest-weights", "smallest-weights"])
    def test_one_label_equals_numpy(self, kind: ReducerKind) -> None:
        reducer = make(kind)
        reducer.fit(draw(), weights()[:1])
        order = np.argsort(np.abs(weights()[0].numpy()))
        assert reducer.selected.tolist() == (order if kind == "smallest-weights" else order[::-1])[:R].tolist()

    @pytest.mark.parametrize("kind", ["largest-weights", "smallest-weights"])
    def test_every_label_gets_its_share_of_distinct_features(self, kind: ReducerKind) -> None:
        many = torch.tensor(np.random.default_rng(0).normal(size=(6, 300)))
        reducer = make(kind, 120, width=300)
        reducer.fit(torch.empty(0), many)
        chosen = reducer.selected.reshape(20, 6)  # turns, labels
        assert len(chosen.unique()) == 120
        rank = many.abs().argsort(dim=1, descending=kind == "largest-weights").argsort(dim=1)
        for label in range(6):
            ranks = rank[label, chosen[:, label]]
            assert (ranks.diff() > 0).all()
            # Whatever a label likes better than its last choice is in the set.
            better = (rank[label] < ranks[-1]).nonzero()
            assert torch.isin(better, chosen).all()

    @pytest.mark.parametrize("kind", ["largest-weights", "smallest-weights"])
    def test_missing(self, kind: ReducerKind) -> None:
        with pytest.raises(ConfigError) as caught:
            make(kind).fit(draw())
        assert caught.value.code == "classifier_weight_missing"


class TestSettings:
    def test_none_is_the_identity(self) -> None:
        features = draw(9)
        reducer = make("none")
        assert reducer(features) is features
        assert reducer.explained == 1

    @pytest.mark.parametrize("kind", ["none", "drop"])
    def test_without_state_there_is_nothing_to_load(self, kind: ReducerKind) -> None:
        assert make(kind).state_dict() == {}

    def test_linear_is_a_linear_layer(self) -> None:
        reducer = make("linear").double()
        state = reducer.state_dict()
        expected = draw(9).numpy() @ state["linear.weight"].numpy().T + state["linear.bias"].numpy()
        np.testing.assert_allclose(reducer(draw(9)).detach(), expected)
        assert all(parameter.requires_grad for parameter in reducer.parameters())

    @pytest.mark.parametrize("kind", ["none", "drop", "linear"])
    def test_what_is_not_fitted(self, kind: ReducerKind) -> None:
        with pytest.raises(ConfigError) as caught:
            make(kind).fit(draw(), weights())
        assert caught.value.code == "reducer_not_fittable"

    @pytest.mark.parametrize("kind", SIZED)
    @pytest.mark.parametrize(
        ("reduced", "code"),
        [
            (None, "reduced_features_missing"),
            (0, "reduced_features_out_of_range"),
            (-1, "reduced_features_out_of_range"),
            (D + 1, "reduced_features_out_of_range"),
        ],
    )
    def test_number_needed(self, kind: ReducerKind, reduced: int | None, code: str) -> None:
        with pytest.raises(ConfigError) as caught:
            FeatureReducer(D, Reduction(kind=kind, features=reduced))
        assert caught.value.code == code
        assert make(kind, D).out_features == D

    @pytest.mark.parametrize("kind", ["none", "drop"])
    @pytest.mark.parametrize("reduced", [0, R, D])
    def test_number_in_vain(self, kind: ReducerKind, reduced: int) -> None:
        with pytest.raises(ConfigError) as caught:
            FeatureReducer(D, Reduction(kind=kind, features=reduced))
        assert caught.value.code == "reduced_features_unused"

    def test_unknown(self) -> None:
        with pytest.raises(ConfigError) as caught:
            Reduction(kind="ica", features=R)
        assert caught.value.code == "unknown_reducer"
