"""A fit whose numbers stop being finite: it skips steps, goes back once, and then stops with advice."""

import copy
import logging
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from lightning_fabric.utilities import move_data_to_device
from pytorch_lightning import Callback, LightningModule, Trainer
from pytorch_lightning.callbacks import ModelCheckpoint, WeightAveraging
from pytorch_lightning.trainer.states import TrainerFn
from torch import Tensor
from torch.nn.utils import get_total_norm

from ich_lstm.errors import CheckpointError, TrainingError
from ich_lstm.formatting import first_of
from ich_lstm.training.faults.memory import KeptStatistics
from ich_lstm.training.faults.processes import of_all_processes

if TYPE_CHECKING:
    from ich_lstm.data.loading.batch import FeatureBatch, ScanBatch
    from ich_lstm.models.scan_model import ScanLogits
    from ich_lstm.training.classifier import ScanClassifier

logger = logging.getLogger(__name__)

SKIPS_IN_A_ROW = 5
"""After this many skipped steps in a row, the weights are taken to be at fault and not the scans."""

ADVICE = (
    "Lower model.optimizer.lr and model.optimizer.encoder_lr, set trainer.gradient_clip_val=1, or train with trainer.precision "
    "bf16-mixed or 32-true. If always the same scans are named, look at their images and labels."
)


def all_finite(tensors: Iterable[Tensor]) -> Tensor:
    """Whether all numbers of some tensors are finite, as a bool tensor ``()``; integers always are.

    Extremes are computed, which unlike a sum of squares cannot overflow.

    Args:
        tensors: Tensors of any shape, on one device.
    """
    numbers = [tensor.detach() for tensor in tensors if tensor.is_floating_point() and tensor.numel()]
    if not numbers or numbers[0].device.type != "cpu":
        return get_total_norm(numbers, math.inf).isfinite()  # few launches for many tensors
    # One pass over each tensor; the norm takes ten times as long on a CPU.
    return torch.stack([extreme.double() for tensor in numbers for extreme in tensor.aminmax()]).isfinite().all()


def check_finite(weights: Mapping[str, Tensor]) -> None:
    """Check that weights can be saved.

    Args:
        weights: Weights and buffers by name.

    Raises:
        CheckpointError: ``weights_not_finite``, if any is NaN or infinite.
    """
    if bool(all_finite(weights.values())):
        return
    wrong = [name for name, tensor in weights.items() if not tensor.isfinite().all()]
    raise CheckpointError(
        "weights_not_finite",
        where="the model to be saved",
        got=f"{len(wrong)} of {len(weights)} tensors with NaN or infinity: {first_of(wrong)}",
        expected="finite weights; nothing was written",
        todo="Use an earlier checkpoint.",
    )


def scans_without_numbers(logits: "ScanLogits", batch: "ScanBatch | FeatureBatch") -> list[str]:
    """Ids of the scans of a batch whose logits are not all finite.

    Args:
        logits: Logits of the batch.
        batch: The batch; it may be empty.
    """
    is_finite = logits.scan_logits.isfinite().all(dim=1).cpu()  # (b,)
    slices = logits.slice_logits.isfinite().all(dim=1).cpu().split(batch.lengths.tolist())
    return [scan for scan, good, each in zip(batch.scan_ids, is_finite, slices, strict=True) if not (good and each.all())]


class LossCheck(NamedTuple):
    """What is known about the loss of a batch.

    Args:
        is_finite_here: Whether this process computed a finite loss from its scans.
        is_finite: Whether all processes did. They agree about it.
    """

    is_finite_here: bool
    is_finite: bool


class FaultGuard(Callback):
    """Keeps non-finite numbers out of a fit of `ScanClassifier`, which adds it to every Trainer.

    - A step is skipped if the loss of any process or any gradient is not finite. The whole accumulation window is dropped,
      because its gradients are a single sum. Weights, the state of the optimizer, the moving average and the running
      statistics of batch-norm stay as they were; the schedule of the rates goes on. A warning names the scans.
    - After `SKIPS_IN_A_ROW` skipped steps in a row, or at once if the weights themselves are not finite after a step, the fit
      goes back to the newest checkpoint that was written in it, or else to its start, with half the learning rates from there
      on. The data go on from where they are.
    - If that happens a second time, or if probabilities of validation scans are not finite, the fit stops with an error.

    With 16-mixed, gradients that overflow are part of the search for a scale of the loss, and Lightning's scaler skips the step
    itself. They count here only if the scale has fallen to 1.

    All processes decide alike without any further communication: they know the flag of the loss from the sum over all processes
    in the training step, and gradients and weights are the same in all of them.
    """

    def __init__(self) -> None:
        self._in_a_row = 0
        self._statistics: KeptStatistics | None = None
        self._start: dict[str, Any] = {}
        self._scans: list[str] = []
        self._window: list[LossCheck] = []
        self._window_scans: list[list[str]] = []
        self._has_stepped = False

    def on_train_start(self, trainer: Trainer, pl_module: "ScanClassifier") -> None:  # type: ignore[override]
        """Keep the weights from which the fit starts, and the smaller chunks of a fit that is resumed."""
        self._start = _state_of(trainer, pl_module)
        chunk, reduced = pl_module.settings.encoder.slices_per_chunk, pl_module.running_fit.reduced_chunk
        if reduced is not None and (chunk is None or reduced < chunk):
            pl_module.change_training({"encoder": {"slices_per_chunk": reduced}})

    def on_train_batch_start(self, trainer: Trainer, pl_module: "ScanClassifier", batch: Any, batch_idx: int) -> None:  # type: ignore[override]
        """Keep the running statistics from before an accumulation window."""
        pl_module.step_is_skipped = self._has_stepped = False
        if batch_idx % trainer.accumulate_grad_batches == 0:
            self._statistics = KeptStatistics(pl_module.model)
            self._window, self._window_scans = [], []
        self._window_scans.append(batch.scan_ids)

    def on_after_backward(self, trainer: Trainer, pl_module: "ScanClassifier") -> None:  # type: ignore[override]
        """Note the check of the loss of each batch of a window."""
        self._window.append(pl_module.loss_check)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: "ScanClassifier", optimizer: torch.optim.Optimizer) -> None:  # type: ignore[override]
        """Drop the gradients of a step that must be skipped; an optimizer does nothing for weights without gradients."""
        self._has_stepped = True
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        loss_is_finite = all(check.is_finite for check in self._window)
        if loss_is_finite and (bool(all_finite(gradients)) or _is_scaling(trainer)):
            return
        pl_module.step_is_skipped = True
        for parameter in parameters:
            parameter.grad = None
        assert self._statistics is not None
        self._statistics.restore()
        self._scans = _gathered(trainer, self._suspects(loss_is_finite))
        pl_module.running_fit = replace(pl_module.running_fit, skipped_steps=pl_module.running_fit.skipped_steps + 1)
        if trainer.is_global_zero:
            logger.warning(
                "epoch %d, step %d: the %s not finite, and the step was skipped. Its scans: %s.",
                trainer.current_epoch,
                trainer.global_step,
                "gradients are" if loss_is_finite else "loss is",
                first_of(self._scans),
            )

    def _suspects(self, loss_is_finite: bool) -> list[str]:
        """The scans of this process in batches with a non-finite loss; all scans of the window if only gradients are wrong."""
        batches = zip(self._window, self._window_scans, strict=True)
        return [scan for check, scans in batches if loss_is_finite or not check.is_finite_here for scan in scans]

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: "ScanClassifier", outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Go back or stop, if too many steps were skipped in a row or the weights are not finite."""
        if pl_module.step_is_skipped:
            self._in_a_row += 1
            if self._in_a_row >= SKIPS_IN_A_ROW:
                self._go_back(trainer, pl_module, f"{self._in_a_row} steps in a row with a loss or gradients that are not finite")
        elif self._has_stepped:
            self._in_a_row = 0
            # Checked after every step, so that no checkpoint, moving average or validation ever sees such weights.
            trained = [weights for weights in pl_module.model.parameters() if weights.requires_grad]
            if not bool(all_finite(trained)):
                self._scans = _gathered(trainer, [scan for scans in self._window_scans for scan in scans])
                self._go_back(trainer, pl_module, "weights that are not finite after a step")

    def state_dict(self) -> dict[str, int]:
        """The number of steps that were skipped in a row, so that a resumed fit goes on counting."""
        return {"in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Restore the number of steps that were skipped in a row."""
        self._in_a_row = state_dict["in_a_row"]

    def on_validation_end(self, trainer: Trainer, pl_module: "ScanClassifier") -> None:  # type: ignore[override]
        """Stop a fit whose model gives no numbers for validation scans, before a checkpoint is written."""
        is_wrong = bool(pl_module.scans_without_numbers)
        if trainer.state.fn == TrainerFn.FITTING and trainer.strategy.reduce_boolean_decision(is_wrong, all=False):
            self._scans = _gathered(trainer, pl_module.scans_without_numbers)
            raise self._error(trainer, "probabilities of validation scans that are not finite")

    def _go_back(self, trainer: Trainer, classifier: "ScanClassifier", reason: str) -> None:
        """Go back to the last good checkpoint with half the learning rates.

        Raises:
            TrainingError: ``not_finite``, if the fit went back before.
        """
        if classifier.running_fit.returned:
            raise self._error(trainer, reason)
        rates = [[group["lr"] for group in optimizer.param_groups] for optimizer in trainer.optimizers]
        place = trainer.strategy.broadcast(_newest_checkpoint(trainer))
        _restore(
            trainer, classifier, self._start if place is None else trainer.strategy.load_checkpoint(place, weights_only=True)
        )
        for optimizer, before in zip(trainer.optimizers, rates, strict=True):
            for group, rate in zip(optimizer.param_groups, before, strict=True):
                group["lr"] = rate / 2
                if "initial_lr" in group:
                    group["initial_lr"] /= 2
        for config in trainer.lr_scheduler_configs:
            # Later rates follow from these peaks, and Lightning saves them with the schedule.
            config.scheduler.base_lrs = [rate / 2 for rate in config.scheduler.base_lrs]
        classifier.running_fit = replace(classifier.running_fit, returned=True)
        classifier.step_is_skipped = True
        self._in_a_row = 0
        if trainer.is_global_zero:
            logger.warning(
                "epoch %d, step %d: %s. The fit goes on from %s with half the learning rates. The last scans: %s.",
                trainer.current_epoch,
                trainer.global_step,
                reason,
                "its first weights" if place is None else Path(place).name,
                first_of(self._scans),
            )

    def _error(self, trainer: Trainer, reason: str) -> TrainingError:
        rates = sorted({group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups})
        return TrainingError(
            "not_finite",
            where=f"epoch {trainer.current_epoch}, step {trainer.global_step}",
            got=f"{reason}, at learning rates of {', '.join(f'{rate:.3g}' for rate in rates)}; scans: {first_of(self._scans)}",
            expected="finite numbers",
            todo=ADVICE,
        )


def _is_scaling(trainer: Trainer) -> bool:
    """Whether Lightning's scaler for 16-mixed still searches a scale, and so skips steps with non-finite gradients itself."""
    scaler = getattr(trainer.precision_plugin, "scaler", None)
    return scaler is not None and float(scaler.get_scale()) > 1


def _gathered(trainer: Trainer, scans: list[str]) -> list[str]:
    """Scans of all processes, each once, in the order of the processes; all of them must call this."""
    return list(dict.fromkeys(scan for of_process in of_all_processes(trainer, scans) for scan in of_process))


def _averages(trainer: Trainer) -> list[WeightAveraging]:
    return [callback for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]  # type: ignore[attr-defined]


def _state_of(trainer: Trainer, classifier: LightningModule) -> dict[str, Any]:
    """Weights, their moving average and the state of the optimizers, on the CPU, as a checkpoint of Lightning holds them."""
    state: dict[str, Any] = {
        "state_dict": classifier.state_dict(),
        "optimizer_states": [optimizer.state_dict() for optimizer in trainer.optimizers],
    }
    for average in _averages(trainer):
        average.on_save_checkpoint(trainer, classifier, state)
    state = move_data_to_device(state, torch.device("cpu"))
    return copy.deepcopy(state)  # on the CPU, the tensors are still those of the network


def _restore(trainer: Trainer, classifier: LightningModule, checkpoint: dict[str, Any]) -> None:
    """Take weights, moving average and the state of the optimizers from a checkpoint; the place in the data stays."""
    trainer.strategy.load_model_state_dict(checkpoint, strict=True)
    for average in _averages(trainer):
        average.on_load_checkpoint(trainer, classifier, checkpoint)
    trainer.strategy.load_optimizer_state_dict(checkpoint)


def _newest_checkpoint(trainer: Trainer) -> str | None:
    """Path of the newest checkpoint that the callbacks of this fit have written; None if there is none."""
    callbacks = [callback for callback in trainer.checkpoint_callbacks if isinstance(callback, ModelCheckpoint)]
    paths = {
        path
        for callback in callbacks
        for path in (callback.best_model_path, callback.last_model_path, *callback.best_k_models)
        if path and Path(path).is_file()
    }
    return max(paths, key=lambda path: Path(path).stat().st_mtime_ns, default=None)
