"""Packing scans into batches."""

import numpy as np
import torch
from fabricated import make_sample

from ich_lstm import LABELS
from ich_lstm.data.loading.batch import pack_scans


class TestPackScans:
    def test_slices_stand_in_a_row(self) -> None:
        samples = [make_sample(3), make_sample(1), make_sample(5)]
        batch = pack_scans(samples)
        assert batch.lengths.tolist() == [3, 1, 5]
        assert batch.hu.shape == (9, 32, 32)
        assert (batch.hu.dtype, batch.lengths.dtype, batch.positions_mm.dtype) == (torch.int16, torch.int64, torch.float32)
        assert batch.scan_ids == [sample.scan_id for sample in samples]
        for i, sample in enumerate(samples):
            for packed, single in zip(batch[:4:2], sample[:2], strict=True):
                np.testing.assert_array_equal(packed.split([3, 1, 5])[i], single)
            np.testing.assert_array_equal(batch.slice_labels.split([3, 1, 5])[i], sample.slice_labels)
            np.testing.assert_array_equal(batch.scan_labels[i], sample.scan_labels)
            np.testing.assert_array_equal(batch.draws.split([3, 1, 5])[i], sample.draws)

    def test_nothing_packs_to_an_empty_batch(self) -> None:
        batch = pack_scans([])
        assert len(batch.hu) == len(batch.lengths) == len(batch.positions_mm) == len(batch.scan_ids) == 0
        assert batch.slice_labels.shape == batch.scan_labels.shape == (0, len(LABELS))
        full = pack_scans([make_sample(3)])
        assert [tensor.dtype for tensor in batch[:6]] == [tensor.dtype for tensor in full[:6]]
