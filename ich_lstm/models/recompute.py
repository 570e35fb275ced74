"""Runs the encoder chunk by chunk with recomputation: training needs the memory of one chunk, and gradients are exact."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm


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
    function: Callable[[Tensor], Tensor],
    places: Sequence[Tensor],
    *,
    recompute: bool,
    trained: Sequence[Tensor] = (),
    normalizing: Sequence[_BatchNorm] = (),
) -> Tensor:
    """Apply a function to each chunk, and put the rows back in the order of the batch.

    Args:
        function: From places ``(m,)`` to rows ``(m, d)``.
        places: Of each chunk; together every place of the batch once.
        recompute: Keep no activations of a chunk for the backward pass, but compute them again there.
        trained: Tensors inside the function that get gradients, if it is computed again; without that, all that want them do.
        normalizing: Batch-norm layers whose running statistics the recomputation must not touch.

    Returns:
        ``(n, d)``.
    """
    if recompute:
        return _Recomputed.apply(function, places, normalizing, *trained)
    rows = [function(chunk) for chunk in places]
    if len(rows) == 1:
        return rows[0]
    return torch.cat(rows)[torch.cat(list(places)).argsort()]


class _Recomputed(torch.autograd.Function):
    """All chunks as one node of the graph, which computes each again in the backward pass, from the last to the first.

    `torch.utils.checkpoint` would keep every chunk's graph, a thousand small objects, until its turn comes. On a CPU they lie
    between the large blocks of the activations, which then find no place that is free: the heap grew with every chunk.
    """

    @staticmethod
    def forward(
        ctx: Any,
        function: Callable[[Tensor], Tensor],
        places: Sequence[Tensor],
        normalizing: Sequence[_BatchNorm],
        *trained: Tensor,
    ) -> Tensor:
        device = places[0].device
        ctx.function, ctx.places, ctx.normalizing, ctx.trained = function, places, normalizing, trained
        ctx.precision = {
            "device_type": device.type,
            "dtype": torch.get_autocast_dtype(device.type),
            "enabled": torch.is_autocast_enabled(device.type),
        }
        # What outlives a chunk has its place before the first one, for the same reason.
        ctx.random = torch.get_rng_state().repeat(len(places), 1)  # (chunks, bytes)
        ctx.device_random = []
        rows = torch.empty(0)
        for number, (chunk, state) in enumerate(zip(places, ctx.random, strict=True)):
            state.copy_(torch.get_rng_state())
            if device.type == "cuda":
                ctx.device_random.append(torch.cuda.get_rng_state(device))
            of_chunk = function(chunk)  # (m, d)
            if number == 0:  # only now is known how long and of which type a row is
                rows = of_chunk.new_empty(sum(len(other) for other in places), of_chunk.shape[1])
            rows[chunk] = of_chunk
        torch.clear_autocast_cache()  # releases of torch kept weights that were cast where nothing is recorded
        return rows

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        device = gradient.device
        sums: list[Tensor | None] = []
        for i in reversed(range(len(ctx.places))):
            chunk = ctx.places[i]
            with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
                torch.set_rng_state(ctx.random[i].clone())
                if device.type == "cuda":
                    torch.cuda.set_rng_state(ctx.device_random[i], device)
                with torch.enable_grad(), torch.autocast(**ctx.precision), held_statistics(ctx.normalizing):
                    rows = ctx.function(chunk)
            parts = torch.autograd.grad(rows, ctx.trained, gradient[chunk], allow_unused=True)
            # A first part may share its memory with another, so the second is not added in place.
            sums = _added(sums, parts, in_place=i < len(ctx.places) - 2) if sums else list(parts)
            del rows, parts  # or they would live on beside the next chunk
        return (None, None, None, *sums)


def _added(sums: list[Tensor | None], parts: Sequence[Tensor | None], *, in_place: bool) -> list[Tensor | None]:
    for i, (before, part) in enumerate(zip(list(sums), parts, strict=True)):
        if before is None:
            sums[i] = None if part is None else part.clone()
        elif part is not None:
            sums[i] = before.add_(part) if in_place else before + part
    return sums
