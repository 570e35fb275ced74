"""LSTM and GRU with recurrent dropout: one mask on the hidden state for a whole scan."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence


class _RecurrentDropout(nn.RNNBase):
    """What the LSTM and the GRU share: the loop along packed scans, and the masks.

    The masks lie on the hidden state that enters the hidden-to-hidden product, and stay the same from a scan's first slice to
    its last (Gal and Ghahramani, "A theoretically grounded application of dropout in recurrent neural networks", 2016); one
    mask serves all gates, the paper's tied weights. What is kept is divided by the share that is kept. No fused kernel of
    torch or cuDNN can do this, so training runs an own loop over time; without dropout, or in evaluation, theirs runs.

    Args:
        args: Sizes, as torch takes them.
        recurrent_dropout: Share of the hidden units that is dropped, in [0, 1).
        settings: The other arguments of torch's module.
    """

    states: int
    """Number of tensors that are handed from slice to slice, the hidden state first."""

    step: Callable[..., tuple[Tensor, ...]]
    """From one slice of each scan to the next: product of the input ``(b, gates * hidden_size)``, product of the masked hidden
    state, and the state before ``(b, hidden_size)``, not masked, to the state after."""

    def __init__(self, *args: Any, recurrent_dropout: float, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.recurrent_dropout = recurrent_dropout

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, recurrent_dropout={self.recurrent_dropout}"

    def forward(self, x: PackedSequence) -> tuple[PackedSequence, Any]:
        """Run along every scan.

        Args:
            x: Packed scans of ``in_features``.

        Returns:
            Packed outputs of ``hidden_size`` per direction; and the last state, as torch's module gives it, or None where the
            own loop ran.
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
        """One mask for each layer, direction and scan.

        Args:
            scans: Number of scans b.
            like: A tensor of the device and type wanted.

        Returns:
            ``(layers * directions, b, hidden_size)``, layer by layer, forward before backward, the longest scan first.
        """
        ones = like.new_ones(len(self.all_weights), scans, self.hidden_size)
        return F.dropout(ones, self.recurrent_dropout)

    def _run(self, data: Tensor, sizes: list[int], weights: list[nn.Parameter], mask: Tensor, *, backward: bool) -> Tensor:
        """One layer in one direction: packed ``(n, features)`` to ``(n, hidden_size)``."""
        weight_ih, weight_hh, bias_ih, bias_hh = weights
        # One product for all slices; split once, because a slice of it per step would each send back a gradient of full size.
        steps = F.linear(data, weight_ih, bias_ih).split(sizes)
        state = (data.new_zeros(0, self.hidden_size),) * self.states
        outputs = []
        for step in reversed(steps) if backward else steps:
            # Scans end one by one, or, seen backward, begin one by one: at the end of the batch, as the longest comes first.
            state = tuple(_resize(part, len(step)) for part in state)
            state = self.step(step, F.linear(state[0] * mask[: len(step)], weight_hh, bias_hh), *state)
            outputs.append(state[0])
        return torch.cat(outputs[::-1] if backward else outputs)


def _resize(state: Tensor, scans: int) -> Tensor:
    """The state of the first scans; those that are new begin at zero."""
    missing = scans - len(state)
    return torch.cat([state, state.new_zeros(missing, state.shape[1])]) if missing > 0 else state[:scans]


def _lstm_step(from_input: Tensor, from_hidden: Tensor, _: Tensor, cell: Tensor) -> tuple[Tensor, Tensor]:
    """Hochreiter and Schmidhuber 1997 with forget gates, in torch's order of gates: input, forget, cell, output."""
    i, f, g, o = (from_input + from_hidden).chunk(4, dim=1)
    cell = f.sigmoid() * cell + i.sigmoid() * g.tanh()
    return o.sigmoid() * cell.tanh(), cell


def _gru_step(from_input: Tensor, from_hidden: Tensor, hidden: Tensor) -> tuple[Tensor]:
    """Cho et al. 2014, the reset gate after the product (Keras' ``reset_after``); order of gates: reset, update, new."""
    r_input, z_input, n_input = from_input.chunk(3, dim=1)
    r_hidden, z_hidden, n_hidden = from_hidden.chunk(3, dim=1)
    r, z = (r_input + r_hidden).sigmoid(), (z_input + z_hidden).sigmoid()
    return ((n_input + r * n_hidden).tanh() * (1 - z) + z * hidden,)


class RecurrentDropoutLSTM(_RecurrentDropout, nn.LSTM):  # type: ignore[misc]  # packed scans only
    """`nn.LSTM` with dropout of the hidden state that is fed back; the cell state is never dropped."""

    states = 2
    step = staticmethod(_lstm_step)


class RecurrentDropoutGRU(_RecurrentDropout, nn.GRU):  # type: ignore[misc]  # packed scans only
    """`nn.GRU` with dropout of the hidden state that enters the gates and the candidate.

    The part that the update gate carries over is not dropped: a mask applied slice after slice would wipe it out or blow it up.
    """

    states = 1
    step = staticmethod(_gru_step)
