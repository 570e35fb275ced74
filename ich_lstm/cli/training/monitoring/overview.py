"""What ich-train says before the first step: the network, the batches, the files, and the room that they need."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from jsonargparse import Namespace

from ich_lstm.errors import StorageError
from ich_lstm.files.full_disk import in_bytes
from ich_lstm.training.classifier import ScanClassifier
from ich_lstm.training.stages import Progress, Stage

FILES = 3
"""Checkpoints of a stage: the best, the last and the one before it."""


def describe_training(
    classifier: ScanClassifier, config: Namespace, stages: Sequence[Stage], folder: Path, progress: Progress
) -> Iterator[str]:
    """Describe what a training is about to do.

    Args:
        classifier: The model.
        config: The configuration of the run.
        stages: All stages.
        folder: The run's folder.
        progress: How far a resumed run has come.

    Yields:
        Lines for the terminal.
    """
    encoder = sum(weights.numel() for weights in classifier.model.encoder.parameters())
    total = sum(weights.numel() for weights in classifier.model.parameters())
    name = classifier.settings.encoder.backbone
    yield f"  network: {total / 1e6:,.1f} million parameters, {encoder / 1e6:,.1f} million of them in {name}"
    slices, accumulated = config.data.batches.slices, config.trainer.accumulate_grad_batches
    processes = f" in each of {config.trainer.devices} processes" if str(config.trainer.devices) not in ("auto", "1") else ""
    times = f", {accumulated} batches for each step" if accumulated > 1 else ""
    yield f"  batch: up to {slices} slices{processes}{times}, {config.trainer.precision}"
    plan = ", ".join(f"{stage.name} {stage.max_epochs}" for stage in stages)
    yield f"  epochs: {plan}" if len(stages) > 1 else f"  epochs: {stages[0].max_epochs}"
    yield (
        f"  files: {folder} (report.html, metrics.csv, model/, checkpoints/; what identifies patients in private/); "
        f"up to {in_bytes(room_for(classifier, stages))} of checkpoints, at least every {config.checkpoint_minutes:g} minutes"
    )
    if progress.checkpoint is not None:
        yield f"  resumed from {progress.checkpoint}"
    elif progress.finished:
        yield f"  resumed after stage {stages[progress.finished - 1].name}"


def room_for(classifier: ScanClassifier, stages: Sequence[Stage]) -> int:
    """Estimate how many bytes the checkpoints and the model of a run need.

    Args:
        classifier: The model.
        stages: All stages; each keeps its checkpoints.
    """
    weights = sum(tensor.numel() * tensor.element_size() for tensor in classifier.model.state_dict().values())
    trained = sum(tensor.numel() * tensor.element_size() for tensor in classifier.model.parameters())
    # A checkpoint has the weights, two averages of Adam for each, and the moving average if there is one.
    sizes = [weights + 2 * trained + (weights if stage.settings(classifier.settings).ema else 0) for stage in stages]
    # While a checkpoint is written, the one that it replaces is still there.
    return FILES * sum(sizes) + max(sizes, default=0) + weights


def check_room(folder: Path, classifier: ScanClassifier, stages: Sequence[Stage]) -> None:
    """Check that the checkpoints of a run fit on the disk, before hours of training.

    Args:
        folder: The run's folder.
        classifier: The model.
        stages: All stages.

    Raises:
        StorageError: ``disk_full``.
    """
    there = sum(path.stat().st_size for path in folder.rglob("*.ckpt"))
    needed = room_for(classifier, stages) - there
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise StorageError(
            "disk_full",
            where=str(folder),
            got=f"{in_bytes(free)} free",
            expected=f"about {in_bytes(needed)} for checkpoints and the model",
            todo="Make room, or give --out on another disk. Nothing has been trained yet.",
        )
