"""Warm start: a training starts from the network and preprocessing of an existing model, but not from its training settings."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from ich_lstm.models.scan_model import ModelSettings
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.settings import differences, merged, refuse_differences, to_stored
from ich_lstm.training.classifier import ClassifierSettings, ScanClassifier, check_same_network


def adopted(start: ScanClassifier) -> dict[str, Any]:
    """The settings of the network and the preprocessing that a warm start adopts, by key of ich-train.

    Args:
        start: The model to start from.
    """
    stored = to_stored(start.settings)
    keys = {f"model.{each.name}": stored[each.name] for each in fields(ModelSettings) if each.name != "encoder"}
    keys |= {f"model.encoder.{name}": value for name, value in stored["encoder"].items()}
    prepared = {} if start.preprocessing is None else {"data.preprocessing": start.preprocessing.to_dict()}
    return {**keys, "model.encoder.pretrained": False, **prepared}


def with_weights_of(
    start: ScanClassifier, settings: ClassifierSettings, requested: Preprocessing | None, path: Path
) -> ClassifierSettings:
    """Check that a warm start asks for the network and the preprocessing of its model.

    Args:
        start: The model to start from.
        settings: The requested settings.
        requested: The requested preprocessing; None if nothing is requested.
        path: Path of the model.

    Returns:
        The settings without pretrained weights, because the weights come from the model.

    Raises:
        ConfigError: ``other_network``, if the requested network or preprocessing differs from the model's.
    """
    settings = merged(settings, {"encoder": {"pretrained": False, "pretrained_file": None}})
    check_same_network(start.settings, settings, where="model.", whose=path.name)
    if start.preprocessing is not None and requested is not None:
        refuse_differences(
            "other_network",
            differences(start.preprocessing, requested),
            where="data.preprocessing.",
            whose=f"as in {path.name}",
            todo="Leave data.preprocessing out, or train without --checkpoint.",
        )
    return settings
