"""Resuming of a run: where it goes on, and what may differ from its configuration."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import Namespace

from ich_lstm.cli.training.run_folder import read_progress, stage_folder
from ich_lstm.errors import CheckpointError, ConfigError
from ich_lstm.training.checkpoints.checkpoint_io import newest_whole
from ich_lstm.training.stages import Progress, Stage

logger = logging.getLogger(__name__)

MAY_DIFFER = (
    "config",
    "out",
    "checkpoint",
    "checkpoint_minutes",
    "wandb",
    "tensorboard",
    "data.root",
    "data.labels",
    "data.corrections",
    "data.choices",
    "data.cache_dir",
    "data.project_key",
    "data.num_workers",
    "data.split.file",
    "stages",
    "trainer.accelerator",
    "trainer.callbacks",
    "trainer.devices",
    "trainer.logger",
    "trainer.max_epochs",
    "trainer.max_time",
    "trainer.num_nodes",
    "trainer.strategy",
)
"""Keys that may differ when a run is resumed: files that have moved, the hardware, and how long it trains."""


def find_progress(folder: Path, stages: Sequence[Stage]) -> Progress:
    """Find where a run goes on. Damaged checkpoints are named, and the newest whole one is taken.

    Args:
        folder: The run's folder.
        stages: All stages of the run.

    Raises:
        CheckpointError: If the best checkpoint of a finished stage is missing.
        ConfigError: ``other_run``, if a stage would be lengthened that later stages started from.
    """
    known = read_progress(folder)
    done = known.finished if known is not None else {}
    finished, best = 0, None
    for number, stage in enumerate(stages, start=1):
        if stage.name not in done:
            break
        is_last = number == len(stages)
        if stage.max_epochs != done[stage.name]:
            if not is_last or stage.max_epochs < done[stage.name]:
                raise ConfigError(
                    "other_run",
                    where=f"stages.{stage.name}.max_epochs",
                    got=str(stage.max_epochs),
                    expected=f"{done[stage.name]}, because the stage is finished; only the last stage can be trained longer",
                )
            break
        finished = number
        best = stage_folder(folder, number, stage.name, is_last=is_last) / "checkpoints" / "best.ckpt"
    if best is not None and not best.is_file():
        raise CheckpointError(
            "missing_checkpoint",
            where=str(best),
            got="no such file",
            expected="the best checkpoint of a finished stage",
            todo="Restore the file, or train anew in another folder.",
        )
    if finished == len(stages):
        return Progress(finished, best)
    place = stage_folder(folder, finished + 1, stages[finished].name, is_last=finished + 1 == len(stages))
    return Progress(finished, best, newest_whole(place / "checkpoints", _warn_of_damage))


def check_same_run(stored: Namespace, wanted: Namespace) -> None:
    """Check that a resumed run differs from its configuration only in what cannot change its result in an unknown way.

    Args:
        stored: The configuration of the run.
        wanted: The configuration with which it is resumed.

    Raises:
        ConfigError: ``other_run``, with all keys that differ and must not.
    """
    before, after = dict(stored.items()), dict(wanted.items())
    wrong = {key for key in before.keys() | after.keys() if before.get(key) != after.get(key)}
    wrong = {key for key in wrong if not any(key == free or key.startswith(f"{free}.") for free in MAY_DIFFER)}
    wrong |= set(_changed_stages(stored.stages or {}, wanted.stages or {}))
    if wrong:
        raise ConfigError(
            "other_run",
            where=", ".join(sorted(wrong)),
            got="other values than those with which the run was begun",
            expected="the settings of the run; only the number of epochs, the hardware and the places of files may differ",
            todo="Leave these out; or train anew, from this model with --checkpoint RUN if you like.",
        )


def _changed_stages(stored: Mapping[str, Mapping[str, Any]], wanted: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """The keys of stages that differ, apart from the number of epochs."""
    for name in {*stored, *wanted}:
        before, after = stored.get(name, {}), wanted.get(name, {})
        yield from (f"stages.{name}.{key}" for key in {*before, *after} - {"max_epochs"} if before.get(key) != after.get(key))


def _warn_of_damage(path: Path, reason: str) -> None:
    logger.warning("%s is damaged and not used: %s", path, reason)
