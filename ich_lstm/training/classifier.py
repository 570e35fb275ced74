"""ScanClassifier: the network and its training, as a LightningModule."""

import logging
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import BatchSizeFinder
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
from ich_lstm.inference.forward import PredictedScan, TestTime, infer, predicted, probabilities_of, split_scans
from ich_lstm.inference.hub import model_folder
from ich_lstm.inference.predictor import Predictor
from ich_lstm.labels import ANY, LABELS
from ich_lstm.models.compiled import keep_plain_names, unwrapped
from ich_lstm.models.encoder import Encoder
from ich_lstm.models.heads import Head
from ich_lstm.models.pooling import Pooling
from ich_lstm.models.recompute import batch_norms
from ich_lstm.models.reduction import Reduction
from ich_lstm.models.released.weights import ChannelOrder
from ich_lstm.models.scan_model import ModelSettings, ScanLogits, ScanModel
from ich_lstm.prediction import ScanPrediction
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.preprocessing.windows import Windows
from ich_lstm.privacy import ProjectKey
from ich_lstm.scan import Scan
from ich_lstm.settings import differences, merged, require, require_choice, setting, staged, to_stored
from ich_lstm.training.callbacks import MovingAverage, without_folders
from ich_lstm.training.fit_record import FitRecord, begun, record_fit
from ich_lstm.training.fit_reduction import fit_reducer
from ich_lstm.training.losses import Loss, weighted_loss_sums
from ich_lstm.training.metrics import LabelAUROC, WeightedLogLoss
from ich_lstm.training.optimizer import Optimizer, make_optimizer, make_schedule

if TYPE_CHECKING:
    from ich_lstm.data.datamodule import ScanDataModule
    from ich_lstm.data.loading.batch import ScanBatch

logger = logging.getLogger(__name__)

Trained = Literal["all", "head", "encoder", "encoder-through-head"]
"""What a fit trains: ``all``; the ``head``, with the encoder frozen; the ``encoder`` alone, by its own logits; or the encoder by
the logits of a frozen head (``encoder-through-head``)."""

FIT_BEGUN_KEY = "ich_lstm_fit_begun"
"""In a checkpoint: whether its last record of a fit is the running fit's, which has begun; none is at step 0."""


@dataclass(frozen=True, kw_only=True)
class ClassifierSettings(ModelSettings):
    """What a `ScanClassifier` is made of, and how it is trained; its arguments, in one object."""

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
"""Names of the settings that are no part of the network, which a model is stored with."""


class ScanClassifier(LightningModule):
    """A CNN-LSTM that is trained end to end on whole scans of head CT.

    Args:
        encoder: The CNN that all slices share; a name of timm is short for ``Encoder(backbone=name)``.
        windows: How HU become the channels that the encoder sees.
        reduction: What of the encoder's features goes on to the head.
        head: What looks along the scan: ``LSTM(...)``, ``GRU(...)``, or ``NoHead()`` for the 2D baseline.
        pooling: How slice logits become scan logits.
        coherent_any: Raise "any" to the most probable type, in evaluation.
        max_slices: In evaluation, the head and the pooling look at so many slices of a scan with more, evenly spaced; every slice
            gets the context of the nearest. The encoder looks at all of them; null for no limit.
        loss: Weights of the terms of the training loss.
        optimizer: The optimizer, its rates and their schedule.
        ema: Decay of an exponential moving average of the weights, which is validated and saved in their place; null for none.
        test_time: What a prediction is the mean of: ``flip``: the scan and its mirror image; ``flip-reverse``: both, each read
            upwards and downwards; ``none``: nothing but the scan.

    A Trainer of one's own can fit, validate and test it, and predict with it, and its callbacks can watch these metrics:

    - ``val/monitor``, also as ``val_loss``, which loggers do not get: by it the best epoch is chosen. It is ``val/loss``, or
      ``val/scan_loss`` where the slices' labels are missing or of one class.
    - ``val/loss``, ``val/scan_loss``, ``val/encoder_loss``: RSNA's weighted log loss of the slices, of the scans, and of the
      slices by the encoder's own logits; the last only where there is a head beside them.
    - ``val/auroc_<label>``, ``val/scan_auroc_<label>``, ``val/encoder_auroc_<label>``: Areas under the ROC curves, with a label
      of `LABELS`, for example ``val/auroc_any``; NaN where all known labels are alike.
    - The same with ``test/`` from ``Trainer.test``, but for the monitored value: no epoch is chosen by held-out scans.
    - ``train/loss``, ``train/slice_loss``, ``train/scan_loss``, ``train/encoder_loss``, ``train/instance_loss``: The training
      loss and its terms before they are weighted.

    Raises:
        ConfigError: If a value is out of range, or settings do not go together.

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
        """What the model is made of and how the next fit trains it; `change_training` replaces it."""
        self.model = ScanModel(self.settings)
        keep_plain_names(self)
        self.trained: Trained = "all"
        """What the next fit trains; `choose_trained` sets it."""
        self.preprocessing: Preprocessing | None = None
        """How scans are prepared for this model: taken over from the data it is trained on."""
        self.slice_mm: float | None = None
        """The usual distance of slices in the scans it was trained on, in mm; None: unknown."""
        self.is_synthetic = False
        """Whether it was trained on synthetic heads, of which its predictions then warn."""
        self.positive_share: float | None = None
        """The share of positive scans among those it was trained on, in [0, 1]; None: unknown."""
        self.training_data: dict[str, Any] | None = None
        """How many patients, scans, slices and positives it was trained on; None: unknown."""
        self.starting_weights: dict[str, Any] | None = {"encoder": self.model.encoder.starting_weights}
        """Where the weights began, for the model card: the encoder's source, or the ``model`` that training went on from with its
        ``hash`` and its own ``starting_weights`` and ``fits``; all else began at random. None: unknown."""
        self.fits: tuple[FitRecord, ...] = ()
        """How these weights were trained since they began: one record for each fit, the running one included."""
        self.stage_name = ""
        """What the next fit is called in its record."""
        self._encoder_groups: int | None = None
        self.calibration: ModelCalibration | None = None
        """What `ich-evaluate --calibrate` has chosen on validation patients; predictions show it. Void after more training."""
        self.name = self.settings.encoder.backbone
        """What predictions call the model."""
        self._hash = WeightsHash()
        self.slice_metrics, self.encoder_metrics, self.scan_metrics = _metrics(), _metrics(), _metrics()

    @classmethod
    def from_settings(cls, settings: ClassifierSettings) -> "ScanClassifier":
        """Make a model of settings in one object.

        Args:
            settings: Its arguments.
        """
        return cls(**{each.name: getattr(settings, each.name) for each in fields(settings)})

    def forward(self, batch: "ScanBatch") -> ScanLogits:
        """Logits of a batch of scans."""
        return self.model(batch.hu, batch.lengths, batch.positions_mm, batch.draws)

    def infer(self, batch: "ScanBatch") -> ScanLogits:
        """Logits of a batch of scans in evaluation, as the mean over what is shown at test time."""
        return infer(self.model, batch.hu, batch.lengths, batch.positions_mm, test_time=self.settings.test_time)

    # Training

    @property
    def learning_rate(self) -> float:
        """Peak rate of the head in the next fit; ``Tuner.lr_find`` sets it to what it finds, with one rate for all weights."""
        return self.settings.optimizer.lr

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self.change_training({"optimizer": {"lr": rate}})

    @property
    def encoder_learning_rate(self) -> float:
        """Peak rate of the encoder in the next fit; ``Tuner.lr_find(attr_name="encoder_learning_rate")`` sets it."""
        return self.settings.optimizer.encoder_lr

    @encoder_learning_rate.setter
    def encoder_learning_rate(self, rate: float) -> None:
        self.change_training({"optimizer": {"encoder_lr": rate}})

    def change_training(self, changes: Mapping[str, Any]) -> None:
        """Change how the next fit trains.

        Args:
            changes: Arguments of the constructor by name, and their fields in mappings:
                ``{"optimizer": {"lr": 1e-4}, "encoder": {"batch_norm": "frozen"}}``. What is not given stays as it is.

        Raises:
            ConfigError: If a setting is unknown or out of range, or one that cannot change with the same weights from fit to fit.
        """
        self.use_settings(merged(self.settings, changes, where="model"))

    def use_settings(self, settings: ClassifierSettings) -> None:
        """Train the next fit by these settings.

        Args:
            settings: They may differ from the present ones in what may differ from stage to stage.

        Raises:
            ConfigError: ``other_network``, if anything else differs.
        """
        network = unwrapped(self.model)
        assert isinstance(network, ScanModel)
        network.change(settings)
        self.settings = settings

    def load_weights_from(self, other: "ScanClassifier") -> None:
        """Take over another model's weights and name, and how scans are prepared for it.

        Args:
            other: A model of the same network.
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

    def choose_trained(self, trained: Trained = "all", *, encoder_groups: int | None = None) -> None:
        """Choose what the next fit trains. It may not change inside a fit: DDP's ranks would diverge in silence.

        Args:
            trained: ``all``; ``head``: the encoder is frozen; ``encoder``: alone on single slices, by its own logits;
                ``encoder-through-head``: by the logits of a frozen head.
            encoder_groups: Where the encoder is trained, the last so many of its layer groups, at least 1; None for all.

        Raises:
            ConfigError: If the encoder has no logits of its own to be trained by, or the backbone no layer groups.
        """
        require_choice("unknown_trained", "train", trained, Trained)
        if trained == "encoder" and not self.model.has_encoder_view:
            raise ConfigError(
                "no_encoder_classifier",
                where="train=encoder",
                got="encoder.classifier=false",
                expected="logits of the encoder, by which it is trained alone",
                todo="Leave encoder.classifier true.",
            )
        self.trained = trained
        self._encoder_groups = 0 if trained == "head" else encoder_groups
        self.model.requires_grad_(trained in ("all", "head"))
        for module in self.model.encoder_modules():
            module.requires_grad_(trained != "head")
        self.model.encoder.unfreeze_last(self._encoder_groups)

    def setup(self, stage: str) -> None:
        """Take over how the data are prepared, and fit the reduction of features if that is to be done."""
        data = _scan_data(self.trainer)
        if data is not None:
            self._check_preprocessing(data)
        if self.trainer.precision == "bf16-true" and getattr(self.settings.head, "positions", None) == "mm":
            # Lightning rounds the batch as well as the weights.
            logger.warning(
                "precision bf16-true: the slices' positions in mm are rounded to 8 binary digits, to 1 mm between 128 and "
                "256 mm. bf16-mixed does not round them."
            )
        if stage != "fit":
            return
        if data is not None:
            shown, batches = self.settings.encoder.adjacent_slices, data.batches
            if shown and batches.slices_per_sample and batches.sample != "adjacent":
                raise ConfigError(
                    "no_neighbours",
                    where="model.encoder.adjacent_slices, data.batches.sample",
                    got=f"{shown}, and samples of {batches.sample} slices",
                    expected="samples in which a slice's neighbours are those of its scan",
                    todo="Set data.batches.sample=adjacent, or data.batches.slices_per_sample=null for whole scans.",
                )
            self.preprocessing = data.preprocessing
            self.slice_mm = data.slice_mm
            self.is_synthetic = data.is_synthetic
            self.positive_share = _positive_share(data)
            self.training_data = data.describe_training()
            self.calibration = None
        running = record_fit(
            self.trainer,
            data,
            stage=self.stage_name,
            encoder_groups=self._encoder_groups,
            trained=self.trained,
            settings=staged(self.settings),
        )
        self.fits = (*begun(self.fits), running)
        # Lightning leaves the mode as it is, and a model that was loaded is in evaluation mode.
        self.train()
        reducer = self.model.reducer
        if self.trained != "encoder" and reducer is not None and not reducer.is_fitted:
            fit_reducer(self.model, self.trainer, data, self.settings.reduction.slices)

    def _check_preprocessing(self, data: "ScanDataModule") -> None:
        """See that the scans are prepared as the model needs them."""
        data.preprocessing.check_windows(self.settings.windows.channels)
        if self.preprocessing not in (None, data.preprocessing):
            raise ConfigError(
                "other_preprocessing",
                where="data",
                got=str(data.preprocessing),
                expected=f"{self.preprocessing}, for which the model has been trained",
                todo="Prepare the scans alike, or set model.preprocessing = None to train it for these.",
            )

    def teardown(self, stage: str) -> None:
        """Forget the record of a fit that ended before its first step, as a search for a learning rate does."""
        self.fits = begun(self.fits)

    def on_fit_start(self) -> None:
        """Refuse what would let processes wait for one another for ever."""
        if self.settings.encoder.slices_per_chunk is not None and self.trainer.world_size > 1:
            _refuse_synchronized(self.model.encoder)

    def configure_callbacks(self) -> list[Callback]:
        """The moving average of the weights, if there is one.

        Raises:
            ConfigError: If Lightning is to search for a batch size, of which it knows nothing here.
        """
        # Before the finder's own setup, which would miss an attribute and not say what to do.
        if any(isinstance(callback, BatchSizeFinder) for callback in self.trainer.callbacks):  # type: ignore[attr-defined]
            raise ConfigError(
                "no_batch_size",
                where="Tuner.scale_batch_size, BatchSizeFinder",
                got="a search for a number of scans in a batch",
                expected="a budget of slices: scans differ in length, and the longest batch is what fills the memory",
                todo="Find batches.slices with ich-train --plan, or with ich_lstm.training.memory_planner.plan_memory.",
            )
        return [] if self.settings.ema is None else [MovingAverage(self.settings.ema)]

    def on_train_batch_end(self, outputs: Any, batch: "ScanBatch", batch_index: int) -> None:
        """Count epochs and steps in the record of the running fit."""
        epochs, steps = self.trainer.current_epoch + 1, self.trainer.global_step
        self.fits = (*self.fits[:-1], replace(self.fits[-1], epochs=epochs, steps=steps))

    def training_step(self, batch: "ScanBatch", batch_index: int) -> Tensor:
        """The loss of a batch: slices, the encoder's own view of them, and scans, each with its weight."""
        loss_settings = self.settings.loss
        logits = self._logits(batch)
        candidates = {
            "slice_loss": (loss_settings.slice, logits.slice_logits, batch.slice_labels),
            "scan_loss": (loss_settings.scan, logits.scan_logits, batch.scan_labels),
            "encoder_loss": (loss_settings.encoder, logits.encoder_logits, batch.slice_labels),
            "instance_loss": (loss_settings.instance, logits.instance_logits, batch.scan_labels),
        }
        any_weight, mean = loss_settings.any_weight, loss_settings.mean
        terms = {
            name: (factor, weighted_loss_sums(predicted, labels, any_weight=any_weight, mean=mean))
            for name, (factor, predicted, labels) in candidates.items()
            if predicted is not None
        }
        weights = self._world_sum(torch.stack([sums[1].detach() for _, sums in terms.values()]))
        world = self.trainer.world_size
        loss = torch.zeros((), device=self.device)
        for (name, (factor, sums)), weight in zip(terms.items(), weights, strict=True):
            # DDP takes the mean of the ranks' gradients; times world over the global weight makes that the global mean.
            term = sums[0] * world / weight.clamp(min=1e-12)
            self.log(f"train/{name}", term.detach(), on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch.hu))
            loss = loss + factor * term
        self.log(
            "train/loss", loss.detach(), on_step=False, on_epoch=True, sync_dist=True, batch_size=len(batch.hu), prog_bar=True
        )
        return loss

    def _logits(self, batch: "ScanBatch") -> ScanLogits:
        if self.trained == "encoder":
            return self.model.encoder_view(batch.hu, batch.lengths, batch.draws)
        return self(batch)

    def on_validation_epoch_start(self) -> None:
        """Give all processes the same running statistics of batch-norm: their mean."""
        if self.trainer.world_size > 1:
            for name, buffer in self.model.named_buffers():
                if name.endswith(("running_mean", "running_var")):
                    buffer.copy_(self._world_sum(buffer) / self.trainer.world_size)

    def validation_step(self, batch: "ScanBatch", batch_index: int) -> None:
        """Collect probabilities; a process without work gets an empty batch."""
        # Without work, collect nothing, but do collect: the metrics gather from all processes.
        empty = ScanLogits(batch.slice_labels, batch.scan_labels, batch.slice_labels)
        self._collect(self._logits(batch) if len(batch.lengths) else empty, batch)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all processes together, and ``val/monitor``, by which the best epoch is chosen."""
        losses, aurocs = self._log_metrics("val")
        # The slices' loss; where the slices' labels cannot tell good from bad, for they are of one class, the scans'.
        slices_tell = not aurocs[""].isnan().all() or losses["scan_"].isnan()
        monitored = losses["" if slices_tell else "scan_"]
        self.log("val/monitor", monitored, sync_dist=True)
        # The name that callbacks guess, and which can stand in a file's name; for loggers it would be the same curve again.
        self.log("val_loss", monitored, sync_dist=True, logger=False)

    def test_step(self, batch: "ScanBatch", batch_index: int) -> None:
        """Collect probabilities of held-out scans, as `validation_step` does."""
        self.validation_step(batch, batch_index)

    def on_test_epoch_end(self) -> None:
        """Log the metrics of all processes together, by the names of the validation's with ``test/`` in place of ``val/``."""
        self._log_metrics("test")

    def _log_metrics(self, phase: Literal["val", "test"]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Log and reset the metrics; returns the losses and the areas, ``(k,)``, of each view."""
        losses, aurocs = {}, {}
        for view, metrics in self._metrics_by_view().items():
            values = metrics.compute()
            metrics.reset()
            losses[view], aurocs[view] = values["loss"].float(), values["auroc"].float()
            # The metrics have gathered from all processes already; sync_dist takes the mean of equal values.
            self.log(f"{phase}/{view}loss", losses[view], prog_bar=not view, sync_dist=True)
            for label, area in zip(LABELS, aurocs[view], strict=True):
                self.log(f"{phase}/{view}auroc_{label}", area, prog_bar=not view and label == ANY, sync_dist=True)
        return losses, aurocs

    def _metrics_by_view(self) -> dict[str, MetricCollection]:
        """The metrics of the slices, of the scans, and of the slices by the encoder alone, by how their names begin."""
        metrics = {"": self.slice_metrics, "scan_": self.scan_metrics}
        has_both = self.trained != "encoder" and self.model.sequence is not None and self.model.has_encoder_view
        return {**metrics, "encoder_": self.encoder_metrics} if has_both else metrics

    def predict_step(self, batch: "ScanBatch", batch_index: int) -> list[PredictedScan]:
        """Probabilities of the scans of a batch, for ``Trainer.predict``: of a `ScanDataModule` these are the held-out scans.

        They are those of `predict` before calibration: coherent, and the mean over what ``test_time`` asks for.

        Returns:
            One for each scan, on the CPU; none for the empty batch of a process without work.
        """
        if len(batch.lengths) == 0:
            return []
        return split_scans(predicted(self.infer(batch), batch.lengths), batch.lengths, batch.scan_ids)

    def _collect(self, logits: ScanLogits, batch: "ScanBatch") -> None:
        self.slice_metrics.update(probabilities_of(logits.slice_logits), batch.slice_labels)
        self.scan_metrics.update(probabilities_of(logits.scan_logits), batch.scan_labels)
        if "encoder_" in self._metrics_by_view() and logits.encoder_logits is not None:
            self.encoder_metrics.update(probabilities_of(logits.encoder_logits), batch.slice_labels)

    def _world_sum(self, values: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return values
        return self.trainer.strategy.reduce(values.clone(), reduce_op="sum")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """An optimizer with a rate for the encoder and one for the head, and their schedule."""
        chosen = self.settings.optimizer
        optimizer = make_optimizer(self.model, chosen)
        kind, steps = chosen.schedule, self.trainer.estimated_stepping_batches
        if 0 <= steps < math.inf:
            schedule = make_schedule(optimizer, kind, steps=int(steps), warmup=chosen.warmup)
        else:  # nobody knows the number of steps: infinite, or -1
            schedule = make_schedule(optimizer, "constant", steps=self._steps_of_an_epoch(), warmup=chosen.warmup)
            if kind != "constant":
                logger.warning("schedule %s: the number of steps is unknown, so after the warm-up the rates stay.", kind)
                said = {**self.fits[-1].settings, "optimizer": {**self.fits[-1].settings["optimizer"], "schedule": "constant"}}
                self.fits = (*self.fits[:-1], replace(self.fits[-1], settings=said))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _steps_of_an_epoch(self) -> int:
        """Steps of the optimizer in an epoch; 0 if that has no end either."""
        if self.trainer.train_dataloader is None:
            self.trainer.fit_loop.setup_data()  # as Lightning does it for its estimate
        batches = self.trainer.num_training_batches
        return math.ceil(batches / self.trainer.accumulate_grad_batches) if batches < math.inf else 0

    # Saving and loading

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what it takes to build the model again, and take out paths of this machine."""
        checkpoint[ABOUT_KEY] = self._saved().about
        checkpoint[FIT_BEGUN_KEY] = bool(self.fits and self.fits[-1].steps)
        checkpoint["callbacks"] = without_folders(checkpoint.get("callbacks", {}))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Go on with the records of the fit that is resumed, or begin it again after a search for a learning rate."""
        about = checkpoint.get(ABOUT_KEY, {})
        # A search saves the weights before the first step, trains, and loads them: its steps are none of the running fit's.
        is_fitting = self.trainer.state.fn == TrainerFn.FITTING
        again = is_fitting and not checkpoint.get(FIT_BEGUN_KEY, True)
        running = tuple(replace(fit, epochs=0, steps=0) for fit in self.fits[-1:]) if again else ()
        if about.get("fits") or running:
            self.starting_weights = about["starting_weights"]
            self.fits = (*(FitRecord(**fit) for fit in about.get("fits") or ()), *running)

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the model as ``model.safetensors`` and ``model.json``, which holds everything but the weights.

        Args:
            folder: Made if missing.
        """
        write_model(Path(folder), self._saved())
        if self.calibration is not None:
            write_calibration(Path(folder), self.calibration)

    @classmethod
    def from_pretrained(cls, name: Path | str) -> "ScanClassifier":
        """Read a model from a folder made by `save_pretrained`, or from the Hugging Face hub.

        Args:
            name: A folder, or a repository of the hub (``owner/name``), of which only JSON and safetensors are downloaded.

        Returns:
            The model in evaluation mode, on the CPU.

        Raises:
            CheckpointError: If there is no model, a pickle lies beside it, or its weights are damaged or do not fit.
        """
        return cls.load(model_folder(name))

    @classmethod
    def load(cls, path: Path | str, *, channel_order: ChannelOrder | None = None) -> "ScanClassifier":
        """Read a model: a run's folder, a folder made by `save_pretrained`, a ``.ckpt``, or weights that others released.

        Args:
            path: File or folder.
            channel_order: Of the windows of Nguyen et al.'s released weights, and of no other model: ``bgr`` (bone first) or
                ``rgb`` (brain first); None: ``bgr``, which is what their loader does. See docs/released.md.

        Returns:
            The model in evaluation mode, on the CPU.

        Raises:
            ConfigError: If a channel order is given for another model.
            CheckpointError: If there is no model, or its weights do not fit its settings, or its calibration not its weights.
        """
        return cls._load(Path(path), {}, channel_order)

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]  # Lightning hands on any keyword
        cls,
        checkpoint_path: Path | str | IO[bytes],
        map_location: torch.device | str | int | Callable[..., Any] | dict[Any, Any] | None = None,
        hparams_file: Path | str | None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        *,
        changes: Mapping[str, Any] | None = None,
    ) -> "ScanClassifier":
        """Read a model as `load` does: Lightning's name for it.

        Args:
            checkpoint_path: All that `load` takes. No open file and no address: nothing is downloaded.
            map_location: Device for the model; None: the CPU. Functions and maps of devices are refused.
            hparams_file: None, for a model's settings are stored with its weights.
            strict: True or None: weights that do not fit are refused.
            weights_only: True or None: nothing but tensors and plain values is ever read.
            changes: Arguments of the constructor by name, and their fields in mappings, as `change_training` takes them, that
                leave the meaning of the weights as it is: how it is trained, how it is run, and what any weights go with. Other
                settings may be given with the values that are stored.

        Returns:
            The model in evaluation mode.

        Raises:
            CheckpointError: As `load` does.
            ConfigError: If an argument asks for what this does not do, or a keyword for another model than the stored one.
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
                todo="Leave the argument out; save an open file, and name it.",
            )
        classifier = cls._load(Path(checkpoint_path), changes or {})
        return classifier if map_location is None else classifier.to(map_location)

    @classmethod
    def _load(cls, path: Path, changes: Mapping[str, Any], channel_order: ChannelOrder | None = None) -> "ScanClassifier":
        """Read a model, with other values of settings that its weights do not depend on."""
        saved = read_model(path, channel_order)
        with fitting(path):
            stored = merged(ClassifierSettings(), saved.about["settings"])
        settings = merged(stored, changes, where="load_from_checkpoint")
        check_same_network(stored, settings, where="load_from_checkpoint, ", whose=path.name)
        with fitting(path):
            classifier = cls.from_settings(merged(settings, {"encoder": {"pretrained": False, "pretrained_file": None}}))
            classifier.model.load_state_dict(saved.weights)
            if saved.about["preprocessing"] is not None:
                classifier.preprocessing = Preprocessing(**saved.about["preprocessing"])
            classifier.fits = tuple(FitRecord(**fit) for fit in saved.about["fits"] or ())
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
        return SavedModel(about, unwrapped(self.model).state_dict())

    def weights_hash(self) -> str:
        """What the weights are known by, 12 hexadecimal digits."""
        return self._hash.of(self.model)

    # Prediction

    @property
    def predictor(self) -> Predictor:
        """What this model is to a prediction, as it is now; the network is the same object."""
        return Predictor(
            model=self.model,
            preprocessing=self.preprocessing,
            name=self.name,
            calibration=self.calibration,
            is_synthetic=self.is_synthetic,
            slice_mm=self.slice_mm,
            test_time=self.settings.test_time,
            hash=self._hash,
        )

    @property
    def slab_mm(self) -> float | None:
        """How thick the slabs are to which thin slices are averaged for this model; None if it was trained on thin ones."""
        return self.predictor.slab_mm

    def known_preprocessing(self) -> Preprocessing:
        """How scans are prepared for this model.

        Raises:
            CheckpointError: If it does not know.
        """
        return self.predictor.known_preprocessing()

    def predict(
        self, source: Path | str | Scan, *, project_key: ProjectKey | None = None, coherent: bool = True
    ) -> Iterator[ScanPrediction]:
        """Predict a scan, or every study below a path, one after the other; a NIfTI file is a study of its own.

        Of each study the plain axial brain series is read. Nothing is refused in silence: after all predictions have been
        given, an error lists the studies that could not be read.

        Args:
            source: A scan, a folder, a zip, or a file, which may be NIfTI.
            project_key: Key for the ids in the predictions; by default the user's own.
            coherent: A scan's probability is at least its most probable slice's, and that of "any" at least each type's, as the
                labels mean it; False: probabilities as the network gives them.

        Yields:
            One prediction per study.

        Raises:
            SourceError: If nothing can be read.
            StudyError: At the end, if studies were refused.
        """
        return self.predictor.predict(source, project_key=project_key, coherent=coherent)

    def predict_scan(self, scan: Scan, project_key: ProjectKey, *, coherent: bool = True) -> ScanPrediction:
        """Predict one scan, on the device the model is on; the model's mode is left as it was.

        Args:
            scan: The scan.
            project_key: Key for the ids.
            coherent: As in `predict`.

        Raises:
            CheckpointError: If the model does not know how scans are prepared for it.
            ConfigError: If its calibration was fitted to the other kind of probabilities.
        """
        return self.predictor.predict_scan(scan, project_key, coherent=coherent)


def check_same_network(stored: ClassifierSettings, wanted: ClassifierSettings, *, where: str, whose: str) -> None:
    """See that the settings that are wanted make no other model of the stored weights.

    Args:
        stored: With which the weights were trained.
        wanted: With which they are to be used.
        where: What an error puts before the names of settings.
        whose: Name of the model's file or folder.

    Raises:
        ConfigError: ``other_network``.
    """
    wrong = [each for each in differences(stored, wanted) if not each.free]
    # The weights come from the file: whether others were downloaded before the training makes no difference.
    wrong = [each for each in wrong if each.name != "encoder.pretrained" or each.after]
    if wrong:
        raise ConfigError(
            "other_network",
            where=", ".join(f"{where}{each.name}" for each in wrong),
            got=", ".join(repr(each.after) for each in wrong),
            expected="; ".join(f"{each.name}={each.before!r}, with which the weights were trained" for each in wrong),
            todo=f"Leave them out, for {whose} says what its model is; or train another model.",
        )


def _scan_data(trainer: Trainer) -> "ScanDataModule | None":
    """The data of a fit, if they are a `ScanDataModule`."""
    # Imported where there are data: a model that only predicts needs none of it, and it takes long.
    from ich_lstm.data.datamodule import ScanDataModule

    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, ScanDataModule) else None


def _positive_share(data: "ScanDataModule") -> float | None:
    """Among the training scans of which it is known whether they are positive; None where balance draws them otherwise."""
    if data.batches.balance:
        return None
    known = [label for scan in data.scans["train"] if not math.isnan(label := float(scan.scan_labels[LABELS.index(ANY)]))]
    return sum(known) / len(known) if known else None


def _metrics() -> MetricCollection:
    return MetricCollection({"loss": WeightedLogLoss(), "auroc": LabelAUROC()}, compute_groups=False)


def _refuse_synchronized(encoder: nn.Module) -> None:
    """Processes whose batches differ in length have different numbers of chunks, and would wait for one another for ever."""
    if any(isinstance(layer, nn.SyncBatchNorm) and layer.training for layer in batch_norms(encoder)):
        raise ConfigError(
            "chunks_and_synchronized_statistics",
            where="model.encoder.slices_per_chunk, trainer.sync_batchnorm",
            got="both",
            expected="one of them",
            todo="Set model.encoder.checkpoint_blocks=true in place of slices_per_chunk, or model.encoder.batch_norm=frozen.",
        )
