"""The recurrent sequence head (LSTM or GRU) along a scan."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

from ich_lstm.models.heads.dropout_recurrence import make_recurrence

Positions = Literal["none", "mm", "relative"]

POSITION_UNIT_MM = 50.0
STEP_UNIT_MM = 5.0
"""A head is about 150 mm high and a slice about 5 mm thick, so the inputs made with these units are of the order of 1."""

POSITION_FEATURES: dict[Positions, int] = {"none": 0, "mm": 2, "relative": 1}


class SequenceHead(nn.Module):
    """An LSTM or GRU over the slices of each scan.

    Scans are packed, not padded: the recurrence ends where a scan ends, so neighbours in the batch never matter.

    Args:
        in_features: Features per slice.
        kind: ``lstm`` or ``gru``.
        hidden_size: Hidden units per direction.
        num_layers: Stacked layers.
        bidirectional: Whether slices above are seen as well as slices below.
        norm: Whether features are normalized (LayerNorm) first.
        projection: Features after a linear layer, GELU and LayerNorm that come before the recurrence; None for no such layer.
        input_dropout: Of what enters the recurrence: one mask for all slices of a scan, as Keras has it.
        layer_dropout: Between recurrent layers.
        recurrent_dropout: Of the hidden state that is fed back: one mask for all steps; it excludes cuDNN's kernels in training.
        positions: Where a slice lies, as further inputs: ``mm``: its distances to the scan's top and to the slice below, from
            ``positions_mm``; ``relative``: its place in the scan, from 0 to 1; ``none``.
    """

    def __init__(
        self,
        in_features: int,
        *,
        kind: Literal["lstm", "gru"],
        hidden_size: int,
        num_layers: int,
        bidirectional: bool,
        norm: bool,
        projection: int | None,
        input_dropout: float,
        layer_dropout: float,
        recurrent_dropout: float,
        positions: Positions,
    ) -> None:
        super().__init__()
        self.positions = positions
        self.input_dropout = input_dropout
        self.norm = nn.LayerNorm(in_features) if norm else nn.Identity()
        self.projection: nn.Module = nn.Identity()
        if projection is not None:
            self.projection = nn.Sequential(nn.Linear(in_features, projection), nn.GELU(), nn.LayerNorm(projection))
        self.recurrence = make_recurrence(
            kind,
            (projection or in_features) + POSITION_FEATURES[positions],
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            layer_dropout=layer_dropout if num_layers > 1 else 0.0,  # torch warns of dropout without a layer to follow
            recurrent_dropout=recurrent_dropout,
        )
        self.out_features = hidden_size * (2 if bidirectional else 1)

    def forward(
        self,
        features: Tensor,
        lengths: Tensor,
        positions_mm: Tensor | None,
        is_reversed: Tensor | None = None,
        relative: Tensor | None = None,
    ) -> Tensor:
        """Run along every scan.

        Args:
            features: ``(n, d)``, slices of all scans in a row.
            lengths: Slices of each scan, ``(b,)``.
            positions_mm: Position of each slice along the normal ``(n,)``; needed if ``positions`` is ``mm``.
            is_reversed: Scans that are read from top to bottom, ``(b,)``; by default none is. A slice's place stays what it is.
            relative: Place of each slice in its scan, from 0 to 1, ``(n, 1)``, if these are some of its slices; by default
                they are all of them.

        Returns:
            ``(n, out_features)``, in the order of ``features``.
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
        scans = _turned(x.split(sizes), is_reversed)
        y, _ = self.recurrence(pack_sequence(list(scans), enforce_sorted=False))
        return torch.cat(_turned(unpack_sequence(y), is_reversed))


def _turned(scans: tuple[Tensor, ...] | list[Tensor], is_reversed: Tensor | None) -> list[Tensor]:
    if is_reversed is None:
        return list(scans)
    return [scan.flip(0) if turn else scan for scan, turn in zip(scans, is_reversed.tolist(), strict=True)]


def position_features(positions_mm: Tensor, lengths: Tensor) -> Tensor:
    """Where a slice lies in its scan, whatever the origin: ``(n, 2)``, distance to the top slice and to the slice below.

    The top is the anchor because scans end at the vertex, while they begin anywhere between the eyes and the neck.
    """
    rows = []
    for positions in positions_mm.float().split(lengths.tolist()):
        to_top = (positions[-1] - positions) / POSITION_UNIT_MM
        step = torch.diff(positions, prepend=positions[:1]) / STEP_UNIT_MM
        rows.append(torch.stack([to_top, step], dim=1))
    return torch.cat(rows)


def relative_positions(lengths: Tensor) -> Tensor:
    """A slice's number in its scan over the last one's, ``(n, 1)``: 0 at the bottom, 1 at the top; a single slice is at 0."""
    return torch.cat([torch.arange(size) / max(1, size - 1) for size in lengths.tolist()]).unsqueeze(1)
