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

from ich_lstm.files.output_folder import check_new_or_empty
from ich_lstm.privacy import PRIVATE, private_folder
from ich_lstm.training.callbacks import without_folders

KINDS = (".csv", ".json", ".yaml", ".key", ".zip", ".tar", ".gz", ".nii", ".parquet")

HANDED_OVER = "ICH_TRAIN_RUN"
"""Environment variable by which the first process tells those that Lightning starts with the same command line what it has found
out: the folder, and numbers of slices."""


class Settled(NamedTuple):
    """What all processes of a run must have alike, and the first one settles.

    Args:
        folder: The run's folder.
        slices_per_batch: Most slices in a batch.
        slices_per_chunk: Most slices that the encoder trains on at once; None for all of a batch.
    """

    folder: str
    slices_per_batch: int
    slices_per_chunk: int | None


@contextmanager
def handed_over(settled: Settled) -> Iterator[None]:
    """Tell the processes that are started meanwhile what is settled.

    Args:
        settled: For all of them.
    """
    os.environ[HANDED_OVER] = json.dumps(settled)
    try:
        yield
    finally:
        del os.environ[HANDED_OVER]


def settled_before() -> Settled | None:
    """What the process has settled that started this one; None if it was not started so."""
    told = os.environ.get(HANDED_OVER)
    return None if told is None else Settled(*json.loads(told))


def new_folder(out: Path | None, recipe: str) -> Path:
    """The folder to fill.

    Args:
        out: The folder that is asked for; None: a new one below ``runs``.
        recipe: Name of the recipe.

    Raises:
        ConfigError: If it is not new or empty.
    """
    folder = out or Path("runs") / f"{recipe}-{datetime.now():%Y%m%d-%H%M%S}"
    check_new_or_empty(folder)
    return folder


def write_config(folder: Path, config: Namespace, parser: ArgumentParser) -> None:
    """The configuration as it was, private; and without paths, shareable.

    Args:
        folder: The run's folder.
        config: The configuration; what is a path in it has the type `Path`.
        parser: Its parser.
    """
    _write(private_folder(folder) / "config.yaml", config, parser)
    _write(folder / "config.yaml", _shareable(config), parser)


def _write(path: Path, config: Namespace, parser: ArgumentParser) -> None:
    values = yaml.safe_load(parser.dump(config, skip_unset=False, skip_validation=True))
    values.pop("config", None)
    path.write_text(yaml.safe_dump(without_folders(values) if path.parent.name != PRIVATE else values, sort_keys=False))


def _shareable(config: Namespace) -> Namespace:
    """A copy in which paths are only named, and those of the data, which may be called after a patient, not even that."""
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
