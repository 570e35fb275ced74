"""LSTM and GRU with recurrent dropout: one mask on the hidden state for a whole scan."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


class _RecurrentDropout(nn.RNNBase):
    """Base of the LSTM and the GRU: the loop along packed scans, and the dropout masks.

    A mask is applied to the hidden state that enters the hidden-to-hidden product, and is constant over the slices of a scan (Gal
    and Ghahramani, "A theoretically grounded application of dropout in recurrent neural networks", 2016). One mask serves all
    gates ("tied weights" in the paper). Kept units are divided by the share that is kept. No fused kernel of torch or cuDNN
    supports this, so training with recurrent dropout runs a loop over time in Python. Otherwise torch's kernel runs.

    Args:
        args: Input size, hidden size and number of layers, as torch's module takes them.
        recurrent_dropout: Share of the hidden units that is dropped, in [0, 1).
        settings: The other arguments of torch's module.
    """

    states: int
    """Number of state tensors that pass from slice to slice; the hidden state is the first."""

    step: Callable[..., tuple[Tensor, ...]]
    """Computes the next state of all scans. It takes the product of the input and that of the masked hidden state, each
    ``(b, gates * hidden_size)``, and the unmasked state tensors, each ``(b, hidden_size)``."""

    def __init__(self, *args: Any, recurrent_dropout: float, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.recurrent_dropout = recurrent_dropout

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, recurrent_dropout={self.recurrent_dropout}"

    def forward(self, x: PackedSequence) -> tuple[PackedSequence, Any]:
        """Run along every scan.

        Args:
            x: Packed scans with ``input_size`` features per slice.

        Returns:
            Packed outputs with ``hidden_size`` features per direction, and the last state as torch's module gives it, or None if
            recurrent dropout was applied.
        """
        if not self.training or self.recurrent_dropout == 0:
            return super().forward(x)
        masks = self.draw_masks(int(x.batch_sizes[0]), x.data)
        weights = self.all_weights
        sizes = x.batch_sizes.tolist()
        data = x.data  # (n, features), slice by slice along time, the longest scan first
        for layer in range(self.num_layers):
            if layer > 0:
                data = F.dropout(data, self.dropout)
            if self.bidirectional:
                ways = [self._run(data, sizes, weights[i], masks[i], backward=i % 2 == 1) for i in (2 * layer, 2 * layer + 1)]
                data = torch.cat(ways, dim=1)
            else:
                data = self._run(data, sizes, weights[layer], masks[layer], backward=False)
        return x._replace(data=data), None

    def draw_masks(self, scans: int, like: Tensor) -> Tensor:
        """Draw one mask for each layer, direction and scan.

        Args:
            scans: Number of scans, b.
            like: A tensor with the device and type of the masks.

        Returns:
            Masks ``(layers * directions, b, hidden_size)``, layer by layer, forward before backward, the longest scan first.
        """
        ones = like.new_ones(len(self.all_weights), scans, self.hidden_size)
        return F.dropout(ones, self.recurrent_dropout)

    def _run(self, data: Tensor, sizes: list[int], weights: list[nn.Parameter], mask: Tensor, *, backward: bool) -> Tensor:
        """Run one layer in one direction: packed ``(n, features)`` to ``(n, hidden_size)``."""
        weight_ih, weight_hh, bias_ih, bias_hh = weights
        # One product serves all slices. It is split once, because indexing it in every step would make gradients of full size.
        steps = F.linear(data, weight_ih, bias_ih).split(sizes)
        state = (data.new_zeros(0, self.hidden_size),) * self.states
        outputs = []
        for step in reversed(steps) if backward else steps:
            # The longest scan comes first, so scans end (or, backward, begin) at the end of the batch, one after the other.
            state = tuple(_resize(part, len(step)) for part in state)
            state = self.step(step, F.linear(state[0] * mask[: len(step)], weight_hh, bias_hh), *state)
            outputs.append(state[0])
        return torch.cat(outputs[::-1] if backward else outputs)


def _resize(state: Tensor, scans: int) -> Tensor:
    """Cut the state to the first scans, or extend it by scans whose state is zero."""
    missing = scans - len(state)
    return torch.cat([state, state.new_zeros(missing, state.shape[1])]) if missing > 0 else state[:scans]


def _lstm_step(from_input: Tensor, from_hidden: Tensor, _: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """A step of the LSTM (Hochreiter and Schmidhuber 1997, with forget gates), with torch's order of gates: input, forget, cell,
    output."""
    i, f, g, o = (from_input + from_hidden).chunk(4, dim=1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def _gru_step(from_input: Tensor, from_hidden: Tensor, hidden: Tensor) -> tuple[Tensor]:
    """A step of the GRU (Cho et al. 2014) with the reset gate after the product (``reset_after`` in Keras); the order of gates is
    reset, update, new."""
    r_input, z_input, n_input = from_input.chunk(3, dim=1)
    r_hidden, z_hidden, n_hidden = from_hidden.chunk(3, dim=1)
    r, z = (r_input + r_hidden).sigmoid(), (z_input + z_hidden).sigmoid()
    return ((n_input + r * n_hidden).tanh() * (1 - z) + z * hidden,)


class RecurrentDropoutLSTM(_RecurrentDropout, nn.LSTM):  # type: ignore[misc]  # packed scans only
    """`nn.LSTM` with dropout of the hidden state that is fed back; the cell state is never dropped."""

    states = 2
    step = staticmethod(_lstm_step)


class RecurrentDropoutGRU(_RecurrentDropout, nn.GRU):  # type: ignore[misc]  # packed scans only
    """`nn.GRU` with dropout of the hidden state that enters the gates and the candidate state.

    The part that the update gate carries over is not dropped, because the same mask applied at every slice would make it vanish
    or explode.
    """

    states = 1
    step = staticmethod(_gru_step)
