"""Reduction of the number of features per slice, between the encoder and the sequence head."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ich_lstm.errors import ConfigError
from ich_lstm.settings import require, require_choice, setting

ReducerKind = Literal["none", "linear", "pca", "deviation", "largest-weights", "smallest-weights", "drop"]

FITTED: tuple[ReducerKind, ...] = ("pca", "deviation", "largest-weights", "smallest-weights")
"""Kinds that `FeatureReducer.fit` computes once, instead of training them by gradient descent."""

SIZED: tuple[ReducerKind, ...] = ("linear", *FITTED)
"""Kinds that need ``features``, the number of features to keep."""


@dataclass(frozen=True, kw_only=True)
class Reduction:
    """How the features of each slice are reduced before they enter the sequence head.

    ``none`` passes them all. ``linear`` learns a linear layer. ``pca`` projects on the principal components, not whitened.
    ``deviation`` keeps the features of largest standard deviation. ``largest-weights`` and ``smallest-weights`` keep those
    with the largest or smallest absolute weight in the encoder's classifier (Burduja et al. 2020). For these two, the labels take
    turns, and each takes the best feature that no label has taken yet, until there are enough. All kept features are therefore
    distinct, and the labels' shares differ by at most one. ``drop`` keeps no feature, so that the head sees only the encoder's
    probabilities.

    Args:
        kind: One of the seven kinds above. All but ``none``, ``linear`` and ``drop`` are fitted to features of training scans.
        features: Number of features to keep, from 1 to the encoder's number of features; null for ``none`` and ``drop``.
        slices: Number of training slices whose features the reduction is fitted to, at least 1.

    Raises:
        ConfigError: If the kind is unknown, if ``features`` is missing, or if it is given for a kind that does not use it.
    """

    kind: ReducerKind = "none"
    features: int | None = None
    slices: int = setting(30_000, free=True)

    def __post_init__(self) -> None:
        require_choice("unknown_reducer", "reduction.kind", self.kind, ReducerKind)
        require("training_out_of_range", "at least 1", {"reduction.slices": self.slices} if self.slices < 1 else {})
        if self.kind not in SIZED and self.features is not None:
            raise ConfigError(
                "reduced_features_unused",
                where="reduction.features",
                got=f"{self.features} with reduction {self.kind}, which leaves {'all' if self.kind == 'none' else 'no'} features",
                expected="none given",
                todo=f"Leave it out, or choose one of {', '.join(SIZED)}.",
            )
        if self.kind in SIZED and self.features is None:
            raise ConfigError(
                "reduced_features_missing",
                where="reduction.features",
                got=f"none with reduction {self.kind}",
                expected="a number of features",
            )


class FeatureReducer(nn.Module):
    """Reduces the features of slices as `Reduction` says.

    Args:
        in_features: Number of features per slice, d.
        settings: Kind of reduction, and number of features to keep, r.

    Attributes:
        out_features: Number of features that are kept.
        needs_fit: Whether `fit` must be called, or a fitted state be loaded, before use.
        is_fitted: Bool buffer ``()``: whether the reducer is ready for use. It is true from the start for kinds without a fit.
        explained: Float buffer ``()``: for ``pca`` and ``deviation``, the share of the features' variance that is kept, in
            [0, 1], and 0 before the fit; 1 for ``none``; None for the other kinds, for which it is unknown.

    Raises:
        ConfigError: If r is not between 1 and d.
    """

    is_fitted: Tensor
    explained: Tensor | None
    mean: Tensor
    components: Tensor
    selected: Tensor

    def __init__(self, in_features: int, settings: Reduction) -> None:
        super().__init__()
        kind, reduced_features = settings.kind, settings.features
        if reduced_features is not None and not 1 <= reduced_features <= in_features:
            raise ConfigError(
                "reduced_features_out_of_range",
                where="reduction.features",
                got=f"{reduced_features} with reduction {kind}",
                expected=f"a number of features from 1 to {in_features}, the encoder's number of features",
            )
        self.kind = kind
        self.in_features = in_features
        self.out_features = reduced_features or (in_features if kind == "none" else 0)
        self.needs_fit = kind in FITTED
        # The buffers are saved only where a fit sets them, so that the state dict of a model without a reduction stays as it was.
        self.register_buffer("is_fitted", torch.tensor(not self.needs_fit), persistent=self.needs_fit)
        explained_before_fit = {"none": torch.ones(()), "pca": torch.zeros(()), "deviation": torch.zeros(())}
        self.register_buffer("explained", explained_before_fit.get(kind), persistent=self.needs_fit)
        if kind == "linear":
            self.linear = nn.Linear(in_features, self.out_features)
        elif kind == "pca":
            self.register_buffer("mean", torch.zeros(in_features))
            self.register_buffer("components", torch.zeros(self.out_features, in_features))
        elif self.needs_fit:
            self.register_buffer("selected", torch.zeros(self.out_features, dtype=torch.int64))
        # A copy of is_fitted on the CPU: reading the buffer on a GPU would synchronize in every forward pass.
        self._ready = not self.needs_fit

    def extra_repr(self) -> str:
        return f"{self.in_features}, {self.out_features}, kind={self.kind!r}"

    def forward(self, features: Tensor) -> Tensor:
        """Reduce the features of slices.

        Args:
            features: Features of slices ``(n, d)``.

        Returns:
            Reduced features ``(n, out_features)``.

        Raises:
            ConfigError: If the kind needs `fit`, and it has not been fitted.
        """
        if not self._ready:
            raise ConfigError(
                "reducer_not_fitted",
                where=f"reducer {self.kind}",
                got="features before it was fitted",
                expected="a fitted reducer",
                todo="Call fit with a sample of the training scans' features, or load a model in which it is fitted.",
            )
        if self.kind == "none":
            return features
        if self.kind == "drop":
            return features[:, :0]
        if self.kind == "linear":
            return self.linear(features)
        if self.kind == "pca":
            return (features - self.mean) @ self.components.T
        return features.index_select(1, self.selected)

    @torch.no_grad()
    def fit(self, features: Tensor, classifier_weight: Tensor | None = None) -> None:
        """Compute the components, or choose the features.

        The result is deterministic: in each component, the coefficient with the largest absolute value is positive, and between
        equal features the first is chosen. In a run of several processes, one fits and the others load its state dict.

        Args:
            features: Features of a sample of training slices ``(m, d)``, with m at least r for ``pca``. The kinds
                ``largest-weights`` and ``smallest-weights`` do not use them.
            classifier_weight: Weight of the encoder's classifier ``(k, d)``. The kinds ``largest-weights`` and
                ``smallest-weights`` need it, and the other kinds do not use it.

        Raises:
            ConfigError: If the kind needs no fit, if an argument is missing or has another shape, if there are too few slices,
                or if the features do not vary.
        """
        if not self.needs_fit:
            raise ConfigError(
                "reducer_not_fittable", where=f"reducer {self.kind}", got="fit", expected=f"one of {', '.join(FITTED)}"
            )
        if self.kind in ("pca", "deviation"):
            self._check_width("features", features)
            self._fit_features(features.detach().to("cpu", torch.float64))
        else:
            if classifier_weight is None:
                raise ConfigError(
                    "classifier_weight_missing",
                    where=f"reducer {self.kind}",
                    got="no classifier_weight",
                    expected=f"the weight of the encoder's classifier (k, {self.in_features})",
                )
            self._check_width("classifier_weight", classifier_weight)
            size = classifier_weight.detach().abs().cpu()
            order = size.argsort(dim=1, descending=self.kind == "largest-weights", stable=True)
            self.selected.copy_(torch.tensor(_choose_in_turns(order.tolist(), self.out_features)))
        self.is_fitted.fill_(True)
        self._ready = True

    def _check_width(self, name: str, values: Tensor) -> None:
        if values.ndim != 2 or values.shape[1] != self.in_features:
            raise ConfigError(
                "reducer_shape",
                where=f"reducer {self.kind}, {name}",
                got=f"shape {tuple(values.shape)}",
                expected=f"(any, {self.in_features})",
            )

    def _fit_features(self, features: Tensor) -> None:
        if self.kind == "pca" and len(features) < self.out_features:
            raise ConfigError(
                "too_few_samples",
                where=f"reducer {self.kind}",
                got=f"{len(features)} slices",
                expected=f"at least {self.out_features}, one for each component",
                todo="Give more slices, or set reduction.features lower.",
            )
        mean = features.mean(dim=0)
        centred = features - mean
        spread = centred.square().sum(dim=0)  # (d,), variance times m
        total = spread.sum()
        if not 0 < total < torch.inf:  # false for NaN too
            raise ConfigError(
                "features_do_not_vary",
                where=f"reducer {self.kind}, features",
                got=f"{len(features)} slices with a total variance of {(total / len(features)).item():g}",
                expected="at least two slices whose features are finite and differ",
            )
        if self.kind == "deviation":
            order = spread.argsort(descending=True, stable=True)[: self.out_features]
            self.selected.copy_(order)
            kept = spread[order]
        else:
            # The sample has many more slices than features, so the eigenvectors of the covariance are cheaper than an SVD.
            values, vectors = torch.linalg.eigh(centred.T @ centred)  # ascending
            components = vectors.T.flip(0)[: self.out_features]  # (r, d)
            largest = components.gather(1, components.abs().argmax(dim=1, keepdim=True))
            self.mean.copy_(mean)
            self.components.copy_(components * largest.sign())
            kept = values.flip(0)[: self.out_features]
        self.explained = (kept.sum() / total).clamp(0, 1).to(self.is_fitted.device, torch.float32)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._ready = bool(self.is_fitted)


def _choose_in_turns(preferences: list[list[int]], count: int) -> list[int]:
    """Choose distinct features: the labels take turns, and each takes its best feature that is not taken yet.

    Args:
        preferences: For each label, the indices of all features, best first.
        count: Number of features to choose.

    Returns:
        Indices of the chosen features, in the order in which they were taken.

    Example:
        >>> _choose_in_turns([[3, 1, 0, 2], [3, 0, 1, 2]], 3)
        [3, 0, 1]
    """
    chosen: dict[int, None] = {}
    queues = [iter(features) for features in preferences]
    while len(chosen) < count:
        for queue in queues:
            if len(chosen) < count:
                chosen[next(feature for feature in queue if feature not in chosen)] = None
    return list(chosen)
