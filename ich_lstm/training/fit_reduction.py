"""Fits the feature reduction once, on training slices."""

from typing import TYPE_CHECKING, Any

import torch
from pytorch_lightning import Trainer

from ich_lstm.errors import ConfigError
from ich_lstm.inference.forward import evaluating
from ich_lstm.models.scan_model import ScanModel

if TYPE_CHECKING:
    from ich_lstm.data.datamodule import ScanDataModule


def fit_reducer(model: ScanModel, trainer: Trainer, data: "ScanDataModule | None", slices: int) -> None:
    """Fit a model's reducer to the encoder's features of training slices, in one process, and give it to all.

    Args:
        model: Its encoder is as it will be used.
        trainer: Of the fit that is about to begin.
        data: The data, set up; features are of whole scans, not augmented.
        slices: How many slices; whole scans are taken until there are so many.

    Raises:
        ConfigError: If there are no data to fit it to, or fewer slices than it needs.
    """
    reducer = model.reducer
    if reducer is None:
        return
    if data is None:
        raise ConfigError(
            "reducer_not_fitted",
            where="reduction",
            got="a fit without a ScanDataModule",
            expected="training scans to which the reduction of features is fitted",
            todo="Call Trainer.fit(model, ScanDataModule(...)).",
        )
    state: dict[str, Any] = {}
    if trainer.is_global_zero:
        device = trainer.strategy.root_device
        model.to(device)
        features = []
        with evaluating(model), trainer.precision_plugin.forward_context():
            for batch in data.sample_loader("train", slices):
                features.append(model.encode(batch.hu.to(device), batch.lengths).float().cpu())
        weight = None if model.encoder_classifier is None else model.encoder_classifier.weight.detach().cpu()
        reducer.fit(torch.cat(features)[:slices], weight)
        state = {name: value.cpu() for name, value in reducer.state_dict().items()}
    reducer.load_state_dict(trainer.strategy.broadcast(state))
