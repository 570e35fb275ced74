"""Settings of a data set of synthetic heads."""

from dataclasses import dataclass

from ich_lstm.phantom.checks import RangeCheck

MIN_SLICES, MAX_SLICES = 8, 120
"""Fewer slices do not cover a head; more do not fit into the block of identifiers reserved for each patient."""

MIN_SIZE, MAX_SIZE = 48, 1024
"""Below 48 pixels the skull is thinner than a pixel."""

MAX_PATIENTS = 1_000_000

CHECK = RangeCheck("phantom_setting_out_of_range", "phantom setting")


@dataclass(frozen=True, kw_only=True)
class PhantomSettings:
    """Settings of a data set of synthetic heads; the same settings give the same bytes on every machine.

    Args:
        patients: Number of patients, each with one scan.
        slices: Number of slices per scan; None draws 20 to 45 for each patient, about 5 mm apart.
        size: Rows and columns of an image. Runtime grows with its square.
        seed: Seed of all random draws; a scan is a pure function of it and of the patient's number.
        prevalence: Share of the scans with a hemorrhage; RSNA's training set has 0.41.
        noise: Factor on the image noise; 1 gives a standard deviation of 3 to 5 HU, and 0 gives no noise.
        difficulty: Frequency of confounders, 0 to 1: blood that is not acute, old infarcts, craniotomies, motion, metal, beam
            hardening, and heads off the centre. At 0 there are none.
        masks: Whether the mask of each type is written beside the images.

    Raises:
        ConfigError: If a value is out of range.

    Example:
        >>> PhantomSettings(patients=3, size=64).slices is None
        True
    """

    patients: int = 100
    slices: int | None = None
    size: int = 256
    seed: int = 1
    prevalence: float = 0.41
    noise: float = 1.0
    difficulty: float = 0.0
    masks: bool = False

    def __post_init__(self) -> None:
        CHECK.whole("patients", self.patients, 1, MAX_PATIENTS)
        if self.slices is not None:
            CHECK.whole("slices", self.slices, MIN_SLICES, MAX_SLICES)
        CHECK.whole("size", self.size, MIN_SIZE, MAX_SIZE)
        CHECK.whole("seed", self.seed, 0, 2**63 - 1)
        CHECK.number("prevalence", self.prevalence, 0.0, 1.0)
        CHECK.number("noise", self.noise, 0.0, 10.0)
        CHECK.number("difficulty", self.difficulty, 0.0, 1.0)
        if not isinstance(self.masks, bool):
            raise CHECK.refused("masks", self.masks, "true or false")
