"""The whole network: an encoder shared by all slices of a scan, and a sequence head along the scan."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ich_lstm.errors import ConfigError
from ich_lstm.labels import LABELS, UNIONS
from ich_lstm.models.adjacent_slices import stack_neighbours
from ich_lstm.models.compiled import keep_plain_names
from ich_lstm.models.encoder import Encoder, SliceEncoder
from ich_lstm.models.heads import LSTM, Head, ScanHead
from ich_lstm.models.heads.head import SequenceHead
from ich_lstm.models.heads.positions import relative_positions
from ich_lstm.models.long_scans import nearest_looked_at, thinned
from ich_lstm.models.pooling import Pooling, ScanPooling
from ich_lstm.models.recompute import batch_norms, run_in_chunks, strided_places
from ich_lstm.models.reduction import FeatureReducer, Reduction
from ich_lstm.preprocessing.windows import Windows
from ich_lstm.settings import differences, require, setting

INFERENCE_SLICES_PER_CHUNK = {"cpu": 8, "cuda": 128}
"""Without gradients the encoder runs chunk by chunk: memory stays flat, and on a CPU the activations of 8 slices stay in
the caches, which made a 35-slice scan 2.3 times faster than all slices at once."""

SURE = math.log(1e6 - 1)
"""The logit of 1 - 1e-6: beyond, the most suspicious slice adds nothing more to its scan."""


class ScanLogits(NamedTuple):
    """What the network says, as logits.

    Args:
        slice_logits: Of each slice, having seen the scan, ``(n, k)``.
        scan_logits: Of each scan, ``(b, k)``.
        encoder_logits: Of each slice, seen alone, ``(n, k)``; None if the model has no recurrent head, or no such logits.
        instance_logits: Of each scan, by attention over what the encoder sees alone, ``(b, k)``; None without
            ``pooling.instances``. It trains; it is no prediction.
    """

    slice_logits: Tensor
    scan_logits: Tensor
    encoder_logits: Tensor | None = None
    instance_logits: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """What a `ScanModel` is made of, and how it is run.

    Args:
        encoder: The CNN that all slices share; a name is short for ``Encoder(backbone=name)``.
        windows: How HU become the channels that the encoder sees.
        reduction: What of the encoder's features goes on to the head.
        head: What looks along the scan: ``LSTM(...)``, ``GRU(...)``, or ``NoHead()`` for the 2D baseline.
        pooling: How slice logits become scan logits.
        coherent_any: Raise "any" to the most probable type, in evaluation.
        max_slices: In evaluation, the head and the pooling look at so many slices of a scan with more, evenly spaced; every slice
            gets the context of the nearest. The encoder looks at all of them; null for no limit.

    Raises:
        ConfigError: If settings do not go together.
    """

    encoder: Encoder = Encoder()  # noqa: RUF009  (frozen)
    windows: Windows = Windows()  # noqa: RUF009  (frozen)
    reduction: Reduction = Reduction()  # noqa: RUF009  (frozen)
    head: Head = LSTM()  # noqa: RUF009  (frozen)
    pooling: Pooling = Pooling()  # noqa: RUF009  (frozen)
    coherent_any: bool = setting(False, free=True)
    max_slices: int | None = setting(None, free=True)

    def __post_init__(self) -> None:
        if isinstance(self.encoder, str):
            object.__setattr__(self, "encoder", Encoder(backbone=self.encoder))
        if self.max_slices is not None and self.max_slices < 1:
            require("head_out_of_range", "at least 1, or null", {"max_slices": self.max_slices})
        along = self.head if isinstance(self.head, ScanHead) else None
        if not self.encoder.classifier:
            needs = {
                "head.encoder_residual": along is not None and along.encoder_residual,
                "head.encoder_probabilities": along is not None and along.encoder_probabilities,
                "pooling.encoder_residual": self.pooling.encoder_residual,
                "pooling.instances": self.pooling.instances,
                "head=NoHead": along is None,
            }
            asking = ", ".join(name for name, is_set in needs.items() if is_set)
            if asking:
                raise ConfigError(
                    "no_encoder_classifier",
                    where=asking,
                    got="encoder.classifier=false",
                    expected="logits of the encoder, which these need",
                    todo=f"Leave encoder.classifier true, or change {asking}.",
                )
        if self.reduction.kind == "drop" and along is not None and not along.encoder_probabilities:
            raise ConfigError(
                "nothing_left",
                where="reduction.kind, head.encoder_probabilities",
                got="drop, and false",
                expected="the encoder's probabilities, where no feature enters the head",
                todo="Set head.encoder_probabilities=true.",
            )
        if along is None and self.reduction.kind != "none":
            raise ConfigError(
                "nothing_to_reduce_for",
                where="reduction.kind",
                got=f"{self.reduction.kind}, and no head",
                expected="a head that takes the reduced features",
                todo="Leave reduction out, or give the model a head.",
            )


class ScanModel(nn.Module):
    """CNN-LSTM over whole scans of head CT. HU in, logits of the six labels out.

    Args:
        settings: What it is made of; None: the default of `ModelSettings`.

    Raises:
        ConfigError: If the backbone is unknown, or a setting does not fit it.

    Example:
        >>> model = ScanModel(ModelSettings(encoder=Encoder(backbone="resnet18", pretrained=False), head=LSTM(hidden_size=64)))
    """

    def __init__(self, settings: ModelSettings | None = None) -> None:
        super().__init__()
        keep_plain_names(self)
        self.settings = settings = settings or ModelSettings()
        along = settings.head if isinstance(settings.head, ScanHead) else None
        self.windows = settings.windows.build()
        neighbours = settings.encoder.adjacent_slices
        self.encoder = SliceEncoder(settings.encoder, in_channels=len(self.windows) * (2 * neighbours + 1))
        features, k = self.encoder.out_features, len(LABELS)
        self.encoder_dropout = nn.Dropout(settings.encoder.dropout)
        self.encoder_classifier = nn.Linear(features, k) if settings.encoder.classifier else None
        instances = replace(settings.pooling, kind="feature-attention")
        self.instance_pooling = ScanPooling(instances, in_features=features, labels=k) if settings.pooling.instances else None
        self.reducer: FeatureReducer | None = None
        self.sequence: SequenceHead | None = None
        self.gate: nn.Parameter | None = None
        self.scan_gate = nn.Parameter(torch.zeros(k)) if settings.pooling.encoder_residual else None
        self.has_probabilities = along is not None and along.encoder_probabilities
        if along is not None:
            self.reducer = FeatureReducer(features, settings.reduction)
            further = k if along.encoder_probabilities else 0
            self.sequence = along.build(self.reducer.out_features + further)
            features = self.sequence.out_features + further
            self.output_dropout = nn.Dropout(along.output_dropout)
            self.sequence_classifier = nn.Linear(features, k)
            nn.init.zeros_(self.sequence_classifier.bias)
            if along.encoder_residual:
                self.gate = nn.Parameter(torch.ones(k))
                # The head begins as a correction of nothing: the first sequence logits are the encoder's.
                nn.init.zeros_(self.sequence_classifier.weight)
        self.pooling = ScanPooling(settings.pooling, in_features=features, labels=k)

    def change(self, settings: ModelSettings) -> None:
        """Run by other settings from now on, which may differ in what may differ from stage to stage of a training.

        Args:
            settings: The new settings.

        Raises:
            ConfigError: ``other_network``, if anything else differs.
        """
        fixed = [each for each in differences(self.settings, settings) if not each.stage]
        if fixed:
            raise ConfigError(
                "other_network",
                where=", ".join(each.name for each in fixed),
                got=", ".join(repr(each.after) for each in fixed),
                expected=f"{', '.join(repr(each.before) for each in fixed)}, which cannot change between stages",
            )
        self.settings = settings
        self.encoder.batch_norm = settings.encoder.batch_norm

    def forward(
        self,
        hu: Tensor,
        lengths: Tensor,
        positions_mm: Tensor | None = None,
        draws: Tensor | None = None,
        *,
        both_ways: bool = False,
    ) -> ScanLogits:
        """Logits of packed scans.

        Args:
            hu: Hounsfield units of all scans' slices in a row, ``(n, h, w)``, integer or float.
            lengths: Slices of each scan, ``(b,)``, at least 1 each, with sum n.
            positions_mm: Position of each slice along its scan's normal, ``(n,)``; needed if ``positions`` is ``mm``.
            draws: A seed for each slice's random draws in training, int64 ``(n,)``; None: nothing is drawn but dropout.
            both_ways: In evaluation, let the recurrent head read every scan upwards and downwards, and take the mean.

        Returns:
            Float32 (or wider) logits.
        """
        return self.logits_of(self.encode(hu, lengths, draws), lengths, positions_mm, draws, both_ways=both_ways)

    def logits_of(
        self,
        features: Tensor,
        lengths: Tensor,
        positions_mm: Tensor | None = None,
        draws: Tensor | None = None,
        *,
        both_ways: bool = False,
    ) -> ScanLogits:
        """From the features that `encode` gives ``(n, d)`` to logits; all other arguments as in `forward`."""
        # The head is a thousandth of the work; in full precision its sums over many slices cost nothing and stay exact.
        with torch.autocast(features.device.type, enabled=False):
            if self.training:
                share = self.settings.head.reversal if isinstance(self.settings.head, ScanHead) else 0.0
                is_reversed = _drawn(draws, lengths) < share if draws is not None and share > 0 else None
                return self.head(features, lengths, positions_mm, is_reversed)
            upwards = self.head(features, lengths, positions_mm)
            if not both_ways:
                return upwards
            return mean_logits([upwards, self.head(features, lengths, positions_mm, torch.ones_like(lengths, dtype=torch.bool))])

    def encode(self, hu: Tensor, lengths: Tensor, draws: Tensor | None = None) -> Tensor:
        """Features of each slice, ``(n, d)``, at least float32; arguments as in `forward`.

        In training, ``encoder.slices_per_chunk`` slices are encoded at a time, and again in the backward pass; where nothing of
        the encoder is trained, and in evaluation without gradients, as many as suit the device, and nothing is kept.
        """
        features_of = self.features_of(hu, lengths, draws)
        is_frozen = self.encoder.is_frozen and not any(p.requires_grad for p in self.windows.parameters())
        if is_frozen or not (self.training or torch.is_grad_enabled()):
            size = INFERENCE_SLICES_PER_CHUNK.get(hu.device.type, len(hu))
            with torch.no_grad():
                # Not strided: nothing here depends on which slices go together, and neighbours share their channels.
                features = run_in_chunks(features_of, torch.arange(len(hu), device=hu.device).split(size), recompute=False)
        else:
            chunk = self.settings.encoder.slices_per_chunk
            size = chunk or len(hu)
            inside = (hu, *self.windows.parameters(), *self.encoder.parameters())
            features = run_in_chunks(
                features_of,
                strided_places(len(hu), size, hu.device),
                recompute=chunk is not None,
                trained=[tensor for tensor in inside if tensor.requires_grad],
                normalizing=batch_norms(self.encoder),
            )
        return features.to(torch.promote_types(features.dtype, torch.float32))

    def features_of(self, hu: Tensor, lengths: Tensor, draws: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """The encoder on any slices of a batch: from their places ``(m,)`` to features ``(m, d)``; arguments as in `forward`.

        The windows are included, so that only HU are kept for the backward pass.
        """

        def features_of(places: Tensor) -> Tensor:
            return self.encoder(stack_neighbours(self.windows, hu, lengths, places, self.settings.encoder.adjacent_slices, draws))

        return features_of

    def head(
        self, features: Tensor, lengths: Tensor, positions_mm: Tensor | None = None, is_reversed: Tensor | None = None
    ) -> ScanLogits:
        """From the encoder's features ``(n, d)`` to logits; ``is_reversed`` as in `SequenceHead`, all else as in `forward`."""
        features = self.encoder_dropout(self._as_head_takes(features))
        instance_logits = None
        if self.encoder_classifier is not None:
            encoder_logits = self.encoder_classifier(features)  # (n, k)
            if self.instance_pooling is not None:
                instance_logits = self.instance_pooling(encoder_logits, features, lengths)
        if self.sequence is None or self.reducer is None:
            logits = ScanLogits(encoder_logits, self.pooling(encoder_logits, features, lengths), None, instance_logits)
            return self._finished(logits, encoder_logits, lengths)
        x = self.reducer(features)
        if self.has_probabilities:
            x = torch.cat([x, encoder_logits.sigmoid()], dim=1)
        own = None if self.encoder_classifier is None else encoder_logits
        most = self.settings.max_slices
        if self.training or most is None or int(lengths.max()) <= most:
            slice_logits, context = self._slice_logits(self.sequence(x, lengths, positions_mm, is_reversed), own)
            scan_logits = self.pooling(slice_logits, context, lengths)
        else:
            places, fewer = thinned(lengths, most)
            at = places.to(x.device)
            there = None if positions_mm is None else positions_mm[at]
            context = self.sequence(x[at], fewer, there, is_reversed, relative_positions(lengths)[places])
            scan_logits = self.pooling(*self._slice_logits(context, None if own is None else own[at]), fewer)
            slice_logits, _ = self._slice_logits(context[nearest_looked_at(lengths, fewer).to(x.device)], own)
        logits = ScanLogits(slice_logits, scan_logits, own, instance_logits)
        return self._finished(logits, own, lengths)

    def _slice_logits(self, context: Tensor, encoder_logits: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits of slices, and what they are made of, from the recurrent head's output and the encoder's own logits."""
        if self.has_probabilities and encoder_logits is not None:
            context = torch.cat([context, encoder_logits.sigmoid()], dim=1)
        context = self.output_dropout(context)
        slice_logits = self.sequence_classifier(context)
        if self.gate is not None and encoder_logits is not None:
            slice_logits = slice_logits + self.gate * encoder_logits
        return slice_logits, context

    def encoder_view(self, hu: Tensor, lengths: Tensor, draws: Tensor | None = None) -> ScanLogits:
        """What the encoder says of each slice alone; a scan is its most suspicious slice. Arguments as in `forward`."""
        features = self.encode(hu, lengths, draws)
        with torch.autocast(features.device.type, enabled=False):
            features = self.encoder_dropout(self._as_head_takes(features))
            logits = self.encoder_classifier(features)  # type: ignore[misc]  # see has_encoder_view
            instance = None if self.instance_pooling is None else self.instance_pooling(logits, features, lengths)
            return ScanLogits(logits, _largest(logits, lengths), None, instance)

    def _as_head_takes(self, features: Tensor) -> Tensor:
        """Features in the precision of the head's weights, which is below that of the features if a user has made it so."""
        parts = [part for part in (self.encoder_classifier, self.sequence) if part is not None]
        return features.to(next(parts[0].parameters()).dtype)

    @property
    def has_encoder_view(self) -> bool:
        """Whether the encoder has logits of its own."""
        return self.encoder_classifier is not None

    def encoder_modules(self) -> list[nn.Module]:
        """What belongs to the encoder; all else is the head."""
        further = (self.encoder_classifier, self.instance_pooling)
        return [self.windows, self.encoder, *(module for module in further if module is not None)]

    def _finished(self, logits: ScanLogits, encoder_logits: Tensor | None, lengths: Tensor) -> ScanLogits:
        if self.scan_gate is not None and encoder_logits is not None:
            largest = _largest(encoder_logits, lengths).clamp(-SURE, SURE)
            logits = logits._replace(scan_logits=logits.scan_logits + self.scan_gate * largest)
        if self.settings.coherent_any and not self.training:
            logits = logits._replace(slice_logits=raise_unions(logits.slice_logits), scan_logits=raise_unions(logits.scan_logits))
        return logits


def mean_logits(views: Sequence[ScanLogits]) -> ScanLogits:
    """The mean of what a model says of several views of the same scans."""
    first = views[0]
    means = [
        None if of_first is None else torch.stack([view[i] for view in views]).mean(dim=0)  # type: ignore[misc]
        for i, of_first in enumerate(first)
    ]
    return ScanLogits(*means)  # type: ignore[arg-type]


def _largest(slice_logits: Tensor, lengths: Tensor) -> Tensor:
    return torch.stack([logits.amax(dim=0) for logits in slice_logits.split(lengths.tolist())])  # (b, k)


def raise_unions(values: Tensor) -> Tensor:
    """Logits or probabilities, each union ("any") raised to the largest of what it is the union of.

    Args:
        values: ``(m, k)`` in the order of `LABELS`.
    """
    columns = list(values.unbind(dim=1))
    for union, members in UNIONS.items():
        columns[union] = torch.maximum(columns[union], values[:, list(members)].amax(dim=1))
    return torch.stack(columns, dim=1)


def _drawn(draws: Tensor, lengths: Tensor) -> Tensor:
    """A number in [0, 1) for each scan, from its first slice's seed, ``(b,)``."""
    firsts = torch.cumsum(lengths, 0) - lengths
    seeds = draws.cpu()[firsts.cpu()]
    return torch.tensor([torch.rand((), generator=torch.Generator().manual_seed(int(seed))).item() for seed in seeds])
