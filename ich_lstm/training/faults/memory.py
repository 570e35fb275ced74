"""A batch whose training step is repeated with smaller chunks when memory runs out."""

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import torch
from pytorch_lightning.strategies import SingleDeviceStrategy
from pytorch_lightning.utilities.memory import garbage_collection_cuda
from torch import Tensor, nn

from ich_lstm.errors import TrainingError
from ich_lstm.models.execution.recompute import batch_norms
from ich_lstm.unexpected import is_out_of_memory

if TYPE_CHECKING:
    from ich_lstm.data.loading.batch import FeatureBatch, ScanBatch
    from ich_lstm.training.classifier import ScanClassifier

logger = logging.getLogger(__name__)


class KeptStatistics:
    """A copy of the running statistics of all batch-norm layers, to undo forward passes.

    Args:
        module: The network.
    """

    def __init__(self, module: nn.Module) -> None:
        self._kept = [(buffer, buffer.clone()) for layer in batch_norms(module) for buffer in layer.buffers()]

    def restore(self) -> None:
        """Put the copy back into the network."""
        with torch.no_grad():
            for buffer, kept in self._kept:
                buffer.copy_(kept)


class Losses(NamedTuple):
    """The training loss of a batch.

    Args:
        total: The loss, a scalar with a graph.
        terms: The terms before they are weighted, by name, without graphs.
        slices: Number of slices in the batches of all processes.
    """

    total: Tensor
    terms: dict[str, Tensor]
    slices: float


class Attempt:
    """The training step of one batch. If memory runs out, it is repeated with chunks of half as many slices.

    Nothing of the failed attempt remains: the running statistics of batch-norm, the random states and the gradients are those
    from before, so the repeated step draws the same dropout as the first one would have. The smaller chunks stay for the rest of
    the fit.

    With several processes, nothing is repeated, because the others already wait for the gradients of the failed step; the
    process ends with an error that names the setting to change.

    Args:
        classifier: The module that is trained.
        batch: The batch.
        compute: Computes the loss of the batch with the present settings of the classifier.
    """

    def __init__(self, classifier: "ScanClassifier", batch: "ScanBatch | FeatureBatch", compute: Callable[[], Losses]) -> None:
        self._classifier, self._batch, self._compute = classifier, batch, compute
        self._statistics = KeptStatistics(classifier.model)
        self._random = torch.get_rng_state()
        self._device_random = torch.cuda.get_rng_state(classifier.device) if classifier.device.type == "cuda" else None
        self._total: Tensor | None = None
        self._handle: Tensor | None = None

    def forward(self) -> Losses:
        """Compute the loss.

        Raises:
            TrainingError: ``out_of_memory``, if memory runs out and smaller chunks cannot help.
        """
        while True:
            try:
                return self._compute()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = _first_line(error)
            # Outside of the except block, because the exception keeps the frames alive, and they keep the activations.
            self._halve_chunks(reason)

    def handed_out(self, loss: Tensor) -> Tensor:
        """Give the loss that Lightning gets.

        Lightning keeps the loss alive during the backward pass, and with it the graph, whose memory a repetition needs. It gets a
        scalar of the same value instead, and `backward` passes its gradient, with all of Lightning's factors, on to the graph.

        Args:
            loss: The loss with its graph.
        """
        if not self._is_alone:
            return loss
        self._total, self._handle = loss, loss.detach().requires_grad_()
        return self._handle

    def backward(self, loss: Tensor, precision: Callable[[], AbstractContextManager[None]]) -> None:
        """Add the gradients of the batch to those of its accumulation window.

        Args:
            loss: The loss as Lightning has scaled it.
            precision: Makes the context of a forward pass, in case the loss must be computed again.

        Raises:
            TrainingError: ``out_of_memory``, if memory runs out and smaller chunks cannot help.
        """
        if self._handle is None:  # the loss has its own graph, and no step is repeated
            try:
                loss.backward()
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                self._halve_chunks(_first_line(error))
            return
        loss.backward()
        # A failed backward pass leaves some gradients behind. Those of earlier batches of the window are set aside before it.
        earlier = [(parameter, parameter.grad) for parameter in self._classifier.parameters() if parameter.requires_grad]
        while True:
            for parameter, _ in earlier:
                parameter.grad = None
            try:
                assert self._total is not None
                self._total.backward(self._handle.grad)
                break
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                reason = _first_line(error)
            self._total = None
            self._halve_chunks(reason)
            with precision():
                self._total = self.forward().total
        self._total = None
        for parameter, before in earlier:
            if before is not None:
                parameter.grad = before if parameter.grad is None else before.add_(parameter.grad)

    @property
    def _is_alone(self) -> bool:
        return isinstance(self._classifier.trainer.strategy, SingleDeviceStrategy)

    def _halve_chunks(self, reason: str) -> None:
        """Undo the failed attempt, and halve the chunks."""
        encoder = self._classifier.settings.encoder
        slices = len(self._batch.slice_labels)
        chunk = min(encoder.slices_per_chunk or slices, slices)
        half = chunk // 2
        todo = (
            f"Set model.encoder.slices_per_chunk={half}, or choose a smaller data.batches.slices, backbone or size of the input."
        )
        if half == 0 or self._classifier.model.encoder.is_frozen:
            todo = "Choose a smaller data.batches.slices, backbone or size of the input, or train with precision bf16-mixed."
        elif encoder.batch_norm == "synchronized":
            todo = "Set model.encoder.checkpoint_blocks=true, or choose a smaller data.batches.slices; or set both " + (
                f"model.encoder.batch_norm=frozen and model.encoder.slices_per_chunk={half}."
            )
        elif self._is_alone:
            self._statistics.restore()
            torch.set_rng_state(self._random)
            if self._device_random is not None:
                torch.cuda.set_rng_state(self._device_random, self._classifier.device)
            garbage_collection_cuda()
            self._classifier.change_training({"encoder": {"slices_per_chunk": half}})
            self._classifier.running_fit = replace(self._classifier.running_fit, reduced_chunk=half)
            logger.warning(
                "out of memory in a training step of %d slices (%s). The step is repeated with "
                "model.encoder.slices_per_chunk=%d, which stays for the rest of the fit.",
                slices,
                reason,
                half,
            )
            return
        raise TrainingError(
            "out_of_memory",
            where=f"epoch {self._classifier.trainer.current_epoch}, step {self._classifier.trainer.global_step}",
            got=f"too little memory for a training step of {slices} slices in chunks of {chunk}: {reason}",
            todo=todo,
        )


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
