"""Running the encoder chunk by chunk, so that the memory of training is that of one chunk, with exact gradients."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def batch_norms(module: nn.Module) -> list[_BatchNorm]:
    """All batch-norm layers of a module, timm's own kinds included."""
    return [layer for layer in module.modules() if isinstance(layer, _BatchNorm)]


@contextmanager
def held_statistics(layers: Sequence[_BatchNorm]) -> Iterator[None]:
    """Let batch-norm layers normalize as in training, and leave their running statistics as they are.

    Args:
        layers: Those of `batch_norms`.
    """
    before = [(layer, layer.momentum, layer.num_batches_tracked) for layer in layers if layer.training]
    counts = [None if count is None else count.clone() for _, _, count in before]
    for layer, _, _ in before:
        layer.momentum = 0.0
    try:
        yield
    finally:
        for (layer, momentum, count), kept in zip(before, counts, strict=True):
            layer.momentum = momentum
            if count is not None and kept is not None:
                count.copy_(kept)


def hold_in_backward(module: nn.Module) -> None:
    """Hold the running statistics of a module's batch-norm layers whenever they run inside a backward pass.

    There they run only because something is computed again, as with the checkpointing of timm's blocks, which offers no
    ``context_fn``; torch would let each recomputation count as another batch.
    """

    held: dict[nn.Module, AbstractContextManager] = {}

    def begin(layer: nn.Module, _: object) -> None:
        if torch._C._current_graph_task_id() != -1:  # what torch.utils.checkpoint itself asks to know that it is in backward
            held[layer] = held_statistics([layer])  # type: ignore[list-item]
            held[layer].__enter__()

    def end(layer: nn.Module, *_: object) -> None:
        if layer in held:
            held.pop(layer).__exit__(None, None, None)

    for layer in batch_norms(module):
        layer.register_forward_pre_hook(begin)
        # Always: a recomputation ends early, by an exception, when all that was wanted is there.
        layer.register_forward_hook(end, always_call=True)


def strided_places(count: int, slices_per_chunk: int, device: torch.device) -> list[Tensor]:
    """Deal slices to chunks of nearly equal size, each of which reaches through the whole batch.

    A chunk of neighbouring slices would be a part of one head, and its batch statistics those of that part.

    Args:
        count: Slices of the batch, n.
        slices_per_chunk: Most slices in a chunk.
        device: Where the places are wanted.

    Returns:
        int64 places, for each chunk.

    Example:
        >>> [places.tolist() for places in strided_places(7, 3, torch.device("cpu"))]
        [[0, 3, 6], [1, 4], [2, 5]]
    """
    chunks = -(-count // slices_per_chunk)
    return [torch.arange(first, count, chunks, device=device) for first in range(chunks)]


def run_in_chunks(
    function: Callable[[Tensor], Tensor], places: Sequence[Tensor], *, recompute: bool, normalizing: Sequence[_BatchNorm] = ()
) -> Tensor:
    """Apply a function to each chunk, and put the rows back in the order of the batch.

    Args:
        function: From places ``(m,)`` to rows ``(m, d)``; what it computes from inside itself gets its gradients too.
        places: Of each chunk; together every place of the batch once.
        recompute: Keep no activations of a chunk for the backward pass, but compute them again there (`torch.utils.checkpoint`).
        normalizing: Batch-norm layers whose running statistics the recomputation must not touch.

    Returns:
        ``(n, d)``.
    """

    def contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
        return nullcontext(), held_statistics(normalizing)

    if recompute:
        rows = [checkpoint(function, chunk, use_reentrant=False, context_fn=contexts) for chunk in places]
    else:
        rows = [function(chunk) for chunk in places]
    if len(rows) == 1:
        return rows[0]
    return torch.cat(rows)[torch.cat(list(places)).argsort()]
