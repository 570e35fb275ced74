"""What ich-train says before the first step: the network, the batches, the files, and the room that they need."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from jsonargparse import Namespace

from ich_lstm.data.split.assign import Subset
from ich_lstm.errors import StorageError
from ich_lstm.files.full_disk import in_bytes
from ich_lstm.formatting import first_of
from ich_lstm.privacy import PRIVATE
from ich_lstm.training.classifier import ScanClassifier
from ich_lstm.training.features.stored_features import bytes_of_features
from ich_lstm.training.stages import Progress, Stage

FEATURES = "features"
"""Name of the folder of stored features, below the private folder."""

FILES = 3
"""Checkpoints of a stage: the best, the last and the one before it."""


def describe_training(
    classifier: ScanClassifier,
    config: Namespace,
    stages: Sequence[Stage],
    folder: Path,
    progress: Progress,
    slices: Mapping[Subset, int],
) -> Iterator[str]:
    """Describe what a training is about to do.

    Args:
        classifier: The model.
        config: The configuration of the run.
        stages: All stages.
        folder: The run's folder.
        progress: How far a resumed run has come.
        slices: Number of slices of each subset, by its name.

    Yields:
        Lines for the terminal.
    """
    encoder = sum(weights.numel() for weights in classifier.model.encoder.parameters())
    total = sum(weights.numel() for weights in classifier.model.parameters())
    name = classifier.settings.encoder.backbone
    yield f"  network: {total / 1e6:,.1f} million parameters, {encoder / 1e6:,.1f} million of them in {name}"
    most, accumulated = config.data.batches.slices, config.trainer.accumulate_grad_batches
    processes = f" in each of {config.trainer.devices} processes" if str(config.trainer.devices) not in ("auto", "1") else ""
    times = f", {accumulated} batches for each step" if accumulated > 1 else ""
    yield f"  batch: up to {most} slices{processes}{times}, {config.trainer.precision}"
    plan = ", ".join(f"{stage.name} {stage.max_epochs}" for stage in stages)
    yield f"  epochs: {plan}" if len(stages) > 1 else f"  epochs: {stages[0].max_epochs}"
    yield (
        f"  files: {folder} (report.html, metrics.csv, model/, checkpoints/; what identifies patients in private/); "
        f"up to {in_bytes(room_for(classifier, stages))} of checkpoints, at least every {config.checkpoint_minutes:g} minutes"
    )
    storing = [stage for stage in stages if stage.features == "stored"]
    if storing:
        width, room = classifier.model.encoder.out_features, in_bytes(room_for_features(classifier, stages, slices))
        yield (
            f"  features: {width:,} of each slice are stored for {first_of(stage.name for stage in storing)}; up to {room} in "
            f"{folder / PRIVATE / FEATURES}, until the report is written"
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


def room_for_features(classifier: ScanClassifier, stages: Sequence[Stage], slices: Mapping[Subset, int]) -> int:
    """How many bytes the stored features of a run need at most: those of each stage lie there until the run ends.

    Args:
        classifier: The model.
        stages: All stages.
        slices: Number of slices of each subset, by its name.
    """
    width = classifier.model.encoder.out_features
    return sum(bytes_of_features(width, slices, stage.views) for stage in stages if stage.features == "stored")


def check_room(folder: Path, classifier: ScanClassifier, stages: Sequence[Stage], slices: Mapping[Subset, int]) -> None:
    """Check that the checkpoints and the stored features of a run fit on the disk, before hours of training.

    Args:
        folder: The run's folder.
        classifier: The model.
        stages: All stages.
        slices: Number of slices of each subset, by its name.

    Raises:
        StorageError: ``disk_full``.
    """
    stored = (folder / PRIVATE / FEATURES).rglob("*")
    there = sum(path.stat().st_size for path in [*folder.rglob("*.ckpt"), *stored] if path.is_file())
    features = room_for_features(classifier, stages, slices)
    needed = room_for(classifier, stages) + features - there
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    if free < needed:
        raise StorageError(
            "disk_full",
            where=str(folder),
            got=f"{in_bytes(free)} free",
            expected=f"about {in_bytes(needed)} for checkpoints{', stored features' if features else ''} and the model",
            todo="Make room, or give --out on another disk. Nothing has been trained yet.",
        )
