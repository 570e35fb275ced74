"""Warm start: a training takes over the network and preprocessing of an existing model, but not its training settings."""

from pathlib import Path
from typing import Any

from jsonargparse import ArgumentParser, Namespace

from ich_lstm.errors import ConfigError
from ich_lstm.models.scan_model import CHANGEABLE
from ich_lstm.training.classifier import ScanClassifier


def adopt_checkpoint(path: Path, config: Namespace, parser: ArgumentParser) -> ScanClassifier:
    """Read the model, and put its network and preprocessing into the configuration.

    Of `CHANGEABLE` settings, the configuration's count where it has them.

    Args:
        path: A run's folder, a model's folder, a ``.ckpt``, or released weights.
        config: Of ich-train; changed in place.
        parser: Its parser, which knows the defaults.

    Raises:
        CheckpointError: If there is no model.
        ConfigError: If the configuration asks for another network or preprocessing than the model's.
    """
    start = ScanClassifier.load(path)
    defaults = parser.get_defaults()
    for name, value in start.model.settings.items():
        if name in ("pretrained", *CHANGEABLE):
            continue
        _adopt(config.model, defaults.model, name, value, f"model.{name}", path)
    for name in CHANGEABLE:
        if config.model[name] == defaults.model[name]:
            config.model[name] = start.model.settings[name]
    config.model.pretrained = False
    config.model.pretrained_file = None
    if start.preprocessing is not None:
        for name, value in start.preprocessing.to_dict().items():
            _adopt(config.data, defaults.data, name, value, f"data.{name}", path)
    return start


def _adopt(section: Namespace, defaults: Namespace, name: str, value: Any, key: str, path: Path) -> None:
    given = section[name]
    if _plain(given) not in (_plain(value), _plain(defaults[name])):
        raise ConfigError(
            "other_network",
            where=key,
            got=str(_plain(given)),
            expected=f"{_plain(value)}, as in {path.name}",
            todo=f"Leave {key} out, or begin without --checkpoint.",
        )
    section[name] = value


def _plain(value: Any) -> Any:
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value
