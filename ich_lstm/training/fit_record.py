"""The record of its training that a model keeps; the model card is written from it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

    from ich_lstm.data.datamodule import ScanDataModule


HEAD = {"all": "train", "head": "train", "pooling": "pooling alone", "encoder": "skip", "encoder-through-head": "freeze"}
"""The value of `FitRecord.head` for each value of ``train``."""


@dataclass(frozen=True, kw_only=True)
class FitRecord:
    """One fit: a stage of a recipe, or one call of ``Trainer.fit``.

    Args:
        stage: Name of the stage; empty if the fit was not a stage.
        encoder: Which layers of the encoder were trained: ``all``, ``none``, or ``last N layer groups``.
        head: What happened to the head. ``train``: it was trained; ``pooling alone``: only its pooling from slices to the scan
            was; ``freeze``: it was used, but not trained; ``skip``: the encoder was trained without it, on single slices.
        settings: The settings that may change between stages (learning rates, schedule, loss weights and so on), nested like
            those of `ScanClassifier`.
        batches: How samples were made and batched, by the fields of `Batches`; empty without a `ScanDataModule`.
        augmentation: Ranges of the geometric augmentation, by the fields of `Geometry`; empty for none.
        seed: Seed of the order of the scans and of the augmentation; None if unknown.
        max_epochs: Limit of the number of epochs; None or -1 for no limit.
        epochs: Number of epochs that had begun when these weights were saved.
        steps: Number of optimizer steps when these weights were saved, including ``skipped_steps``.
        precision: Precision of the training, by Lightning's name.
        processes: Number of training processes.
        accumulated_batches: Number of batches per process whose gradients were accumulated for a step.
        gradient_clip: Limit of gradient clipping, for the norm or the value; None for no clipping.
        skipped_steps: Number of steps that changed nothing, because a loss or a gradient was not finite.
        returned: Whether the fit went back to a checkpoint or to its start, and went on with half the learning rates.
        reduced_chunk: Number of slices per chunk to which the fit changed because memory ran out; None if it did not.
        views: Number of augmented copies of each training scan whose features were stored beside those of the scan itself; None
            if no features were stored.
        patients: The training patients: ``all``, or by the `TrainingPatients` of the stage ``encoder`` or ``head``.
    """

    stage: str
    encoder: str
    head: str
    settings: Mapping[str, Any]
    batches: Mapping[str, Any]
    augmentation: Mapping[str, Any]
    seed: int | None
    max_epochs: int | None
    epochs: int
    steps: int
    precision: str
    processes: int
    accumulated_batches: int
    gradient_clip: float | None
    skipped_steps: int = 0
    returned: bool = False
    reduced_chunk: int | None = None
    views: int | None = None
    patients: str = "all"

    def to_dict(self) -> dict[str, Any]:
        """The record as plain values for JSON."""
        return asdict(self)


def record_fit(
    trainer: "Trainer",
    data: "ScanDataModule | None",
    *,
    stage: str,
    encoder_groups: int | None,
    trained: str,
    settings: Mapping[str, Any],
    views: int | None = None,
) -> FitRecord:
    """Record a fit when it begins.

    Args:
        trainer: The Trainer of the fit.
        data: The training data; None if they are not a `ScanDataModule`.
        stage: Name of the stage; empty if the fit is not a stage.
        encoder_groups: How many of the encoder's layer groups are trained, counted from the last; None for all, 0 for none.
        trained: What the fit trains: see `Trained`.
        settings: The settings that may change between stages, nested like those of `ScanClassifier`.
        views: Number of augmented copies whose features are stored; None if features are not stored.

    Returns:
        A record with 0 epochs and 0 steps.
    """
    augment = data.augment if data is not None else None
    clip = trainer.gradient_clip_val
    return FitRecord(
        stage=stage,
        encoder={None: "all", 0: "none"}.get(encoder_groups, f"last {encoder_groups} layer groups"),
        head=HEAD[trained],
        settings=dict(settings),
        batches={} if data is None else asdict(data.batches),
        augmentation={} if augment is None else asdict(augment),
        seed=None if data is None else data.seed,
        max_epochs=trainer.max_epochs,
        epochs=0,
        steps=0,
        precision=str(trainer.precision),
        processes=trainer.world_size,
        accumulated_batches=trainer.accumulate_grad_batches,
        gradient_clip=None if clip is None else float(clip),
        views=views,
        patients="all" if data is None else data.training_patients,
    )


def begun(fits: "tuple[FitRecord, ...]") -> "tuple[FitRecord, ...]":
    """The records of fits with at least one step. A search for a learning rate leaves a record without steps."""
    return tuple(fit for fit in fits if fit.steps)
