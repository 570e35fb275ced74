"""The configuration of ich-train: its parser, and suggestions for keys that do not exist."""

import difflib
import re
from argparse import ArgumentError
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import fields, is_dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from jsonargparse import ActionConfigFile, ArgumentParser, Namespace
from jsonargparse.typing import PositiveFloat
from pytorch_lightning import Trainer
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger

from ich_lstm.cli.training.monitoring.logs import WandbMode
from ich_lstm.cli.training.planning import AUTO, PLAN_MINUTES
from ich_lstm.data.datamodule import ScanDataModule
from ich_lstm.data.loading.batches import Batches
from ich_lstm.errors import ConfigError
from ich_lstm.files.untrusted import read_yaml, shown
from ich_lstm.inference.older_settings import PLACES
from ich_lstm.models.encoder import Encoder
from ich_lstm.models.heads import Head
from ich_lstm.phantom import PhantomSettings
from ich_lstm.training.classifier import ClassifierSettings

DEFAULT_SEED = 1

TRAINER_DEFAULTS = {"enable_model_summary": False, "num_sanity_val_steps": 0, "log_every_n_steps": 1}

Slices = int | Literal["auto"]

TRUST = "--trust-config"
"""Option that allows YAML files to name any class."""

PACKAGES = ("ich_lstm", "pytorch_lightning", "lightning_fabric")
"""Packages whose classes a YAML file may name. Lightning offers classes of lightning_fabric under its own name."""

LOCAL_LOGGERS = (CSVLogger, TensorBoardLogger)
"""Lightning's loggers that only write files. The others send what they log to a service, which the file may choose."""

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
        ConfigError: ``bad_configuration``, if a key is unknown or has an invalid value. ``unreadable_config`` or
            ``untrusted_config``, if a YAML file cannot be read safely, or names code without ``--trust-config``.
    """
    is_trusted = TRUST in arguments
    arguments = [word for word in arguments if word != TRUST]
    for path in _config_files(arguments):
        _check_file(parser, path, is_trusted=is_trusted)
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


def _config_files(arguments: list[str]) -> Iterator[Path]:
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        option, has_value, value = word.partition("=")
        if option == "--config":
            yield Path(value if has_value else following)


def _check_file(parser: ArgumentParser, path: Path, *, is_trusted: bool) -> None:
    """Check a YAML file before jsonargparse reads it, which imports every class that the file names.

    A config is a command line: it may name your files and folders. Only classes run code.

    Raises:
        ConfigError: ``unreadable_config``, or ``untrusted_config`` if the file names a class from outside of this library and
            Lightning, or another configuration file.
    """
    try:
        content = read_yaml(path)
    except (OSError, ValueError) as error:
        raise ConfigError(
            "unreadable_config",
            where=str(path),
            got=str(error),
            expected="a YAML file of settings, with neither tags nor aliases",
            todo="ich-train --help=full lists every key.",
        ) from error
    if is_trusted or not isinstance(content, dict):
        return
    actions = {action.dest: action for action in parser._actions if not action.dest.endswith(".help")}
    kinds = {key: kinds for key, action in actions.items() if (kinds := _classes_in(getattr(action, "_typehint", None)))}
    every = {kind for found in kinds.values() for kind in found}
    groups = {key.rsplit(".", cut)[0] for key in actions for cut in range(1, key.count(".") + 1)}
    for key, value in _leaves(content):
        if not isinstance(value, str):
            continue
        place = next((name for name in kinds if key == name or key.startswith(f"{name}.")), None)
        names_class = key.split(".")[-1] == "class_path" or key == place
        if key in groups or key == "config":
            raise _not_trusted(path, key, value, "settings in the same file")
        if names_class and not _is_known(value, every):
            raise _not_trusted(path, key, value, "a class of ich_lstm, or one of pytorch_lightning that connects to no service")
        if place is not None and not names_class and _is_importable(value):
            raise _not_trusted(path, key, value, "a value that is not the name of code")


def _not_trusted(path: Path, key: str, value: str, expected: str) -> ConfigError:
    todo = f"Read the file. If you trust its author, whose code would run, repeat the command with {TRUST}."
    return ConfigError("untrusted_config", where=f"{path}, {key}", got=shown(value), expected=expected, todo=todo)


def _leaves(values: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """All values in nested mappings and lists, with their keys joined by dots; items of a list have the key of the list."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield from _leaves(value, f"{key}.{str(name).removesuffix('+')}".removeprefix("."))
    elif isinstance(values, list):
        for value in values:
            yield from _leaves(value, key)
    else:
        yield key, values


def _classes_in(hint: Any) -> set[type[Any]]:
    """The classes of which an option may name a subclass, by its type."""
    if get_origin(hint) is not None:
        return {kind for each in get_args(hint) for kind in _classes_in(each)}
    is_chosen = isinstance(hint, type) and hint.__module__.split(".")[0] in PACKAGES and not is_dataclass(hint)
    return {hint} if is_chosen else set()


def _is_known(name: str, kinds: set[type[Any]]) -> bool:
    """Whether a name is a class of this library or Lightning, or a short name such as ``ddp``. No other module is imported."""
    module, _, short = name.rpartition(".")
    named = None
    if module.split(".")[0] in PACKAGES and not any(part.startswith("_") for part in module.split(".")):
        with suppress(ImportError):
            named = getattr(import_module(module), short, None)
    called = [kind for kind in _below(kinds) if kind.__name__ == short and (not module or kind is named)]
    if not module and not called:  # jsonargparse would read a file of that name
        return short.replace("-", "_").isidentifier() and not Path(short).exists()
    return bool(called) and all(
        kind.__module__.split(".")[0] in PACKAGES and (not issubclass(kind, Logger) or issubclass(kind, LOCAL_LOGGERS))
        for kind in called
    )


def _below(kinds: set[type[Any]]) -> set[type[Any]]:
    """Classes and all their subclasses that have been imported."""
    found: set[type[Any]] = set()
    waiting = list(kinds)
    while waiting:
        kind = waiting.pop()
        if kind not in found:
            found.add(kind)
            waiting += kind.__subclasses__()
    return found


def _is_importable(text: str) -> bool:
    """Whether text could be the import path of code, as ``os.system``. Nothing is imported."""
    parts = text.strip().split(".")
    try:
        return len(parts) > 1 and all(part.isidentifier() for part in parts) and find_spec(parts[0]) is not None
    except ValueError:
        return True  # a module without a specification, as __main__


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
