"""Labelled scans as a torch dataset that yields packed batches."""

from collections.abc import Sequence

from torch.utils.data import Dataset

from ich_lstm.data.batch import ScanBatch, ScanSample, pack_scans
from ich_lstm.data.cache import read_cached
from ich_lstm.data.join import LabelledScan
from ich_lstm.data.parts import Parts, SampleRequest, scan_labels_of_part
from ich_lstm.pixels.augment import Geometry, sample_seed


class ScanDataset(Dataset):
    """Batches of cached scans, or of parts of them; a pure function of what is requested.

    Args:
        scans: The scans.
        geometry: Augmentation, or None.
        parts: How a scan is made into samples; whole scans by default.
        seed: Seed of all draws.
    """

    def __init__(
        self, scans: Sequence[LabelledScan], geometry: Geometry | None = None, *, parts: Parts | None = None, seed: int = 0
    ) -> None:
        self.scans = list(scans)
        self.geometry = geometry
        self.parts = parts or Parts()
        self.seed = seed

    @property
    def lengths(self) -> list[int]:
        """Slices of each scan."""
        return [len(scan.slice_labels) for scan in self.scans]

    def __getitem__(self, requests: Sequence[SampleRequest]) -> ScanBatch:
        """A batch: the sampler asks for scans, not for one scan."""
        return pack_scans([self._sample(request) for request in requests])

    def _sample(self, request: SampleRequest) -> ScanSample:
        scan = self.scans[request.scan]
        slice_labels, scan_labels = scan.slice_labels, scan.scan_labels
        chosen = self.parts.choose(len(slice_labels), request, seed=self.seed, identifier=scan.draw_id)
        if chosen is not None:
            slice_labels = slice_labels[chosen]
            scan_labels = scan_labels_of_part(slice_labels, scan_labels)
        cached = read_cached(scan.cache_path, None if chosen is None else chosen.tolist())
        hu = cached.hu
        if self.geometry is not None:
            hu = self.geometry(hu, sample_seed(self.seed, request.epoch, scan.draw_id, draw=request.draw))
        return ScanSample(hu, cached.positions_mm, slice_labels, scan_labels, scan.scan_id)
