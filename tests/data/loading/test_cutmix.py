"""CutMix over the slices of a batch."""

import numpy as np
import pytest
import torch
from fabricated import make_sample

from ich_lstm import LABELS
from ich_lstm.data.loading.batch import ScanBatch, ScanSample, pack_scans
from ich_lstm.data.loading.cutmix import mix_slices
from ich_lstm.training.losses import weighted_log_loss_with_logits

K = len(LABELS)


def flat_sample(hu: list[int], slice_labels: np.ndarray, size: int = 20) -> ScanSample:
    """Slices of one value each."""
    return make_sample(len(hu), size=size)._replace(
        hu=np.repeat(np.array(hu, np.int16), size * size).reshape(-1, size, size),
        slice_labels=slice_labels.astype(np.float32),
        scan_labels=slice_labels.max(axis=0).astype(np.float32),
    )


def flat_batch(lengths: tuple[int, ...] = (3, 4, 2), size: int = 20) -> ScanBatch:
    """Slice i is i HU everywhere, and all its labels are i / 100, which tells what was mixed."""
    samples, first = [], 0
    for length in lengths:
        numbers = list(range(first, first + length))
        samples.append(flat_sample(numbers, np.repeat(np.array(numbers)[:, None] / 100, K, axis=1), size))
        first += length
    return pack_scans(samples)


def partners_of(mixed: ScanBatch) -> tuple[list[int], float]:
    """The partner of each slice of a flat batch, and the box's share; a slice in which nothing is strange is its own."""
    partners, shares = [], [0.0]
    for i, image in enumerate(mixed.hu):
        values = set(image.unique().tolist()) - {i}
        partners.append(values.pop() if values else i)
        assert not values
        if partners[i] != i:
            shares.append(float((image != i).float().mean()))
    return partners, max(shares)


class TestMixSlices:
    def test_one_box_one_permutation_and_labels_by_area(self) -> None:
        seen = set()
        for seed in range(40):
            mixed = mix_slices(flat_batch(), 1.0, seed)
            partners, share = partners_of(mixed)
            strange = mixed.hu != torch.arange(9, dtype=torch.int16)[:, None, None]
            boxes = {image.numpy().tobytes() for image in strange if image.any()}
            assert len(boxes) <= 1
            if share == 0:
                continue
            assert sorted(partners) == list(range(9))
            rows, columns = strange.any(0).any(1).sum(), strange.any(0).any(0).sum()
            assert rows * columns == strange.any(0).sum()  # a rectangle
            expected = [(1 - share) * i / 100 + share * partner / 100 for i, partner in enumerate(partners)]
            np.testing.assert_allclose(mixed.slice_labels, np.repeat(np.array(expected)[:, None], K, axis=1), atol=1e-6)
            seen.add(tuple(partners))
        assert len(seen) > 30

    def test_all_else_stays(self) -> None:
        mixed, before = mix_slices(flat_batch(), 1.0, 3), flat_batch()
        assert mixed.scan_ids == before.scan_ids
        for name in ("lengths", "positions_mm", "draws"):
            assert torch.equal(getattr(mixed, name), getattr(before, name))

    def test_the_share_is_as_the_paper_draws_it(self) -> None:
        """With alpha 1, lambda is even; clipping at the edge leaves, on the average, less of the box."""
        shares = np.array([partners_of(mix_slices(flat_batch((2,), 32), 1.0, seed))[1] for seed in range(800)])
        shares = shares[shares > 0]  # two slices are their own partners half the time
        random = np.random.default_rng(0)
        side = np.sqrt(1 - random.random(100_000))
        centre = random.random((2, 100_000))
        expected = np.prod(np.minimum(1, centre + side / 2) - np.maximum(0, centre - side / 2), axis=0)
        assert shares.mean() == pytest.approx(expected.mean(), abs=0.04)
        assert np.median(shares) == pytest.approx(np.median(expected), abs=0.05)

    def test_a_great_alpha_takes_half(self) -> None:
        shares = [partners_of(mix_slices(flat_batch((2,), 64), 1e6, seed))[1] for seed in range(60)]
        assert max(shares) == pytest.approx(0.5, abs=0.03)

    def test_a_slice_alone_is_left_alone(self) -> None:
        before, after = pack_scans([make_sample(1)]), mix_slices(pack_scans([make_sample(1)]), 1.0, 0)
        for name in ("hu", "slice_labels", "scan_labels"):
            assert torch.equal(getattr(before, name), getattr(after, name))

    def test_certain_labels_that_agree_stay_certain(self) -> None:
        labels = np.ones((6, K))
        for seed in range(10):
            mixed = mix_slices(pack_scans([flat_sample(list(range(6)), labels)]), 1.0, seed)
            assert (mixed.slice_labels == 1).all()

    def test_unknown_where_either_is(self) -> None:
        labels = np.zeros((6, K))
        labels[2, 1] = np.nan
        for seed in range(10):
            mixed = mix_slices(pack_scans([flat_sample(list(range(6)), labels)]), 1.0, seed)
            partners, share = partners_of(mixed)
            if share:
                unknown = [i == 2 or partner == 2 for i, partner in enumerate(partners)]
                assert mixed.slice_labels[:, 1].isnan().tolist() == unknown
                assert not mixed.slice_labels[:, 0].isnan().any()

    def test_the_loss_of_soft_labels_is_the_mixture_of_losses(self) -> None:
        labels = make_sample(6).slice_labels
        mixed = mix_slices(pack_scans([flat_sample(list(range(6)), labels)]), 1.0, 5)
        partners, share = partners_of(mixed)
        logits = torch.randn(6, K, generator=torch.Generator().manual_seed(0))
        own, others = (
            weighted_log_loss_with_logits(logits, torch.from_numpy(labels[places])).item() for places in (range(6), partners)
        )
        soft = weighted_log_loss_with_logits(logits, mixed.slice_labels).item()
        assert abs(own - others) > 0.01
        assert share > 0
        assert soft == pytest.approx((1 - share) * own + share * others, abs=1e-6)


class TestScanLabels:
    def mixed(self, labels: list[list[float]], seed: int = 1, lengths: tuple[int, ...] | None = None) -> ScanBatch:
        """Scans with the first of their labels given, of 8 slices unless lengths are; the other labels are 1."""
        lengths = lengths or (8,) * len(labels)
        samples = []
        for number, (given, length) in enumerate(zip(labels, lengths, strict=True)):
            values = np.ones(K, np.float32)
            values[: len(given)] = given
            sample = make_sample(length, seed=number)
            samples.append(sample._replace(scan_labels=values))
        return mix_slices(pack_scans(samples), 1.0, seed)

    def test_negative_together_stays_negative_and_the_rest_is_unknown(self) -> None:
        nan = float("nan")
        mixed = self.mixed([[0, 0, 0], [0, 1, nan], [0, 0, 0]])
        assert (mixed.scan_labels[:, 0] == 0).all()
        assert mixed.scan_labels[:, 1:].isnan().all()

    def test_one_scan_among_its_own_slices_keeps_what_is_known(self) -> None:
        nan = float("nan")
        mixed = self.mixed([[0, 1, nan]])
        np.testing.assert_array_equal(mixed.scan_labels, [[0, 1, nan, 1, 1, 1]])

    def test_only_company_counts(self) -> None:
        """A scan that was mixed with nothing but negative ones is negative, whatever else is in the batch."""
        kept = changed = 0
        for seed in range(60):
            mixed = self.mixed([[0], [0], [1]], seed, lengths=(1, 1, 1))
            partners, share = partners_of(mix_slices(flat_batch((1, 1, 1), 32), 1.0, seed))
            if not share:
                continue
            for scan, partner in enumerate(partners):
                label = mixed.scan_labels[scan, 0]
                if scan == partner:
                    assert label == float(scan == 2)
                    kept += 1
                elif 2 in (scan, partner):
                    assert label.isnan()
                    changed += 1
                else:
                    assert label == 0
        assert kept > 10
        assert changed > 10
