"""The whole network: a CNN shared by all slices of a scan, and a recurrent head along the scan."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn

from ich_lstm.errors import ConfigError
from ich_lstm.labels import LABELS
from ich_lstm.models.encoder import SliceEncoder
from ich_lstm.models.pooling import PoolingKind, ScanPooling
from ich_lstm.models.sequence import SequenceHead
from ich_lstm.pixels.windows import BONE, BRAIN, SUBDURAL, WindowStack

SequenceKind = Literal["lstm", "gru", "none"]


class ScanLogits(NamedTuple):
    """What the network says, as logits.

    Args:
        slice_logits: Of each slice, having seen the scan, ``(n, k)``.
        scan_logits: Of each scan, ``(b, k)``.
        encoder_logits: Of each slice, seen alone, ``(n, k)``; None if the model has no recurrent head.
    """

    slice_logits: Tensor
    scan_logits: Tensor
    encoder_logits: Tensor | None


class ScanModel(nn.Module):
    """CNN-LSTM over whole scans of head CT. HU in, logits of the six labels out.

    Args:
        backbone: Encoder, any model name of timm.
        pretrained: Start the encoder from timm's pretrained weights.
        global_pool: Pooling of the encoder's last map: ``avg``, ``max``, ``avgmax`` or ``catavgmax``; None is the backbone's own.
        windows: Level and width in HU of each input channel.
        mean: Mean of the windowed channels (0 to 1): one value, or one per window. The default is ImageNet's average.
        std: Standard deviation likewise.
        sequence: Recurrent head; ``none`` is the 2D baseline.
        hidden_size: Hidden units of the recurrent head, per direction.
        num_layers: Layers of the recurrent head.
        bidirectional: Whether the recurrent head runs both ways.
        dropout: Dropout on the features, between recurrent layers, and before the last layer.
        positions: Whether slice positions in mm are an input of the recurrent head.
        encoder_residual: Add the encoder's own logits to the sequence's, through a learned gate per label, so that what the
            context cannot improve is not lost.
        pooling: How slice logits become scan logits.

    Raises:
        ConfigError: If a setting is out of range or the backbone is unknown.
    """

    def __init__(
        self,
        *,
        backbone: str = "resnext50_32x4d",
        pretrained: bool = True,
        global_pool: Literal["avg", "max", "avgmax", "catavgmax"] | None = None,
        windows: Sequence[tuple[float, float]] = (BRAIN, SUBDURAL, BONE),
        mean: Sequence[float] = (0.449,),
        std: Sequence[float] = (0.226,),
        sequence: SequenceKind = "lstm",
        hidden_size: int = 512,
        num_layers: int = 2,
        bidirectional: bool = True,
        dropout: float = 0.0,
        positions: bool = True,
        encoder_residual: bool = True,
        pooling: PoolingKind = "attention",
    ) -> None:
        # What was asked for, to the last default: stored with the weights, so that a later default changes no old model.
        settings: dict[str, Any] = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        super().__init__()
        if hidden_size < 1 or num_layers < 1 or not 0 <= dropout < 1:
            raise ConfigError(
                "head_out_of_range",
                where="hidden_size, num_layers, dropout",
                got=f"{hidden_size}, {num_layers}, {dropout}",
                expected="at least 1, at least 1, in [0, 1)",
            )
        for name, value, choices in (("sequence", sequence, get_args(SequenceKind)), ("pooling", pooling, get_args(PoolingKind))):
            if value not in choices:
                raise ConfigError(f"unknown_{name}", where=name, got=repr(value), expected=f"one of {', '.join(choices)}")
        try:
            self.windows = WindowStack(windows, mean, std)
        except ValueError as error:
            raise ConfigError("windows_out_of_range", where="windows, mean, std", got=str(error)) from error
        settings["windows"] = [[float(level), float(width)] for level, width in windows]
        settings["mean"], settings["std"] = [float(value) for value in mean], [float(value) for value in std]
        self.settings = settings
        self.encoder = SliceEncoder(backbone, in_channels=len(windows), global_pool=global_pool, pretrained=pretrained)
        features = self.encoder.out_features
        self.dropout = nn.Dropout(dropout)
        self.encoder_classifier = nn.Linear(features, len(LABELS))
        self.sequence: SequenceHead | None = None
        if sequence != "none":
            self.sequence = SequenceHead(
                features,
                kind=sequence,
                hidden_size=hidden_size,
                num_layers=num_layers,
                bidirectional=bidirectional,
                dropout=dropout,
                positions=positions,
            )
            features = self.sequence.out_features
            self.sequence_classifier = nn.Linear(features, len(LABELS))
            self.gate = nn.Parameter(torch.ones(len(LABELS))) if encoder_residual else None
            if encoder_residual:
                # The head begins as a correction of nothing: the first sequence logits are the encoder's.
                nn.init.zeros_(self.sequence_classifier.weight)
                nn.init.zeros_(self.sequence_classifier.bias)
        self.pooling = ScanPooling(pooling, in_features=features, labels=len(LABELS))

    def forward(self, hu: Tensor, lengths: Tensor, positions_mm: Tensor | None = None) -> ScanLogits:
        """Logits of packed scans.

        Args:
            hu: Hounsfield units of all scans' slices in a row, ``(n, h, w)``, integer or float.
            lengths: Slices of each scan, ``(b,)``, at least 1 each, with sum n.
            positions_mm: Position of each slice along its scan's normal, ``(n,)``; needed if ``positions``.

        Returns:
            Float32 (or wider) logits.
        """
        features = self.encoder(self.windows(hu))  # (n, d)
        # The head is a thousandth of the work; in full precision its sums over many slices cost nothing and stay exact.
        with torch.autocast(features.device.type, enabled=False):
            return self.head(features.to(torch.promote_types(features.dtype, torch.float32)), lengths, positions_mm)

    def head(self, features: Tensor, lengths: Tensor, positions_mm: Tensor | None = None) -> ScanLogits:
        """From the encoder's features ``(n, d)`` to logits; arguments as in `forward`."""
        features = self.dropout(features)
        encoder_logits = self.encoder_classifier(features)  # (n, k)
        if self.sequence is None:
            return ScanLogits(encoder_logits, self.pooling(encoder_logits, features, lengths), None)
        context = self.dropout(self.sequence(features, lengths, positions_mm))  # (n, out_features)
        slice_logits = self.sequence_classifier(context)
        if self.gate is not None:
            slice_logits = slice_logits + self.gate * encoder_logits
        return ScanLogits(slice_logits, self.pooling(slice_logits, context, lengths), encoder_logits)
