"""Stored features of a fit whose encoder is frozen: each scan is encoded once, in whatever number of processes."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pytorch_lightning import Trainer

from ich_lstm.errors import ConfigError
from ich_lstm.inference.checkpoint import SavedModel
from ich_lstm.inference.forward import evaluating
from ich_lstm.models.execution.compiled import unwrapped
from ich_lstm.models.scan_model import ScanModel
from ich_lstm.settings import require, to_stored

if TYPE_CHECKING:
    from ich_lstm.data.datamodule import ScanDataModule
    from ich_lstm.data.features.feature_dataset import ScanFeatures
    from ich_lstm.data.features.feature_store import FeatureStore, StoredView
    from ich_lstm.data.joining.join import LabelledScan
    from ich_lstm.data.split.assign import Subset

Progress = Callable[[str, int, int], None]
"""Takes the name of an activity, the number of items that are done since the last call, and the number of all items."""

FROZEN_ENCODER = ("head", "pooling")
"""What a fit can train with a frozen encoder, see `Trained`."""

ENCODING = "encoding scans"
"""Name of the activity in progress lines."""


def _silent() -> AbstractContextManager[Progress]:
    return nullcontext(lambda what, done, total: None)


@dataclass(frozen=True, kw_only=True)
class StoredFeatures:
    """How a fit with a frozen encoder stores the encoder's features.

    Args:
        folder: Folder for the features; scans that are stored there already are not encoded again. Features of other weights,
            another preprocessing or other augmentations lie in folders of their own below it.
        views: Number of augmented copies of each training scan that are encoded beside the scan itself, at least 0. They are
            drawn by the seed of the data, and training goes through them from epoch to epoch.
        mirrored: Whether to encode the left-right mirror images of the scans in their place, as test-time augmentation does.
        show: Makes a context that shows the progress of encoding.

    Raises:
        ConfigError: ``training_out_of_range``, if ``views`` is below 0.
    """

    folder: Path
    views: int = 0
    mirrored: bool = False
    show: Callable[[], AbstractContextManager[Progress]] = _silent

    def __post_init__(self) -> None:
        require("training_out_of_range", "a whole number, at least 0", {} if self.views >= 0 else {"views": self.views})


def check_trained(trained: str, *, where: str) -> None:
    """Refuse to store features that a fit changes.

    Args:
        trained: What the fit trains, see `Trained`.
        where: Name of the setting in the error.

    Raises:
        ConfigError: ``features_change``, if the fit trains the encoder.
    """
    if trained not in FROZEN_ENCODER:
        raise ConfigError(
            "features_change",
            where=where,
            got=f"stored, with train={trained}",
            expected="train=head or train=pooling, because the features of an encoder that is trained change with every step",
            todo="Set train=head, or features=computed.",
        )


class _Job(NamedTuple):
    """A scan that has to be encoded, or a copy of it."""

    scan: "LabelledScan"
    view: "StoredView"


def store_features(model: ScanModel, trainer: Trainer, data: "ScanDataModule | None", wanted: StoredFeatures) -> "ScanFeatures":
    """Encode all scans of a fit that are not stored yet: training scans and their copies, and validation scans.

    The work is shared by all processes of the training. What a killed training has stored is used by the next one.

    Args:
        model: The model, with the weights of the encoder that the fit starts from.
        trainer: The Trainer of the fit that is about to begin.
        data: The data, after `setup`; None if the fit has no `ScanDataModule`.
        wanted: Where features are stored, and of how many copies.

    Returns:
        The stored features, for the attribute ``features`` of the data.

    Raises:
        ConfigError: If the data cannot be stored, or copies would all be equal.
        CacheError: ``other_features``, or ``features_missing`` if another process has stored them elsewhere.
        StorageError: ``disk_full``, before anything is encoded.
        TrainingError: ``features_not_stored``, if a feature is not finite, or too large for float16.
    """
    from ich_lstm.data.features.feature_dataset import ScanFeatures
    from ich_lstm.data.features.feature_store import FeatureStore, StoredView

    if data is None:
        raise ConfigError(
            "no_data",
            where="features=stored",
            got="a fit without a ScanDataModule",
            expected="a ScanDataModule, whose scans are encoded once",
            todo="Call Trainer.fit(model, ScanDataModule(...)).",
        )
    check_views(wanted.views, model.settings.windows.intensity, data, cutmix=data.batches.cutmix)
    count, source = model.encoder.out_features, _source(model, trainer, data) | ({"mirrored": True} if wanted.mirrored else {})
    opened: list[FeatureStore] = []
    for each in [source] + [source | _augmentation(model, data)] * bool(wanted.views):
        if not trainer.is_global_zero:
            trainer.strategy.barrier()  # the first process makes the folder
        opened.append(FeatureStore.open(wanted.folder, count, each))
        if trainer.is_global_zero:
            trainer.strategy.barrier()
    features = ScanFeatures(opened[0], opened[1] if wanted.views else None, wanted.views)
    training = data.training_scans()
    of_views = [[*training, *data.scans["validation"]], *[training] * wanted.views]
    missing = [
        (store, [_Job(scan, view) for scan in scans if (view := StoredView(scan.cache_path.stem, number)) not in store])
        for number, scans in enumerate(of_views)
        for store in [opened[min(number, len(opened) - 1)]]
    ]
    total = sum(len(jobs) for _, jobs in missing)
    opened[0].check_room(sum(len(job.scan.slice_labels) for _, jobs in missing for job in jobs))
    if total:
        with wanted.show() as progress:
            for store, jobs in missing:
                _encode(model, trainer, data, store, jobs, lambda done: progress(ENCODING, done, total), wanted.mirrored)
    trainer.strategy.barrier()
    for store in opened:
        store.read_index()
    return features


def _encode(
    model: ScanModel,
    trainer: Trainer,
    data: "ScanDataModule",
    store: "FeatureStore",
    jobs: Sequence[_Job],
    progress: Callable[[int], None],
    mirrored: bool,
) -> None:
    """Encode this process's share of scans, all of one view.

    Args:
        model: The model.
        trainer: The Trainer.
        data: The data.
        store: Where the features are stored.
        jobs: The scans of all processes.
        progress: Called with the number of scans that all processes have encoded since the last call.
        mirrored: Whether to encode the left-right mirror images.
    """
    mine = jobs[trainer.global_rank :: trainer.world_size]
    if not mine:
        return
    device, view = trainer.strategy.root_device, mine[0].view.view
    model.to(device)
    with store.writer() as writer, evaluating(model), trainer.precision_plugin.forward_context():
        model.windows.train(view > 0)  # in which mode they are augmented
        for job, batch in zip(mine, data.view_loader([job.scan for job in mine], view), strict=True):
            hu = batch.hu.flip(-1) if mirrored else batch.hu
            features = model.encode(hu.to(device), batch.lengths, batch.draws.to(device))
            writer.add(job.view, features.float().cpu().numpy(), batch.positions_mm.numpy(), shown=job.scan.scan_id)
            progress(trainer.world_size)


def _source(model: ScanModel, trainer: Trainer, data: "ScanDataModule") -> dict[str, Any]:
    """What the features of a scan as it is depend on, in plain values."""
    settings = model.settings
    parts = {"encoder": model.encoder, "windows": model.windows}
    weights = {f"{name}.{key}": value for name, part in parts.items() for key, value in unwrapped(part).state_dict().items()}
    return {
        "weights": SavedModel({}, weights).hash,
        "backbone": settings.encoder.backbone,
        "global_pool": settings.encoder.global_pool,
        "adjacent_slices": settings.encoder.adjacent_slices,
        "windows": to_stored(settings.windows),
        "preprocessing": data.preprocessing.to_dict(),
        "precision": str(trainer.precision),
    }


def _augmentation(model: ScanModel, data: "ScanDataModule") -> dict[str, Any]:
    """What augmented copies depend on beside the source, in plain values."""
    parts = {"augment": data.augment, "intensity": model.settings.windows.intensity}
    return {"seed": data.seed, **{name: None if part is None else asdict(part) for name, part in parts.items()}}


def check_views(views: int, intensity: object | None, data: "ScanDataModule", *, cutmix: float) -> None:
    """Refuse copies that would all be equal, and mixing of slices, which needs their pixels.

    Args:
        views: Number of augmented copies of each training scan.
        intensity: The model's augmentation of the windows; None if there is none.
        data: The data.
        cutmix: Share of batches whose slices are mixed.

    Raises:
        ConfigError: ``equal_views`` or ``cutmix_of_features``.
    """
    if views and data.augment is None and intensity is None:
        raise ConfigError(
            "equal_views",
            where="views, data.augment, model.windows.intensity",
            got=f"{views} copies of each scan, and no augmentation",
            expected="an augmentation, because all copies would be equal without one",
            todo="Set views=0, or give data.augment.",
        )
    if cutmix:
        raise ConfigError(
            "cutmix_of_features",
            where="data.batches.cutmix",
            got=f"{cutmix:g}, and stored features",
            expected="0, because CutMix mixes the pixels of slices, and each scan is encoded only once",
            todo="Set batches.cutmix=0 in this stage, or features=computed.",
        )


def bytes_of_features(features: int, slices: "Mapping[Subset, int]", views: int) -> int:
    """How many bytes the stored features of a fit need.

    Args:
        features: Number of features of a slice, d.
        slices: Number of slices of each subset of the data, by its name.
        views: Number of augmented copies of each training scan.
    """
    from ich_lstm.data.features.feature_store import bytes_per_slice

    return bytes_per_slice(features) * (slices["train"] * (views + 1) + slices["validation"])
