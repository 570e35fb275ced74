"""ScanClassifier: the network and its training, as a LightningModule."""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, TypeGuard, cast

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import BatchSizeFinder
from pytorch_lightning.plugins.io import TorchCheckpointIO
from pytorch_lightning.trainer.states import TrainerFn
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MetricCollection

from ich_lstm.errors import ConfigError
from ich_lstm.inference.calibration import ModelCalibration
from ich_lstm.inference.calibration_file import read_calibration, write_calibration
from ich_lstm.inference.checkpoint import (
    ABOUT_KEY,
    SavedModel,
    WeightsHash,
    find_model_folder,
    fitting,
    read_model,
    write_model,
)
from ich_lstm.inference.engines.choose import Engines
from ich_lstm.inference.forward import PredictedScan, TestTime, infer, predicted, probabilities_of, split_scans
from ich_lstm.inference.hub import model_folder
from ich_lstm.inference.predictor import Predictor
from ich_lstm.labels import ANY, LABELS
from ich_lstm.models.encoder import Encoder
from ich_lstm.models.execution.compiled import keep_plain_names, unwrapped
from ich_lstm.models.execution.recompute import batch_norms
from ich_lstm.models.heads import Head
from ich_lstm.models.pooling import Pooling
from ich_lstm.models.reduction import Reduction
from ich_lstm.models.released.weights import ChannelOrder
from ich_lstm.models.scan_model import ModelSettings, ScanLogits, ScanModel
from ich_lstm.prediction import ScanPrediction
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.preprocessing.windows import Windows
from ich_lstm.printable import printable_logger
from ich_lstm.privacy import ProjectKey
from ich_lstm.scan import Scan
from ich_lstm.settings import (
    built,
    differences,
    from_stored,
    merged,
    refuse_differences,
    require,
    require_choice,
    setting,
    staged,
    to_stored,
)
from ich_lstm.training.checkpoints.callbacks import without_folders
from ich_lstm.training.checkpoints.checkpoint_io import WholeCheckpointIO
from ich_lstm.training.checkpoints.exact_resume import PLACE_KEY, restore_place, save_place, validation_follows
from ich_lstm.training.faults.memory import Attempt, Losses
from ich_lstm.training.faults.non_finite import FaultGuard, LossCheck, all_finite, check_finite, scans_without_numbers
from ich_lstm.training.features.fit_reduction import fit_reducer
from ich_lstm.training.features.stored_features import FROZEN_ENCODER, StoredFeatures, check_trained, store_features
from ich_lstm.training.fit_record import FitRecord, begun, record_fit
from ich_lstm.training.losses import Loss, weighted_loss_sums
from ich_lstm.training.metrics import LabelAUROC, WeightedLogLoss
from ich_lstm.training.moving_average import MovingAverage
from ich_lstm.training.optimizer import Optimizer, make_optimizer, make_schedule

if TYPE_CHECKING:
    from ich_lstm.data.datamodule import ScanDataModule
    from ich_lstm.data.loading.batch import FeatureBatch, ScanBatch

logger = printable_logger(__name__)

Trained = Literal["all", "head", "pooling", "encoder", "encoder-through-head"]
"""What a fit trains. ``all``: the whole network; ``head``: the head, with the encoder frozen; ``pooling``: only the pooling from
slices to the scan; ``encoder``: the encoder, with the loss of its own logits, and without the head; ``encoder-through-head``: the
encoder, with the loss of a frozen head's logits."""

MONITOR = "val/monitor"
"""The metric by which the best epoch is chosen: lower is better."""

FIT_BEGUN_KEY = "ich_lstm_fit_begun"
"""Key in a checkpoint: whether its last fit record belongs to the running fit. It is false before the first step of a fit."""


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings(ModelSettings):
    """All arguments of `ScanClassifier` in one object: the architecture, and how the network is trained and run."""

    loss: Loss = setting(Loss(), stage=True)
    optimizer: Optimizer = setting(Optimizer(), stage=True)
    ema: float | None = setting(None, stage=True)
    test_time: TestTime = setting("none", free=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.ema is not None:
            require("training_out_of_range", "in (0, 1), or null", {} if 0 < self.ema < 1 else {"ema": self.ema})
        require_choice("training_out_of_range", "test_time", self.test_time, TestTime)


OF_TRAINING = sorted({each.name for each in fields(ClassifierSettings)} - {each.name for each in fields(ModelSettings)})
"""Names of the settings that do not belong to the network. A stored model lists them, so that readers can skip them."""


class ScanClassifier(LightningModule):
    """A CNN-LSTM that is trained end to end on whole scans of head CT.

    Args:
        encoder: The CNN that all slices share; the name of a timm model is short for ``Encoder(backbone=name)``.
        windows: The windows that turn HU into the input channels of the encoder.
        reduction: How the encoder's features are reduced before they enter the sequence head.
        head: The sequence head along the scan: ``LSTM(...)``, ``GRU(...)``, or ``NoHead()`` for the 2D baseline.
        pooling: How slice logits become scan logits.
        coherent_any: In evaluation, raise the logit of "any" to that of the most probable type.
        max_slices: The most slices of a scan that the head and the pooling process in evaluation, at least 1. Of a longer scan
            they take this many evenly spaced slices, and every other slice gets the context of the nearest of these. The encoder
            still processes all slices. Null for no limit.
        loss: Weights of the terms of the training loss.
        optimizer: The optimizer, its learning rates and their schedule.
        ema: Decay of an exponential moving average of the weights, in (0, 1). Validation and checkpoints use the average instead
            of the weights. Null for no average.
        test_time: Test-time augmentation, whose results are averaged. ``flip``: the scan and its mirror image; ``flip-reverse``:
            the scan and its mirror image, each read upwards and downwards; ``none``: the scan alone.

    You can fit, validate, test and predict with your own Trainer. Its callbacks can monitor these metrics:

    - ``val/monitor``: The value by which the best epoch is chosen. It is ``val/loss``, or ``val/scan_loss`` if the slices have no
      known labels, or labels of one class only. Labels that are known only as present are left out of it. Callbacks also find it
      as ``val_loss``, which is not sent to loggers.
    - ``val/loss``, ``val/scan_loss``, ``val/encoder_loss``: RSNA's weighted log loss of the slices, of the scans, and of the
      slices by the encoder's own logits. The last one is logged only if the model has a sequence head too.
    - ``val/auroc_<label>``, ``val/scan_auroc_<label>``, ``val/encoder_auroc_<label>``: Areas under the ROC curves, for each label
      of `LABELS`, for example ``val/auroc_any``; NaN if all known labels are of one class.
    - ``test/...``: ``Trainer.test`` logs the metrics above with ``test/`` instead of ``val/``, except for the monitored value,
      because held-out scans must not choose an epoch.
    - ``train/loss``, ``train/slice_loss``, ``train/scan_loss``, ``train/encoder_loss``, ``train/instance_loss``: The training
      loss, and its terms before they are weighted; batches with a loss that is not finite are left out.
    - ``train/skipped_steps``: The number of optimizer steps of the fit so far that were skipped, see `FaultGuard`.

    Raises:
        ConfigError: If a value is out of range, or two settings contradict each other.

    Example:
        >>> from ich_lstm import LSTM
        >>> model = ScanClassifier(encoder=Encoder(backbone="resnet18", pretrained=False), head=LSTM(hidden_size=64))
        >>> Trainer(max_epochs=8).fit(model, ScanDataModule("dicom/", "labels.csv"))  # doctest: +SKIP
    """

    def __init__(
        self,
        encoder: Encoder | str = ClassifierSettings.encoder,
        *,
        windows: Windows = ClassifierSettings.windows,
        reduction: Reduction = ClassifierSettings.reduction,
        head: Head = ClassifierSettings.head,
        pooling: Pooling = ClassifierSettings.pooling,
        coherent_any: bool = ClassifierSettings.coherent_any,
        max_slices: int | None = ClassifierSettings.max_slices,
        loss: Loss = ClassifierSettings.loss,
        optimizer: Optimizer = ClassifierSettings.optimizer,
        ema: float | None = ClassifierSettings.ema,
        test_time: TestTime = ClassifierSettings.test_time,
    ) -> None:
        super().__init__()
        self.settings = ClassifierSettings(
            encoder=encoder,  # type: ignore[arg-type]  # a name becomes an Encoder
            windows=windows,
            reduction=reduction,
            head=head,
            pooling=pooling,
            coherent_any=coherent_any,
            max_slices=max_slices,
            loss=loss,
            optimizer=optimizer,
            ema=ema,
            test_time=test_time,
        )
        """The architecture, and how the next fit trains it; `change_training` replaces it."""
        self.model = ScanModel(self.settings)
        keep_plain_names(self)
        self.trained: Trained = "all"
        """What the next fit trains; `choose_trained` sets it."""
        self.preprocessing: Preprocessing | None = None
        """How scans are prepared for this model; a fit sets it to the preprocessing of its data. None: unknown."""
        self.slice_mm: float | None = None
        """The usual slice spacing of the training scans in mm; None: unknown."""
        self.is_synthetic = False
        """Whether the model was trained on synthetic heads; if so, its predictions carry a warning."""
        self.positive_share: float | None = None
        """The share of positive scans among the training scans, in [0, 1]; None: unknown."""
        self.training_data: dict[str, Any] | None = None
        """Counts of the patients, scans, slices and positives in the training data; None: unknown."""
        self.starting_weights: dict[str, Any] | None = {"encoder": self.model.encoder.starting_weights}
        """Origin of the initial weights, for the model card. It names the source of the encoder's weights; after a warm start it
        names the earlier ``model`` with its ``hash``, ``starting_weights`` and ``fits``. All other weights were initialized at
        random. None: unknown."""
        self.fits: tuple[FitRecord, ...] = ()
        """How these weights were trained since their initialization: one record for each fit, including the running one."""
        self.stage_name = ""
        """Name of the next fit in its record."""
        self.step_is_skipped = False
        """Whether the last step of the fit left the weights as they were, because a loss or a gradient was not finite."""
        self.loss_check = LossCheck(True, True)
        """What is known about the loss of the last batch."""
        self.scans_without_numbers: list[str] = []
        """Ids of this process's scans whose probabilities were not finite in the last validation."""
        self._attempt: Attempt | None = None
        self._encoder_groups: int | None = None
        self._stored: StoredFeatures | None = None
        self.calibration: ModelCalibration | None = None
        """Calibration and thresholds that `ich-evaluate --calibrate` chose on validation patients; predictions show them. A
        further fit removes them."""
        self.name = self.settings.encoder.backbone
        """Name of the model in predictions."""
        self._hash = WeightsHash()
        self.engines = Engines()
        """What runs the encoder in `predict`: by default the fastest that agrees with float32, see `EngineChoice`."""
        self.slice_metrics, self.encoder_metrics, self.scan_metrics = _metrics(), _metrics(), _metrics()
        self._epoch_losses: dict[str, Tensor] = {}
        """For each training loss, the sum over the slices of the running epoch and their number in this process, ``(2,)``."""
        self._place: Mapping[str, Any] | None = None
        self._never_absent: dict[str, Tensor] = {}
        """By level, labels that the training slices or scans have only as present, bool ``(k,)``; no entry if there are none."""

    @classmethod
    def from_settings(cls, settings: ClassifierSettings) -> "ScanClassifier":
        """Build a model from settings in one object.

        Args:
            settings: All arguments of the constructor.
        """
        return cls(**{each.name: getattr(settings, each.name) for each in fields(settings)})

    def forward(self, batch: "ScanBatch | FeatureBatch") -> ScanLogits:
        """Logits of a batch of scans, from their HU or from stored features."""
        if _is_stored(batch):
            features = batch.features.to(torch.promote_types(batch.features.dtype, torch.float32))
            return self.model.logits_of(features, batch.lengths, batch.positions_mm, batch.draws)
        scans = cast("ScanBatch", batch)  # no stored features, so HU
        return self.model(scans.hu, scans.lengths, scans.positions_mm, scans.draws, scans.stacks)

    def infer(self, batch: "ScanBatch") -> ScanLogits:
        """Logits of a batch of scans in evaluation, averaged over the views of the test-time augmentation."""
        return infer(self.model, batch.hu, batch.lengths, batch.positions_mm, test_time=self.settings.test_time)

    # Training

    @property
    def learning_rate(self) -> float:
        """Peak learning rate of the head in the next fit; ``Tuner.lr_find`` searches one rate for all weights, and sets it."""
        return self.settings.optimizer.lr

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self.change_training({"optimizer": {"lr": rate}})

    @property
    def encoder_learning_rate(self) -> float:
        """Peak learning rate of the encoder in the next fit; ``Tuner.lr_find(attr_name="encoder_learning_rate")`` sets it."""
        return self.settings.optimizer.encoder_lr

    @encoder_learning_rate.setter
    def encoder_learning_rate(self, rate: float) -> None:
        self.change_training({"optimizer": {"encoder_lr": rate}})

    def change_training(self, changes: Mapping[str, Any]) -> None:
        """Change how the next fit trains.

        Args:
            changes: New values for arguments of the constructor, by name; the fields of an argument stand in a mapping:
                ``{"optimizer": {"lr": 1e-4}, "encoder": {"batch_norm": "frozen"}}``. All other settings stay as they are.

        Raises:
            ConfigError: If a setting is unknown, out of range, or must not change between fits of the same weights.
        """
        self.use_settings(merged(self.settings, changes, where="model"))

    def use_settings(self, settings: ClassifierSettings) -> None:
        """Use these settings in the next fit.

        Args:
            settings: The new settings. They may differ only in settings that may change between stages.

        Raises:
            ConfigError: ``other_network``, if another setting differs.
        """
        network = unwrapped(self.model)
        assert isinstance(network, ScanModel)
        network.change(settings)
        self.settings = settings

    def load_weights_from(self, other: "ScanClassifier") -> None:
        """Start from another model's weights (warm start); its name and preprocessing are copied as well.

        Args:
            other: A model with the same architecture.
        """
        unwrapped(self.model).load_state_dict(unwrapped(other.model).state_dict())
        self.preprocessing, self.name = other.preprocessing, other.name
        self.starting_weights = {
            "model": other.name,
            "hash": other.weights_hash(),
            "starting_weights": other.starting_weights,
            "fits": [fit.to_dict() for fit in other.fits],
        }
        self.fits = ()

    def continue_from(self, saved: SavedModel) -> None:
        """Use the weights of an earlier stage of this training, and the records of its fits.

        Args:
            saved: A checkpoint of that stage, usually its best: later epochs are neither in its weights nor in its records.
        """
        unwrapped(self.model).load_state_dict(saved.weights)
        self._adopt_history(saved.about)

    def _adopt_history(self, about: Mapping[str, Any]) -> None:
        """Take the origin of weights from the metadata of their checkpoint."""
        self.name = about["name"]
        self.starting_weights = about["starting_weights"]
        self.fits = tuple(FitRecord(**fit) for fit in about["fits"] or ())

    def choose_trained(
        self, trained: Trained = "all", *, encoder_groups: int | None = None, stored: StoredFeatures | None = None
    ) -> None:
        """Choose what the next fit trains. It must not change inside a fit, because the ranks of DDP would silently diverge.

        Args:
            trained: ``all``: the whole network; ``head``: the head, with the encoder frozen; ``pooling``: the pooling from slices
                to the scan alone; ``encoder``: the encoder, with the loss of its own logits, and without the head;
                ``encoder-through-head``: the encoder, with the loss of a frozen head's logits.
            encoder_groups: How many of the encoder's layer groups are trained, counted from the last, at least 1; None for all.
                It has no effect if ``trained`` is ``head`` or ``pooling``.
            stored: Encode each scan once before the fit, and train the head on the stored features, which takes a fraction of
                the time; only if ``trained`` is ``head`` or ``pooling``. None to encode each batch.

        Raises:
            ConfigError: If the encoder is to be trained by its own logits and has no classifier, if ``encoder_groups`` is given
                and timm does not divide the backbone into layer groups, or if features are to be stored that the fit changes.
        """
        require_choice("unknown_trained", "train", trained, Trained)
        if stored is not None:
            check_trained(trained, where="features")
        if trained == "encoder" and not self.model.has_encoder_view:
            raise ConfigError(
                "no_encoder_classifier",
                where="train=encoder",
                got="encoder.classifier=false",
                expected="encoder.classifier=true, because train=encoder uses the loss of the encoder's own logits",
                todo="Leave encoder.classifier true.",
            )
        self.trained, self._stored = trained, stored
        self._encoder_groups = 0 if trained in FROZEN_ENCODER else encoder_groups
        self.model.requires_grad_(trained in ("all", "head"))
        for module in self.model.encoder_modules():
            module.requires_grad_(trained not in FROZEN_ENCODER)
        for part in self.model.pooling_parameters():
            part.requires_grad_(trained in ("all", *FROZEN_ENCODER))
        self.model.encoder.unfreeze_last(self._encoder_groups)

    def setup(self, stage: str) -> None:
        """Check and adopt the preprocessing of the data, record the fit, and fit the feature reduction if there is one."""
        data = _scan_data(self.trainer)
        if data is not None:
            data.features = None  # a fit that ended with an error may have left them
            self._check_preprocessing(data)
        if self.trainer.precision == "bf16-true" and getattr(self.settings.head, "positions", None) == "mm":
            # Lightning rounds the batch as well as the weights.
            logger.warning(
                "precision bf16-true: the slices' positions in mm are rounded to 8 significant bits, which is 1 mm between 128 "
                "and 256 mm. bf16-mixed does not round them."
            )
        if stage != "fit":
            return
        self._place = None
        if type(self.trainer.strategy.checkpoint_io) is TorchCheckpointIO:
            self.trainer.strategy.checkpoint_io = WholeCheckpointIO()
        if data is not None:
            shown, batches = self.settings.encoder.adjacent_slices, data.batches
            if shown and batches.slices_per_sample and batches.cutmix:
                raise ConfigError(
                    "no_neighbours",
                    where="model.encoder.adjacent_slices, data.batches.slices_per_sample, data.batches.cutmix",
                    got=f"{shown}, {batches.slices_per_sample} and {batches.cutmix}",
                    expected="no CutMix of parts of scans, because neighbours from outside the part are not mixed",
                    todo="Set data.batches.cutmix=0, or data.batches.slices_per_sample=null for whole scans.",
                )
            data.adjacent_slices = shown
            self.preprocessing = data.preprocessing
            self.slice_mm = data.slice_mm
            self.is_synthetic = data.is_synthetic
            self.positive_share = _positive_share(data)
            self.training_data = data.describe_training()
            self._leave_out_never_absent(data)
            self.calibration = None
        running = record_fit(
            self.trainer,
            data,
            stage=self.stage_name,
            encoder_groups=self._encoder_groups,
            trained=self.trained,
            settings=staged(self.settings),
            views=None if self._stored is None else self._stored.views,
        )
        self.fits = (*begun(self.fits), running)
        # Lightning does not set the mode, and a loaded model is in evaluation mode.
        self.train()
        if self._stored is not None:
            features = store_features(self.model, self.trainer, data, self._stored)
            data.features = features  # type: ignore[union-attr]  # it has data, or store_features would have refused it
        reducer = self.model.reducer
        if self.trained != "encoder" and reducer is not None and not reducer.is_fitted:
            fit_reducer(self.model, self.trainer, data, self.settings.reduction.slices)

    def _leave_out_never_absent(self, data: "ScanDataModule") -> None:
        """Leave labels out of the loss that training data have only as present: it would teach to call them always present."""
        found = {level: labels for level, labels in data.never_absent().items() if labels.any()}
        self._never_absent = {level: torch.from_numpy(labels) for level, labels in found.items()}
        for level, labels in found.items():
            names = [label for label, is_left_out in zip(LABELS, labels, strict=True) if is_left_out]
            logger.warning(
                "%s: the training %s have no known negative, only positives. They are left out of the loss of %s, because it "
                "would teach the network to call them always present.",
                ", ".join(names),
                level,
                level,
            )

    def _check_preprocessing(self, data: "ScanDataModule") -> None:
        """Check that the data have the preprocessing that the model was trained for."""
        data.preprocessing.check_windows(self.settings.windows.channels)
        if self.preprocessing not in (None, data.preprocessing):
            raise ConfigError(
                "other_preprocessing",
                where="data",
                got=str(data.preprocessing),
                expected=f"{self.preprocessing}, for which the model has been trained",
                todo="Prepare the scans with the model's preprocessing, or set model.preprocessing = None to train for this one.",
            )

    def teardown(self, stage: str) -> None:
        """Drop the record of a fit that ended before its first step, such as a search for a learning rate."""
        self.fits = begun(self.fits)
        data = _scan_data(self.trainer)
        if stage == "fit" and data is not None:
            data.features = None

    def on_fit_start(self) -> None:
        """Refuse chunks together with synchronized batch-norm, which would deadlock."""
        if self.settings.encoder.slices_per_chunk is not None and self.trainer.world_size > 1:
            _refuse_synchronized(self.model.encoder)

    def configure_callbacks(self) -> list[Callback]:
        """The guard against non-finite numbers, and the moving average of the weights, if there is one.

        Raises:
            ConfigError: If Lightning is asked to search for a batch size; batches here have a budget of slices instead.
        """
        # This runs before the finder's own setup, whose error about a missing attribute would not say what to do.
        if any(isinstance(callback, BatchSizeFinder) for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            raise ConfigError(
                "no_batch_size",
                where="Tuner.scale_batch_size, BatchSizeFinder",
                got="a search for a number of scans per batch",
                expected="a budget of slices per batch, because scans differ in length and memory depends on the slices",
                todo="Find batches.slices with ich-train --plan, or with ich_lstm.training.memory_planner.plan_memory.",
            )
        # The guard comes first, because the average must not see a step that it undoes.
        return [FaultGuard(), *([] if self.settings.ema is None else [MovingAverage(self.settings.ema)])]

    @property
    def running_fit(self) -> FitRecord:
        """The record of the running fit."""
        return self.fits[-1]

    @running_fit.setter
    def running_fit(self, record: FitRecord) -> None:
        self.fits = (*self.fits[:-1], record)

    def on_train_start(self) -> None:
        """Go on at the place of the checkpoint from which the fit is resumed, if it is."""
        if self._place is not None:
            self._epoch_losses = restore_place(self.trainer, self._place)
            self._place = None

    def on_train_batch_end(self, outputs: Any, batch: "ScanBatch | FeatureBatch", batch_index: int) -> None:
        """Count epochs and steps in the record of the running fit."""
        self._count_steps()

    def _count_steps(self) -> None:
        epochs, steps = self.trainer.current_epoch + 1, self.trainer.global_step
        self.running_fit = replace(self.running_fit, epochs=epochs, steps=steps)

    def training_step(self, batch: "ScanBatch | FeatureBatch", batch_index: int) -> Tensor:
        """The training loss of a batch: the weighted sum of the losses of slices, scans, the encoder's logits and instances."""
        self._attempt = Attempt(self, batch, lambda: self._losses(batch))
        losses = self._attempt.forward()
        if self.loss_check.is_finite:  # otherwise the mean of the epoch would be lost, too
            for name, term in {**losses.terms, "loss": losses.total}.items():
                # In all processes together, the mean of the terms, weighted by the slices of all of them.
                self._add_loss(name, term, losses.slices / self.trainer.world_size)
        return self._attempt.handed_out(losses.total)

    def backward(self, loss: Tensor) -> None:
        """Run the backward pass of a batch, and repeat its training step with smaller chunks if memory runs out."""
        attempt, self._attempt = self._attempt, None
        if attempt is None:  # a subclass with a training step of its own
            super().backward(loss)
        else:
            attempt.backward(loss, self.trainer.precision_plugin.train_step_context)

    def _losses(self, batch: "ScanBatch | FeatureBatch") -> Losses:
        """Compute the training loss, and note whether it is finite in all processes."""
        loss_settings = self.settings.loss
        logits = self._logits(batch)
        slice_labels = self._taught(batch.slice_labels, "slices")
        scan_labels = self._taught(batch.scan_labels, "scans")
        candidates = {
            "slice_loss": (loss_settings.slice, logits.slice_logits, slice_labels),
            "scan_loss": (loss_settings.scan, logits.scan_logits, scan_labels),
            "encoder_loss": (loss_settings.encoder, logits.encoder_logits, slice_labels),
            "instance_loss": (loss_settings.instance, logits.instance_logits, scan_labels),
        }
        any_weight, mean = loss_settings.any_weight, loss_settings.mean
        terms = {
            name: (factor, weighted_loss_sums(predicted, labels, any_weight=any_weight, mean=mean))
            for name, (factor, predicted, labels) in candidates.items()
            if predicted is not None
        }
        # The statistics belong to the check: a batch can make them infinite, and normalize itself to a finite loss.
        numbers = [*(sums for _, sums in terms.values()), *self._batch_statistics()]
        is_broken = ~all_finite(numbers)
        # The flag and the number of slices travel with the weights, so that all processes know them without another message.
        known = torch.stack(
            [
                *(sums[1].detach() for _, sums in terms.values()),
                is_broken,
                torch.full_like(is_broken, len(batch.slice_labels), dtype=torch.float32),
            ]
        )
        *weights, broken, slices = self._world_sum(known)
        here, anywhere, size = torch.stack([known[-2], broken, slices]).tolist()
        self.loss_check = LossCheck(not here, not anywhere)
        world = self.trainer.world_size
        # DDP averages the gradients of the ranks. Multiplying by the number of ranks, and dividing by the global sum of weights,
        # makes that average the global weighted mean.
        means = {
            name: (factor, sums[0] * world / weight.clamp(min=1e-12))
            for (name, (factor, sums)), weight in zip(terms.items(), weights, strict=True)
        }
        total = torch.zeros((), device=self.device)
        for factor, term in means.values():
            total = total + factor * term
        return Losses(total, {name: term.detach() for name, (_, term) in means.items()}, size)

    def _taught(self, labels: Tensor, level: Literal["slices", "scans"]) -> Tensor:
        """The labels ``(m, k)`` of a level, in which those that training data have only as present are unknown (NaN)."""
        left_out = self._never_absent.get(level)
        return labels if left_out is None else labels.masked_fill(left_out.to(labels.device), torch.nan)

    def _batch_statistics(self) -> list[Tensor]:
        """The running statistics of all batch-norm layers."""
        return [buffer for layer in batch_norms(self.model) for buffer in layer.buffers()]

    def on_train_epoch_start(self) -> None:
        """Begin the means of the training losses. A fit that is resumed inside an epoch goes on with those of its checkpoint."""
        self._epoch_losses = {}

    def _add_loss(self, name: str, loss: Tensor, slices: float) -> None:
        loss = loss.detach().double()
        sums = torch.stack([loss, torch.ones_like(loss)]) * slices
        self._epoch_losses[name] = self._epoch_losses[name] + sums if name in self._epoch_losses else sums

    def _log_losses(self) -> None:
        """Log the means of the training losses over the slices of the running epoch, in all processes together."""
        for name, sums in self._epoch_losses.items():
            total, slices = self._world_sum(sums)
            self.log(f"train/{name}", (total / slices).float(), sync_dist=True, prog_bar=name == "loss")
        self.log("train/skipped_steps", float(self.running_fit.skipped_steps), sync_dist=True)

    def on_train_epoch_end(self) -> None:
        """Log the training losses if no validation has done so."""
        if not validation_follows(self.trainer):
            self._log_losses()

    def _logits(self, batch: "ScanBatch | FeatureBatch") -> ScanLogits:
        if self.trained == "encoder":
            scans = cast("ScanBatch", batch)  # features are never stored while the encoder is trained
            return self.model.encoder_view(scans.hu, scans.lengths, scans.draws, scans.stacks)
        return self(batch)

    def on_validation_epoch_start(self) -> None:
        """Average the running statistics of batch-norm over all processes."""
        self.scans_without_numbers = []
        if self.trainer.world_size > 1:
            for name, buffer in self.model.named_buffers():
                if name.endswith(("running_mean", "running_var")):
                    buffer.copy_(self._world_sum(buffer) / self.trainer.world_size)

    def validation_step(self, batch: "ScanBatch | FeatureBatch", batch_index: int) -> None:
        """Update the metrics with a batch; a process that has no scans left gets an empty batch."""
        # Metrics gather from all processes, so an empty batch must update them too.
        empty = ScanLogits(batch.slice_labels, batch.scan_labels, batch.slice_labels)
        self._collect(self._logits(batch) if len(batch.lengths) else empty, batch)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all processes together, and ``val/monitor``, by which the best epoch is chosen."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self._log_losses()  # here and not at the end of the epoch, so that they lie in the checkpoint of the epoch's end
        losses, aurocs = self._log_metrics("val")
        # Labels that are known only as present are left out, because their loss cannot rank epochs. If the slice labels are
        # missing or of one class, the scans' loss is monitored.
        uses_slices = not aurocs[""].isnan().all() or losses["scan_"].isnan()
        monitored = losses["" if uses_slices else "scan_"]
        self.log(MONITOR, monitored, sync_dist=True)
        # Callbacks commonly use this name, and it is valid in a file name. Loggers would draw the same curve twice.
        self.log("val_loss", monitored, sync_dist=True, logger=False)

    def test_step(self, batch: "ScanBatch | FeatureBatch", batch_index: int) -> None:
        """Update the metrics with a batch of held-out scans."""
        self.validation_step(batch, batch_index)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of all processes together, under the names of validation with ``test/`` instead of ``val/``."""
        self._log_metrics("test")

    def _log_metrics(self, phase: Literal["val", "test"]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Log and reset the metrics.

        Returns:
            Two mappings by prefix of the metric's name: the losses of labels that are not known only as present, or of all labels
            where there is no other; and the areas under the ROC curves ``(k,)``.
        """
        losses, aurocs = {}, {}
        for view, metrics in self._metrics_by_view().items():
            values = metrics.compute()
            metrics.reset()
            ranking, aurocs[view] = values["ranking_loss"], values["auroc"].float()
            losses[view] = torch.where(ranking.isnan(), values["loss"], ranking).float()
            # The metrics have gathered from all processes already, so sync_dist averages equal values.
            self.log(f"{phase}/{view}loss", values["loss"].float(), prog_bar=not view, sync_dist=True)
            for label, area in zip(LABELS, aurocs[view], strict=True):
                self.log(f"{phase}/{view}auroc_{label}", area, prog_bar=not view and label == ANY, sync_dist=True)
        return losses, aurocs

    def _metrics_by_view(self) -> dict[str, MetricCollection]:
        """Metrics by the prefix of their names: none for slices, ``scan_`` for scans, ``encoder_`` for the encoder's logits."""
        metrics = {"": self.slice_metrics, "scan_": self.scan_metrics}
        has_both = self.trained != "encoder" and self.model.sequence is not None and self.model.has_encoder_view
        return {**metrics, "encoder_": self.encoder_metrics} if has_both else metrics

    def predict_step(self, batch: "ScanBatch", batch_index: int) -> list[PredictedScan]:
        """Probabilities of the scans of a batch, for ``Trainer.predict``. A `ScanDataModule` gives it the held-out scans.

        They equal those of `predict` before calibration: coherent, and averaged over the test-time augmentation.

        Returns:
            One prediction for each scan, on the CPU; an empty list for the empty batch of a process that has no scans left.
        """
        if len(batch.lengths) == 0:
            return []
        return split_scans(predicted(self.infer(batch), batch.lengths), batch.lengths, batch.scan_ids)

    def _collect(self, logits: ScanLogits, batch: "ScanBatch | FeatureBatch") -> None:
        """Update all metrics with the probabilities and labels of a batch."""
        self.scans_without_numbers += scans_without_numbers(logits, batch)
        self.slice_metrics.update(probabilities_of(logits.slice_logits), batch.slice_labels)
        self.scan_metrics.update(probabilities_of(logits.scan_logits), batch.scan_labels)
        if "encoder_" in self._metrics_by_view() and logits.encoder_logits is not None:
            self.encoder_metrics.update(probabilities_of(logits.encoder_logits), batch.slice_labels)

    def _world_sum(self, values: Tensor) -> Tensor:
        """Sum a tensor over all processes."""
        if self.trainer.world_size == 1:
            return values
        return self.trainer.strategy.reduce(values.clone(), reduce_op="sum")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """An optimizer with separate learning rates for encoder and head, and their schedule."""
        chosen = self.settings.optimizer
        optimizer = make_optimizer(self.model, chosen)
        kind, steps = chosen.schedule, self.trainer.estimated_stepping_batches
        if 0 <= steps < math.inf:
            schedule = make_schedule(optimizer, kind, steps=int(steps), warmup=chosen.warmup)
        else:  # the number of steps is unknown: infinite, or -1
            schedule = make_schedule(optimizer, "constant", steps=self._steps_of_an_epoch(), warmup=chosen.warmup)
            if kind != "constant":
                logger.warning(
                    "schedule %s: the number of steps is unknown, so the learning rates stay constant after the warm-up.", kind
                )
                given = self.running_fit.settings
                actual = {**given, "optimizer": {**given["optimizer"], "schedule": "constant"}}
                self.running_fit = replace(self.running_fit, settings=actual)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _steps_of_an_epoch(self) -> int:
        """Number of optimizer steps in an epoch; 0 if the epoch has no end."""
        if self.trainer.train_dataloader is None:
            self.trainer.fit_loop.setup_data()  # Lightning does this too, to estimate the number of steps
        batches = self.trainer.num_training_batches
        return math.ceil(batches / self.trainer.accumulate_grad_batches) if batches < math.inf else 0

    # Saving and loading

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the settings that rebuild the model and the place in the fit, and remove paths of this machine.

        Raises:
            CheckpointError: ``weights_not_finite``, if a weight or its moving average is not finite.
        """
        check_finite(checkpoint["state_dict"])
        trainer = self._trainer  # None outside a Trainer
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING:
            if trainer.global_step:
                self._count_steps()  # callbacks save before this module's own hook has counted the batch
            save_place(trainer, checkpoint, self._epoch_losses)
        checkpoint[ABOUT_KEY] = self._saved().about
        checkpoint[FIT_BEGUN_KEY] = bool(self.fits and self.fits[-1].steps)
        checkpoint["callbacks"] = without_folders(checkpoint.get("callbacks", {}))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore the fit records. After a search for a learning rate, the running fit's record starts again at step 0."""
        about = checkpoint.get(ABOUT_KEY, {})
        # A search saves the weights before the first step, trains, and loads them again. Its steps must not count.
        is_fitting = self.trainer.state.fn == TrainerFn.FITTING
        self._place = checkpoint.get(PLACE_KEY) if is_fitting else None
        again = is_fitting and not checkpoint.get(FIT_BEGUN_KEY, True)
        running = tuple(replace(fit, epochs=0, steps=0) for fit in self.fits[-1:]) if again else ()
        if about.get("fits") or running:
            self._adopt_history(about)
            self.fits += running

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the model as ``model.safetensors`` and ``model.json``, which holds everything but the weights.

        Args:
            folder: The folder to write to; it is created if it does not exist.

        Raises:
            CheckpointError: ``weights_not_finite``, if a weight is not finite.
        """
        write_model(Path(folder), self._saved())
        if self.calibration is not None:
            write_calibration(Path(folder), self.calibration)

    @classmethod
    def from_pretrained(cls, name: Path | str) -> "ScanClassifier":
        """Load a model from a folder made by `save_pretrained`, or from the Hugging Face hub.

        Args:
            name: A folder, or a repository of the hub (``owner/name``). Only its JSON and safetensors files are downloaded.

        Returns:
            The model in evaluation mode, on the CPU.

        Raises:
            CheckpointError: If there is no model, if the folder also holds a pickle, or if the weights are damaged or do not fit.
        """
        return cls.load(model_folder(name))

    @classmethod
    def load(cls, path: Path | str, *, channel_order: ChannelOrder | None = None) -> "ScanClassifier":
        """Load a model.

        Args:
            path: A run's folder, a folder made by `save_pretrained`, a ``.ckpt`` file, or released weights of another project.
            channel_order: Order of the windows, for Nguyen et al.'s released weights only: ``bgr`` (bone first) or ``rgb``
                (brain first). None for ``bgr``, the order of their loader. See docs/released.md.

        Returns:
            The model in evaluation mode, on the CPU.

        Raises:
            ConfigError: If a channel order is given for another model.
            CheckpointError: If there is no model, if its weights do not fit its settings, or if its calibration belongs to other
                weights.
        """
        return cls._load(Path(path), {}, channel_order)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # Lightning accepts any keyword
        cls,
        checkpoint_path: Path | str | IO[bytes],
        map_location: torch.device | str | int | Callable[..., Any] | dict[Any, Any] | None = None,
        hparams_file: Path | str | None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        *,
        changes: Mapping[str, Any] | None = None,
    ) -> "ScanClassifier":
        """Load a model as `load` does, under Lightning's name for it.

        Args:
            checkpoint_path: A path that `load` accepts. Open files and URLs are refused, and nothing is downloaded.
            map_location: Device for the model; None for the CPU. Functions and maps of devices are refused.
            hparams_file: Must be None, because a model's settings are stored with its weights.
            strict: True or None. Weights that do not fit are always refused.
            weights_only: True or None. Only tensors and plain values are ever read.
            changes: New values for arguments of the constructor, by name, in the form that `change_training` accepts. Only
                settings that do not change the meaning of the weights may differ from the stored ones: how the model is trained,
                how it is run, and settings that fit any weights.

        Returns:
            The model in evaluation mode.

        Raises:
            CheckpointError: If there is no model, if its weights do not fit its settings, or if its calibration belongs to other
                weights.
            ConfigError: If an argument has a value that is not supported, or if ``changes`` would change the architecture.
        """
        wrong = {
            "checkpoint_path": None if isinstance(checkpoint_path, str | Path) else "an open file",
            "map_location": None if isinstance(map_location, torch.device | str | int | None) else "a map of devices",
            "hparams_file": hparams_file,
            "strict": strict if strict is False else None,
            "weights_only": weights_only if weights_only is False else None,
        }
        given = {name: value for name, value in wrong.items() if value is not None}
        if given or not isinstance(checkpoint_path, str | Path) or not isinstance(map_location, torch.device | str | int | None):
            raise ConfigError(
                "unsupported_argument",
                where=f"load_from_checkpoint, {', '.join(given)}",
                got=", ".join(str(value) for value in given.values()),
                expected="a path, a single device, and the settings and all weights that are stored in the file",
                todo="Leave the argument out; save an open file to disk, and give its path.",
            )
        classifier = cls._load(Path(checkpoint_path), changes or {})
        return classifier if map_location is None else classifier.to(map_location)

    @classmethod
    def _load(cls, path: Path, changes: Mapping[str, Any], channel_order: ChannelOrder | None = None) -> "ScanClassifier":
        """Load a model, and change settings that its weights do not depend on."""
        saved = read_model(path, channel_order)
        with fitting(path):
            stored = from_stored(ClassifierSettings(), saved.about["settings"])
        settings = merged(stored, changes, where="load_from_checkpoint")
        check_same_network(stored, settings, where="load_from_checkpoint, ", whose=path.name)
        with fitting(path):
            classifier = cls.from_settings(settings)
            classifier.model.load_state_dict(saved.weights)
            if saved.about["preprocessing"] is not None:
                classifier.preprocessing = built(Preprocessing, saved.about["preprocessing"], where="preprocessing")
            classifier.fits = tuple(built(FitRecord, fit, where="fits") for fit in saved.about["fits"] or ())
        classifier.slice_mm = saved.about["slice_mm"]
        classifier.is_synthetic = bool(saved.about["is_synthetic"])
        classifier.positive_share = saved.about["positive_share"]
        classifier.training_data = saved.about["training_data"]
        classifier.starting_weights = saved.about["starting_weights"]
        classifier.name = saved.about["name"] or classifier.name
        folder = find_model_folder(path)
        if folder is not None:
            classifier.calibration = read_calibration(folder, saved.hash)
        return classifier.eval()

    def _saved(self) -> SavedModel:
        about = {
            "name": self.name,
            "settings": to_stored(self.settings),
            "of_training": OF_TRAINING,
            "preprocessing": self.preprocessing.to_dict() if self.preprocessing else None,
            "slice_mm": self.slice_mm,
            "is_synthetic": self.is_synthetic,
            "positive_share": self.positive_share,
            "training_data": self.training_data,
            "starting_weights": self.starting_weights,
            "fits": [fit.to_dict() for fit in begun(self.fits)],
        }
        weights = unwrapped(self.model).state_dict()
        check_finite(weights)
        return SavedModel(about, weights)

    def weights_hash(self) -> str:
        """Hash that identifies the weights, 12 hexadecimal digits."""
        return self._hash.of(self.model)

    # Prediction

    @property
    def predictor(self) -> Predictor:
        """A `Predictor` with the present state of this model; the two share the network."""
        return Predictor(
            model=self.model,
            preprocessing=self.preprocessing,
            name=self.name,
            calibration=self.calibration,
            is_synthetic=self.is_synthetic,
            slice_mm=self.slice_mm,
            test_time=self.settings.test_time,
            hash=self._hash,
            engines=self.engines,
        )

    @property
    def slab_mm(self) -> float | None:
        """Thickness in mm of the slabs to which thin slices are averaged; None if the model was trained on thin slices."""
        return self.predictor.slab_mm

    def known_preprocessing(self) -> Preprocessing:
        """How scans are prepared for this model.

        Raises:
            CheckpointError: If the model does not hold its preprocessing.
        """
        return self.predictor.known_preprocessing()

    def predict(
        self, source: Path | str | Scan, *, project_key: ProjectKey | None = None, coherent: bool = True
    ) -> Iterator[ScanPrediction]:
        """Predict a scan, or every study below a path, one after the other; each NIfTI file counts as a study.

        For each study, the non-contrast axial brain series is read. After the last prediction, an error lists the studies that
        could not be read.

        Args:
            source: A scan, a folder, a zip archive, or a single file (DICOM or NIfTI).
            project_key: Key for the ids in the predictions; None for the user's own key.
            coherent: Raise the probability of a scan to at least that of each slice, and the probability of "any" to at least
                that of each type, as the definitions of the labels require. False gives the probabilities of the network.

        Yields:
            One prediction per study.

        Raises:
            SourceError: If nothing can be read.
            StudyError: After the last prediction, if studies could not be read.
        """
        return self.predictor.predict(source, project_key=project_key, coherent=coherent)

    def predict_scan(self, scan: Scan, project_key: ProjectKey, *, coherent: bool = True) -> ScanPrediction:
        """Predict one scan on the model's device. The model's training or evaluation mode does not change.

        Args:
            scan: The scan.
            project_key: Key for the ids in the prediction.
            coherent: Raise the probability of a scan to at least that of each slice, and the probability of "any" to at least
                that of each type. False gives the probabilities of the network.

        Raises:
            CheckpointError: If the model does not hold its preprocessing.
            ConfigError: If the calibration was fitted to coherent probabilities and raw ones are asked for, or the reverse.
        """
        return self.predictor.predict_scan(scan, project_key, coherent=coherent)


def check_same_network(stored: ClassifierSettings, wanted: ClassifierSettings, *, where: str, whose: str) -> None:
    """Check that new settings do not change the meaning of stored weights.

    Args:
        stored: The settings with which the weights were trained.
        wanted: The settings with which the weights are to be used.
        where: Prefix of the names of settings in the error.
        whose: Name of the model's file or folder.

    Raises:
        ConfigError: ``other_network``, if a setting differs that belongs to the weights.
    """
    wrong = [each for each in differences(stored, wanted) if not each.free]
    refuse_differences(
        "other_network",
        wrong,
        where=where,
        whose="with which the weights were trained",
        todo=f"Leave these settings out, because {whose} stores those of its model; or train another model.",
    )


def _is_stored(batch: "ScanBatch | FeatureBatch") -> "TypeGuard[FeatureBatch]":
    """Whether a batch holds stored features in place of HU."""
    # The data are not imported here, because a model that only predicts does not need them.
    return hasattr(batch, "features")


def _scan_data(trainer: Trainer) -> "ScanDataModule | None":
    """The data of a fit, if they are a `ScanDataModule`."""
    # This import is slow, and a model that only predicts does not need it.
    from ich_lstm.data.datamodule import ScanDataModule

    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, ScanDataModule) else None


def _positive_share(data: "ScanDataModule") -> float | None:
    """Share of positives among the training scans with a known label; None if balancing changes how often scans are drawn."""
    if data.batches.balance:
        return None
    known = [label for scan in data.scans["train"] if not math.isnan(label := float(scan.scan_labels[LABELS.index(ANY)]))]
    return sum(known) / len(known) if known else None


def _metrics() -> MetricCollection:
    losses = {"loss": WeightedLogLoss(), "ranking_loss": WeightedLogLoss(needs_absent=True)}
    return MetricCollection({**losses, "auroc": LabelAUROC()}, compute_groups=False)


def _refuse_synchronized(encoder: nn.Module) -> None:
    """Refuse chunks with synchronized batch-norm: processes have different numbers of chunks, and would deadlock."""
    if any(isinstance(layer, nn.SyncBatchNorm) and layer.training for layer in batch_norms(encoder)):
        raise ConfigError(
            "chunks_and_synchronized_statistics",
            where="model.encoder.slices_per_chunk, trainer.sync_batchnorm",
            got="both",
            expected="one of them",
            todo="Set model.encoder.checkpoint_blocks=true in place of slices_per_chunk, or model.encoder.batch_norm=frozen.",
        )
