"""The part of ich-train that imports torch: configuration, data, the stages of a training, and the report of a run."""

import logging
import shutil
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from pytorch_lightning import Trainer, seed_everything

from ich_lstm.cli.console import DONE, console, progress_bar
from ich_lstm.cli.preparing.audit import report_audit
from ich_lstm.cli.training.configuration import TRUST, make_parser, parse
from ich_lstm.cli.training.monitoring.logs import check_logging
from ich_lstm.cli.training.monitoring.overview import FEATURES, check_room, describe_training
from ich_lstm.cli.training.planning import AUTO, plan_training, training_device, wants_plan
from ich_lstm.cli.training.processes import (
    ProcessWatch,
    connect_anew,
    heed_signals,
    is_started_by_first,
    process_lost,
    rank,
    requeue,
)
from ich_lstm.cli.training.resume import check_same_data, check_same_run, find_progress
from ich_lstm.cli.training.run_folder import (
    RunProgress,
    Settled,
    claimed_run,
    go_on_with,
    handed_over,
    name_folder,
    private_config,
    read_progress,
    resume_command,
    settled_before,
    stage_folder,
    write_config,
    write_progress,
)
from ich_lstm.cli.training.run_report import counts_in_words, evaluate_run, print_results, write_run_report
from ich_lstm.cli.training.stage_trainer import best_of, best_precision, make_trainer
from ich_lstm.cli.training.warm_start import adopted, with_weights_of
from ich_lstm.data.datamodule import ScanDataModule
from ich_lstm.data.loading.batches import Batches
from ich_lstm.data.prepared.folder import settle_preprocessing
from ich_lstm.data.split.split_file import SPLIT_FILE
from ich_lstm.errors import ConfigError
from ich_lstm.models.encoder import check_pretrained
from ich_lstm.phantom import PhantomSettings, write_phantom
from ich_lstm.preprocessing.augmentation import sample_seed
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.privacy import PRIVATE, private_folder
from ich_lstm.reading import walk_source
from ich_lstm.settings import merged
from ich_lstm.training.checkpoints.callbacks import LastCheckpoint
from ich_lstm.training.checkpoints.interruption import Interrupted, Interruption
from ich_lstm.training.classifier import ClassifierSettings, ScanClassifier
from ich_lstm.training.faults.processes import is_lost_connection, leave_processes
from ich_lstm.training.features.stored_features import StoredFeatures
from ich_lstm.training.stages import Progress, Stage, fit_stages

DEFAULT_EPOCHS = 8
"""Number of epochs if the configuration gives none."""


def run_training(recipe: str, arguments: list[str], checkpoint: Path | None, run: Path | None = None) -> int:
    """Configure a training, fit all stages, and write the report.

    Args:
        recipe: Name of the recipe, for the run's folder and the report; a run that is resumed knows its own.
        arguments: Command line in which paths have replaced the names of recipes.
        checkpoint: Model of a warm start, from the command line or a recipe; None for none.
        run: Folder of the run that is resumed; None for a new run.

    Returns:
        The exit code.
    """
    interruption = heed_signals()
    watch = ProcessWatch()
    _quiet()
    if run is not None:
        interruption.next_step = go_on_with(run)
    try:
        try:
            code = _run_training(recipe, arguments, checkpoint, run, interruption, watch)
            leave_processes()
            return code
        except Exception as error:
            if not is_lost_connection(error):
                raise
            if interruption.is_requested:  # all processes were asked to stop, and another one was faster
                interruption.stop(None)
            if is_started_by_first():
                return DONE  # the first process names the one that was lost
            watch.wait_for_error()
            raise process_lost(f"process {rank() + 1}", "the connection to another process broke") from error
    except Interrupted as stop:
        if stop.checkpoint is not None:  # all processes have stopped at the same step
            leave_processes()
        if rank() != 0:
            return DONE  # the first process speaks for all, and a failed process would end it
        print(f"ich-train: {_told(stop, interruption)}", file=sys.stderr)
        if stop.signum not in (signal.SIGTERM, signal.SIGINT):
            print(f"ich-train: {requeue()}", file=sys.stderr)
        return stop.exit_code


def _told(stop: Interrupted, interruption: Interruption) -> str:
    """What a user is told who has stopped a training."""
    saved = "" if stop.checkpoint is None else f"Everything is saved in {stop.checkpoint}. "
    return f"stopped by {stop}. {saved}{interruption.next_step}"


def _run_training(
    recipe: str,
    arguments: list[str],
    checkpoint: Path | None,
    run: Path | None,
    interruption: Interruption,
    watch: ProcessWatch,
) -> int:
    started = time.monotonic()
    out = console()
    start = None if checkpoint is None or run is not None else ScanClassifier.load(checkpoint)
    parser = make_parser({} if start is None else adopted(start))
    config = parse(parser, arguments)
    known = None if run is None else read_progress(run)
    if run is not None and known is not None:
        recipe = known.recipe
        check_same_run(
            parse(parser, ["--config", str(private_config(run)), *(word for word in arguments if word == TRUST)]), config
        )
    seed_everything(config.seed_everything, workers=True, verbose=False)
    stages = _stages(config)
    progress = Progress() if run is None else find_progress(run, stages)
    if run is not None and progress.finished == len(stages) and known is not None and known.is_reported:
        key = f"stages.{stages[-1].name}.max_epochs" if config.stages else "trainer.max_epochs"
        out.print(f"{run} is finished. To train it longer: {resume_command(run)} --{key} N")
        return DONE
    if run is not None and checkpoint is not None and not (progress.best or progress.checkpoint):
        start = ScanClassifier.load(checkpoint)  # the run ended before its first checkpoint
    settings = _model_settings(config, stages, progress)
    requested = None if config.data.preprocessing is None else Preprocessing(**config.data.preprocessing.as_dict())
    if start is not None and checkpoint is not None:
        settings = with_weights_of(start, settings, requested, checkpoint)
        requested = start.preprocessing or requested
    _check(config, settings)
    # The stored configuration describes the run, so it gets the preprocessing that is used.
    preprocessing = settle_preprocessing(Path(config.data.root) if config.data.root else None, requested)
    config.data.preprocessing = Namespace(preprocessing.to_dict())
    config.trainer.precision = config.trainer.precision or best_precision(str(config.trainer.accelerator))
    if config.plan:
        plan_training(config, settings, out)
        return DONE
    settled = _settle(config, settings, recipe)
    settings = merged(settings, {"encoder": {"slices_per_chunk": settled.slices_per_chunk}})
    folder = Path(settled.folder)

    def begin() -> None:
        """Write what the run is resumed with."""
        interruption.next_step = "Give the same command again."
        write_progress(folder, RunProgress(recipe, _epochs(stages[: progress.finished]), False))
        write_config(folder, config, parser)
        interruption.next_step = go_on_with(folder)

    with claimed_run(folder, resumed=run is not None) if rank() == 0 else nullcontext():
        if rank() == 0 and run is None:
            begin()
        # The data come before the model, so that their errors show before any weights are downloaded.
        built = parser.instantiate(config.clone())
        data = _make_data(built, folder)
        data.preprocessing.check_windows(settings.windows.channels)  # here, because caching may take hours
        if rank() == 0:
            _prepare(data, config, folder, resumed=run is not None)
            if run is not None:
                begin()  # now, because a resumed run stays as it was if these data are refused
        classifier = ScanClassifier.from_settings(settings)
        if start is not None:
            classifier.load_weights_from(start)
        if rank() == 0:
            slices = {subset: sum(len(scan.slice_labels) for scan in scans) for subset, scans in data.scans.items()}
            check_room(folder, classifier, stages, slices)
            out.print(f"{recipe}: {counts_in_words(data)}")
            for line in describe_training(classifier, config, stages, folder, progress, slices):
                out.print(line)

        features = folder / PRIVATE / FEATURES

        def trainer_of(stage: Stage, is_last: bool) -> Trainer:
            number = stages.index(stage) + 1
            # Each stage has its own seed, so that a run that is resumed at its start draws the same numbers.
            seed = sample_seed(config.seed_everything, number, str(rank()), purpose="stage")
            seed_everything(seed, workers=True, verbose=False)
            place = stage_folder(folder, number, stage.name, is_last=is_last)
            resumed = progress.checkpoint if number == progress.finished + 1 else None
            shown = stage.name if len(stages) > 1 else ""
            own = [watch, LastCheckpoint(place / "checkpoints", minutes=built.checkpoint_minutes, interruption=interruption)]
            trainer = make_trainer(built, stage, place, folder, own, shown=shown, resumed=resumed)
            connect_anew(trainer)
            return trainer

        def note(done: Progress) -> None:
            if rank() == 0:
                write_progress(folder, RunProgress(recipe, _epochs(stages[: done.finished]), False))

        with handed_over(settled):
            best = fit_stages(
                classifier,
                data,
                stages,
                trainer_of,
                best_of=best_of,
                progress=progress,
                on_finished=note,
                stored=StoredFeatures(folder=features, show=lambda: progress_bar(out)),
            )
        if rank() != 0:
            return DONE
        results = _write_model_and_report(recipe, folder, best, config, data, started)
        write_progress(folder, RunProgress(recipe, _epochs(stages), True))
        shutil.rmtree(features, ignore_errors=True)
        interruption.next_step = f"The run is finished. Report: {folder / 'report.html'}"
    print_results(out, results)
    if config.phantom is not None:
        out.print("These are synthetic heads: the figures show that the software works, but say nothing about real hemorrhage.")
    out.print(f"Done in {results['seconds']:.0f} s. Report: {folder / 'report.html'}")
    out.print(f"Next: ich-predict PATH --checkpoint {folder} --out predictions")
    return DONE


def _model_settings(config: Namespace, stages: Sequence[Stage], progress: Progress) -> ClassifierSettings:
    """The settings of the model, checked together with those of each stage before the data are read.

    Args:
        config: The configuration.
        stages: All stages.
        progress: How far a resumed run has come. If it has weights, none are downloaded.
    """
    settings = merged(ClassifierSettings(), _without_auto(config.model), where="model")
    if progress.best or progress.checkpoint:
        settings = merged(settings, {"encoder": {"pretrained": False, "pretrained_file": None}})
    for stage in stages:
        stage.settings(settings)  # raises if settings contradict each other
    return settings


def _write_model_and_report(
    recipe: str, folder: Path, best: Path, config: Namespace, data: ScanDataModule, started: float
) -> dict[str, Any]:
    """Write the model and the report of a finished training.

    Args:
        recipe: Name of the recipe.
        folder: The run's folder.
        best: The checkpoint with the best weights.
        config: The configuration.
        data: The data.
        started: When this command began, by `time.monotonic`.

    Returns:
        The contents of ``results.json``.
    """
    classifier = ScanClassifier.load(best).to(training_device(str(config.trainer.accelerator)))
    classifier.save_pretrained(folder / "model")
    with progress_bar(console()) as show:
        results = evaluate_run(folder, classifier, data, show)
    results["seconds"] = round(time.monotonic() - started, 1)
    write_run_report(recipe, folder, results)
    return results


def _stages(config: Namespace) -> list[Stage]:
    """The stages of a configuration, each with the number of epochs that it trains at most."""
    most = config.trainer.max_epochs
    given = [Stage.from_recipe(name, stage) for name, stage in (config.stages or {}).items()]
    given = given or [Stage(name="joint", max_epochs=most or DEFAULT_EPOCHS)]
    return [replace(stage, max_epochs=min(stage.max_epochs, most)) if most else stage for stage in given]


def _epochs(stages: Sequence[Stage]) -> dict[str, int]:
    return {stage.name: stage.max_epochs for stage in stages}


def _without_auto(model: Namespace) -> dict[str, Any]:
    """The configuration of the model with null instead of ``auto``, until the number is known."""
    given: dict[str, Any] = model.clone().as_dict()
    if given["encoder"]["slices_per_chunk"] == AUTO:
        given["encoder"]["slices_per_chunk"] = None
    return given


def _check(config: Namespace, settings: ClassifierSettings) -> None:
    """Check that everything the configuration needs is available, before hours of planning, reading and auditing.

    Raises:
        SourceError: If the root of the data is missing or empty.
        ConfigError: If ``trainer.sync_batchnorm`` is set, or a logger or the pretrained weights are not available.
    """
    if config.trainer.sync_batchnorm:
        raise ConfigError(
            "wrong_usage",
            where="trainer.sync_batchnorm",
            got="true",
            expected="false, because torch's conversion loses the activation functions of some of timm's layers",
            todo="Set model.encoder.batch_norm=synchronized.",
        )
    if rank() != 0:
        return
    check_logging(wandb=config.wandb, tensorboard=config.tensorboard)
    if config.data.root is not None:
        next(walk_source(Path(config.data.root).absolute()))
    if not config.plan:  # a plan needs no weights
        check_pretrained(settings.encoder)


def _settle(config: Namespace, settings: ClassifierSettings, recipe: str) -> Settled:
    """Determine the run's folder and the numbers for ``auto``, or take them over from the process that started this one.

    Args:
        config: The configuration; the folder and the numbers are written into it.
        settings: Settings of the model.
        recipe: Name of the recipe.

    Raises:
        ConfigError: If another program started all processes, so that this one cannot learn the values of the first, and the
            folder or a number is not given.
    """
    settled = None if rank() == 0 else settled_before()
    if settled is None:
        if wants_plan(config):
            if rank() != 0:
                raise ConfigError(
                    "auto_unresolved",
                    where="data.batches.slices, model.encoder.slices_per_chunk",
                    got="auto, in one of several processes that another program started",
                    expected="numbers",
                    todo="Find the numbers with ich-train --plan in one process, and give them.",
                )
            plan = plan_training(config, settings, console())
            if config.data.batches.slices == AUTO:
                config.data.batches.slices = plan.slices_per_batch
            if config.model.encoder.slices_per_chunk == AUTO:
                config.model.encoder.slices_per_chunk = plan.slices_per_chunk
        if rank() != 0 and config.out is None:
            raise ConfigError(
                "no_out", where="--out", got="nothing", expected="one folder for all processes", todo="Give --out DIR."
            )
        config.out = name_folder(config.out, recipe) if rank() == 0 else config.out
        return Settled(str(config.out), config.data.batches.slices, config.model.encoder.slices_per_chunk)
    config.out = Path(settled.folder)
    config.data.batches.slices = settled.slices_per_batch
    config.model.encoder.slices_per_chunk = settled.slices_per_chunk
    return settled


def _make_data(built: Namespace, folder: Path) -> ScanDataModule:
    """Make the data module; synthetic heads lie in the run's folder."""
    given = built.data
    if built.phantom is not None and given.root is None:
        given.root = folder / "phantom"
        given.cache_dir = given.cache_dir or folder / PRIVATE / "prepared"
    return ScanDataModule(**{**vars(given), "batches": Batches(**vars(given.batches))}, seed=built.seed_everything)


def _prepare(data: ScanDataModule, config: Namespace, folder: Path, *, resumed: bool) -> None:
    """Make synthetic heads if requested; read, cache and audit the scans, and write the split.

    Args:
        data: The data.
        config: The configuration.
        folder: The run's folder.
        resumed: Whether the run is resumed, so that the data must be those with which it was begun.
    """
    out = console()
    with progress_bar(out) as progress:
        if config.phantom is not None:
            settings = PhantomSettings(**vars(config.phantom))
            what = "making synthetic heads"
            progress(what, 0, settings.patients)
            write_phantom(settings, folder / "phantom", progress=lambda done: progress(what, done, settings.patients))
        data.progress = progress
        data.prepare_data()
        data.progress = None
    try:
        data.setup("fit")
    finally:
        if data.audit is not None:  # the audit is reported even if it stops the training
            report_audit(data.audit, folder, out)
    check_same_data(folder, data, resumed=resumed)
    if data.patients is not None:
        data.patients.write(private_folder(folder) / SPLIT_FILE)


def _quiet() -> None:
    """Silence the messages of Lightning and torch that a user cannot act on."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    # The number of workers is chosen on purpose: on two cores, a loader process would take a core from the network.
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    # The run's folder holds the configuration and the data before the log begins.
    warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty.*")
    # Stages freeze parts of the model, which then stay in evaluation mode.
    warnings.filterwarnings("ignore", message="Found .* module.s. in eval mode at the start of training.*")
    # Lightning 2.6 calls a deprecated function of torch.
    warnings.filterwarnings("ignore", message=".*isinstance\\(treespec, LeafSpec\\).*")
    # Lightning steps the scheduler after the optimizer. The warning appears because the AMP scaler may skip the first step.
    warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*before.*optimizer.step.*")
