"""The output folder of a training run, and the configuration stored in it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import yaml
from jsonargparse import ArgumentParser, Namespace

from ich_lstm.cli.console import HANDED_OVER
from ich_lstm.files.atomic_write import write_text
from ich_lstm.files.output_folder import check_new_or_empty
from ich_lstm.privacy import PRIVATE, private_folder
from ich_lstm.training.callbacks import without_folders

KINDS = (".csv", ".json", ".yaml", ".key", ".zip", ".tar", ".gz", ".nii", ".parquet")


class Settled(NamedTuple):
    """Values that the first process determines, and that all processes of a run share.

    Args:
        folder: The run's folder.
        slices_per_batch: The most slices in a batch.
        slices_per_chunk: The most slices that the encoder trains on at once; None for a whole batch.
    """

    folder: str
    slices_per_batch: int
    slices_per_chunk: int | None


@contextmanager
def handed_over(settled: Settled) -> Iterator[None]:
    """Pass shared values to all processes that are started inside this context.

    Args:
        settled: The shared values.
    """
    os.environ[HANDED_OVER] = json.dumps(settled)
    try:
        yield
    finally:
        del os.environ[HANDED_OVER]


def settled_before() -> Settled | None:
    """The shared values from the process that started this one; None if no process of this run did."""
    text = os.environ.get(HANDED_OVER)
    return None if text is None else Settled(*json.loads(text))


def new_folder(out: Path | None, recipe: str) -> Path:
    """Choose the folder of a run, and check that it is new or empty.

    Args:
        out: The requested folder; None for a new one below ``runs``.
        recipe: Name of the recipe.

    Raises:
        ConfigError: If the folder is not new or empty.
    """
    folder = out or Path("runs") / f"{recipe}-{datetime.now():%Y%m%d-%H%M%S}"
    check_new_or_empty(folder)
    return folder


def write_config(folder: Path, config: Namespace, parser: ArgumentParser) -> None:
    """Write the full configuration into the private folder, and a shareable one without paths into the run's folder.

    Args:
        folder: The run's folder.
        config: The configuration; paths in it have the type `Path`.
        parser: The parser of the configuration.
    """
    _write(private_folder(folder) / "config.yaml", config, parser)
    _write(folder / "config.yaml", _shareable(config), parser)


def _write(path: Path, config: Namespace, parser: ArgumentParser) -> None:
    values = yaml.safe_load(parser.dump(config, skip_unset=False, skip_validation=True))
    values.pop("config", None)
    write_text(path, yaml.safe_dump(without_folders(values) if path.parent.name != PRIVATE.name else values, sort_keys=False))


def _shareable(config: Namespace) -> Namespace:
    """Copy the configuration without paths. File names remain, except for those of the data, which may name a patient."""
    config = config.clone()
    for key, value in list(config.items()):
        shown = _kind if key.startswith("data.") else _name
        if isinstance(value, Path):
            config[key] = shown(value)
        elif isinstance(value, list) and any(isinstance(item, Path) for item in value):
            config[key] = [shown(item) for item in value]
    return config


def _name(path: Path) -> str:
    return path.name


def _kind(path: Path) -> str:
    suffix = path.suffix.lower()
    return f"(a {suffix} file)" if suffix in KINDS else "(a folder)"
