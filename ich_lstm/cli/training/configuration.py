"""The configuration of ich-train: its parser, and suggestions for keys that do not exist."""

import difflib
import re
from argparse import ArgumentError
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Literal

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace
from jsonargparse.typing import PositiveFloat
from pytorch_lightning import Trainer

from ich_lstm.cli.training.monitoring.logs import WandbMode
from ich_lstm.cli.training.planning import AUTO, PLAN_MINUTES
from ich_lstm.data.datamodule import ScanDataModule
from ich_lstm.data.loading.batches import Batches
from ich_lstm.errors import ConfigError
from ich_lstm.inference.older_settings import PLACES
from ich_lstm.models.encoder import Encoder
from ich_lstm.models.heads import Head
from ich_lstm.phantom import PhantomSettings
from ich_lstm.training.classifier import ClassifierSettings

DEFAULT_SEED = 1

TRAINER_DEFAULTS = {"enable_model_summary": False, "num_sanity_val_steps": 0, "log_every_n_steps": 1}

Slices = int | Literal["auto"]

DATA_PLACES = {
    **{name: f"preprocessing.{name}" for name in ("size", "crop", "clip")},
    **{name: f"batches.{name}" for name in ("slices_per_sample", "sample", "balance", "cutmix")},
    "slices_per_batch": "batches.slices",
    "scans_per_batch": "batches.scans",
    "split_by": "split.by",
    "split_seed": "split.seed",
    "split_file": "split.file",
    "folds": "split.folds",
    "fold": "split.fold",
}
"""The present place of data settings that older versions kept in one flat mapping, for suggestions in errors."""


def make_parser(defaults: Mapping[str, Any]) -> ArgumentParser:
    """Make the parser of all keys.

    Args:
        defaults: Default values by key that override the library's, for example those of the model of a warm start.
    """
    parser = ArgumentParser(prog="ich-train", exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action=ActionConfigFile, help="A recipe, or a YAML file; later ones override earlier ones.")
    parser.add_argument("--seed_everything", type=int, default=DEFAULT_SEED, help="Seed of the weights, order and augmentation.")
    parser.add_argument("--out", type=Path | None, default=None, help="Folder of the run.")
    parser.add_argument("--checkpoint", type=Path | None, default=None, help="Model of a warm start.")
    parser.add_argument("--checkpoint_minutes", type=PositiveFloat, default=15.0, help="Longest time between two checkpoints.")
    parser.add_argument("--plan", type=bool, nargs="?", const=True, default=False, help="Only find how many slices fit.")
    parser.add_argument("--plan_minutes", type=PositiveFloat, default=PLAN_MINUTES, help="Time limit of --plan and auto.")
    parser.add_argument(
        "--stages", type=dict[str, dict[str, Any]] | None, default=None, help="Stages by name, in their order; see Stage."
    )
    parser.add_argument("--wandb", type=WandbMode | None, default=None, help="Log to Weights & Biases too.")
    parser.add_argument("--tensorboard", type=bool, default=False, help="Log for TensorBoard too.")
    parser.add_argument("--phantom", type=PhantomSettings | None, default=None, help="Synthetic heads to train on.")
    # --seed_everything sets the seed of the data too. Numbers of slices are declared here, because only ich-train knows "auto".
    parser.add_class_arguments(ScanDataModule, "data", skip={"seed", "batches"}, instantiate=False)
    parser.add_class_arguments(Batches, "data.batches", skip={"slices"}, instantiate=False)
    parser.add_argument("--data.batches.slices", type=Slices, default=Batches.slices, help=f"Most slices in a batch, or {AUTO}.")
    parser.add_class_arguments(ClassifierSettings, "model", skip={"encoder"}, instantiate=False)
    parser.add_class_arguments(Encoder, "model.encoder", skip={"slices_per_chunk"}, instantiate=False)
    parser.add_argument(
        "--model.encoder.slices_per_chunk",
        type=Slices | None,
        default=None,
        help=f"Train in chunks of at most this many slices, or {AUTO}.",
    )
    # default_root_dir is skipped, because every stage has its own folder.
    parser.add_class_arguments(Trainer, "trainer", skip={"default_root_dir"}, instantiate=False)
    parser.set_defaults({**{f"trainer.{name}": value for name, value in TRAINER_DEFAULTS.items()}, **defaults})
    return parser


def parse(parser: ArgumentParser, arguments: list[str]) -> Namespace:
    """Parse a command line.

    Args:
        parser: Result of `make_parser`.
        arguments: Command line in which paths have replaced the names of recipes.

    Raises:
        ConfigError: ``bad_configuration``, if a key is unknown or has an invalid value.
    """
    try:
        return parser.parse_args(arguments)
    except ArgumentError as error:
        todo = "ich-train --help=full lists every key."
        near = _nearest(parser, str(error))
        raise ConfigError(
            "bad_configuration",
            where="configuration",
            got=" ".join(str(error).split()),
            todo=f"Did you mean {near}? {todo}" if near else todo,
        ) from error


def _nearest(parser: ArgumentParser, message: str) -> str | None:
    """The key, or the class, that is most similar to the unknown one in an error message of jsonargparse."""
    if of_class := re.search(r"Expected a dot import path string: (\w+)", message):
        return next(iter(difflib.get_close_matches(of_class[1], Head.choices(), n=1)), " or ".join(Head.choices()))
    in_group = re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message)
    in_class = re.search(r'key "([\w.]+)":.*Option \'([\w.]+)\' is not accepted', message, re.DOTALL)
    alone = re.search(r"(?:unrecognized arguments: --|[Kk]ey ')([\w.]+)", message)
    found = in_group or in_class or alone
    if found is None:
        return None
    unknown = ".".join(found.groups())
    keys = [action.dest for action in parser._actions]
    keys += [f"model.head.{each.name}" for head in Head.choices().values() for each in fields(head)]  # type: ignore[arg-type]
    called = {f"model.{old}": f"model.{part}.{field}" for old, (part, field) in PLACES.items()}
    called |= {f"data.{old}": f"data.{place}" for old, place in DATA_PLACES.items()}
    called |= {"model.sequence": "model.head"} | {key: key for key in keys}
    # A key with exactly this name elsewhere in the section is a better suggestion than a key with a similar spelling.
    section, _, name = unknown.partition(".")
    same = [key for key in keys if key.startswith(f"{section}.") and key.endswith(f".{name}")]
    near = difflib.get_close_matches(unknown, called, n=1, cutoff=0.5)
    nearest = called[unknown] if unknown in called else same[0] if same else called[near[0]] if near else None
    return None if nearest == unknown else nearest  # a key that exists for another head class, for example
