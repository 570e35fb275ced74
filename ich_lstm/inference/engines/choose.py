"""Chooses the engine of a model: the fastest that agrees with torch in float32 on the model's first scan on this machine."""

import json
import math
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from ich_lstm.errors import ConfigError
from ich_lstm.files.atomic_write import write_text
from ich_lstm.inference.engines.engine import Engine, EngineChoice, EngineName, Precision, torch_engine
from ich_lstm.inference.engines.openvino import has_openvino, openvino_engine
from ich_lstm.models.encoder import SliceEncoder
from ich_lstm.models.execution.bfloat16 import has_bfloat16
from ich_lstm.printable import printable_logger

logger = printable_logger(__name__)

LARGEST_DIFFERENCE = 0.005
"""An engine is used if no probability of the first scan, of a slice or of the scan, differs by more from that in float32."""

CHECKS = "engines.json"


class Chosen(NamedTuple):
    """An engine, and how far it is from float32.

    Args:
        engine: The engine.
        difference: The largest difference in probability on the scan that it was checked on; 0 for torch in float32.
    """

    engine: Engine
    difference: float

    def to_dict(self) -> dict[str, Any]:
        """For records: ``name``, ``precision`` and ``largest_difference``."""
        return {"name": self.engine.name, "precision": self.engine.precision, "largest_difference": self.difference}


class Engines:
    """The engine of a network, which is chosen on its first scan, and again when weights or device change.

    Args:
        choice: Which engine the user wants.
    """

    def __init__(self, choice: EngineChoice = EngineChoice()) -> None:  # noqa: B008  (frozen)
        self.choice = choice
        self._known: tuple[tuple[str, str], Chosen] | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles choose anew, because an engine holds the network that it runs, or a compiled form of it."""
        return {"choice": self.choice, "_known": None}

    def of(self, encoder: SliceEncoder, weights: str, device_type: str, measure: Callable[[Engine], float]) -> Chosen:
        """Give the engine of an encoder.

        Args:
            encoder: The encoder.
            weights: Hash of the network's weights.
            device_type: torch's name of the kind of device that it is on.
            measure: Predicts a scan with an engine and with torch in float32, and gives the largest difference in probability.

        Raises:
            ConfigError: If the wanted engine is not installed, cannot run this model or on this device, or differs too much
                (``engine_disagrees``).
        """
        state = (weights, device_type)
        if self._known is None or self._known[0] != state:
            self._known = state, self._choose(encoder, weights, device_type, measure)
        return self._known[1]

    @property
    def chosen(self) -> Chosen | None:
        """What was chosen last; None before the first scan."""
        return None if self._known is None else self._known[1]

    def _choose(self, encoder: SliceEncoder, weights: str, device_type: str, measure: Callable[[Engine], float]) -> Chosen:
        failed = ""
        for name, precision in _candidates(self.choice, device_type):
            engine = openvino_engine(encoder, precision) if name == "openvino" else torch_engine(encoder, precision)
            if engine.is_reference:
                return Chosen(engine, 0.0)
            try:
                difference = _checked(engine, weights, measure)
            except ConfigError as error:
                if error.code != "engine_cannot_run" or self.choice.engine == name:
                    raise
                logger.warning("not used: %s", error.got)
                continue
            if difference <= LARGEST_DIFFERENCE:
                return Chosen(engine, difference)
            failed = f"{name} in {precision}, whose probabilities differ by up to {difference:.3g} from those in float32"
            logger.warning("not used: %s", failed)
        # Only without torch in float32 among the candidates, so that something else was asked for.
        raise ConfigError(
            "engine_disagrees",
            where="engine, precision",
            got=failed,
            expected=f"a difference of at most {LARGEST_DIFFERENCE}",
            todo="Choose the precision float32 with the engine torch, or leave both out.",
        )


def _candidates(choice: EngineChoice, device_type: str) -> Iterator[tuple[EngineName, Precision]]:
    """Engines that the choice allows, the fastest first; the last one is torch, unless another one was asked for."""
    if choice.engine == "openvino" and device_type != "cpu":
        raise ConfigError(
            "engine_needs_cpu",
            where="engine",
            got=f"openvino, and a model on {device_type}",
            expected="a model on the CPU",
            todo="Choose the device cpu, or the engine torch.",
        )
    names: list[EngineName] = ["torch"] if choice.engine == "auto" else [choice.engine]
    if choice.engine == "auto" and device_type == "cpu" and has_openvino():
        names.insert(0, "openvino")
    precisions: list[Precision] = ["float32"] if choice.precision == "auto" else [choice.precision]
    if choice.precision == "auto" and device_type == "cpu" and has_bfloat16("cpu"):
        precisions.insert(0, "bfloat16")
    # Of one precision first, because OpenVINO in float32 is slower than torch in bfloat16.
    yield from ((name, precision) for precision in precisions for name in names)


def _checked(engine: Engine, weights: str, measure: Callable[[Engine], float]) -> float:
    """How far an engine is from float32 on the first scan of these weights on this machine, which is measured once."""
    path, key = _file(), " ".join((weights, engine.name, engine.precision, *_versions(engine.name), _machine()))
    known = _read(path)
    if key in known:
        return known[key]
    difference = measure(engine)
    if not math.isfinite(difference):  # of this scan, whose numbers say nothing about the next one
        return difference
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps({**_read(path), key: difference}, indent=1) + "\n")
    except OSError:
        logger.info("the check of %s could not be stored in %s, so the next command repeats it", engine.name, path)
    return difference


def _file() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("ich_lstm") / CHECKS


def _read(path: Path) -> dict[str, float]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {str(key): float(value) for key, value in found.items() if isinstance(value, int | float)}


def _versions(name: EngineName) -> list[str]:
    from importlib.metadata import version

    return [f"torch-{torch.__version__}", *([f"openvino-{version('openvino')}"] if name == "openvino" else [])]


def _machine() -> str:
    return f"{platform.machine()}-{torch.backends.cpu.get_cpu_capability()}".replace(" ", "-")
