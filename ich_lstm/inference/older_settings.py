"""Converts the settings of models that were stored when all settings stood in one flat mapping."""

from collections.abc import Mapping
from typing import Any

PLACES = {
    "windows": ("windows", "channels"),
    "mean": ("windows", "mean"),
    "std": ("windows", "std"),
    "quantize": ("windows", "quantize"),
    "integer_windows": ("windows", "integer_widths"),
    "learnable_windows": ("windows", "learnable"),
    "backbone": ("encoder", "backbone"),
    "pretrained": ("encoder", "pretrained"),
    "global_pool": ("encoder", "global_pool"),
    "neighbours": ("encoder", "adjacent_slices"),
    "encoder_dropout": ("encoder", "dropout"),
    "encoder_classifier": ("encoder", "classifier"),
    "batch_norm": ("encoder", "batch_norm"),
    "slices_per_chunk": ("encoder", "slices_per_chunk"),
    "reduction": ("reduction", "kind"),
    "reduced_features": ("reduction", "features"),
    "reducer_slices": ("reduction", "slices"),
    "hidden_size": ("head", "hidden_size"),
    "num_layers": ("head", "num_layers"),
    "bidirectional": ("head", "bidirectional"),
    "sequence_norm": ("head", "norm"),
    "projection": ("head", "projection"),
    "input_dropout": ("head", "input_dropout"),
    "layer_dropout": ("head", "layer_dropout"),
    "recurrent_dropout": ("head", "recurrent_dropout"),
    "output_dropout": ("head", "output_dropout"),
    "positions": ("head", "positions"),
    "reversal": ("head", "reversal"),
    "encoder_residual": ("head", "encoder_residual"),
    "encoder_probabilities": ("head", "encoder_probabilities"),
    "pooling": ("pooling", "kind"),
    "attention_size": ("pooling", "attention_size"),
    "scan_residual": ("pooling", "encoder_residual"),
    "instance_pooling": ("pooling", "instances"),
    "slice_loss": ("loss", "slice"),
    "encoder_loss": ("loss", "encoder"),
    "scan_loss": ("loss", "scan"),
    "instance_loss": ("loss", "instance"),
    "any_weight": ("loss", "any_weight"),
    "loss_mean": ("loss", "mean"),
    "optimizer": ("optimizer", "kind"),
    "learning_rate": ("optimizer", "lr"),
    "encoder_learning_rate": ("optimizer", "encoder_lr"),
    "window_learning_rate": ("optimizer", "window_lr"),
    "weight_decay": ("optimizer", "weight_decay"),
    "epsilon": ("optimizer", "epsilon"),
    "schedule": ("optimizer", "schedule"),
    "warmup": ("optimizer", "warmup"),
}
"""For each name in the flat mapping, the part and the field that hold the setting today. Other names have not changed."""

HEADS = {"lstm": "LSTM", "gru": "GRU", "none": "NoHead"}


def with_parts(about: Mapping[str, Any]) -> dict[str, Any]:
    """Convert the metadata of a stored model, so that its settings and those of its fits are nested in parts.

    Args:
        about: Metadata of a model of any version, as in ``model.json``.

    Returns:
        A copy in today's form.
    """
    new = dict(about)
    if isinstance(new.get("settings"), Mapping):
        new["settings"] = up_to_date(new["settings"])
    if new.get("of_training"):
        new["of_training"] = sorted({PLACES[name][0] if name in PLACES else name for name in new["of_training"]})
    if new.get("fits"):
        new["fits"] = [{**fit, "settings": up_to_date(fit.get("settings") or {})} for fit in new["fits"]]
    return new


def up_to_date(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Convert settings to parts, the form in which they are stored today.

    Args:
        settings: Settings as any version has stored them.

    Returns:
        Settings in parts; a copy of the given ones if they are in parts already.

    Example:
        >>> up_to_date({"backbone": "resnet18", "sequence": "gru", "hidden_size": 64, "max_slices": None})
        {'encoder': {'backbone': 'resnet18'}, 'head': {'class_path': 'GRU', 'init_args': {'hidden_size': 64}}, 'max_slices': None}
    """
    if not any(name in PLACES and not isinstance(value, Mapping) for name, value in settings.items()):
        return dict(settings)
    parts: dict[str, Any] = {}
    for name, value in settings.items():
        if name in PLACES:
            part, field = PLACES[name]
            parts.setdefault(part, {})[field] = value
        elif name != "sequence":
            parts[name] = value
    if "sequence" in settings:
        kind = HEADS.get(settings["sequence"], settings["sequence"])
        parts["head"] = {"class_path": kind, "init_args": {} if kind == "NoHead" else parts.get("head", {})}
    return parts
