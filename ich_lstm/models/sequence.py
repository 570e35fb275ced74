"""The recurrent head that looks along a scan."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_sequence, unpack_sequence

POSITION_UNIT_MM = 50.0
STEP_UNIT_MM = 5.0
"""A head is about 150 mm high and a slice about 5 mm thick, so the inputs made with these units are of the order of 1."""

POSITION_FEATURES = 2


class SequenceHead(nn.Module):
    """An LSTM or GRU over the slices of each scan.

    Scans are packed, not padded: the recurrence ends where a scan ends, so neighbours in the batch never matter.

    Args:
        in_features: Features per slice.
        kind: ``lstm`` or ``gru``.
        hidden_size: Hidden units per direction.
        num_layers: Stacked layers.
        bidirectional: Whether slices above are seen as well as slices below.
        dropout: Dropout between layers.
        positions: Whether each slice's distance to the scan's top and to the slice below, from ``positions_mm``, are inputs too.
    """

    def __init__(
        self,
        in_features: int,
        *,
        kind: Literal["lstm", "gru"],
        hidden_size: int,
        num_layers: int,
        bidirectional: bool,
        dropout: float,
        positions: bool,
    ) -> None:
        super().__init__()
        self.positions = positions
        recurrence = {"lstm": nn.LSTM, "gru": nn.GRU}[kind]
        self.norm = nn.LayerNorm(in_features)
        self.recurrence = recurrence(
            in_features + (POSITION_FEATURES if positions else 0),
            hidden_size,
            num_layers,
            bidirectional=bidirectional,
            dropout=dropout if num_layers > 1 else 0.0,  # torch warns of dropout without a layer to follow
        )
        self.out_features = hidden_size * (2 if bidirectional else 1)

    def forward(self, features: Tensor, lengths: Tensor, positions_mm: Tensor | None) -> Tensor:
        """Run along every scan.

        Args:
            features: ``(n, d)``, slices of all scans in a row.
            lengths: Slices of each scan, ``(b,)``.
            positions_mm: Position of each slice along the normal ``(n,)``; needed if ``positions``.

        Returns:
            ``(n, out_features)``.
        """
        x = self.norm(features)
        if self.positions:
            if positions_mm is None:
                raise ValueError("positions_mm: got None, expected (n,): this model takes slice positions as an input")
            x = torch.cat([x, position_features(positions_mm, lengths).to(x)], dim=1)
        y, _ = self.recurrence(pack_sequence(x.split(lengths.tolist()), enforce_sorted=False))
        return torch.cat(unpack_sequence(y))


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
