"""Training in chunks: the gradients and the statistics of the whole."""

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from fabricated import TINY_GRU, make_model, make_sample
from timm.layers import DropPath

from ich_lstm import ScanModel
from ich_lstm.data.loading.batch import ScanBatch, pack_scans
from ich_lstm.models.encoder import BatchNorm
from ich_lstm.models.execution.recompute import batch_norms, run_in_chunks, strided_places
from ich_lstm.preprocessing.intensity import Intensity

LENGTHS = [5, 1, 11]
EXACT = 1e-10
"""In float64, where sums in another order differ by rounding only."""


@pytest.fixture(scope="module")
def batch() -> ScanBatch:
    return pack_scans([make_sample(length, seed=4, size=40) for length in LENGTHS])


def step(model: ScanModel, batch: ScanBatch) -> dict[str, torch.Tensor]:
    """Gradients of a loss on everything that the model says."""
    model.zero_grad()
    torch.manual_seed(0)
    logits = model(batch.hu, batch.lengths, batch.positions_mm, batch.draws)
    sum(values.square().sum() for values in logits if values is not None).backward()
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters() if parameter.grad is not None}


def training(slices_per_chunk: int | None = None, batch_norm: BatchNorm = "batch", **changes: Any) -> ScanModel:
    changes["encoder"] = {"slices_per_chunk": slices_per_chunk, "batch_norm": batch_norm} | changes.get("encoder", {})
    return make_model(**changes).double().train()


def statistics(model: ScanModel) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.named_buffers() if "running" in name or "num_batches" in name}


class TestGradients:
    @pytest.mark.parametrize("chunk", [1, 4, 17, 100])
    @pytest.mark.parametrize(
        "changes",
        [
            {},
            {
                "encoder": {"adjacent_slices": 1},
                "windows": {"learnable": True, "intensity": Intensity(noise=0.1, brightness=0.2, contrast=0.2)},
            },
            {
                "head": replace(TINY_GRU, encoder_probabilities=True),
                "pooling": {"instances": True, "encoder_residual": True},
            },
        ],
        ids=["plain", "input", "head"],
    )
    def test_equal_those_without_chunks(self, chunk: int, changes: dict, batch: ScanBatch) -> None:
        expected = step(training(batch_norm="frozen", **changes), batch)
        got = step(training(chunk, batch_norm="frozen", **changes), batch)
        assert got.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(got[name], gradient, rtol=EXACT, atol=EXACT * float(gradient.abs().max() + 1))
        assert any(gradient.abs().max() > 0 for name, gradient in got.items() if name.startswith("encoder.network"))

    def test_equal_those_of_the_same_chunks_that_are_kept(self, batch: ScanBatch) -> None:
        """With batch statistics: recomputation changes no bit of gradients and statistics."""
        model = training(5)
        kept = copy.deepcopy(model)
        function = kept.features_of(batch.hu, batch.lengths, batch.draws)
        features = run_in_chunks(function, strided_places(17, 5, torch.device("cpu")), recompute=False)
        logits = kept.head(features, batch.lengths, batch.positions_mm)
        sum(values.square().sum() for values in logits if values is not None).backward()
        got = step(model, batch)
        for name, parameter in kept.named_parameters():
            assert torch.equal(got[name], parameter.grad), name
        for name, value in statistics(kept).items():
            assert torch.equal(statistics(model)[name], value), name

    def test_of_the_input(self, batch: ScanBatch) -> None:
        """HU that want gradients get them, and the same ones."""
        gradients = []
        for chunk in (None, 4):
            hu = batch.hu.double().requires_grad_()
            training(chunk, batch_norm="frozen")(hu, batch.lengths, batch.positions_mm).slice_logits.square().sum().backward()
            gradients.append(hu.grad)
        torch.testing.assert_close(gradients[1], gradients[0], rtol=EXACT, atol=EXACT)
        assert gradients[0].abs().max() > 0

    def test_with_dropout_the_same_is_drawn_again(self, batch: ScanBatch) -> None:
        """By the encoder's stochastic depth, once kept and once computed again; and the generator goes on where it was."""
        places, results = strided_places(17, 5, torch.device("cpu")), []
        for recompute in (False, True):
            model = training(5)
            block = model.encoder.network.layer1[0]
            block.drop_path = DropPath(0.5)
            torch.nn.init.ones_(block.bn2.weight)  # timm begins at 0, where dropping changes nothing
            torch.manual_seed(0)
            function = model.features_of(batch.hu, batch.lengths, batch.draws)
            features = run_in_chunks(function, places, recompute=recompute, trained=list(model.encoder.parameters()))
            drawn = torch.rand(1)
            features.square().sum().backward()
            results.append([features, drawn, *(p.grad for p in model.encoder.parameters())])
        for kept, again in zip(*results, strict=True):
            assert torch.equal(kept, again)

    def test_in_bfloat16_are_near_the_whole_ones(self, batch: ScanBatch) -> None:
        """Weights that were cast where nothing was recorded do not stay in autocast's cache, and chunks are summed in float32."""
        exact = step(training(batch_norm="frozen"), batch)
        model = training(4, batch_norm="frozen").float()
        with torch.autocast("cpu", torch.bfloat16):
            first = model.encode(batch.hu, batch.lengths)
            again = model.encoder(model.windows(batch.hu))
        again.square().sum().backward()
        assert model.encoder.network.conv1[0].weight.grad.abs().max() > 0
        torch.testing.assert_close(first, again.float(), rtol=0.05, atol=0.05)
        with torch.autocast("cpu", torch.bfloat16):
            got = step(model, batch)
        name = "encoder.network.layer4.0.bn2.weight"
        assert torch.nn.functional.cosine_similarity(got[name].double().flatten(), exact[name].flatten(), dim=0) > 0.99


class TestStatistics:
    @pytest.mark.parametrize(
        "changes",
        [
            {"encoder": {"slices_per_chunk": 17}},
            {"encoder": {"checkpoint_blocks": True}},
            {"encoder": {"slices_per_chunk": 500}},
            {"encoder": {"slices_per_chunk": 17, "checkpoint_blocks": True}},
        ],
        ids=str,
    )
    def test_are_those_of_plain_training(self, changes: dict, batch: ScanBatch) -> None:
        plain, other = training(), training(**changes)
        expected, got = step(plain, batch), step(other, batch)
        for name, value in statistics(plain).items():
            assert torch.equal(statistics(other)[name], value), name
        for name, gradient in expected.items():
            assert torch.equal(got[name], gradient), name
        assert {float(layer.momentum) for layer in batch_norms(other)} == {0.1}

    def test_count_each_chunk_once(self, batch: ScanBatch) -> None:
        model = training(6)
        step(model, batch)
        assert {int(layer.num_batches_tracked) for layer in batch_norms(model.encoder)} == {3}

    def test_the_recomputation_of_blocks_would_count_twice(self, batch: ScanBatch) -> None:
        """The trap is there: without the hold, torch counts every block again."""
        model = training()
        model.encoder.network.set_grad_checkpointing(True)
        step(model, batch)
        assert max(int(layer.num_batches_tracked) for layer in batch_norms(model.encoder)) == 2

    def test_stay_where_they_are_frozen(self, batch: ScanBatch) -> None:
        model = training(4, batch_norm="frozen")
        before = statistics(model)
        gradients = step(model, batch)
        assert all(torch.equal(value, before[name]) for name, value in statistics(model).items())
        assert any(name.endswith("bn1.weight") for name in gradients)


class TestChunks:
    def test_reach_through_the_whole_batch(self) -> None:
        places = strided_places(10, 4, torch.device("cpu"))
        assert sorted(torch.cat(places).tolist()) == list(range(10))
        assert [len(chunk) for chunk in places] == [4, 3, 3]
        assert all(chunk.max() >= 7 for chunk in places)

    @pytest.mark.parametrize("recompute", [True, False])
    def test_rows_come_back_in_order(self, recompute: bool) -> None:
        x = torch.randn(11, 3, requires_grad=True)
        function = lambda places: x[places] * 2  # noqa: E731
        rows = run_in_chunks(function, strided_places(11, 4, x.device), recompute=recompute, trained=[x])
        assert torch.equal(rows, x * 2)

    @pytest.mark.parametrize("lengths", [[1], [512], [1, 1, 3]])
    def test_scans_of_any_length_train(self, lengths: list[int]) -> None:
        samples = [make_sample(length, size=40) for length in lengths]
        gradients = step(training(16).float(), pack_scans(samples))
        assert all(gradient.isfinite().all() for gradient in gradients.values())

    def test_only_a_chunk_is_kept(self) -> None:
        """What autograd saves of the encoder does not grow with the batch."""

        def saved(count: int, chunk: int | None) -> int:
            sizes: list[int] = []
            model = training(chunk).float()
            batch = pack_scans([make_sample(count, size=40)])

            def pack(tensor: torch.Tensor) -> torch.Tensor:
                sizes.append(0 if tensor.dtype == torch.int16 else tensor.numel())
                return tensor

            with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
                model.encode(batch.hu, batch.lengths)
            return sum(sizes)

        assert saved(32, 4) - saved(8, 4) < 32 * 120  # the features, 96 a slice
        assert saved(32, None) - saved(8, None) > 24 * 100_000


class TestFreezing:
    def test_a_frozen_encoder_rests(self, batch: ScanBatch) -> None:
        model = training(encoder={"backbone": "test_resnet"})
        model.encoder.unfreeze_last(0)
        before = statistics(model)
        gradients = step(model, batch)
        assert not any(name.startswith("encoder.") for name in gradients)
        assert all(torch.equal(value, before[name]) for name, value in statistics(model).items())
        assert not model.encoder.training

    @pytest.mark.parametrize(("groups", "trained"), [(1, {"layer4"}), (2, {"layer3", "layer4"})])
    def test_the_last_groups_alone_are_trained(self, groups: int, trained: set, batch: ScanBatch) -> None:
        model = training()
        model.encoder.unfreeze_last(groups)
        before = statistics(model)
        gradients = step(model, batch)
        names = {name.split(".")[2] for name in gradients if name.startswith("encoder.network")}
        assert names == trained
        moved = {name.split(".")[2] for name, value in statistics(model).items() if not torch.equal(value, before[name])}
        assert moved == trained
        model.eval()
        model.train()
        assert not model.encoder.network.bn1.training

    def test_thawed_it_trains_again(self, batch: ScanBatch) -> None:
        model = training()
        model.encoder.unfreeze_last(0)
        model.encoder.unfreeze_last(None)
        model.train()
        assert "encoder.network.layer1.0.conv1.weight" in step(model, batch)
        assert model.encoder.network.bn1.training
