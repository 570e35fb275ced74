"""The encoder as an OpenVINO graph, for Intel and AMD CPUs."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ich_lstm.errors import ConfigError
from ich_lstm.inference.engines.engine import Engine, Precision
from ich_lstm.lazy import without_module
from ich_lstm.models.encoder import SliceEncoder
from ich_lstm.models.scan_model import INFERENCE_SLICES_PER_CHUNK

SLICES = INFERENCE_SLICES_PER_CHUNK["cpu"]
"""Slices that the graph takes at a time. Their number is fixed, because graphs of any number are slower; a chunk with fewer is
filled up with copies."""

HINTS = {"float32": "f32", "bfloat16": "bf16"}


def has_openvino() -> bool:
    """Whether OpenVINO is installed; it is not imported."""
    return find_spec("openvino") is not None


def openvino_engine(encoder: SliceEncoder, precision: Precision) -> Engine:
    """The encoder as OpenVINO compiles it on first use, once for each size of the input.

    Args:
        encoder: The encoder, on the CPU and in evaluation mode.
        precision: The precision in which OpenVINO computes.

    Raises:
        ConfigError: ``no_openvino``, if it is not installed; on first use ``engine_cannot_run``.
    """
    if not has_openvino():
        raise ConfigError(
            "no_openvino",
            where="engine",
            got="openvino, which is not installed",
            expected="an installed engine",
            todo='Install it: pip install "ich_lstm[openvino]"; or choose the engine torch.',
        )
    return Engine("openvino", precision, _Compiled(encoder, precision))


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


def _compile(encoder: SliceEncoder, shape: tuple[int, ...], precision: Precision) -> Any:
    """Compile an encoder in evaluation mode for one shape of its input."""
    hints = {
        "INFERENCE_PRECISION_HINT": HINTS[precision],
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": torch.get_num_threads(),
    }
    try:
        with torch.no_grad(), without_module("openvino_telemetry"):  # it would send statistics of use to a server
            import openvino

            graph = openvino.convert_model(torch.export.export(encoder, (torch.zeros(shape),)), input=[list(shape)])
            return openvino.Core().compile_model(graph, "CPU", hints)
    except Exception as error:  # the exporter, the converter and the compiler raise many kinds
        raise ConfigError(
            "engine_cannot_run",
            where="engine",
            got=f"openvino, which cannot run this model: {(str(error).splitlines() or [type(error).__name__])[0]}",
            expected="an engine that can",
            todo="Choose the engine torch.",
        ) from error
