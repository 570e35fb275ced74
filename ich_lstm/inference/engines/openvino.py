"""The encoder as an OpenVINO graph, for Intel and AMD CPUs."""

import sys
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ich_lstm.errors import ConfigError
from ich_lstm.inference.engines.engine import Engine, Precision
from ich_lstm.models.encoder import SliceEncoder
from ich_lstm.printable import printable_logger

logger = printable_logger(__name__)

SLICES = 8
"""Slices that the graph takes at a time. Their number is fixed, because graphs of any number are slower; a chunk with fewer is
filled up with copies."""

HINTS = {"float32": "f32", "bfloat16": "bf16"}


def has_openvino() -> bool:
    """Whether OpenVINO is installed; it is not imported."""
    return find_spec("openvino") is not None


def openvino_engine(encoder: SliceEncoder, precision: Precision) -> Engine:
    """The encoder as OpenVINO compiles it on first use, once for each size of the input.

    Args:
        encoder: The encoder, on the CPU.
        precision: The precision in which OpenVINO computes.

    Raises:
        ConfigError: ``no_openvino``, if it is not installed.
    """
    if not has_openvino():
        raise ConfigError(
            "no_openvino",
            where="engine",
            got="openvino, which is not installed",
            expected="an installed engine",
            todo='Install it: pip install "ich_lstm[openvino]"; or choose the engine torch.',
        )
    return Engine("openvino", precision, _Compiled(encoder, precision), SLICES)


class _Compiled:
    """Graphs of one encoder, compiled when they are first needed."""

    def __init__(self, encoder: SliceEncoder, precision: Precision) -> None:
        self.encoder, self.precision = encoder, precision
        self._graphs: dict[tuple[int, ...], Any] = {}

    def __call__(self, x: Tensor) -> Tensor:
        shape = (SLICES, *x.shape[1:])
        if shape not in self._graphs:
            self._graphs[shape] = _compile(self.encoder, shape, self.precision)
        count = len(x)
        filled = x if count == SLICES else torch.cat([x, x[-1:].expand(SLICES - count, *x.shape[1:])])
        (features,) = self._graphs[shape]([np.ascontiguousarray(filled.float().numpy())]).values()
        return torch.from_numpy(features[:count].copy())


def _compile(encoder: nn.Module, shape: tuple[int, ...], precision: Precision) -> Any:
    openvino = _import_openvino()
    was_training = encoder.training
    traced = encoder.eval()  # the graph is that of evaluation
    try:
        with torch.no_grad():
            graph = openvino.convert_model(torch.export.export(traced, (torch.zeros(shape),)), input=[list(shape)])
    finally:
        encoder.train(was_training)
    return openvino.Core().compile_model(
        graph,
        "CPU",
        {
            "INFERENCE_PRECISION_HINT": HINTS[precision],
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
        },
    )


def _import_openvino() -> Any:
    """Import OpenVINO without its telemetry, which would send statistics of use to a server."""
    if "openvino_telemetry" not in sys.modules:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # with None here, Python raises ImportError
    import openvino

    return openvino
