"""Training in stages: each stage is a fit of its own, and starts from the weights of the stage before."""

import difflib
import inspect
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from pytorch_lightning import Trainer

from ich_lstm.data.datamodule import ScanDataModule
from ich_lstm.data.loading.batching import BATCHING
from ich_lstm.errors import CheckpointError, ConfigError
from ich_lstm.inference.checkpoint import read_model
from ich_lstm.models.compiled import unwrapped
from ich_lstm.training.classifier import STAGED, HeadMode, ScanClassifier
from ich_lstm.training.fit_record import FitRecord


@dataclass(frozen=True, kw_only=True)
class StageSettings:
    """What differs in a part of a training from the recipe's other settings.

    Args:
        max_epochs: Epochs; ``trainer.max_epochs``, where given, is an upper bound.
        encoder: ``train``, ``freeze``, or a number: train the last so many of the encoder's layer groups.
        head: ``train``, ``freeze``, or ``skip``: train the encoder alone, on its own logits.
        model: Rates, loss weights and so on of this stage; see `STAGED`.
        data: Batches of this stage: ``slices_per_batch``, ``slices_per_sample`` and so on.
        trainer: Settings of Lightning's Trainer in this stage.
    """

    max_epochs: int
    encoder: Literal["train", "freeze"] | int = "train"
    head: HeadMode = "train"
    model: dict[str, Any] = field(default_factory=dict)
    data: dict[str, Any] = field(default_factory=dict)
    trainer: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"stages, {getattr(self, 'name', '')}".rstrip(", ")
        if self.max_epochs < 1:
            raise ConfigError("stage_out_of_range", where=where, got=f"max_epochs {self.max_epochs}", expected="at least 1 epoch")
        if isinstance(self.encoder, int) and self.encoder < 1:
            raise ConfigError(
                "stage_out_of_range",
                where=f"{where}, encoder",
                got=str(self.encoder),
                expected="train, freeze, or at least 1 layer group",
            )
        _check_names(f"{where}, model", self.model, STAGED)
        _check_names(f"{where}, data", self.data, BATCHING)
        _check_names(f"{where}, trainer", self.trainer, tuple(inspect.signature(Trainer).parameters))

    @property
    def encoder_groups(self) -> int | None:
        """Layer groups of the encoder that are trained: None for all, 0 for none."""
        return {"train": None, "freeze": 0}[self.encoder] if isinstance(self.encoder, str) else self.encoder


@dataclass(frozen=True, kw_only=True)
class Stage(StageSettings):
    """A part of a training, with its name and what differs from the recipe's other settings.

    Args:
        name: For logs and folders; in a recipe, the key under which the settings stand.
    """

    name: str

    def __post_init__(self) -> None:
        if not self.name or set(self.name) & set('/\\:*?"<>|'):
            raise ConfigError(
                "stage_out_of_range", where="stages", got=f"name {self.name!r}", expected="a name that can be a folder's"
            )
        super().__post_init__()


def _check_names(where: str, given: Iterable[str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(
                "unknown_setting",
                where=where,
                got=name,
                expected=f"one of {', '.join(known)}",
                todo=f"Did you mean {near[0]}?" if near else "All else cannot change between stages.",
            )


def fit_stages(
    classifier: ScanClassifier,
    data: ScanDataModule,
    stages: Sequence[Stage],
    trainer_of: Callable[[Stage, bool], Trainer],
    *,
    best_of: Callable[[Trainer], str],
) -> Trainer:
    """Fit one stage after the other; each begins with the best weights of the one before.

    Every stage is a fit of its own, with its own optimizer, batches, and wrapping of the model: what is frozen must not
    change inside a fit, for the processes of DDP would then diverge in silence.

    Args:
        classifier: The model; after the fits it holds the last stage's weights.
        data: The data.
        stages: In their order.
        trainer_of: Makes the Trainer of a stage; is told whether it is the last.
        best_of: The path of the best checkpoint that a Trainer has written.

    Returns:
        The Trainer of the last stage.

    Raises:
        CheckpointError: If a stage ended without any checkpoint.
    """
    usual = classifier.staged_settings
    batching = data.batching
    trainer = None
    for number, stage in enumerate(stages):
        classifier.change_training(**(usual | stage.model))
        classifier.choose_parts(encoder=stage.encoder_groups, head=stage.head)
        classifier.stage_name = stage.name
        data.set_batching(**(batching | stage.data))
        trainer = trainer_of(stage, number == len(stages) - 1)
        trainer.fit(classifier, data)
        # All processes read what the first one wrote.
        best = trainer.strategy.broadcast(best_of(trainer))
        trainer.strategy.barrier()
        if not best or not Path(best).is_file():
            raise CheckpointError(
                "no_epoch", where=f"stage {stage.name}", got="no epoch was finished", todo="Raise max_epochs of the stage."
            )
        if number < len(stages) - 1:
            saved = read_model(Path(best))
            with torch.no_grad():
                unwrapped(classifier.model).load_state_dict(saved.weights)
            # The best epoch's records: what was trained after it is not in the weights.
            classifier.fits = tuple(FitRecord(**fit) for fit in saved.about["fits"])
    if trainer is None:
        raise ConfigError("no_stage", where="stages", got="none", expected="at least one stage")
    return trainer
