"""Models that were stored before settings had parts."""

import json
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from fabricated import TINY_GRU, make_classifier, make_sample

from ich_lstm import ScanClassifier
from ich_lstm.data.loading.batch import pack_scans
from ich_lstm.errors import CheckpointError
from ich_lstm.inference.older_settings import PLACES, up_to_date, with_parts
from ich_lstm.inference.predictor import Predictor
from ich_lstm.models.heads import LSTM, Head, NoHead
from ich_lstm.settings import from_stored, merged, to_stored
from ich_lstm.training.classifier import ClassifierSettings

FLAT = {
    "windows": [[40.0, 80.0], [80.0, 200.0]],
    "mean": [0.3],
    "std": [0.2],
    "quantize": True,
    "integer_windows": True,
    "learnable_windows": False,
    "backbone": "test_resnet",
    "pretrained": True,
    "global_pool": "max",
    "neighbours": 1,
    "encoder_dropout": 0.1,
    "encoder_classifier": True,
    "reduction": "linear",
    "reduced_features": 5,
    "reducer_slices": 100,
    "sequence": "gru",
    "hidden_size": 8,
    "num_layers": 1,
    "bidirectional": False,
    "sequence_norm": False,
    "projection": 6,
    "input_dropout": 0.2,
    "layer_dropout": 0.3,
    "recurrent_dropout": 0.4,
    "output_dropout": 0.5,
    "positions": "relative",
    "reversal": 0.25,
    "encoder_residual": False,
    "encoder_probabilities": True,
    "pooling": "feature-attention",
    "attention_size": 7,
    "scan_residual": True,
    "instance_pooling": True,
    "coherent_any": True,
    "max_slices": 64,
    "slice_loss": 0.9,
    "encoder_loss": 0.8,
    "scan_loss": 0.7,
    "instance_loss": 0.6,
    "any_weight": 3.0,
    "loss_mean": "labels",
    "optimizer": "adam",
    "learning_rate": 0.01,
    "encoder_learning_rate": 0.02,
    "window_learning_rate": 0.03,
    "weight_decay": 0.04,
    "epsilon": 0.05,
    "schedule": "constant",
    "warmup": 0.06,
    "ema": 0.9,
    "test_time": "flip",
}
"""All that a model of the flat settings was stored with, each with another value than its default."""

IN_PARTS = {
    "encoder": {
        "backbone": "test_resnet",
        "pretrained": True,
        "global_pool": "max",
        "adjacent_slices": 1,
        "dropout": 0.1,
        "classifier": True,
    },
    "windows": {
        "channels": [[40.0, 80.0], [80.0, 200.0]],
        "mean": [0.3],
        "std": [0.2],
        "quantize": True,
        "integer_widths": True,
        "learnable": False,
    },
    "reduction": {"kind": "linear", "features": 5, "slices": 100},
    "head": {
        "class_path": "GRU",
        "init_args": {
            "output_dropout": 0.5,
            "reversal": 0.25,
            "encoder_residual": False,
            "encoder_probabilities": True,
            "hidden_size": 8,
            "num_layers": 1,
            "bidirectional": False,
            "norm": False,
            "projection": 6,
            "input_dropout": 0.2,
            "layer_dropout": 0.3,
            "recurrent_dropout": 0.4,
            "positions": "relative",
        },
    },
    "pooling": {"kind": "feature-attention", "attention_size": 7, "encoder_residual": True, "instances": True},
    "coherent_any": True,
    "max_slices": 64,
    "loss": {"slice": 0.9, "encoder": 0.8, "scan": 0.7, "instance": 0.6, "any_weight": 3.0, "mean": "labels"},
    "optimizer": {
        "kind": "adam",
        "lr": 0.01,
        "encoder_lr": 0.02,
        "window_lr": 0.03,
        "weight_decay": 0.04,
        "epsilon": 0.05,
        "schedule": "constant",
        "warmup": 0.06,
    },
    "ema": 0.9,
    "test_time": "flip",
}


class TestUpToDate:
    def test_every_setting_comes_to_its_part(self) -> None:
        assert up_to_date(FLAT) == IN_PARTS

    def test_they_are_settings_of_today_and_all_of_them(self) -> None:
        in_parts = {**IN_PARTS, "encoder": {name: value for name, value in IN_PARTS["encoder"].items() if name != "pretrained"}}
        assert to_stored(from_stored(ClassifierSettings(), up_to_date(FLAT))) == in_parts  # what says how to run is not stored

    def test_every_place_exists(self) -> None:
        usual = ClassifierSettings()
        for part, field in PLACES.values():
            value = getattr(usual, part)
            assert is_dataclass(value)
            assert field in {each.name for each in fields(value)}

    @pytest.mark.parametrize(
        "settings", [IN_PARTS, {}, to_stored(ClassifierSettings()), to_stored(ClassifierSettings(head=NoHead()))]
    )
    def test_what_has_parts_already_stays(self, settings: dict[str, Any]) -> None:
        assert up_to_date(settings) == settings

    @pytest.mark.parametrize(("sequence", "head"), [("lstm", LSTM(hidden_size=8)), ("none", NoHead())])
    def test_the_head_is_the_class_that_was_named(self, sequence: str, head: Head) -> None:
        settings = {"sequence": sequence, "hidden_size": 8, "positions": "mm"}
        assert merged(ClassifierSettings(), up_to_date(settings)).head == head

    def test_an_unknown_name_is_left_for_others_to_refuse(self) -> None:
        assert up_to_date({"backbone": "resnet18", "unheard": 3}) == {"encoder": {"backbone": "resnet18"}, "unheard": 3}
        assert up_to_date({"sequence": "rnn", "hidden_size": 8})["head"]["class_path"] == "rnn"


def flatten(settings: dict[str, Any]) -> dict[str, Any]:
    """The flat settings that mean the same."""
    parts = {part: value.get("init_args", value) if isinstance(value, dict) else {} for part, value in settings.items()}
    flat = {name: parts[part][field] for name, (part, field) in PLACES.items() if field in parts.get(part, {})}
    head = {"LSTM": "lstm", "GRU": "gru", "NoHead": "none"}[settings["head"]["class_path"]]
    return {**flat, "sequence": head, **{name: value for name, value in settings.items() if not isinstance(value, dict)}}


@pytest.mark.parametrize("oldest", [False, True])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"head": TINY_GRU, "pooling": {"kind": "max", "encoder_residual": True}, "windows": {"channels": [(50, 100)]}},
        {"head": NoHead(), "encoder": {"adjacent_slices": 1}, "test_time": "flip"},
    ],
    ids=["lstm", "gru", "none"],
)
def test_a_model_that_was_stored_flat_is_the_same_model(changes: dict[str, Any], oldest: bool, tmp_path: Path) -> None:
    classifier = make_classifier(**changes)
    classifier.save_pretrained(tmp_path)
    about = json.loads((tmp_path / "model.json").read_text())
    del about["checksum"]  # those versions wrote none
    about["settings"] = flatten(about["settings"])
    # By their names of then; the first versions did not say which they were.
    about["of_training"] = (
        None if oldest else [*(name for name in FLAT if PLACES.get(name, ("",))[0] in ("loss", "optimizer")), "ema", "test_time"]
    )
    (tmp_path / "model.json").write_text(json.dumps(about))
    assert "backbone" in about["settings"]
    again, predictor = ScanClassifier.load(tmp_path), Predictor.load(tmp_path)
    assert again.settings == classifier.settings
    assert predictor.test_time == classifier.settings.test_time
    batch = pack_scans([make_sample(4), make_sample(7)])
    with torch.inference_mode():
        expected = classifier.eval()(batch)
        for model in (again.model, predictor.model):
            for got, wanted in zip(model(batch.hu, batch.lengths, batch.positions_mm), expected, strict=True):
                assert got is None or torch.equal(got, wanted)


def test_a_setting_that_nobody_knows_is_still_refused(tmp_path: Path) -> None:
    make_classifier().save_pretrained(tmp_path)
    about = json.loads((tmp_path / "model.json").read_text())
    about["settings"]["unheard"] = 1
    del about["checksum"]
    (tmp_path / "model.json").write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match="unheard"):
        Predictor.load(tmp_path)
    about["of_training"] = [*about["of_training"], "unheard"]  # of a newer version's training
    (tmp_path / "model.json").write_text(json.dumps(about))
    assert Predictor.load(tmp_path).name == "test_resnet"


def test_the_records_of_fits_too() -> None:
    about = {
        "settings": FLAT,
        "fits": [{"stage": "joint", "settings": {"learning_rate": 0.1, "batch_norm": "frozen"}}],
        "name": "a",
    }
    assert with_parts(about) == {
        "settings": IN_PARTS,
        "fits": [{"stage": "joint", "settings": {"optimizer": {"lr": 0.1}, "encoder": {"batch_norm": "frozen"}}}],
        "name": "a",
    }
    assert with_parts({"settings": None, "fits": None}) == {"settings": None, "fits": None}
