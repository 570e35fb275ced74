"""The whole network: an encoder shared by all slices of a scan, and a sequence head along the scan."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ich_lstm.errors import ConfigError
from ich_lstm.labels import LABELS, UNIONS
from ich_lstm.models.adjacent_slices import stack_neighbours, stacks_of_scans
from ich_lstm.models.encoder import Encoder, SliceEncoder
from ich_lstm.models.execution.compiled import keep_plain_names
from ich_lstm.models.execution.recompute import batch_norms, run_in_chunks, strided_places
from ich_lstm.models.heads import LSTM, Head, ScanHead
from ich_lstm.models.heads.head import SequenceHead
from ich_lstm.models.heads.positions import relative_positions
from ich_lstm.models.long_scans import nearest_looked_at, thinned
from ich_lstm.models.pooling import Pooling, ScanPooling
from ich_lstm.models.reduction import FeatureReducer, Reduction
from ich_lstm.preprocessing.windows import Windows
from ich_lstm.settings import differences, require, setting

INFERENCE_SLICES_PER_CHUNK = {"cpu": 8, "cuda": 128}
"""How many slices the encoder takes at a time without gradients, by type of device. Memory then does not grow with the scan. On a
CPU, the activations of 8 slices stay in the caches: a 35-slice scan ran 2.3 times faster than with all slices at once."""

EncoderRun = Callable[[Tensor], Tensor]
"""Turns windowed slices ``(m, c, h, w)`` into features ``(m, d)``, as `SliceEncoder` does."""

LOGIT_LIMIT = math.log(1e6 - 1)
"""The logit of the probability 1 - 1e-6. The encoder's largest slice logit is clamped to plus or minus this value before the scan
gate adds it to the scan logit."""


class ScanLogits(NamedTuple):
    """The output of the network, as logits.

    Args:
        slice_logits: Logits of each slice ``(n, k)``, computed from the whole scan.
        scan_logits: Logits of each scan ``(b, k)``.
        encoder_logits: Logits of each slice ``(n, k)`` that the encoder computes from that slice alone. None if the model has no
            sequence head, or if the encoder has no classifier.
        instance_logits: Logits of each scan ``(b, k)`` that attention over the encoder's features gives, without the sequence
            head. They serve the training loss only and are never a prediction. None without ``pooling.instances``.
    """

    slice_logits: Tensor
    scan_logits: Tensor
    encoder_logits: Tensor | None = None
    instance_logits: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class ModelSettings:
    """The architecture of a `ScanModel`, and how it is run.

    Args:
        encoder: The CNN that all slices share; a name is short for ``Encoder(backbone=name)``.
        windows: The windows that turn HU into the input channels of the encoder.
        reduction: How the encoder's features are reduced before they enter the sequence head.
        head: The sequence head along the scan: ``LSTM(...)``, ``GRU(...)``, or ``NoHead()`` for the 2D baseline.
        pooling: How slice logits become scan logits.
        coherent_any: In evaluation, raise the logit of "any" to that of the most probable type.
        max_slices: The most slices of a scan that the head and the pooling process in evaluation, at least 1. Of a longer scan
            they take this many evenly spaced slices, and every other slice gets the context of the nearest of these. The encoder
            still processes all slices. Null for no limit.

    Raises:
        ConfigError: If a setting is out of range, or two settings contradict each other.
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
        head = self.head if isinstance(self.head, ScanHead) else None
        if not self.encoder.classifier:
            needs_classifier = {
                "head.encoder_residual": head is not None and head.encoder_residual,
                "head.encoder_probabilities": head is not None and head.encoder_probabilities,
                "pooling.encoder_residual": self.pooling.encoder_residual,
                "pooling.instances": self.pooling.instances,
                "head=NoHead": head is None,
            }
            conflicts = ", ".join(name for name, is_set in needs_classifier.items() if is_set)
            if conflicts:
                raise ConfigError(
                    "no_encoder_classifier",
                    where=conflicts,
                    got="encoder.classifier=false",
                    expected="encoder.classifier=true, because these settings use the encoder's own logits",
                    todo=f"Leave encoder.classifier true, or change {conflicts}.",
                )
        if self.reduction.kind == "drop" and head is not None and not head.encoder_probabilities:
            raise ConfigError(
                "nothing_left",
                where="reduction.kind, head.encoder_probabilities",
                got="drop, and false",
                expected="head.encoder_probabilities=true, because reduction.kind=drop leaves the head no other input",
                todo="Set head.encoder_probabilities=true.",
            )
        if head is None and self.reduction.kind != "none":
            raise ConfigError(
                "nothing_to_reduce_for",
                where="reduction.kind",
                got=f"{self.reduction.kind}, and no head",
                expected="a head that takes the reduced features",
                todo="Leave reduction out, or give the model a head.",
            )


class ScanModel(nn.Module):
    """A CNN-LSTM over whole scans of head CT: it takes HU and gives logits of the six labels.

    Args:
        settings: The architecture and how it is run; None for the defaults of `ModelSettings`.

    Raises:
        ConfigError: If the backbone is unknown, or does not support a setting.

    Example:
        >>> model = ScanModel(ModelSettings(encoder=Encoder(backbone="resnet18", pretrained=False), head=LSTM(hidden_size=64)))
    """

    def __init__(self, settings: ModelSettings | None = None) -> None:
        super().__init__()
        keep_plain_names(self)
        self.settings = settings = settings or ModelSettings()
        head = settings.head if isinstance(settings.head, ScanHead) else None
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
        self.has_probabilities = head is not None and head.encoder_probabilities
        if head is not None:
            self.reducer = FeatureReducer(features, settings.reduction)
            probabilities = k if head.encoder_probabilities else 0
            self.sequence = head.build(self.reducer.out_features + probabilities)
            features = self.sequence.out_features + probabilities
            self.output_dropout = nn.Dropout(head.output_dropout)
            self.sequence_classifier = nn.Linear(features, k)
            nn.init.zeros_(self.sequence_classifier.bias)
            if head.encoder_residual:
                self.gate = nn.Parameter(torch.ones(k))
                # With zero weights the head adds nothing at first, so the first slice logits are exactly the encoder's.
                nn.init.zeros_(self.sequence_classifier.weight)
        self.pooling = ScanPooling(settings.pooling, in_features=features, labels=k)

    def change(self, settings: ModelSettings) -> None:
        """Replace the settings, for the next stage of a training.

        Args:
            settings: The new settings. They may differ only in settings that may change between stages.

        Raises:
            ConfigError: ``other_network``, if another setting differs.
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
        stacks: Tensor | None = None,
        *,
        both_ways: bool = False,
    ) -> ScanLogits:
        """Compute the logits of packed scans.

        Args:
            hu: Hounsfield units ``(n, h, w)``, integer or float: the slices of all scans, one scan after the other. With
                ``stacks`` also slices that stand beside them, in any order.
            lengths: Number of slices of each scan ``(b,)``, at least 1 each, with sum n.
            positions_mm: Position of each slice along the normal of its scan, in mm, ``(n,)``; needed if ``head.positions`` is
                ``mm``.
            draws: Seeds of the random augmentations of each slice in training, int64 ``(n,)``; None for no randomness but
                dropout.
            stacks: For each slice that is classified, the indices in ``hu`` of the slices that the encoder sees, int64
                ``(n, 2 * adjacent_slices + 1)``, the lowest one first; -1 for none. None: the slices of a scan stand beside one
                another.
            both_ways: In evaluation, run the sequence head upwards and downwards over every scan, and average the logits.

        Returns:
            Logits in float32 or a wider type.
        """
        return self.logits_of(self.encode(hu, lengths, draws, stacks), lengths, positions_mm, draws, both_ways=both_ways)

    def logits_of(
        self,
        features: Tensor,
        lengths: Tensor,
        positions_mm: Tensor | None = None,
        draws: Tensor | None = None,
        *,
        both_ways: bool = False,
    ) -> ScanLogits:
        """Compute logits from features ``(n, d)`` of `encode`. All other arguments are those of `forward`."""
        # The head is a thousandth of the work, so full precision costs next to nothing and keeps its sums over slices exact.
        with torch.autocast(features.device.type, enabled=False):
            if self.training:
                share = self.settings.head.reversal if isinstance(self.settings.head, ScanHead) else 0.0
                is_reversed = _drawn(draws, lengths) < share if draws is not None and share > 0 else None
                return self.head(features, lengths, positions_mm, is_reversed)
            upwards = self.head(features, lengths, positions_mm)
            if not both_ways:
                return upwards
            return mean_logits([upwards, self.head(features, lengths, positions_mm, torch.ones_like(lengths, dtype=torch.bool))])

    def encode(
        self,
        hu: Tensor,
        lengths: Tensor,
        draws: Tensor | None = None,
        stacks: Tensor | None = None,
        *,
        by: EncoderRun | None = None,
    ) -> Tensor:
        """Compute the features of each slice ``(n, d)``, in float32 or a wider type.

        ``by`` runs the encoder in another way, in evaluation without gradients; None runs it by itself. All other arguments are
        those of `forward`.

        In training, ``encoder.slices_per_chunk`` slices are encoded at a time, and encoded again in the backward pass. If the
        encoder is frozen, or in evaluation without gradients, the chunk size is `INFERENCE_SLICES_PER_CHUNK` and no activations
        are kept.
        """
        features_of = self.features_of(hu, lengths, draws, stacks, by=by)
        count = len(hu) if stacks is None else len(stacks)
        is_frozen = self.encoder.is_frozen and not any(p.requires_grad for p in self.windows.parameters())
        if is_frozen or not (self.training or torch.is_grad_enabled()):
            size = INFERENCE_SLICES_PER_CHUNK.get(hu.device.type, count)
            with torch.no_grad():
                # These chunks are contiguous: no batch statistics depend on the choice, and neighbours share input channels.
                features = run_in_chunks(features_of, torch.arange(count, device=hu.device).split(size), recompute=False)
        else:
            chunk = self.settings.encoder.slices_per_chunk
            size = chunk or count
            inside = (hu, *self.windows.parameters(), *self.encoder.parameters())
            features = run_in_chunks(
                features_of,
                strided_places(count, size, hu.device),
                recompute=chunk is not None,
                trained=[tensor for tensor in inside if tensor.requires_grad],
                normalizing=batch_norms(self.encoder),
            )
        return features.to(torch.promote_types(features.dtype, torch.float32))

    def features_of(
        self,
        hu: Tensor,
        lengths: Tensor,
        draws: Tensor | None = None,
        stacks: Tensor | None = None,
        *,
        by: EncoderRun | None = None,
    ) -> Callable[[Tensor], Tensor]:
        """Give a function from indices of classified slices ``(m,)`` to their features ``(m, d)``.

        The arguments are those of `encode`. The function applies the windows too, so that only HU are kept for the backward
        pass.
        """
        neighbours = self.settings.encoder.adjacent_slices
        if stacks is None and neighbours:
            stacks = stacks_of_scans(lengths, neighbours).to(hu.device)  # where lengths are, on the CPU: nothing waits for a GPU

        encoder = self.encoder if by is None else by

        def features_of(places: Tensor) -> Tensor:
            of_places = None if draws is None else draws[places]
            if stacks is None:
                return encoder(self.windows(hu[places], of_places))
            return encoder(stack_neighbours(self.windows, hu, stacks[places], of_places))

        return features_of

    def head(
        self, features: Tensor, lengths: Tensor, positions_mm: Tensor | None = None, is_reversed: Tensor | None = None
    ) -> ScanLogits:
        """Compute logits from the encoder's features ``(n, d)``.

        ``is_reversed`` is that of `SequenceHead`; the other arguments are those of `forward`.
        """
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
        own_logits = None if self.encoder_classifier is None else encoder_logits
        most = self.settings.max_slices
        if self.training or most is None or int(lengths.max()) <= most:
            slice_logits, context = self._slice_logits(self.sequence(x, lengths, positions_mm, is_reversed), own_logits)
            scan_logits = self.pooling(slice_logits, context, lengths)
        else:
            places, fewer = thinned(lengths, most)
            at = places.to(x.device)
            there = None if positions_mm is None else positions_mm[at]
            context = self.sequence(x[at], fewer, there, is_reversed, relative_positions(lengths)[places])
            scan_logits = self.pooling(*self._slice_logits(context, None if own_logits is None else own_logits[at]), fewer)
            slice_logits, _ = self._slice_logits(context[nearest_looked_at(lengths, fewer).to(x.device)], own_logits)
        logits = ScanLogits(slice_logits, scan_logits, own_logits, instance_logits)
        return self._finished(logits, own_logits, lengths)

    def _slice_logits(self, context: Tensor, encoder_logits: Tensor | None) -> tuple[Tensor, Tensor]:
        """Compute slice logits and the features that they are classified from.

        Args:
            context: Output of the sequence head ``(m, d)``.
            encoder_logits: The encoder's own logits of the same slices ``(m, k)``; None if it has no classifier.

        Returns:
            Slice logits ``(m, k)`` and the input of the last linear layer ``(m, d')``.
        """
        if self.has_probabilities and encoder_logits is not None:
            context = torch.cat([context, encoder_logits.sigmoid()], dim=1)
        context = self.output_dropout(context)
        slice_logits = self.sequence_classifier(context)
        if self.gate is not None and encoder_logits is not None:
            slice_logits = slice_logits + self.gate * encoder_logits
        return slice_logits, context

    def encoder_view(self, hu: Tensor, lengths: Tensor, draws: Tensor | None = None, stacks: Tensor | None = None) -> ScanLogits:
        """Compute logits by the encoder alone, without the sequence head. The arguments are those of `forward`.

        The encoder sees each slice by itself. A scan's logit of a label is the largest logit among its slices.
        """
        features = self.encode(hu, lengths, draws, stacks)
        with torch.autocast(features.device.type, enabled=False):
            features = self.encoder_dropout(self._as_head_takes(features))
            logits = self.encoder_classifier(features)  # type: ignore[misc]  # see has_encoder_view
            instance = None if self.instance_pooling is None else self.instance_pooling(logits, features, lengths)
            return ScanLogits(logits, _largest(logits, lengths), None, instance)

    def _as_head_takes(self, features: Tensor) -> Tensor:
        """Cast features to the precision of the head's weights, which a user may have lowered."""
        parts = [part for part in (self.encoder_classifier, self.sequence) if part is not None]
        return features.to(next(parts[0].parameters()).dtype)

    @property
    def has_encoder_view(self) -> bool:
        """Whether the encoder has logits of its own."""
        return self.encoder_classifier is not None

    def encoder_modules(self) -> list[nn.Module]:
        """The modules that are trained with the encoder; all other modules belong to the head."""
        optional = (self.encoder_classifier, self.instance_pooling)
        return [self.windows, self.encoder, *(module for module in optional if module is not None)]

    def pooling_parameters(self) -> list[nn.Parameter]:
        """The parameters of the pooling from slices to the scan; none for a fixed one, such as the maximum."""
        return [*self.pooling.parameters(), *([] if self.scan_gate is None else [self.scan_gate])]

    def _finished(self, logits: ScanLogits, encoder_logits: Tensor | None, lengths: Tensor) -> ScanLogits:
        """Add the encoder's gated logits to the scan logits, and make "any" coherent, where the settings ask for it."""
        if self.scan_gate is not None and encoder_logits is not None:
            largest = _largest(encoder_logits, lengths).clamp(-LOGIT_LIMIT, LOGIT_LIMIT)
            logits = logits._replace(scan_logits=logits.scan_logits + self.scan_gate * largest)
        if self.settings.coherent_any and not self.training:
            logits = logits._replace(slice_logits=raise_unions(logits.slice_logits), scan_logits=raise_unions(logits.scan_logits))
        return logits


def mean_logits(views: Sequence[ScanLogits]) -> ScanLogits:
    """Average a model's logits over several views of the same scans, field by field."""
    first = views[0]
    means = [
        None if of_first is None else torch.stack([view[i] for view in views]).mean(dim=0)  # type: ignore[misc]
        for i, of_first in enumerate(first)
    ]
    return ScanLogits(*means)  # type: ignore[arg-type]


def _largest(slice_logits: Tensor, lengths: Tensor) -> Tensor:
    """The largest slice logit of each scan and label, ``(b, k)``."""
    return torch.stack([logits.amax(dim=0) for logits in slice_logits.split(lengths.tolist())])  # (b, k)


def raise_unions(values: Tensor) -> Tensor:
    """Raise each union label ("any") to the largest value of its member labels.

    Args:
        values: Logits or probabilities ``(m, k)``, in the order of `LABELS`.
    """
    columns = list(values.unbind(dim=1))
    for union, members in UNIONS.items():
        columns[union] = torch.maximum(columns[union], values[:, list(members)].amax(dim=1))
    return torch.stack(columns, dim=1)


def _drawn(draws: Tensor, lengths: Tensor) -> Tensor:
    """Draw a number in [0, 1) for each scan ``(b,)``, seeded by the draw of its first slice."""
    firsts = torch.cumsum(lengths, 0) - lengths
    seeds = draws.cpu()[firsts.cpu()]
    return torch.tensor([torch.rand((), generator=torch.Generator().manual_seed(int(seed))).item() for seed in seeds])
