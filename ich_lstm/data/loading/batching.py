"""Settings of sampling and batching that may change from one training stage to the next."""

import math
from dataclasses import dataclass, fields

from ich_lstm.data.loading.slice_sampling import SliceChoice, SliceSampling
from ich_lstm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Batching:
    """The settings of `ScanDataModule` of the same names; their defaults stand there.

    Raises:
        ConfigError: ``batch_out_of_range``, ``part_out_of_range``, ``unknown_sample`` or ``cutmix_out_of_range``.
    """

    slices_per_batch: int
    scans_per_batch: int | None
    slices_per_sample: int | None
    sample: SliceChoice
    balance: bool
    cutmix: float

    def __post_init__(self) -> None:
        if self.slices_per_batch < 1 or (self.scans_per_batch is not None and self.scans_per_batch < 1):
            raise ConfigError(
                "batch_out_of_range",
                where="slices_per_batch, scans_per_batch",
                got=f"{self.slices_per_batch}, {self.scans_per_batch}",
                expected="at least 1, at least 1 or null",
            )
        if not 0 <= self.cutmix < math.inf:
            raise ConfigError("cutmix_out_of_range", where="cutmix", got=str(self.cutmix), expected="0 for none, or above 0")
        SliceSampling(self.slices_per_sample, self.sample)

    @property
    def sampling(self) -> SliceSampling:
        """How a scan is made into samples."""
        return SliceSampling(self.slices_per_sample, self.sample)


BATCHING = tuple(field.name for field in fields(Batching))
"""The names of these settings."""
