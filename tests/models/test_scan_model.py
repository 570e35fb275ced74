"""The whole network."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from fabricated import TINY, TINY_GRU, make_model, make_sample
from safetensors.torch import save_file

from ich_lstm import ScanModel
from ich_lstm.data.loading.batch import ScanBatch, pack_scans
from ich_lstm.errors import ConfigError
from ich_lstm.models.adjacent_slices import stack_neighbours, stacks_of_scans
from ich_lstm.models.encoder import Encoder
from ich_lstm.models.heads import Head, NoHead
from ich_lstm.models.long_scans import thinned
from ich_lstm.models.scan_model import ScanLogits
from ich_lstm.preprocessing.intensity import SLICE_STRIDE
from ich_lstm.settings import merged, to_stored

LENGTHS = [5, 1, 11]
EXACT = {"rtol": 0, "atol": 1e-6}


def run(model: ScanModel, batch: ScanBatch) -> ScanLogits:
    with torch.inference_mode():
        return model(batch.hu, batch.lengths, batch.positions_mm)


@pytest.fixture(scope="module")
def samples() -> list:
    return [make_sample(length, seed=1) for length in LENGTHS]


@pytest.mark.parametrize("head", [TINY.head, TINY_GRU, NoHead()], ids=["LSTM", "GRU", "NoHead"])
@pytest.mark.parametrize("pooling", ["max", "noisy-or", "log-sum-exp", "attention"])
class TestAnyNetwork:
    def test_shapes(self, head: Head, pooling: str, samples: list) -> None:
        logits = run(make_model(head=head, pooling={"kind": pooling}), pack_scans(samples))
        assert logits.slice_logits.shape == (17, 6)
        assert logits.scan_logits.shape == (3, 6)
        assert (logits.encoder_logits is None) == (head == NoHead())
        assert all(values is None or values.isfinite().all() for values in logits)

    @pytest.mark.parametrize(("precision", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
    def test_neighbours_do_not_matter(self, head: Head, pooling: str, samples: list, precision, tolerance: float) -> None:
        model = make_model(head=head, pooling={"kind": pooling}).to(precision)
        together = run(model, pack_scans(samples))
        for i, slices in enumerate(together.slice_logits.split(LENGTHS)):
            alone = run(model, pack_scans(samples[i : i + 1]))
            torch.testing.assert_close(alone.slice_logits, slices, rtol=0, atol=tolerance)
            torch.testing.assert_close(alone.scan_logits[0], together.scan_logits[i], rtol=0, atol=tolerance)


class TestScanModel:
    def test_order_in_the_batch_does_not_matter(self, samples: list) -> None:
        model = make_model().double()
        forth, back = run(model, pack_scans(samples)), run(model, pack_scans(samples[::-1]))
        torch.testing.assert_close(back.scan_logits.flip(0), forth.scan_logits, **EXACT)
        torch.testing.assert_close(torch.cat(back.slice_logits.split(LENGTHS[::-1])[::-1]), forth.slice_logits, **EXACT)

    def test_a_slice_knows_its_scan_and_the_encoder_does_not(self, samples: list) -> None:
        model = make_model().double()
        changed = samples[0]._replace(hu=samples[0].hu.copy())
        changed.hu[4] = 1000
        before, after = run(model, pack_scans(samples[:1])), run(model, pack_scans([changed]))
        assert not torch.allclose(before.slice_logits[0], after.slice_logits[0], atol=1e-4)
        torch.testing.assert_close(before.encoder_logits[:4], after.encoder_logits[:4], **EXACT)

    def test_sequence_begins_as_the_encoder(self, samples: list) -> None:
        torch.manual_seed(0)
        logits = run(ScanModel(TINY).eval(), pack_scans(samples))
        assert torch.equal(logits.slice_logits, logits.encoder_logits)
        torch.manual_seed(0)
        logits = run(ScanModel(merged(TINY, {"head": {"encoder_residual": False}})).eval(), pack_scans(samples))
        assert not torch.allclose(logits.slice_logits, logits.encoder_logits, atol=1e-3)

    def test_positions_count_relative_to_the_scan(self, samples: list) -> None:
        model = make_model().double()
        before = run(model, pack_scans(samples)).slice_logits
        moved = [sample._replace(positions_mm=sample.positions_mm + 256) for sample in samples]
        torch.testing.assert_close(run(model, pack_scans(moved)).slice_logits, before, **EXACT)
        stretched = [sample._replace(positions_mm=sample.positions_mm * 2) for sample in samples]
        assert not torch.allclose(run(model, pack_scans(stretched)).slice_logits, before, atol=1e-3)

    def test_hu_may_be_any_number_type(self, samples: list) -> None:
        model = make_model()
        batch = pack_scans(samples)
        assert torch.equal(run(model, batch._replace(hu=batch.hu.float())).slice_logits, run(model, batch).slice_logits)

    def test_logits_are_never_less_than_float32(self, samples: list) -> None:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            logits = run(make_model(), pack_scans(samples))
        assert {values.dtype for values in logits if values is not None} == {torch.float32}

    def test_every_parameter_gets_a_gradient(self, samples: list) -> None:
        # DDP stops at one that does not.
        for changes in (
            {},
            {"head": {"class_path": "NoHead"}},
            {"head": {"encoder_residual": False}},
            {"head": {"encoder_residual": False}, "encoder": {"classifier": False}},
            {"head": {"positions": "none", "num_layers": 2, "recurrent_dropout": 0.2}},
            {"head": {"positions": "relative", "projection": 5, "norm": False}, "pooling": {"kind": "feature-attention"}},
            {
                "head": {"encoder_probabilities": True, "encoder_residual": False},
                "reduction": {"kind": "linear", "features": 7},
            },
            {
                "head": {"encoder_probabilities": True},
                "reduction": {"kind": "drop"},
                "windows": {"learnable": True},
                "encoder": {"adjacent_slices": 1},
            },
            {"pooling": {"encoder_residual": True, "instances": True}, "encoder": {"slices_per_chunk": 4}},
        ):
            model = make_model(**changes).train()
            logits = model(*pack_scans(samples)[:3])
            sum(values.square().sum() for values in logits if values is not None).backward()
            assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []

    def test_settings_build_the_same_network(self, samples: list) -> None:
        for changes in (
            {},
            {
                "windows": {"channels": [(50, 100)], "mean": (0.3,)},
                "pooling": {"kind": "max"},
                "head": replace(TINY_GRU, bidirectional=False),
            },
            {
                "windows": {"quantize": True},
                "encoder": {"adjacent_slices": 2},
                "head": {"projection": 6},
                "pooling": {"encoder_residual": True, "instances": True},
            },
            {
                "windows": {"learnable": True},
                "head": {"encoder_probabilities": True},
                "reduction": {"kind": "linear", "features": 5},
            },
        ):
            model = make_model(**changes)
            stored = json.loads(json.dumps(to_stored(model.settings)))
            again = ScanModel(merged(TINY, stored))
            again.load_state_dict(model.state_dict())
            assert again.settings == model.settings
            assert torch.equal(run(again.eval(), pack_scans(samples)).scan_logits, run(model, pack_scans(samples)).scan_logits)

    def test_windows_are_the_first_layer(self, samples: list) -> None:
        clipped = [sample._replace(hu=sample.hu.clip(0, 80)) for sample in samples]
        model = make_model(windows={"channels": [(40, 80)]})
        torch.testing.assert_close(
            run(model, pack_scans(clipped)).slice_logits, run(model, pack_scans(samples)).slice_logits, rtol=0, atol=1e-5
        )

    def test_dropout_rests_in_evaluation(self, samples: list) -> None:
        rates = {f"{name}_dropout": 0.5 for name in ("input", "layer", "recurrent", "output")}
        model = make_model(encoder={"dropout": 0.5}, head={**rates, "num_layers": 2})
        assert torch.equal(run(model, pack_scans(samples)).scan_logits, run(model, pack_scans(samples)).scan_logits)
        model.train()
        assert not torch.equal(run(model, pack_scans(samples)).scan_logits, run(model, pack_scans(samples)).scan_logits)

    @pytest.mark.parametrize(
        "changes",
        [
            {"head": {"hidden_size": 0}},
            {"head": {"num_layers": 0}},
            {"encoder": {"dropout": 1.0}},
            {"head": {"input_dropout": -0.1}},
            {"head": {"layer_dropout": 1.5}},
            {"head": {"recurrent_dropout": 1.0}},
            {"head": {"output_dropout": -1}},
            {"head": {"reversal": 1.1}},
            {"encoder": {"adjacent_slices": -1}},
            {"encoder": {"slices_per_chunk": 0}},
            {"max_slices": 0},
            {"head": {"projection": 0}},
            {"head": {"positions": "cm"}},
            {"encoder": {"batch_norm": "off"}},
            {"encoder": {"global_pool": "min"}},
            {"reduction": {"kind": "ica"}},
            {"reduction": {"kind": "pca"}},
            {"reduction": {"kind": "linear", "features": 2}, "head": {"class_path": "NoHead"}},
            {"encoder": {"classifier": False}},
            {"encoder": {"classifier": False}, "head": {"class_path": "NoHead"}},
            {"encoder": {"batch_norm": "synchronized", "slices_per_chunk": 4}},
            {"encoder": {"checkpoint_blocks": True, "backbone": "legacy_xception"}},
            {"windows": {"channels": []}},
            {"windows": {"channels": [(40, 0)]}},
            {"windows": {"mean": (0, 0)}},
            {"windows": {"std": (0,)}},
            {"head": {"class_path": "RNN"}},
            {"pooling": {"kind": "mean"}},
            {"encoder": {"backbone": "resnet10x"}},
        ],
        ids=str,
    )
    def test_settings_out_of_range(self, changes: dict) -> None:
        with pytest.raises(ConfigError):
            ScanModel(merged(TINY, changes))


class TestNeighbours:
    def test_channels_are_those_of_the_slices_beside(self, samples: list) -> None:
        model = make_model(encoder={"adjacent_slices": 1})
        batch = pack_scans(samples)
        shown = stack_neighbours(model.windows, batch.hu, stacks_of_scans(batch.lengths, 1))
        assert shown.shape == (17, 9, 32, 32)
        alone = model.windows(batch.hu)  # (17, 3, 32, 32)
        torch.testing.assert_close(shown[:, 3:6], alone)
        torch.testing.assert_close(shown[1:5, :3], alone[:4])
        torch.testing.assert_close(shown[0:4, 6:], alone[1:5])
        # Beyond the ends of each scan: 0 in every window, before normalization.
        absent = -torch.tensor(0.449) / 0.226
        for row, channels in ((0, slice(0, 3)), (4, slice(6, 9)), (5, slice(0, 3)), (5, slice(6, 9)), (6, slice(0, 3))):
            torch.testing.assert_close(shown[row, channels], absent.expand(3, 32, 32))

    def test_a_slice_sees_its_neighbour_and_no_further(self, samples: list) -> None:
        model = make_model(encoder={"adjacent_slices": 1}, head={"class_path": "NoHead"}, pooling={"kind": "max"}).double()
        changed = samples[0]._replace(hu=samples[0].hu.copy())
        changed.hu[4] = 1000
        before, after = run(model, pack_scans(samples[:1])).slice_logits, run(model, pack_scans([changed])).slice_logits
        torch.testing.assert_close(before[:3], after[:3], **EXACT)
        assert not torch.allclose(before[3], after[3], atol=1e-4)

    def test_neighbours_that_come_with_single_slices_are_those_of_the_scan(self, samples: list) -> None:
        model = make_model(encoder={"adjacent_slices": 1})
        whole = pack_scans(samples)
        chosen = torch.tensor([3, 0, 5, 16])
        features = model.encode(whole.hu, torch.ones(4, dtype=torch.int64), stacks=stacks_of_scans(whole.lengths, 1)[chosen])
        torch.testing.assert_close(features, model.encode(whole.hu, whole.lengths)[chosen])

    def test_a_slice_has_the_same_jitter_in_all_stacks(self, samples: list) -> None:
        model = make_model(encoder={"adjacent_slices": 1}, windows={"intensity": {"noise": 0.5, "noise_p": 1.0}}).train()
        batch = pack_scans(samples)
        draws = (2**32 - 3 * SLICE_STRIDE + torch.arange(17) * SLICE_STRIDE) % 2**32
        shown = stack_neighbours(model.windows, batch.hu, stacks_of_scans(batch.lengths, 1), draws)
        alone = model.windows(batch.hu, draws)
        assert not torch.allclose(alone, model.windows(batch.hu))
        for part, of_slices in ((shown[1:5, :3], alone[:4]), (shown[:, 3:6], alone), (shown[:4, 6:], alone[1:5])):
            torch.testing.assert_close(part, of_slices)

    def test_the_stem_s_weights_are_repeated(self, tmp_path: Path) -> None:
        source = timm.create_model("resnet18", pretrained=False)
        save_file(source.state_dict(), tmp_path / "model.safetensors")
        encoder = Encoder(backbone="resnet18", pretrained_file=tmp_path / "model.safetensors", adjacent_slices=1)
        model = ScanModel(replace(TINY, encoder=encoder))
        expected = source.conv1.weight.detach().repeat(1, 3, 1, 1) * 3 / 9
        torch.testing.assert_close(model.encoder.network.conv1.weight.detach(), expected)
        torch.testing.assert_close(model.encoder.network.layer4[0].conv1.weight, source.layer4[0].conv1.weight)
        assert "state_dict" not in model.encoder.network.pretrained_cfg


class TestPretrainedFile:
    @pytest.mark.parametrize(
        "write",
        [
            lambda path: None,
            lambda path: path.write_bytes(b"no weights"),
            lambda path: torch.save({"state_dict": {"conv1.weight": torch.zeros(2)}}, path),
            lambda path: torch.save([1, 2], path),
            lambda path: torch.save(Path("x"), path),
        ],
        ids=["missing", "other bytes", "other names", "no names", "a pickle of more than tensors"],
    )
    def test_says_what_is_wrong_and_how_to_get_it(self, write, tmp_path: Path) -> None:
        path = tmp_path / "weights.pth"
        write(path)
        with pytest.raises(ConfigError) as caught:
            make_model(encoder={"backbone": "resnet18", "pretrained_file": str(path)})
        assert caught.value.code == "no_pretrained_weights"
        assert "weights.pth" in caught.value.where

    def test_a_machine_without_internet_is_told_what_to_do(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(timm, "create_model", lambda *_, **__: (_ for _ in ()).throw(OSError("no connection")))
        with pytest.raises(ConfigError) as caught:
            make_model(encoder={"backbone": "resnet18", "pretrained": True})
        assert "pretrained_file" in caught.value.todo
        assert "timm/resnet18" in caught.value.todo


class TestLongScans:
    def test_what_is_looked_at(self) -> None:
        places, fewer = thinned(torch.tensor([3, 200, 64]), 64)
        assert fewer.tolist() == [3, 64, 64]
        expected = np.round(np.linspace(0, 199, 64)).astype(int) + 3
        assert places.tolist() == [0, 1, 2, *expected.tolist(), *range(203, 267)]

    @pytest.mark.parametrize(
        "own", [{"head": {"encoder_residual": True}}, {"head": {"encoder_residual": False, "encoder_probabilities": True}}]
    )
    def test_every_slice_gets_the_context_of_the_nearest(self, own: dict) -> None:
        """The encoder sees all slices, each with its true neighbours; the recurrent head and the pooling see some."""
        pooling = {"kind": "feature-attention", "encoder_residual": True}
        settings = {"encoder": {"adjacent_slices": 1}, "pooling": pooling, **own}
        model, limited = make_model(**settings).double(), make_model(max_slices=7, **settings).double()
        sample = make_sample(31, seed=2)
        got = run(limited, pack_scans([sample, make_sample(5)]))
        assert got.slice_logits.shape == (36, 6)

        places = np.round(np.linspace(0, 30, 7)).astype(int)
        batch = pack_scans([sample])
        with torch.no_grad():
            features = model.encode(batch.hu, batch.lengths)
            encoder_logits = model.encoder_classifier(features)
            some = model.head(features[places], torch.tensor([7]), batch.positions_mm[places])
            largest_of_some = encoder_logits[places].amax(dim=0)
            scan_logits = some.scan_logits[0] + model.scan_gate * (encoder_logits.amax(dim=0) - largest_of_some)
        torch.testing.assert_close(got.encoder_logits[:31], encoder_logits, **EXACT)
        torch.testing.assert_close(got.scan_logits[0], scan_logits, **EXACT)
        nearest = np.abs(np.arange(31)[:, None] - places).argmin(axis=1)
        # What the context gives is linear in the context; what a slice's own logits or probabilities give is its own.
        weight = model.sequence_classifier.weight.detach()[:, model.sequence.out_features :]
        own_part = encoder_logits.sigmoid() @ weight.T if model.gate is None else model.gate.detach() * encoder_logits
        expected = some.slice_logits[nearest] - own_part[places][nearest] + own_part
        torch.testing.assert_close(got.slice_logits[:31], expected, **EXACT)

    def test_a_slice_s_relative_place_is_that_among_all(self) -> None:
        limited = make_model(max_slices=7, head={"positions": "relative"}).double()
        features = torch.randn(31, limited.encoder.out_features, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        places = torch.tensor(np.round(np.linspace(0, 30, 7)).astype(int))
        with torch.no_grad():
            got = limited.head(features, torch.tensor([31])).slice_logits[places]
            x = torch.cat([limited.sequence.norm(features[places]), (places / 30)[:, None].double()], dim=1)
            context, _ = torch.nn.LSTM.forward(limited.sequence.recurrence, x)
            expected = limited.sequence_classifier(context) + limited.gate * limited.encoder_classifier(features[places])
        # The places themselves are float32.
        torch.testing.assert_close(got, expected, atol=1e-7, rtol=0)


class TestReading:
    """From the bottom to the top, from the top to the bottom, and both."""

    def test_reversed_is_another_reading_of_the_same_slices(self, samples: list) -> None:
        model = make_model(head={"positions": "none", "bidirectional": False}).double()
        batch = pack_scans(samples[:1])
        features = model.encode(batch.hu, batch.lengths)
        downwards = model.head(features, batch.lengths, None, torch.tensor([True])).slice_logits
        turned = model.head(features.flip(0), batch.lengths).slice_logits
        torch.testing.assert_close(downwards, turned.flip(0), **EXACT)

    def test_both_ways_is_the_mean(self, samples: list) -> None:
        model = make_model().double()
        batch = pack_scans(samples)
        with torch.inference_mode():
            features = model.encode(batch.hu, batch.lengths)
            views = [
                model.head(features, batch.lengths, batch.positions_mm, torch.full((3,), turned)) for turned in (False, True)
            ]
            both = model(batch.hu, batch.lengths, batch.positions_mm, both_ways=True)
        assert not torch.allclose(views[0].slice_logits, views[1].slice_logits, atol=1e-3)
        torch.testing.assert_close(both.slice_logits, (views[0].slice_logits + views[1].slice_logits) / 2, **EXACT)
        torch.testing.assert_close(both.scan_logits, (views[0].scan_logits + views[1].scan_logits) / 2, **EXACT)

    def test_training_draws_it_by_the_scans_own_seeds(self, samples: list) -> None:
        model = make_model(head={"reversal": 0.5, "bidirectional": False}, encoder={"batch_norm": "frozen"}).double().train()
        batches = [pack_scans([make_sample(6, seed=seed) for seed in range(12)])]
        batch = batches[0]
        logits = model(batch.hu, batch.lengths, batch.positions_mm, batch.draws).slice_logits.split(6)
        plain = model(batch.hu, batch.lengths, batch.positions_mm).slice_logits.split(6)
        turned = [not torch.allclose(a, b, atol=1e-9) for a, b in zip(logits, plain, strict=True)]
        assert 2 <= sum(turned) <= 10
        again = model(batch.hu, batch.lengths, batch.positions_mm, batch.draws).slice_logits.split(6)
        assert all(torch.equal(a, b) for a, b in zip(logits, again, strict=True))


class TestOptions:
    def test_any_is_coherent_in_evaluation(self, samples: list) -> None:
        batch = pack_scans(samples)
        plain, coherent = (run(make_model(coherent_any=value), batch) for value in (False, True))
        for before, after in ((plain.slice_logits, coherent.slice_logits), (plain.scan_logits, coherent.scan_logits)):
            assert (before[:, 5] < before[:, :5].amax(dim=1)).any()
            torch.testing.assert_close(after[:, :5], before[:, :5])
            torch.testing.assert_close(after[:, 5], before.amax(dim=1))

    def test_the_scan_s_residual_is_the_most_suspicious_slice(self, samples: list) -> None:
        batch = pack_scans(samples)
        model = make_model(pooling={"encoder_residual": True}).double()
        with_it = run(model, batch)
        gate = model.scan_gate.detach().clone()
        torch.nn.init.zeros_(model.scan_gate)
        without = run(model, batch)
        largest = torch.stack([part.amax(dim=0) for part in with_it.encoder_logits.split(LENGTHS)])
        torch.testing.assert_close(with_it.scan_logits - without.scan_logits, gate * largest.clamp(-13.8155, 13.8155), **EXACT)

    def test_probabilities_reach_both_ends_of_the_head(self) -> None:
        model = make_model(
            head={"encoder_probabilities": True, "positions": "none", "encoder_residual": False}, reduction={"kind": "drop"}
        )
        assert model.sequence.recurrence.input_size == 6
        assert model.sequence_classifier.in_features == 2 * 8 + 6

    def test_the_encoder_s_view_is_its_logits(self, samples: list) -> None:
        model, batch = make_model(pooling={"instances": True}).double(), pack_scans(samples)
        whole = run(model, batch)
        with torch.inference_mode():
            view = model.encoder_view(batch.hu, batch.lengths)
        torch.testing.assert_close(view.slice_logits, whole.encoder_logits, **EXACT)
        torch.testing.assert_close(view.instance_logits, whole.instance_logits, **EXACT)
        expected = torch.stack([part.amax(dim=0) for part in whole.encoder_logits.split(LENGTHS)])
        torch.testing.assert_close(view.scan_logits, expected, **EXACT)
        assert view.encoder_logits is None
