"""Loggers of a training: a CSV file always, others on request."""

import importlib.util
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import yaml
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only

from ich_lstm.errors import ConfigError

WandbMode = Literal["offline", "online"]

PROJECT = "ich_lstm"
"""Project of Weights & Biases, unless ``WANDB_PROJECT`` names another."""

ANONYMOUS: dict[str, Any] = {
    "console": "off",
    "disable_code": True,
    "disable_git": True,
    "disable_job_creation": True,
    "host": "host",
    "program": "ich-train",
    "save_code": False,
    "symlink": False,
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
"""Settings of wandb under which it records neither host, folder, arguments and code, nor the hardware and the packages."""


def check_logging(*, wandb: WandbMode | None, tensorboard: bool) -> None:
    """Refuse, before any work is done, what could not be logged.

    Args:
        wandb: Whether, and how, Weights & Biases is to log.
        tensorboard: Whether TensorBoard's files are to be written.

    Raises:
        ConfigError: If TensorBoard is not installed, or there is no API key to log online with.
    """
    if tensorboard and not any(importlib.util.find_spec(name) for name in ("tensorboard", "tensorboardX")):
        raise ConfigError(
            "no_tensorboard",
            where="--tensorboard",
            got="TensorBoard is not installed",
            todo="Install it (pip install tensorboard), or leave --tensorboard out: metrics.csv holds the same values.",
        )
    if wandb == "online":
        _check_api_key()


def make_loggers(
    given: Logger | list[Logger] | bool | None, place: Path, private: Path, *, wandb: WandbMode | None, tensorboard: bool
) -> list[Logger]:
    """The loggers of a stage; each stage is a run of its own in Weights & Biases, and in TensorBoard.

    Args:
        given: Those of the configuration; they log beside the others.
        place: The stage's folder, in which ``metrics.csv`` is written: the run's folder, or one below it.
        private: The run's private folder, for everything else: its writers record host names and paths.
        wandb: Whether, and how, Weights & Biases logs.
        tensorboard: Whether TensorBoard's files are written.

    Returns:
        The CSV's logger first: Lightning takes its folders from it.
    """
    loggers: list[Logger] = [CSVLogger(place, name="", version="")]
    stage = place.relative_to(private.parent)
    if wandb is not None:
        loggers.append(_PrivateWandbLogger(private, stage.name, wandb))
    if tensorboard:
        loggers.append(TensorBoardLogger(private / "tensorboard", name=str(stage), version=""))
    loggers += given if isinstance(given, list) else [given] if isinstance(given, Logger) else []
    return loggers


class _PrivateWandbLogger(WandbLogger):
    """Weights & Biases with all its files in a private folder, and with as little in them as it can be made to write.

    Args:
        private: The run's private folder.
        stage: Name of the stage; empty for the last, which goes by the run's name alone.
        mode: ``offline`` opens no connection.
    """

    def __init__(self, private: Path, stage: str, mode: WandbMode) -> None:
        run = private.parent.resolve().name
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        # Lightning's own offline=True would set WANDB_MODE for good.
        super().__init__(name=f"{run} {stage}".strip(), group=run, save_dir=private, project=project, mode=mode)
        self._wandb_init.pop("anonymous", None)  # newer wandb warns of it, even of None
        self._private = private
        self._mode = mode
        self._replaced: dict[str, str | None] = {}

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """wandb's run, which begins when it is first asked for."""
        if self._experiment is None:
            self._begin()
        return self._experiment

    def _begin(self) -> None:
        import wandb

        self._replaced = _replace_environment(_environment(self._private.resolve() / "wandb"))
        self._wandb_init["settings"] = wandb.Settings(**ANONYMOUS, silent=self._mode == "offline")
        try:
            _ = super().experiment
        except wandb.Error as error:
            _replace_environment(self._replaced)
            raise ConfigError(
                "wandb_failed",
                where=f"--wandb {self._mode}",
                got=" ".join(str(error).split()),
                todo="Log with --wandb offline, and send the files later with wandb sync.",
            ) from error
        # The shareable one: it has no paths.
        self.log_hyperparams(yaml.safe_load((self._private.parent / "config.yaml").read_text()))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write everything out: the next stage begins a run of its own."""
        super().finalize(status)
        if self._experiment is not None:
            self._experiment.finish(exit_code=int(status != "success"))
            _replace_environment(self._replaced)


def _check_api_key() -> None:
    """Ask wandb for a key wherever it looks for one, except on the terminal, and without a connection."""
    import wandb

    terminal, sys.stdin = sys.stdin, io.StringIO()
    with tempfile.TemporaryDirectory() as folder:
        former = _replace_environment({**_environment(Path(folder)), "WANDB_MODE": "online", "WANDB_SILENT": "true"})
        try:
            wandb.login(verify=False)
        except wandb.Error as error:
            raise ConfigError(
                "no_api_key",
                where="--wandb online",
                got=" ".join(str(error).split()),
                expected="an API key of Weights & Biases",
                todo="Run wandb login or set WANDB_API_KEY, or log with --wandb offline.",
            ) from error
        finally:
            sys.stdin = terminal
            wandb.teardown()  # what it read from the environment would last otherwise
            _replace_environment(former)


def _environment(folder: Path) -> dict[str, str | None]:
    """What wandb reads when it starts its service, and when something is logged, and has no setting for.

    Args:
        folder: For the service's log, and for copies of what is logged.
    """
    return {
        "WANDB_CACHE_DIR": str(folder / "cache"),
        "WANDB_DATA_DIR": str(folder / "data"),
        "WANDB_ERROR_REPORTING": "false",  # otherwise the service looks up its maker's server, offline too
        "WANDB_SERVICE": os.environ.get("WANDB_SERVICE"),  # wandb sets it
    }


def _replace_environment(values: dict[str, str | None]) -> dict[str, str | None]:
    """Set environment variables, or remove those whose value is None; returns what they were."""
    former = {name: os.environ.get(name) for name in values}
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    return former
