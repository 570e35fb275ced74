"""Recurrent dropout against torch's kernels, where nothing is dropped, and against numpy, where something is."""

import numpy as np
import pytest
import torch
from scipy.special import expit
from torch import nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence, unpack_sequence

from ich_lstm.errors import ConfigError
from ich_lstm.models.heads import GRU, LSTM

LENGTHS = [5, 1, 11]
LONGEST_FIRST = [2, 0, 1]
IN, HIDDEN = 3, 4
EXACT = {"rtol": 0, "atol": 1e-10}

each_kind = pytest.mark.parametrize("kind", ["lstm", "gru"])


def make(
    kind: str = "lstm",
    layers: int = 1,
    *,
    bidirectional: bool = False,
    recurrent: float = 0.5,
    between: float = 0.0,
    hidden: int = HIDDEN,
):
    settings = {"bidirectional": bidirectional, "layer_dropout": between, "recurrent_dropout": recurrent}
    # Neither norm nor positions: what enters the recurrence are the features.
    head = {"lstm": LSTM, "gru": GRU}[kind](hidden_size=hidden, num_layers=layers, norm=False, positions="none", **settings)
    torch.manual_seed(0)
    return head.build(IN).recurrence.double()


def torchs(kind: str, layers: int = 1, *, width: int = IN, bidirectional: bool = False) -> nn.RNNBase:
    torch.manual_seed(0)
    return {"lstm": nn.LSTM, "gru": nn.GRU}[kind](width, HIDDEN, layers, bidirectional=bidirectional).double()


def draw(lengths: list[int] = LENGTHS, seed: int = 0) -> list[torch.Tensor]:
    random = np.random.default_rng(seed)
    return [torch.tensor(random.normal(size=(length, IN))) for length in lengths]


def pack(scans: list[torch.Tensor]) -> PackedSequence:
    return pack_sequence(scans, enforce_sorted=False)


def run(module: nn.Module, scans: list[torch.Tensor]) -> list[torch.Tensor]:
    return unpack_sequence(module(pack(scans))[0])


def force(module: nn.Module, masks: torch.Tensor) -> nn.Module:
    """The module with these masks, ``(layers * directions, b, hidden)``, longest scan first."""
    module.draw_masks = lambda scans, like: masks[:, :scans].to(like)
    return module


def by_numpy(kind: str, module: nn.Module, x: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """One scan through one layer, forward, gate by gate: ``(n, hidden)``."""
    gates = "ifgo" if kind == "lstm" else "rzn"
    arrays = {name: value.detach().numpy() for name, value in module.named_parameters()}
    w, u, b, c = (
        dict(zip(gates, np.split(arrays[f"{name}_l0"], len(gates)), strict=True))
        for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    h, cell, rows = np.zeros(HIDDEN), np.zeros(HIDDEN), []
    for row in x:
        fed = h * mask
        if kind == "lstm":
            a = {gate: w[gate] @ row + b[gate] + u[gate] @ fed + c[gate] for gate in gates}
            cell = expit(a["f"]) * cell + expit(a["i"]) * np.tanh(a["g"])
            h = expit(a["o"]) * np.tanh(cell)
        else:
            r, z = (expit(w[gate] @ row + b[gate] + u[gate] @ fed + c[gate]) for gate in "rz")
            new = np.tanh(w["n"] @ row + b["n"] + r * (u["n"] @ fed + c["n"]))
            h = (1 - z) * new + z * h
        rows.append(h)
    return np.array(rows)


@each_kind
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("layers", [1, 2, 3])
class TestAgainstTorch:
    def test_begins_as_torchs_module(self, kind: str, bidirectional: bool, layers: int) -> None:
        got, expected = make(kind, layers, bidirectional=bidirectional), torchs(kind, layers, bidirectional=bidirectional)
        assert [name for name, _ in got.named_parameters()] == [name for name, _ in expected.named_parameters()]
        assert list(got.state_dict()) == list(expected.state_dict())
        assert all(torch.equal(value, expected.state_dict()[name]) for name, value in got.state_dict().items())

    def test_own_loop_without_drops_equals_the_kernel(self, kind: str, bidirectional: bool, layers: int) -> None:
        own, kernel = make(kind, layers, bidirectional=bidirectional), torchs(kind, layers, bidirectional=bidirectional)
        force(own, torch.ones(layers * (1 + bidirectional), 3, HIDDEN))
        results = []
        for module in (own, kernel):
            x = [scan.clone().requires_grad_() for scan in draw()]
            y = torch.cat(run(module, x))
            torch.sin(y * torch.arange(y.numel()).reshape(y.shape)).sum().backward()
            results.append([y, *(scan.grad for scan in x), *(parameter.grad for parameter in module.parameters())])
        for got, expected in zip(*results, strict=True):
            torch.testing.assert_close(got, expected, **EXACT)

    def test_evaluation_is_the_kernel_bit_for_bit(self, kind: str, bidirectional: bool, layers: int) -> None:
        own, kernel = (
            make(kind, layers, bidirectional=bidirectional, between=0.5),
            torchs(kind, layers, bidirectional=bidirectional),
        )
        kernel.load_state_dict(own.state_dict(), strict=True)
        got, state = own.eval()(pack(draw()))
        expected, expected_state = kernel.eval()(pack(draw()))
        assert torch.equal(got.data, expected.data)
        for part, expected_part in zip(*(pair if kind == "lstm" else (pair,) for pair in (state, expected_state)), strict=True):
            assert torch.equal(part, expected_part)


@each_kind
class TestMasks:
    def test_one_masked_layer_equals_its_formula(self, kind: str) -> None:
        masks = torch.tensor(np.random.default_rng(1).choice([0.0, 2.0], size=(1, 3, HIDDEN)))
        module, scans = force(make(kind), masks), draw()
        for place, scan in enumerate(LONGEST_FIRST):
            expected = by_numpy(kind, module, scans[scan].numpy(), masks[0, place].numpy())
            np.testing.assert_allclose(run(module, scans)[scan].detach(), expected, rtol=0, atol=1e-12)

    def test_each_layer_and_direction_has_its_own(self, kind: str) -> None:
        # Run backward by hand: the layer's backward weights, on a reversed scan.
        masks = torch.tensor(np.random.default_rng(1).choice([0.0, 2.0], size=(4, 1, HIDDEN)))
        both, x = force(make(kind, 2, bidirectional=True), masks), draw([7])[0].numpy()
        for layer in range(2):
            ways = []
            for way, suffix in enumerate(("", "_reverse")):
                one = make(kind)
                for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"):
                    setattr(one, f"{name}_l0", getattr(both, f"{name}_l{layer}{suffix}"))
                step = -1 if way else 1
                ways.append(by_numpy(kind, one, x[::step], masks[2 * layer + way, 0].numpy())[::step])
            x = np.concatenate(ways, axis=1)
        np.testing.assert_allclose(run(both, draw([7]))[0].detach(), x, rtol=0, atol=1e-12)

    def test_drawn_once_for_a_whole_scan(self, kind: str) -> None:
        module, drawn = make(kind, 2, bidirectional=True), []
        original = module.draw_masks
        module.draw_masks = lambda scans, like: drawn.append(original(scans, like)) or drawn[-1]
        run(module, draw())
        assert len(drawn) == 1
        assert drawn[0].shape == (4, 3, HIDDEN)

    def test_constant_over_time_and_different_between_scans(self, kind: str) -> None:
        module = make(kind, hidden=64)
        scan = draw([9])[0].requires_grad_()
        masks = module.draw_masks(2, scan)[0]
        assert set(masks.unique().tolist()) == {0.0, 2.0}
        assert not torch.equal(masks[0], masks[1])
        # Of the last slice's output, the gradient on a fed-back weight is the sum over time of gate times fed-back unit: where
        # the unit is dropped at every slice, and only there, it is exactly zero.
        force(module, masks[None])
        run(module, [scan, scan])[0].sum().backward()
        of_first = module.weight_hh_l0.grad.abs().sum(dim=0) == 0
        assert torch.equal(of_first, masks[0] == 0)

    def test_neighbours_and_their_lengths_do_not_matter(self, kind: str) -> None:
        module = make(kind, 2, bidirectional=True)
        mask = module.draw_masks(1, draw()[0])
        for others in ([1, 2], [9, 30], [6, 1]):
            scans = [*draw([6]), *draw(others, seed=others[0])]
            place = sorted(range(3), key=lambda i: -len(scans[i])).index(0)
            masks = module.draw_masks(3, scans[0])
            masks[:, place] = mask[:, 0]
            together = run(force(make(kind, 2, bidirectional=True), masks), scans)[0]
            alone = run(force(make(kind, 2, bidirectional=True), mask), scans[:1])[0]
            torch.testing.assert_close(together, alone, **EXACT)

    def test_gradients_are_those_of_differences(self, kind: str) -> None:
        module = make(kind, 2, bidirectional=True)
        force(module, module.draw_masks(2, draw()[0]))
        scans = [scan.requires_grad_() for scan in draw([3, 2])]
        names, values = zip(
            *((name, value.detach().clone().requires_grad_()) for name, value in module.named_parameters()), strict=True
        )

        def outputs(first: torch.Tensor, second: torch.Tensor, *parameters: torch.Tensor) -> torch.Tensor:
            given = dict(zip(names, parameters, strict=True))
            return torch.func.functional_call(module, given, (pack([first, second]),))[0].data

        assert torch.autograd.gradcheck(outputs, (*scans, *values), fast_mode=True)


class TestDropout:
    def test_what_is_kept_makes_up_for_what_is_dropped(self) -> None:
        torch.manual_seed(0)
        for share in (0.2, 0.5, 0.9):
            masks = make(recurrent=share, layers=2).draw_masks(20_000, torch.zeros((), dtype=torch.float64))
            kept = 1 - share
            assert masks.max().item() == pytest.approx(1 / kept)
            error = np.sqrt(share / kept / masks.numel())
            assert abs(masks.mean().item() - 1) < 5 * error
            assert abs((masks > 0).double().mean().item() - kept) < 5 * error * kept

    @each_kind
    def test_training_is_random_and_evaluation_is_not(self, kind: str) -> None:
        module = make(kind)
        assert not torch.equal(module(pack(draw()))[0].data, module(pack(draw()))[0].data)
        module.eval()
        assert torch.equal(module(pack(draw()))[0].data, module(pack(draw()))[0].data)

    @each_kind
    def test_without_it_training_is_the_kernel(self, kind: str) -> None:
        got = make(kind, 2, recurrent=0)(pack(draw()))[0].data
        assert torch.equal(got, torchs(kind, 2)(pack(draw()))[0].data)

    @each_kind
    def test_first_slice_has_no_past_to_drop(self, kind: str) -> None:
        module = make(kind, recurrent=0.9)
        trained = [scan[0] for scan in run(module, draw())]
        torch.testing.assert_close(trained, [scan[0] for scan in run(module.eval(), draw())], **EXACT)

    @each_kind
    def test_layer_dropout_lies_between_layers_only(self, kind: str) -> None:
        module = force(make(kind, 2, between=0.5), torch.ones(2, 3, HIDDEN))
        first, second = torchs(kind), torchs(kind, width=HIDDEN)
        for layer, one in enumerate((first, second)):
            state = module.state_dict()
            one.load_state_dict({name: state[name.replace("_l0", f"_l{layer}")] for name in one.state_dict()})
        torch.manual_seed(1)
        between = first(pack(draw()))[0]
        expected = second(between._replace(data=torch.dropout(between.data, 0.5, True)))[0].data
        torch.manual_seed(1)
        torch.testing.assert_close(module(pack(draw()))[0].data, expected, **EXACT)

    @pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
    def test_a_share_out_of_range(self, share: float) -> None:
        with pytest.raises(ConfigError) as caught:
            make(recurrent=share)
        assert caught.value.code == "head_out_of_range"
        assert caught.value.where == "head.recurrent_dropout"

    def test_shown(self) -> None:
        assert "recurrent_dropout=0.5" in repr(make())
