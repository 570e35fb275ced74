"""What all sequence heads share: their settings, and the interface of their modules."""

from abc import abstractmethod
from dataclasses import dataclass

from torch import Tensor, nn

from ich_lstm.settings import ChosenByClass, require, setting


class SequenceHead(nn.Module):
    """A module that looks along the slices of each scan.

    Attributes:
        out_features: Features of each slice that come out.
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
        """Look along every scan.

        Args:
            features: ``(n, d)``, slices of all scans in a row.
            lengths: Slices of each scan, ``(b,)``.
            positions_mm: Position of each slice along the normal, ``(n,)``; None if it is unknown.
            is_reversed: Scans that are read from top to bottom, ``(b,)``; None: no scan is. A slice's place stays what it is.
            relative: Place of each slice in its scan, from 0 to 1, ``(n, 1)``, where only some of a scan's slices are given;
                None: all of them are.

        Returns:
            ``(n, out_features)``, in the order of ``features``.
        """


class Head(ChosenByClass):
    """Base of the settings of all heads: which class of settings a model has says what looks along its scans."""

    @abstractmethod
    def build(self, in_features: int) -> SequenceHead | None:
        """The module of these settings; None if nothing looks along the scan.

        Args:
            in_features: Features per slice.
        """


@dataclass(frozen=True, kw_only=True)
class NoHead(Head):
    """Nothing looks along the scan, and each slice is judged alone: the 2D baseline."""

    def build(self, in_features: int) -> None:
        """No module."""


@dataclass(frozen=True, kw_only=True)
class ScanHead(Head):
    """Settings that every head has which looks along a scan; `ScanModel` uses them around the head's module.

    Args:
        output_dropout: Dropout before the last layer.
        reversal: Share of the scans in training that are read from top to bottom.
        encoder_residual: Add the encoder's own logits to the head's, through a learned gate per label, so that what the context
            cannot improve is not lost.
        encoder_probabilities: Concatenate the encoder's own probabilities to what enters the head, and again to what leaves it.
    """

    output_dropout: float = setting(0.0, free=True)
    reversal: float = setting(0.0, stage=True)
    encoder_residual: bool = True
    encoder_probabilities: bool = False

    @abstractmethod
    def build(self, in_features: int) -> SequenceHead:
        """The module of these settings.

        Args:
            in_features: Features per slice.
        """

    def __post_init__(self) -> None:
        require("head_out_of_range", "in [0, 1)", {} if 0 <= self.output_dropout < 1 else {"output_dropout": self.output_dropout})
        require("head_out_of_range", "in [0, 1]", {} if 0 <= self.reversal <= 1 else {"reversal": self.reversal})
