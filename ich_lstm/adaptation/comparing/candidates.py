"""The ways to adapt a model that are compared, from the simplest to the most complex, and their training."""

import gc
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
from pytorch_lightning import seed_everything

from ich_lstm.adaptation.comparing.corrections import CorrectionKind
from ich_lstm.adaptation.comparing.remembering import RememberedHead
from ich_lstm.adaptation.comparing.settings import AdaptSettings
from ich_lstm.adaptation.scans.site import Site
from ich_lstm.data.datamodule import ScanDataModule
from ich_lstm.models.execution.compiled import unwrapped
from ich_lstm.models.heads import ScanHead
from ich_lstm.preprocessing.augmentation import sample_seed
from ich_lstm.settings import merged
from ich_lstm.training.classifier import ScanClassifier
from ich_lstm.training.features.stored_features import StoredFeatures

FEWEST_STEPS = 300
"""A pooling or a head is trained for at least so many steps."""

Part = Literal["nothing", "pooling", "head", "last stage"]
"""What is trained on the site's scans."""


class Candidate(NamedTuple):
    """A way to adapt a model.

    Args:
        name: Its name in tables.
        trains: What is trained.
        correction: How the probabilities are corrected afterwards.
        about: What it is, in a few words.
    """

    name: str
    trains: Part
    correction: CorrectionKind
    about: str


AS_IS = "as it is"

CANDIDATES: tuple[Candidate, ...] = (
    Candidate(AS_IS, "nothing", "none", "the model as it is, with its own calibration if it has one"),
    Candidate("prevalence", "nothing", "prevalence", "probabilities moved to the site's share of positives"),
    Candidate("temperature", "nothing", "temperature", "log odds divided by one number per label"),
    Candidate("temperature, prevalence", "nothing", "temperature and prevalence", "both"),
    Candidate("Platt", "nothing", "platt", "log odds with a slope and an intercept per label, which moves the prevalence too"),
    Candidate("pooling", "pooling", "none", "a new pooling from slices to the scan"),
    Candidate("pooling, Platt", "pooling", "platt", "a new pooling, then Platt"),
    Candidate("head", "head", "none", "the head trained further on the site's scans"),
    Candidate("head, Platt", "head", "platt", "the head trained further, then Platt"),
    Candidate("last stage", "last stage", "none", "the head and the encoder's last layer group trained further"),
    Candidate("last stage, Platt", "last stage", "platt", "the head and the encoder's last layer group, then Platt"),
)
"""All candidates, the simplest first. No training is followed by a correction of the prevalence, because it learns the site's."""


def trained(classifier: ScanClassifier, part: Part, site: Site, rows: np.ndarray, settings: AdaptSettings) -> ScanClassifier:
    """Train a part of a model on some scans of a site.

    Args:
        classifier: The model; it stays as it is.
        part: What to train.
        site: The site.
        rows: Indices of the scans to train on.
        settings: Epochs, learning rates and seed.

    Returns:
        A new model in evaluation mode, on the CPU or the GPU that it was trained on.
    """
    seed = sample_seed(settings.seed, 0, part, purpose="adaptation")
    seed_everything(seed % 2**32, workers=True, verbose=False)
    model = _copy(classifier, new_pooling=part == "pooling" and not classifier.model.pooling_parameters())
    model.change_training(_changes(classifier, part, settings))
    if part == "last stage":
        model.choose_trained("all", encoder_groups=1)
    else:
        model.choose_trained("pooling" if part == "pooling" else "head", stored=StoredFeatures(folder=site.folder))
    model.stage_name = f"adapt, {part}"
    data = site.some(rows)
    epochs = settings.last_stage_epochs if part == "last stage" else _epochs(data, settings)
    callbacks = [RememberedHead()] if part == "pooling" else []
    site.make_trainer(max_epochs=epochs, gradient_clip_val=1.0, callbacks=callbacks).fit(model, data)
    # A model and its Trainer hold each other, with the optimizer and the gradients: cycles that Python frees late, and that are
    # few objects however large they are.
    model.trainer = None
    for weight in model.parameters():
        weight.grad = None
    gc.collect()
    return model.eval()


def _epochs(data: ScanDataModule, settings: AdaptSettings) -> int:
    """The number of epochs, more than asked for where scans are few, because a head needs some hundred steps."""
    slices = sum(len(scan.slice_labels) for scan in data.scans["train"])
    return max(settings.epochs, math.ceil(FEWEST_STEPS * data.batches.slices / slices))


def _changes(classifier: ScanClassifier, part: Part, settings: AdaptSettings) -> Mapping[str, Any]:
    """The settings of a training on a site's scans, as `ScanClassifier.change_training` takes them."""
    changes: dict[str, Any] = {"encoder": {"batch_norm": "frozen"}, "ema": None}
    if part == "pooling":
        return {
            **changes,
            "loss": {"slice": 0.0, "encoder": 0.0, "scan": 1.0, "instance": 0.0},
            "optimizer": {"lr": settings.pooling_lr, "schedule": "cosine"},
        }
    # A site often has labels of scans alone, so these count as much as those of slices.
    changes |= {"loss": {"scan": 1.0}, "optimizer": {"lr": settings.head_lr, "schedule": "cosine"}}
    if part == "last stage":
        changes["optimizer"] |= {"lr": settings.head_lr / 3, "encoder_lr": settings.head_lr / 10}
    if isinstance(classifier.settings.head, ScanHead) and classifier.settings.head.reversal:
        changes["head"] = {"reversal": classifier.settings.head.reversal}
    return changes


def _copy(classifier: ScanClassifier, *, new_pooling: bool) -> ScanClassifier:
    """A copy of a model, whose weights are recorded as its start; on request with a new pooling by attention."""
    settings = merged(classifier.settings, {"encoder": {"pretrained": False, "pretrained_file": None}})
    if not new_pooling:
        model = ScanClassifier.from_settings(settings)
        model.load_weights_from(classifier)
    else:
        model = ScanClassifier.from_settings(replace(settings, pooling=replace(settings.pooling, kind="attention")))
        known = {
            name: value for name, value in unwrapped(classifier.model).state_dict().items() if not name.startswith("pooling.")
        }
        own = {name: value for name, value in model.model.state_dict().items() if name.startswith("pooling.")}
        # The history is taken over with the weights, from a model of the same network; then the new pooling is put in its place.
        model.model.load_state_dict({**known, **own})
        model.preprocessing, model.name = classifier.preprocessing, classifier.name
        model.starting_weights = {
            "model": classifier.name,
            "hash": classifier.weights_hash(),
            "starting_weights": classifier.starting_weights,
            "fits": [fit.to_dict() for fit in classifier.fits],
        }
    return model
