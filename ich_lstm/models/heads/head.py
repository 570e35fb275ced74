"""The base classes of all sequence heads: their settings, and the interface of their modules."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from ich_lstm.settings import ChosenByClass, require, setting


class SequenceHead(nn.Module):
    """A module that gives each slice features with context from the other slices of its scan.

    Attributes:
        out_features: Number of features per slice in the output.
    """

    out_features: int

    @abstractmethod
    def forward(
        self,
        features: Tensor,
        lengths: Tensor,
        positions_mm: Tensor | None,
        is_reversed: Tensor | None = None,
        relative: Tensor | None = None,
    ) -> Tensor:
        """Process every scan.

        Args:
            features: Features ``(n, d)``: the slices of all scans, one scan after the other.
            lengths: Number of slices of each scan ``(b,)``.
            positions_mm: Position of each slice along the normal of its scan, in mm, ``(n,)``; None if unknown.
            is_reversed: Whether each scan is read from top to bottom, bool ``(b,)``; None to read all scans upwards. Positions
                that enter as features do not change.
            relative: Place of each slice in its scan, from 0 to 1, ``(n, 1)``, if only some slices of the scans are given. None
                if all slices are given.

        Returns:
            Features ``(n, out_features)``, in the order of ``features``.
        """


class Head(ChosenByClass):
    """Base of the settings of all heads. The class of the settings chooses the kind of head."""

    @abstractmethod
    def build(self, in_features: int) -> SequenceHead | None:
        """Build the module of these settings; None if there is no sequence head.

        Args:
            in_features: Number of features per slice.
        """


@dataclass(frozen=True, kw_only=True)
class NoHead(Head):
    """No sequence head: each slice is classified by itself. This is the 2D baseline."""

    def build(self, in_features: int) -> None:
        """Build nothing.

        Args:
            in_features: Number of features per slice; it has no effect.
        """


@dataclass(frozen=True, kw_only=True)
class ScanHead(Head):
    """Settings of every head that uses context along the scan; `ScanModel` applies them around the head's module.

    Args:
        output_dropout: Dropout rate before the last linear layer, in [0, 1).
        reversal: Share of the training scans, in [0, 1], that the head reads from top to bottom.
        encoder_residual: Add the encoder's own logits to those of the head, through a learned gate per label, so that the head
            need only learn the correction.
        encoder_probabilities: Concatenate the encoder's own probabilities to the input of the head, and again to its output.
    """

    output_dropout: float = setting(0.0, free=True)
    reversal: float = setting(0.0, stage=True)
    encoder_residual: bool = True
    encoder_probabilities: bool = False

    @abstractmethod
    def build(self, in_features: int) -> SequenceHead:
        """Build the module of these settings.

        Args:
            in_features: Number of features per slice.
        """

    def __post_init__(self) -> None:
        dropout = self.output_dropout
        require("head_out_of_range", "in [0, 1)", {} if 0 <= dropout < 1 else {"head.output_dropout": dropout})
        require("head_out_of_range", "in [0, 1]", {} if 0 <= self.reversal <= 1 else {"head.reversal": self.reversal})
