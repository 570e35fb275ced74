"""ScanClassifier: the network with its training, as a LightningModule."""

import math
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MetricCollection

from ich_lstm.data.batch import ScanBatch
from ich_lstm.data.datamodule import ScanDataModule
from ich_lstm.errors import CheckpointError, ConfigError, IchLstmError, StudyError
from ich_lstm.labels import ANY, LABELS
from ich_lstm.learning.calibration import ModelCalibration
from ich_lstm.learning.calibration_file import read_calibration, write_calibration
from ich_lstm.learning.checkpoint import ABOUT_KEY, SavedModel, find_model_folder, read_model, without_folders, write_model
from ich_lstm.learning.losses import weighted_loss_sums
from ich_lstm.learning.metrics import LabelAUROC, WeightedLogLoss
from ich_lstm.models.scan_model import ScanLogits, ScanModel
from ich_lstm.pixels.preprocess import Preprocessing, preprocess_scan
from ich_lstm.privacy import ProjectKey
from ich_lstm.reading import choose_series, index_source, is_nifti, load_scan, read_nifti
from ich_lstm.reading.slabs import SLAB_MM, THIN_MM
from ich_lstm.scan import Note, Scan, Slab
from ich_lstm.views.prediction import ScanPrediction

SYNTHETIC = Note("synthetic_model", "the model was trained on synthetic heads only")


class ScanClassifier(LightningModule):
    """A CNN-LSTM that is trained end to end on whole scans of head CT.

    The keywords of `ScanModel` (``backbone``, ``sequence``, ``hidden_size`` and so on) are taken too.

    Args:
        learning_rate: Peak rate of the head.
        encoder_learning_rate: Peak rate of the encoder; pretrained weights want about a tenth of the head's.
        weight_decay: Of AdamW, not applied to biases and normalizations.
        warmup: Share of the steps in which the rates rise linearly to their peaks; then they fall to 0 along a cosine.
        slice_loss: Weight of the slices' loss.
        encoder_loss: Weight of the loss of the encoder's own logits, which sees each slice alone.
        scan_loss: Weight of the scans' loss, which lets labels of whole scans train the network.

    Example:
        >>> model = ScanClassifier(backbone="resnet18", pretrained=False, hidden_size=64)
        >>> Trainer(max_epochs=8).fit(model, ScanDataModule("dicom/", "labels.csv"))  # doctest: +SKIP
    """

    def __init__(
        self,
        *,
        learning_rate: float = 1e-3,
        encoder_learning_rate: float = 1e-4,
        weight_decay: float = 1e-2,
        warmup: float = 0.05,
        slice_loss: float = 1.0,
        encoder_loss: float = 0.5,
        scan_loss: float = 0.25,
        **model: Any,
    ) -> None:
        super().__init__()
        if not 0 <= warmup < 1 or min(learning_rate, encoder_learning_rate, weight_decay) < 0:
            raise ConfigError(
                "optimizer_out_of_range",
                where="warmup, learning_rate, encoder_learning_rate, weight_decay",
                got=f"{warmup}, {learning_rate}, {encoder_learning_rate}, {weight_decay}",
                expected="warmup in [0, 1), the others not below 0",
            )
        self.model = ScanModel(**model)
        self.learning_rate = learning_rate
        self.encoder_learning_rate = encoder_learning_rate
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.slice_loss = slice_loss
        self.encoder_loss = encoder_loss
        self.scan_loss = scan_loss
        self.preprocessing: Preprocessing | None = None
        """How scans are prepared for this model: taken over from the data it is trained on."""
        self.slice_mm: float | None = None
        """The usual distance of slices in the scans it was trained on, in mm; likewise."""
        self.is_synthetic = False
        """Whether it was trained on synthetic heads, of which its predictions then warn."""
        self.positive_share: float | None = None
        """The share of positive scans among those it was trained on; likewise. None: unknown."""
        self.calibration: ModelCalibration | None = None
        """What `ich-evaluate --calibrate` has chosen on validation patients; predictions show it. Void after more training."""
        self.name = self.model.settings["backbone"]
        """What predictions call the model."""
        self._hash: tuple[tuple, str] | None = None
        self.slice_metrics, self.encoder_metrics, self.scan_metrics = _metrics(), _metrics(), _metrics()

    @property
    def settings(self) -> dict[str, Any]:
        """Every argument of the constructor with its value: all it takes to build this model again."""
        own = ("learning_rate", "encoder_learning_rate", "weight_decay", "warmup", "slice_loss", "encoder_loss", "scan_loss")
        return {name: getattr(self, name) for name in own} | self.model.settings

    def forward(self, batch: ScanBatch) -> ScanLogits:
        """Logits of a batch of scans."""
        return self.model(batch.hu, batch.lengths, batch.positions_mm)

    # Training

    def setup(self, stage: str) -> None:
        """Take over how the data are prepared."""
        data = getattr(self.trainer, "datamodule", None)
        if stage == "fit" and isinstance(data, ScanDataModule):
            data.preprocessing.check_windows(self.model.settings["windows"])
            self.preprocessing = data.preprocessing
            self.slice_mm = data.slice_mm
            self.is_synthetic = data.is_synthetic
            self.positive_share = _positive_share(data)
            self.calibration = None

    def training_step(self, batch: ScanBatch, batch_index: int) -> Tensor:
        """The loss of a batch: slices, the encoder's own view of them, and scans, each with its weight."""
        logits = self(batch)
        terms = {
            "slice_loss": (self.slice_loss, weighted_loss_sums(logits.slice_logits, batch.slice_labels)),
            "scan_loss": (self.scan_loss, weighted_loss_sums(logits.scan_logits, batch.scan_labels)),
        }
        if logits.encoder_logits is not None:
            terms["encoder_loss"] = (self.encoder_loss, weighted_loss_sums(logits.encoder_logits, batch.slice_labels))
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

    def on_validation_epoch_start(self) -> None:
        """Give all processes the same running statistics of batch-norm: their mean."""
        if self.trainer.world_size > 1:
            for name, buffer in self.model.named_buffers():
                if name.endswith(("running_mean", "running_var")):
                    buffer.copy_(self._world_sum(buffer) / self.trainer.world_size)

    def validation_step(self, batch: ScanBatch, batch_index: int) -> None:
        """Collect probabilities; a process without work gets an empty batch."""
        # Without work, collect nothing, but do collect: the metrics gather from all processes.
        logits = self(batch) if len(batch.lengths) else ScanLogits(batch.slice_labels, batch.scan_labels, batch.slice_labels)
        self._collect(logits, batch)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of all processes together, and ``val/monitor``, by which the best epoch is chosen."""
        losses, aurocs = {}, {}
        for name, metrics in self._metrics_by_prefix().items():
            values = metrics.compute()
            metrics.reset()
            losses[name], aurocs[name] = values["loss"].float(), values["auroc"].float()
            # The metrics have gathered from all processes already; sync_dist takes the mean of equal values.
            self.log(f"{name}loss", losses[name], prog_bar=name == "val/", sync_dist=True)
            for label, area in zip(LABELS, aurocs[name], strict=True):
                self.log(f"{name}auroc_{label}", area, prog_bar=name == "val/" and label == ANY, sync_dist=True)
        # The slices' loss; where the slices' labels cannot tell good from bad, for they are of one class, the scans'.
        slices_tell = not aurocs["val/"].isnan().all() or losses["val/scan_"].isnan()
        self.log("val/monitor", losses["val/" if slices_tell else "val/scan_"], sync_dist=True)

    def _metrics_by_prefix(self) -> dict[str, MetricCollection]:
        metrics = {"val/": self.slice_metrics, "val/scan_": self.scan_metrics}
        return metrics if self.model.sequence is None else {**metrics, "val/encoder_": self.encoder_metrics}

    def _collect(self, logits: ScanLogits, batch: ScanBatch) -> None:
        self.slice_metrics.update(_probabilities(logits.slice_logits), batch.slice_labels)
        self.scan_metrics.update(_probabilities(logits.scan_logits), batch.scan_labels)
        if logits.encoder_logits is not None:
            self.encoder_metrics.update(_probabilities(logits.encoder_logits), batch.slice_labels)

    def _world_sum(self, values: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return values
        return self.trainer.strategy.reduce(values.clone(), reduce_op="sum")

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with a rate for the encoder and one for the head; linear warm-up, then a cosine to 0."""
        groups: dict[tuple[float, float], list[nn.Parameter]] = defaultdict(list)
        for name, parameter in self.model.named_parameters():
            rate = self.encoder_learning_rate if name.startswith("encoder.") else self.learning_rate
            groups[rate, self.weight_decay if parameter.ndim > 1 else 0.0].append(parameter)
        optimizer = torch.optim.AdamW(
            [{"params": parameters, "lr": rate, "weight_decay": decay} for (rate, decay), parameters in groups.items()]
        )
        steps = int(self.trainer.estimated_stepping_batches)
        warm = round(self.warmup * steps)

        def share_of_peak(step: int) -> float:
            if step < warm:
                return (step + 1) / (warm + 1)
            return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - warm) / max(1, steps - warm))))

        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, share_of_peak)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    # Models at rest

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what it takes to build the model again, and take out paths of this machine."""
        checkpoint[ABOUT_KEY] = self._saved().about
        checkpoint["callbacks"] = without_folders(checkpoint.get("callbacks", {}))

    def save_pretrained(self, folder: Path | str) -> None:
        """Write the model as ``model.safetensors`` and ``model.json``, which holds everything but the weights.

        Args:
            folder: Made if missing.
        """
        write_model(Path(folder), self._saved())
        if self.calibration is not None:
            write_calibration(Path(folder), self.calibration)

    @classmethod
    def load(cls, path: Path | str) -> "ScanClassifier":
        """Read a model: a run's folder, a folder made by `save_pretrained`, or a ``.ckpt``.

        Args:
            path: File or folder.

        Returns:
            The model in evaluation mode, on the CPU.

        Raises:
            CheckpointError: If there is no model, or its weights do not fit its settings, or its calibration not its weights.
        """
        saved = read_model(Path(path))
        try:
            classifier = cls(**{**saved.about["settings"], "pretrained": False})
            classifier.model.load_state_dict(saved.weights)
            if saved.about["preprocessing"] is not None:
                classifier.preprocessing = Preprocessing(**saved.about["preprocessing"])
        except (AttributeError, TypeError, ValueError, RuntimeError, IchLstmError) as error:
            raise CheckpointError(
                "weights_do_not_fit",
                where=str(path),
                got=str(error).splitlines()[0],
                expected="weights of the model that its settings describe",
                todo="Take another copy of the model, or the version of ich_lstm that made it.",
            ) from error
        classifier.slice_mm = saved.about["slice_mm"]
        classifier.is_synthetic = bool(saved.about["is_synthetic"])
        classifier.positive_share = saved.about["positive_share"]
        classifier.name = saved.about["name"] or classifier.name
        folder = find_model_folder(Path(path))
        if folder is not None:
            classifier.calibration = read_calibration(folder, saved.hash)
        return classifier.eval()

    def _saved(self) -> SavedModel:
        about = {
            "name": self.name,
            "settings": self.settings,
            "preprocessing": self.preprocessing.to_dict() if self.preprocessing else None,
            "slice_mm": self.slice_mm,
            "is_synthetic": self.is_synthetic,
            "positive_share": self.positive_share,
        }
        return SavedModel(about, self.model.state_dict())

    def weights_hash(self) -> str:
        """What the weights are known by, 12 hexadecimal digits."""
        weights = self.model.state_dict().values()
        if any(tensor.is_inference() for tensor in weights):  # made under inference_mode; they count no versions
            return self._saved().hash
        # In-place updates count up a tensor's version: hashing 100 MB again for each scan would cost as much as reading it.
        now = tuple((tensor.data_ptr(), tensor._version) for tensor in weights)
        if self._hash is None or self._hash[0] != now:
            self._hash = now, self._saved().hash
        return self._hash[1]

    # Prediction

    @property
    def slab_mm(self) -> float | None:
        """How thick the slabs are to which thin slices are averaged for this model; None if it was trained on thin ones."""
        return SLAB_MM if self.slice_mm is None or self.slice_mm > THIN_MM else None

    def predict(self, source: Path | str | Scan, *, project_key: ProjectKey | None = None) -> Iterator[ScanPrediction]:
        """Predict a scan, or every study below a path, one after the other.

        Of each study the plain axial brain series is read. Nothing is refused in silence: after all predictions have been
        given, an error lists the studies that could not be read.

        Args:
            source: A scan, a folder, a zip, or a file, which may be NIfTI.
            project_key: Key for the ids in the predictions; by default the user's own.

        Yields:
            One prediction per study.

        Raises:
            SourceError: If nothing can be read.
            StudyError: At the end, if studies were refused.
        """
        key = project_key or ProjectKey.open()
        if isinstance(source, Scan):
            yield self.predict_scan(source, key)
            return
        if is_nifti(source):
            yield self.predict_scan(read_nifti(source, slab_mm=self.slab_mm), key)
            return
        refused = []
        for study in index_source(Path(source)).studies():
            try:
                scan = load_scan(choose_series(study).series, slab_mm=self.slab_mm)
            except IchLstmError as error:
                refused.append(str(error))
                continue
            yield self.predict_scan(scan, key)
        if refused:
            raise StudyError(
                "refused",
                where=str(source),
                got=f"{len(refused)} studies without a prediction: " + " | ".join(refused),
                todo="Correct or remove them; all others have been predicted.",
            )

    def predict_scan(self, scan: Scan, project_key: ProjectKey) -> ScanPrediction:
        """Predict one scan, on the device the model is on; the model's mode is left as it was.

        Args:
            scan: The scan.
            project_key: Key for the ids.

        Raises:
            CheckpointError: If the model does not know how scans are prepared for it.
        """
        if self.preprocessing is None:
            raise CheckpointError(
                "no_preprocessing",
                where="this model",
                got="no size and crop, for it was not trained with a ScanDataModule",
                todo="Set model.preprocessing = Preprocessing(size=..., crop=...).",
            )
        hu = torch.from_numpy(preprocess_scan(scan, self.preprocessing)).to(self.device)
        positions = torch.tensor(scan.positions_mm, dtype=torch.float32, device=self.device)
        modes = [(module, module.training) for module in self.modules()]  # a part may be frozen in evaluation mode
        self.eval()
        try:
            with torch.inference_mode():
                logits = self.model(hu, torch.tensor([len(scan)]), positions)
        finally:
            for module, mode in modes:
                module.training = mode
        prediction = ScanPrediction(
            slice_probabilities=_probabilities(logits.slice_logits).cpu().numpy(),
            scan_probabilities=_probabilities(logits.scan_logits)[0].cpu().numpy(),
            scan_id=project_key.hash_id(scan.series_uid),
            slice_ids=tuple(project_key.hash_id(uid) for uid in scan.sop_uids),
            patient_id=project_key.hash_id(scan.patient_id) if scan.patient_id else "",
            positions_mm=scan.positions_mm,
            spacing_mm=scan.spacing_mm,
            tilt_degrees=scan.tilt_degrees,
            hu=scan.hu,
            flags=scan.flags + ((SYNTHETIC,) if self.is_synthetic else ()),
            repairs=scan.repairs,
            model_name=self.name,
            model_hash=self.weights_hash(),
            slabs=tuple(Slab(tuple(project_key.hash_id(uid) for uid in slab.ids), slab.positions_mm) for slab in scan.slabs),
        )
        return prediction if self.calibration is None else self.calibration.apply(prediction)


def _positive_share(data: ScanDataModule) -> float | None:
    """Among the training scans of which it is known whether they are positive; None where balance draws them otherwise."""
    if data.balance:
        return None
    known = [label for scan in data.scans["train"] if not math.isnan(label := float(scan.scan_labels[LABELS.index(ANY)]))]
    return sum(known) / len(known) if known else None


def _metrics() -> MetricCollection:
    return MetricCollection({"loss": WeightedLogLoss(), "auroc": LabelAUROC()}, compute_groups=False)


def _probabilities(logits: Tensor) -> Tensor:
    """In float64: float32 would round a sure probability to 1, and its loss to the clip's."""
    return torch.sigmoid(logits.to(torch.float64))
