"""Loggers of a training: a CSV file always, others on request."""

import csv
import importlib.util
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, Literal

import yaml
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from pytorch_lightning.loggers.csv_logs import ExperimentWriter
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities import rank_zero_only

from ich_lstm.errors import ConfigError
from ich_lstm.files.atomic_write import atomic_write
from ich_lstm.files.full_disk import disk_full, is_disk_full
from ich_lstm.privacy import close_to_others, closed_to_others

WandbMode = Literal["offline", "online"]

PROJECT = "ich_lstm"
"""Project in Weights & Biases, unless the environment variable ``WANDB_PROJECT`` names another one."""

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
"""Settings with which wandb records no host name, folder, arguments, code, hardware or packages."""


def check_logging(*, wandb: WandbMode | None, tensorboard: bool) -> None:
    """Check that the requested loggers will work, before any other work is done.

    Args:
        wandb: Mode of Weights & Biases, ``offline`` or ``online``; None for no logging there.
        tensorboard: Whether to write TensorBoard's files.

    Raises:
        ConfigError: If TensorBoard is not installed, or if there is no API key to log online.
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
    given: Logger | list[Logger] | bool | None,
    place: Path,
    private: Path,
    *,
    wandb: WandbMode | None,
    tensorboard: bool,
    logged: int = 0,
) -> list[Logger]:
    """Make the loggers of a stage. In Weights & Biases and TensorBoard, each stage is a separate run.

    Args:
        given: Loggers of the configuration, which log in addition to the others.
        place: Folder of the stage, for ``metrics.csv``: the run's folder, or one below it.
        private: The run's private folder, for the other loggers' files, because these hold host names and paths.
        wandb: Mode of Weights & Biases, ``offline`` or ``online``; None for no logging there.
        tensorboard: Whether to write TensorBoard's files.
        logged: Number of steps whose values ``metrics.csv`` keeps when a fit is resumed.

    Returns:
        The loggers. The CSV logger is the first, because Lightning takes its folders from the first.
    """
    loggers: list[Logger] = [_MetricsLogger(place, logged)]
    stage = place.relative_to(private.parent)
    if wandb is not None:
        loggers.append(_PrivateWandbLogger(private, stage.name, wandb))
    if tensorboard:
        loggers.append(_PrivateTensorBoardLogger(private / "tensorboard", name=str(stage), version=""))
    loggers += given if isinstance(given, list) else [given] if isinstance(given, Logger) else []
    return loggers


class _WholeRows(ExperimentWriter):
    """A writer of ``metrics.csv`` that leaves whole rows if the disk becomes full, and keeps those of a resumed fit.

    Args:
        log_dir: Folder of the file.
        logged: Number of steps whose rows are kept; the resumed fit logs those of later steps again.
    """

    def __init__(self, log_dir: str, logged: int) -> None:
        super().__init__(log_dir)
        path = Path(self.metrics_file_path)
        if not path.exists():
            return
        with path.open(newline="") as file:
            reader = csv.DictReader(file)
            rows = [row for row in reader if (row.get("step") or "").isdigit() and int(row["step"]) < logged]
            self.metrics_keys = list(reader.fieldnames or ())
        self._write(self.metrics_keys, rows)

    def _check_log_dir_exists(self) -> None:
        """Do not remove the file, as Lightning would: it has the rows of the fit that is resumed."""

    def save(self) -> None:
        """Append the rows that are not in the file yet.

        Raises:
            StorageError: ``disk_full``; the file has all rows of earlier calls.
        """
        path = Path(self.metrics_file_path)
        size = path.stat().st_size if path.exists() else None
        try:
            super().save()
        except OSError as error:
            if size is None:
                path.unlink(missing_ok=True)
            else:
                os.truncate(path, size)
            if is_disk_full(error):
                raise disk_full(error, path.parent, whole=f"The rows of {path.name} are complete.") from error
            raise

    def _rewrite_with_new_header(self, fieldnames: list[str]) -> None:
        """Add columns to the rows of the file, which is replaced when the new one is complete."""
        path = Path(self.metrics_file_path)
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        self._write(fieldnames, rows)

    def _write(self, columns: list[str], rows: list[dict[str, str]]) -> None:
        with atomic_write(Path(self.metrics_file_path)) as unfinished, unfinished.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=columns)
            writer.writeheader()
            writer.writerows(rows)


class _MetricsLogger(CSVLogger):
    """A CSV logger whose file has whole rows, and has each row as soon as it is logged.

    Args:
        place: Folder of the file.
        logged: Number of steps whose rows are kept.
    """

    def __init__(self, place: Path, logged: int) -> None:
        super().__init__(place, name="", version="", flush_logs_every_n_steps=1)
        self._logged = logged

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The writer of the file; the first access makes it."""
        if self._experiment is None:
            Path(self.root_dir).mkdir(parents=True, exist_ok=True)
            self._experiment = _WholeRows(self.log_dir, self._logged)
        return self._experiment


class _PrivateTensorBoardLogger(TensorBoardLogger):
    """A logger for TensorBoard whose files can be read by their owner only."""

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """TensorBoard's writer; the first access makes it."""
        with closed_to_others():
            return super().experiment

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Write what is not written yet.

        Args:
            status: Lightning's status of the fit.
        """
        with closed_to_others():
            super().finalize(status)
        close_to_others(Path(self.root_dir))


class _PrivateWandbLogger(WandbLogger):
    """A logger for Weights & Biases that keeps its files in a private folder, and records as little as possible.

    Args:
        private: The run's private folder.
        stage: Name of the stage; empty for the last stage, which has the name of the run.
        mode: ``offline`` to open no connection, or ``online``.
    """

    def __init__(self, private: Path, stage: str, mode: WandbMode) -> None:
        run = private.parent.resolve().name
        project = os.environ.get("WANDB_PROJECT", PROJECT)
        # Lightning's offline=True would set WANDB_MODE for the rest of the process.
        super().__init__(name=f"{run} {stage}".strip(), group=run, save_dir=private, project=project, mode=mode)
        self._wandb_init.pop("anonymous", None)  # newer versions of wandb warn about this argument, even if it is None
        self._private = private
        self._mode = mode
        self._replaced: dict[str, str | None] = {}

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """The run of wandb; the first access starts it."""
        if self._experiment is None:
            self._begin()
        return self._experiment

    def _begin(self) -> None:
        """Start wandb's run, and log the configuration."""
        import wandb

        self._replaced = _replace_environment(_environment(self._private.resolve() / "wandb"))
        self._wandb_init["settings"] = wandb.Settings(**ANONYMOUS, silent=self._mode == "offline")
        try:
            with closed_to_others():  # the service that writes the files is started here, and inherits the umask
                _ = super().experiment
        except wandb.Error as error:
            _replace_environment(self._replaced)
            raise ConfigError(
                "wandb_failed",
                where=f"--wandb {self._mode}",
                got=" ".join(str(error).split()),
                todo="Log with --wandb offline, and send the files later with wandb sync.",
            ) from error
        # This is the shareable configuration, which has no paths.
        self.log_hyperparams(yaml.safe_load((self._private.parent / "config.yaml").read_text()))

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Finish wandb's run, because the next stage starts another one.

        Args:
            status: Lightning's status of the fit.
        """
        with closed_to_others():
            super().finalize(status)
            if self._experiment is not None:
                self._experiment.finish(exit_code=int(status != "success"))
                _replace_environment(self._replaced)
        close_to_others(self._private / "wandb")


def _check_api_key() -> None:
    """Check that wandb finds an API key, without a connection and without a prompt on the terminal."""
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
            wandb.teardown()  # otherwise wandb would keep these environment variables
            _replace_environment(former)


def _environment(folder: Path) -> dict[str, str | None]:
    """Environment variables for options of wandb that have no setting.

    Args:
        folder: Folder for the log of wandb's service, and for its copies of logged files.
    """
    return {
        "WANDB_CACHE_DIR": str(folder / "cache"),
        "WANDB_DATA_DIR": str(folder / "data"),
        "WANDB_ERROR_REPORTING": "false",  # otherwise the service contacts an error-reporting server, even offline
        "WANDB_SERVICE": os.environ.get("WANDB_SERVICE"),  # wandb sets this variable, so it must be restored
    }


def _replace_environment(values: dict[str, str | None]) -> dict[str, str | None]:
    """Set environment variables, or remove those whose value is None.

    Returns:
        The former values, with None for variables that did not exist.
    """
    former = {name: os.environ.get(name) for name in values}
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    return former
