"""Recurrent sequence heads: an LSTM or a GRU along a scan."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from ich_lstm.models.heads.dropout_recurrence import RecurrentDropoutGRU, RecurrentDropoutLSTM
from ich_lstm.models.heads.head import ScanHead, SequenceHead
from ich_lstm.models.heads.positions import POSITION_FEATURES, Positions, position_features, relative_positions
from ich_lstm.settings import require, require_choice, setting


@dataclass(frozen=True, kw_only=True)
class Recurrent(ScanHead):
    """Settings of an LSTM or a GRU along the scan.

    Args:
        hidden_size: Hidden units per direction, at least 1.
        num_layers: Number of stacked recurrent layers, at least 1.
        bidirectional: Whether each slice gets context from the slices above it as well as from those below.
        norm: Whether a LayerNorm normalizes the features before anything else.
        projection: Output size of a linear layer, followed by GELU and LayerNorm, that the features pass before the recurrence;
            null for no such layer.
        input_dropout: Dropout rate on the input of the recurrence, in [0, 1), with one mask for all slices of a scan, as in
            Keras.
        layer_dropout: Dropout rate between recurrent layers, in [0, 1).
        recurrent_dropout: Dropout rate on the hidden state that is fed back, in [0, 1), with one mask for all steps of a scan.
            cuDNN's kernels cannot do this, so training on a GPU becomes slower.
        positions: Which inputs tell the head where a slice lies. ``mm``: its distances to the top of the scan and to the slice
            below; ``relative``: its place in the scan, from 0 to 1; ``none``: no such input.
        output_dropout: Dropout rate before the last linear layer, in [0, 1).
        reversal: Share of the training scans, in [0, 1], that the head reads from top to bottom.
        encoder_residual: Add the encoder's own logits to those of the head, through a learned gate per label, so that the head
            need only learn the correction.
        encoder_probabilities: Concatenate the encoder's own probabilities to the input of the head, and again to its output.

    Raises:
        ConfigError: If a setting is out of range.
    """

    hidden_size: int = 512
    num_layers: int = 2
    bidirectional: bool = True
    norm: bool = True
    projection: int | None = None
    input_dropout: float = setting(0.0, free=True)
    layer_dropout: float = setting(0.0, free=True)
    recurrent_dropout: float = setting(0.0, free=True)
    positions: Positions = "mm"

    def __post_init__(self) -> None:
        super().__post_init__()
        counts = {f"head.{name}": getattr(self, name) for name in ("hidden_size", "num_layers", "projection")}
        wrong = {name: count for name, count in counts.items() if count is not None and count < 1}
        require("head_out_of_range", "counts of at least 1", wrong)
        shares = {f"head.{name}": getattr(self, name) for name in ("input_dropout", "layer_dropout", "recurrent_dropout")}
        require("head_out_of_range", "in [0, 1)", {name: share for name, share in shares.items() if not 0 <= share < 1})
        require_choice("unknown_positions", "head.positions", self.positions, Positions)


@dataclass(frozen=True, kw_only=True)
class LSTM(Recurrent):
    """An LSTM along the scan; its settings are those of `Recurrent`."""

    def build(self, in_features: int) -> SequenceHead:
        """Build the LSTM head.

        Args:
            in_features: Number of features per slice.
        """
        return RecurrentHead(in_features, self, RecurrentDropoutLSTM)


@dataclass(frozen=True, kw_only=True)
class GRU(Recurrent):
    """A GRU along the scan; its settings are those of `Recurrent`."""

    def build(self, in_features: int) -> SequenceHead:
        """Build the GRU head.

        Args:
            in_features: Number of features per slice.
        """
        return RecurrentHead(in_features, self, RecurrentDropoutGRU)


class RecurrentHead(SequenceHead):
    """An LSTM or GRU over the slices of each scan.

    Scans are packed, not padded: the recurrence ends where a scan ends, so the result does not depend on the other scans of the
    batch.

    Args:
        in_features: Number of features per slice.
        settings: Settings of the head.
        recurrence: The recurrent network to build.
    """

    def __init__(
        self, in_features: int, settings: Recurrent, recurrence: type[RecurrentDropoutLSTM] | type[RecurrentDropoutGRU]
    ) -> None:
        super().__init__()
        self.positions = settings.positions
        self.input_dropout = settings.input_dropout
        self.norm = nn.LayerNorm(in_features) if settings.norm else nn.Identity()
        self.projection: nn.Module = nn.Identity()
        if settings.projection is not None:
            self.projection = nn.Sequential(
                nn.Linear(in_features, settings.projection), nn.GELU(), nn.LayerNorm(settings.projection)
            )
        self.recurrence = recurrence(
            (settings.projection or in_features) + POSITION_FEATURES[settings.positions],
            settings.hidden_size,
            settings.num_layers,
            bidirectional=settings.bidirectional,
            dropout=settings.layer_dropout if settings.num_layers > 1 else 0.0,  # torch warns of dropout without a next layer
            recurrent_dropout=settings.recurrent_dropout,
        )
        self.out_features = settings.hidden_size * (2 if settings.bidirectional else 1)

    def forward(
        self,
        features: Tensor,
        lengths: Tensor,
        positions_mm: Tensor | None,
        is_reversed: Tensor | None = None,
        relative: Tensor | None = None,
    ) -> Tensor:
        """Run along every scan. Arguments and result are those of `SequenceHead`.

        Raises:
            ValueError: If the head takes positions in mm, and ``positions_mm`` is None.
        """
        x = self.projection(self.norm(features))
        if self.positions == "mm":
            if positions_mm is None:
                raise ValueError("positions_mm: got None, expected (n,): this model takes slice positions as an input")
            x = torch.cat([x, position_features(positions_mm, lengths).to(x)], dim=1)
        elif self.positions == "relative":
            x = torch.cat([x, (relative_positions(lengths) if relative is None else relative).to(x)], dim=1)
        sizes = lengths.tolist()
        if self.training and self.input_dropout > 0:
            masks = torch.nn.functional.dropout(x.new_ones(len(sizes), x.shape[1]), self.input_dropout)
            x = x * masks.repeat_interleave(lengths.to(x.device), dim=0, output_size=len(x))
        scans = _flipped_where(x.split(sizes), is_reversed)
        y, _ = self.recurrence(pack_sequence(list(scans), enforce_sorted=False))
        return torch.cat(_flipped_where(unpack_sequence(y), is_reversed))


def _flipped_where(scans: tuple[Tensor, ...] | list[Tensor], is_reversed: Tensor | None) -> list[Tensor]:
    """Reverse the order of slices in the scans for which ``is_reversed`` is true; None reverses no scan."""
    if is_reversed is None:
        return list(scans)
    return [scan.flip(0) if flip else scan for scan, flip in zip(scans, is_reversed.tolist(), strict=True)]
