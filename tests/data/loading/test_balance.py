"""Weights that make all hemorrhage types equally frequent."""

import logging

import numpy as np
import pytest

from ich_lstm.data.loading.balance import MOST_DRAWS, balanced_weights
from ich_lstm.labels import LABELS

NAN = np.nan


def make_labels(scans: int = 2000, seed: int = 0) -> list[np.ndarray]:
    """Scans of which four in ten have a hemorrhage, with an epidural one in a hundred."""
    random = np.random.default_rng(seed)
    found = []
    for shown in random.random((scans, 5)) < np.array([0.02, 0.5, 0.4, 0.4, 0.45]) * (random.random((scans, 1)) < 0.4):
        labels = np.zeros((30, len(LABELS)), np.float32)
        for column in np.flatnonzero(shown):
            first = random.integers(0, 20)
            labels[first : first + random.integers(2, 10), column] = 1
        labels[:, -1] = labels.max(axis=1)
        found.append(labels)
    return found


def whole(slices: list[np.ndarray]) -> np.ndarray:
    return np.array([labels.max(axis=0) for labels in slices])


class TestBalancedWeights:
    def test_positive_slices_of_all_types_are_equally_many(self) -> None:
        slices = make_labels()
        weights = balanced_weights(slices, whole(slices))
        counts = np.array([labels.sum(axis=0) for labels in slices])
        before, after = counts.sum(axis=0)[:5], (weights @ counts)[:5]
        assert before.max() > 10 * before.min()
        assert after.max() < 1.02 * after.min()
        assert weights.mean() == pytest.approx(1)

    def test_scans_of_the_rarest_type_come_most_often(self) -> None:
        slices = make_labels()
        weights = balanced_weights(slices, whole(slices))
        epidural = whole(slices)[:, 0] == 1
        assert weights[epidural].min() > np.percentile(weights[~epidural], 99)

    def test_scans_that_show_the_same_weigh_the_same(self) -> None:
        slices = make_labels(300)
        weights = balanced_weights(slices, whole(slices))
        for pattern in np.unique(whole(slices), axis=0):
            assert np.ptp(weights[(whole(slices) == pattern).all(axis=1)]) < 1e-9

    def test_labels_of_whole_scans_count_too(self) -> None:
        scans = np.zeros((100, len(LABELS)), np.float32)
        scans[:40, 1] = scans[40:44, 4] = 1
        scans[44:50] = NAN
        weights = balanced_weights([np.full((5, len(LABELS)), NAN, np.float32)] * 100, scans)
        assert weights[:40].sum() == pytest.approx(weights[40:44].sum(), rel=0.02)

    def test_without_any_hemorrhage_nothing_changes(self) -> None:
        slices = [np.zeros((4, len(LABELS)), np.float32)] * 3
        assert balanced_weights(slices, whole(slices)).tolist() == [1, 1, 1]

    def test_types_that_cannot_be_told_apart_are_named(self, caplog: pytest.LogCaptureFixture) -> None:
        scans = np.zeros((30, len(LABELS)), np.float32)
        scans[:10, 1] = scans[:5, 2] = 1
        scans[5:10, 1] = 1
        scans[5:10, 3] = 1  # neither 2 nor 3 comes without 1
        with caplog.at_level(logging.WARNING):
            weights = balanced_weights([np.full((5, len(LABELS)), NAN, np.float32)] * 30, scans)
        assert "intraventricular" in caplog.text
        assert np.isfinite(weights).all()
        assert weights.max() <= MOST_DRAWS**2
