"""A data set whose samples cannot be loaded; it has a module of its own, which loader processes can import."""

from collections.abc import Sequence

from ich_lstm.data.joining.join import LabelledScan
from ich_lstm.data.loading.batch import ScanBatch
from ich_lstm.data.loading.dataset import ScanDataset
from ich_lstm.data.loading.slice_sampling import SampleRequest


class Failing(ScanDataset):
    """Raises one error after the other."""

    def __init__(self, scans: Sequence[LabelledScan], raised: Sequence[Exception]) -> None:
        super().__init__(scans)
        self.raised = raised

    def _load(self, requests: Sequence[SampleRequest]) -> ScanBatch:
        raise self.raised[requests[0].scan]
