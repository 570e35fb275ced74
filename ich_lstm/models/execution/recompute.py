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
    """Keep the running statistics of batch-norm layers unchanged, while the layers normalize as in training.

    Args:
        layers: The batch-norm layers, as `batch_norms` gives them.
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
    """Keep the running statistics of a module's batch-norm layers unchanged inside every backward pass.

    In a backward pass these layers run only because checkpointing computes activations a second time. timm's block checkpointing
    offers no ``context_fn``, and torch would count each recomputation as another batch.
    """

    held: dict[nn.Module, AbstractContextManager] = {}

    def begin(layer: nn.Module, _: object) -> None:
        if torch._C._current_graph_task_id() != -1:  # a backward pass is running; torch.utils.checkpoint tests it this way too
            held[layer] = held_statistics([layer])  # type: ignore[list-item]
            held[layer].__enter__()

    def end(layer: nn.Module, *_: object) -> None:
        if layer in held:
            held.pop(layer).__exit__(None, None, None)

    for layer in batch_norms(module):
        layer.register_forward_pre_hook(begin)
        # always_call: a recomputation stops by an exception as soon as the tensors that it was started for exist.
        layer.register_forward_hook(end, always_call=True)


def strided_places(count: int, slices_per_chunk: int, device: torch.device) -> list[Tensor]:
    """Divide the slices of a batch into strided chunks of nearly equal size.

    A chunk of neighbouring slices would show one part of one head, and its batch statistics would be those of that part.

    Args:
        count: Number of slices n in the batch.
        slices_per_chunk: The most slices in a chunk, at least 1.
        device: Device of the returned indices.

    Returns:
        For each chunk, the int64 indices of its slices in the batch.

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
        function: Maps indices of slices ``(m,)`` to rows ``(m, d)``.
        places: For each chunk, the indices of its slices; together the chunks hold every index of the batch once.
        recompute: Keep no activations of a chunk for the backward pass, and compute them again there.
        trained: With ``recompute``, the tensors inside the function that get gradients. Without it, autograd finds them itself.
        normalizing: Batch-norm layers whose running statistics the recomputation must not touch.

    Returns:
        Rows of the whole batch ``(n, d)``.
    """
    if recompute:
        return _Recomputed.apply(function, places, normalizing, *trained)
    rows = [function(chunk) for chunk in places]
    if len(rows) == 1:
        return rows[0]
    return torch.cat(rows)[torch.cat(list(places)).argsort()]


class _Recomputed(torch.autograd.Function):
    """Runs all chunks as one node of autograd's graph, which computes each chunk again in the backward pass, the last one first.

    `torch.utils.checkpoint` would keep a graph of about a thousand small objects for every chunk until its backward pass. On a
    CPU these objects fragment the heap between the large blocks of the activations, so that the heap grew with every chunk.
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
        # Memory that outlives a chunk is allocated before the first one, so that it does not fragment the heap either.
        ctx.random = torch.get_rng_state().repeat(len(places), 1)  # (chunks, bytes)
        ctx.device_random = []
        rows = torch.empty(0)
        for number, (chunk, state) in enumerate(zip(places, ctx.random, strict=True)):
            state.copy_(torch.get_rng_state())
            if device.type == "cuda":
                ctx.device_random.append(torch.cuda.get_rng_state(device))
            of_chunk = function(chunk)  # (m, d)
            if number == 0:  # the first chunk shows the length and the type of a row
                rows = of_chunk.new_empty(sum(len(other) for other in places), of_chunk.shape[1])
            rows[chunk] = of_chunk
        torch.clear_autocast_cache()  # some releases of torch would reuse weights that were cast here, where no graph is recorded
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
            # The gradients of the first chunk may share memory with other tensors, so the second chunk is not added in place.
            sums = _added(sums, parts, in_place=i < len(ctx.places) - 2) if sums else list(parts)
            del rows, parts  # otherwise they would stay in memory while the next chunk is computed
        return (None, None, None, *sums)


def _added(sums: list[Tensor | None], parts: Sequence[Tensor | None], *, in_place: bool) -> list[Tensor | None]:
    """Add the gradients of one chunk to the sums so far; None stands for no gradient."""
    for i, (before, part) in enumerate(zip(list(sums), parts, strict=True)):
        if before is None:
            sums[i] = None if part is None else part.clone()
        elif part is not None:
            sums[i] = before.add_(part) if in_place else before + part
    return sums
