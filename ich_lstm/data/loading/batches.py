"""Settings of sampling and batching that may change from one training stage to the next."""

import math
from dataclasses import dataclass

from ich_lstm.data.loading.slice_sampling import SliceChoice, SliceSampling
from ich_lstm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Batches:
    """How training samples are made and put into batches.

    Args:
        slices: The most slices in a batch, at least 1. A longer scan gets a batch of its own.
        scans: The most scans in a batch, at least 1; null for no limit.
        slices_per_sample: The most slices of a scan in a training sample, at least 1; null for whole scans. Evaluation always
            uses whole scans.
        sample: Which slices a training sample has. ``adjacent``: neighbours around a random centre; ``random``: slices drawn from
            the whole scan; ``every``: random groups of the scan's slices, so that each slice comes once per epoch.
        balance: Whether scans with rare hemorrhage types are drawn more often in training, so that all types are equally
            frequent.
        cutmix: Alpha of CutMix over the slices of a training batch (Yun et al. 2019), which gives soft labels; 0 for no CutMix.

    Raises:
        ConfigError: ``batch_out_of_range``, ``part_out_of_range``, ``unknown_sample`` or ``cutmix_out_of_range``.
    """

    slices: int = 256
    scans: int | None = None
    slices_per_sample: int | None = None
    sample: SliceChoice = "adjacent"
    balance: bool = False
    cutmix: float = 0.0

    def __post_init__(self) -> None:
        for name, most in (("slices", self.slices), ("scans", self.scans)):
            is_limit = isinstance(most, int) and most >= 1
            if not is_limit and not (name == "scans" and most is None):
                raise ConfigError(
                    "batch_out_of_range",
                    where=f"batches.{name}",
                    got=repr(most),
                    expected="a whole number, at least 1",
                    todo="ich-train --plan finds how many slices fit into the memory.",
                )
        if not 0 <= self.cutmix < math.inf:
            raise ConfigError("cutmix_out_of_range", where="cutmix", got=str(self.cutmix), expected="0 for none, or above 0")
        SliceSampling(self.slices_per_sample, self.sample)

    @property
    def sampling(self) -> SliceSampling:
        """How a scan is divided into samples."""
        return SliceSampling(self.slices_per_sample, self.sample)
