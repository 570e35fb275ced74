"""What a checkpoint holds beyond Lightning's content, so that a resumed fit equals one that was never interrupted, bit for bit.

Lightning saves the weights, the optimizer, the schedule, the scaler, the callbacks and its counters. Here are the place in the
data, the random states of all processes, the running means of the training losses, and the metrics that callbacks monitor.
"""

import logging
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import WeightAveraging
from torch import Tensor

from ich_lstm.models.execution.recompute import batch_norms
from ich_lstm.training.faults.processes import of_all_processes

logger = logging.getLogger(__name__)

TAKES_BUFFERS = "require_forward_param_sync"
"""Attribute of torch's DistributedDataParallel: whether the next forward pass begins with the first process's batch-norm
statistics. It is true for a new one, and false after a validation."""

PLACE_KEY = "ich_lstm_place"
"""Key in a checkpoint for all that this module saves."""


def save_place(trainer: Trainer, checkpoint: dict[str, Any], losses: Mapping[str, Tensor]) -> None:
    """Add the place in the data and the random states to a checkpoint. All processes of a training must call it together.

    Args:
        trainer: The Trainer of the running fit.
        checkpoint: The content of the checkpoint; its counters are changed if a validation is about to begin.
        losses: The sums of each training loss in the running epoch, by name.
    """
    loader: Any = trainer.train_dataloader
    mine = {
        "random": _random_state(trainer),
        "losses": {name: sums.cpu() for name, sums in losses.items()},
        "buffers": [buffer.cpu() for buffer in _own_buffers(trainer)],
    }
    counters = checkpoint["loops"]["fit_loop"]
    batches = counters["epoch_loop.batch_progress"]["total"]
    will_validate = batches["completed"] < batches["processed"] and validation_follows(trainer)
    if will_validate:
        _resume_with_validation(counters)
    checkpoint[PLACE_KEY] = {
        "logged": trainer.global_step - will_validate,  # the values of the last step are logged with those of the validation
        "loader": loader.state_dict() if hasattr(loader, "state_dict") else None,
        "takes_buffers": getattr(trainer.strategy.model, TAKES_BUFFERS, None),
        # An epoch that ends without a validation, as with max_steps, is judged by the metrics of the last validation.
        "monitored": {name: float(value) for name, value in trainer.callback_metrics.items()},
        "processes": of_all_processes(trainer, mine),
    }


def restore_place(trainer: Trainer, place: Mapping[str, Any]) -> dict[str, Tensor]:
    """Restore the place in the data and the random state of this process, immediately before the first resumed batch.

    Args:
        trainer: The Trainer of the resumed fit.
        place: What `save_place` has saved.

    Returns:
        The sums of each training loss in the running epoch, by name.
    """
    _end_no_epoch_twice(trainer)
    loader: Any = trainer.train_dataloader
    if place["loader"] is not None and hasattr(loader, "load_state_dict"):
        loader.load_state_dict(place["loader"])
    if place["takes_buffers"] is not None and hasattr(trainer.strategy.model, TAKES_BUFFERS):
        setattr(trainer.strategy.model, TAKES_BUFFERS, place["takes_buffers"])
    trainer.callback_metrics.update({name: torch.tensor(value) for name, value in place.get("monitored", {}).items()})
    processes = place["processes"]
    if len(processes) != trainer.world_size:
        logger.warning(
            "a training of %d processes goes on with %d: random states cannot be restored, so dropout draws other numbers",
            len(processes),
            trainer.world_size,
        )
        return {}
    mine = processes[trainer.global_rank]
    _set_random_state(trainer, mine["random"])
    for buffer, saved in zip(_own_buffers(trainer), mine["buffers"], strict=True):
        buffer.copy_(saved)
    return {name: sums.to(trainer.strategy.root_device) for name, sums in mine["losses"].items()}


def logged_steps(checkpoint: Path) -> int:
    """Number of steps whose values had been logged when a checkpoint was saved; the tensors in it are not read.

    Args:
        checkpoint: A whole checkpoint.
    """
    return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)[PLACE_KEY]["logged"])


def monitored_in(checkpoint: Path) -> dict[str, float]:
    """The metrics of the validation after which a checkpoint was saved, by name; empty if there was none before it.

    Args:
        checkpoint: A whole checkpoint.
    """
    place = torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True)[PLACE_KEY]
    return {name: float(value) for name, value in place["monitored"].items()}


def validation_follows(trainer: Trainer) -> bool:
    """Whether a validation follows the current training batch. Validations by the clock are unknown, and count as none."""
    every, batch, in_between = trainer.check_val_every_n_epoch, trainer.fit_loop.batch_idx + 1, trainer.val_check_batch
    if not trainer.enable_validation or in_between is None or (every is not None and (trainer.current_epoch + 1) % every):
        return False
    if every is None:
        batch = trainer.fit_loop.total_batch_idx + 1
    return bool(batch % in_between == 0) if isinstance(in_between, int) else trainer.is_last_batch


def _resume_with_validation(counters: dict[str, Any]) -> None:
    """Change the counters of a checkpoint so that the resumed fit begins with the validation.

    Lightning takes a checkpoint that was saved in ``on_train_batch_end`` for one whose validation has been done, and would skip
    it. These counters say instead that the training batch is done, and that the first batch of the validation is running.
    """
    for progress in counters["epoch_loop.batch_progress"]["total"], counters["epoch_loop.batch_progress"]["current"]:
        progress["completed"] = progress["processed"]
    validation = counters["epoch_loop.val_loop.batch_progress"]
    for progress in validation["total"], validation["current"]:
        done = progress["completed"] if progress is validation["total"] else 0
        progress.update(ready=done + 1, started=done + 1, processed=done, completed=done)
    validation["is_last_batch"] = False


def _end_no_epoch_twice(trainer: Trainer) -> None:
    """With ``max_steps``, begin the next epoch where a checkpoint was saved at the end of one.

    Lightning 2.6 would end that epoch again, with all its hooks, and count one epoch too many for the data.
    """
    loop = trainer.fit_loop
    if loop.restarted_on_epoch_end:
        loop.epoch_progress.increment_completed()
        loop.reset_restart_stage()
        loop.epoch_loop.restarting = False


def _own_buffers(trainer: Trainer) -> list[Tensor]:
    """Statistics of batch-norm that differ between processes, of the module and of its moving averages; none for one process.

    Lightning saves those of the first process. A moving average of such statistics keeps what each process has seen.
    """
    if trainer.world_size == 1:
        return []
    averages = [callback._average_model for callback in trainer.callbacks if isinstance(callback, WeightAveraging)]  # type: ignore[attr-defined]
    modules = [trainer.lightning_module, *filter(None, averages)]
    return [buffer for module in modules for layer in batch_norms(module) for buffer in layer.buffers()]


def _random_state(trainer: Trainer) -> dict[str, Any]:
    """The states of all global generators of this process, as plain values."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002  (libraries draw from it)
    device = trainer.strategy.root_device
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state(device) if device.type == "cuda" else None,
        "numpy": [name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "python": random.getstate(),
    }


def _set_random_state(trainer: Trainer, state: Mapping[str, Any]) -> None:
    torch.set_rng_state(state["torch"].cpu())
    device = trainer.strategy.root_device
    if state["cuda"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["cuda"].cpu(), device)
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    random.setstate(state["python"])
