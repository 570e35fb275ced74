"""The record that a model keeps of its own training, on which the model card relies."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pytorch_lightning import Trainer

    from ich_lstm.data.datamodule import ScanDataModule


HEAD = {"all": "train", "head": "train", "encoder": "skip", "encoder-through-head": "freeze"}
"""What a record says of the head, by what was trained."""


@dataclass(frozen=True, kw_only=True)
class FitRecord:
    """One fit: a stage of a recipe, or one call of ``Trainer.fit``.

    Args:
        stage: Name of the stage; empty where the fit was none.
        encoder: Which layers of the encoder were trained: ``all``, ``none``, or ``last N layer groups``.
        head: ``train``, ``freeze``, or ``skip``: the encoder was trained alone, on single slices.
        settings: Learning rates, optimizer, schedule, loss weights and so on, in the parts of `ScanClassifier`'s settings.
        batches: How samples were made and batched, by the names of `Batches`; empty if it was not used.
        augmentation: Ranges of the geometric augmentation; empty for none.
        seed: Seed of the order and the augmentation; None if unknown.
        max_epochs: Epochs that were allowed; None or -1: no limit.
        epochs: Epochs begun when these weights were saved.
        steps: Steps of the optimizer when these weights were saved.
        precision: Lightning's name of the precision.
        processes: Processes that trained together.
        accumulated_batches: Batches of each process for a step.
        gradient_clip: Largest norm or value of the gradient; None for no clipping.
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
) -> FitRecord:
    """Record a fit as it begins.

    Args:
        trainer: The Trainer that fits.
        data: The data it fits on; None if they are not a `ScanDataModule`.
        stage: Name of the stage; empty for none.
        encoder_groups: The last so many of the encoder's layer groups are trained; None for all, 0 for none.
        trained: ``all``, ``head``, ``encoder`` or ``encoder-through-head``.
        settings: How this fit trains, in the parts of `ScanClassifier`'s settings.

    Returns:
        A record without epochs and steps.
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
    )


def begun(fits: "tuple[FitRecord, ...]") -> "tuple[FitRecord, ...]":
    """The fits that have changed the weights; what a search for a learning rate has begun is none."""
    return tuple(fit for fit in fits if fit.steps)
