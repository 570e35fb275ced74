"""The output folder of a training run, and the configuration stored in it."""

import json
import os
import shlex
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import yaml
from jsonargparse import ArgumentParser, Namespace

from ich_lstm.cli.console import HANDED_OVER
from ich_lstm.errors import ConfigError
from ich_lstm.files.atomic_write import remove_unfinished, write_text
from ich_lstm.files.folder_lock import claimed
from ich_lstm.files.output_folder import is_new_or_empty, out_not_empty
from ich_lstm.privacy import PRIVATE, private_folder
from ich_lstm.training.checkpoints.callbacks import without_folders
from ich_lstm.training.checkpoints.checkpoint_io import BEFORE_LAST, LAST

KINDS = (".csv", ".json", ".yaml", ".key", ".zip", ".tar", ".gz", ".nii", ".parquet")

PROGRESS_FILE = "progress.json"
"""What a run has done so far, in its folder."""

LOCK = "lock"
"""File in the private folder that the process of a run holds."""

STAGES = "stages"
"""Folder of the logs and checkpoints of all stages but the last. Those of the last stage lie in the run's folder itself."""


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
    before = os.environ.get(HANDED_OVER)
    os.environ[HANDED_OVER] = json.dumps(settled)
    try:
        yield
    finally:
        if before is None:
            del os.environ[HANDED_OVER]
        else:  # a process that was started this way stays one: it has nothing to say if the first one ends
            os.environ[HANDED_OVER] = before


def settled_before() -> Settled | None:
    """The shared values from the process that started this one; None if no process of this run did."""
    text = os.environ.get(HANDED_OVER)
    return None if text is None else Settled(*json.loads(text))


class RunProgress(NamedTuple):
    """What a run has done so far.

    Args:
        recipe: Name of its recipe.
        finished: Number of epochs that each finished stage was to have, by the name of the stage.
        is_reported: Whether the model and the report are written.
    """

    recipe: str
    finished: dict[str, int]
    is_reported: bool


def read_progress(folder: Path) -> RunProgress | None:
    """Read what a run has done so far; None if the folder is not that of a run."""
    path = folder / PROGRESS_FILE
    return RunProgress(**json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def write_progress(folder: Path, progress: RunProgress) -> None:
    """Write what a run has done so far.

    Args:
        folder: The run's folder.
        progress: What it has done.
    """
    write_text(folder / PROGRESS_FILE, json.dumps(progress._asdict(), indent=2) + "\n")


def private_config(folder: Path) -> Path:
    """The full configuration of a run, from which it is resumed."""
    return folder / PRIVATE / "config.yaml"


def resumed_with(folder: Path) -> list[str]:
    """The arguments with which a run is resumed.

    Args:
        folder: The run's folder.

    Raises:
        ConfigError: ``no_run``, if the folder is not that of a run.
    """
    if not private_config(folder).is_file() or read_progress(folder) is None:
        raise ConfigError(
            "no_run",
            where="--resume",
            got=str(folder),
            expected=f"the folder of a run of ich-train, with private/config.yaml and {PROGRESS_FILE}",
            todo="Check the path. To start a new training from a model: --checkpoint PATH.",
        )
    return ["--config", str(private_config(folder)), "--out", str(folder)]


def stage_folder(folder: Path, number: int, name: str, *, is_last: bool) -> Path:
    """Folder for the logs and checkpoints of a stage.

    Args:
        folder: The run's folder.
        number: Number of the stage, from 1.
        name: Name of the stage.
        is_last: Whether no stage follows.
    """
    return folder if is_last else folder / STAGES / f"{number}-{name}"


def resume_command(folder: Path) -> str:
    """The command that resumes a run, as a user can paste it into a shell."""
    return f"ich-train --resume {shlex.quote(str(folder))}"


def go_on_with(folder: Path) -> str:
    """What a user is told who has stopped a run."""
    return f"Go on with: {resume_command(folder)}"


def has_checkpoints(folder: Path) -> bool:
    """Whether a run has saved anything from which it can be resumed."""
    places = [folder, *(folder / STAGES).glob("*")]
    return any((place / "checkpoints" / name).is_file() for place in places for name in (LAST, BEFORE_LAST))


def name_folder(out: Path | None, recipe: str) -> Path:
    """The folder of a new run: the requested one, or one below ``runs``.

    Args:
        out: The requested folder; None for a new one.
        recipe: Name of the recipe.
    """
    return out or Path("runs") / f"{recipe}-{datetime.now():%Y%m%d-%H%M%S}"


@contextmanager
def claimed_run(folder: Path, *, resumed: bool) -> Iterator[None]:
    """Keep other trainings out of a run's folder for as long as this one runs.

    Args:
        folder: The run's folder; created if it is missing.
        resumed: Whether an unfinished run is resumed. If not, the folder must be new, empty, or that of a run that ended before
            its first checkpoint.

    Raises:
        ConfigError: ``out_taken``, if another training writes there; ``unfinished_run`` or ``out_not_empty``.
    """

    def refuse(process: str) -> None:
        raise ConfigError(
            "out_taken",
            where=str(folder),
            got=f"another training, process {process}, writes there",
            expected="a folder of its own for each training",
            todo="Wait for that training, or give another --out.",
        )

    is_new = not folder.exists()
    if not (resumed or is_new or read_progress(folder) or is_new_or_empty(folder, apart_from=(PRIVATE.name,))):
        raise out_not_empty(folder)  # before a private folder is made in somebody else's folder
    private = private_folder(folder)
    with claimed(private / LOCK, when_taken=refuse) as is_alone:
        try:
            if not resumed:
                _check_is_free(folder)
            if is_alone:
                remove_unfinished(folder)  # a training that was killed may have left a file as large as a checkpoint
            yield
        except Exception:
            if is_new:
                _remove_if_begun_only(folder)
            raise


def _remove_if_begun_only(folder: Path) -> None:
    """Remove the folder of a run that failed before it wrote more than its configuration, such as one without any scans."""
    begun = {PROGRESS_FILE, "config.yaml", str(PRIVATE / "config.yaml"), str(PRIVATE / LOCK)}
    if {str(path.relative_to(folder)) for path in folder.rglob("*") if not path.is_dir()} <= begun:
        shutil.rmtree(folder)


def _check_is_free(folder: Path) -> None:
    """Check that a folder holds nothing that a new run would mix with."""
    progress = read_progress(folder)
    if progress is None:
        if not is_new_or_empty(folder, apart_from=(PRIVATE.name,)) or not is_new_or_empty(folder / PRIVATE, apart_from=(LOCK,)):
            raise out_not_empty(folder)
    elif progress.is_reported:
        raise out_not_empty(folder, expected="a new or empty folder; --resume RUN with more epochs trains this run longer")
    elif has_checkpoints(folder):
        raise ConfigError(
            "unfinished_run",
            where=str(folder),
            got=f"an unfinished training of the recipe {progress.recipe}",
            expected="a new or empty folder",
            todo=f"Go on with that training: {resume_command(folder)}; or give another --out.",
        )


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
