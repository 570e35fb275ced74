"""Runs a frozen sequence head once for each scan, however many epochs a pooling is trained behind it."""

import hashlib
from typing import Any

import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from ich_lstm.models.execution.compiled import unwrapped
from ich_lstm.models.heads.head import SequenceHead
from ich_lstm.models.scan_model import ScanModel


class RememberedHead(Callback):
    """Keeps the output of the sequence head for each scan of a fit on stored features, in which only the pooling is trained.

    Dropout in front of the head and inside it is off, so that a scan's input and output are the same in every epoch. The memory
    is one row of the head's output per slice.
    """

    def __init__(self) -> None:
        self._known: dict[bytes, Tensor] = {}
        self._head: SequenceHead | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the memory in front of the head. It does nothing on a GPU, where reading the input costs more than the head."""
        model = unwrapped(pl_module.model)  # type: ignore[arg-type]
        assert isinstance(model, ScanModel)
        if model.sequence is None or pl_module.device.type != "cpu":
            return
        self._head = model.sequence
        model.encoder_dropout.eval()
        self._head.eval()
        self._head.forward = self._remembered  # type: ignore[method-assign]

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the memory away."""
        self._forget()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the memory away."""
        self._forget()

    def _forget(self) -> None:
        if self._head is not None:
            del self._head.forward  # the method of the class shows again
        self._head, self._known = None, {}

    def _remembered(
        self,
        features: Tensor,
        lengths: Tensor,
        positions_mm: Tensor | None,
        is_reversed: Tensor | None = None,
        relative: Tensor | None = None,
    ) -> Tensor:
        """The output of the head, see `SequenceHead.forward`. Only scans that are not known yet are computed, each by itself."""
        assert self._head is not None
        found, start = [], 0
        for scan, count in enumerate(lengths.tolist()):
            rows, which = slice(start, start + count), slice(scan, scan + 1)
            start += count
            own: list[Any] = [
                features[rows],
                lengths[which],
                *(
                    None if each is None else each[at]
                    for each, at in ((positions_mm, rows), (is_reversed, which), (relative, rows))
                ),
            ]
            key = _digest(own)
            if key not in self._known:
                with torch.no_grad():
                    self._known[key] = type(self._head).forward(self._head, *own)
            found.append(self._known[key])
        return torch.cat(found)


def _digest(tensors: list[Tensor | None]) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for each in tensors:
        digest.update(b"-" if each is None else each.detach().numpy().tobytes())
    return digest.digest()
