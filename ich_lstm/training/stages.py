"""Training in stages: each stage is a fit of its own, and starts from the weights of the stage before."""

import inspect
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from pytorch_lightning import Trainer

from ich_lstm.data.datamodule import ScanDataModule
from ich_lstm.data.loading.batches import Batches
from ich_lstm.data.split.assign import TrainingPatients
from ich_lstm.errors import CheckpointError, ConfigError
from ich_lstm.files.atomic_write import atomic_write
from ich_lstm.inference.checkpoint import read_model
from ich_lstm.printable import printable_logger
from ich_lstm.settings import merged, require_choice, staged, unknown_setting
from ich_lstm.training.checkpoints.exact_resume import monitored_in
from ich_lstm.training.classifier import MONITOR, ClassifierSettings, ScanClassifier, Trained
from ich_lstm.training.features.stored_features import FROZEN_ENCODER, StoredFeatures, check_trained, check_views

logger = printable_logger(__name__)

Features = Literal["computed", "stored"]
"""Where a stage takes the features of its frozen encoder from."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage of a training, with the settings that differ from those of the recipe.

    Args:
        name: Name in logs and folders. In a recipe, it is the key of the stage.
        max_epochs: The number of epochs, at least 1. If ``trainer.max_epochs`` is given, it is an upper bound.
        train: What the stage trains. ``all``: the whole network; ``head``: the head, with the encoder frozen; ``pooling``: only
            the pooling from slices to the scan; ``encoder``: the encoder, with the loss of its own logits, and without the head;
            ``encoder-through-head``: the encoder, with the loss of a frozen head's logits.
        encoder_groups: How many of the encoder's layer groups are trained, counted from the last, at least 1; null for all.
        features: Where the features of a frozen encoder come from. ``computed``: each batch is encoded; ``stored``: each scan is
            encoded once before the stage, which then takes a fraction of the time. Only with ``train: head`` or ``pooling``.
        views: Number of augmented copies of each training scan that are encoded beside the scan itself, at least 0; only with
            ``features: stored``.
        patients: The training patients of the stage. ``all``; ``head``: the share that ``data.head_share`` leaves to the head;
            ``encoder``: all others. A head that learns from scans that the encoder was not trained on sees features as they are
            of a new scan.
        must_improve: Whether the best weights of the stage before are kept if no epoch of this stage has a lower ``val/monitor``.
            Both stages must train the head or the whole network: after ``train: encoder`` the losses are of other logits.
        batches: Settings of `Batches` that differ in this stage: ``slices``, ``slices_per_sample`` and so on.
        trainer: Settings of Lightning's Trainer that differ in this stage.
        changes: Settings of the model that differ in this stage, by the fields of `ClassifierSettings`. In a recipe they stand
            beside the other keys: ``joint: {max_epochs: 6, optimizer: {lr: 5e-4}, ema: 0.999}``.

    Raises:
        ConfigError: If a setting is unknown or out of range, or must not change between stages.
    """

    name: str
    max_epochs: int
    train: Trained = "all"
    encoder_groups: int | None = None
    features: Features = "computed"
    views: int = 0
    patients: TrainingPatients = "all"
    must_improve: bool = False
    batches: Mapping[str, Any] = field(default_factory=dict)
    trainer: Mapping[str, Any] = field(default_factory=dict)
    changes: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_recipe(cls, name: str, given: Mapping[str, Any]) -> "Stage":
        """Read a stage of a recipe.

        Args:
            name: The key of the stage.
            given: The mapping under that key: fields of `Stage`, and settings of the model that differ in this stage.

        Raises:
            ConfigError: If a setting is unknown or out of range, must not change between stages, or ``max_epochs`` is missing.
        """
        own = {each.name for each in fields(cls)} - {"name", "changes"}
        changeable = staged(ClassifierSettings())
        for key in given:
            if key not in own and key not in changeable:
                raise unknown_setting(f"stages, {name}", key, sorted({*own, *changeable}))
        if "max_epochs" not in given:
            raise ConfigError(
                "stage_out_of_range", where=f"stages, {name}", got="no max_epochs", expected="a number of epochs, at least 1"
            )
        changes = {key: value for key, value in given.items() if key not in own}
        return cls(name=name, changes=changes, **{key: value for key, value in given.items() if key in own})

    def __post_init__(self) -> None:
        where = f"stages, {self.name}"
        if not self.name or set(self.name) & set('/\\:*?"<>|'):
            raise ConfigError(
                "stage_out_of_range", where="stages", got=f"name {self.name!r}", expected="a name that is valid for a folder"
            )
        for name, count in (("max_epochs", self.max_epochs), ("encoder_groups", self.encoder_groups)):
            if count is not None and (not isinstance(count, int) or count < 1):
                raise ConfigError(
                    "stage_out_of_range", where=f"{where}, {name}", got=str(count), expected="a whole number, at least 1"
                )
        require_choice("unknown_trained", f"{where}, train", self.train, Trained)
        require_choice("stage_out_of_range", f"{where}, features", self.features, Features)
        require_choice("stage_out_of_range", f"{where}, patients", self.patients, TrainingPatients)
        if not isinstance(self.views, int) or self.views < 0 or (self.views and self.features != "stored"):
            raise ConfigError(
                "stage_out_of_range",
                where=f"{where}, views",
                got=f"{self.views}, with features={self.features}",
                expected="a whole number, at least 0, and 0 without features=stored",
            )
        if not isinstance(self.must_improve, bool):
            raise ConfigError(
                "stage_out_of_range", where=f"{where}, must_improve", got=repr(self.must_improve), expected="true or false"
            )
        if self.features == "stored":
            check_trained(self.train, where=f"{where}, features")
        _check_changes(where, self.changes, staged(ClassifierSettings()))
        _check_changes(f"{where}, batches", self.batches, asdict(Batches()))
        _check_changes(f"{where}, trainer", self.trainer, inspect.signature(Trainer).parameters)

    def settings(self, usual: ClassifierSettings) -> ClassifierSettings:
        """The settings of the model in this stage.

        Args:
            usual: The settings of the recipe, without those of any stage.
        """
        return merged(usual, self.changes, where=f"stages, {self.name}")


def _check_encoder(classifier: ScanClassifier, first: Stage) -> None:
    """Refuse a training that begins with the head of an encoder that nobody has trained."""
    weights = (classifier.starting_weights or {}).get("encoder") or {}
    if first.train in FROZEN_ENCODER and not classifier.fits and weights.get("source") == "random":
        raise ConfigError(
            "untrained_encoder",
            where=f"stages, {first.name}, train",
            got=f"{first.train}, and an encoder with random weights",
            expected="a trained encoder",
            todo="Put a stage with train=encoder before this one, set model.encoder.pretrained=true or pretrained_file, or start "
            "from a model (--checkpoint of ich-train).",
        )


def _check_comparable(stages: Sequence[Stage]) -> None:
    """Refuse a stage that must improve on weights whose validation loss is of other logits, or on none."""
    for before, stage in zip((None, *stages), stages, strict=False):
        if stage.must_improve and (before is None or "encoder" in (before.train, stage.train)):
            raise ConfigError(
                "not_comparable",
                where=f"stages, {stage.name}, must_improve",
                got="true, in the first stage"
                if before is None
                else f"true, in a stage with train={stage.train} after one with train={before.train}",
                expected="two stages in a row that both train the head or the whole network, so that their validation losses are "
                "of the same logits",
                todo="Leave must_improve out.",
            )


def _check_changes(where: str, given: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """Refuse names that are not among the known ones, also inside nested mappings."""
    for name, value in given.items():
        if name not in known:
            error = unknown_setting(where, name, list(known))
            todo = error.todo or "No other setting may change between stages."
            raise ConfigError(error.code, where=where, got=name, expected=error.expected, todo=todo)
        if isinstance(value, Mapping) and isinstance(known[name], Mapping):
            _check_changes(f"{where}, {name}", value, known[name])


@dataclass(frozen=True)
class Progress:
    """How far a training in stages has come.

    Args:
        finished: Number of finished stages, from the first.
        best: The best checkpoint of the last finished stage; None if no stage is finished.
        checkpoint: The checkpoint from which the next stage is resumed; None if that stage begins anew.
    """

    finished: int = 0
    best: Path | None = None
    checkpoint: Path | None = None


def fit_stages(
    classifier: ScanClassifier,
    data: ScanDataModule,
    stages: Sequence[Stage],
    trainer_of: Callable[[Stage, bool], Trainer],
    *,
    best_of: Callable[[Trainer], str],
    progress: Progress = Progress(),
    on_finished: Callable[[Progress], None] = lambda progress: None,
    stored: StoredFeatures | None = None,
) -> Path:
    """Fit one stage after the other. Each stage starts from the best weights of the stage before.

    Every stage is a separate fit with its own optimizer, batches and DDP wrapper, because the frozen layers must not change
    inside a fit: the processes of DDP would silently diverge.

    Args:
        classifier: The model. After the last fit it holds that fit's final weights, not its best ones.
        data: The data.
        stages: The stages, in the order in which they are fitted.
        trainer_of: Makes the Trainer of a stage. Its second argument is True for the last stage.
        best_of: Gives the path of the best checkpoint that a Trainer has written.
        progress: How far an interrupted training has come that is resumed. Its best checkpoint may be a model's folder, unless
            the next stage must improve on it.
        on_finished: Called in every process after each stage, with the progress of the training.
        stored: Where stages with ``features: stored`` store them; their number of views is the stage's. None if there is none.

    Returns:
        The best checkpoint of the last stage.

    Raises:
        CheckpointError: ``no_epoch``, if a stage ended without a checkpoint.
        ConfigError: ``no_stage``, if there is no stage; ``untrained_encoder``, if the first one trains the head of an encoder
            with random weights; ``not_comparable``, if a stage must improve on other logits than its own;
            ``no_training_patients``, if no share is left to a stage; ``no_place_for_features``, if ``stored`` is missing.
    """
    if not stages:
        raise ConfigError("no_stage", where="stages", got="none", expected="at least one stage")
    _check_comparable(stages)
    if progress == Progress():
        _check_encoder(classifier, stages[0])
    without = [stage.name for stage in stages if stage.patients == "head" and not data.head_share]
    if without:
        raise ConfigError(
            "no_training_patients",
            where=f"stages, {', '.join(without)}, patients; data.head_share",
            got="head, and 0",
            expected="a share of the training patients that is left to the head",
            todo="Set data.head_share, for example to 0.3.",
        )
    storing = [stage.name for stage in stages if stage.features == "stored"]
    if storing and stored is None:
        raise ConfigError(
            "no_place_for_features",
            where=f"fit_stages, stored; stages {', '.join(storing)}",
            got="None",
            expected="a StoredFeatures with a folder",
        )
    usual = classifier.settings
    batches = data.batches
    for stage in stages:
        if stage.features == "stored":  # now, and not only after the hours of the stages before
            cutmix = merged(batches, stage.batches, where=f"stages, {stage.name}, batches").cutmix
            check_views(stage.views, usual.windows.intensity, data, cutmix=cutmix)
    best, checkpoint = progress.best, progress.checkpoint
    for number, stage in enumerate(stages):
        if number < progress.finished:
            continue
        if best is not None:
            classifier.continue_from(read_model(best))
        classifier.use_settings(stage.settings(usual))
        place = replace(stored, views=stage.views) if stored is not None and stage.features == "stored" else None
        if place is not None and best is None and checkpoint is not None:
            # Features are stored before Lightning loads the checkpoint, whose encoder has the weights that the fit began with.
            classifier.continue_from(read_model(checkpoint))
        classifier.choose_trained(stage.train, encoder_groups=stage.encoder_groups, stored=place)
        classifier.stage_name = stage.name
        data.training_patients = stage.patients
        data.batches = merged(batches, stage.batches, where=f"stages, {stage.name}, batches")
        trainer = trainer_of(stage, number == len(stages) - 1)
        trainer.fit(classifier, data, ckpt_path=checkpoint)
        # All processes read what the first one wrote.
        written = trainer.strategy.broadcast(best_of(trainer))
        trainer.strategy.barrier()
        if not written or not Path(written).is_file():
            raise CheckpointError(
                "no_epoch", where=f"stage {stage.name}", got="no finished epoch", todo="Raise max_epochs of the stage."
            )
        if stage.must_improve and best is not None:
            _keep_better(best, Path(written), stage, trainer)
        best, checkpoint = Path(written), None
        on_finished(Progress(number + 1, best))
    data.training_patients = "all"
    assert best is not None
    return best


def _keep_better(before: Path, written: Path, stage: Stage, trainer: Trainer) -> None:
    """Put the weights that a stage began with in the place of its best ones, if those are not better.

    Args:
        before: The best checkpoint of the stage before.
        written: The best checkpoint of this stage.
        stage: The stage.
        trainer: Its Trainer.
    """
    if trainer.is_global_zero:
        was, now = (monitored_in(path).get(MONITOR, math.nan) for path in (before, written))
        if not now < was:
            with atomic_write(written) as unfinished:
                shutil.copyfile(before, unfinished)
            logger.warning(
                "stage %s: its best validation loss, %.4f, is not below the %.4f of the stage before, whose weights are kept",
                stage.name,
                now,
                was,
            )
    trainer.strategy.barrier()
