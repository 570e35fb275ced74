"""ScanClassifier: the network and its training, as a LightningModule."""

import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal, get_args

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
from ich_lstm.keywords import changes_of, documents_keywords_of, keywords_of, takes_keywords
from ich_lstm.labels import ANY, LABELS
from ich_lstm.models.compiled import keep_plain_names, unwrapped
from ich_lstm.models.recompute import batch_norms
from ich_lstm.models.released.weights import ChannelOrder
from ich_lstm.models.scan_model import CHANGEABLE, RUNNING, ScanLogits, ScanModel
from ich_lstm.prediction import ScanPrediction
from ich_lstm.preprocessing.crop_and_resize import Preprocessing
from ich_lstm.privacy import ProjectKey
from ich_lstm.scan import Scan
from ich_lstm.training.callbacks import MovingAverage, without_folders
from ich_lstm.training.fit_record import FitRecord, begun, record_fit
from ich_lstm.training.fit_reduction import fit_reducer
from ich_lstm.training.losses import LossMean, weighted_loss_sums
from ich_lstm.training.metrics import LabelAUROC, WeightedLogLoss
from ich_lstm.training.optimizer import OptimizerKind, Schedule, make_optimizer, make_schedule

if TYPE_CHECKING:
    from ich_lstm.data.datamodule import ScanDataModule
    from ich_lstm.data.loading.batch import ScanBatch

logger = logging.getLogger(__name__)

TRAINING = (
    "learning_rate",
    "encoder_learning_rate",
    "window_learning_rate",
    "weight_decay",
    "optimizer",
    "epsilon",
    "schedule",
    "warmup",
    "ema",
    "slice_loss",
    "encoder_loss",
    "scan_loss",
    "instance_loss",
    "any_weight",
    "loss_mean",
    "reducer_slices",
    "test_time",
)
"""Arguments of `ScanClassifier` itself; all others are its network's."""

STAGED = (
    *(name for name in TRAINING if name not in ("reducer_slices", "test_time")),
    "batch_norm",
    "slices_per_chunk",
    "reversal",
)
"""What may differ from stage to stage of a training."""

HeadMode = Literal["train", "freeze", "skip"]

FIT_BEGUN_KEY = "ich_lstm_fit_begun"
"""In a checkpoint: whether its last record of a fit is the running fit's, which has begun; none is at step 0."""


@documents_keywords_of(ScanModel)
class ScanClassifier(LightningModule):
    """A CNN-LSTM that is trained end to end on whole scans of head CT.

    How it is trained stands first; the keywords from ``backbone`` on make the network, which is a `ScanModel`.

    Args:
        learning_rate: Peak rate of the head.
        encoder_learning_rate: Peak rate of the encoder; pretrained weights want about a tenth of the head's.
        window_learning_rate: Peak rate of learnable windows, in HU: the others' would not move them.
        weight_decay: Not applied to biases and normalizations.
        optimizer: ``adamw`` or ``adam``.
        epsilon: Added to the denominator of the optimizer's update.
        schedule: What the rates do after the warm-up: ``cosine``: fall to 0; ``constant``: stay. They stay under either where
            nobody knows the number of steps, as with ``Trainer(max_epochs=-1, max_time=...)``, and the record of the fit says so.
        warmup: Share of the steps in which the rates rise linearly to their peaks; where nobody knows the number of steps, share
            of the first epoch's.
        ema: Decay of an exponential moving average of the weights, which is validated and saved in their place; null for none.
        slice_loss: Weight of the slices' loss.
        encoder_loss: Weight of the loss of the encoder's own logits, which sees each slice alone.
        scan_loss: Weight of the scans' loss, which lets labels of whole scans train the network.
        instance_loss: Weight of the loss of the scans' logits by attention over the encoder's features (``instance_pooling``).
        any_weight: Weight of "any" in all of these beside 1 for each type; RSNA's is 2.
        loss_mean: Whether the losses are divided by the sum of the ``weights``, as RSNA does, or by the number of ``labels``.
        reducer_slices: Training slices to whose features a reduction is fitted.
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
        ConfigError: If a keyword is unknown, or a value is out of range.

    Example:
        >>> model = ScanClassifier(backbone="resnet18", pretrained=False, hidden_size=64)
        >>> Trainer(max_epochs=8).fit(model, ScanDataModule("dicom/", "labels.csv"))  # doctest: +SKIP
    """

    @takes_keywords(keywords_of(ScanModel))
    def __init__(
        self,
        *,
        learning_rate: float = 1e-3,
        encoder_learning_rate: float = 1e-4,
        window_learning_rate: float = 0.1,
        weight_decay: float = 1e-2,
        optimizer: OptimizerKind = "adamw",
        epsilon: float = 1e-8,
        schedule: Schedule = "cosine",
        warmup: float = 0.05,
        ema: float | None = None,
        slice_loss: float = 1.0,
        encoder_loss: float = 0.5,
        scan_loss: float = 0.25,
        instance_loss: float = 0.1,
        any_weight: float = 2.0,
        loss_mean: LossMean = "weights",
        reducer_slices: int = 30_000,
        test_time: TestTime = "none",
        **model: Any,
    ) -> None:
        training = {name: value for name, value in locals().items() if name in TRAINING}
        super().__init__()
        self.training_settings = _checked(training)
        self.model = ScanModel(**model)
        keep_plain_names(self)
        self.head_mode: HeadMode = "train"
        """Whether the recurrent head is trained, frozen, or left out, so that the encoder alone is trained on single slices."""
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
        self.name = self.model.settings["backbone"]
        """What predictions call the model."""
        self._hash = WeightsHash()
        self.slice_metrics, self.encoder_metrics, self.scan_metrics = _metrics(), _metrics(), _metrics()

    @property
    def settings(self) -> dict[str, Any]:
        """Every argument of the constructor that makes the model what it is: all it takes to build it again."""
        return self.training_settings | self.model.settings

    def forward(self, batch: "ScanBatch") -> ScanLogits:
        """Logits of a batch of scans."""
        return self.model(batch.hu, batch.lengths, batch.positions_mm, batch.draws)

    def infer(self, batch: "ScanBatch") -> ScanLogits:
        """Logits of a batch of scans in evaluation, as the mean over what is shown at test time."""
        return infer(self.model, batch.hu, batch.lengths, batch.positions_mm, test_time=self.training_settings["test_time"])

    # Training

    @property
    def learning_rate(self) -> float:
        """Peak rate of the head in the next fit; ``Tuner.lr_find`` sets it to what it finds, with one rate for all weights."""
        return self.training_settings["learning_rate"]

    @learning_rate.setter
    def learning_rate(self, rate: float) -> None:
        self.change_training(learning_rate=rate)

    @property
    def encoder_learning_rate(self) -> float:
        """Peak rate of the encoder in the next fit; ``Tuner.lr_find(attr_name="encoder_learning_rate")`` sets it."""
        return self.training_settings["encoder_learning_rate"]

    @encoder_learning_rate.setter
    def encoder_learning_rate(self, rate: float) -> None:
        self.change_training(encoder_learning_rate=rate)

    @property
    def staged_settings(self) -> dict[str, Any]:
        """The values of `STAGED`: how the next fit trains."""
        network = {
            "batch_norm": self.model.encoder.batch_norm,
            "slices_per_chunk": self.model.slices_per_chunk,
            "reversal": self.model.reversal,
        }
        return {name: self.training_settings[name] for name in STAGED if name in TRAINING} | network

    @takes_keywords(changes_of(each for each in keywords_of(__init__) if each.name in STAGED))
    def change_training(self, **changes: Any) -> None:
        """Change how the next fit trains: the keywords in the signature, as in the constructor.

        Args:
            **changes: What is to be another than it is.

        Raises:
            ConfigError: If a name is not among these, or a value is out of range.
        """
        self.training_settings = _checked(
            self.training_settings | {name: value for name, value in changes.items() if name in TRAINING}
        )
        if "batch_norm" in changes:
            self.model.encoder.batch_norm = changes["batch_norm"]
        if "slices_per_chunk" in changes:
            self.model.slices_per_chunk = changes["slices_per_chunk"]
        if "reversal" in changes:
            self.model.reversal = changes["reversal"]

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

    def choose_parts(self, *, encoder: int | None = None, head: HeadMode = "train") -> None:
        """Choose what the next fit trains. It may not change inside a fit: DDP's ranks would diverge in silence.

        Args:
            encoder: The last so many of the encoder's layer groups; None for all, 0 for none of it.
            head: ``train``; ``freeze``; or ``skip``: leave the recurrent head out.

        Raises:
            ConfigError: If nothing would be trained, or the encoder has no logits of its own to be trained by.
        """
        if head == "skip" and not self.model.has_encoder_view:
            raise ConfigError(
                "no_encoder_classifier",
                where="head=skip",
                got="encoder_classifier=false",
                expected="logits of the encoder, by which it is trained alone",
                todo="Leave encoder_classifier true.",
            )
        if encoder == 0 and head != "train":
            raise ConfigError(
                "nothing_trained", where="encoder, head", got=f"encoder frozen, head={head}", expected="one of them trained"
            )
        self.head_mode = head
        self._encoder_groups = encoder
        self.model.requires_grad_(head == "train")
        for module in self.model.encoder_modules():
            module.requires_grad_(encoder != 0)
        self.model.encoder.unfreeze_last(encoder)

    def setup(self, stage: str) -> None:
        """Take over how the data are prepared, and fit the reduction of features if that is to be done."""
        data = _scan_data(self.trainer)
        if data is not None:
            self._check_preprocessing(data)
        if self.trainer.precision == "bf16-true" and self.model.settings["positions"] == "mm":
            # Lightning rounds the batch as well as the weights.
            logger.warning(
                "precision bf16-true: the slices' positions in mm are rounded to 8 binary digits, to 1 mm between 128 and "
                "256 mm. bf16-mixed does not round them."
            )
        if stage != "fit":
            return
        if data is not None:
            if self.model.neighbours and data.batching["slices_per_sample"] and data.batching["sample"] != "adjacent":
                raise ConfigError(
                    "no_neighbours",
                    where="model.neighbours, data.sample",
                    got=f"{self.model.neighbours}, and samples of {data.batching['sample']} slices",
                    expected="samples in which a slice's neighbours are those of its scan",
                    todo="Set data.sample=adjacent, or data.slices_per_sample=null for whole scans.",
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
            head=self.head_mode,
            settings=self.staged_settings,
        )
        self.fits = (*begun(self.fits), running)
        # Lightning leaves the mode as it is, and a model that was loaded is in evaluation mode.
        self.train()
        reducer = self.model.reducer
        if self.head_mode != "skip" and reducer is not None and not reducer.is_fitted:
            fit_reducer(self.model, self.trainer, data, self.training_settings["reducer_slices"])

    def _check_preprocessing(self, data: "ScanDataModule") -> None:
        """See that the scans are prepared as the model needs them."""
        data.preprocessing.check_windows(self.model.settings["windows"])
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
        if self.model.slices_per_chunk is not None and self.trainer.world_size > 1:
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
                todo="Find slices_per_batch with ich-train --plan, or with ich_lstm.training.memory_planner.plan_memory.",
            )
        decay = self.training_settings["ema"]
        return [] if decay is None else [MovingAverage(decay)]

    def on_train_batch_end(self, outputs: Any, batch: "ScanBatch", batch_index: int) -> None:
        """Count epochs and steps in the record of the running fit."""
        epochs, steps = self.trainer.current_epoch + 1, self.trainer.global_step
        self.fits = (*self.fits[:-1], replace(self.fits[-1], epochs=epochs, steps=steps))

    def training_step(self, batch: "ScanBatch", batch_index: int) -> Tensor:
        """The loss of a batch: slices, the encoder's own view of them, and scans, each with its weight."""
        chosen = self.training_settings
        logits = self._logits(batch)
        options = {"any_weight": chosen["any_weight"], "mean": chosen["loss_mean"]}
        candidates = {
            "slice_loss": (logits.slice_logits, batch.slice_labels),
            "scan_loss": (logits.scan_logits, batch.scan_labels),
            "encoder_loss": (logits.encoder_logits, batch.slice_labels),
            "instance_loss": (logits.instance_logits, batch.scan_labels),
        }
        terms = {
            name: (chosen[name], weighted_loss_sums(predicted, labels, **options))
            for name, (predicted, labels) in candidates.items()
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
        if self.head_mode == "skip":
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
        has_both = self.head_mode != "skip" and self.model.sequence is not None and self.model.has_encoder_view
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
        chosen = self.training_settings
        optimizer = make_optimizer(
            self.model,
            kind=chosen["optimizer"],
            learning_rate=chosen["learning_rate"],
            encoder_learning_rate=chosen["encoder_learning_rate"],
            window_learning_rate=chosen["window_learning_rate"],
            weight_decay=chosen["weight_decay"],
            epsilon=chosen["epsilon"],
        )
        kind, steps = chosen["schedule"], self.trainer.estimated_stepping_batches
        if 0 <= steps < math.inf:
            schedule = make_schedule(optimizer, kind, steps=int(steps), warmup=chosen["warmup"])
        else:  # nobody knows the number of steps: infinite, or -1
            schedule = make_schedule(optimizer, "constant", steps=self._steps_of_an_epoch(), warmup=chosen["warmup"])
            if kind != "constant":
                logger.warning("schedule %s: the number of steps is unknown, so after the warm-up the rates stay.", kind)
                self.fits = (*self.fits[:-1], replace(self.fits[-1], settings={**self.fits[-1].settings, "schedule": "constant"}))
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
    @takes_keywords(changes_of(keywords_of(__init__)))
    def load_from_checkpoint(
        cls,
        checkpoint_path: Path | str | IO[bytes],
        map_location: torch.device | str | int | Callable[..., Any] | dict[Any, Any] | None = None,
        hparams_file: Path | str | None = None,
        strict: bool | None = None,
        weights_only: bool | None = None,
        **changes: Any,
    ) -> "ScanClassifier":
        """Read a model as `load` does: Lightning's name for it.

        Args:
            checkpoint_path: All that `load` takes. No open file and no address: nothing is downloaded.
            map_location: Device for the model; None: the CPU. Functions and maps of devices are refused.
            hparams_file: None, for a model's settings are stored with its weights.
            strict: True or None: weights that do not fit are refused.
            weights_only: True or None: nothing but tensors and plain values is ever read.
            **changes: Keywords of `ScanClassifier` that leave the meaning of the weights as it is: how it is trained
                (`TRAINING`), how it is run (`RUNNING`), and what any weights go with (`CHANGEABLE`). Other keywords may be
                given with the values that are stored.

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
        classifier = cls._load(Path(checkpoint_path), changes)
        return classifier if map_location is None else classifier.to(map_location)

    @classmethod
    def _load(cls, path: Path, changes: dict[str, Any], channel_order: ChannelOrder | None = None) -> "ScanClassifier":
        """Read a model, with other values of settings that its weights do not depend on."""
        saved = read_model(path, channel_order)
        _check_changes(changes, saved.about["settings"], path)
        with fitting(path):
            classifier = cls(**{**saved.about["settings"], **changes, "pretrained": False})
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
            "settings": self.settings,
            "of_training": sorted(self.training_settings),
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
            test_time=self.training_settings["test_time"],
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


def _check_changes(changes: dict[str, Any], stored: dict[str, Any], path: Path) -> None:
    """See that none of the keywords makes another model of the stored weights."""
    free = {*TRAINING, *RUNNING, *CHANGEABLE} - {"pretrained_file"}
    fixed = {name: value for name, value in changes.items() if name not in free}
    # The weights come from the file: whether others were downloaded before the training makes no difference.
    wrong = [name for name, value in fixed.items() if name != "pretrained" and not _is_stored(name, value, stored)]
    wrong += ["pretrained"] if fixed.get("pretrained") else []
    if wrong:
        raise ConfigError(
            "other_network",
            where=f"load_from_checkpoint, {', '.join(wrong)}",
            got=", ".join(repr(changes[name]) for name in wrong),
            expected="; ".join(_what_is_stored(name, stored) for name in wrong),
            todo=f"Leave them out, for {path.name} says what its model is; or train another model.",
        )


def _is_stored(name: str, value: Any, stored: dict[str, Any]) -> bool:
    return name in stored and _as_lists(value) == _as_lists(stored[name])


def _what_is_stored(name: str, stored: dict[str, Any]) -> str:
    if name == "pretrained":
        return "pretrained=False, for the weights are the file's"
    if name == "pretrained_file":
        return "no pretrained_file, for the weights are the file's"
    return f"{name}={stored[name]!r}, with which the weights were trained" if name in stored else f"no {name}"


def _as_lists(value: Any) -> Any:
    return [_as_lists(item) for item in value] if isinstance(value, list | tuple) else value


def _scan_data(trainer: Trainer) -> "ScanDataModule | None":
    """The data of a fit, if they are a `ScanDataModule`."""
    # Imported where there are data: a model that only predicts needs none of it, and it takes long.
    from ich_lstm.data.datamodule import ScanDataModule

    data = getattr(trainer, "datamodule", None)
    return data if isinstance(data, ScanDataModule) else None


def _positive_share(data: "ScanDataModule") -> float | None:
    """Among the training scans of which it is known whether they are positive; None where balance draws them otherwise."""
    if data.balance:
        return None
    known = [label for scan in data.scans["train"] if not math.isnan(label := float(scan.scan_labels[LABELS.index(ANY)]))]
    return sum(known) / len(known) if known else None


def _metrics() -> MetricCollection:
    return MetricCollection({"loss": WeightedLogLoss(), "auroc": LabelAUROC()}, compute_groups=False)


def _checked(training: dict[str, Any]) -> dict[str, Any]:
    """The settings of a training, if they are in range."""
    factors = ("slice_loss", "encoder_loss", "scan_loss", "instance_loss", "any_weight")
    rates = ("learning_rate", "encoder_learning_rate", "window_learning_rate")
    not_below_0 = (*rates, "weight_decay", "epsilon", *factors)
    wrong = [name for name in not_below_0 if training[name] < 0]
    wrong += ["warmup"] if not 0 <= training["warmup"] < 1 else []
    wrong += ["ema"] if training["ema"] is not None and not 0 < training["ema"] < 1 else []
    wrong += ["reducer_slices"] if training["reducer_slices"] < 1 else []
    kinds = {"optimizer": OptimizerKind, "schedule": Schedule, "loss_mean": LossMean, "test_time": TestTime}
    wrong += [name for name, kind in kinds.items() if training[name] not in get_args(kind)]
    if wrong:
        choices = "; ".join(f"{name} one of {', '.join(get_args(kinds[name]))}" for name in wrong if name in kinds)
        raise ConfigError(
            "training_out_of_range",
            where=", ".join(wrong),
            got=", ".join(str(training[name]) for name in wrong),
            expected=choices or "warmup in [0, 1), ema in (0, 1) or null, reducer_slices at least 1, all others not below 0",
        )
    return training


def _refuse_synchronized(encoder: nn.Module) -> None:
    """Processes whose batches differ in length have different numbers of chunks, and would wait for one another for ever."""
    if any(isinstance(layer, nn.SyncBatchNorm) and layer.training for layer in batch_norms(encoder)):
        raise ConfigError(
            "chunks_and_synchronized_statistics",
            where="model.slices_per_chunk, trainer.sync_batchnorm",
            got="both",
            expected="one of them",
            todo="Set model.checkpoint_blocks=true in place of slices_per_chunk, or model.batch_norm=frozen.",
        )
