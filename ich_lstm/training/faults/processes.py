"""What the processes of a training tell each other, and how an error is recognized that only says that one of them is lost."""

from typing import Any, TypeVar

import torch
from pytorch_lightning import Trainer

Value = TypeVar("Value")


def of_all_processes(trainer: Trainer, value: Value) -> list[Value]:
    """Collect the values of all processes, in the order of their ranks; all of them must call this together.

    Args:
        trainer: The Trainer of the running fit.
        value: The value of this process; it must be picklable.
    """
    if trainer.world_size == 1:
        return [value]
    values: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(values, value)
    return values


def leave_processes() -> None:
    """Disconnect this process from the others, when nothing more is to be said between them.

    A process that ends while it is connected sometimes aborts at its end: gloo's threads outlive the interpreter's objects
    ("terminate called without an active exception", pytorch/pytorch#190489). The others then report a lost process.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error only says that another process of the training has ended.

    Args:
        error: The error of a collective operation, or any other; NCCL's errors have a class, those of gloo have not.
    """
    return isinstance(error, torch.distributed.DistError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in ("gloo", "Connection closed by peer"))
    )
