"""Warm start: a training takes over the network and preprocessing of an existing model, but not its training settings."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ich_lstm.errors import ConfigError
from ich_lstm.models.scan_model import ModelSettings
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.settings import differences, merged, to_stored
from ich_lstm.training.classifier import ClassifierSettings, ScanClassifier, check_same_network


def adopted(start: ScanClassifier) -> dict[str, Any]:
    """What a training takes over of a model, by key of ich-train: its network, and how scans are prepared for it.

    Args:
        start: The model to begin with.
    """
    stored = to_stored(start.settings)
    keys = {f"model.{each.name}": stored[each.name] for each in fields(ModelSettings) if each.name != "encoder"}
    keys |= {f"model.encoder.{name}": value for name, value in stored["encoder"].items()}
    prepared = {} if start.preprocessing is None else {"data.preprocessing": start.preprocessing.to_dict()}
    return {**keys, "model.encoder.pretrained": False, **prepared}


def with_weights_of(start: ScanClassifier, settings: ClassifierSettings, data: Namespace, path: Path) -> ClassifierSettings:
    """The settings of a training that begins with a model.

    Args:
        start: The model.
        settings: What is asked for.
        data: The configuration of the data; what it leaves out becomes the model's.
        path: Of the model.

    Returns:
        The settings, with weights that are the model's.

    Raises:
        ConfigError: ``other_network``, if another network or preprocessing is asked for than the model's.
    """
    settings = merged(settings, {"encoder": {"pretrained": False, "pretrained_file": None}})
    check_same_network(start.settings, settings, where="model.", whose=path.name)
    if start.preprocessing is not None:
        asked = start.preprocessing if data.preprocessing is None else Preprocessing(**data.preprocessing.as_dict())
        found = list(differences(asked, start.preprocessing))
        if found:
            raise ConfigError(
                "other_network",
                where=", ".join(f"data.preprocessing.{each.name}" for each in found),
                got=", ".join(str(each.before) for each in found),
                expected=f"{', '.join(str(each.after) for each in found)}, as in {path.name}",
                todo="Leave data.preprocessing out, or begin without --checkpoint.",
            )
        data.preprocessing = Namespace(start.preprocessing.to_dict())
    return settings
