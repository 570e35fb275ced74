"""Labelled scans as a torch dataset that yields packed batches."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from torch.utils.data import Dataset, get_worker_info

from ich_lstm.data.joining.join import LabelledScan
from ich_lstm.data.loading.batch import FeatureBatch, ScanBatch, ScanSample, pack_scans
from ich_lstm.data.loading.cutmix import mix_slices
from ich_lstm.data.loading.slice_sampling import SampleRequest, SliceSampling, scan_labels_of_sample, with_neighbours
from ich_lstm.data.prepared.scan_cache import read_cached
from ich_lstm.errors import IchLstmError, WorkerError
from ich_lstm.preprocessing.augmentation import Geometry, sample_seed
from ich_lstm.preprocessing.intensity import SLICE_STRIDE
from ich_lstm.unexpected import one_of_many

SHARED_MEMORY = "/torch_"
"""Beginning of the names of torch's files in shared memory, in its errors when one cannot be made."""


class ChosenSlices(NamedTuple):
    """The slices of a sample, without their content.

    Args:
        places: Indices of the slices in the scan, in ascending order; None for all slices.
        slice_labels: Labels of the slices, float32 ``(n, k)``.
        scan_labels: Label of the sample, float32 ``(k,)``.
        draws: A seed for each slice, int64 ``(n,)`` in [0, 2**32).
    """

    places: list[int] | None
    slice_labels: np.ndarray
    scan_labels: np.ndarray
    draws: np.ndarray


class ScanDataset(Dataset):
    """Batches of cached scans, or of samples from them, as a pure function of the request.

    In a loader process an error is returned in place of the batch, and the `ScanLoader` raises it. torch would make a new error
    from its text alone, without its code and the name of the file.

    Args:
        scans: The labelled scans to load.
        geometry: Random geometric augmentation, or None.
        sampling: How a scan is divided into samples; by default one sample is a whole scan.
        cutmix: Alpha of CutMix over the slices of a batch (see :func:`~ich_lstm.data.loading.cutmix.mix_slices`); 0 disables it.
        adjacent_slices: How many neighbours on either side come with each slice of a part of a scan, as HU alone. In a whole scan
            they are there already.
        seed: Seed of all draws.
    """

    def __init__(
        self,
        scans: Sequence[LabelledScan],
        geometry: Geometry | None = None,
        *,
        sampling: SliceSampling | None = None,
        cutmix: float = 0.0,
        adjacent_slices: int = 0,
        seed: int = 0,
    ) -> None:
        self.scans = list(scans)
        self.geometry = geometry
        self.sampling = sampling or SliceSampling()
        self.cutmix = cutmix
        self.adjacent_slices = adjacent_slices
        self.seed = seed

    @property
    def lengths(self) -> list[int]:
        """Number of slices of each scan."""
        return [len(scan.slice_labels) for scan in self.scans]

    def __getitem__(self, requests: Sequence[SampleRequest]) -> ScanBatch | FeatureBatch | IchLstmError:
        """Load a batch; the sampler requests several scans at once.

        Returns:
            The batch; in a loader process, the error if it could not be loaded.

        Raises:
            CacheError: If a cached scan is missing or damaged.
            WorkerError: ``shared_memory_full``.
            UnexpectedError: For any other error; it names the scans.
        """
        try:
            # Ids are keyed hashes, which may be shown.
            with one_of_many(f"scans {', '.join(self.scans[request.scan].scan_id for request in requests)}"):
                return self._load(requests)
        except Exception as error:
            failed = _without_shared_memory(error) if SHARED_MEMORY in str(error) else error
            if get_worker_info() is None or not isinstance(failed, IchLstmError):
                raise
            return failed

    def _load(self, requests: Sequence[SampleRequest]) -> ScanBatch | FeatureBatch:
        """Load a batch."""
        batch = pack_scans([self._sample(request) for request in requests])
        if not self.cutmix or not requests:
            return batch
        # The seed depends on all samples and their order, because a slice is mixed differently in another batch.
        members = "\n".join(f"{self.scans[request.scan].series_uid}/{request.draw}" for request in requests)
        return mix_slices(batch, self.cutmix, sample_seed(self.seed, requests[0].epoch, members, purpose="cutmix"))

    def _sample(self, request: SampleRequest) -> ScanSample:
        scan, chosen = self.scans[request.scan], self._chosen(request)
        places, stacks = chosen.places, None
        if places is not None and self.adjacent_slices:
            places, stacks = with_neighbours(places, self.adjacent_slices, len(scan.slice_labels))
        cached = read_cached(scan.cache_path, places)
        positions = cached.positions_mm if stacks is None else cached.positions_mm[stacks[:, self.adjacent_slices]]
        hu = cached.hu
        if self.geometry is not None:
            hu = self.geometry(hu, sample_seed(self.seed, request.epoch, scan.series_uid, draw=request.draw))
        return ScanSample(hu, positions, chosen.slice_labels, chosen.scan_labels, chosen.draws, scan.scan_id, stacks)

    def _chosen(self, request: SampleRequest) -> ChosenSlices:
        """Choose the slices of a sample, as a pure function of the request."""
        scan = self.scans[request.scan]
        slice_labels, scan_labels = scan.slice_labels, scan.scan_labels
        chosen = self.sampling.choose(len(slice_labels), request, seed=self.seed, identifier=scan.series_uid)
        if chosen is not None:
            slice_labels = slice_labels[chosen]
            scan_labels = scan_labels_of_sample(slice_labels, scan_labels)
        # Evaluation sets the seeds too, although it draws nothing, so that every batch has them.
        first = sample_seed(self.seed, request.epoch, scan.series_uid, draw=request.draw, purpose="intensity")
        places = np.arange(len(slice_labels)) if chosen is None else chosen
        draws = (first + places * SLICE_STRIDE) % 2**32
        return ChosenSlices(None if chosen is None else chosen.tolist(), slice_labels, scan_labels, draws)


def _without_shared_memory(error: Exception) -> WorkerError:
    return WorkerError(
        "shared_memory_full",
        where="a loader process",
        got=str(error).splitlines()[0],
        expected="room in shared memory for the batches of all loader processes",
        todo="In a container, give it more (docker's option shm-size). Otherwise use fewer loader processes, or none "
        "(data.num_workers=0).",
    )
