"""An engine runs the encoder on windowed slices; `EngineChoice` says which one the user wants."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from ich_lstm.models.encoder import SliceEncoder
from ich_lstm.models.scan_model import EncoderRun
from ich_lstm.settings import require_choice

EngineName = Literal["torch", "openvino"]
EngineOrAuto = Literal["auto", "torch", "openvino"]
Precision = Literal["float32", "bfloat16"]
PrecisionOrAuto = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """Which engine predicts, and in which precision.

    Args:
        engine: ``torch``, ``openvino``, or ``auto``: OpenVINO where it is installed and the model is on a CPU, otherwise torch.
        precision: ``float32``, ``bfloat16``, or ``auto``: on a CPU that computes in bfloat16 by itself, bfloat16; otherwise
            float32. The sequence head always runs in float32.

    Raises:
        ConfigError: If a value is unknown.
    """

    engine: EngineOrAuto = "auto"
    precision: PrecisionOrAuto = "auto"

    def __post_init__(self) -> None:
        require_choice("unknown_engine", "engine", self.engine, EngineOrAuto)
        require_choice("unknown_precision", "precision", self.precision, PrecisionOrAuto)


class Engine(NamedTuple):
    """A way to run the encoder.

    Args:
        name: The engine.
        precision: Its precision.
        run: Runs the encoder on a chunk of slices.
    """

    name: EngineName
    precision: Precision
    run: EncoderRun

    @property
    def is_reference(self) -> bool:
        """Whether this is torch in float32, by which all others are judged."""
        return (self.name, self.precision) == ("torch", "float32")


def torch_engine(encoder: SliceEncoder, precision: Precision) -> Engine:
    """The network itself.

    Args:
        encoder: The encoder.
        precision: ``bfloat16`` runs it under autocast; the weights stay as they are.
    """
    if precision == "float32":
        return Engine("torch", precision, encoder)

    def run(x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, torch.bfloat16):
            return encoder(x)

    return Engine("torch", precision, run)
