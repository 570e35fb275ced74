"""Fits the feature reduction to training slices, before the first step of a fit."""

from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import Trainer

from ich_lstm.errors import ConfigError
from ich_lstm.inference.forward import evaluating
from ich_lstm.models.scan_model import ScanModel

if TYPE_CHECKING:
    from ich_lstm.data.datamodule import ScanDataModule
    from ich_lstm.data.loading.batch import FeatureBatch, ScanBatch


def fit_reducer(model: ScanModel, trainer: Trainer, data: "ScanDataModule | None", slices: int) -> None:
    """Fit a model's reducer to the encoder's features of training slices. One process fits it, and all processes load the result.

    Args:
        model: The model, with the weights of the encoder that the fit starts from.
        trainer: The Trainer of the fit that is about to begin.
        data: The data, after `setup`; the features come from whole scans without augmentation, and are
            read if they are stored. None if the fit has no
            `ScanDataModule`.
        slices: Number of slices to fit to. Whole scans are encoded until there are at least this many.

    Raises:
        ConfigError: If ``data`` is None, or the data have fewer slices than the reduction needs.
    """
    reducer = model.reducer
    if reducer is None:
        return
    if data is None:
        raise ConfigError(
            "reducer_not_fitted",
            where="reduction",
            got="a fit without a ScanDataModule",
            expected="a ScanDataModule, to whose training scans the feature reduction is fitted",
            todo="Call Trainer.fit(model, ScanDataModule(...)).",
        )
    state: dict[str, Any] = {}
    if trainer.is_global_zero:
        device = trainer.strategy.root_device
        model.to(device)
        features = []
        with evaluating(model), trainer.precision_plugin.forward_context():
            for batch in data.sample_loader("train", slices):
                features.append(_features_of(model, batch, device).float().cpu())
        weight = None if model.encoder_classifier is None else model.encoder_classifier.weight.detach().cpu()
        reducer.fit(torch.cat(features)[:slices], weight)
        state = {name: value.cpu() for name, value in reducer.state_dict().items()}
    reducer.load_state_dict(trainer.strategy.broadcast(state))


def _features_of(model: ScanModel, batch: "ScanBatch | FeatureBatch", device: torch.device) -> torch.Tensor:
    """The features of a batch, ``(n, d)``; stored ones are only read."""
    from ich_lstm.data.loading.batch import FeatureBatch

    return batch.features if isinstance(batch, FeatureBatch) else model.encode(batch.hu.to(device), batch.lengths)
