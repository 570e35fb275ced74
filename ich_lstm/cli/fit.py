"""The heavy half of ich-train: LightningCLI, the fit, and the report of a run."""

import difflib
import json
import logging
import re
import sys
import time
import warnings
from argparse import ArgumentError
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd
import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import CSVLogger
from pytorch_lightning.utilities import rank_zero_only
from rich.console import Console
from rich.table import Table

from ich_lstm.cli.audit import report_audit
from ich_lstm.cli.console import DONE, console, progress_bar
from ich_lstm.data.datamodule import ScanDataModule
from ich_lstm.data.split import Part
from ich_lstm.data.split_file import SPLIT_FILE
from ich_lstm.errors import CheckpointError, ConfigError
from ich_lstm.labels import ANY, LABELS
from ich_lstm.learning.checkpoint import PathlessCheckpoint, without_folders
from ich_lstm.learning.classifier import ScanClassifier
from ich_lstm.phantom import PhantomSettings, write_phantom
from ich_lstm.privacy import PRIVATE, ProjectKey, private_folder
from ich_lstm.results.evaluate import ENCODER_PREFIX, LABEL_PREFIX, columns_of, predict_part, summarize, write_labelled
from ich_lstm.views.curves import plot_history, plot_precision_recall, plot_roc, save_figure
from ich_lstm.views.train_report import train_report_page

DEFAULT_SEED = 1

PATH_KEYS = (
    "out",
    "data.root",
    "data.labels",
    "data.corrections",
    "data.choices",
    "data.split_file",
    "data.cache_dir",
    "data.project_key",
    "trainer.default_root_dir",
)
"""Keys whose values are paths: in the shareable configuration only the last part of them stands."""


def run_training(recipe: str, arguments: list[str]) -> int:
    """Configure, fit, and report.

    Args:
        recipe: Name of the recipe, for the run's folder and the report.
        arguments: Command line with the recipes' paths in place of their names.

    Returns:
        The exit code.
    """
    started = time.monotonic()
    _quiet()
    out = console()
    training = _Training(recipe, arguments)
    folder, data, trainer = training.folder, training.data, training.trainer
    trainer.fit(training.model, data)
    if _rank() != 0:
        return DONE
    best = Path(training.checkpoint.best_model_path)
    if not best.is_file():
        raise CheckpointError("no_epoch", where=str(folder), got="no epoch was finished", todo="Raise trainer.max_epochs.")
    classifier = ScanClassifier.load(best).to(trainer.strategy.root_device)
    classifier.save_pretrained(folder / "model")
    with progress_bar(out) as tell:
        results = _evaluate(folder, classifier, data, tell)
    results["seconds"] = round(time.monotonic() - started, 1)
    _write_report(recipe, folder, results)
    _print_results(out, results)
    if training.config.phantom is not None:
        out.print("These are synthetic heads: the figures show that the software works, and nothing about real hemorrhage.")
    out.print(f"Done in {results['seconds']:.0f} s. Report: {folder / 'report.html'}")
    out.print(f"Next: ich-predict PATH --checkpoint {folder} --out predictions")
    return DONE


class _Training(LightningCLI):
    """LightningCLI without subcommands, with the keys ``--out`` and ``--phantom``, and a run's folder."""

    model: ScanClassifier

    def __init__(self, recipe: str, arguments: list[str]) -> None:
        self.recipe = recipe
        try:
            super().__init__(
                ScanClassifier,
                ScanDataModule,
                run=False,
                args=arguments,
                save_config_callback=None,
                seed_everything_default=DEFAULT_SEED,
                auto_configure_optimizers=False,
                parser_kwargs={"exit_on_error": False, "allow_abbrev": False},
                trainer_defaults={"enable_model_summary": False, "num_sanity_val_steps": 0, "log_every_n_steps": 1},
            )
        except ArgumentError as error:
            raise _config_error(self.parser, str(error)) from error

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """The keys that are neither the model's, the data's nor the trainer's."""
        parser.add_argument("--out", type=str | None, default=None, help="Folder of the run.")
        parser.add_argument("--phantom", type=PhantomSettings | None, default=None, help="Synthetic heads to train on.")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_seed_of_data)

    def before_instantiate_classes(self) -> None:
        """Settle the run's folder, the data and the precision."""
        config = self.config
        self.plain_config = yaml.safe_load(self.parser.dump(config, skip_none=False))
        self.folder = _run_folder(config.out, self.recipe)
        if config.phantom is not None and config.data.root is None:
            config.data.root = str(self.folder / "phantom")
            config.data.cache_dir = config.data.cache_dir or str(self.folder / PRIVATE / "prepared")
        config.trainer.precision = config.trainer.precision or best_precision(str(config.trainer.accelerator))
        config.trainer.default_root_dir = str(self.folder)
        self.checkpoint = PathlessCheckpoint(
            dirpath=self.folder / "checkpoints",
            filename="best",
            monitor="val/monitor",
            enable_version_counter=False,
        )
        # Not save_last: Lightning writes that only when it writes the best.
        last = PathlessCheckpoint(dirpath=self.folder / "checkpoints", filename="last", enable_version_counter=False)
        shows_bar = console().is_terminal
        self.trainer_defaults["callbacks"] = [self.checkpoint, last, RichProgressBar() if shows_bar else _EpochLines()]
        config.trainer.enable_progress_bar = shows_bar
        # The data come before the model: what is wrong with them should show at once, not after a download of weights.
        parser = ArgumentParser()
        parser.add_class_arguments(ScanDataModule, "data")
        self.data: ScanDataModule = parser.instantiate(Namespace(data=config.data)).data
        self.data.preprocessing.check_windows(config.model.windows)  # before hours of caching
        if _rank() == 0:
            self._prepare_data()
            _write_config(self.folder, self.plain_config)

    def _prepare_data(self) -> None:
        out = console()
        with progress_bar(out) as tell:
            if self.config.phantom is not None:
                settings = PhantomSettings(**vars(self.config.phantom))
                what = "making synthetic heads"
                tell(what, 0, settings.patients)
                write_phantom(settings, self.folder / "phantom", progress=lambda done: tell(what, done, settings.patients))
            self.data.progress = tell
            self.data.prepare_data()
            self.data.progress = None
        try:
            self.data.setup("fit")
        finally:
            if self.data.audit is not None:  # also of what stops
                report_audit(self.data.audit, self.folder, out)
        if self.data.patients is not None:
            self.data.patients.write(private_folder(self.folder) / SPLIT_FILE)
        out.print(f"[bold]{self.recipe}[/]: {_in_words(self.data)}")

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The Trainer, with a CSV log in the run's folder unless another logger is configured."""
        if self.config.trainer.logger is None:
            kwargs["logger"] = CSVLogger(self.folder, name="", version="")
        return super().instantiate_trainer(**kwargs)


class _EpochLines(Callback):
    """A line per epoch, where a progress bar would only fill a log file."""

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print what the epoch gave."""
        if not trainer.is_global_zero:
            return
        shown = {"train/loss": "train loss", "val/loss": "validation loss", f"val/auroc_{ANY}": "AUC any"}
        figures = [
            f"{name} {float(trainer.callback_metrics[key]):.4f}" for key, name in shown.items() if key in trainer.callback_metrics
        ]
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        console().print(f"{epoch}: {', '.join(figures)} ({time.monotonic() - self._started:.0f} s)")


def _seed_of_data(seed: int | bool) -> int:
    """The seed of everything, for the data too; ``true`` and ``false`` mean a seed that nobody named."""
    return DEFAULT_SEED if isinstance(seed, bool) else seed


def best_precision(accelerator: str) -> Literal["bf16-mixed", "32-true"]:
    """bfloat16 where the hardware computes in it, which halves the time; float32 elsewhere, where it would be emulated."""
    if accelerator != "cpu" and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if native else "32-true"


def _rank() -> int:
    """This process's number among all that train together."""
    return int(rank_zero_only.rank)  # type: ignore[attr-defined]


def _quiet() -> None:
    """Only what a user can act on."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    # The number of workers is the recipe's choice: on two cores, a loader process takes a core from the network.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # The arguments are those of the command line, with the recipes' names resolved.
    warnings.filterwarnings("ignore", message="LightningCLI's args parameter.*")
    # The run's folder holds the configuration and the data before the log begins.
    warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty.*")
    # Lightning 2.6 calls jsonargparse and torch in older ways.
    warnings.filterwarnings("ignore", message=r"(?s).*(JsonargparseDeprecationWarning|deprecated in v4).*")
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    # torch's scheduler is stepped by Lightning, after the optimizer; the warning is of the AMP scaler's skipped first step.
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*before.*optimizer.step.*")


def _config_error(parser: LightningArgumentParser, message: str) -> ConfigError:
    """What jsonargparse found wrong, with the nearest key where one is unknown."""
    known = [action.dest for action in parser._actions]
    in_group = re.search(r"Group '([\w.]+)' does not accept option '([\w.]+)'", message)
    unrecognized = re.search(r"(?:unrecognized arguments: --|[Kk]ey ')([\w.]+)", message)
    todo = "ich-train --help=full lists every key."
    if in_group or unrecognized:
        unknown = ".".join(in_group.groups()) if in_group else unrecognized[1]  # type: ignore[index]
        near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.5)
        todo = (f"Did you mean {near[0]}? " if near else "") + todo
    return ConfigError("bad_configuration", where="configuration", got=" ".join(message.split()), todo=todo)


def _run_folder(out: str | None, recipe: str) -> Path:
    if _rank() != 0:
        if out is None:
            raise ConfigError(
                "no_out", where="--out", got="nothing", expected="one folder for all processes", todo="Give --out DIR."
            )
        return Path(out)
    folder = Path(out) if out else Path("runs") / f"{recipe}-{datetime.now():%Y%m%d-%H%M%S}"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError("out_not_empty", where="--out", got=f"{folder}, which is not empty", expected="a new or empty folder")
    if out is None:
        # Lightning starts its other processes with this command line: they must work in the same folder.
        sys.argv += ["--out", str(folder)]
    return folder


def _write_config(folder: Path, config: dict[str, Any]) -> None:
    """The configuration as it was, private; and with names in place of paths, shareable."""
    config.pop("config", None)
    (private_folder(folder) / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    for key in PATH_KEYS:
        *sections, last = key.split(".")
        place = config
        for section in sections:
            place = place[section]
        if place.get(last):
            named = place[last]
            place[last] = [Path(path).name for path in named] if isinstance(named, list) else Path(named).name
    config = without_folders(config)
    (folder / "config.yaml").write_text(yaml.safe_dump(config, sort_keys=False))


def _counts(data: ScanDataModule) -> dict[str, dict[str, int]]:
    return {
        part: {
            "patients": len({scan.patient_id for scan in scans}),
            "scans": len(scans),
            "slices": sum(len(scan.slice_labels) for scan in scans),
        }
        for part, scans in data.scans.items()
    }


def _in_words(data: ScanDataModule) -> str:
    return "; ".join(f"{part} {_how_many(counts)}" for part, counts in _counts(data).items())


def _how_many(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name if count != 1 else name[:-1]}" for name, count in counts.items())


def _evaluate(
    folder: Path, classifier: ScanClassifier, data: ScanDataModule, tell: Callable[[str, int, int | None], None]
) -> dict[str, Any]:
    """Predict validation and held-out patients, write the predictions and curves, and compute the figures."""
    key = ProjectKey.open(Path(data.project_key) if data.project_key else None)
    parts: list[Part] = [part for part in ("validation", "test") if data.scans[part]]
    total = sum(len(data.scans[part]) for part in parts)
    predictions = [
        predict_part(
            classifier, data, part, hash_patient=key.hash_id, progress=lambda done: tell("predicting held-out scans", done, total)
        )
        for part in parts
    ]
    write_labelled(folder / "predictions", predictions)
    held_out = predictions[-1]
    models = {"sequence": columns_of(held_out.slices, "")}
    if ENCODER_PREFIX + ANY in held_out.slices:
        models["encoder"] = columns_of(held_out.slices, ENCODER_PREFIX)
    labels = columns_of(held_out.slices, LABEL_PREFIX)
    save_figure(plot_roc(labels, models), folder / "roc.png")
    save_figure(plot_precision_recall(labels, models), folder / "precision_recall.png")
    if (folder / "metrics.csv").is_file():
        save_figure(plot_history(pd.read_csv(folder / "metrics.csv")), folder / "history.png")
    return {"part": parts[-1], **summarize(held_out), "counts": _counts(data)}


def _write_report(recipe: str, folder: Path, results: dict[str, Any]) -> None:
    (folder / "results.json").write_text(json.dumps(results, indent=2) + "\n")
    names = [name for name in ("history", "roc", "precision_recall") if (folder / f"{name}.png").is_file()]
    pictures = {name: (folder / f"{name}.png").read_bytes() for name in names}
    (folder / "report.html").write_text(train_report_page(results, pictures, recipe=recipe), encoding="utf-8")


def _print_results(out: Console, results: dict[str, Any]) -> None:
    counts = results["counts"][results["part"]]
    whose = "Held-out patients" if results["part"] == "test" else "Validation patients (too few to hold any out)"
    columns = {
        "slices, sequence": results["slices"]["sequence"],
        "slices, encoder alone": results["slices"].get("encoder"),
        "scans": results["scans"]["sequence"],
    }
    columns = {name: figures for name, figures in columns.items() if figures}
    table = Table(title=f"{whose}: {_how_many(counts)}")
    for name in ("", *columns):
        table.add_column(name, justify="left" if not name else "right")
    table.add_row("weighted log loss", *(_figure(figures["weighted_log_loss"], 4) for figures in columns.values()))
    for label in LABELS:
        table.add_row(f"AUC {label}", *(_figure(figures["auroc"][label], 3) for figures in columns.values()))
    out.print(table)


def _figure(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
