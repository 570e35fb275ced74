"""Batches of labelled scans."""

from pathlib import Path

import numpy as np
import pytest
import torch
from fabricated import make_labelled
from labelled_scans import label_scans

from ich_lstm.data.joining.join import LabelledScan
from ich_lstm.data.labels.table import read_label_table
from ich_lstm.data.loading.dataset import ScanDataset
from ich_lstm.data.loading.slice_sampling import SampleRequest, SliceSampling
from ich_lstm.data.prepared.folder import PreparedFolder
from ich_lstm.data.prepared.scan_cache import read_cached
from ich_lstm.preprocessing.augmentation import Geometry


class TestScanDataset:
    @pytest.fixture
    def scans(self, prepared: PreparedFolder, phantom: Path) -> list[LabelledScan]:
        return label_scans(prepared, read_label_table(phantom / "stage_2_train.csv"))

    def test_a_batch_holds_what_was_asked_for(self, scans: list[LabelledScan]) -> None:
        dataset = ScanDataset(scans)
        batch = dataset[[SampleRequest(4, 0), SampleRequest(1, 0)]]
        assert dataset.lengths == [12] * 6
        assert batch.scan_ids == [scans[4].scan_id, scans[1].scan_id]
        for i, scan in enumerate((scans[4], scans[1])):
            np.testing.assert_array_equal(batch.hu[12 * i : 12 * i + 12], read_cached(scan.cache_path).hu)
            np.testing.assert_array_equal(batch.slice_labels[12 * i : 12 * i + 12], scan.slice_labels)
            np.testing.assert_array_equal(batch.scan_labels[i], scan.scan_labels)

    def test_no_request_no_scan(self, scans: list[LabelledScan]) -> None:
        assert len(ScanDataset(scans)[[]].lengths) == 0

    def test_augmentation_depends_on_seed_epoch_and_scan_alone(self, scans: list[LabelledScan]) -> None:
        dataset = ScanDataset(scans, Geometry(), seed=1)
        alone = dataset[[SampleRequest(2, 5)]].hu
        beside = dataset[[SampleRequest(0, 5), SampleRequest(2, 5)]].hu[12:]
        np.testing.assert_array_equal(alone, beside)
        reordered = ScanDataset([scans[2], scans[0]], Geometry(), seed=1)
        np.testing.assert_array_equal(reordered[[SampleRequest(0, 5)]].hu, alone)
        renamed = ScanDataset([scans[2]._replace(scan_id="another key")], Geometry(), seed=1)
        np.testing.assert_array_equal(renamed[[SampleRequest(0, 5)]].hu, alone)
        for other in (dataset[[SampleRequest(2, 6)]], ScanDataset(scans, Geometry(), seed=2)[[SampleRequest(2, 5)]]):
            assert (other.hu != alone).any()

    def test_another_draw_of_a_scan_looks_different(self, scans: list[LabelledScan]) -> None:
        dataset = ScanDataset(scans, Geometry())
        draws = [dataset[[SampleRequest(2, 5, draw)]].hu.numpy().tobytes() for draw in range(4)]
        assert len(set(draws)) == 4

    def test_a_seed_for_each_slice(self, scans: list[LabelledScan]) -> None:
        dataset = ScanDataset(scans, seed=1)
        draws = dataset[[SampleRequest(0, 5), SampleRequest(2, 5)]].draws
        assert draws.dtype == torch.int64
        assert draws.min() >= 0
        assert draws.max() < 2**32
        assert len(draws.unique()) == 24
        moved = ScanDataset([scans[2]._replace(scan_id="another key")], Geometry(), seed=1)[[SampleRequest(0, 5)]].draws
        assert torch.equal(draws[12:], moved)
        others = [
            *(dataset[[SampleRequest(2, 6)]].draws, dataset[[SampleRequest(2, 5, 1)]].draws),
            ScanDataset(scans, seed=2)[[SampleRequest(2, 5)]].draws,
        ]
        assert len(torch.cat([moved, *others]).unique()) == 48

    def test_a_slice_keeps_its_seed_in_a_part(self, scans: list[LabelledScan]) -> None:
        request = SampleRequest(1, 3)
        places = SliceSampling(5).choose(12, request, seed=4, identifier=scans[1].series_uid)
        part = ScanDataset(scans, sampling=SliceSampling(5), seed=4)[[request]].draws
        assert torch.equal(part, ScanDataset(scans, seed=4)[[request]].draws[places])

    def test_cutmix_depends_on_seed_epoch_and_company(self, scans: list[LabelledScan]) -> None:
        requests = [SampleRequest(0, 5), SampleRequest(2, 5)]
        dataset = ScanDataset(scans, cutmix=1.0, seed=1)
        mixed = dataset[requests].hu
        assert torch.equal(dataset[requests].hu, mixed)
        renamed = [scans[2]._replace(scan_id="another key"), scans[0]]
        assert torch.equal(ScanDataset(renamed, cutmix=1.0, seed=1)[[SampleRequest(1, 5), SampleRequest(0, 5)]].hu, mixed)
        for other in (
            *(dataset[[SampleRequest(0, 6), SampleRequest(2, 6)]], dataset[[SampleRequest(0, 5), SampleRequest(2, 5, 1)]]),
            *(ScanDataset(scans, cutmix=1.0, seed=2)[requests], ScanDataset(scans, seed=1)[requests]),
        ):
            assert not torch.equal(other.hu, mixed)
        assert len(dataset[[]].hu) == 0

    @pytest.mark.parametrize("choice", ["adjacent", "random", "every"])
    def test_a_part_is_a_part_of_the_scan(self, choice, scans: list[LabelledScan]) -> None:
        sampling = SliceSampling(5, choice)
        for request in (SampleRequest(1, 0), SampleRequest(3, 2, 1)):
            scan = scans[request.scan]
            places = sampling.choose(12, request, seed=4, identifier=scan.series_uid)
            batch = ScanDataset(scans, sampling=sampling, seed=4)[[request]]
            whole = ScanDataset(scans)[[request]]
            assert places is not None
            for part, all_slices in zip(batch[0:1] + batch[2:4], whole[0:1] + whole[2:4], strict=True):
                np.testing.assert_array_equal(part, all_slices[places])
            assert batch.lengths.tolist() == [5]
            np.testing.assert_array_equal(batch.scan_labels[0], scan.slice_labels[places].max(axis=0))

    @pytest.mark.parametrize("choice", ["adjacent", "random", "every"])
    def test_neighbours_come_with_a_part(self, choice, scans: list[LabelledScan]) -> None:
        sampling = SliceSampling(5, choice)
        requests = [SampleRequest(1, 0), SampleRequest(3, 2, 1)]
        batch = ScanDataset(scans, sampling=sampling, adjacent_slices=2, seed=4)[requests]
        alone = ScanDataset(scans, sampling=sampling, seed=4)[requests]
        assert torch.equal(batch.hu[batch.stacks[:, 2]], alone.hu)
        for ours, theirs in zip(batch[1:7], alone[1:7], strict=True):
            assert torch.equal(ours, theirs) if isinstance(ours, torch.Tensor) else ours == theirs
        first = 0
        for request in requests:
            whole = ScanDataset(scans)[[request]].hu
            places = sampling.choose(12, request, seed=4, identifier=scans[request.scan].series_uid)
            for place, stack in zip(places, batch.stacks[first : first + 5], strict=True):
                for step, at in enumerate(stack.tolist(), start=-2):
                    assert (at < 0) == (not 0 <= place + step < 12)
                    assert at < 0 or torch.equal(batch.hu[at], whole[place + step])
            first += 5

    def test_a_short_scan_is_whole_among_parts(self, tmp_path: Path) -> None:
        scans = [make_labelled(tmp_path, "short", 3), make_labelled(tmp_path, "long", 9)]
        batch = ScanDataset(scans, sampling=SliceSampling(4), adjacent_slices=1)[[SampleRequest(1, 0), SampleRequest(0, 0)]]
        first = len(batch.hu) - 3
        assert batch.stacks[4:].tolist() == [[-1, first, first + 1], [first, first + 1, first + 2], [first + 1, first + 2, -1]]

    def test_whole_scans_need_no_further_slices(self, scans: list[LabelledScan]) -> None:
        assert ScanDataset(scans, adjacent_slices=1)[[SampleRequest(0, 0)]].stacks is None

    def test_a_hemorrhage_outside_the_part_is_not_claimed(self, scans: list[LabelledScan]) -> None:
        positive = next(scan for scan in scans if scan.scan_labels[-1] == 1)
        by_report = positive._replace(slice_labels=np.full_like(positive.slice_labels, np.nan))
        dataset = ScanDataset([by_report], sampling=SliceSampling(5))
        labels = dataset[[SampleRequest(0, 0)]].scan_labels[0]
        assert not (labels == 1).any()
        assert labels[-1].isnan()
        np.testing.assert_array_equal(ScanDataset([by_report])[[SampleRequest(0, 0)]].scan_labels[0], positive.scan_labels)
