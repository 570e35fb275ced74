"""The whole network: an encoder shared by all slices of a scan, and a sequence head along the scan."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ich_lstm.errors import ConfigError
from ich_lstm.labels import LABELS, UNIONS
from ich_lstm.models.adjacent_slices import stack_neighbours
from ich_lstm.models.compiled import keep_plain_names
from ich_lstm.models.encoder import BatchNorm, GlobalPool, SliceEncoder
from ich_lstm.models.heads.recurrent import Positions, SequenceHead, relative_positions
from ich_lstm.models.long_scans import nearest_looked_at, thinned
from ich_lstm.models.pooling import PoolingKind, ScanPooling
from ich_lstm.models.recompute import batch_norms, run_in_chunks, strided_places
from ich_lstm.models.reduction import FeatureReducer, ReducerKind
from ich_lstm.preprocessing.intensity import Intensity
from ich_lstm.preprocessing.windows import WindowStack
from ich_lstm.window import BONE, BRAIN, SUBDURAL

SequenceKind = Literal["lstm", "gru", "none"]

INFERENCE_SLICES_PER_CHUNK = {"cpu": 8, "cuda": 128}
"""Without gradients the encoder runs chunk by chunk: memory stays flat, and on a CPU the activations of 8 slices stay in
the caches, which made a 35-slice scan 2.3 times faster than all slices at once."""

SURE = math.log(1e6 - 1)
"""The logit of 1 - 1e-6: beyond, the most suspicious slice adds nothing more to its scan."""

RUNNING = ("pretrained_file", "batch_norm", "slices_per_chunk", "checkpoint_blocks", "compiled", "intensity")
"""Arguments that say how the network is run and trained, and not what it is: with others the same weights mean the same."""

CHANGEABLE = (
    "encoder_dropout",
    "input_dropout",
    "layer_dropout",
    "recurrent_dropout",
    "output_dropout",
    "reversal",
    "coherent_any",
    "max_slices",
)
"""Settings of the network that any weights go with."""


class ScanLogits(NamedTuple):
    """What the network says, as logits.

    Args:
        slice_logits: Of each slice, having seen the scan, ``(n, k)``.
        scan_logits: Of each scan, ``(b, k)``.
        encoder_logits: Of each slice, seen alone, ``(n, k)``; None if the model has no recurrent head, or no such logits.
        instance_logits: Of each scan, by attention over what the encoder sees alone, ``(b, k)``; None without
            ``instance_pooling``. It trains; it is no prediction.
    """

    slice_logits: Tensor
    scan_logits: Tensor
    encoder_logits: Tensor | None = None
    instance_logits: Tensor | None = None


class ScanModel(nn.Module):
    """CNN-LSTM over whole scans of head CT. HU in, logits of the six labels out.

    Args:
        backbone: Encoder, any model name of timm.
        pretrained: Start the encoder from timm's pretrained weights.
        pretrained_file: Start it from this file of timm's weights instead, on a machine without internet.
        global_pool: Pooling of the encoder's last map: ``avg``, ``max``, ``avgmax`` or ``catavgmax``; ``late``: behind the
            backbone's head; None is the backbone's own.
        windows: Level and width in HU of each input channel.
        mean: Mean of the windowed channels (0 to 1): one value, or one per window. The default is ImageNet's average.
        std: Standard deviation of the windowed channels: one value, or one per window. The default is ImageNet's average.
        quantize: Round the windowed channels down to 8 bit.
        integer_windows: Halve odd widths in whole numbers, as programs do that compute windows in integers: 75/215 then reaches
            from -32 to 182 HU, still divided by 215.
        learnable_windows: Whether levels and widths are trained too.
        neighbours: So many slices on either side are shown to the encoder beside each slice, as further channels; beyond the ends
            of a scan they are what a window shows of the lowest HU.
        batch_norm: ``batch``: the encoder's batch-norm layers normalize by the batch in training; ``synchronized``: by the
            batches of all processes; ``frozen``: by their running statistics, which stay as they are.
        slices_per_chunk: Train the encoder in chunks of at most so many slices, whose activations are computed again in the
            backward pass: memory does not grow with the batch, and gradients are exact. Batch statistics are those of a chunk.
            ``auto``, which is for ich-train alone: as many as the device's memory holds, found by trying.
        checkpoint_blocks: Compute activations inside timm's blocks again in the backward pass; statistics are the batch's.
        compiled: Compile the encoder.
        intensity: Augmentation of the windowed channels in training; null for none.
        encoder_dropout: Dropout on the encoder's features.
        encoder_classifier: Whether the encoder has logits of its own, seeing each slice alone.
        encoder_residual: Add the encoder's own logits to the sequence's, through a learned gate per label, so that what the
            context cannot improve is not lost.
        encoder_probabilities: Concatenate the encoder's own probabilities to what enters the recurrent head, and again to what
            leaves it.
        reduction: What is made of the features before the recurrent head: ``none``; ``linear``; ``pca``; ``deviation``: those of
            largest standard deviation; ``largest-weights`` or ``smallest-weights`` in the encoder's classifier; ``drop``: no
            feature at all. All but ``none``, ``linear`` and ``drop`` are fitted on features of the training scans.
        reduced_features: How many features it makes.
        sequence: Recurrent head; ``none`` is the 2D baseline.
        hidden_size: Hidden units of the recurrent head, per direction.
        num_layers: Layers of the recurrent head.
        bidirectional: Whether the recurrent head runs both ways.
        sequence_norm: Whether features are normalized (LayerNorm) before the recurrent head.
        projection: Features after a linear layer, GELU and LayerNorm before the recurrent head; null for no such layer.
        input_dropout: Dropout on what enters the recurrent head: one mask per scan.
        layer_dropout: Dropout between recurrent layers.
        recurrent_dropout: Dropout on the hidden state that is fed back: one mask per scan.
        output_dropout: Dropout before the last layer.
        positions: Slice positions as inputs of the recurrent head: ``mm``, ``relative`` (0 to 1) or ``none``.
        reversal: Share of the scans in training that the recurrent head reads from top to bottom.
        pooling: How slice logits become scan logits.
        attention_size: Hidden units of the attention of poolings.
        scan_residual: Add the largest of the encoder's logits in a scan to the scan's, through a learned gate per label.
        instance_pooling: Whether there are logits of each scan by attention over the encoder's features, without the recurrent
            head, which only train (multiple-instance loss).
        coherent_any: Raise "any" to the most probable type, in evaluation.
        max_slices: In evaluation, the recurrent head and the pooling look at so many slices of a scan with more, evenly spaced;
            every slice gets the context of the nearest. The encoder looks at all of them; null for no limit.

    Raises:
        ConfigError: If a setting is out of range or the backbone is unknown.
    """

    def __init__(
        self,
        *,
        backbone: str = "resnext50_32x4d",
        pretrained: bool = True,
        pretrained_file: str | None = None,
        global_pool: GlobalPool | None = None,
        windows: Sequence[tuple[float, float]] = (BRAIN, SUBDURAL, BONE),
        mean: Sequence[float] = (0.449,),
        std: Sequence[float] = (0.226,),
        quantize: bool = False,
        integer_windows: bool = False,
        learnable_windows: bool = False,
        neighbours: int = 0,
        batch_norm: BatchNorm = "batch",
        slices_per_chunk: int | Literal["auto"] | None = None,
        checkpoint_blocks: bool = False,
        compiled: bool = False,
        intensity: Intensity | None = None,
        encoder_dropout: float = 0.0,
        encoder_classifier: bool = True,
        encoder_residual: bool = True,
        encoder_probabilities: bool = False,
        reduction: ReducerKind = "none",
        reduced_features: int | None = None,
        sequence: SequenceKind = "lstm",
        hidden_size: int = 512,
        num_layers: int = 2,
        bidirectional: bool = True,
        sequence_norm: bool = True,
        projection: int | None = None,
        input_dropout: float = 0.0,
        layer_dropout: float = 0.0,
        recurrent_dropout: float = 0.0,
        output_dropout: float = 0.0,
        positions: Positions = "mm",
        reversal: float = 0.0,
        pooling: PoolingKind = "attention",
        attention_size: int = 64,
        scan_residual: bool = False,
        instance_pooling: bool = False,
        coherent_any: bool = False,
        max_slices: int | None = None,
    ) -> None:
        # What was asked for, to the last default: stored with the weights, so that a later default changes no old model.
        settings: dict[str, Any] = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        keep_plain_names(self)
        _check(settings)
        try:
            self.windows = WindowStack(
                windows,
                mean,
                std,
                quantize=quantize,
                integer_edges=integer_windows,
                learnable=learnable_windows,
                intensity=intensity,
            )
        except ValueError as error:
            raise ConfigError("windows_out_of_range", where="windows, mean, std", got=str(error)) from error
        settings["windows"] = [[float(level), float(width)] for level, width in windows]
        settings["mean"], settings["std"] = [float(value) for value in mean], [float(value) for value in std]
        self.settings = {name: value for name, value in settings.items() if name not in RUNNING}
        self.neighbours = neighbours
        self.slices_per_chunk: int | None = slices_per_chunk  # type: ignore[assignment]  # auto is refused above
        self.reversal = reversal
        self.coherent_any = coherent_any
        self.max_slices = max_slices
        self.has_probabilities = encoder_probabilities
        self.encoder = SliceEncoder(
            backbone,
            in_channels=len(windows) * (2 * neighbours + 1),
            global_pool=global_pool,
            pretrained=pretrained,
            pretrained_file=pretrained_file,
            batch_norm=batch_norm,
            checkpoint_blocks=checkpoint_blocks,
            compiled=compiled,
        )
        features, k = self.encoder.out_features, len(LABELS)
        self.encoder_dropout = nn.Dropout(encoder_dropout)
        self.encoder_classifier = nn.Linear(features, k) if encoder_classifier else None
        self.instance_pooling = (
            ScanPooling("feature-attention", in_features=features, labels=k, attention_size=attention_size)
            if instance_pooling
            else None
        )
        self.reducer: FeatureReducer | None = None
        self.sequence: SequenceHead | None = None
        self.gate: nn.Parameter | None = None
        self.scan_gate = nn.Parameter(torch.zeros(k)) if scan_residual else None
        if sequence != "none":
            self.reducer = FeatureReducer(features, kind=reduction, reduced_features=reduced_features)
            further = k if encoder_probabilities else 0
            self.sequence = SequenceHead(
                self.reducer.out_features + further,
                kind=sequence,
                hidden_size=hidden_size,
                num_layers=num_layers,
                bidirectional=bidirectional,
                norm=sequence_norm,
                projection=projection,
                input_dropout=input_dropout,
                layer_dropout=layer_dropout,
                recurrent_dropout=recurrent_dropout,
                positions=positions,
            )
            features = self.sequence.out_features + further
            self.output_dropout = nn.Dropout(output_dropout)
            self.sequence_classifier = nn.Linear(features, k)
            nn.init.zeros_(self.sequence_classifier.bias)
            if encoder_residual:
                self.gate = nn.Parameter(torch.ones(k))
                # The head begins as a correction of nothing: the first sequence logits are the encoder's.
                nn.init.zeros_(self.sequence_classifier.weight)
        self.pooling = ScanPooling(pooling, in_features=features, labels=k, attention_size=attention_size)

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
                is_reversed = _drawn(draws, lengths) < self.reversal if draws is not None and self.reversal > 0 else None
                return self.head(features, lengths, positions_mm, is_reversed)
            upwards = self.head(features, lengths, positions_mm)
            if not both_ways:
                return upwards
            return mean_logits([upwards, self.head(features, lengths, positions_mm, torch.ones_like(lengths, dtype=torch.bool))])

    def encode(self, hu: Tensor, lengths: Tensor, draws: Tensor | None = None) -> Tensor:
        """Features of each slice, ``(n, d)``, at least float32; arguments as in `forward`.

        In training, `slices_per_chunk` slices are encoded at a time, and again in the backward pass; where nothing of the encoder
        is trained, and in evaluation without gradients, as many as suit the device, and nothing is kept.
        """
        features_of = self.features_of(hu, lengths, draws)
        is_frozen = self.encoder.is_frozen and not any(p.requires_grad for p in self.windows.parameters())
        if is_frozen or not (self.training or torch.is_grad_enabled()):
            size = INFERENCE_SLICES_PER_CHUNK.get(hu.device.type, len(hu))
            with torch.no_grad():
                # Not strided: nothing here depends on which slices go together, and neighbours share their channels.
                features = run_in_chunks(features_of, torch.arange(len(hu), device=hu.device).split(size), recompute=False)
        else:
            size = self.slices_per_chunk or len(hu)
            inside = (hu, *self.windows.parameters(), *self.encoder.parameters())
            features = run_in_chunks(
                features_of,
                strided_places(len(hu), size, hu.device),
                recompute=self.slices_per_chunk is not None,
                trained=[tensor for tensor in inside if tensor.requires_grad],
                normalizing=batch_norms(self.encoder),
            )
        return features.to(torch.promote_types(features.dtype, torch.float32))

    def features_of(self, hu: Tensor, lengths: Tensor, draws: Tensor | None = None) -> Callable[[Tensor], Tensor]:
        """The encoder on any slices of a batch: from their places ``(m,)`` to features ``(m, d)``; arguments as in `forward`.

        The windows are included, so that only HU are kept for the backward pass.
        """

        def features_of(places: Tensor) -> Tensor:
            return self.encoder(stack_neighbours(self.windows, hu, lengths, places, self.neighbours, draws))

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
        if self.training or self.max_slices is None or int(lengths.max()) <= self.max_slices:
            slice_logits, context = self._slice_logits(self.sequence(x, lengths, positions_mm, is_reversed), own)
            scan_logits = self.pooling(slice_logits, context, lengths)
        else:
            places, fewer = thinned(lengths, self.max_slices)
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
        if self.coherent_any and not self.training:
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


def _check(settings: dict[str, Any]) -> None:
    """See that settings are in range and go together.

    Raises:
        ConfigError: If not.
    """
    for name, choices in (
        ("sequence", get_args(SequenceKind)),
        ("pooling", get_args(PoolingKind)),
        ("positions", get_args(Positions)),
        ("batch_norm", get_args(BatchNorm)),
        ("reduction", get_args(ReducerKind)),
    ):
        if settings[name] not in choices:
            raise ConfigError(f"unknown_{name}", where=name, got=repr(settings[name]), expected=f"one of {', '.join(choices)}")
    if settings["slices_per_chunk"] == "auto":
        raise ConfigError(
            "auto_unresolved",
            where="slices_per_chunk",
            got="auto",
            expected="a number or null: only ich-train replaces auto, before it makes the model",
            todo="Find it with ich-train --plan, or with ich_lstm.training.memory_planner.plan_memory.",
        )
    counts = ("hidden_size", "num_layers", "attention_size", "projection", "slices_per_chunk", "max_slices")
    shares = ("encoder_dropout", "input_dropout", "layer_dropout", "recurrent_dropout", "output_dropout", "reversal")
    wrong = [name for name in counts if settings[name] is not None and settings[name] < 1]
    wrong += [name for name in shares if not 0 <= settings[name] < 1 and not (name == "reversal" and settings[name] == 1)]
    wrong += ["neighbours"] if settings["neighbours"] < 0 else []
    if wrong:
        raise ConfigError(
            "head_out_of_range" if "neighbours" not in wrong else "neighbours_out_of_range",
            where=", ".join(wrong),
            got=", ".join(str(settings[name]) for name in wrong),
            expected="counts of at least 1, neighbours of at least 0, shares in [0, 1)",
        )
    if settings["batch_norm"] == "synchronized" and settings["slices_per_chunk"] is not None:
        # Processes have different numbers of chunks, and would wait for one another for ever.
        raise ConfigError(
            "chunks_and_synchronized_statistics",
            where="batch_norm, slices_per_chunk",
            got="synchronized statistics, and chunks",
            expected="one of them",
            todo="Set checkpoint_blocks=true in place of slices_per_chunk, or batch_norm=frozen.",
        )
    has_sequence = settings["sequence"] != "none"
    if not settings["encoder_classifier"]:
        needs = [
            name for name in ("encoder_residual", "encoder_probabilities", "scan_residual", "instance_pooling") if settings[name]
        ]
        needs += [] if has_sequence else ["sequence=none"]
        if needs:
            raise ConfigError(
                "no_encoder_classifier",
                where=", ".join(needs),
                got="encoder_classifier=false",
                expected="logits of the encoder, which these need",
                todo=f"Leave encoder_classifier true, or set {', '.join(needs)} to false.",
            )
    if settings["reduction"] == "drop" and not settings["encoder_probabilities"]:
        raise ConfigError(
            "nothing_left",
            where="reduction, encoder_probabilities",
            got="drop, and false",
            expected="the encoder's probabilities, where no feature enters the recurrent head",
            todo="Set encoder_probabilities=true.",
        )
    if not has_sequence and settings["reduction"] != "none":
        raise ConfigError(
            "nothing_to_reduce_for",
            where="reduction",
            got=f"{settings['reduction']}, and sequence=none",
            expected="a recurrent head that takes the reduced features",
            todo="Leave reduction out, or give the model a recurrent head.",
        )
