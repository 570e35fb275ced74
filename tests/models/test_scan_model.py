"""The whole network."""

import json

import pytest
import torch
from fabricated import TINY, make_model, make_sample

from ich_lstm import ScanModel
from ich_lstm.data.batch import ScanBatch, pack_scans
from ich_lstm.errors import ConfigError
from ich_lstm.models.scan_model import ScanLogits

LENGTHS = [5, 1, 11]
EXACT = {"rtol": 0, "atol": 1e-6}


def run(model: ScanModel, batch: ScanBatch) -> ScanLogits:
    with torch.inference_mode():
        return model(batch.hu, batch.lengths, batch.positions_mm)


@pytest.fixture(scope="module")
def samples() -> list:
    return [make_sample(length, seed=1) for length in LENGTHS]


@pytest.mark.parametrize("sequence", ["lstm", "gru", "none"])
@pytest.mark.parametrize("pooling", ["max", "noisy-or", "log-sum-exp", "attention"])
class TestAnyNetwork:
    def test_shapes(self, sequence: str, pooling: str, samples: list) -> None:
        logits = run(make_model(sequence=sequence, pooling=pooling), pack_scans(samples))
        assert logits.slice_logits.shape == (17, 6)
        assert logits.scan_logits.shape == (3, 6)
        assert (logits.encoder_logits is None) == (sequence == "none")
        assert all(values is None or values.isfinite().all() for values in logits)

    @pytest.mark.parametrize(("precision", "tolerance"), [(torch.float64, 1e-6), (torch.float32, 1e-5)])
    def test_neighbours_do_not_matter(self, sequence: str, pooling: str, samples: list, precision, tolerance: float) -> None:
        model = make_model(sequence=sequence, pooling=pooling).to(precision)
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
        logits = run(ScanModel(**TINY).eval(), pack_scans(samples))
        assert torch.equal(logits.slice_logits, logits.encoder_logits)
        torch.manual_seed(0)
        logits = run(ScanModel(**TINY, encoder_residual=False).eval(), pack_scans(samples))
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
        assert {values.dtype for values in logits} == {torch.float32}

    def test_every_parameter_gets_a_gradient(self, samples: list) -> None:
        # DDP stops at one that does not.
        for changes in ({}, {"sequence": "none"}, {"encoder_residual": False}, {"positions": False, "num_layers": 2}):
            model = make_model(**changes).train()
            logits = model(*pack_scans(samples)[:3])
            sum(values.square().sum() for values in logits if values is not None).backward()
            assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []

    def test_settings_build_the_same_network(self, samples: list) -> None:
        for changes in (
            {},
            {"windows": [(50, 100)], "mean": (0.3,), "pooling": "max", "sequence": "gru", "bidirectional": False},
        ):
            model = make_model(**changes)
            settings = json.loads(json.dumps(model.settings))
            again = ScanModel(**{**settings, "pretrained": False})
            again.load_state_dict(model.state_dict())
            assert again.settings == model.settings
            assert torch.equal(run(again.eval(), pack_scans(samples)).scan_logits, run(model, pack_scans(samples)).scan_logits)

    def test_windows_are_the_first_layer(self, samples: list) -> None:
        clipped = [sample._replace(hu=sample.hu.clip(0, 80)) for sample in samples]
        model = make_model(windows=[(40, 80)])
        torch.testing.assert_close(
            run(model, pack_scans(clipped)).slice_logits, run(model, pack_scans(samples)).slice_logits, rtol=0, atol=1e-5
        )

    def test_dropout_rests_in_evaluation(self, samples: list) -> None:
        model = make_model(dropout=0.5, num_layers=2)
        assert torch.equal(run(model, pack_scans(samples)).scan_logits, run(model, pack_scans(samples)).scan_logits)
        model.train()
        assert not torch.equal(run(model, pack_scans(samples)).scan_logits, run(model, pack_scans(samples)).scan_logits)

    @pytest.mark.parametrize(
        "changes",
        [
            {"hidden_size": 0},
            {"num_layers": 0},
            {"dropout": 1.0},
            {"dropout": -0.1},
            {"windows": []},
            {"windows": [(40, 0)]},
            {"mean": (0, 0)},
            {"std": (0,)},
            {"sequence": "rnn"},
            {"pooling": "mean"},
            {"backbone": "resnet10x"},
        ],
        ids=str,
    )
    def test_settings_out_of_range(self, changes: dict) -> None:
        with pytest.raises(ConfigError):
            ScanModel(**(TINY | changes))
