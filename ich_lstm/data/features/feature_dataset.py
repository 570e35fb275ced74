"""Stored features as a torch dataset that yields packed batches, as those of scans are."""

from collections.abc import Sequence
from dataclasses import dataclass

from ich_lstm.data.features.feature_store import FeatureStore, StoredScan, StoredView
from ich_lstm.data.joining.join import LabelledScan
from ich_lstm.data.loading.batch import FeatureBatch, FeatureSample, pack_features
from ich_lstm.data.loading.dataset import ScanDataset
from ich_lstm.data.loading.slice_sampling import SampleRequest, SliceSampling
from ich_lstm.preprocessing.augmentation import sample_seed


@dataclass(frozen=True)
class ScanFeatures:
    """The stored features of all scans of a fit.

    Args:
        plain: Features of the scans as they are.
        augmented: Features of augmented copies; None if there are none.
        views: Number of augmented copies of each training scan.
    """

    plain: FeatureStore
    augmented: FeatureStore | None = None
    views: int = 0

    def read(self, scan: LabelledScan, view: int = 0, slices: Sequence[int] | None = None) -> StoredScan:
        """Read the features of a scan.

        Args:
            scan: The scan.
            view: 0 for the scan as it is, v > 0 for its v-th augmented copy.
            slices: The slices to read, in this order; None for all.

        Raises:
            CacheError: ``features_missing``.
        """
        store = self.augmented if view and self.augmented is not None else self.plain
        return store.read(StoredView(scan.cache_path.stem, view), slices)


class FeatureDataset(ScanDataset):
    """Batches of stored features, as a pure function of the request.

    In training, each scan goes through itself and its augmented copies from epoch to epoch, beginning with any of them.

    Args:
        scans: The labelled scans.
        features: Their stored features.
        training: Whether augmented copies are used.
        sampling: How a scan is divided into samples; by default one sample is a whole scan.
        seed: Seed of all draws.
    """

    def __init__(
        self,
        scans: Sequence[LabelledScan],
        features: ScanFeatures,
        *,
        training: bool = False,
        sampling: SliceSampling | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(scans, sampling=sampling, seed=seed)
        self.features = features
        self.views = features.views if training else 0

    def _load(self, requests: Sequence[SampleRequest]) -> FeatureBatch:
        samples = []
        for request in requests:
            scan, chosen = self.scans[request.scan], self._chosen(request)
            stored = self.features.read(scan, self._view(scan, request), chosen.places)
            samples.append(FeatureSample(*stored, chosen.slice_labels, chosen.scan_labels, chosen.draws, scan.scan_id))
        return pack_features(samples, self.features.plain.features)

    def _view(self, scan: LabelledScan, request: SampleRequest) -> int:
        if not self.views:
            return 0
        first = sample_seed(self.seed, 0, scan.series_uid, purpose="view")
        return (first + request.epoch + request.draw) % (self.views + 1)
