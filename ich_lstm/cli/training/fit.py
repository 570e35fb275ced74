"""The part of ich-train that imports torch: LightningCLI, the stages of a training, and the report of a run."""

import copy
import difflib
import logging
import math
import re
import time
import warnings
from argparse import ArgumentError
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import PositiveFloat
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.strategies import Strategy
from pytorch_lightning.utilities import rank_zero_only

from ich_lstm.cli.audit import report_audit
from ich_lstm.cli.console import DONE, console, progress_bar
from ich_lstm.cli.progress import ProgressLines
from ich_lstm.cli.training.logs import WandbMode, check_logging, make_loggers
from ich_lstm.cli.training.planning import PLAN_MINUTES, plan_training, wants_plan
from ich_lstm.cli.training.run_folder import run_folder, write_config
from ich_lstm.cli.training.run_report import counts_in_words, evaluate_run, print_results, write_run_report
from ich_lstm.cli.training.warm_start import adopt_checkpoint
from ich_lstm.data.datamodule import ScanDataModule
from ich_lstm.data.prepared.folder import settle_preprocessing
from ich_lstm.data.split.split_file import SPLIT_FILE
from ich_lstm.errors import ConfigError
from ich_lstm.labels import ANY, LABELS
from ich_lstm.models.encoder import check_pretrained
from ich_lstm.phantom import PhantomSettings, write_phantom
from ich_lstm.privacy import PRIVATE, private_folder
from ich_lstm.reading import walk_source
from ich_lstm.training.callbacks import PathlessCheckpoint
from ich_lstm.training.classifier import ScanClassifier
from ich_lstm.training.stages import Stage, StageSettings, fit_stages

DEFAULT_SEED = 1

DEFAULT_EPOCHS = 8
"""Of a training for which nothing says how many: a fit without end would be Lightning's choice otherwise."""

STAGES = "stages"
"""Folder of the logs and checkpoints of all stages but the last, whose lie in the run's folder itself."""


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
    try:
        training = _Training(recipe, arguments)
    except _OnlyPlanned:
        return DONE
    folder, data = training.folder, training.data
    trainer = fit_stages(training.model, data, training.stages, training.trainer_of, best_of=_best_of)
    if _rank() != 0:
        return DONE
    classifier = ScanClassifier.load(Path(_best_of(trainer))).to(trainer.strategy.root_device)
    classifier.save_pretrained(folder / "model")
    with progress_bar(out) as tell:
        results = evaluate_run(folder, classifier, data, tell)
    results["seconds"] = round(time.monotonic() - started, 1)
    write_run_report(recipe, folder, results)
    print_results(out, results)
    if training.config.phantom is not None:
        out.print("These are synthetic heads: the figures show that the software works, and nothing about real hemorrhage.")
    out.print(f"Done in {results['seconds']:.0f} s. Report: {folder / 'report.html'}")
    out.print(f"Next: ich-predict PATH --checkpoint {folder} --out predictions")
    return DONE


def _best_of(trainer: Trainer) -> str:
    checkpoints = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, PathlessCheckpoint)]
    return next((callback.best_model_path for callback in checkpoints if callback.monitor is not None), "")


class _OnlyPlanned(Exception):
    """A plan of the memory was all that was asked for."""


class _Training(LightningCLI):
    """LightningCLI without subcommands, with the keys of a run, its folder, and a Trainer for each stage."""

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
        parser.add_argument("--checkpoint", type=str | None, default=None, help="Model to begin with.")
        parser.add_argument("--plan", type=bool, nargs="?", const=True, default=False, help="Only say how many slices fit.")
        parser.add_argument("--plan_minutes", type=PositiveFloat, default=PLAN_MINUTES, help="How long --plan and auto may try.")
        parser.add_argument(
            "--stages", type=dict[str, StageSettings] | None, default=None, help="Stages by name, in their order."
        )
        parser.add_argument("--wandb", type=WandbMode | None, default=None, help="Log to Weights & Biases too.")
        parser.add_argument("--tensorboard", type=bool, default=False, help="Log for TensorBoard too.")
        parser.add_argument("--phantom", type=PhantomSettings | None, default=None, help="Synthetic heads to train on.")
        parser.link_arguments("seed_everything", "data.seed", compute_fn=_seed_of_data)

    def before_instantiate_classes(self) -> None:
        """Settle the run's folder, the start, the data and the precision."""
        config = self.config
        if config.trainer.sync_batchnorm:
            raise ConfigError(
                "wrong_usage",
                where="trainer.sync_batchnorm",
                got="true",
                expected="false: torch's conversion loses the activations in some of timm's layers",
                todo="Set model.batch_norm=synchronized.",
            )
        if _rank() == 0:
            check_logging(wandb=config.wandb, tensorboard=config.tensorboard)
        stages = (config.stages or {}).items()
        self.stages = [Stage(name=name, **vars(settings)) for name, settings in stages] or [_only_stage(config)]
        self.start = None if config.checkpoint is None else adopt_checkpoint(Path(config.checkpoint), config, self.parser)
        if _rank() == 0:
            _check_sources(config)
        _settle_preprocessing(config.data)
        config.trainer.precision = config.trainer.precision or best_precision(str(config.trainer.accelerator))
        if wants_plan(config):
            plan_training(config, console(), rank=_rank())
            if config.plan:
                raise _OnlyPlanned
        self.plain_config = yaml.safe_load(self.parser.dump(config, skip_none=False))
        self.folder = run_folder(config.out, self.recipe, rank=_rank())
        if config.phantom is not None and config.data.root is None:
            config.data.root = str(self.folder / "phantom")
            config.data.cache_dir = config.data.cache_dir or str(self.folder / PRIVATE / "prepared")
        config.trainer.default_root_dir = str(self.folder)
        config.trainer.enable_progress_bar = console().is_terminal
        # The data come before the model: what is wrong with them should show at once, not after a download of weights.
        parser = ArgumentParser()
        parser.add_class_arguments(ScanDataModule, "data")
        self.data: ScanDataModule = parser.instantiate(Namespace(data=config.data)).data
        self.data.preprocessing.check_windows(config.model.windows)  # before hours of caching
        if _rank() == 0:
            self._prepare_data()
            write_config(self.folder, self.plain_config)

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
        out.print(f"[bold]{self.recipe}[/]: {counts_in_words(self.data)}")

    def after_instantiate_classes(self) -> None:
        """Begin with the weights of a checkpoint, if one is given."""
        if self.start is not None:
            self.model.load_weights_from(self.start)

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """None yet: every stage has its own."""
        return None  # type: ignore[return-value]

    def trainer_of(self, stage: Stage, is_last: bool) -> Trainer:
        """The Trainer of a stage: its files lie in the run's folder if it is the last, otherwise in ``stages/``."""
        number = self.stages.index(stage) + 1
        place = self.folder if is_last else self.folder / STAGES / f"{number}-{stage.name}"
        config = self.config_init.trainer
        best = PathlessCheckpoint(
            dirpath=place / "checkpoints", filename="best", monitor="val/monitor", enable_version_counter=False
        )
        # Not save_last: Lightning writes that only when it writes the best.
        last = PathlessCheckpoint(dirpath=place / "checkpoints", filename="last", enable_version_counter=False)
        shown = RichProgressBar() if config.enable_progress_bar else _EpochLines(stage.name if len(self.stages) > 1 else "")
        given = config.callbacks if isinstance(config.callbacks, list) else [config.callbacks] if config.callbacks else []
        changes = {
            "max_epochs": min(stage.max_epochs, self.config.trainer.max_epochs or stage.max_epochs),
            "callbacks": [*given, best, last, shown],
            "logger": make_loggers(
                config.logger, place, private_folder(self.folder), wandb=self.config.wandb, tensorboard=self.config.tensorboard
            ),
            **stage.trainer,
        }
        if isinstance(config.strategy, Strategy):
            changes.setdefault("strategy", copy.deepcopy(config.strategy))  # one that has run cannot run again
        return super().instantiate_trainer(**changes)


def _settle_preprocessing(data: Namespace) -> None:
    """Put the size, crop and clip that will be used into the configuration, so that it tells what ran."""
    root = Path(data.root) if data.root else None
    settled = settle_preprocessing(root, size=data.size, crop=data.crop, clip=data.clip)
    for name, value in settled.to_dict().items():
        data[name] = value


def _check_sources(config: Namespace) -> None:
    """See that there is something to train on and to begin with, before hours of trying, reading and auditing.

    Raises:
        SourceError: If the data's root is missing or empty.
        ConfigError: If the pretrained weights cannot be had.
    """
    if config.data.root is not None:
        next(walk_source(Path(config.data.root).absolute()))
    model = config.model
    if not config.plan and (model.pretrained or model.pretrained_file is not None):  # a plan needs no weights
        check_pretrained(model.backbone, model.pretrained_file)


def _only_stage(config: Namespace) -> Stage:
    """The stage of a recipe without stages: all is trained at once."""
    return Stage(name="joint", max_epochs=config.trainer.max_epochs or DEFAULT_EPOCHS)


class _EpochLines(Callback):
    """A line per epoch and, in long epochs, one a minute, where a progress bar would only fill a log file."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._lines = ProgressLines(lambda line: console().print(line, markup=False))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._started = time.monotonic()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        """Say how far the epoch is, once a minute."""
        if trainer.is_global_zero:
            batches = trainer.num_training_batches
            self._lines.advance(self._name(trainer), 1, int(batches) if math.isfinite(batches) else None)

    def _name(self, trainer: Trainer) -> str:
        return f"{self.stage} epoch {trainer.current_epoch + 1}/{trainer.max_epochs}".strip()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Print what the epoch gave."""
        if not trainer.is_global_zero:
            return
        known = {name: float(value) for name, value in trainer.callback_metrics.items() if not math.isnan(float(value))}
        # Labels of whole scans leave the slices of positive ones unknown: then only the scans' figures tell good from bad.
        level, whose = ("val/", "") if any(f"val/auroc_{label}" in known for label in LABELS) else ("val/scan_", ", scans")
        if f"{level}loss" not in known:
            level, whose = "val/", ""
        shown = {
            "train/loss": "train loss",
            f"{level}loss": f"validation loss{whose}",
            f"{level}auroc_{ANY}": f"AUC any{whose}",
        }
        figures = [f"{name} {known[key]:.4f}" for key, name in shown.items() if key in known]
        console().print(f"{self._name(trainer)}: {', '.join(figures)} ({time.monotonic() - self._started:.0f} s)")


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
    # Stages freeze parts of the model, which rest in evaluation mode.
    warnings.filterwarnings("ignore", message="Found .* module.s. in eval mode at the start of training.*")
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
